//! An engine with clients of every kind on scripted sockets, turn by turn, and what is true after each turn
//! whoever the clients are.

use std::collections::VecDeque;

use com_broker::internal::broker::Profile;
use com_broker::internal::engine::ConnectionId;
use com_broker::internal::work::{ESCAPED_LINE, FREE, HANDSHAKE, READ, WRITE};
use com_broker::limits::{Limits, OutboundLimits};
use com_broker::{ByProfile, internal::broker::Options};

use crate::client::{Carrier, Client, Envelope, Event};
use crate::faults::SocketFaults;
use crate::random::Random;
use crate::rig::{APPLICATION_KEY, PROFILE_KEYS, Rig};
use crate::scripted_socket::ScriptedSocket;

/// Limits that are as the default ones to each other, so that few clients exceed them: as large a share of a turn,
/// and as large a turn beside the largest frame.
pub(super) fn limits() -> Limits {
    let client =
        OutboundLimits { hard_bytes_max: 96 << 10, soft_bytes_max: 24 << 10, soft_ms_max: 40 };
    Limits {
        turn_units_max: TURN_UNITS,
        share_units_max: TURN_UNITS * 8 / 25,
        read_bytes_per_turn_max: 64 << 10,
        write_bytes_per_turn_max: 32 << 10,
        connections_max: 400,
        body_bytes_max: 64 << 10,
        inbound_total_bytes_max: 1 << 20,
        login_id_bytes_max: 1 << 10,
        takeovers_max: 1_000_000,
        subscriptions_per_session_max: ByProfile::all(100),
        subscriptions_max: 3_000,
        destinations_max: 3_000,
        destinations_bytes_max: 2 << 20,
        destination_share_bytes_max: ByProfile::all(256 << 10),
        patterns_max: 60,
        wildcards_max: 60,
        patterns_per_session_max: ByProfile::all(15),
        wildcards_per_session_max: ByProfile::all(15),
        transaction_bytes_max: ByProfile::all(72 << 10),
        transactions_total_bytes_max: 256 << 10,
        idle_topics_max: IDLE_TOPICS,
        queue_messages_max: 2_000,
        queues_bytes_max: 1 << 20,
        queue_share_bytes_max: Limits::queue_shares(1 << 20),
        queue_ms_max: 5_000,
        prefetch_max: 500,
        outbound: ByProfile::all(client),
        outbound_total_bytes_max: 2 << 20,
        pause_ms_max: 5,
        ..Limits::default()
    }
}

/// Units of a turn: a fifth of the default, which is still more than the largest single step, a TLS handshake.
pub(super) const TURN_UNITS: u32 = 1_200;

/// Topics that stay without a subscriber.
pub(super) const IDLE_TOPICS: u32 = 50;

/// A client, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Who(usize);

/// What a client is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) profile: Profile,
    pub(super) carrier: Carrier,
    pub(super) is_standard: bool,
}

struct Link {
    kind: Kind,
    client: Client,
    place: Place,
    /// Whether it takes what the broker writes.
    reads: bool,
    /// Whether frames are kept for [`Town::heard`].
    listens: bool,
    heard: Vec<String>,
    /// Whether it has ended its stream.
    has_left: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the backlog of the listener.
    Waiting,
    At(ConnectionId),
    Gone,
}

/// The engine and its clients.
pub(super) struct Town {
    pub(super) rig: Rig,
    links: Vec<Link>,
    backlog: VecDeque<usize>,
    pub(super) random: Random,
    limits: Limits,
    /// The most units of a turn so far.
    pub(super) longest: u64,
    /// Units of all turns.
    pub(super) units: u64,
    pub(super) turns: u32,
    /// Allowed above the units of a turn.
    pub(super) allowance: u64,
    /// Processor time of all turns in nanoseconds.
    pub(super) busy_ns: u64,
}

impl Town {
    /// A town, in which some clients may use TLS.
    pub(super) fn new(seed: u64, uses_tls: bool) -> Self {
        let limits = limits();
        let allowance = allowance(&limits, uses_tls);
        Self {
            rig: Rig::with(limits.clone(), seed, |options: &mut Options| {
                options.dead_letter_queue = Some("/queue/dead".to_owned());
            }),
            links: Vec::new(),
            backlog: VecDeque::new(),
            random: Random::new(seed),
            limits,
            longest: 0,
            units: 0,
            turns: 0,
            allowance,
            busy_ns: 0,
        }
    }

    /// A client that connects.
    pub(super) fn open(&mut self, kind: Kind) -> Who {
        let client = match kind.is_standard {
            true => Client::standard(kind.carrier),
            false => Client::new(kind.carrier, "/"),
        };
        self.add(kind, client)
    }

    /// A client that connects and says nothing by itself.
    pub(super) fn open_bare(&mut self, carrier: Carrier) -> Who {
        let kind = Kind { profile: Profile::Agent, carrier, is_standard: true };
        self.add(kind, Client::without_upgrade(carrier))
    }

    fn add(&mut self, kind: Kind, client: Client) -> Who {
        let place = Place::Waiting;
        self.links.push(Link {
            kind,
            client,
            place,
            reads: true,
            listens: false,
            heard: Vec::new(),
            has_left: false,
        });
        self.backlog.push_back(self.links.len() - 1);
        Who(self.links.len() - 1)
    }

    /// A client that connects and logs in.
    pub(super) fn join(&mut self, login: &str, kind: Kind, more: &str) -> Who {
        let who = self.open(kind);
        self.log_in(who, login, more);
        who
    }

    pub(super) fn log_in(&mut self, who: Who, login: &str, more: &str) {
        let kind = self.links[who.0].kind;
        let key = PROFILE_KEYS[kind.profile];
        let versions = if kind.is_standard { "accept-version:1.2\nhost:h\n" } else { "" };
        let versions = if more.contains("accept-version") { "" } else { versions };
        self.say(
            who,
            &format!(
                "CONNECT\n{versions}{more}login:{login}\npasscode:{key}\n\
                 secret-key:{APPLICATION_KEY}\n\n"
            ),
        );
    }

    /// A client sends a frame, which ends with a NUL in the standard dialect.
    pub(super) fn say(&mut self, who: Who, text: &str) {
        let link = &mut self.links[who.0];
        let kind = link.kind;
        let is_stream = !kind.carrier.is_websocket();
        let mut bytes = text.as_bytes().to_vec();
        if kind.is_standard || !is_stream {
            bytes.push(0);
        }
        let envelope =
            if kind.is_standard && is_stream { Envelope::Bare } else { Envelope::Ordinary };
        link.client.send(&bytes, &envelope);
    }

    /// A client sends a frame in an envelope.
    pub(super) fn say_in(&mut self, who: Who, frame: &[u8], envelope: &Envelope) {
        self.links[who.0].client.send(frame, envelope);
    }

    /// A client sends bytes.
    pub(super) fn write(&mut self, who: Who, bytes: &[u8]) {
        self.links[who.0].client.write(bytes);
    }

    pub(super) fn client(&mut self, who: Who) -> &mut Client {
        &mut self.links[who.0].client
    }

    /// Whether the broker has read what a client has sent before, so that it is not ahead by more than the kernel
    /// would buffer.
    pub(super) fn is_read(&mut self, who: Who) -> bool {
        match self.links[who.0].place {
            Place::At(id) => {
                let socket = self.rig.engine.socket_mut(id);
                socket.is_some_and(|socket| socket.inbound_len() < 16 << 10)
            }
            Place::Waiting => false,
            Place::Gone => true,
        }
    }

    pub(super) fn is_gone(&self, who: Who) -> bool {
        self.links[who.0].place == Place::Gone
    }

    pub(super) fn is_waiting(&self, who: Who) -> bool {
        self.links[who.0].place == Place::Waiting
    }

    /// A client keeps what it hears.
    pub(super) fn listen(&mut self, who: Who) {
        self.links[who.0].listens = true;
    }

    /// Frames that a client has heard.
    pub(super) fn heard(&mut self, who: Who) -> Vec<String> {
        std::mem::take(&mut self.links[who.0].heard)
    }

    /// A client takes no more than the kernel's buffers from now on.
    pub(super) fn stop_reading(&mut self, who: Who) {
        let link = &mut self.links[who.0];
        if link.reads {
            link.reads = false;
            if let Place::At(id) = link.place
                && let Some(socket) = self.rig.engine.socket_mut(id)
            {
                socket.set_window(4 << 10);
            }
        }
    }

    /// A client ends its stream.
    pub(super) fn leave(&mut self, who: Who) {
        self.links[who.0].has_left = true;
    }

    /// A client's connection breaks.
    pub(super) fn reset(&mut self, who: Who) {
        let Place::At(id) = self.links[who.0].place else {
            self.backlog.retain(|index| *index != who.0);
            self.links[who.0].place = Place::Gone;
            return;
        };
        if let Some(socket) = self.rig.engine.socket_mut(id) {
            socket.reset();
            self.rig.engine.note_ready(id.slot, true, true);
        }
    }

    /// A turn, a millisecond after the last one.
    pub(super) fn turn(&mut self) -> Result<(), String> {
        self.rig.advance(1);
        self.carry_inbound();
        let began_ns = processor_ns();
        self.rig.bare_turn();
        self.busy_ns += processor_ns() - began_ns;
        let closed = self.rig.take_closed();
        self.accept();
        self.rig.engine.check_invariants();
        self.carry_outbound(closed);
        self.turns += 1;
        self.judge()
    }

    /// Hands the bytes of all clients over, in any order.
    fn carry_inbound(&mut self) {
        let mut order: Vec<_> = (0..self.links.len())
            .filter(|index| matches!(self.links[*index].place, Place::At(_)))
            .collect();
        for index in (1..order.len()).rev() {
            order.swap(index, self.random.below(index as u64 + 1) as usize);
        }
        for index in order {
            let link = &mut self.links[index];
            let Place::At(id) = link.place else { continue };
            let wire = link.client.take_wire();
            let Some(socket) = self.rig.engine.socket_mut(id) else { continue };
            let ends = link.has_left && socket.end_inbound();
            if !wire.is_empty() {
                socket.push_inbound(&wire);
            }
            let writable = socket.take_writable();
            if ends || writable || !wire.is_empty() {
                self.rig.engine.note_ready(id.slot, ends || !wire.is_empty(), writable);
            }
        }
    }

    /// Accepts as the reactor does.
    fn accept(&mut self) {
        for accepted in 0..self.limits.accepts_per_turn_max {
            if accepted > 0 && !self.rig.engine.has_time() {
                return;
            }
            let Some(index) = self.backlog.pop_front() else { return };
            let mut socket = ScriptedSocket::new(self.rig.ticks.clone(), SocketFaults::none());
            if !self.links[index].reads {
                socket.set_window(4 << 10);
            }
            self.links[index].place = match self.rig.accept(socket) {
                Some(id) => Place::At(id),
                None => Place::Gone,
            };
        }
    }

    fn carry_outbound(&mut self, closed: Vec<(ConnectionId, ScriptedSocket)>) {
        let tick = self.rig.ticks.get();
        for link in &mut self.links {
            let Place::At(id) = link.place else { continue };
            if let Some(socket) = self.rig.engine.socket_mut(id) {
                link.take(socket, tick);
            }
        }
        for (id, mut socket) in closed {
            let link = self.links.iter_mut().find(|link| link.place == Place::At(id));
            let link = link.expect("a client of the town");
            link.take(&mut socket, tick);
            link.place = Place::Gone;
        }
    }

    /// Whether the turn kept the bounds.
    fn judge(&mut self) -> Result<(), String> {
        let units = self.rig.engine.turn_units();
        self.longest = self.longest.max(units);
        self.units += units;
        let max = u64::from(self.limits.turn_units_max) + self.allowance;
        if units > max {
            let jobs = self.rig.engine.broker().jobs_len();
            return Err(format!(
                "turn {}: {units} units, {max} allowed; {jobs} jobs are left",
                self.turns
            ));
        }
        // A turn may encode so much before it finds that memory is short.
        let slack = u64::from(self.limits.body_bytes_max) * 4;
        let inbound = self.rig.engine.inbound_bytes();
        let held = self.rig.engine.broker().held();
        let inbound = ("inbound_total_bytes_max", inbound, self.limits.inbound_total_bytes_max);
        for (name, bytes, bytes_max) in held.into_iter().chain([inbound]) {
            if bytes > bytes_max + slack {
                return Err(format!("{bytes} bytes are held, {name} allows {bytes_max}"));
            }
        }
        Ok(())
    }
}

impl Link {
    fn take(&mut self, socket: &mut ScriptedSocket, tick: u64) {
        if !self.reads {
            return;
        }
        while let Some((_, bytes)) = socket.take_outbound() {
            let is_needed =
                self.listens || !self.client.is_ready() || self.kind.carrier == Carrier::Tls;
            if is_needed {
                self.client.handle_wire(tick, &bytes);
            }
        }
        for (_, event) in self.client.take_events() {
            if let (true, Event::Frame(frame)) = (self.listens, event) {
                self.heard.push(String::from_utf8_lossy(&frame).into_owned());
            }
        }
    }
}

/// What a turn may have above its units: the share that began just before the end of its stage, the minimum of
/// each stage after it, the writes that come on top of it, and the largest single step of any kind, which is the
/// signature of a TLS handshake or the frame with the largest body; and behind that a job may end with a step of its own.
/// Without TLS the two largest are not taken together, which would be half a turn more.
fn allowance(limits: &Limits, uses_tls: bool) -> u64 {
    let share = u64::from(limits.share_units_max);
    let minimums = u64::from(limits.turn_units_max) / 32 * 7;
    let step = match uses_tls {
        true => u64::from(HANDSHAKE + LINES_STEP),
        false => LARGEST_STEP + WIDE_STEP,
    };
    let writes = u64::from(limits.turn_units_max / 25 * WRITE);
    share + minimums + step + writes
}

/// Units of the largest single step without TLS: the last share in which something is read may end with a frame with
/// the largest body that is read at once and as many lines with escapes as there may be, handled, answered and written;
/// and the queue of a receiver that is cut may be freed.
const LARGEST_STEP: u64 = 64 + 64 + (LINES_STEP + READ + 2 * WRITE + 30 * FREE) as u64;

/// Units of the largest step of a job: a message with as many lines with escapes as there may be.
const LINES_STEP: u32 = 256 * ESCAPED_LINE;

/// Units of the largest step of a job that is usual: many messages to one receiver that does not read.
const WIDE_STEP: u64 = 128 * 3;

/// Processor time of this thread in nanoseconds.
pub(crate) fn processor_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
