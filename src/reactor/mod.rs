//! The reactor: the event loop, with the only poll and the only clock. In each turn it passes the
//! kernel's events to the engine; it also accepts connections and drops closed sockets.
//!
//! From outside, it is reached by letters alone ([`Handle`]), which its [`Owner`] reads; signals become
//! letters, too. It does not know the content of letters, STOMP, destinations or TLS.

mod alarm;
mod clock;
mod listener;
mod mailbox;
mod signals;
mod socket;
mod sweep;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;

use self::alarm::Alarm;
use self::clock::Clock;
pub(crate) use self::listener::{Families, Listening};
pub(crate) use self::mailbox::Handle;
pub use self::mailbox::PostFault;
use self::mailbox::{Mailbox, mailbox};
pub(crate) use self::signals::Signal;
use self::signals::SignalSource;
pub(crate) use self::socket::{SocketOptions, TcpSocket};
use self::sweep::Sweep;
use crate::broker::Moment;
use crate::engine::{Accepted, Engine};
use crate::telemetry::Stage;

/// The reader of a loop's letters, which knows their content.
pub(crate) trait Owner {
    /// A request to the loop.
    type Letter;

    /// Does what a letter asks for, and returns its consequence for the loop. It must not block.
    ///
    /// It is called between receive and flush, so that frames that it queues leave in the same turn.
    fn handle(
        &mut self,
        letter: Self::Letter,
        engine: &mut Engine<TcpSocket>,
        now: Moment,
    ) -> Verdict;
}

/// The consequence of a letter for the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// It continues.
    Continue,
    /// It accepts no more connections, and ends when all connections have. No effect if it is draining.
    Drain,
    /// It ends with this turn.
    Stop,
}

/// How the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every connection has ended, some of them possibly with unsent bytes.
    Drained,
    /// It was told to stop at once, and cut the remaining connections.
    Abandoned,
}

/// Settings of the loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReactorOptions {
    /// Socket options of each connection.
    pub sockets: SocketOptions,
    /// Whether to poll without sleeping.
    pub busy_poll: bool,
    /// Connections that are accepted in one turn.
    pub accepts_per_turn_max: u32,
    /// Time for all connections to end when the broker drains.
    pub drain_ms_max: u32,
    /// Letters that may wait to be read, and that are read in one turn at most.
    pub mailbox_letters_max: u32,
}

/// The event loop; `L` is the type of its letters.
pub(crate) struct Reactor<L> {
    poll: Poll,
    events: Events,
    mailbox: Mailbox<L>,
    /// Absent if the signals of the process are not handled here.
    signals: Option<SignalSource<L>>,
    listeners: Vec<Listening>,
    /// Indices of listeners that may have a connection to accept.
    to_accept: Vec<usize>,
    /// Whether accepting failed for lack of descriptors; it is tried again after a while.
    is_starved: bool,
    clock: Clock,
    alarm: Alarm,
    sweep: Sweep,
    /// When the last event of a connection arrived, in milliseconds.
    busy_ms: u64,
    options: ReactorOptions,
    /// When the remaining connections are closed, while the broker drains.
    drain_until_ms: Option<u64>,
}

impl<L> Reactor<L> {
    /// Registers the listeners. Letters posted with the handle wait until the loop runs.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn new(
        mut listeners: Vec<Listening>,
        options: ReactorOptions,
    ) -> io::Result<(Self, Handle<L>)> {
        let poll = Poll::new()?;
        for (index, listener) in listeners.iter_mut().enumerate() {
            let token = Token(FIRST_LISTENER.0 - index);
            poll.registry().register(&mut listener.socket, token, Interest::READABLE)?;
        }
        let (mailbox, handle) = mailbox(poll.registry(), MAILBOX, options.mailbox_letters_max)?;
        let alarm = Alarm::new(poll.registry())?;
        let reactor = Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            mailbox,
            signals: None,
            to_accept: (0..listeners.len()).collect(),
            listeners,
            is_starved: false,
            clock: Clock::start(),
            alarm,
            sweep: Sweep::default(),
            busy_ms: 0,
            options,
            drain_until_ms: None,
        };
        Ok((reactor, handle))
    }

    /// Catches the signals of the process; each becomes a letter.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn watch_signals(&mut self, letter_of: fn(Signal) -> L) -> io::Result<()> {
        self.signals = Some(SignalSource::new(self.poll.registry(), SIGNALS, letter_of)?);
        Ok(())
    }

    /// Wall-clock time at which the loop was made.
    pub(crate) fn started_at(&self) -> std::time::SystemTime {
        self.clock.started_at()
    }

    /// Runs until a letter ends the loop and the connections are drained. Nothing can be posted after
    /// that. Also returns the time since the loop was made.
    ///
    /// # Errors
    /// The poll failed.
    pub(crate) fn run(
        mut self,
        engine: &mut Engine<TcpSocket>,
        owner: &mut impl Owner<Letter = L>,
    ) -> io::Result<(Outcome, Duration)> {
        let mut ended = self.clock.now();
        loop {
            let (polled, due_ms) = self.wait(engine, ended)?;
            let sockets = engine.len() + self.listeners.len() + OWN_SOCKETS;
            let told_ns = self.sweep.note(polled.ns, self.events.iter().count(), sockets);
            engine.begin_turn(due_ms, polled, told_ns);
            engine.latencies.record(Stage::Poll, polled.ns - ended.ns);
            let signalled = self.note_events(engine, polled);
            engine.receive(polled);
            let verdict = if signalled || self.mailbox.has_letters() {
                self.handle_letters(engine, owner, polled)
            } else {
                Verdict::Continue
            };
            if engine.turns().is_multiple_of(Stage::DISPATCH_EVERY) {
                let received = self.clock.now();
                engine.latencies.record(Stage::Dispatch, received.ns - polled.ns);
            }
            engine.flush(polled);
            let flushed = self.clock.now();
            engine.settle(flushed);
            self.drop_closed(engine);
            if let Some(outcome) = self.follow(verdict, engine, flushed) {
                engine.abandon(flushed);
                self.drop_closed(engine);
                engine.latencies.record(Stage::Turn, self.clock.now().ns - polled.ns);
                return Ok((outcome, Duration::from_nanos(self.clock.now().ns)));
            }
            if !self.to_accept.is_empty() {
                self.accept(engine);
            }
            ended = self.clock.now();
            engine.latencies.record(Stage::Turn, ended.ns - polled.ns);
        }
    }

    /// Waits for an event, for work left over from the last turn or for a deadline. Returns the time
    /// after it, and when it was due to end at the latest.
    fn wait(
        &mut self,
        engine: &mut Engine<TcpSocket>,
        now: Moment,
    ) -> io::Result<(Moment, Option<u64>)> {
        let ready = engine.has_work()
            || (!self.to_accept.is_empty() && !self.is_starved)
            || self.mailbox.has_letters();
        if ready {
            self.poll_once(Some(Duration::ZERO))?;
            return Ok((self.clock.now(), Some(now.ms())));
        }
        let starved_ms = self.is_starved.then_some(now.ms() + STARVED_RETRY_MS);
        let trim_ms = self.trim_if_idle(engine, now.ms());
        let deadlines = [engine.next_deadline_ms(), self.drain_until_ms, starved_ms, trim_ms];
        let at_ms = deadlines.into_iter().flatten().min();
        if self.options.busy_poll {
            return Ok((self.spin(at_ms)?, at_ms));
        }
        let timeout = self.alarm.set(at_ms, now.ns)?;
        self.poll_once(timeout)?;
        Ok((self.clock.now(), at_ms))
    }

    /// Frees the memory that a burst has left, once the loop was idle for a while. Before that, returns
    /// when it will have been.
    fn trim_if_idle(&self, engine: &mut Engine<TcpSocket>, now_ms: u64) -> Option<u64> {
        if !engine.has_slack() {
            return None;
        }
        let trim_ms = self.busy_ms + IDLE_MS;
        if now_ms < trim_ms {
            return Some(trim_ms);
        }
        engine.trim();
        None
    }

    /// Waits for an event or for `at_ms` without sleeping. An empty poll is not a turn: nothing is
    /// recorded, and the engine is not called.
    fn spin(&mut self, at_ms: Option<u64>) -> io::Result<Moment> {
        loop {
            self.poll_once(Some(Duration::ZERO))?;
            let now = self.clock.now();
            if !self.events.is_empty() || at_ms.is_some_and(|at_ms| now.ms() >= at_ms) {
                return Ok(now);
            }
        }
    }

    fn poll_once(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut timeout = timeout;
        loop {
            match self.poll.poll(&mut self.events, timeout) {
                // It has no events, though there may be some. A process that was stopped goes on here.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    timeout = Some(Duration::ZERO);
                }
                result => return result,
            }
        }
    }

    /// Passes the kernel's events on. Returns whether there are signals.
    fn note_events(&mut self, engine: &mut Engine<TcpSocket>, now: Moment) -> bool {
        let mut signalled = false;
        for event in &self.events {
            match event.token() {
                SIGNALS => signalled = true,
                ALARM => self.alarm.note_expired(),
                MAILBOX => self.mailbox.note_rung(),
                Token(token) if FIRST_LISTENER.0 - token < self.listeners.len() => {
                    let index = FIRST_LISTENER.0 - token;
                    if !self.to_accept.contains(&index) {
                        self.to_accept.push(index);
                    }
                }
                // If the slot has been reused, the event is spurious, which the engine
                // tolerates.
                Token(slot) => {
                    self.busy_ms = now.ms();
                    let ends = event.is_read_closed() || event.is_error();
                    if ends {
                        engine.note_end_announced(slot as u32);
                    }
                    engine.note_ready(
                        slot as u32,
                        event.is_readable() || ends,
                        event.is_writable(),
                    );
                }
            }
        }
        signalled
    }

    /// Has the letters handled, those of signals first. The strongest verdict counts.
    #[cold] // few turns have letters
    fn handle_letters(
        &mut self,
        engine: &mut Engine<TcpSocket>,
        owner: &mut impl Owner<Letter = L>,
        now: Moment,
    ) -> Verdict {
        let mut verdict = Verdict::Continue;
        for letter in self.signals.iter_mut().flat_map(SignalSource::take_letters) {
            verdict = verdict.max(owner.handle(letter, engine, now));
        }
        for _ in 0..self.mailbox.letters_per_turn_max() {
            let Some(letter) = self.mailbox.take_letter() else { break };
            verdict = verdict.max(owner.handle(letter, engine, now));
        }
        verdict
    }

    /// Applies the verdict of a turn's letters. Returns the outcome if the loop ends.
    #[inline]
    fn follow(
        &mut self,
        verdict: Verdict,
        engine: &mut Engine<TcpSocket>,
        now: Moment,
    ) -> Option<Outcome> {
        match verdict {
            Verdict::Continue => {}
            Verdict::Drain => self.begin_drain(engine, now),
            Verdict::Stop => return Some(Outcome::Abandoned),
        }
        let until_ms = self.drain_until_ms?;
        (engine.is_empty() || now.ms() >= until_ms).then_some(Outcome::Drained)
    }

    #[cold] // once in the life of a loop
    fn begin_drain(&mut self, engine: &mut Engine<TcpSocket>, now: Moment) {
        if self.drain_until_ms.is_some() {
            return;
        }
        self.drain_until_ms = Some(now.ms() + u64::from(self.options.drain_ms_max));
        self.close_listeners();
        engine.begin_drain(now);
        self.drop_closed(engine);
    }

    fn close_listeners(&mut self) {
        self.to_accept.clear();
        self.is_starved = false;
        for mut listener in self.listeners.drain(..) {
            let _ = self.poll.registry().deregister(&mut listener.socket);
        }
    }

    #[inline]
    fn drop_closed(&mut self, engine: &mut Engine<TcpSocket>) {
        while let Some((_, mut socket)) = engine.take_closed() {
            let _ = self.poll.registry().deregister(socket.source());
            // A descriptor becomes free.
            self.is_starved = false;
        }
    }

    #[inline(never)] // large, and few turns accept
    fn accept(&mut self, engine: &mut Engine<TcpSocket>) {
        let mut left = self.options.accepts_per_turn_max;
        while let Some(index) = self.to_accept.last().copied() {
            let is_first = left == self.options.accepts_per_turn_max;
            if left == 0 || !(is_first || engine.has_time()) {
                return;
            }
            left -= 1;
            match self.listeners[index].socket.accept() {
                Ok((stream, address)) => {
                    self.admit(engine, index, stream, address);
                    // One may have lost its place.
                    self.drop_closed(engine);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.to_accept.pop();
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    // Connections stay in the backlog without a new edge, so the listener stays
                    // on the list.
                    if !self.is_starved {
                        let Listening { name, address, .. } = &self.listeners[index];
                        let (advice, error) = (advice(&error), error.to_string());
                        log::error!(listener = name, address:%, error, advice; "accepting failed");
                    }
                    self.is_starved = true;
                    return;
                }
            }
        }
        self.is_starved = false;
    }

    fn admit(
        &self,
        engine: &mut Engine<TcpSocket>,
        index: usize,
        stream: mio::net::TcpStream,
        address: SocketAddr,
    ) {
        let socket = TcpSocket::new(stream);
        socket.set_options(&self.options.sockets);
        // On a socket of both families, an IPv4 address arrives mapped to IPv6.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let policy = self.listeners[index].policy;
        let accepted = Accepted { address, policy, listener: index as u16 };
        let Ok(id) = engine.accept(socket, accepted) else { return };
        let Some(socket) = engine.socket_mut(id) else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Token(id.slot as usize);
        if let Err(error) = self.poll.registry().register(socket.source(), token, interest) {
            let (name, error) = (&self.listeners[index].name, error.to_string());
            log::error!(listener = name, error; "registering a connection failed");
            engine.forget(id);
        }
    }
}

const SIGNALS: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);
const MAILBOX: Token = Token(usize::MAX - 2);
/// Listeners count down from here, connections up from zero.
const FIRST_LISTENER: Token = Token(usize::MAX - 3);

const EVENTS_PER_TURN: usize = 1024;

/// What is polled besides listeners and connections: signals, alarm, mailbox.
const OWN_SOCKETS: usize = 3;

/// Idle time after which memory is freed.
const IDLE_MS: u64 = 1_000;

/// Time after which accepting is tried again if descriptors were lacking.
const STARVED_RETRY_MS: u64 = 100;

/// What helps against a lack of descriptors, for the log.
fn advice(error: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(error)? {
        Errno::MFILE => Some(
            "connections wait unanswered until ulimit -n or LimitNOFILE is raised, or others end",
        ),
        Errno::NFILE => {
            Some("connections wait unanswered until the whole system has descriptors again")
        }
        _ => None,
    }
}

/// Whether the error concerns one connection alone.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
