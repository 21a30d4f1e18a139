//! The connections and subscriptions of a run.

use super::Bench;
use super::flow::{Choice, Flow, Pace};
use crate::driver::ConnectionId;
use crate::fault::Fault;
use crate::protocol::{Envelope, Login, Role};
use crate::stamp::Stamp;

/// The wanted connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Connections that send, to the destinations in turn.
    pub(super) publishers: usize,
    /// Destinations, each with receivers of its own.
    pub(super) destinations: usize,
    /// Receivers of each destination.
    pub(super) receivers: usize,
}

/// The open connections.
pub(super) struct Layout {
    streams: Vec<(ConnectionId, Envelope)>,
    receivers: u32,
    ranks: Vec<u32>,
    /// The first destination.
    destination: String,
}

impl Layout {
    /// The first destination.
    pub(super) fn destination(&self) -> &str {
        &self.destination
    }

    /// The flow of messages over these connections.
    pub(super) fn flow(self, pace: Pace, choice: Choice) -> Flow {
        Flow::new(self.streams, self.receivers, self.ranks, pace, choice)
    }
}

impl Bench {
    /// Connects and subscribes: destinations with receivers of their own.
    pub(super) fn open(&mut self, wanted: Wanted) -> Result<Layout, Fault> {
        check_streams(wanted.destinations)?;
        let template = self.load.destination.clone();
        let template =
            template.unwrap_or_else(|| self.driver.protocol().destination_template().into());
        let names = self.destination_names(&template, wanted.destinations)?;
        let mut ranks = Vec::new();
        let mut subscribers = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let owner = self.driver.protocol().owner(name);
            for rank in 0..wanted.receivers {
                let id = match owner.as_ref().filter(|_| rank == 0) {
                    Some(owner) => self.connect(owner)?,
                    None => {
                        let login = self.login(&format!("r{number}-{rank}"), Role::Service);
                        let id = self.connect(&login)?;
                        subscribers.push((id, number));
                        id
                    }
                };
                note_rank(&mut ranks, id, rank as u32);
            }
        }
        // An address can be watched once its owner is logged in.
        self.await_confirmations(0)?;
        for (id, number) in subscribers {
            self.driver.subscribe(id, 0, &names[number]);
            self.await_confirmations(AWAITED_MAX)?;
        }
        self.await_confirmations(0)?;
        let publishers = self.connect_publishers(wanted.publishers)?;
        let receivers = wanted.receivers as u32;
        let streams = self.streams(&names, &publishers);
        Ok(Layout { streams, receivers, ranks, destination: first(names) })
    }

    /// Connects and subscribes: very many destinations that share a few receivers.
    pub(super) fn open_shared(
        &mut self,
        destinations: usize,
        receivers: usize,
        publishers: usize,
    ) -> Result<Layout, Fault> {
        check_streams(destinations)?;
        let template = self.load.destination.clone();
        let template = template.unwrap_or_else(|| self.driver.protocol().topic_template().into());
        let names = self.destination_names(&template, destinations)?;
        let mut ids = Vec::new();
        let mut ranks = Vec::new();
        for number in 0..receivers {
            let login = self.login(&format!("r{number}"), Role::Service);
            let id = self.connect(&login)?;
            note_rank(&mut ranks, id, 0);
            ids.push(id);
        }
        self.await_confirmations(0)?;
        for (number, name) in names.iter().enumerate() {
            self.driver.subscribe(ids[number % ids.len()], (number / ids.len()) as u32, name);
            self.await_confirmations(AWAITED_MAX)?;
        }
        self.await_confirmations(0)?;
        let publishers = self.connect_publishers(publishers)?;
        let streams = self.streams(&names, &publishers);
        Ok(Layout { streams, receivers: 1, ranks, destination: first(names) })
    }

    /// Begins to connect, once few enough others are connecting.
    pub(super) fn connect(&mut self, login: &Login) -> Result<ConnectionId, Fault> {
        self.await_confirmations(CONNECTING_MAX)?;
        self.driver.connect(login)
    }

    /// The login for a name, made unique for this run.
    pub(super) fn login(&self, name: &str, role: Role) -> Login {
        Login { name: format!("{}-{name}", self.run), role }
    }

    /// Runs the loop until at most `awaited_max` confirmations are awaited.
    pub(super) fn await_confirmations(&mut self, awaited_max: u64) -> Result<(), Fault> {
        if self.driver.awaited() <= awaited_max {
            return Ok(());
        }
        let clock = self.driver.clock();
        let mut awaited = self.driver.awaited();
        let mut late_ns = clock.now_ns() + CONFIRMATION_NS_MAX;
        while self.driver.awaited() > awaited_max {
            self.driver.turn(late_ns, &mut |_, _, _| {})?;
            if self.driver.take_ended().is_some() {
                return Err(Fault::Closed);
            }
            let now_ns = clock.now_ns();
            if self.driver.awaited() != awaited {
                awaited = self.driver.awaited();
                late_ns = now_ns + CONFIRMATION_NS_MAX;
            } else if now_ns > late_ns {
                let what = format!("{awaited} logins or subscriptions are not confirmed");
                return Err(Fault::Late(what));
            }
            self.progress.show(now_ns, || format!("connecting: {awaited} to be confirmed"));
        }
        Ok(())
    }

    fn connect_publishers(&mut self, count: usize) -> Result<Vec<ConnectionId>, Fault> {
        let mut publishers = Vec::new();
        for number in 0..count {
            let login = self.login(&format!("s{number}"), Role::Agent);
            publishers.push(self.connect(&login)?);
        }
        self.await_confirmations(0)?;
        Ok(publishers)
    }

    fn streams(
        &self,
        names: &[String],
        publishers: &[ConnectionId],
    ) -> Vec<(ConnectionId, Envelope)> {
        let publishers = publishers.iter().cycle();
        let streams = names.iter().zip(publishers);
        streams.map(|(name, publisher)| (*publisher, self.driver.envelope(name))).collect()
    }

    fn destination_names(&self, template: &str, count: usize) -> Result<Vec<String>, Fault> {
        if count > 1 && !template.contains("{}") {
            return Err(Fault::Usage(format!(
                "--destination {template}: {count} destinations need a \"{{}}\" in it"
            )));
        }
        let names = (0..count).map(|number| format!("{}-{number}", self.run));
        Ok(names.map(|name| template.replace("{}", &name)).collect())
    }
}

/// Logins that may be awaited at once.
const CONNECTING_MAX: u64 = 64;

/// Subscriptions that may be awaited at once.
const AWAITED_MAX: u64 = 256;

/// Time within which the server has to send the next confirmation.
const CONFIRMATION_NS_MAX: u64 = 10_000_000_000;

fn check_streams(count: usize) -> Result<(), Fault> {
    if count > Stamp::STREAMS_MAX as usize {
        return Err(Fault::Usage(format!("at most {} destinations", Stamp::STREAMS_MAX)));
    }
    Ok(())
}

fn first(names: Vec<String>) -> String {
    names.into_iter().next().unwrap_or_default()
}

fn note_rank(ranks: &mut Vec<u32>, id: ConnectionId, rank: u32) {
    if ranks.len() <= id.index() {
        ranks.resize(id.index() + 1, u32::MAX / 2);
    }
    ranks[id.index()] = rank;
}
