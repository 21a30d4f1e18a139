//! The reactor: the only poll and the only clock. It tells the engine what the kernel said, in
//! turns, and accepts and lets go of sockets for it.
//!
//! It does not know STOMP, destinations or what TLS is made of.

mod alarm;
mod clock;
mod listener;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::low_level::signal_name;
use signal_hook_mio::v1_0::Signals;

use self::alarm::Alarm;
use self::clock::Clock;
pub use self::listener::{Families, Listening};
pub use self::socket::{SocketOptions, TcpSocket};
use crate::broker::Moment;
use crate::engine::{Accepted, Engine};
use crate::telemetry::{Latencies, Stage};

/// What the owner of the loop does when a signal asks for it.
pub trait Owner {
    /// Reads keys and certificates again and gives them to the engine, or leaves all as it was.
    fn reload(&mut self, engine: &mut Engine<TcpSocket>);

    /// Exports the latencies; must not block. `elapsed` is the time since the loop was made.
    fn export(&mut self, latencies: &mut Latencies, elapsed: Duration);
}

/// How the loop came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every connection has ended. Some may have been cut before they took their last octets.
    Drained,
    /// A second signal said to leave at once.
    Abandoned,
}

/// How the loop goes about it.
#[derive(Clone, Copy, Debug)]
pub struct ReactorOptions {
    /// What is asked of the kernel for each connection.
    pub sockets: SocketOptions,
    /// Whether to ask for events again and again instead of sleeping until there are some.
    pub busy_poll: bool,
    /// Connections accepted before the established ones get their turn.
    pub accepts_per_turn_max: u32,
    /// Time that all connections together have when the broker drains.
    pub drain_ms_max: u32,
}

/// The loop.
pub struct Reactor {
    poll: Poll,
    events: Events,
    signals: Signals,
    listeners: Vec<Listening>,
    /// Places of listeners that may have a connection to accept.
    to_accept: Vec<usize>,
    /// Whether accepting failed for want of descriptors; it is tried again after a while.
    is_starved: bool,
    clock: Clock,
    alarm: Alarm,
    /// When the last turn was that had something to do, in milliseconds.
    busy_ms: u64,
    options: ReactorOptions,
    /// When the connections that are left are closed, while the broker drains.
    drain_until_ms: Option<u64>,
}

impl Reactor {
    /// Registers listeners and signals.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new(mut listeners: Vec<Listening>, options: ReactorOptions) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        for (index, listener) in listeners.iter_mut().enumerate() {
            let token = Token(FIRST_LISTENER.0 - index);
            poll.registry().register(&mut listener.socket, token, Interest::READABLE)?;
        }
        let alarm = Alarm::new(poll.registry())?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            signals,
            to_accept: (0..listeners.len()).collect(),
            listeners,
            is_starved: false,
            clock: Clock::start(),
            alarm,
            busy_ms: 0,
            options,
            drain_until_ms: None,
        })
    }

    /// When the loop was made, by the wall.
    pub fn started_at(&self) -> std::time::SystemTime {
        self.clock.started_at()
    }

    /// Turns until a signal says to stop and the connections are drained.
    ///
    /// # Errors
    /// The poll failed, which nothing can go on without.
    pub fn run(
        &mut self,
        engine: &mut Engine<TcpSocket>,
        owner: &mut impl Owner,
    ) -> io::Result<Outcome> {
        let mut flushed = self.clock.now();
        loop {
            let polled = self.wait(engine, flushed)?;
            engine.latencies.record(Stage::Poll, polled.ns - flushed.ns);
            let signalled = self.note_events(engine, polled);
            engine.receive(polled);
            let turns = &mut engine.broker_mut().counters.turns;
            *turns += 1;
            if turns.is_multiple_of(Stage::DISPATCH_EVERY) {
                let received = self.clock.now();
                engine.latencies.record(Stage::Dispatch, received.ns - polled.ns);
            }
            engine.flush(polled);
            flushed = self.clock.now();
            engine.latencies.record(Stage::Turn, flushed.ns - polled.ns);
            engine.settle(flushed);
            self.let_go(engine);
            let outcome = if signalled && self.handle_signals(engine, owner, flushed) {
                Some(Outcome::Abandoned)
            } else {
                self.has_drained(engine, flushed.ms()).then_some(Outcome::Drained)
            };
            if let Some(outcome) = outcome {
                engine.abandon(flushed);
                self.let_go(engine);
                return Ok(outcome);
            }
            if !self.to_accept.is_empty() {
                self.accept(engine);
            }
        }
    }

    /// Time since the loop was made.
    pub fn elapsed(&mut self) -> Duration {
        Duration::from_nanos(self.clock.now().ns)
    }

    /// Waits for an event, for work that is left over or for a deadline, and says when it came.
    fn wait(&mut self, engine: &mut Engine<TcpSocket>, now: Moment) -> io::Result<Moment> {
        let ready = engine.has_work() || (!self.to_accept.is_empty() && !self.is_starved);
        if ready {
            self.poll_once(Some(Duration::ZERO))?;
            return Ok(self.clock.now());
        }
        let starved_ms = self.is_starved.then_some(now.ms() + STARVED_RETRY_MS);
        let trim_ms = self.trim_if_idle(engine, now.ms());
        let deadlines = [engine.next_deadline_ms(), self.drain_until_ms, starved_ms, trim_ms];
        let at_ms = deadlines.into_iter().flatten().min();
        if self.options.busy_poll {
            return self.spin(at_ms);
        }
        let timeout = self.alarm.set(at_ms, now.ns)?;
        self.poll_once(timeout)?;
        Ok(self.clock.now())
    }

    /// Where a rush has left memory that is worth something, gives it back once there was nothing to
    /// do for a while. Until then says when to look again.
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

    /// Waits for the same without sleeping. A poll that brings nothing is no turn: it is not recorded,
    /// and nobody is told.
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
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }

    /// Passes on what the kernel said. Says whether there are signals.
    fn note_events(&mut self, engine: &mut Engine<TcpSocket>, now: Moment) -> bool {
        let mut signalled = false;
        for event in &self.events {
            match event.token() {
                SIGNALS => signalled = true,
                ALARM => self.alarm.note_rung(),
                Token(token) if FIRST_LISTENER.0 - token < self.listeners.len() => {
                    let index = FIRST_LISTENER.0 - token;
                    if !self.to_accept.contains(&index) {
                        self.to_accept.push(index);
                    }
                }
                // An event for a place that was used again since is a spurious one, which the
                // engine does not mind.
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

    /// Handles signals; says whether to leave at once.
    #[cold]
    fn handle_signals(
        &mut self,
        engine: &mut Engine<TcpSocket>,
        owner: &mut impl Owner,
        now: Moment,
    ) -> bool {
        let pending: Vec<_> = self.signals.pending().collect();
        for signal in pending {
            match signal {
                SIGHUP => owner.reload(engine),
                SIGUSR1 => owner.export(&mut engine.latencies, Duration::from_nanos(now.ns)),
                _ if self.drain_until_ms.is_some() => return true,
                _ => {
                    log::info!(
                        "draining signal={} connections={} drain_ms_max={}",
                        signal_name(signal).unwrap_or_default(),
                        engine.len(),
                        self.options.drain_ms_max
                    );
                    self.drain_until_ms = Some(now.ms() + u64::from(self.options.drain_ms_max));
                    self.close_listeners();
                    engine.begin_drain(now);
                    self.let_go(engine);
                }
            }
        }
        false
    }

    #[inline]
    fn has_drained(&self, engine: &Engine<TcpSocket>, now_ms: u64) -> bool {
        self.drain_until_ms.is_some_and(|until_ms| engine.is_empty() || now_ms >= until_ms)
    }

    fn close_listeners(&mut self) {
        self.to_accept.clear();
        self.is_starved = false;
        for mut listener in self.listeners.drain(..) {
            let _ = self.poll.registry().deregister(&mut listener.socket);
        }
    }

    #[inline]
    fn let_go(&mut self, engine: &mut Engine<TcpSocket>) {
        while let Some((_, mut socket)) = engine.take_closed() {
            let _ = self.poll.registry().deregister(socket.source());
            // A descriptor is free again.
            self.is_starved = false;
        }
    }

    #[inline(never)]
    fn accept(&mut self, engine: &mut Engine<TcpSocket>) {
        let mut left = self.options.accepts_per_turn_max;
        while let Some(index) = self.to_accept.last().copied() {
            if left == 0 {
                return;
            }
            left -= 1;
            match self.listeners[index].socket.accept() {
                Ok((stream, address)) => self.take_in(engine, index, stream, address),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.to_accept.pop();
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    // The backlog stays and no new edge comes: keep the listener on the list.
                    if !self.is_starved {
                        let Listening { name, address, .. } = &self.listeners[index];
                        let error = error.to_string();
                        log::error!(
                            "accepting failed listener={name:?} address={address} error={error:?}"
                        );
                    }
                    self.is_starved = true;
                    return;
                }
            }
        }
        self.is_starved = false;
    }

    fn take_in(
        &self,
        engine: &mut Engine<TcpSocket>,
        index: usize,
        stream: mio::net::TcpStream,
        address: SocketAddr,
    ) {
        let socket = TcpSocket::new(stream);
        socket.set_options(&self.options.sockets);
        // Who comes over IPv4 to a socket of both families has an address of IPv4 all the same.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let policy = self.listeners[index].policy;
        let accepted = Accepted { address, policy, listener: index as u16 };
        let Ok(id) = engine.accept(socket, accepted) else { return };
        let Some(socket) = engine.socket_mut(id) else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Token(id.slot as usize);
        if let Err(error) = self.poll.registry().register(socket.source(), token, interest) {
            let (name, error) = (&self.listeners[index].name, error.to_string());
            log::error!("registering a connection failed listener={name:?} error={error:?}");
            engine.forget(id);
        }
    }
}

const SIGNALS: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);
/// Listeners count down from here, connections up from zero.
const FIRST_LISTENER: Token = Token(usize::MAX - 2);

const EVENTS_PER_TURN: usize = 1024;

/// After how long without an event the loop tidies up.
const IDLE_MS: u64 = 1_000;

/// How long to wait before accepting is tried again.
const STARVED_RETRY_MS: u64 = 100;

/// Whether only the one connection failed.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
