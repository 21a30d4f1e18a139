//! The clients of the simulation: the bytes that each sends, how many of them the engine has read, and
//! the parsing of answers.

use std::collections::VecDeque;

use com_broker::internal::broker::Profile;
use com_broker::internal::engine::ConnectionId;

use crate::client::{Carrier, Client, Envelope};
use crate::model::{Ask, Command, Event, Number, PATTERNS, Seen, Target};
use crate::rig::{APPLICATION_KEY, PROFILE_KEYS};

/// A client, and its end of a connection.
pub(crate) struct Actor {
    pub(crate) number: Number,
    pub(crate) carrier: Carrier,
    pub(crate) client: Client,
    /// `None` once the engine has dropped the connection.
    pub(crate) id: Option<ConnectionId>,
    /// The profile and login of its CONNECT.
    pub(crate) login: String,
    pub(crate) profile: Profile,
    /// Whether it has sent CONNECT.
    pub(crate) asked_to_log_in: bool,
    /// The state of a client of the standard dialect; `None` for one of the classic dialect.
    pub(crate) standard: Option<Standing>,
    /// The session id in CONNECTED.
    pub(crate) session_id: Option<String>,
    /// Whether it reads.
    pub(crate) reads: bool,
    /// Whether it has ended its stream or broken its connection.
    pub(crate) has_left: bool,
    pub(crate) is_broken: bool,
    /// Whether the broker has closed the connection as a slow consumer.
    pub(crate) is_cut: bool,
    /// The error code that it may get before its login, once its dialect is detected.
    pub(crate) farewell: Option<&'static str>,
    /// Whether it is beyond `connections_max`, so that it gets nothing but an ERROR.
    pub(crate) is_surplus: bool,
    /// Whether it has seen the end of the broker's stream.
    pub(crate) saw_end: bool,
    /// When the engine last read from it.
    pub(crate) heard_ms: u64,
    pub(crate) opened_ms: u64,
    /// Bytes that were not handed to the engine yet.
    pub(crate) outgoing: Vec<u8>,
    /// Total of bytes that were put into `outgoing`.
    produced: u64,
    /// Bytes that the engine has read; `consumed ≤ produced`.
    consumed: u64,
    /// The end of each command that was not read yet, counted like `produced`.
    marks: VecDeque<(u64, Command)>,
}

impl Actor {
    /// A client that has just connected.
    pub(crate) fn new(
        number: Number,
        carrier: Carrier,
        id: ConnectionId,
        (login, profile): (String, Profile),
        is_standard: bool,
        now_ms: u64,
    ) -> Self {
        let client = match is_standard {
            true => Client::standard(carrier),
            false => Client::new(carrier, "/"),
        };
        Self {
            number,
            carrier,
            client,
            standard: is_standard.then(Standing::default),
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

    /// Whether it can send frames.
    pub(crate) fn can_speak(&self) -> bool {
        self.id.is_some() && !self.has_left && !self.saw_end && self.client.is_ready()
    }

    /// Sends a command.
    pub(crate) fn say(&mut self, command: Command, names_session: bool) {
        self.collect_wire();
        self.asked_to_log_in |=
            matches!(command, Command::Connect { .. } | Command::Ask(Ask::Connect { .. }, _));
        match &command {
            Command::Close => self.client.close(1000, ""),
            _ if self.standard.is_some() => {
                let frame = standard_frame(&command) + "\0";
                let is_message = matches!(self.carrier, Carrier::Ws | Carrier::Wss);
                let envelope = if is_message { Envelope::Ordinary } else { Envelope::Bare };
                self.client.send(frame.as_bytes(), &envelope);
            }
            _ => {
                let mut frame = self.frame(&command, names_session).into_bytes();
                if matches!(self.carrier, Carrier::Ws | Carrier::Wss) {
                    frame.push(0);
                }
                self.client.send(&frame, &Envelope::Ordinary);
            }
        }
        self.collect_wire();
        // In the standard dialect, a violation is found at the end of the header, before the NUL arrives.
        let is_early = self.standard.is_some()
            && matches!(command, Command::Breach(_))
            && self.carrier == Carrier::Tcp;
        self.marks.push_back((self.produced - u64::from(is_early), command));
    }

    /// Ends its stream, once all its bytes are handed over.
    pub(crate) fn leave(&mut self) {
        self.collect_wire();
        self.client.end();
        self.collect_wire();
        self.has_left = true;
        if matches!(self.carrier, Carrier::Tls | Carrier::Wss) {
            // The close_notify of TLS may be read before the end of the stream.
            self.marks.push_back((self.produced, Command::Close));
        }
    }

    /// Moves bytes of the client to `outgoing`.
    pub(crate) fn collect_wire(&mut self) {
        let wire = self.client.take_wire();
        self.produced += wire.len() as u64;
        self.outgoing.extend_from_slice(&wire);
    }

    /// Notes that the engine has read bytes. Returns the commands that are whole now.
    pub(crate) fn note_read(&mut self, bytes: u64) -> Vec<Command> {
        self.consumed += bytes;
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
                lines.push(format!("passcode:{}", PROFILE_KEYS[*profile]));
                lines.push(format!("secret-key:{APPLICATION_KEY}"));
            }
            Command::Send { destination, transaction, body: text } => {
                lines.push("SEND".to_owned());
                lines.push(format!("destination:{destination}"));
                lines.extend(transaction.map(|number| format!("transaction:{number}")));
                body = text;
            }
            Command::Subscribe { target, transaction } => {
                lines.push("SUBSCRIBE".to_owned());
                lines.push(format!("transaction:{transaction}"));
                lines.push(format!("destination-type:{}", target.kind()));
                lines.extend(target.lines());
            }
            Command::Unsubscribe { target, transaction } => {
                lines.push("UNSUBSCRIBE".to_owned());
                lines.push(format!("transaction:{transaction}"));
                lines.extend(target.iter().flat_map(Target::lines));
            }
            Command::Disconnect => lines.push("DISCONNECT".to_owned()),
            Command::Breach("UNKNOWN_COMMAND") => lines.push("HELLO".to_owned()),
            Command::Breach(_) => {
                lines.push("SEND".to_owned());
                lines.push("no colon".to_owned());
            }
            Command::Close | Command::Ask(..) => {}
        }
        if names_session && let Some(id) = &self.session_id {
            lines.push(format!("session-id:{id}"));
        }
        format!("{}\n\n{body}", lines.join("\n"))
    }
}

impl Target {
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

/// The state of a client of the standard dialect.
#[derive(Default)]
pub(crate) struct Standing {
    /// Its subscriptions: ids and destinations.
    pub(crate) subscriptions: Vec<(String, String)>,
    /// Messages of queues that it has not acknowledged: subscription, `ack`, body.
    pub(crate) held: Vec<(String, String, String)>,
    /// `ack` values of messages by subscriptions that have ended.
    pub(crate) past: Vec<String>,
}

impl Standing {
    /// Takes out the messages that an ACK or NACK of one message settles, and returns their bodies.
    pub(crate) fn settle(&mut self, at: usize) -> Vec<String> {
        let (subscription, ack, _) = self.held[at].clone();
        let is_cumulative = subscription.rsplit_once('-').is_some_and(|(mode, _)| mode == "client");
        let mut index = 0;
        let is_meant = |held: &mut (String, String, String)| {
            index += 1;
            held.0 == subscription && (held.1 == ack || is_cumulative && index - 1 < at)
        };
        self.held.extract_if(.., is_meant).map(|(.., body)| body).collect()
    }
}

/// The frame of the standard dialect, without its NUL.
fn standard_frame(command: &Command) -> String {
    let Command::Ask(ask, receipt) = command else {
        return match command {
            Command::Breach("UNKNOWN_COMMAND") => "HELLO\n\n".to_owned(),
            _ => "SEND\nno colon\n\n".to_owned(),
        };
    };
    let within = |inside: &bool| if *inside { "transaction:t\n" } else { "" };
    let (head, body) = match ask {
        Ask::Connect { login, profile, resume, inbox } => {
            let key = PROFILE_KEYS[*profile];
            let head = format!(
                "CONNECT\naccept-version:1.2\nlogin:{login}\npasscode:{key}\n\
                 secret-key:{APPLICATION_KEY}\nresume:{resume}\ninbox:{inbox}\n"
            );
            return format!("{head}\n");
        }
        Ask::Send { destination, body, inside } => {
            (format!("SEND\ndestination:{destination}\n{}", within(inside)), &**body)
        }
        Ask::Subscribe { id, destination, prefetch, .. } => {
            let (mode, _) = id.rsplit_once('-').unwrap();
            let lines = format!("id:{id}\nack:{mode}\nprefetch-count:{prefetch}\n");
            (format!("SUBSCRIBE\ndestination:{destination}\n{lines}"), "")
        }
        Ask::Unsubscribe { id } => (format!("UNSUBSCRIBE\nid:{id}\n"), ""),
        Ask::Settle { is_ack, ack, inside, .. } => {
            let command = if *is_ack { "ACK" } else { "NACK" };
            (format!("{command}\nid:{ack}\n{}", within(inside)), "")
        }
        Ask::Begin => ("BEGIN\ntransaction:t\n".to_owned(), ""),
        Ask::Commit => ("COMMIT\ntransaction:t\n".to_owned(), ""),
        Ask::Abort => ("ABORT\ntransaction:t\n".to_owned(), ""),
        Ask::Disconnect => ("DISCONNECT\n".to_owned(), ""),
    };
    format!("{head}receipt:{receipt}\n\n{body}")
}

/// The meaning of a frame.
#[derive(Debug)]
pub(crate) enum Understood {
    Seen(Seen),
    Event(Event),
    /// A message of a queue.
    Job {
        subscription: String,
        ack: Option<String>,
        is_dead: bool,
        body: String,
    },
}

/// Parses a frame of the standard dialect.
pub(crate) fn understand_standard(frame: &[u8]) -> Understood {
    let text = std::str::from_utf8(frame).expect("a frame that is UTF-8");
    let text = text.strip_suffix('\0').expect("a frame without a NUL");
    let (head, body) = text.split_once("\n\n").expect("a frame without an empty line");
    let (command, lines) = head.split_once('\n').unwrap_or((head, ""));
    let header = |key: &str| {
        let mut lines = lines.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
    };
    let body = body.to_owned();
    Understood::Seen(match command {
        "CONNECTED" => {
            let code = header("profile-code").unwrap();
            let profile = Profile::ALL.iter().find(|profile| profile.code() == code).unwrap();
            Seen::Connected { login: header("login").unwrap(), profile: profile.code() }
        }
        "MESSAGE" => {
            let subscription = header("subscription").unwrap();
            if header("destination").unwrap().starts_with("/queue/") {
                let is_dead = header("dead-letter-reason").is_some();
                return Understood::Job { subscription, ack: header("ack"), is_dead, body };
            }
            Seen::Copies {
                subscriptions: [subscription].into(),
                origin: header("origin").unwrap(),
                body,
            }
        }
        "ERROR" => Seen::Error(header("error-code").unwrap()),
        "RECEIPT" => Seen::Receipt(header("receipt-id")),
        _ => panic!("a frame that no client expects: {command}"),
    })
}

/// Parses a frame from the broker.
pub(crate) fn understand(frame: &[u8]) -> Understood {
    let text = std::str::from_utf8(frame).expect("a frame that is UTF-8");
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
        "RECEIPT" => Seen::Receipt(None),
        _ => panic!("a frame that no client expects: {command}"),
    })
}

/// The session id in a frame.
pub(crate) fn session_id(frame: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(frame).ok()?;
    text.lines().find_map(|line| line.strip_prefix("session-id:")).map(str::to_owned)
}
