//! An engine, and clients over plain TCP, of the standard dialect unless stated otherwise. The engine reads
//! the bytes of a client at once, and clients read as soon as bytes are written.

use com_broker::internal::broker::{Options, Profile};
use com_broker::internal::engine::ConnectionId;
use com_broker::limits::Limits;

use crate::faults::SocketFaults;
use crate::rig::{APPLICATION_KEY, PROFILE_KEYS, Rig};
use crate::scripted_socket::ScriptedSocket;
use crate::sessions::{connect, envelope};

pub(crate) struct Stage {
    pub(crate) rig: Rig,
    clients: Vec<Client>,
}

/// A client of a [`Stage`], by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who(usize);

struct Client {
    id: ConnectionId,
    unread: Vec<u8>,
}

/// A frame from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) command: String,
    lines: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Stage {
    pub(crate) fn new(limits: Limits) -> Self {
        Self::with(limits, |_| {})
    }

    /// A stage whose broker has further options.
    pub(crate) fn with(limits: Limits, change: impl FnOnce(&mut Options)) -> Self {
        Self { rig: Rig::with(limits, 7, change), clients: Vec::new() }
    }

    /// A client that is logged in with STOMP 1.2.
    pub(crate) fn join(&mut self, login: &str, profile: Profile) -> Who {
        self.join_with(login, profile, "accept-version:1.2\n")
    }

    /// A client that is logged in, whose CONNECT has further header lines.
    pub(crate) fn join_with(&mut self, login: &str, profile: Profile, more: &str) -> Who {
        let who = self.open();
        let key = PROFILE_KEYS[profile];
        self.say(
            who,
            &format!(
                "CONNECT\n{more}login:{login}\npasscode:{key}\nsecret-key:{APPLICATION_KEY}\n\n"
            ),
        );
        assert_eq!(self.next(who).command, "CONNECTED");
        who
    }

    /// A client of the classic dialect that is logged in.
    pub(crate) fn join_classic(&mut self, login: &str, profile: Profile) -> Who {
        let who = self.open();
        self.write(who, &envelope(&connect(login, profile as usize)));
        assert_eq!(self.next(who).command, "CONNECTED");
        who
    }

    /// A client sends a frame: the text and a NUL.
    pub(crate) fn say(&mut self, who: Who, text: &str) {
        self.write(who, &[text.as_bytes(), b"\0"].concat());
    }

    /// As [`Self::say`], with so many turns in which not all may be done.
    pub(crate) fn say_and_turn(&mut self, who: Who, text: &str, turns: u32) {
        let id = self.clients[who.0].id;
        let socket = self.rig.engine.socket_mut(id).expect("an open connection");
        socket.push_inbound(&[text.as_bytes(), b"\0"].concat());
        self.rig.engine.note_ready(id.slot, true, true);
        (0..turns).for_each(|_| _ = self.rig.turn());
    }

    /// As [`Self::say`], in the classic dialect.
    pub(crate) fn say_classic(&mut self, who: Who, text: &str) {
        self.write(who, &envelope(text.as_bytes()));
    }

    /// A client that is connected.
    pub(crate) fn open(&mut self) -> Who {
        let socket = ScriptedSocket::new(self.rig.ticks.clone(), SocketFaults::none());
        let id = self.rig.accept(socket).expect("a place for it");
        self.clients.push(Client { id, unread: Vec::new() });
        Who(self.clients.len() - 1)
    }

    fn write(&mut self, who: Who, bytes: &[u8]) {
        let id = self.clients[who.0].id;
        let socket = self.rig.engine.socket_mut(id).expect("an open connection");
        socket.push_inbound(bytes);
        self.rig.engine.note_ready(id.slot, true, true);
        self.turn();
    }

    /// A client sends a frame with a `receipt` as the last header line. Returns the RECEIPT; other frames
    /// are kept.
    pub(crate) fn ask(&mut self, who: Who, text: &str) -> Frame {
        let (head, body) = text.split_once("\n\n").expect("an empty line");
        self.say(who, &format!("{head}\nreceipt:asked\n\n{body}"));
        let mut told = self.heard(who);
        let at = told.iter().position(|one| one.command == "RECEIPT");
        let receipt = told.remove(at.unwrap_or_else(|| panic!("no receipt among {told:?}")));
        self.clients[who.0].unread = told.iter().flat_map(Frame::bytes).collect();
        receipt
    }

    /// Sends a message, and returns the number of sessions that it was delivered to.
    pub(crate) fn send(&mut self, who: Who, destination: &str, more: &str, body: &str) -> u32 {
        let receipt = self.ask(who, &format!("SEND\ndestination:{destination}\n{more}\n{body}"));
        receipt.get("delivered").expect("a count").parse().unwrap()
    }

    pub(crate) fn subscribe(&mut self, who: Who, id: &str, destination: &str, more: &str) {
        self.ask(who, &format!("SUBSCRIBE\nid:{id}\ndestination:{destination}\n{more}\n"));
    }

    /// The connection of a client breaks.
    pub(crate) fn lose(&mut self, who: Who) {
        let id = self.clients[who.0].id;
        self.rig.engine.socket_mut(id).expect("an open connection").reset();
        self.rig.engine.note_ready(id.slot, true, true);
        self.turn();
    }

    /// As [`Self::lose`], without a turn.
    pub(crate) fn begin_to_lose(&mut self, who: Who) {
        let id = self.clients[who.0].id;
        self.rig.engine.socket_mut(id).expect("an open connection").reset();
        self.rig.engine.note_ready(id.slot, true, true);
    }

    /// As [`Self::join_with`], without a turn in which the CONNECT is handled.
    pub(crate) fn begin_to_join(&mut self, login: &str, profile: Profile, more: &str) {
        let who = self.open();
        self.turn_once();
        let key = PROFILE_KEYS[profile];
        let connect = format!("CONNECT\n{more}login:{login}\npasscode:{APPLICATION_KEY}.{key}\n\n");
        self.say_and_turn(who, &connect, 0);
    }

    /// Advances the clock.
    pub(crate) fn wait(&mut self, ms: u64) {
        self.rig.advance(ms);
        self.turn();
    }

    /// Takes the next frame that a client has received.
    pub(crate) fn next(&mut self, who: Who) -> Frame {
        let mut told = self.heard(who);
        assert!(!told.is_empty(), "nothing was told to {who:?}");
        let first = told.remove(0);
        self.clients[who.0].unread = told.iter().flat_map(Frame::bytes).collect();
        first
    }

    /// Takes all frames that a client has received.
    pub(crate) fn heard(&mut self, who: Who) -> Vec<Frame> {
        let mut bytes = std::mem::take(&mut self.clients[who.0].unread);
        std::iter::from_fn(|| Frame::take(&mut bytes)).collect()
    }

    /// Takes the bodies of all frames that a client has received, which have to be messages.
    pub(crate) fn bodies(&mut self, who: Who) -> Vec<String> {
        let told = self.heard(who);
        told.iter().for_each(|one| assert_eq!(one.command, "MESSAGE", "{one:?}"));
        told.into_iter().map(|one| one.body).collect()
    }

    /// Turns until nothing is left to do.
    pub(crate) fn turn(&mut self) {
        self.turn_once();
        while self.rig.engine.has_work() {
            self.turn_once();
        }
    }

    /// One turn, in which not all may be done.
    pub(crate) fn turn_once(&mut self) {
        let closed = self.rig.turn();
        for client in &mut self.clients {
            if let Some(socket) = self.rig.engine.socket_mut(client.id) {
                collect(socket, &mut client.unread);
            }
        }
        for (id, mut socket) in closed {
            let client = self.clients.iter_mut().find(|client| client.id == id);
            collect(&mut socket, &mut client.expect("one of ours").unread);
        }
    }
}

fn collect(socket: &mut ScriptedSocket, into: &mut Vec<u8>) {
    while let Some((_, bytes)) = socket.take_outbound() {
        into.extend_from_slice(&bytes);
    }
}

impl Frame {
    /// The value of the first header line of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.lines.iter().find(|line| line.0 == name).map(|line| &*line.1)
    }

    fn take(bytes: &mut Vec<u8>) -> Option<Self> {
        // The envelope of the classic dialect, which begins with a NUL.
        if bytes.first() == Some(&0) {
            bytes.drain(..5);
        }
        let end = bytes.iter().position(|byte| *byte == 0)?;
        let text = String::from_utf8(bytes.drain(..=end).collect()).unwrap();
        let text = text.trim_start_matches('\n').trim_end_matches('\0');
        let (head, body) = text.split_once("\n\n").expect("an empty line");
        let mut lines = head.lines();
        let command = lines.next().expect("a command").to_owned();
        let lines = lines.map(|line| line.split_once(':').expect("a colon"));
        let lines = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some(Self { command, lines, body: body.to_owned() })
    }

    fn bytes(&self) -> Vec<u8> {
        let lines: String =
            self.lines.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        format!("{}\n{lines}\n{}\0", self.command, self.body).into_bytes()
    }
}
