//! A storm of logins: connect, log in, leave, and again.

use super::{Bench, Load};
use crate::driver::{ConnectionId, Driver, Notice};
use crate::fault::Fault;
use crate::outcome::{Outcome, Series};
use crate::process::Server;
use crate::protocol::Role;
use crate::statistics::Latencies;

/// Logs in over and over, with `concurrency` connections at a time.
///
/// # Errors
/// The run failed.
pub fn logins(bench: &mut Bench, concurrency: usize) -> Result<Outcome, Fault> {
    let clock = bench.driver.clock();
    let begun_ns = clock.now_ns();
    let start_ns = begun_ns + bench.load.warmup_ns;
    let end_ns = start_ns + bench.load.duration_ns;
    let mut storm = Storm { done: Vec::new(), under_way: 0, logged_in: 0 };
    let mut latencies = Latencies::default();
    let (mut cpu_start, mut counted) = (None, 0);
    let mut number = 0_u64;
    loop {
        let now_ns = clock.now_ns();
        if now_ns >= start_ns && cpu_start.is_none() {
            cpu_start = Some(cpu_ns(&bench.load));
        }
        if now_ns >= end_ns {
            break;
        }
        while storm.under_way < concurrency {
            let login = bench.login(&format!("l{number}"), Role::Agent);
            number += 1;
            bench.driver.connect(&login)?;
            storm.under_way += 1;
        }
        storm.turn(&mut bench.driver, now_ns + 1_000_000)?;
        for (id, now_ns) in std::mem::take(&mut storm.done) {
            let taken_ns = now_ns.saturating_sub(bench.driver.begun_ns(id));
            bench.driver.close(id);
            storm.under_way -= 1;
            if now_ns >= start_ns {
                latencies.record(taken_ns);
                counted += 1;
            }
        }
        bench.progress.show(now_ns, || format!("logins: {} so far", storm.logged_in));
    }
    bench.progress.finish();
    let cpu_end = cpu_ns(&bench.load);
    let cpu_start = cpu_start.flatten();
    Ok(Outcome {
        scenario: format!("logins, {concurrency} at once"),
        target: bench.driver.target().url.clone(),
        elapsed_ns: clock.now_ns() - start_ns,
        sent: counted,
        deliveries: counted,
        unit: Some("login"),
        latencies: vec![Series { name: "login", latencies }],
        cpu_ns: cpu_end.zip(cpu_start).map(|(end, start)| end.saturating_sub(start)),
        memory: bench.load.server.as_ref().and_then(Server::memory_bytes),
        ..Outcome::default()
    })
}

struct Storm {
    /// Connections that have just logged in, and when.
    done: Vec<(ConnectionId, u64)>,
    under_way: usize,
    logged_in: u64,
}

impl Storm {
    fn turn(&mut self, driver: &mut Driver, wake_ns: u64) -> Result<(), Fault> {
        driver.turn(wake_ns, &mut |id, notice, now_ns| {
            if notice == Notice::Confirmed {
                self.done.push((id, now_ns));
                self.logged_in += 1;
            }
        })?;
        match driver.take_ended() {
            Some(_) => Err(Fault::Closed),
            None => Ok(()),
        }
    }
}

fn cpu_ns(load: &Load) -> Option<u64> {
    load.server.as_ref().and_then(Server::cpu_ns)
}
