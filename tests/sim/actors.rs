//! The clients of the simulation: what each wants to say, how much of it the engine was given, and
//! what it understood of the answers.

use std::collections::VecDeque;

use com_broker::broker::Profile;
use com_broker::engine::ConnectionId;

use crate::client::{Carrier, Client, Envelope};
use crate::model::{Command, Event, Number, PATTERNS, Seen, Wish};
use crate::rig::{APPLICATION_KEY, PROFILE_KEYS};

/// A client, and its end of a connection.
pub(crate) struct Actor {
    pub(crate) number: Number,
    pub(crate) carrier: Carrier,
    pub(crate) client: Client,
    /// None once the engine let the connection go.
    pub(crate) id: Option<ConnectionId>,
    /// What it will be, once it logs in.
    pub(crate) login: String,
    pub(crate) profile: Profile,
    /// Whether it has sent CONNECT.
    pub(crate) asked_to_log_in: bool,
    /// What CONNECTED said.
    pub(crate) session_id: Option<String>,
    /// Whether it takes what arrives.
    pub(crate) reads: bool,
    /// It ended its stream, or broke its connection.
    pub(crate) has_left: bool,
    pub(crate) is_broken: bool,
    /// The broker closed the connection because it did not read.
    pub(crate) is_cut: bool,
    /// What it may be told before it was logged in, if it has said enough to be told anything.
    pub(crate) farewell: Option<&'static str>,
    /// It is above `connections_max`: all that it gets is an ERROR that says so.
    pub(crate) is_surplus: bool,
    /// It saw the end of the broker's stream.
    pub(crate) saw_end: bool,
    /// When it was heard last.
    pub(crate) heard_ms: u64,
    pub(crate) opened_ms: u64,
    /// Octets that the engine was not given yet.
    pub(crate) outgoing: Vec<u8>,
    /// Octets that were ever put into `outgoing`.
    produced: u64,
    /// Octets that the engine has read; `consumed ≤ produced`.
    consumed: u64,
    /// Where each command ends among all octets, those that were not read yet.
    marks: VecDeque<(u64, Command)>,
}

impl Actor {
    /// A client that has just connected.
    pub(crate) fn new(
        number: Number,
        carrier: Carrier,
        id: ConnectionId,
        login: String,
        profile: Profile,
        now_ms: u64,
    ) -> Self {
        Self {
            number,
            carrier,
            client: Client::new(carrier, "/"),
            id: Some(id),
            login,
            profile,
            asked_to_log_in: false,
            session_id: None,
            reads: true,
            has_left: false,
            is_broken: false,
            is_cut: false,
            farewell: None,
            is_surplus: false,
            saw_end: false,
            heard_ms: now_ms,
            opened_ms: now_ms,
            outgoing: Vec::new(),
            produced: 0,
            consumed: 0,
            marks: VecDeque::new(),
        }
    }

    /// Whether it can say something.
    pub(crate) fn can_speak(&self) -> bool {
        self.id.is_some() && !self.has_left && !self.saw_end && self.client.is_ready()
    }

    /// Says something.
    pub(crate) fn say(&mut self, command: Command, names_session: bool) {
        self.collect_wire();
        self.asked_to_log_in |= matches!(command, Command::Connect { .. });
        match &command {
            Command::Close => self.client.close(1000, ""),
            _ => {
                let mut frame = self.frame(&command, names_session).into_bytes();
                if matches!(self.carrier, Carrier::Ws | Carrier::Wss) {
                    frame.push(0);
                }
                self.client.send(&frame, &Envelope::Ordinary);
            }
        }
        self.collect_wire();
        self.marks.push_back((self.produced, command));
    }

    /// Ends its stream, once all that it said is handed over.
    pub(crate) fn leave(&mut self) {
        self.collect_wire();
        self.client.end();
        self.collect_wire();
        self.has_left = true;
        if matches!(self.carrier, Carrier::Tls | Carrier::Wss) {
            // TLS says so in a record of its own, which may be read before the end of the stream.
            self.marks.push_back((self.produced, Command::Close));
        }
    }

    /// Moves what the client wrote to what is outgoing.
    pub(crate) fn collect_wire(&mut self) {
        let wire = self.client.take_wire();
        self.produced += wire.len() as u64;
        self.outgoing.extend_from_slice(&wire);
    }

    /// Notes that the engine read octets. Gives the commands that are whole now.
    pub(crate) fn note_read(&mut self, octets: u64) -> Vec<Command> {
        self.consumed += octets;
        let consumed = self.consumed;
        let mut whole = Vec::new();
        while self.marks.front().is_some_and(|(end, _)| *end <= consumed) {
            whole.extend(self.marks.pop_front().map(|(_, command)| command));
        }
        whole
    }

    fn frame(&self, command: &Command, names_session: bool) -> String {
        let mut lines: Vec<String> = Vec::new();
        let mut body = "";
        match command {
            Command::Connect { login, profile } => {
                lines.push("CONNECT".to_owned());
                lines.push(format!("login:{login}"));
                lines.push(format!("passcode:{}", PROFILE_KEYS[*profile as usize]));
                lines.push(format!("secret-key:{APPLICATION_KEY}"));
            }
            Command::Send { destination, transaction, body: text } => {
                lines.push("SEND".to_owned());
                lines.push(format!("destination:{destination}"));
                lines.extend(transaction.map(|number| format!("transaction:{number}")));
                body = text;
            }
            Command::Subscribe { wish, transaction } => {
                lines.push("SUBSCRIBE".to_owned());
                lines.push(format!("transaction:{transaction}"));
                lines.push(format!("destination-type:{}", wish.kind()));
                lines.extend(wish.lines());
            }
            Command::Unsubscribe { wish, transaction } => {
                lines.push("UNSUBSCRIBE".to_owned());
                lines.push(format!("transaction:{transaction}"));
                lines.extend(wish.iter().flat_map(Wish::lines));
            }
            Command::Disconnect => lines.push("DISCONNECT".to_owned()),
            Command::Breach("UNKNOWN_COMMAND") => lines.push("HELLO".to_owned()),
            Command::Breach(_) => {
                lines.push("SEND".to_owned());
                lines.push("no colon".to_owned());
            }
            Command::Close => {}
        }
        if names_session && let Some(id) = &self.session_id {
            lines.push(format!("session-id:{id}"));
        }
        format!("{}\n\n{body}", lines.join("\n"))
    }
}

impl Wish {
    fn kind(&self) -> &'static str {
        if matches!(self, Self::Clients(_)) { "1" } else { "0" }
    }

    fn lines(&self) -> Vec<String> {
        match self {
            Self::Client(address) => vec![format!("destination:{address}")],
            Self::Clients(pattern) => vec![format!("destination:{}", PATTERNS[*pattern].0)],
            Self::Presence(pattern) => vec![
                "destination:STOMP-SERVER".to_owned(),
                format!("destination-id:{}", PATTERNS[*pattern].0),
            ],
        }
    }
}

/// What a frame says.
#[derive(Debug)]
pub(crate) enum Understood {
    Seen(Seen),
    Event(Event),
}

/// Reads a frame from the broker.
pub(crate) fn understand(frame: &[u8]) -> Understood {
    let text = std::str::from_utf8(frame).expect("a frame that is no text");
    let text = text.strip_suffix('\0').expect("a frame without a NUL");
    let (head, body) = text.split_once("\n\n").expect("a frame without an empty line");
    let (command, lines) = head.split_once('\n').unwrap_or((head, ""));
    let header = |key: &str| {
        let mut lines = lines.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
    };
    let number = |key: &str| header(key).map(|value| value.parse::<u64>().unwrap());
    Understood::Seen(match command {
        "CONNECTED" => {
            let code = header("profile-code").unwrap();
            let profile = Profile::ALL.iter().find(|profile| profile.code() == code).unwrap();
            Seen::Connected { login: header("login").unwrap(), profile: profile.code() }
        }
        "MESSAGE" if header("origin").unwrap() == "STOMP-SERVER" => {
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            let text = |key: &str| json[key].as_str().unwrap().to_owned();
            assert_eq!(header("event").unwrap(), text("event"));
            let (event, login, reason) = (text("event"), text("login"), text("reason"));
            return Understood::Event(Event { event, login, reason });
        }
        "MESSAGE" => {
            assert_eq!(number("content-length"), Some(body.len() as u64));
            Seen::Message {
                transaction: number("transaction"),
                origin: header("origin").unwrap(),
                body: body.to_owned(),
            }
        }
        "ACK" => {
            let listed = body.lines().filter_map(|line| line.split_once('['));
            let logins = listed.map(|(_, rest)| rest.split_once(']').unwrap().0.to_owned());
            let mut listed: Vec<_> = logins.collect();
            listed.sort();
            let code = header("error-code");
            assert_eq!(code.is_none(), header("error-desc").unwrap() == "OK");
            Seen::Ack { transaction: number("transaction").unwrap(), listed, code }
        }
        "ERROR" => Seen::Error(header("error-code").unwrap()),
        "RECEIPT" => Seen::Receipt,
        _ => panic!("a frame that no client expects: {command}"),
    })
}

/// The session id in a frame.
pub(crate) fn session_id(frame: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(frame).ok()?;
    text.lines().find_map(|line| line.strip_prefix("session-id:")).map(str::to_owned)
}
