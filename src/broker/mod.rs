//! The broker: sessions, destinations, subscriptions, and the delivery of messages.
//!
//! It is a plain value. Data of connections comes in by [`Broker::handle`], which returns a verdict on
//! the connection; encoded frames go out through the queues of [`Peers`], and time is an argument. The two
//! dialects are rules at a session's edge; all else is the same for both. It does not know transports,
//! sockets or clocks.

use std::borrow::Cow;

pub(crate) mod bits;
pub(crate) mod destination;
pub(crate) mod encode;
pub(crate) mod encoding;
pub(crate) mod fault;
pub(crate) mod group_table;
pub(crate) mod groups;
pub(crate) mod held;
pub(crate) mod ids;
pub(crate) mod keys;
pub(crate) mod levels;
pub(crate) mod members;
pub(crate) mod message;
pub(crate) mod options;
pub(crate) mod peer;
pub(crate) mod queue;
pub(crate) mod remembered;
pub(crate) mod rights;
pub(crate) mod session;
pub(crate) mod space;
pub(crate) mod speaker;
pub(crate) mod store;
pub(crate) mod subscription;
pub(crate) mod table;
pub(crate) mod transaction;

mod accounts;
mod admission;
mod answer;
mod asker;
mod audit;
mod classic;
mod commit;
mod consume;
mod deliver;
mod desk;
mod drain;
mod execute;
mod expel;
mod fan;
mod hashing;
mod index;
mod job;
mod jobs;
mod leave;
pub(crate) mod line;
mod list;
mod login;
mod pattern;
mod presence;
mod request;
mod returns;
mod room;
mod select;
mod shares;
mod standard;
mod subscribe;
mod wide;
mod wildcards;

use self::admission::Admission;
use self::consume::Leftover;
use self::destination::DestinationTable;
use self::drain::Drain;
use self::encoding::Encoding;
pub use self::fault::{CloseReason, Code};
pub(crate) use self::fault::{Fault, Retry};
use self::groups::Groups;
use self::hashing::NameHasher;
use self::ids::PeerId;
use self::job::Job;
use self::jobs::Jobs;
pub(crate) use self::jobs::News;
pub(crate) use self::keys::KeyFault;
pub use self::keys::Keys;
pub(crate) use self::line::Source;
pub use self::options::Options;
use self::peer::{Closure, Opening, Peers};
use self::presence::Announcements;
pub use self::rights::Rights;
use self::room::Reserved;
use self::select::LoginTable;
use self::session::SessionTable;
use self::shares::Shares;
use self::speaker::Inlet;
pub(crate) use self::speaker::{Data, Done, Speaker, Verdict};
use self::store::Store;
use self::subscription::SubscriptionTable;
use self::transaction::TransactionAccounts;
use crate::buffer::{Body, Lent};
use crate::limits::Limits;
use crate::telemetry::Counters;
use crate::work::Meter;

/// A moment, by two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Nanoseconds of a monotonic clock.
    pub ns: u64,
    /// Milliseconds since 1970, UTC.
    pub unix_ms: u64,
}

impl Moment {
    /// Milliseconds of the monotonic clock.
    pub fn ms(self) -> u64 {
        self.ns / 1_000_000
    }
}

/// Sessions, destinations and subscriptions, and the connections of the sessions.
pub struct Broker {
    /// Every connection's state and outbound queue.
    pub peers: Peers,
    /// Counters of sessions and messages.
    pub counters: Counters,
    limits: Limits,
    admission: Admission,
    virtual_hosts: Vec<String>,
    dead_letter_queue: Option<String>,
    entropy: Box<dyn FnMut() -> u128>,
    sessions: SessionTable,
    destinations: DestinationTable,
    subscriptions: SubscriptionTable,
    groups: Groups,
    /// What sessions hold of the tables that all share.
    shares: Shares,
    /// The messages of queues.
    store: Store,
    /// What queues left to later turns.
    leftover: Leftover,
    /// What open transactions occupy.
    transactions: TransactionAccounts,
    /// Room for the steps of transactions that are being executed.
    reserved: Reserved,
    /// Whether messages in queues are being dropped for those of other senders.
    is_dropping: bool,
    /// The slot at which the last search for a group whose members pay has ended.
    payers_sought: u32,
    /// The number of the last message, from which its `message-id` is made.
    last_message: u64,
    /// Logins that wait.
    logins: LoginTable,
    /// Presence events that are sent to many services.
    announcements: Announcements,
    /// Counts the work.
    pub(crate) meter: Meter,
    jobs: Jobs,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Broker")
            .field("peers", &self.peers.len())
            .field("sessions", &self.sessions.len())
            .field("destinations", &self.destinations.len())
            .field("subscriptions", &self.subscriptions.len())
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// A broker without connections.
    pub fn new(mut options: Options) -> Self {
        let secret = (options.entropy)();
        let hasher = NameHasher::new(secret);
        let announcements = Announcements::new(&options.limits);
        Self {
            peers: Peers::new(),
            counters: Counters::default(),
            limits: options.limits,
            admission: Admission::new(options.keys, options.rights),
            virtual_hosts: options.virtual_hosts,
            dead_letter_queue: options.dead_letter_queue,
            sessions: SessionTable::default(),
            groups: Groups::new(secret),
            subscriptions: SubscriptionTable::new(hasher.clone()),
            destinations: DestinationTable::new(hasher.clone()),
            entropy: options.entropy,
            shares: Shares::default(),
            store: Store::new(secret),
            leftover: Leftover::default(),
            transactions: TransactionAccounts::default(),
            reserved: Reserved::new(hasher),
            is_dropping: false,
            payers_sought: 0,
            last_message: 0,
            logins: LoginTable::default(),
            announcements,
            meter: Meter::default(),
            jobs: Jobs::default(),
        }
    }

    /// Adds a connection, which has to log in before anything else.
    pub fn open_peer(&mut self, opening: Opening) -> Speaker {
        let peer = self.peers.open(opening, self.limits.outbound_before_login());
        Speaker::new(peer, opening.dialect)
    }

    /// Handles data of a connection. If the connection is closing, the data is dropped: another connection
    /// may have taken its session over earlier in the turn.
    #[inline]
    pub fn handle(&mut self, speaker: &mut Speaker, data: Data<'_>, now: Moment) -> Done {
        match &mut speaker.inlet {
            Inlet::Classic => classic::handle(self, speaker.peer, data.lent, now),
            Inlet::Standard(assembler) => {
                standard::handle(self, speaker.peer, assembler, data, now)
            }
            Inlet::Gathering(_) => self.gather(speaker, data.lent, now),
        }
    }

    /// Goes on with frames of a connection that were left when its share of a turn was used up.
    #[cold] // few connections use up their share
    pub fn resume(&mut self, speaker: &mut Speaker, now: Moment) -> Done {
        let login = self.resume_login(speaker, now);
        if let Some(verdict @ Verdict::Closing(_)) = login {
            return Done { verdict, ..Done::nothing() };
        }
        let done = match &mut speaker.inlet {
            _ if login.is_some() && self.is_busy(speaker.peer) => {
                let verdict = login.unwrap_or(Verdict::Stays);
                return Done { verdict, pauses: true, ..Done::nothing() };
            }
            Inlet::Classic => Done::nothing(),
            Inlet::Gathering(frame) => {
                let frame = std::mem::take(frame);
                speaker.inlet = Inlet::Classic;
                match frame.lent() {
                    Lent { bytes: [], .. } => Done::nothing(),
                    lent => classic::handle(self, speaker.peer, lent, now),
                }
            }
            Inlet::Standard(assembler) => standard::resume(self, speaker.peer, assembler, now),
        };
        match (login, done.verdict) {
            (Some(verdict), Verdict::Stays) => Done { verdict, ..done },
            _ => done,
        }
    }

    /// Goes on with a login that waited.
    fn resume_login(&mut self, speaker: &Speaker, now: Moment) -> Option<Verdict> {
        let peer = speaker.peer;
        if self.peers.peer(peer).closure().is_some() {
            return None;
        }
        let lines = self.take_login(peer)?;
        let headers = lines.headers();
        let connected = match speaker.inlet {
            Inlet::Standard(_) => standard::connect(self, peer, &headers, now),
            Inlet::Classic | Inlet::Gathering(_) => classic::connect(self, peer, &headers, now),
        };
        // It may have to wait again.
        if !matches!(connected, Ok(false)) {
            self.remove_login(peer);
        }
        Some(match connected {
            Ok(true) => Verdict::LoggedIn,
            Ok(false) => Verdict::Stays,
            Err(fault) => self.refuse(peer, &fault, now),
        })
    }

    /// Whether the next frame of a client that pauses may be passed to [`Self::handle`] nevertheless, which handles
    /// it if it can join the wide message before it, and else holds it.
    #[cold] // few clients pause
    pub fn gathers(&self, speaker: &mut Speaker) -> bool {
        let gathers =
            !matches!(speaker.inlet, Inlet::Standard(_)) && self.has_open_wide(speaker.peer);
        if gathers && matches!(speaker.inlet, Inlet::Classic) {
            speaker.inlet = Inlet::Gathering(Body::default());
        }
        gathers
            && matches!(&speaker.inlet, Inlet::Gathering(frame) if frame.lent().bytes.is_empty())
    }

    /// Whether a client's last message is a wide one that has not begun.
    fn has_open_wide(&self, client: PeerId) -> bool {
        self.jobs.open_wide(client).is_some()
    }

    #[cold] // only behind a wide message
    fn gather(&mut self, speaker: &mut Speaker, lent: Lent<'_>, now: Moment) -> Done {
        if classic::follows_wide(self, speaker.peer, lent.bytes) {
            return classic::handle(self, speaker.peer, lent, now);
        }
        speaker.inlet = Inlet::Gathering(Body::new(lent));
        Done { pauses: true, ..Done::nothing() }
    }

    /// Begins a share of a turn.
    #[inline]
    pub(crate) fn begin_share(&mut self, units: u32) {
        let pending = self.pending_units();
        self.meter.begin(units + pending as u32);
    }

    /// Begins a share that ends at a count of units, but has at least so many.
    #[inline]
    pub(crate) fn begin_share_until(&mut self, end: u64, least: u32) {
        self.begin_share(least);
        self.meter.extend(end);
    }

    /// Whether the share is used up, by what was done and by the writes that follow from it, or nothing more may be
    /// encoded before these.
    #[inline]
    pub(crate) fn is_share_spent(&self) -> bool {
        self.is_time_spent() || self.peers.arena.is_full()
    }

    /// Whether the share is used up, for work that encodes nothing.
    #[inline]
    pub(crate) fn is_time_spent(&self) -> bool {
        self.meter.is_spent(self.pending_units())
    }

    /// Units that are left of the share.
    #[inline]
    pub(crate) fn units_left(&self) -> u64 {
        self.meter.left().saturating_sub(self.pending_units())
    }

    /// As [`Self::units_left`], but one at least.
    fn slice_units(&self) -> u32 {
        self.units_left().clamp(1, u64::from(u32::MAX)) as u32
    }

    /// Units since the start, with those of the writes that are due.
    #[inline]
    pub(crate) fn work_done(&self) -> u64 {
        self.meter.spent() + self.pending_units()
    }

    /// Whether a client is not to be handled any further in this turn.
    #[inline]
    fn pauses(&self, peer: PeerId) -> bool {
        self.is_share_spent() || self.is_busy(peer)
    }

    /// Whether a job of a client runs.
    #[inline]
    fn is_busy(&self, peer: PeerId) -> bool {
        self.jobs.is_any() && self.peers.peer(peer).is_busy()
    }

    /// Units for the writes that are due.
    #[inline]
    fn pending_units(&self) -> u64 {
        self.peers.pending_units()
    }

    /// Sends an ERROR to a client. Unless the connection stays open after the fault, ends the session and
    /// closes the connection.
    pub fn refuse(&mut self, peer: PeerId, fault: &Fault, now: Moment) -> Verdict {
        self.refuse_request(peer, fault, None, now)
    }

    /// As [`Self::refuse`], with the receipt that the faulty request asked for. In the standard dialect
    /// every ERROR closes the connection.
    fn refuse_request(
        &mut self,
        peer: PeerId,
        fault: &Fault,
        receipt: Option<&[u8]>,
        now: Moment,
    ) -> Verdict {
        let one = self.peers.peer(peer);
        if let Some(closure) = one.closure() {
            return Verdict::Closing(closure.reason);
        }
        let encoding = one.encoding;
        let stays = encoding == Encoding::Classic && fault.stays_in_classic();
        // Of two reasons to close, the frame that was dropped came first.
        let overflow = (!stays && one.lost_a_frame()).then(|| one.overflow());
        let fault = overflow.as_ref().unwrap_or(fault);
        self.count_fault(fault.code);
        let write = |out: &mut Vec<u8>| write_error(out, encoding, fault, receipt);
        if stays {
            self.peers.reply(peer, write);
            return Verdict::Stays;
        }
        let reason = fault.close_reason();
        self.end_session(peer, reason, now);
        if fault.code == Code::SlowConsumer {
            let units = self.peers.discard_unsent(peer);
            self.meter.spend(units);
        }
        let closure = Closure { reason, retry: Some(fault.retry()) };
        self.peers.reply_last(peer, closure, write);
        Verdict::Closing(reason)
    }

    /// Refuses an orderly end to a client that has lost a message, and closes its connection as that of a slow
    /// consumer.
    pub(crate) fn cut_overflowed(&mut self, peer: PeerId, now: Moment) -> Option<Verdict> {
        let one = self.peers.peer(peer);
        let fault = one.lost_a_frame().then(|| one.overflow())?;
        Some(self.refuse(peer, &fault, now))
    }

    /// Closes the connection of a client that was silent for longer than the named limit allows; in the
    /// standard dialect, with an ERROR.
    pub fn cut_silent(&mut self, peer: PeerId, limit: &'static str, now: Moment) -> Verdict {
        match self.peers.peer(peer).encoding {
            Encoding::Classic => {
                Verdict::Closing(self.end_peer(peer, CloseReason::TimedOut(limit), now))
            }
            Encoding::Standard(_) => self.refuse(peer, &Fault::silent(limit), now),
        }
    }

    /// Ends a connection's session without an ERROR; its queue is still written. Returns why the connection
    /// closes, which is the earlier reason if it was closing already.
    pub fn end_peer(&mut self, peer: PeerId, reason: CloseReason, now: Moment) -> CloseReason {
        self.end_session(peer, reason, now);
        self.peers.begin_close(peer, Closure { reason, retry: None }).reason
    }

    /// Removes a connection, and ends the session on it, if there still is one.
    pub fn close_peer(&mut self, peer: PeerId, reason: CloseReason, now: Moment) {
        self.end_session(peer, reason, now);
        self.remove_login(peer);
        let units = self.peers.close(peer);
        self.meter.spend(units);
    }

    /// Closes the connections of slow consumers, of which it is known what they had taken at `judged_ms`, a
    /// time as those of [`peer::Peers::note_flushed`], as far as the share of the turn lasts. To be called after a
    /// flush.
    pub fn cut_slow_consumers(&mut self, now: Moment, judged_ms: u64) {
        while let Some(peer) = self.peers.take_overflowing(judged_ms) {
            let fault = self.peers.peer(peer).overflow();
            self.refuse(peer, &fault, now);
            if self.is_share_spent() {
                return;
            }
        }
    }

    /// Tells each client that the broker is shutting down, and closes its connection, once what was accepted is
    /// delivered: at half of `drain_ms_max` at the latest.
    pub fn drain(&mut self, now: Moment) {
        self.jobs.note_accepted();
        let peers = self.peers.iter().map(|(id, _)| id).collect();
        let until_ms = now.ms() + u64::from(self.limits.drain_ms_max / 2);
        self.start(None, Job::Drain(Drain::new(peers, until_ms)), now);
    }

    /// Replaces the keys. Sessions stay.
    pub fn set_keys(&mut self, keys: Keys) {
        self.admission.set_keys(keys);
    }

    /// The number of sessions.
    pub fn sessions_len(&self) -> usize {
        self.sessions.len()
    }

    /// The number of destinations.
    pub fn destinations_len(&self) -> usize {
        self.destinations.len()
    }

    /// The number of subscriptions.
    pub fn subscriptions_len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Memory of what waits to be written.
    #[inline]
    pub fn queued_bytes(&self) -> u64 {
        self.peers.arena.resident_bytes()
    }

    /// The number of jobs that have begun.
    pub fn jobs_len(&self) -> usize {
        self.jobs.len()
    }

    /// Panics if the tables contradict each other.
    pub fn check_invariants(&self) {
        self.peers.check_invariants();
        self.destinations.check_invariants();
        self.check_queue_invariants();
        let begun = self.sessions.iter().flat_map(|(_, session)| &session.transactions);
        let begun: u64 = begun.map(|transaction| transaction.bytes).sum();
        let open = self.transactions.open_bytes();
        assert_eq!(begun, open, "memory of open transactions");
        self.check_reserved();
        self.jobs.check_invariants();
        self.subscriptions.check_invariants();
        let idle = self.destinations.idle_topics_len();
        assert!(idle <= self.limits.idle_topics_max as usize, "more topics than may be idle");
        for (id, session) in self.sessions.iter() {
            assert_eq!(self.destinations[session.destination].owner, Some(id));
            let found = self.destinations.owner_of(session.login(&self.destinations));
            assert_eq!(found, Some(id), "a login id leads to its one session");
            assert_eq!(self.peers.peer(session.peer).session(), Some(id));
        }
        for (id, destination) in self.destinations.iter() {
            if let Some(owner) = destination.owner {
                assert_eq!(self.sessions[owner].destination, id);
            }
        }
        self.check_subscriptions();
        let connected = self.peers.iter().filter(|(_, peer)| peer.session().is_some()).count();
        assert_eq!(connected, self.sessions.len(), "sessions and connections that carry them");
    }

    fn count_fault(&mut self, code: Code) {
        match code {
            Code::SlowConsumer => self.counters.slow_consumers += 1,
            Code::LimitExceeded => self.counters.limit_exceeded += 1,
            Code::MalformedCommand
            | Code::UnknownCommand
            | Code::MalformedHeader
            | Code::MalformedFrame
            | Code::MissingHeader
            | Code::WrongSession => self.counters.protocol_errors += 1,
            Code::InvalidApplicationKey
            | Code::InvalidProfileKey
            | Code::WrongProfile
            | Code::AlreadyLogged
            | Code::UnsupportedVersion
            | Code::UnknownHost => self.counters.logins_refused += 1,
            _ => {}
        }
    }

    /// The fault of a request with an unknown id.
    pub(super) fn unknown(what: &str, id: &[u8]) -> Fault {
        let description = format!("there is no {what} {}", printable(id));
        Fault::closing(Code::UnknownId, Retry::Never, description)
    }
}

/// Writes an ERROR in an encoding.
fn write_error(out: &mut Vec<u8>, encoding: Encoding, fault: &Fault, receipt: Option<&[u8]>) {
    match encoding {
        Encoding::Classic => classic::write_error(out, fault),
        Encoding::Standard(version) => standard::write_error(out, version, fault, receipt),
    }
}

/// Text of a client for a description: shortened, and without control characters.
fn printable(text: &[u8]) -> Cow<'_, str> {
    const SHOWN_BYTES_MAX: usize = 120;
    let shown = &text[..text.len().min(SHOWN_BYTES_MAX)];
    match String::from_utf8_lossy(shown) {
        clean if !clean.contains(|c: char| c.is_control()) => clean,
        other => Cow::Owned(other.replace(|c: char| c.is_control(), "?")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;
    use crate::limits::OutboundLimits;
    use crate::outbound::{ENCODED_BYTES_MAX, Framing};
    use crate::profile::ByProfile;

    #[test]
    fn idle_topics_are_bounded_however_they_are_made() {
        for idle_topics_max in [0, 2] {
            let limits = Limits {
                idle_topics_max,
                subscriptions_per_session_max: ByProfile::all(0),
                ..Limits::default()
            };
            let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
            let mut broker = Broker::new(Options::new(limits, keys, Box::new(|| 1)));
            let (dialect, framing) = (Dialect::Classic, Framing::LengthPrefix);
            let mut ana = broker.open_peer(Opening { slot: 0, number: 1, framing, dialect });
            let mut say = |text: &str| {
                let data = Data::unshared(text.as_bytes());
                broker.handle(&mut ana, data, Moment::default());
                broker.check_invariants();
                broker.destinations_len()
            };
            assert_eq!(say("CONNECT\nlogin:ana\npasscode:agent\nsecret-key:app\n\n"), 1);
            let most = 1 + idle_topics_max as usize;
            for number in 0..5 {
                assert!(say(&format!("SEND\ndestination:/topic/{number}\n\nx")) <= most);
            }
            // A refused subscription keeps no topic alive.
            let refused = "SUBSCRIBE\ndestination:/topic/x\ndestination-type:0\n\n";
            assert!(say(refused) <= most);
        }
    }

    /// A body that is too small to be shared.
    const BODY: usize = 60_000;

    /// Limits that let the queue of a client become long.
    fn roomy_limits() -> Limits {
        let mut limits =
            Limits { queue_share_bytes_max: ByProfile::all(64 << 20), ..Limits::default() };
        limits.outbound = limits.outbound.map(|one| OutboundLimits {
            hard_bytes_max: 256 << 20,
            soft_bytes_max: 128 << 20,
            ..one
        });
        limits
    }

    /// Empties queues and lanes as a flush does.
    fn flush(broker: &mut Broker) {
        let all: Vec<_> = broker.peers.iter().map(|(id, _)| id).collect();
        all.into_iter().for_each(|id| _ = broker.peers.discard_unsent(id));
        broker.peers.arena.end_turn();
    }

    #[test]
    fn no_more_is_encoded_than_a_turn_may_whatever_there_is_to_deliver() {
        let limits = roomy_limits();
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        let mut broker = Broker::new(Options::new(limits, keys, Box::new(|| 1)));
        let (dialect, framing) = (Dialect::Standard, Framing::Line);
        let mut speakers: Vec<_> = (0..3)
            .map(|slot| broker.open_peer(Opening { slot, number: 1, framing, dialect }))
            .collect();
        let mut say = |broker: &mut Broker, who: usize, text: &str| {
            let bytes = format!("{text}\0").into_bytes();
            broker.begin_share(u32::MAX / 2);
            broker.handle(&mut speakers[who], Data::unshared(&bytes), NOW);
        };
        for who in 0..3 {
            say(&mut broker, who, &format!("CONNECT\nlogin:{who}\npasscode:app.service\n\n"));
        }
        let body = "x".repeat(BODY);
        (0..630)
            .for_each(|_| say(&mut broker, 0, &format!("SEND\ndestination:/queue/a\n\n{body}")));
        flush(&mut broker);
        say(&mut broker, 1, "SUBSCRIBE\nid:1\ndestination:/queue/a\n\n");
        say(&mut broker, 2, "SUBSCRIBE\nid:1\ndestination:/queue/a\n\n");
        // Each SUBSCRIBE is behind a flush in fact, and would deliver one message in any case.
        let most = ENCODED_BYTES_MAX + 2 * BODY + BODY / 2;
        let mut turns = 0;
        while broker.store.len() > 0 {
            let encoded = broker.peers.arena.turn_bytes();
            assert!(broker.peers.arena.is_full() && encoded < most, "{encoded} bytes");
            broker.begin_share(u32::MAX / 2);
            broker.serve_backlog(NOW);
            assert_eq!(broker.peers.arena.turn_bytes(), encoded, "queues wait");
            if broker.store.len() < 3 {
                break;
            }
            flush(&mut broker);
            broker.begin_share(u32::MAX / 2);
            broker.serve_backlog(NOW);
            turns += 1;
        }
        assert!(turns > 2, "{turns}");
        broker.drain(NOW);
        let encoded = broker.peers.arena.turn_bytes();
        broker.advance_jobs(NOW);
        assert_eq!(broker.peers.arena.turn_bytes(), encoded, "jobs wait");
        flush(&mut broker);
        broker.begin_share(u32::MAX / 2);
        broker.advance_jobs(NOW);
        assert_eq!((broker.sessions_len(), broker.jobs_len()), (0, 0));
    }

    const NOW: Moment = Moment { ns: 0, unix_ms: 0 };

    #[test]
    fn a_login_id_that_is_a_key_is_refused_and_not_shown() {
        for (login, is_refused) in [
            ("service", true),
            ("app.agent", true),
            ("ana.app", false),
            ("app.ana.service", false),
            ("service-7", false),
            ("ana.b", false),
        ] {
            let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
            let mut broker = Broker::new(Options::new(Limits::default(), keys, Box::new(|| 1)));
            let (dialect, framing) = (Dialect::Classic, Framing::LengthPrefix);
            let mut peer = broker.open_peer(Opening { slot: 0, number: 1, framing, dialect });
            let text = format!("CONNECT\nlogin:{login}\npasscode:agent\nsecret-key:app\n\n");
            let data = Data::unshared(text.as_bytes());
            let verdict = broker.handle(&mut peer, data, Moment::default()).verdict;
            assert_eq!(matches!(verdict, Verdict::Closing(_)), is_refused, "{login}");
            assert_eq!(broker.past_login_of(peer.peer), None, "{login}");
        }
    }

    #[test]
    fn each_broker_hashes_names_under_a_secret_of_its_own() {
        let hash_under = |secret| {
            let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
            let options = Options::new(Limits::default(), keys, Box::new(move || secret));
            Broker::new(options).destinations.hash_of(b"/agent/ana")
        };
        assert_ne!(hash_under(1), hash_under(2));
        assert_ne!(hash_under(1 << 64), hash_under(2 << 64));
    }

    #[test]
    fn a_login_with_a_wrong_key_is_refused_and_counted() {
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        let mut broker = Broker::new(Options::new(Limits::default(), keys, Box::new(|| 1)));
        let (dialect, framing) = (Dialect::Classic, Framing::LengthPrefix);
        let opening = Opening { slot: 0, number: 1, framing, dialect };
        let mut speaker = broker.open_peer(opening);
        let bytes = b"CONNECT\nlogin:ana\npasscode:wrong\nsecret-key:app\n\n";
        let data = Data::unshared(bytes);
        let reason = CloseReason::Refused(Code::InvalidProfileKey);
        let done = broker.handle(&mut speaker, data, Moment::default());
        assert_eq!(done, Done { frames: 1, verdict: Verdict::Closing(reason), pauses: false });
        let closure = broker.peers.peer(speaker.peer).closure().unwrap();
        assert_eq!((closure.reason, closure.retry), (reason, Some(Retry::Never)));
        assert_eq!((broker.counters.logins, broker.counters.logins_refused), (0, 1));
        broker.check_invariants();
    }
}
