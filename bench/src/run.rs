//! A run of a scenario, as its arguments define it.

use crate::arguments::{Command, Common, ServerPid};
use crate::clock::Clock;
use crate::driver::{Driver, DriverOptions, tls};
use crate::fault::Fault;
use crate::outcome::Outcome;
use crate::process::Server;
use crate::protocol::{Credentials, protocol_of};
use crate::scenario::{self, Bench, Load};
use crate::stamp::Stamp;
use crate::target::Target;

/// Runs a scenario once.
///
/// # Errors
/// The run failed.
pub fn measure(command: &Command) -> Result<Outcome, Fault> {
    let Some(common) = command.common() else {
        return Err(Fault::Usage("not a scenario".into()));
    };
    common.check()?;
    let mut bench = common.bench()?;
    let mut outcome = match command {
        Command::RoundTrip(_) => bench.round_trip(),
        Command::Rate(rate) => bench.rate(rate.rate, rate.pairs),
        Command::FanOut(fan_out) => {
            bench.fan_out(fan_out.receivers, fan_out.deliveries, fan_out.window)
        }
        Command::Pairs(pairs) => bench.pairs(pairs.pairs, pairs.window),
        Command::Destinations(one) => {
            bench.destinations(one.destinations, one.receivers, one.publishers, one.window)
        }
        Command::Logins(logins) => scenario::logins(&mut bench, logins.concurrency),
        Command::Idle(idle) => scenario::idle(&mut bench, idle.connections),
        Command::StoppedReader(one) => {
            scenario::stopped_reader(&mut bench, one.receivers, one.deliveries)
        }
        Command::Floor(_) | Command::Compare(_) => unreachable!("it has no common arguments"),
    }?;
    if outcome.unit.is_none() {
        outcome.body_bytes = common.body;
    }
    Ok(outcome)
}

impl Common {
    fn check(&self) -> Result<(), Fault> {
        let wrong = |text: String| Err(Fault::Usage(text));
        if self.body < Stamp::BYTES || self.body > BODY_BYTES_MAX {
            return wrong(format!("--body {}: {} to {BODY_BYTES_MAX}", self.body, Stamp::BYTES));
        }
        if self.duration == 0 {
            return wrong("--duration 0: nothing would be measured".into());
        }
        Ok(())
    }

    fn bench(&self) -> Result<Bench, Fault> {
        let target = Target::parse(&self.url)?;
        let tls = match target.carrier.is_tls() {
            true => Some(tls::config(self.tls_ca.as_deref(), self.tls_resume)?),
            false => None,
        };
        let protocol = protocol_of(&target, self.credentials()?);
        let options = DriverOptions { spins: !self.sleep, tls, body_bytes: self.body };
        let server = match self.server_pid {
            None => None,
            Some(ServerPid::Pid(pid)) => Some(Server::of(pid)?),
            Some(ServerPid::Listener) => Some(Server::listening_on(target.address.port())?),
        };
        let load = Load {
            warmup_ns: self.warmup,
            duration_ns: self.duration,
            drain_ns: self.drain,
            server,
            destination: self.destination.clone(),
            is_quiet: self.quiet,
        };
        let driver = Driver::new(target, protocol, Clock::start(), options)?;
        Ok(Bench::new(driver, load))
    }

    fn credentials(&self) -> Result<Credentials, Fault> {
        let key = |name: &str, development: &str| {
            std::env::var(name).unwrap_or_else(|_| development.into())
        };
        let passcode = match &self.passcode_env {
            Some(name) => Some(std::env::var(name).map_err(|_| {
                Fault::Usage(format!("--passcode-env {name}: no such environment variable"))
            })?),
            None => None,
        };
        Ok(Credentials {
            login: self.login.clone(),
            passcode,
            application_key: key("COM_BROKER_KEY_APPLICATION", "my_app_secret_key"),
            agent_key: key("COM_BROKER_KEY_AGENT", "my_agent_secret_key"),
            service_key: key("COM_BROKER_KEY_SERVICE", "my_service_secret_key"),
            virtual_host: self.vhost.clone(),
        })
    }
}

const BODY_BYTES_MAX: usize = 1 << 20;
