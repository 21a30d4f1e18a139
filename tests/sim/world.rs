//! The simulation: clients that connect, log in, send, watch, stop reading and disconnect, on a network
//! with faults, against a model of what each of them has to see.
//!
//! A run is determined by a seed. Every step draws one action, hands some bytes of clients to the engine,
//! runs a turn of the loop, feeds what the engine has read to the model, and compares what clients got.

use std::collections::BTreeSet;

use com_broker::internal::broker::{CloseReason, Code, Options};
use com_broker::internal::engine::ConnectionId;
use com_broker::limits::{Limits, OutboundLimits};
use com_broker::{ByProfile, Profile};

use crate::actors::{Actor, Understood, session_id, understand, understand_standard};
use crate::client::{Carrier, Event};
use crate::faults::{Faults, SocketFaults};
use crate::model::{Ask, Command, DEAD, Fates, Model, Number, PATTERNS, Seen, Target, address};
use crate::random::Random;
use crate::rig::Rig;
use crate::scripted_socket::{Activity, ScriptedSocket};

/// One run.
pub(crate) struct World {
    rig: Rig,
    random: Random,
    faults: Faults,
    limits: Limits,
    carriers: &'static [Carrier],
    actors: Vec<Actor>,
    model: Model,
    /// The acknowledgement modes of this run.
    modes: &'static [&'static str],
    /// Ended clients of the standard dialect that had not read all that was written to them.
    unread: BTreeSet<Number>,
    /// Ticks at which the turn and the drain began.
    turn_tick: u64,
    drain_tick: u64,
    last_number: u64,
    last_transaction: u64,
    is_verbose: bool,
}

/// Counts of what happened in a run, to check that the runs reach all cases.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) delivered: u64,
    pub(crate) takeovers: u64,
    pub(crate) slow_consumers: u64,
    pub(crate) publishers_paused: u64,
    pub(crate) timeouts: u64,
    pub(crate) refused: u64,
    /// Fates of messages in queues.
    pub(crate) fates: Fates,
}

impl Tally {
    /// Adds the counts of another run.
    pub(crate) fn add(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.takeovers += other.takeovers;
        self.slow_consumers += other.slow_consumers;
        self.publishers_paused += other.publishers_paused;
        self.timeouts += other.timeouts;
        self.refused += other.refused;
        self.fates.add(other.fates);
    }

    /// Counts that satisfy every check.
    pub(crate) fn plenty() -> Self {
        let many = u64::MAX;
        Self {
            delivered: many,
            takeovers: many,
            slow_consumers: many,
            publishers_paused: many,
            timeouts: many,
            refused: many,
            fates: Fates {
                acknowledged: many,
                automatic: many,
                returned: many,
                dead: many,
                lost: 0,
                followed: many,
            },
        }
    }
}

impl World {
    /// A world without clients.
    pub(crate) fn new(seed: u64, carriers: &'static [Carrier], is_verbose: bool) -> Self {
        let mut random = Random::new(seed);
        let faults = Faults::draw(&mut random);
        let limits = draw_limits(&mut random);
        let change = |options: &mut Options| options.dead_letter_queue = Some(DEAD.to_owned());
        // Without acknowledgements, messages may be lost.
        let modes = if random.happens(400) { &MODES[..] } else { &MODES[..2] };
        Self {
            rig: Rig::with(limits.clone(), seed, change),
            model: Model::new(&limits),
            modes,
            unread: BTreeSet::new(),
            turn_tick: 0,
            drain_tick: 0,
            random,
            faults,
            limits,
            carriers,
            actors: Vec::new(),
            last_number: 0,
            last_transaction: 0,
            is_verbose,
        }
    }

    /// Draws an action and performs it.
    pub(crate) fn step(&mut self) {
        if self.random.happens(self.faults.accept_storm) {
            (0..self.random.below(40)).for_each(|_| self.open());
        }
        match self.random.below(100) {
            0..12 => self.open(),
            12..80 => self.speak(),
            80..83 => self.stop_reading(),
            83..86 => self.resume(),
            86 => self.leave(),
            87 => self.reset(),
            88..97 => self.advance_a_little(),
            97 => self.rig.advance(self.random.below(3_000)),
            98 => self.rig.pause(self.random.below(30_000)),
            _ => self.rig.advance(self.random.below(30_000)),
        }
        self.turn();
    }

    /// Lets all clients read all, ends them, and checks that nothing is left.
    pub(crate) fn finish(mut self) -> Tally {
        self.faults = Faults::default();
        for index in 0..self.actors.len() {
            self.actors[index].reads = true;
            if let Some(socket) = self.socket_of(index) {
                socket.set_window(usize::MAX);
                socket.calm_down();
            }
        }
        self.run_until_idle();
        self.check_all_was_seen();
        let drains = self.random.happens(300);
        if drains {
            self.drain();
        } else {
            self.say_goodbye();
        }
        self.run_until_idle();
        if !drains {
            self.consume_what_is_left();
        }
        for _ in 0..20 {
            self.rig.advance(1_000);
            self.run_until_idle();
        }
        self.check_nothing_is_left(drains);
        let has_read_all = |number: Number| !self.unread.contains(&number);
        let fates = self.model.queues.judge(has_read_all, !drains);
        let counters = &self.rig.engine.counters();
        Tally {
            delivered: counters.deliveries,
            takeovers: counters.takeovers,
            slow_consumers: counters.slow_consumers,
            publishers_paused: counters.publishers_paused,
            timeouts: counters.timeouts,
            refused: counters.connections_refused,
            fates,
        }
    }

    // -- actions ----------------------------------------------------------------------------

    fn open(&mut self) {
        let random = self.random.split();
        let socket =
            ScriptedSocket::new(self.rig.ticks.clone(), SocketFaults::new(self.faults, random));
        let is_full = self.open_connections(false) >= self.limits.connections_max;
        let surplus = is_full && !self.actors.iter().any(|actor| self.has_to_yield(actor));
        let is_dropped = surplus && self.open_connections(true) >= self.limits.refusals_max;
        let accepted = self.rig.accept(socket);
        assert_eq!(accepted.is_none(), is_dropped, "whoever is one too many is refused");
        let Some(id) = accepted else { return };
        if is_full && !surplus {
            self.note_displaced();
        }
        self.last_number += 1;
        let number = Number(self.last_number);
        let is_standard = self.random.happens(500);
        let logins = if is_standard { &STANDARD_LOGINS[..] } else { &LOGINS[..] };
        let login = (*self.random.pick(logins)).to_owned();
        let profile = self.draw_profile(&login);
        let carrier = *self.random.pick(self.carriers);
        self.trace(|| format!("{number:?} opens {carrier:?} to be {profile:?} {login}"));
        self.model.open(number);
        let now_ms = self.rig.patient_ms();
        let who = (login, profile);
        self.actors.push(Actor::new(number, carrier, id, who, is_standard, now_ms));
        if surplus {
            let actor = self.actors.last_mut().expect("it was just pushed");
            actor.is_surplus = true;
            actor.farewell = Some("LIMIT_EXCEEDED");
            self.model.end(number, "refused");
        }
    }

    /// Whether a connection loses its place to a newcomer, if all are in use: its client is not logged in.
    fn has_to_yield(&self, actor: &Actor) -> bool {
        let is_logged_in = self.model.login_of(actor.number).is_some();
        let stays = is_logged_in && !self.model.is_closing(actor.number);
        self.is_open(actor) && !actor.is_surplus && !stays
    }

    /// Notes who has lost the place to a newcomer.
    fn note_displaced(&mut self) {
        for index in 0..self.actors.len() {
            let actor = &self.actors[index];
            let (number, Some(id)) = (actor.number, actor.id) else { continue };
            let reason = self.rig.engine.close_reason(id);
            let is_told = reason == Some(CloseReason::Exceeded("connections_max"));
            let is_displaced = is_told || !self.is_open(actor);
            if !is_displaced || actor.is_surplus {
                continue;
            }
            self.trace(|| format!("{number:?} is displaced"));
            let opened_ms = self.rig.patient_ms();
            let actor = &mut self.actors[index];
            actor.is_surplus = true;
            actor.opened_ms = opened_ms;
            if !self.model.is_closing(number) {
                assert_eq!(self.model.login_of(number), None, "{number:?} is logged in");
                actor.farewell = Some("LIMIT_EXCEEDED");
                self.model.end(number, "refused");
            }
        }
    }

    fn is_open(&self, actor: &Actor) -> bool {
        actor.id.is_some_and(|id| self.rig.engine.socket(id).is_some())
    }

    /// The number of open connections, of those beyond `connections_max` or of the others.
    fn open_connections(&self, surplus: bool) -> u32 {
        let is_meant = |actor: &&Actor| self.is_open(actor) && actor.is_surplus == surplus;
        self.actors.iter().filter(is_meant).count() as u32
    }

    fn speak(&mut self) {
        let count = 1 + self.random.below(12);
        let mut index = None;
        for _ in 0..count {
            // Several clients send at once, or one sends a burst.
            if index.is_none() || self.random.happens(500) {
                index = self.pick_actor(Actor::can_speak);
            }
            let Some(index) = index else { return };
            if !self.actors[index].can_speak() {
                return;
            }
            let commands = match self.actors[index].standard {
                Some(_) => self.draw_asks(index),
                None => vec![self.draw_command(index)],
            };
            commands.into_iter().for_each(|command| self.say(index, command));
        }
    }

    fn say(&mut self, index: usize, command: Command) {
        let names_session = self.random.happens(300);
        let number = self.actors[index].number;
        self.trace(|| format!("{number:?} says {command:?}"));
        self.actors[index].say(command, names_session);
    }

    /// The next frames of a client of the standard dialect; a transaction has several.
    fn draw_asks(&mut self, index: usize) -> Vec<Command> {
        let actor = &self.actors[index];
        let is_websocket = matches!(actor.carrier, Carrier::Ws | Carrier::Wss);
        if !actor.asked_to_log_in {
            let (login, profile) = (actor.login.clone(), actor.profile);
            let (resume, inbox) = (self.random.happens(500), self.random.happens(300));
            return vec![self.ask(Ask::Connect { login, profile, resume, inbox })];
        }
        let ask = match self.random.below(100) {
            0..45 => self.draw_send(false),
            45..60 => return self.draw_subscribe(index).into_iter().collect(),
            60..64 => return self.draw_unsubscribe(index).into_iter().collect(),
            64..86 => return self.draw_settle(index, false).into_iter().collect(),
            86..96 => return self.draw_transaction(index),
            96 => Ask::Disconnect,
            97 => return vec![Command::Breach(BREACHES[self.random.below(2) as usize])],
            98 if is_websocket => return vec![Command::Close],
            _ => Ask::Connect {
                login: "again".to_owned(),
                profile: Profile::Agent,
                resume: false,
                inbox: false,
            },
        };
        vec![self.ask(ask)]
    }

    /// A request with a receipt of its own.
    fn ask(&mut self, ask: Ask) -> Command {
        self.last_transaction += 1;
        Command::Ask(ask, self.last_transaction)
    }

    fn draw_send(&mut self, inside: bool) -> Ask {
        let destination = match self.random.below(10) {
            0..6 => (*self.random.pick(&QUEUES[..2])).to_owned(),
            6..9 => (*self.random.pick(&TOPICS)).to_owned(),
            _ => self.draw_address(),
        };
        Ask::Send { destination, body: self.draw_body(), inside }
    }

    fn draw_subscribe(&mut self, index: usize) -> Option<Command> {
        let own = address(self.actors[index].profile, &self.actors[index].login);
        let destination = match self.random.below(10) {
            // Agents may subscribe to no queues.
            0..6 if self.actors[index].profile != Profile::Agent => *self.random.pick(&QUEUES),
            0..9 => *self.random.pick(&TOPIC_PATTERNS),
            _ => &own,
        };
        let mode = *self.random.pick(self.modes);
        self.last_transaction += 1;
        let id = format!("{mode}-{}", self.last_transaction);
        let standing = self.actors[index].standard.as_mut()?;
        if standing.subscriptions.iter().any(|(_, other)| other == destination) {
            return None;
        }
        let destination = destination.to_owned();
        standing.subscriptions.push((id.clone(), destination.clone()));
        let prefetch = 1 + self.random.below(4);
        Some(self.ask(Ask::Subscribe { id, destination, prefetch }))
    }

    fn draw_unsubscribe(&mut self, index: usize) -> Option<Command> {
        let standing = self.actors[index].standard.as_mut()?;
        let (id, _) = standing.subscriptions.pop()?;
        let gone = standing.held.extract_if(.., |(subscription, ..)| *subscription == id);
        standing.past.extend(gone.map(|(_, ack, _)| ack));
        Some(self.ask(Ask::Unsubscribe { id }))
    }

    fn draw_settle(&mut self, index: usize, inside: bool) -> Option<Command> {
        let standing = self.actors[index].standard.as_mut()?;
        if !standing.past.is_empty() && self.random.happens(100) {
            // A late one, which has no effect.
            let (ack, subscription) = (self.random.pick(&standing.past).clone(), String::new());
            let is_ack = self.random.happens(500);
            let bodies = Vec::new();
            return Some(self.ask(Ask::Settle { is_ack, subscription, ack, bodies, inside }));
        }
        let count = standing.held.len() as u64;
        let at = self.random.below(count.max(1)) as usize;
        let (subscription, ack, _) = standing.held.get(at)?.clone();
        let bodies = standing.settle(at);
        let is_ack = self.random.happens(700);
        Some(self.ask(Ask::Settle { is_ack, subscription, ack, bodies, inside }))
    }

    fn draw_transaction(&mut self, index: usize) -> Vec<Command> {
        let held = self.actors[index].standard.as_ref().map(|standing| standing.held.clone());
        let mut all = vec![self.ask(Ask::Begin)];
        for _ in 0..self.random.below(5) {
            if self.random.happens(500) {
                let send = self.draw_send(true);
                all.push(self.ask(send));
            } else {
                all.extend(self.draw_settle(index, true));
            }
        }
        let commits = self.random.happens(700);
        if !commits && let (Some(standing), Some(held)) = (&mut self.actors[index].standard, held) {
            standing.held = held;
        }
        all.push(self.ask(if commits { Ask::Commit } else { Ask::Abort }));
        all
    }

    fn draw_command(&mut self, index: usize) -> Command {
        let actor = &self.actors[index];
        if !actor.asked_to_log_in && !self.random.happens(30) {
            return Command::Connect { login: actor.login.clone(), profile: actor.profile };
        }
        if !actor.asked_to_log_in {
            return Command::Disconnect;
        }
        let is_websocket = matches!(actor.carrier, Carrier::Ws | Carrier::Wss);
        self.last_transaction += 1;
        let transaction = self.last_transaction;
        match self.random.below(100) {
            0..78 => Command::Send {
                destination: self.draw_address(),
                transaction: (!self.random.happens(200)).then_some(transaction),
                body: self.draw_body(),
            },
            78..86 => Command::Subscribe { target: self.draw_target(), transaction },
            86..92 => {
                let target = self.random.happens(500).then(|| self.draw_target());
                Command::Unsubscribe { target, transaction }
            }
            92 => Command::Disconnect,
            93 => Command::Breach(BREACHES[self.random.below(2) as usize]),
            94 if is_websocket => Command::Close,
            94 => Command::Connect { login: "again".to_owned(), profile: Profile::Agent },
            _ => Command::Send {
                destination: self.draw_address(),
                transaction: Some(transaction),
                body: "x".repeat(self.random.below(20_000) as usize),
            },
        }
    }

    /// Mostly the same for the same login id, so that takeovers occur.
    fn draw_profile(&mut self, login: &str) -> Profile {
        if self.random.happens(150) {
            return *self.random.pick(&Profile::ALL);
        }
        let bytes = login.bytes().map(usize::from).sum::<usize>();
        [Profile::Agent, Profile::Agent, Profile::SuperAgent, Profile::Service][bytes % 4]
    }

    /// Mostly that of a client that is logged in.
    fn draw_address(&mut self) -> String {
        let is_there = |actor: &Actor| actor.session_id.is_some() && actor.id.is_some();
        if !self.random.happens(150)
            && let Some(index) = self.pick_actor(is_there)
        {
            let actor = &self.actors[index];
            return address(actor.profile, &actor.login);
        }
        let logins = [&LOGINS[..], &STANDARD_LOGINS[..]][self.random.below(2) as usize];
        let login = *self.random.pick(logins);
        address(self.draw_profile(login), login)
    }

    /// A unique body.
    fn draw_body(&mut self) -> String {
        let longest = if self.random.happens(100) { 3_000 } else { 100 };
        let mut length = self.random.below(longest) as usize;
        if self.random.happens(1) {
            // So large that it is not copied.
            length += 32 * 1024;
        }
        self.last_transaction += 1;
        format!("{}{}", self.last_transaction, "ñ".repeat(length))
    }

    fn draw_target(&mut self) -> Target {
        let pattern = self.random.below(PATTERNS.len() as u64) as usize;
        match self.random.below(4) {
            0 => Target::Client(self.draw_address()),
            1 | 2 => Target::Clients(pattern),
            _ => Target::Presence(pattern),
        }
    }

    fn stop_reading(&mut self) {
        let Some(index) = self.pick_actor(|actor| actor.id.is_some() && actor.reads) else {
            return;
        };
        let window = self.random.below(3_000) as usize;
        let number = self.actors[index].number;
        self.trace(|| format!("{number:?} stops reading, {window} bytes fit"));
        self.actors[index].reads = false;
        if let Some(socket) = self.socket_of(index) {
            socket.set_window(window);
        }
    }

    fn resume(&mut self) {
        let Some(index) = self.pick_actor(|actor| !actor.reads) else { return };
        let number = self.actors[index].number;
        self.trace(|| format!("{number:?} reads again"));
        self.actors[index].reads = true;
        if let Some(socket) = self.socket_of(index) {
            socket.set_window(usize::MAX);
        }
    }

    fn leave(&mut self) {
        let Some(index) = self.pick_actor(Actor::can_speak) else { return };
        let number = self.actors[index].number;
        self.trace(|| format!("{number:?} ends its stream"));
        self.unread.insert(number);
        self.actors[index].leave();
    }

    fn reset(&mut self) {
        let Some(index) = self.pick_actor(|actor| actor.id.is_some() && !actor.is_broken) else {
            return;
        };
        self.break_off(index);
    }

    fn break_off(&mut self, index: usize) {
        let number = self.actors[index].number;
        self.trace(|| format!("{number:?} breaks off"));
        let actor = &mut self.actors[index];
        actor.has_left = true;
        actor.is_broken = true;
        let Some(id) = actor.id else { return };
        if let Some(socket) = self.rig.engine.socket_mut(id) {
            socket.reset();
            self.rig.engine.note_ready(id.slot, true, true);
        }
    }

    fn advance_a_little(&mut self) {
        let ms = self.random.below(100);
        self.rig.advance(ms);
    }

    fn pick_actor(&mut self, wanted: impl Fn(&Actor) -> bool) -> Option<usize> {
        let found: Vec<_> =
            (0..self.actors.len()).filter(|index| wanted(&self.actors[*index])).collect();
        (!found.is_empty()).then(|| *self.random.pick(&found))
    }

    // -- a turn -----------------------------------------------------------------------------

    /// Hands over some bytes of clients, runs a turn, and compares.
    ///
    /// Returns whether anything happened.
    fn turn(&mut self) -> bool {
        let mut order: Vec<_> = (0..self.actors.len()).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, self.random.below(at as u64 + 1) as usize);
        }
        for index in order {
            self.hand_over(index);
        }
        self.turn_tick = self.rig.ticks.get();
        let closed = self.rig.turn();
        let mut moved = !closed.is_empty() || self.rig.engine.has_work();
        let mut activities = self.take_activities(&closed);
        moved |= !activities.is_empty();
        activities.sort_by_key(|(tick, ..)| *tick);
        for (tick, index, activity) in activities {
            self.model.set_tick(tick);
            self.replay(index, activity);
        }
        // The engine closed these by itself at some time in the turn.
        self.model.set_tick(self.turn_tick);
        self.note_closures(&closed);
        for (id, mut socket) in closed {
            let index = self.index_of(id);
            self.actors[index].id = None;
            self.collect(index, &mut socket);
        }
        for index in 0..self.actors.len() {
            moved |= self.collect_from_engine(index);
        }
        self.check_bounds();
        let has_unread = |actor: &&Actor| actor.is_cut || actor.is_broken;
        self.unread.extend(self.actors.iter().filter(has_unread).map(|actor| actor.number));
        self.actors.retain(|actor| actor.id.is_some() || !actor.saw_end);
        moved
    }

    fn hand_over(&mut self, index: usize) {
        let actor = &mut self.actors[index];
        actor.collect_wire();
        let Some(id) = actor.id else { return };
        let waiting = actor.outgoing.len();
        let cuts = self.random.happens(300);
        let count = if cuts { self.random.below(waiting as u64 + 1) as usize } else { waiting };
        let is_torn = count < waiting && self.random.happens(self.faults.torn_frame);
        let Some(socket) = self.rig.engine.socket_mut(id) else { return };
        let rest = actor.outgoing.split_off(count);
        socket.push_inbound(&std::mem::replace(&mut actor.outgoing, rest));
        let ends = actor.has_left && actor.outgoing.is_empty() && socket.end_inbound();
        let writable = self.random.happens(700) && socket.take_writable();
        if count > 0 || ends || writable {
            self.rig.engine.note_ready(id.slot, count > 0 || ends, writable);
        }
        if is_torn {
            self.break_off(index);
        }
    }

    fn take_activities(
        &mut self,
        closed: &[(ConnectionId, ScriptedSocket)],
    ) -> Vec<(u64, usize, Activity)> {
        let mut all = Vec::new();
        for index in 0..self.actors.len() {
            let Some(id) = self.actors[index].id else { continue };
            let gone = closed.iter().find(|(other, _)| *other == id).map(|(_, socket)| socket);
            let Some(socket) = gone.or_else(|| self.rig.engine.socket(id)) else { continue };
            all.extend(socket.activities().map(|(tick, activity)| (tick, index, activity)));
        }
        for index in 0..self.actors.len() {
            if let Some(socket) = self.socket_of(index) {
                socket.forget_activities();
            }
        }
        all
    }

    /// Feeds an action of the engine to the model.
    fn replay(&mut self, index: usize, activity: Activity) {
        let now_ms = self.rig.now().ms();
        let actor = &mut self.actors[index];
        let number = actor.number;
        match activity {
            Activity::Read(bytes) => {
                actor.heard_ms = self.rig.patient_ms();
                for command in actor.note_read(bytes) {
                    self.model.handle(number, &command, now_ms);
                }
            }
            Activity::End => self.model.end(number, "closed"),
            Activity::Broken => self.model.end(number, "lost"),
        }
    }

    /// Feeds connections that the engine closed by itself to the model, and checks the reasons.
    fn note_closures(&mut self, closed: &[(ConnectionId, ScriptedSocket)]) {
        self.note_losses();
        for index in 0..self.actors.len() {
            let actor = &self.actors[index];
            let (number, Some(id)) = (actor.number, actor.id) else { continue };
            if self.model.is_closing(number) {
                continue;
            }
            let is_gone = closed.iter().any(|(other, _)| *other == id);
            let reason = self.rig.engine.close_reason(id);
            match reason {
                Some(CloseReason::TooSlow(_)) => self.note_cut(index),
                Some(CloseReason::Refused(Code::Draining)) => self.note_drain(index),
                Some(CloseReason::TimedOut(_)) => self.note_timeout(index),
                Some(other) => panic!("{number:?} is closed for no reason: {other}"),
                None if is_gone => self.note_timeout(index),
                None => {}
            }
        }
    }

    /// Notes slow consumers: a client may lose frames and log out in the same read, before it is cut.
    fn note_losses(&mut self) {
        let peers = self.rig.engine.broker().peers.iter();
        let lost: Vec<_> =
            peers.filter(|(_, peer)| peer.lost_a_frame()).map(|(_, peer)| peer.number).collect();
        for actor in &mut self.actors {
            actor.is_cut |= lost.contains(&actor.number.0);
        }
    }

    fn note_cut(&mut self, index: usize) {
        let actor = &mut self.actors[index];
        actor.is_cut = true;
        let number = actor.number;
        self.trace(|| format!("{number:?} is too slow"));
        self.model.end(number, "slow-consumer");
    }

    fn note_drain(&mut self, index: usize) {
        let number = self.actors[index].number;
        self.model.set_tick(self.drain_tick);
        if self.model.login_of(number).is_some() {
            return self.model.end_with_error(number, "DRAINING", "draining");
        }
        self.actors[index].farewell = Some("DRAINING");
        self.model.end(number, "draining");
    }

    fn note_timeout(&mut self, index: usize) {
        let actor = &mut self.actors[index];
        let number = actor.number;
        let now_ms = self.rig.patient_ms();
        if self.model.login_of(number).is_some() {
            let most = self.limits.websocket_ping_ms + self.limits.websocket_pong_ms_max;
            let silent_ms = now_ms - actor.heard_ms;
            assert!(silent_ms >= u64::from(most), "{number:?} was silent for {silent_ms} ms only");
            assert!(matches!(actor.carrier, Carrier::Ws | Carrier::Wss));
            if actor.standard.is_some() {
                self.trace(|| format!("{number:?} is timed out"));
                return self.model.end_with_error(number, "TIMED_OUT", "timed-out");
            }
        } else {
            let ms = now_ms - actor.opened_ms;
            assert!(ms >= u64::from(self.limits.connect_ms_max), "{number:?} had {ms} ms only");
            actor.farewell = Some("TIMED_OUT");
        }
        self.trace(|| format!("{number:?} is timed out"));
        self.model.end(number, "timed-out");
    }

    // -- what clients get -------------------------------------------------------------------

    fn collect_from_engine(&mut self, index: usize) -> bool {
        let actor = &self.actors[index];
        let (Some(id), true) = (actor.id, actor.reads) else { return false };
        let mut taken = Vec::new();
        let Some(socket) = self.rig.engine.socket_mut(id) else { return false };
        while let Some(write) = socket.take_outbound() {
            taken.push(write);
        }
        let ended = socket.ended_at().is_some();
        self.take_in(index, &taken, ended);
        !taken.is_empty()
    }

    /// Handles the bytes that were written to a connection before the engine dropped it.
    fn collect(&mut self, index: usize, socket: &mut ScriptedSocket) {
        let taken: Vec<_> = std::iter::from_fn(|| socket.take_outbound()).collect();
        let was_orderly = socket.ended_at().is_some();
        // A connection that ended in the turn in which it lost a frame no longer exists, but it had
        // more bytes queued than its limit.
        let bytes: usize = taken.iter().map(|(_, bytes)| bytes.len()).sum();
        let hard_bytes_max = self.limits.outbound[Profile::Agent].hard_bytes_max as usize;
        self.actors[index].is_cut |= bytes > hard_bytes_max;
        self.take_in(index, &taken, was_orderly);
        self.actors[index].saw_end = true;
    }

    fn take_in(&mut self, index: usize, taken: &[(u64, Vec<u8>)], ended: bool) {
        let actor = &mut self.actors[index];
        if actor.is_broken {
            return;
        }
        for (tick, bytes) in taken {
            actor.client.handle_wire(*tick, bytes);
        }
        let events = actor.client.take_events();
        for (tick, event) in events {
            match event {
                Event::Frame(frame) => self.compare(index, tick, &frame),
                Event::Ping | Event::Close(_) => {}
                other => panic!("{:?} gets {other:?}", self.actors[index].number),
            }
        }
        let number = self.actors[index].number;
        let actor = &mut self.actors[index];
        if ended && !actor.saw_end {
            actor.saw_end = true;
            if !actor.has_left {
                actor.leave();
            }
            // After an orderly end of the stream, nothing may be missing.
            let missing = self.model.missing(number);
            assert!(actor.is_cut || missing.is_empty(), "{number:?} misses {missing:?}");
        }
    }

    fn compare(&mut self, index: usize, tick: u64, frame: &[u8]) {
        let actor = &mut self.actors[index];
        let number = actor.number;
        let understood = match actor.standard {
            Some(_) => understand_standard(frame),
            None => understand(frame),
        };
        match understood {
            Understood::Job { subscription, ack, is_dead, body } => {
                let standing = actor.standard.as_mut().expect("a client of the standard dialect");
                let queues = &mut self.model.queues;
                queues.note_delivered(&body, number, subscription.clone(), is_dead, tick);
                standing.held.extend(ack.map(|ack| (subscription, ack, body)));
            }
            Understood::Seen(found @ Seen::Copies { .. }) => {
                let is_expected = self.model.take_copy(number, &found);
                let missing = || self.model.missing(number);
                assert!(is_expected, "{number:?} gets {found:?}, not {:?}", missing().first());
            }
            Understood::Event(found) if found.reason == "draining" => {}
            Understood::Event(found) => {
                let mut expected = self.model.next_event(number, &found.login);
                // Who was cut between two reads of a turn was not refused for what came with the second one.
                let was_cut =
                    || self.actors.iter().any(|one| one.is_cut && one.login == found.login);
                if let Some(expected) = &mut expected
                    && (&*found.reason, &*expected.reason) == ("slow-consumer", "refused")
                    && was_cut()
                {
                    expected.reason.clone_from(&found.reason);
                }
                assert_eq!(Some(found), expected, "an event for {number:?}");
            }
            Understood::Seen(Seen::Error(code)) if code == "SLOW_CONSUMER" => {
                assert!(actor.is_cut, "{number:?} is told that it is slow, and is not cut");
            }
            Understood::Seen(Seen::Error(code)) if actor.farewell == Some(&code) => {}
            Understood::Seen(found) => {
                if matches!(found, Seen::Connected { .. }) {
                    actor.session_id = session_id(frame);
                }
                let expected = self.model.next_expected(number);
                // After a gap, only the final ERROR or RECEIPT follows.
                if !actor.is_cut || !matches!(found, Seen::Error(_) | Seen::Receipt(_)) {
                    assert_eq!(Some(found), expected, "a frame for {number:?}");
                }
            }
        }
    }

    // -- checks -----------------------------------------------------------------------------

    fn check_bounds(&self) {
        let broker = self.rig.engine.broker();
        let resident = broker.peers.arena.resident_bytes();
        let most = self.limits.outbound_total_bytes_max + OVERSHOOT_BYTES;
        assert!(resident <= most, "{resident} bytes are queued, {most} are allowed");
        for (_, peer) in broker.peers.iter().filter(|(_, peer)| peer.lost_a_frame()) {
            assert!(peer.closure().is_some(), "{} has missed a frame and goes on", peer.number);
        }
        assert_eq!(broker.sessions_len(), self.model.sessions_len(), "sessions");
        assert_eq!(broker.subscriptions_len(), self.model.subscriptions_len(), "subscriptions");
        for actor in self.actors.iter().filter(|actor| !self.model.is_closing(actor.number)) {
            let ms = self.rig.patient_ms() - actor.heard_ms;
            let is_in_time =
                ms <= self.login_ms_max() || self.model.login_of(actor.number).is_some();
            assert!(is_in_time, "{:?} has said nothing for {ms} ms before login", actor.number);
        }
        assert!(self.open_connections(false) <= self.limits.connections_max);
        assert!(self.open_connections(true) <= self.limits.refusals_max);
        for actor in self.actors.iter().filter(|actor| actor.is_surplus && actor.id.is_some()) {
            let ms = self.rig.patient_ms() - actor.opened_ms;
            let most = self.limits.refusal_ms_max;
            assert!(ms <= u64::from(most), "{:?} holds a place for {ms} ms", actor.number);
            assert_eq!(actor.session_id, None, "{:?} is logged in", actor.number);
        }
    }

    /// Time for which a client may be silent before its login, in any state.
    fn login_ms_max(&self) -> u64 {
        let limits = &self.limits;
        let longest = limits.tls_handshake_ms_max.max(limits.upgrade_ms_max);
        u64::from(longest.max(limits.connect_ms_max))
    }

    fn check_all_was_seen(&self) {
        for actor in self.actors.iter().filter(|actor| !actor.is_cut && !actor.is_broken) {
            let missing = self.model.missing(actor.number);
            assert!(missing.is_empty(), "{:?} misses {missing:?}", actor.number);
        }
    }

    fn check_nothing_is_left(&self, drained: bool) {
        let engine = &self.rig.engine;
        let broker = engine.broker();
        assert_eq!(engine.len(), 0, "connections");
        assert_eq!(broker.peers.len(), 0, "peers");
        assert_eq!(broker.sessions_len(), 0, "sessions");
        // After a drain, queues are left with their messages.
        let most = TOPICS.len() + if drained { QUEUES.len() } else { 0 };
        let count = broker.destinations_len();
        assert!(count <= most, "{count} destinations are left, {most} may be");
        assert_eq!(broker.subscriptions_len(), 0, "subscriptions");
        assert_eq!(broker.peers.arena.resident_bytes(), 0, "bytes in queues");
        assert_eq!(engine.inbound_bytes(), 0, "bytes of torn frames");
        assert!(!engine.has_work(), "work for nobody");
    }

    // -- the end ----------------------------------------------------------------------------

    fn run_until_idle(&mut self) {
        // Handing over and writable events are random, so several quiet turns are needed.
        let mut quiet = 0;
        while quiet < 8 {
            quiet = if self.turn() { 0 } else { quiet + 1 };
        }
    }

    fn drain(&mut self) {
        self.trace(|| "drain".to_owned());
        self.drain_tick = self.rig.ticks.get();
        let now = self.rig.now();
        self.rig.engine.begin_drain(now);
        self.model.drain();
    }

    /// A client subscribes to all queues, after all others have ended.
    fn consume_what_is_left(&mut self) {
        let socket = ScriptedSocket::new(self.rig.ticks.clone(), SocketFaults::none());
        let id = self.rig.accept(socket).expect("a place for it");
        self.last_number += 1;
        let number = Number(self.last_number);
        let who = ("heir".to_owned(), Profile::Service);
        self.model.open(number);
        let now_ms = self.rig.patient_ms();
        self.actors.push(Actor::new(number, Carrier::Tcp, id, who, true, now_ms));
        let index = self.actors.len() - 1;
        let login = "heir".to_owned();
        let profile = Profile::Service;
        let connect = self.ask(Ask::Connect { login, profile, resume: false, inbox: false });
        self.say(index, connect);
        for queue in QUEUES {
            let (id, destination) = (format!("auto-{queue}"), queue.to_owned());
            let subscribe = self.ask(Ask::Subscribe { id, destination, prefetch: 1 });
            self.say(index, subscribe);
        }
        self.run_until_idle();
        self.say_goodbye();
        self.run_until_idle();
        self.check_all_was_seen();
    }

    fn say_goodbye(&mut self) {
        self.trace(|| "goodbye".to_owned());
        for actor in self.actors.iter_mut().filter(|actor| !actor.has_left) {
            self.unread.insert(actor.number);
            actor.leave();
        }
    }

    // -- queries ----------------------------------------------------------------------------

    fn socket_of(&mut self, index: usize) -> Option<&mut ScriptedSocket> {
        self.rig.engine.socket_mut(self.actors[index].id?)
    }

    fn index_of(&self, id: ConnectionId) -> usize {
        self.actors.iter().position(|actor| actor.id == Some(id)).expect("a stranger's connection")
    }

    fn trace(&self, what: impl FnOnce() -> String) {
        if self.is_verbose {
            println!("{:>8} ms  {}", self.rig.now().ms(), what());
        }
    }
}

const LOGINS: [&str; 20] = [
    "ana", "bob", "cat", "dan", "eva", "fay", "gus", "hal", "ida", "jon", "kim", "leo", "mia",
    "ned", "ole", "pia", "x/1", "x/2", "a b", "ñandú",
];

/// Logins that use the standard dialect.
const STANDARD_LOGINS: [&str; 12] =
    ["sid", "sue", "sam", "tea", "tim", "ugo", "una", "vic", "wes", "xia", "s/1", "zoë"];

const QUEUES: [&str; 3] = ["/queue/a", "/queue/b", DEAD];

const MODES: [&str; 3] = ["client", "client-individual", "auto"];

const TOPICS: [&str; 4] = ["/topic/a", "/topic/a/b", "/topic/a/c", "/topic/b/c/d"];

const TOPIC_PATTERNS: [&str; 6] =
    ["/topic/a", "/topic/a/b", "/topic/a/*", "/topic/*/c", "/topic/>", "/topic/b/>"];

const BREACHES: [&str; 2] = ["UNKNOWN_COMMAND", "UNKNOWN_FORMAT_HEADER"];

/// Bytes that may be queued beyond the limit: those caused by one read of 64 KiB and a torn frame before
/// it, until the limit is checked again, and the final frames to each connection.
const OVERSHOOT_BYTES: u64 = (64 + 24 + 16) * 1024;

/// Small limits, so that runs reach them.
fn draw_limits(random: &mut Random) -> Limits {
    let hard_bytes_max = [10_000, 60_000, 1_000_000][random.below(3) as usize];
    let outbound =
        OutboundLimits { hard_bytes_max, soft_bytes_max: hard_bytes_max / 4, soft_ms_max: 2_000 };
    Limits {
        connections_max: 8 + random.below(24) as u32,
        refusals_max: random.below(4) as u32,
        takeovers_max: 1 + random.below(5) as u32,
        takeover_window_ms: 10_000,
        idle_topics_max: random.below(3) as u32,
        deliveries_max: [2, 10, 1_000][random.below(3) as usize],
        outbound: ByProfile::all(outbound),
        outbound_total_bytes_max: [20_000, 100_000, 10_000_000][random.below(3) as usize],
        // The model handles all that arrives in the turn in which it arrives.
        turn_units_max: 1_000_000_000,
        share_units_max: 1_000_000_000,
        ..Limits::default()
    }
}
