//! The reactor: the only poll and the only clock. It tells the engine what the kernel said, in
//! turns, and accepts and lets go of sockets for it.
//!
//! From outside it is reached by letters alone ([`Handle`]), which its [`Owner`] reads; signals are
//! letters, too. It does not know what a letter says, STOMP, destinations or what TLS is made of.

mod alarm;
mod clock;
mod listener;
mod mailbox;
mod signals;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};

use self::alarm::Alarm;
use self::clock::Clock;
pub(crate) use self::listener::{Families, Listening};
pub(crate) use self::mailbox::Handle;
pub use self::mailbox::PostFault;
use self::mailbox::{Mailbox, mailbox};
pub(crate) use self::signals::Signal;
use self::signals::SignalSource;
pub(crate) use self::socket::{SocketOptions, TcpSocket};
use crate::broker::Moment;
use crate::engine::{Accepted, Engine};
use crate::telemetry::Stage;

/// Who reads the letters of a loop, and knows what they say.
pub(crate) trait Owner {
    /// What can be asked of it.
    type Letter;

    /// Does what a letter asks for, and says what that means for the loop. It must not block.
    ///
    /// It is called between reading and flushing, so that what it queues to connections leaves in the
    /// same turn.
    fn handle(
        &mut self,
        letter: Self::Letter,
        engine: &mut Engine<TcpSocket>,
        now: Moment,
    ) -> Verdict;
}

/// What a letter means for the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// It goes on.
    GoesOn,
    /// It accepts nobody any more, and ends when all connections have. Nothing new if it drains already.
    Drains,
    /// It ends with this turn.
    Leaves,
}

/// How the loop came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every connection has ended. Some may have been cut before they took their last bytes.
    Drained,
    /// It was told to leave at once, and cut what was left.
    Abandoned,
}

/// How the loop goes about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReactorOptions {
    /// What is asked of the kernel for each connection.
    pub sockets: SocketOptions,
    /// Whether to ask for events again and again instead of sleeping until there are some.
    pub busy_poll: bool,
    /// Connections accepted before the established ones get their turn.
    pub accepts_per_turn_max: u32,
    /// Time that all connections together have when the broker drains.
    pub drain_ms_max: u32,
    /// Letters that may wait to be read, and that are read in one turn.
    pub mailbox_letters_max: u32,
}

/// The loop; `L` is what a letter to it says.
pub(crate) struct Reactor<L> {
    poll: Poll,
    events: Events,
    mailbox: Mailbox<L>,
    /// Absent where the signals of the process are somebody else's.
    signals: Option<SignalSource<L>>,
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

impl<L> Reactor<L> {
    /// Registers the listeners. Letters posted by the handle wait until the loop runs.
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
            busy_ms: 0,
            options,
            drain_until_ms: None,
        };
        Ok((reactor, handle))
    }

    /// Catches the signals of the process from now on; each becomes a letter.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn watch_signals(&mut self, letter_of: fn(Signal) -> L) -> io::Result<()> {
        self.signals = Some(SignalSource::new(self.poll.registry(), SIGNALS, letter_of)?);
        Ok(())
    }

    /// When the loop was made, by the wall.
    pub(crate) fn started_at(&self) -> std::time::SystemTime {
        self.clock.started_at()
    }

    /// Turns until a letter says to stop and the connections are drained. Then nothing can be posted any
    /// more. Gives the time since the loop was made as well.
    ///
    /// # Errors
    /// The poll failed, which nothing can go on without.
    pub(crate) fn run(
        mut self,
        engine: &mut Engine<TcpSocket>,
        owner: &mut impl Owner<Letter = L>,
    ) -> io::Result<(Outcome, Duration)> {
        let mut flushed = self.clock.now();
        loop {
            let polled = self.wait(engine, flushed)?;
            engine.latencies.record(Stage::Poll, polled.ns - flushed.ns);
            let signalled = self.note_events(engine, polled);
            engine.receive(polled);
            let verdict = if signalled || self.mailbox.has_letters() {
                self.handle_letters(engine, owner, polled)
            } else {
                Verdict::GoesOn
            };
            if engine.turns().is_multiple_of(Stage::DISPATCH_EVERY) {
                let received = self.clock.now();
                engine.latencies.record(Stage::Dispatch, received.ns - polled.ns);
            }
            engine.flush(polled);
            flushed = self.clock.now();
            engine.latencies.record(Stage::Turn, flushed.ns - polled.ns);
            engine.settle(flushed);
            self.let_go(engine);
            if let Some(outcome) = self.follow(verdict, engine, flushed) {
                engine.abandon(flushed);
                self.let_go(engine);
                return Ok((outcome, Duration::from_nanos(self.clock.now().ns)));
            }
            if !self.to_accept.is_empty() {
                self.accept(engine);
            }
        }
    }

    /// Waits for an event, for work that is left over or for a deadline, and says when it came.
    fn wait(&mut self, engine: &mut Engine<TcpSocket>, now: Moment) -> io::Result<Moment> {
        let ready = engine.has_work()
            || (!self.to_accept.is_empty() && !self.is_starved)
            || self.mailbox.has_letters();
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
                MAILBOX => self.mailbox.note_rung(),
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

    /// Has the letters read, those of signals first; the strongest verdict counts.
    #[cold]
    fn handle_letters(
        &mut self,
        engine: &mut Engine<TcpSocket>,
        owner: &mut impl Owner<Letter = L>,
        now: Moment,
    ) -> Verdict {
        let mut verdict = Verdict::GoesOn;
        for letter in self.signals.iter_mut().flat_map(SignalSource::take_letters) {
            verdict = verdict.max(owner.handle(letter, engine, now));
        }
        for _ in 0..self.mailbox.letters_per_turn_max() {
            let Some(letter) = self.mailbox.take_letter() else { break };
            verdict = verdict.max(owner.handle(letter, engine, now));
        }
        verdict
    }

    /// Does to the loop what the letters of a turn mean, and says whether it ends.
    #[inline]
    fn follow(
        &mut self,
        verdict: Verdict,
        engine: &mut Engine<TcpSocket>,
        now: Moment,
    ) -> Option<Outcome> {
        match verdict {
            Verdict::GoesOn => {}
            Verdict::Drains => self.begin_drain(engine, now),
            Verdict::Leaves => return Some(Outcome::Abandoned),
        }
        let until_ms = self.drain_until_ms?;
        (engine.is_empty() || now.ms() >= until_ms).then_some(Outcome::Drained)
    }

    #[cold]
    fn begin_drain(&mut self, engine: &mut Engine<TcpSocket>, now: Moment) {
        if self.drain_until_ms.is_some() {
            return;
        }
        self.drain_until_ms = Some(now.ms() + u64::from(self.options.drain_ms_max));
        self.close_listeners();
        engine.begin_drain(now);
        self.let_go(engine);
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
const MAILBOX: Token = Token(usize::MAX - 2);
/// Listeners count down from here, connections up from zero.
const FIRST_LISTENER: Token = Token(usize::MAX - 3);

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
