//! `com-broker watch`: one client that listens and shows what arrives.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::login::{KEYS_HELP, LoginArguments, LoginFault};
use crate::client::{
    BROKER, Client, ClientError, Event, ListedClient, Message, Printable, ServerError, Session,
    Target, is_harmful,
};

/// `com-broker watch`
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("\
Examples:
  com-broker watch --login ana                        wait for messages to /agent/ana
  com-broker watch --login wat --profile service --pattern '/agent/.*'
                                                      copies of what all agents get
  com-broker watch --login wat --profile service --presence '.*' --snapshot
                                                      who is there, who comes, who goes
  com-broker watch --login ana --count 1 --body-only  print one message and end

Messages to the login's own address are always shown. What is not printable is escaped, except by
--body-only into a file or a pipe.

{KEYS_HELP}

Exit code: 0 after Ctrl-C or --count messages, 1 if the connection ended before, 2 if the command
makes no sense."))]
pub struct WatchArguments {
    /// Client to watch, by its address; may be repeated
    #[arg(long = "client", value_name = "DESTINATION")]
    pub clients: Vec<String>,
    /// Regular expression for the whole address of clients to watch, now and later; may be repeated
    #[arg(long = "pattern", value_name = "REGEX")]
    pub patterns: Vec<String>,
    /// Tell when a client whose address matches comes or goes
    #[arg(long, value_name = "REGEX")]
    pub presence: Option<String>,
    /// Begin with those that are there
    #[arg(long, requires = "presence")]
    pub snapshot: bool,
    /// End after this many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
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

/// Logs in, subscribes, prints until Ctrl-C or the last message that was asked for, logs out.
///
/// # Errors
/// The broker does not let us in or watch, or ended the connection; [`LoginFault::exit_code`] tells
/// the shell.
pub(super) fn run(arguments: &WatchArguments) -> Result<(), LoginFault> {
    let interrupted = catch_signals().map_err(LoginFault::Signals)?;
    let mut client = arguments.login.connect()?;
    let stdout = io::stdout().lock();
    let style = arguments.style(stdout.is_terminal());
    let mut screen = Screen { out: stdout, notes: io::stderr(), style };
    let watched = arguments
        .subscribe(&mut client, &mut screen)
        .and_then(|()| watch(&mut client, &mut screen, arguments.count, &interrupted));
    match watched {
        Ok(()) => client.disconnect().map(drop).map_err(LoginFault::Client),
        // Whoever read our output has seen enough.
        Err(LoginFault::Output(fault)) if fault.kind() == io::ErrorKind::BrokenPipe => {
            client.disconnect().map(drop).map_err(LoginFault::Client)
        }
        Err(fault) => Err(LoginArguments::leave(client, fault)),
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
        client: &mut Client,
        screen: &mut Screen<impl Write, impl Write>,
    ) -> Result<(), LoginFault> {
        screen.show_session(client.session())?;
        let addresses = self.clients.iter().map(|address| Target::Client(address));
        let patterns = self.patterns.iter().map(|pattern| Target::Pattern(pattern));
        for target in addresses.chain(patterns) {
            let watched = client.subscribe(target)?;
            screen.show_watched(target, &watched)?;
        }
        if let Some(pattern) = &self.presence {
            client.subscribe_presence(pattern, self.snapshot)?;
            screen.show_presence(pattern)?;
        }
        Ok(())
    }
}

fn watch(
    client: &mut Client,
    screen: &mut Screen<impl Write, impl Write>,
    count: Option<u64>,
    interrupted: &AtomicBool,
) -> Result<(), LoginFault> {
    let mut shown = 0;
    while !interrupted.load(Ordering::Relaxed) && count.is_none_or(|count| shown < count) {
        match client.next(SIGNAL_INTERVAL)? {
            Some(Event::Message(message)) => {
                screen.show_message(&message, client.is_addressee(&message))?;
                shown += 1;
            }
            Some(Event::Error(error)) if error.closes() => {
                return Err(LoginFault::Client(ClientError::Refused(Box::new(error))));
            }
            Some(Event::Error(error)) => screen.show_error(&error)?,
            Some(Event::Closed) => {
                return Err(LoginFault::Client(ClientError::Ended { awaited: "a message" }));
            }
            Some(Event::Ack(_)) | None => {}
        }
    }
    Ok(())
}

/// How often we look whether there was a Ctrl-C.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(200);

/// The first signal is noted, a second one ends the process at once.
fn catch_signals() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&interrupted))?;
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

/// How things are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Readable,
    Json,
    EscapedBodies,
    RawBodies,
}

/// Where things are printed. Nothing that comes from the network can do harm to a terminal.
struct Screen<O, N> {
    out: O,
    /// Takes what is not a body where only bodies are asked for.
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
            "connection_id": session.connection_id,
        });
        let text = format!(
            "logged in as {}, {}, at {}",
            shown(&session.login),
            shown(&session.profile_description),
            shown(&session.destination)
        );
        self.show_note(&value, &text)
    }

    fn show_watched(
        &mut self,
        target: Target<'_>,
        watched: &[ListedClient],
    ) -> Result<(), LoginFault> {
        let addresses: Vec<_> = watched.iter().map(|client| client.destination.as_str()).collect();
        let (kind, target, mut text) = match target {
            Target::Client(address) => ("client", address, format!("watching {}", shown(address))),
            Target::Pattern(pattern) => {
                let text = match watched.len() {
                    0 => format!("watching {}, nobody now", shown(pattern)),
                    count => format!("watching {}, {count} now:", shown(pattern)),
                };
                ("pattern", pattern, text)
            }
        };
        let value = json!({ "event": "watching", kind: target, "clients": addresses });
        if kind == "pattern" {
            for address in addresses {
                text.push(' ');
                text.push_str(&shown(address));
            }
        }
        self.show_note(&value, &text)
    }

    fn show_presence(&mut self, pattern: &str) -> Result<(), LoginFault> {
        let value = json!({ "event": "watching", "presence": pattern });
        self.show_note(&value, &format!("watching who comes and goes at {}", shown(pattern)))
    }

    fn show_error(&mut self, error: &ServerError) -> Result<(), LoginFault> {
        let value = json!({
            "event": "error",
            "description": error.description,
            "code": error.code,
        });
        self.show_note(&value, &error.to_string())
    }

    fn show_message(&mut self, message: &Message, is_to_us: bool) -> Result<(), LoginFault> {
        let mut bytes = match self.style {
            Style::Json => json_line(&message_as_json(message, is_to_us)).into_bytes(),
            Style::RawBodies => message.body.clone(),
            Style::EscapedBodies => Printable(&message.body).to_string().into_bytes(),
            Style::Readable => readable(message, is_to_us).into_bytes(),
        };
        bytes.push(b'\n');
        print(&mut self.out, &bytes)
    }

    /// What is no message.
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

/// A line about the message, then its body, indented, so that no body looks like such a line.
fn readable(message: &Message, is_to_us: bool) -> String {
    if let Some(line) = presence_line(message) {
        return line;
    }
    let mut text = shown(&message.destination);
    if !is_to_us {
        text.push_str(" to one whom we watch");
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

/// How much of a body is shown to people who could not read it anyway.
const BINARY_BYTES_SHOWN: usize = 256;

/// `ana logged in, /agent/ana`, if the broker says so.
fn presence_line(message: &Message) -> Option<String> {
    let event = message.header("event").filter(|_| message.destination == BROKER)?;
    let body: Value = serde_json::from_slice(&message.body).ok()?;
    let field = |name: &str| body.get(name).and_then(Value::as_str).map(shown);
    let (login, destination) = (field("login")?, field("destination")?);
    let what = match (event, message.header("snapshot")) {
        ("logged", Some("true")) => "is logged in".to_owned(),
        ("logged", _) => "logged in".to_owned(),
        ("logout", _) => "logged out".to_owned(),
        (event, _) => shown(event),
    };
    // Why somebody came says nothing new.
    let reason = field("reason").filter(|reason| event != "logged" && !reason.is_empty());
    let reason = reason.map_or_else(String::new, |reason| format!(", {reason}"));
    Some(format!("{login} {what}, {destination}{reason}"))
}

fn message_as_json(message: &Message, is_to_us: bool) -> Value {
    let mut value = Map::new();
    let mut set = |key: &str, content: Value| value.insert(key.to_owned(), content);
    set("event", json!("message"));
    set("origin", json!(message.origin));
    set("destination", json!(message.destination));
    set("to_us", json!(is_to_us));
    set("transaction", json!(message.transaction));
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

/// JSON may hold any character above U+001F as it is, also those that a terminal obeys. Such can
/// only stand inside of strings, where an escape means the same.
fn json_line(value: &Value) -> String {
    let mut line = String::new();
    for c in value.to_string().chars() {
        if is_harmful(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                line.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            line.push(c);
        }
    }
    line
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

    fn message(body: &[u8]) -> Message {
        Message {
            origin: "bob".to_owned(),
            destination: "/agent/bob".to_owned(),
            session_id: "s".to_owned(),
            transaction: Some("7".to_owned()),
            content_type: Some("text/plain".to_owned()),
            headers: Vec::new(),
            body: body.to_vec(),
        }
    }

    fn presence(event: &str, headers: &[(&str, &str)], body: &Value) -> Message {
        let mut message = message(body.to_string().as_bytes());
        message.origin = BROKER.to_owned();
        message.destination = BROKER.to_owned();
        let headers = std::iter::once(("event", event)).chain(headers.iter().copied());
        message.headers = headers.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        message
    }

    fn show(style: Style, message: &Message) -> (String, String) {
        let mut screen = Screen { out: Vec::new(), notes: Vec::new(), style };
        screen.show_error(&error()).unwrap();
        screen.show_message(message, true).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(screen.out), text(screen.notes))
    }

    fn error() -> ServerError {
        ServerError {
            description: "no\x1b[2J".to_owned(),
            code: None,
            retry: None,
            transaction: None,
        }
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
    fn a_message_is_readable_and_harmless() {
        assert_eq!(readable(&message(b"hello"), true), "/agent/bob, text/plain\n    hello");
        assert_eq!(
            readable(&message(b"a\n\nb\n"), true),
            "/agent/bob, text/plain\n    a\n    \n    b"
        );
        assert_eq!(readable(&message(b""), true), "/agent/bob, text/plain, no body");
        let mut odd = message(b"\x1b[2J\xff\xc2\x9b");
        odd.destination = "/agent/\x1b[1m".to_owned();
        odd.content_type = None;
        odd.headers.push(("k\x07".to_owned(), "v\x08".to_owned()));
        assert_eq!(
            readable(&odd, false),
            "/agent/\\x1b[1m to one whom we watch, k\\x07: v\\x08\n    \\x1b[2J\\xff\\u{9b}"
        );
        let long = readable(&message(&[0xff; 300]), true);
        assert!(long.ends_with("\\xff … and 44 bytes more"), "{long}");
    }

    #[test]
    fn presence_is_told_in_a_line() {
        let body = json!({"login": "ana", "destination": "/agent/ana", "reason": "login"});
        let logged = presence("logged", &[], &body);
        assert_eq!(readable(&logged, true), "ana logged in, /agent/ana");
        let snapshot = presence("logged", &[("snapshot", "true")], &body);
        assert_eq!(readable(&snapshot, true), "ana is logged in, /agent/ana");
        let body = json!({"login": "a\u{9b}", "destination": "/agent/ana", "reason": "timed out"});
        let gone = presence("disconnected", &[], &body);
        assert_eq!(readable(&gone, true), "a\\u{9b} disconnected, /agent/ana, timed out");
        // A login id can be anything, an address cannot: nobody else looks like the broker.
        let mut forged = logged;
        forged.destination = "/agent/STOMP-SERVER".to_owned();
        assert!(readable(&forged, true).starts_with("/agent/STOMP-SERVER, text/plain, event: "));
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
        assert_eq!(value["description"], "no\x1b[2J");
        let value = message_as_json(&message(b"\xff\x00"), false);
        assert_eq!(value["body_hex"], "ff00");
        assert_eq!(value.get("body"), None);
    }

    #[test]
    fn bodies_alone_are_raw_only_where_no_terminal_is() {
        let body = message(b"a\x1b[2J");
        let notes = "the broker refused: no\\x1b[2J\n";
        assert_eq!(show(Style::RawBodies, &body), ("a\x1b[2J\n".to_owned(), notes.to_owned()));
        let escaped = ("a\\x1b[2J\n".to_owned(), notes.to_owned());
        assert_eq!(show(Style::EscapedBodies, &body), escaped);
    }

    #[test]
    fn what_is_watched_is_listed() {
        let mut screen = Screen { out: Vec::new(), notes: Vec::new(), style: Style::Readable };
        let ana = ListedClient {
            login: "ana".to_owned(),
            session_id: String::new(),
            destination: "/agent/ana".to_owned(),
        };
        screen.show_watched(Target::Client("/agent/ana"), std::slice::from_ref(&ana)).unwrap();
        screen.show_watched(Target::Pattern("/agent/a.*"), &[ana]).unwrap();
        screen.show_watched(Target::Pattern("/agent/b.*"), &[]).unwrap();
        assert_eq!(
            String::from_utf8(screen.out).unwrap(),
            "watching /agent/ana\nwatching /agent/a.*, 1 now: /agent/ana\n\
             watching /agent/b.*, nobody now\n"
        );
    }
}
