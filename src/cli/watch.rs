//! `com-broker watch`: a client that subscribes and prints messages.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use com_broker_client::{
    Printable, Session, StandardClient, StandardMessage, StandardTarget, is_harmful,
};

use super::login::{KEYS_HELP, LoginArguments, LoginFault, parse_count};
use crate::json::to_line;

/// `com-broker watch`
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("\
Examples:
  com-broker watch --login ana                        wait for messages to /agent/ana
  com-broker watch --login wat --profile service --pattern '/agent/.*'
                                                      copies of what all agents get
  com-broker watch --login wat --profile service --presence '.*' --snapshot
                                                      who is there, who comes, who goes
  com-broker watch --login ana --topic news --topic 'weather/>'
                                                      what is sent to topics
  com-broker watch --login ana --count 1 --body-only  print one message and end

Messages to the login's own address are always shown. Who watches by several ways that select the
same message is shown it for each. What is not printable is escaped, except by --body-only into a
file or a pipe.

{KEYS_HELP}

Exit code: 0 after Ctrl-C or --count messages, 1 if the connection ended before, 2 if the command
makes no sense or the key is another profile's."))]
pub struct WatchArguments {
    /// Client to watch, by its address; may be repeated
    #[arg(long = "client", value_name = "DESTINATION")]
    pub clients: Vec<String>,
    /// Regular expression for the whole address of clients to watch, now and later; may be repeated
    #[arg(long = "pattern", value_name = "REGEX")]
    pub patterns: Vec<String>,
    /// Topic to hear, such as news or /topic/news; * stands for one level and > at the end for all that
    /// follow; may be repeated
    #[arg(long = "topic", value_name = "TOPIC", value_parser = parse_topic)]
    pub topics: Vec<String>,
    /// Queue to take messages from, such as orders or /queue/orders: what is shown here is taken away
    /// from its other consumers, and gone; may be repeated
    #[arg(long = "queue", value_name = "QUEUE", value_parser = parse_queue)]
    pub queues: Vec<String>,
    /// Tell when a client whose address matches comes or goes
    #[arg(long, value_name = "REGEX")]
    pub presence: Option<String>,
    /// Begin with those that are there
    #[arg(long, requires = "presence")]
    pub snapshot: bool,
    /// End after this many messages
    #[arg(long, value_name = "N", value_parser = parse_count, allow_negative_numbers = true)]
    pub count: Option<u64>,
    /// Print a line of JSON for everything that happens
    #[arg(long)]
    pub json: bool,
    /// Print nothing but bodies, each with a line end behind it
    #[arg(long, conflicts_with = "json")]
    pub body_only: bool,
    /// Where to log in, and as whom.
    #[command(flatten)]
    pub login: LoginArguments,
}

/// Logs in, subscribes, prints messages until Ctrl-C or `--count`, logs out.
///
/// # Errors
/// The broker refuses the login or a subscription, or the connection ends.
pub(super) fn run(arguments: &WatchArguments) -> Result<(), LoginFault> {
    let interrupted = catch_signals().map_err(LoginFault::Signals)?;
    let mut client = arguments.login.connect()?;
    let stdout = io::stdout().lock();
    let style = arguments.style(stdout.is_terminal());
    let mut screen = Screen { out: stdout, notes: io::stderr(), style };
    let watched = arguments
        .subscribe(&mut client, &mut screen)
        .and_then(|()| print_messages(&mut client, &mut screen, arguments.count, &interrupted));
    match watched {
        Ok(()) => client.disconnect().map_err(LoginFault::Client),
        // The reader of the output has closed the pipe.
        Err(LoginFault::Output(fault)) if fault.kind() == io::ErrorKind::BrokenPipe => {
            client.disconnect().map_err(LoginFault::Client)
        }
        Err(fault) => Err(fault),
    }
}

impl WatchArguments {
    fn style(&self, is_terminal: bool) -> Style {
        match (self.json, self.body_only) {
            (true, _) => Style::Json,
            (false, true) if is_terminal => Style::EscapedBodies,
            (false, true) => Style::RawBodies,
            (false, false) => Style::Readable,
        }
    }

    fn subscribe(
        &self,
        client: &mut StandardClient,
        screen: &mut Screen<impl Write, impl Write>,
    ) -> Result<(), LoginFault> {
        let own = client.session().destination.clone();
        client.subscribe(OWN, StandardTarget::Destination(&own))?;
        screen.show_session(client.session())?;
        for (number, one) in self.subscriptions().into_iter().enumerate() {
            client.subscribe(&format!("{}-{number}", one.kind.name()), one.target())?;
            screen.show_subscription(one)?;
        }
        Ok(())
    }

    fn subscriptions(&self) -> Vec<Subscription<'_>> {
        let presence = Kind::Presence { with_snapshot: self.snapshot };
        let kinds = [
            (Kind::Client, self.clients.as_slice()),
            (Kind::Pattern, &self.patterns),
            (Kind::Topic, &self.topics),
            (Kind::Queue, &self.queues),
            (presence, self.presence.as_slice()),
        ];
        let of_kind = |(kind, texts)| {
            let texts: &[String] = texts;
            texts.iter().map(move |text| Subscription { kind, text })
        };
        kinds.into_iter().flat_map(of_kind).collect()
    }
}

/// Id of the subscription to the login's own address.
const OWN: &str = "own";

/// A subscription that an argument asks for.
#[derive(Clone, Copy, Debug)]
struct Subscription<'a> {
    kind: Kind,
    text: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Client,
    Pattern,
    Topic,
    Queue,
    Presence { with_snapshot: bool },
}

impl<'a> Subscription<'a> {
    fn target(self) -> StandardTarget<'a> {
        match self.kind {
            Kind::Client | Kind::Topic | Kind::Queue => StandardTarget::Destination(self.text),
            Kind::Pattern => StandardTarget::Pattern(self.text),
            Kind::Presence { with_snapshot } => {
                StandardTarget::Presence { pattern: self.text, with_snapshot }
            }
        }
    }
}

impl Kind {
    /// Name of its option, with which ids of subscriptions begin.
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Pattern => "pattern",
            Self::Topic => "topic",
            Self::Queue => "queue",
            Self::Presence { .. } => "presence",
        }
    }
}

/// Why a message is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// It was sent to the login's own address.
    Own,
    /// It is a copy of one that was sent to a watched client.
    Copy,
    /// It was sent to a topic or a queue.
    TopicOrQueue,
    /// It is a presence event.
    Presence,
}

impl Cause {
    fn of(message: &StandardMessage) -> Self {
        match message.subscription.split('-').next().unwrap_or_default() {
            OWN => Self::Own,
            "presence" => Self::Presence,
            "topic" | "queue" => Self::TopicOrQueue,
            _ if message.destination.starts_with("/topic/") => Self::TopicOrQueue,
            _ => Self::Copy,
        }
    }
}

fn parse_topic(text: &str) -> Result<String, String> {
    in_space(text, "/topic/").ok_or_else(|| "use a topic such as news or /topic/news".to_owned())
}

fn parse_queue(text: &str) -> Result<String, String> {
    in_space(text, "/queue/")
        .ok_or_else(|| "use a queue such as orders or /queue/orders".to_owned())
}

/// A name with its space before it, which may be missing in `text`.
fn in_space(text: &str, space: &str) -> Option<String> {
    let name = text.strip_prefix(space).unwrap_or(text);
    (!name.is_empty() && !name.starts_with('/')).then(|| format!("{space}{name}"))
}

fn print_messages(
    client: &mut StandardClient,
    screen: &mut Screen<impl Write, impl Write>,
    count: Option<u64>,
    interrupted: &AtomicBool,
) -> Result<(), LoginFault> {
    let mut shown = 0;
    while !interrupted.load(Ordering::Relaxed) && count.is_none_or(|count| shown < count) {
        if let Some(message) = client.next(SIGNAL_INTERVAL)? {
            screen.show_message(&message)?;
            shown += 1;
        }
    }
    Ok(())
}

/// Interval at which Ctrl-C is checked.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(200);

/// Has the first signal noted; a second one ends the process at once.
fn catch_signals() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&interrupted))?;
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

/// How messages are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Readable,
    Json,
    EscapedBodies,
    RawBodies,
}

/// The output. Bytes from the network cannot control the terminal.
struct Screen<O, N> {
    out: O,
    /// Output for everything but bodies, if only bodies are asked for.
    notes: N,
    style: Style,
}

impl<O: Write, N: Write> Screen<O, N> {
    fn show_session(&mut self, session: &Session) -> Result<(), LoginFault> {
        let value = json!({
            "event": "connected",
            "destination": session.destination,
            "login": session.login,
            "profile": session.profile_description,
            "session_id": session.session_id,
        });
        let text = format!(
            "logged in as {}, {}, at {}",
            shown(&session.login),
            shown(&session.profile_description),
            shown(&session.destination)
        );
        self.show_note(&value, &text)
    }

    fn show_subscription(&mut self, one: Subscription<'_>) -> Result<(), LoginFault> {
        let value = json!({ "event": "watching", one.kind.name(): one.text });
        let what = shown(one.text);
        let text = match one.kind {
            Kind::Client | Kind::Topic => format!("watching {what}"),
            Kind::Pattern => format!("watching {what}, who is there and who comes later"),
            Kind::Queue => format!("taking messages from {what}"),
            Kind::Presence { .. } => format!("watching who comes and goes at {what}"),
        };
        self.show_note(&value, &text)
    }

    fn show_message(&mut self, message: &StandardMessage) -> Result<(), LoginFault> {
        let mut bytes = match self.style {
            Style::Json => json_line(&message_as_json(message)).into_bytes(),
            Style::RawBodies => message.body.clone(),
            Style::EscapedBodies => Printable(&message.body).to_string().into_bytes(),
            Style::Readable => readable(message).into_bytes(),
        };
        bytes.push(b'\n');
        print(&mut self.out, &bytes)
    }

    /// Prints what is not a message.
    fn show_note(&mut self, value: &Value, text: &str) -> Result<(), LoginFault> {
        match self.style {
            Style::Json => print(&mut self.out, format!("{}\n", json_line(value)).as_bytes()),
            Style::Readable => print(&mut self.out, format!("{text}\n").as_bytes()),
            Style::EscapedBodies | Style::RawBodies => {
                print(&mut self.notes, format!("{text}\n").as_bytes())
            }
        }
    }
}

fn print(out: &mut impl Write, bytes: &[u8]) -> Result<(), LoginFault> {
    out.write_all(bytes).and_then(|()| out.flush()).map_err(LoginFault::Output)
}

fn shown(text: &str) -> String {
    Printable(text.as_bytes()).to_string()
}

/// A line about the message, then its body, indented so that it cannot be mistaken for such a line.
fn readable(message: &StandardMessage) -> String {
    if let Some(line) = presence_line(message) {
        return line;
    }
    let mut text = shown(&message.origin_destination);
    match Cause::of(message) {
        Cause::Own | Cause::Presence => {}
        // The receiver, to distinguish it from a message to this login.
        Cause::Copy => text.push_str(&format!(" to {}", shown(&message.destination))),
        Cause::TopicOrQueue => text.push_str(&format!(" at {}", shown(&message.destination))),
    }
    if let Some(content_type) = &message.content_type {
        text.push_str(", ");
        text.push_str(&shown(content_type));
    }
    for (key, value) in &message.headers {
        text.push_str(&format!(", {}: {}", shown(key), shown(value)));
    }
    match std::str::from_utf8(&message.body) {
        Ok("") => text.push_str(", no body"),
        Ok(body) => {
            for line in body.lines() {
                text.push_str("\n    ");
                text.push_str(&shown(line));
            }
        }
        Err(_) => {
            let (shown, rest) = message.body.split_at(message.body.len().min(BINARY_BYTES_SHOWN));
            text.push_str(&format!("\n    {}", Printable(shown)));
            if !rest.is_empty() {
                text.push_str(&format!(" … and {} bytes more", rest.len()));
            }
        }
    }
    text
}

/// Bytes that are shown of a binary body.
const BINARY_BYTES_SHOWN: usize = 256;

/// A presence event as a line, such as `ana logged in, /agent/ana`.
fn presence_line(message: &StandardMessage) -> Option<String> {
    let event = message.header("event").filter(|_| Cause::of(message) == Cause::Presence)?;
    let body: Value = serde_json::from_slice(&message.body).ok()?;
    let field = |name: &str| body.get(name).and_then(Value::as_str).map(shown);
    let (login, destination) = (field("login")?, field("destination")?);
    let what = match (event, message.header("snapshot")) {
        ("logged", Some("true")) => "is logged in".to_owned(),
        ("logged", _) => "logged in".to_owned(),
        ("logout", _) => "logged out".to_owned(),
        (event, _) => shown(event),
    };
    // The reason of a login is redundant.
    let reason = field("reason").filter(|reason| event != "logged" && !reason.is_empty());
    let reason = reason.map_or_else(String::new, |reason| format!(", {reason}"));
    Some(format!("{login} {what}, {destination}{reason}"))
}

fn message_as_json(message: &StandardMessage) -> Value {
    let mut value = Map::new();
    let mut set = |key: &str, content: Value| value.insert(key.to_owned(), content);
    set("event", json!("message"));
    set("origin", json!(message.origin));
    set("destination", json!(message.origin_destination));
    set("to", json!(message.destination));
    set("to_us", json!(Cause::of(message) == Cause::Own));
    set("content_type", json!(message.content_type));
    set("headers", json!(message.headers));
    match std::str::from_utf8(&message.body) {
        Ok(text) => set("body", json!(text)),
        Err(_) => set("body_hex", json!(hex(&message.body))),
    };
    Value::Object(value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// JSON in one line, without characters that control a terminal. JSON allows any character above U+001F
/// unescaped, but only inside strings, where an escape is equivalent.
fn json_line(value: &Value) -> String {
    const HAVE_A_LETTER: [char; 5] = ['\u{8}', '\t', '\n', '\u{c}', '\r'];
    to_line(value, |c| is_harmful(c) && !HAVE_A_LETTER.contains(&c))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        watch: WatchArguments,
    }

    fn parse(more: &[&str]) -> Result<WatchArguments, clap::Error> {
        let arguments = ["watch", "--login", "wat"].iter().chain(more);
        Arguments::try_parse_from(arguments).map(|arguments| arguments.watch)
    }

    fn message(body: &[u8]) -> StandardMessage {
        StandardMessage {
            subscription: OWN.to_owned(),
            origin: "bob".to_owned(),
            origin_destination: "/agent/bob".to_owned(),
            destination: "/agent/wat".to_owned(),
            content_type: Some("text/plain".to_owned()),
            headers: Vec::new(),
            body: body.to_vec(),
        }
    }

    fn presence(event: &str, headers: &[(&str, &str)], body: &Value) -> StandardMessage {
        let mut message = message(body.to_string().as_bytes());
        message.subscription = "presence-0".to_owned();
        message.origin = "STOMP-SERVER".to_owned();
        message.origin_destination = "STOMP-SERVER".to_owned();
        let headers = std::iter::once(("event", event)).chain(headers.iter().copied());
        message.headers = headers.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        message
    }

    fn show(style: Style, message: &StandardMessage) -> (String, String) {
        let mut screen = Screen { out: Vec::new(), notes: Vec::new(), style };
        let one = Subscription { kind: Kind::Client, text: "no\x1b[2J" };
        screen.show_subscription(one).unwrap();
        screen.show_message(message).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(screen.out), text(screen.notes))
    }

    #[test]
    fn arguments_are_consistent() {
        let arguments = parse(&["--client", "/agent/a", "--client", "/agent/b"]).unwrap();
        assert_eq!(arguments.clients, ["/agent/a", "/agent/b"]);
        assert!(parse(&["--snapshot"]).is_err());
        assert!(parse(&["--presence", ".*", "--snapshot"]).is_ok());
        assert!(parse(&["--json", "--body-only"]).is_err());
        assert!(parse(&["--count", "0"]).is_err());
        assert_eq!(parse(&[]).unwrap().style(true), Style::Readable);
        assert_eq!(parse(&["--json"]).unwrap().style(true), Style::Json);
        assert_eq!(parse(&["--body-only"]).unwrap().style(true), Style::EscapedBodies);
        assert_eq!(parse(&["--body-only"]).unwrap().style(false), Style::RawBodies);
    }

    #[test]
    fn topics_and_queues_are_named_with_or_without_their_space() {
        let arguments = ["--topic", "news", "--topic", "/topic/a/*", "--queue", "/queue/orders"];
        let arguments = parse(&arguments).unwrap();
        assert_eq!(arguments.topics, ["/topic/news", "/topic/a/*"]);
        assert_eq!(arguments.queues, ["/queue/orders"]);
        for wrong in [["--topic", ""], ["--topic", "/queue/x"], ["--queue", "/queue/"]] {
            let fault = parse(&wrong).unwrap_err().to_string();
            assert!(fault.contains(": use a "), "{fault}");
        }
        for wrong in ["5x", "-5"] {
            let fault = parse(&["--count", wrong]).unwrap_err().to_string();
            assert!(fault.contains("use a whole number above zero"), "{fault}");
        }
    }

    #[test]
    fn a_message_is_readable_and_harmless() {
        assert_eq!(readable(&message(b"hello")), "/agent/bob, text/plain\n    hello");
        assert_eq!(readable(&message(b"a\n\nb\n")), "/agent/bob, text/plain\n    a\n    \n    b");
        assert_eq!(readable(&message(b"")), "/agent/bob, text/plain, no body");
        let mut odd = message(b"\x1b[2J\xff\xc2\x9b");
        odd.subscription = "pattern-0".to_owned();
        odd.origin_destination = "/agent/\x1b[1m".to_owned();
        odd.destination = "/agent/\x1b[2m".to_owned();
        odd.content_type = None;
        odd.headers.push(("k\x07".to_owned(), "v\x08".to_owned()));
        assert_eq!(
            readable(&odd),
            "/agent/\\x1b[1m to /agent/\\x1b[2m, k\\x07: v\\x08\n    \\x1b[2J\\xff\\u{9b}"
        );
        let long = readable(&message(&[0xff; 300]));
        assert!(long.ends_with("\\xff … and 44 bytes more"), "{long}");
    }

    #[test]
    fn a_copy_names_its_receiver() {
        for (subscription, destination, line, is_to_us) in [
            ("own", "/agent/wat", "/agent/bob, text/plain\n    x", true),
            ("client-0", "/agent/ana", "/agent/bob to /agent/ana, text/plain\n    x", false),
            ("pattern-1", "/agent/ana", "/agent/bob to /agent/ana, text/plain\n    x", false),
            ("topic-0", "/topic/news", "/agent/bob at /topic/news, text/plain\n    x", false),
            ("client-0", "/topic/news", "/agent/bob at /topic/news, text/plain\n    x", false),
            ("queue-0", "/queue/a", "/agent/bob at /queue/a, text/plain\n    x", false),
        ] {
            let mut message = message(b"x");
            message.subscription = subscription.to_owned();
            message.destination = destination.to_owned();
            assert_eq!(readable(&message), line);
            let value = message_as_json(&message);
            assert_eq!((&value["to"], &value["to_us"]), (&json!(destination), &json!(is_to_us)));
            assert_eq!(value["destination"], "/agent/bob");
        }
    }

    #[test]
    fn a_presence_event_is_one_line() {
        let body = json!({"login": "ana", "destination": "/agent/ana", "reason": "login"});
        let logged = presence("logged", &[], &body);
        assert_eq!(readable(&logged), "ana logged in, /agent/ana");
        let snapshot = presence("logged", &[("snapshot", "true")], &body);
        assert_eq!(readable(&snapshot), "ana is logged in, /agent/ana");
        let body = json!({"login": "a\u{9b}", "destination": "/agent/ana", "reason": "timed out"});
        let gone = presence("disconnected", &[], &body);
        assert_eq!(readable(&gone), "a\\u{9b} disconnected, /agent/ana, timed out");
        // Messages of clients arrive by another subscription, so that they cannot forge events.
        let mut forged = logged;
        forged.subscription = OWN.to_owned();
        assert!(readable(&forged).starts_with("STOMP-SERVER, text/plain, event: "));
    }

    #[test]
    fn json_is_one_line_each_and_harmless() {
        let (out, notes) = show(Style::Json, &message("a\n\u{9b}\u{202e}\u{e0001}\x7f".as_bytes()));
        assert_eq!(notes, "");
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[1].chars().all(|c| !is_harmful(c)), "{out}");
        let value: Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(value["body"], "a\n\u{9b}\u{202e}\u{e0001}\x7f");
        assert_eq!(value["to_us"], true);
        let value: Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!(value["client"], "no\x1b[2J");
        let value = message_as_json(&message(b"\xff\x00"));
        assert_eq!(value["body_hex"], "ff00");
        assert_eq!(value.get("body"), None);
    }

    #[test]
    fn bodies_alone_are_escaped_on_a_terminal() {
        let body = message(b"a\x1b[2J");
        let notes = "watching no\\x1b[2J\n";
        assert_eq!(show(Style::RawBodies, &body), ("a\x1b[2J\n".to_owned(), notes.to_owned()));
        let escaped = ("a\\x1b[2J\n".to_owned(), notes.to_owned());
        assert_eq!(show(Style::EscapedBodies, &body), escaped);
    }

    #[test]
    fn subscriptions_are_printed() {
        let mut screen = Screen { out: Vec::new(), notes: Vec::new(), style: Style::Readable };
        let arguments = ["--client", "/agent/ana", "--pattern", "/agent/a.*", "--queue", "q"];
        let arguments = parse(&[&arguments[..], &["--presence", ".*"]].concat()).unwrap();
        for one in arguments.subscriptions() {
            screen.show_subscription(one).unwrap();
        }
        assert_eq!(
            String::from_utf8(screen.out).unwrap(),
            "watching /agent/ana\nwatching /agent/a.*, who is there and who comes later\n\
             taking messages from /queue/q\nwatching who comes and goes at .*\n"
        );
    }
}
