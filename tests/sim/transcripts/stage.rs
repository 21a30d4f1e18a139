//! Replay of a transcript: clients by name, their actions, and what they see.

use std::collections::BTreeMap;

use com_broker::internal::engine::ConnectionId;
use com_broker::limits::Limits;

use super::script::Stimulus;
use super::text::{from_hex, from_lines, to_lines};
use crate::client::{Carrier, Client, Envelope, Event};
use crate::faults::SocketFaults;
use crate::rig::Rig;
use crate::scripted_socket::ScriptedSocket;

/// An engine and the clients that talk to it.
pub(crate) struct Stage {
    rig: Rig,
    ends: BTreeMap<String, End>,
    /// Session ids with their placeholders.
    sessions: Vec<(String, String)>,
    /// Connection ids with their placeholders.
    numbers: Vec<(String, String)>,
}

/// The lines that a client saw, with its name.
pub(crate) struct Seen {
    pub(crate) client: String,
    pub(crate) lines: Vec<String>,
}

/// A client and its connection.
struct End {
    client: Client,
    /// `None` once the engine has dropped it.
    id: Option<ConnectionId>,
    /// Whether the client has ended its stream or seen the end of the broker's.
    is_over: bool,
    /// Whether the client ended its stream first, so that it sees nothing more.
    has_left: bool,
    /// Whether the client ends its stream when it sees the end of the broker's.
    follows_end: bool,
    saw_end: bool,
    /// How the next frame is sent.
    envelope: Envelope,
    /// Bytes that are held back.
    held: Option<Vec<u8>>,
}

impl Stage {
    /// An engine without connections.
    pub(crate) fn new() -> Self {
        Self {
            rig: Rig::new(Limits::default(), 1),
            ends: BTreeMap::new(),
            sessions: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// Performs an action, and returns what all clients saw.
    pub(crate) fn play(&mut self, stimulus: &Stimulus) -> Vec<Seen> {
        let mut seen = Vec::new();
        match stimulus {
            Stimulus::Remark(_) => {}
            Stimulus::Wait(ms) => {
                for _ in 0..ms / WAIT_STEP_MS {
                    self.rig.advance(WAIT_STEP_MS);
                    self.run_until_idle(&mut seen);
                }
            }
            Stimulus::Act(name, action) => self.act(name, action, &mut seen),
            Stimulus::Send(name, lines) => {
                let frame = self.fill_in(&from_lines(lines.iter().map(String::as_str)));
                self.send(name, &frame, &mut seen);
            }
        }
        self.run_until_idle(&mut seen);
        seen.sort_by_key(|(tick, _)| *tick);
        seen.into_iter().map(|(_, seen)| seen).collect()
    }

    fn act(&mut self, name: &str, action: &str, seen: &mut Vec<(u64, Seen)>) {
        let (verb, rest) = action.split_once(' ').unwrap_or((action, ""));
        if verb == "open" {
            return self.open(name, rest);
        }
        let end = self.ends.get_mut(name).expect("a client that never opened");
        match verb {
            "end" => {
                end.client.end();
                end.leave();
            }
            "cut" => end.leave(),
            "reset" => {
                end.leave();
                if let Some(id) = end.id {
                    self.rig.engine.socket_mut(id).unwrap().reset();
                    self.rig.engine.note_ready(id.slot, true, true);
                }
            }
            "hold" => end.held = Some(Vec::new()),
            "write" => self.write_held(name, rest, seen),
            "bytes" => {
                let bytes = from_hex(rest);
                end.envelope = Envelope::Bare;
                self.send(name, &bytes, seen);
            }
            "bare" => end.envelope = Envelope::Bare,
            "envelope" => end.envelope = Envelope::Literal(from_hex(rest)),
            "flag" => end.envelope = Envelope::Flag(rest.parse().unwrap()),
            "characters" => end.envelope = Envelope::Characters,
            "binary" => end.envelope = Envelope::Binary,
            "unmasked" => end.envelope = Envelope::Unmasked,
            "fragments" => end.envelope = Envelope::Fragments(rest.parse().unwrap()),
            "ping" => end.client.ping(rest.as_bytes()),
            "close" => {
                let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
                end.client.close(code.parse().unwrap(), reason);
            }
            "unanswering" => end.client.answers_close = false,
            "lingering" => end.follows_end = false,
            _ => panic!("no such action: {action}"),
        }
    }

    fn open(&mut self, name: &str, rest: &str) {
        let (carrier, path) = rest.split_once(' ').unwrap_or((rest, "/"));
        let carrier = Carrier::named(carrier);
        let client = match path {
            "silent" => Client::without_upgrade(carrier),
            path => Client::new(carrier, path),
        };
        let socket = ScriptedSocket::new(self.rig.ticks.clone(), SocketFaults::none());
        let end = End {
            client,
            id: self.rig.accept(socket),
            is_over: false,
            has_left: false,
            follows_end: true,
            saw_end: false,
            envelope: Envelope::Ordinary,
            held: None,
        };
        assert!(self.ends.insert(name.to_owned(), end).is_none(), "{name} is open already");
    }

    fn send(&mut self, name: &str, frame: &[u8], seen: &mut Vec<(u64, Seen)>) {
        let end = self.ends.get_mut(name).expect("a client that never opened");
        let envelope = std::mem::take(&mut end.envelope);
        if end.is_over {
            return self.fail(name, seen);
        }
        match &mut end.held {
            Some(held) => held.extend(end.client.wrap(frame, &envelope)),
            None => end.client.send(frame, &envelope),
        }
    }

    fn write_held(&mut self, name: &str, count: &str, seen: &mut Vec<(u64, Seen)>) {
        let end = self.ends.get_mut(name).expect("a client that never opened");
        let mut held = end.held.take().expect("nothing is held");
        if end.is_over {
            return self.fail(name, seen);
        }
        let count = match (count, count.strip_prefix('-')) {
            ("", _) => held.len(),
            (_, Some(left)) => held.len() - left.parse::<usize>().unwrap(),
            (count, None) => count.parse().unwrap(),
        };
        let rest = held.split_off(count);
        end.client.write(&held);
        if !rest.is_empty() {
            end.held = Some(rest);
        }
    }

    fn fail(&self, name: &str, seen: &mut Vec<(u64, Seen)>) {
        let lines = vec!["(send failed)".to_owned()];
        seen.push((self.rig.ticks.get(), Seen { client: name.to_owned(), lines }));
    }

    /// Runs turns of the loop until nothing happens.
    fn run_until_idle(&mut self, seen: &mut Vec<(u64, Seen)>) {
        loop {
            let mut moved = self.deliver();
            let closed = self.rig.turn();
            for (id, mut socket) in closed {
                let found = self.ends.iter_mut().find(|(_, end)| end.id == Some(id));
                let (_, end) = found.expect("a connection that a client opened");
                end.id = None;
                end.collect(&mut socket);
                let event = if socket.resets_when_dropped() { Event::Reset } else { Event::End };
                end.note_end(self.rig.ticks.get(), event);
                moved = true;
            }
            for end in self.ends.values_mut() {
                let Some(socket) = end.id.and_then(|id| self.rig.engine.socket_mut(id)) else {
                    continue;
                };
                moved |= end.collect(socket);
                if let Some(tick) = socket.ended_at() {
                    end.note_end(tick, Event::End);
                }
            }
            self.report(seen);
            if !moved && !self.rig.engine.has_work() {
                return;
            }
        }
    }

    /// Hands the bytes of clients to the engine.
    fn deliver(&mut self) -> bool {
        let mut moved = false;
        for end in self.ends.values_mut() {
            let wire = end.client.take_wire();
            let Some(id) = end.id else { continue };
            let Some(socket) = self.rig.engine.socket_mut(id) else { continue };
            let ends = end.is_over && (end.has_left || end.follows_end);
            let news = !wire.is_empty() || (ends && !socket.is_readable());
            socket.push_inbound(&wire);
            if ends {
                socket.end_inbound();
            }
            if news {
                self.rig.engine.note_ready(id.slot, true, false);
                moved = true;
            }
        }
        moved
    }

    fn report(&mut self, seen: &mut Vec<(u64, Seen)>) {
        let names: Vec<_> = self.ends.keys().cloned().collect();
        for name in names {
            let end = self.ends.get_mut(&name).unwrap();
            let has_left = end.has_left;
            for (tick, event) in end.client.take_events() {
                if let Event::Frame(frame) | Event::BinaryFrame(frame) = &event {
                    self.learn(&name, frame);
                }
                let lines = self.render(&event);
                if !has_left {
                    seen.push((tick, Seen { client: name.clone(), lines }));
                }
            }
        }
    }

    /// Remembers the ids in CONNECTED.
    fn learn(&mut self, name: &str, frame: &[u8]) {
        let Some(text) = std::str::from_utf8(frame).ok().filter(|t| t.starts_with("CONNECTED\n"))
        else {
            return;
        };
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        for (known, kind, key) in [
            (&mut self.sessions, "sid", "session-id:"),
            (&mut self.numbers, "cid", "connection-id:"),
        ] {
            let value = value(key);
            if known.iter().all(|(_, other)| other != value) {
                let first = format!("${{{kind}:{name}}}");
                let is_taken = known.iter().any(|(other, _)| *other == first);
                let placeholder = if is_taken { format!("${{{kind}:{name}2}}") } else { first };
                known.push((placeholder, value.to_owned()));
            }
        }
    }

    /// Replaces placeholders by ids. An unknown one is not replaced.
    fn fill_in(&self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        for (placeholder, value) in self.sessions.iter().chain(&self.numbers) {
            frame = replace(&frame, placeholder.as_bytes(), value.as_bytes());
        }
        frame
    }

    fn render(&self, event: &Event) -> Vec<String> {
        match event {
            Event::Frame(frame) => self.render_frame(frame),
            Event::BinaryFrame(frame) => {
                [vec!["(binary)".to_owned()], self.render_frame(frame)].concat()
            }
            Event::Bytes(bytes) => [vec!["(bytes)".to_owned()], to_lines(bytes)].concat(),
            Event::Close(code) => vec![format!("(close {code})")],
            Event::Pong(payload) => vec![format!("(pong {})", to_lines(payload)[0])],
            Event::Ping => vec!["(ping)".to_owned()],
            Event::End => vec!["(end)".to_owned()],
            Event::Reset => vec!["(reset)".to_owned()],
        }
    }

    fn render_frame(&self, frame: &[u8]) -> Vec<String> {
        let mut frame = frame.to_vec();
        for (placeholder, value) in &self.sessions {
            frame = replace(&frame, value.as_bytes(), placeholder.as_bytes());
        }
        let number = |line: String| match line.strip_prefix("connection-id:") {
            Some(value) => {
                let known = self.numbers.iter().find(|(_, other)| other == value);
                format!("connection-id:{}", known.map_or(value, |(placeholder, _)| placeholder))
            }
            None => line,
        };
        to_lines(&frame).into_iter().map(number).collect()
    }
}

impl End {
    fn leave(&mut self) {
        self.is_over = true;
        self.has_left = true;
    }

    /// Takes the bytes that the engine has written. Returns whether there were any.
    fn collect(&mut self, socket: &mut ScriptedSocket) -> bool {
        let mut moved = false;
        while let Some((tick, bytes)) = socket.take_outbound() {
            moved = true;
            if !self.has_left {
                self.client.handle_wire(tick, &bytes);
            }
        }
        moved
    }

    fn note_end(&mut self, tick: u64, event: Event) {
        if !self.saw_end {
            self.saw_end = true;
            self.client.handle_end(tick, event);
        }
        if self.follows_end && !self.is_over {
            self.client.end();
            self.is_over = true;
        }
        self.is_over |= self.id.is_none();
    }
}

/// Granularity of time.
const WAIT_STEP_MS: u64 = 100;

fn replace(bytes: &[u8], wanted: &[u8], by: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut end = 0;
    for at in memchr::memmem::find_iter(bytes, wanted) {
        out.extend_from_slice(&bytes[end..at]);
        out.extend_from_slice(by);
        end = at + wanted.len();
    }
    out.extend_from_slice(&bytes[end..]);
    out
}
