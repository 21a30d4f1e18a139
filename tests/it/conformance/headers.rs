//! Header lines: escaping by version, blanks, repetition, encoding, and user-defined headers.

use super::{Statement, statement};
use crate::conformance::stage::{Client, Stage, connect};
use crate::support::client::Profile::{Agent, Service};

pub(crate) const STATEMENTS: &[Statement] = &[
    statement("STOMP 1.2, 'Value Encoding'", r"\n \c \\ \r stand for LF, colon, \, CR", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.2", "1.0");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, "k:a\\cb\\\\c\n", "");
        bob.message().has("k", "a:b\\c");
        ana.tell_with(&topic, "k:a\\nb\\rc\n", "");
        bob.message().has("k", "a b c");
    }),
    statement("STOMP 1.2, 'Value Encoding'", "what was escaped is escaped again", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.2", "1.2");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, "k:\\r\\n\\c\\\\n\n", "");
        bob.message().has("k", "\\r\\n\\c\\\\n");
    }),
    statement("STOMP 1.2, 'Value Encoding'", "names are escaped like values", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.2", "1.2");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, "a\\cb:v\n", "");
        bob.message().has("a\\cb", "v");
    }),
    statement("STOMP 1.2, 'Value Encoding'", "known names may be written with escapes", |stage| {
        let mut ana = stage.agent();
        ana.subscribe("0", "/topic/a\\cb", "");
        ana.tell("/topic/a\\cb", "x");
        ana.message().has("destination", "/topic/a\\cb");
    }),
    statement("STOMP 1.2, 'Value Encoding'", "an undefined escape is fatal", |stage| {
        for value in ["\\t", "\\x41", "\\N", "a\\", "\\ "] {
            let frame = format!("SEND\ndestination:/topic/a\nk:{value}\n\n");
            stage.agent().refused(&frame, "UNKNOWN_FORMAT_HEADER");
            stage.client(Agent, "1.1").refused(&frame, "UNKNOWN_FORMAT_HEADER");
        }
    }),
    statement("STOMP 1.1, 'Value Encoding'", r"\r is undefined", |stage| {
        let frame = "SEND\ndestination:/topic/a\nk:a\\rb\n\n";
        stage.client(Agent, "1.1").refused(frame, "UNKNOWN_FORMAT_HEADER");
    }),
    statement("STOMP 1.1, 'Value Encoding'", r"\n \c \\ stand for LF, colon, \", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.1", "1.1");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, "k:\\n\\c\\\\\n", "");
        bob.message().has("k", "\\n\\c\\\\");
    }),
    statement("STOMP 1.1, 'Value Encoding'", "a CR for it is a blank: it has no escape", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.2", "1.1");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, "k:a\\rb\\cc\n", "");
        bob.message().has("k", "a b\\cc");
    }),
    statement("STOMP 1.0", "nothing is escaped", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.0", "1.0");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, "k:a\\nb:c\\\\\\t\n", "");
        bob.message().has("k", "a\\nb:c\\\\\\t");
    }),
    statement("STOMP 1.0", "what it sends is escaped for later versions", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.0", "1.2");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, "k:a\\nb:c\n", "");
        bob.message().has("k", "a\\\\nb\\cc");
    }),
    statement("STOMP 1.0", "a line end in a value cannot make a header line for it", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.2", "1.0");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, "k:v\\norigin\\cadmin\\n\\nbody\n", "real");
        let frame = bob.message();
        frame.has("k", "v origin:admin  body").has("origin", &ana.login()).says("real");
    }),
    statement("STOMP 1.2, 'Value Encoding'", "CONNECT is not escaped", |stage| {
        let login = stage.name("a\\cb\\x");
        let mut ana = stage.stranger();
        let connected = ana.log_in(&connect(&login, Agent, "accept-version:1.2\n"));
        connected.has("login", &login).has("destination", &format!("/agent/{login}"));
    }),
    statement("STOMP 1.2, 'Value Encoding'", "CONNECTED is not escaped, MESSAGE is", |stage| {
        let login = stage.name("a:b");
        let mut ana = stage.join(&login, Agent, "1.2");
        ana.subscribe("mine", &ana.address().replace(':', "\\c"), "");
        assert_eq!(ana.login(), login);
        let escaped = login.replace(':', "\\c");
        ana.tell(&format!("/agent/{escaped}"), "me");
        ana.message().has("origin", &escaped).has("destination", &format!("/agent/{escaped}"));
    }),
    statement("STOMP 1.2, 'Value Encoding'", "blanks are neither trimmed nor added", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.2", "1.2");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, " k : v \nt:\tx\t\n", "");
        bob.message().has(" k ", " v ").has("t", "\tx\t");
    }),
    statement("STOMP 1.2, 'Value Encoding'", "a blank before a destination counts", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.2", "1.2");
        let topic = shared(stage, &mut bob);
        let frame = format!("SEND\ndestination: {topic}\n\nastray");
        ana.refused(&frame, "NO_SUCH_DESTINATION");
        bob.hears_nothing();
    }),
    statement("STOMP 1.2, 'Repeated Header Entries'", "the first counts", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.2", "1.2");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, "destination:/topic/other\n", "");
        bob.message().has("destination", &topic);
        ana.say(&format!("SEND\ndestination:{topic}\nreceipt:a\nreceipt:b\n\n"));
        ana.await_receipt("a");
        ana.say(&format!("SEND\ndestination:{topic}\ncontent-length:1\ncontent-length:9\n\nx"));
        ana.hears_nothing();
    }),
    statement("STOMP 1.2, 'Repeated Header Entries'", "all pass, the first before", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.2", "1.2");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, "k:World\nk:Hello\n", "");
        let frame = bob.message();
        assert_eq!(frame.all("k").collect::<Vec<_>>(), ["World", "Hello"]);
    }),
    statement("STOMP 1.2, 'STOMP Frames'", "header names are case-sensitive", |stage| {
        stage.agent().refused("SEND\nDestination:/topic/a\n\n", "MISSING_HEADER");
        let (mut ana, mut bob) = pair(stage, "1.2", "1.2");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, "Message-Id:mine\nCONTENT-LENGTH:99\n", "x");
        bob.message().has("Message-Id", "mine").has("CONTENT-LENGTH", "99");
    }),
    statement("STOMP 1.2, 'Value Encoding'", "headers are UTF-8", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.2", "1.2");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, "clé:señal 💬\n", "");
        bob.message().has("clé", "señal 💬");
    }),
    statement("STOMP 1.2, 'Value Encoding'", "a header that is not UTF-8 is refused", |stage| {
        let mut ana = stage.agent();
        ana.bytes(b"SEND\ndestination:/topic/a\nk:\xff\xfe\n\n\0");
        ana.fails("UNKNOWN_FORMAT_HEADER");
    }),
    statement("STOMP 1.2, 'Augmented BNF'", "a header line has a colon", |stage| {
        stage.agent().refused("SEND\ndestination\n\n", "UNKNOWN_FORMAT_HEADER");
    }),
    statement("STOMP 1.2, 'Augmented BNF'", "the value of a header may be empty", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.2", "1.2");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, "empty:\n", "");
        bob.message().has("empty", "");
    }),
    statement("STOMP 1.2, 'Augmented BNF'", "the name of a header may not be empty", |stage| {
        let frame = "SEND\ndestination:/topic/a\n:v\n\n";
        stage.agent().refused(frame, "UNKNOWN_FORMAT_HEADER");
    }),
    statement("STOMP 1.2, 'STOMP Frames'", "NUL ends no header", |stage| {
        let mut ana = stage.agent();
        ana.bytes(b"SEND\ndestination:/topic/a\nk:v\0\n\n\0");
        ana.fails("UNKNOWN_FORMAT_HEADER");
    }),
    statement("STOMP 1.2, 'SEND'", "user headers pass through in their order", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.2", "1.2");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, "zz:1\naa:2\npriority:9\nmm:3\n", "");
        let frame = bob.message();
        assert!(frame.names().ends_with(&["zz", "aa", "priority", "mm"]), "{frame}");
    }),
    statement(
        "STOMP 1.2, 'SEND'",
        "names that only other frames give a meaning pass, too",
        |stage| {
            let (mut ana, mut bob) = pair(stage, "1.2", "1.2");
            let topic = shared(stage, &mut bob);
            let names = ["id", "host", "login", "heart-beat", "prefetch-count", "inbox"];
            let lines: String = names.iter().map(|name| format!("{name}:mine\n")).collect();
            ana.tell_with(&topic, &lines, "");
            let frame = bob.message();
            assert!(frame.names().ends_with(&names), "{frame}");
        },
    ),
    statement("STOMP 1.2, 'Header content-type'", "it passes; without it there is none", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.2", "1.2");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, "content-type:text/html;charset=utf-16\n", "x");
        bob.message().has("content-type", "text/html;charset=utf-16");
        ana.tell(&topic, "x");
        bob.message().lacks("content-type");
    }),
    statement("Ours, 'Standard dialect'", "a sender's reply-to passes through", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.2", "1.2");
        let topic = shared(stage, &mut bob);
        ana.tell_with(&topic, "reply-to:/topic/answers\ncorrelation-id:7\n", "");
        bob.message().has("reply-to", "/topic/answers").has("correlation-id", "7");
    }),
    statement("Ours, 'Standard dialect'", "message-id cannot be forged", |stage| {
        forged(stage, "message-id", |frame| frame.get("message-id").unwrap() != FORGED);
    }),
    statement("Ours, 'Standard dialect'", "subscription cannot be forged", |stage| {
        forged(stage, "subscription", |frame| frame.get("subscription") == Some("0"));
    }),
    statement("Ours, 'Standard dialect'", "origin cannot be forged", |stage| {
        forged(stage, "origin", |frame| frame.get("origin").unwrap().starts_with("login-"));
    }),
    statement("Ours, 'Standard dialect'", "origin-destination cannot be forged", |stage| {
        forged(stage, "origin-destination", |frame| {
            frame.get("origin-destination").unwrap().starts_with("/agent/login-")
        });
    }),
    statement("Ours, 'Standard dialect'", "ack cannot be forged", |stage| {
        forged(stage, "ack", |frame| frame.get("ack").is_none());
    }),
    statement("Ours, 'Standard dialect'", "redelivered cannot be forged", |stage| {
        forged(stage, "redelivered", |frame| frame.get("redelivered").is_none());
    }),
    statement("Ours, 'Secrets'", "keys and session ids never pass through", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.2", "1.2");
        let topic = shared(stage, &mut bob);
        let session = ana.connected.as_ref().unwrap().get("session").unwrap().to_owned();
        let lines = format!("passcode:a\nsecret-key:b\nsession-id:{session}\nk:v\n");
        ana.tell_with(&topic, &lines, "");
        let frame = bob.message();
        frame.has("k", "v").lacks("passcode").lacks("secret-key").lacks("session-id");
        assert!(!frame.to_string().contains(&session), "{frame}");
    }),
    statement("Ours, 'Standard dialect'", "what SEND says to the broker stays there", |stage| {
        let (mut ana, mut bob) = pair(stage, "1.2", "1.2");
        let topic = shared(stage, &mut bob);
        ana.ask("BEGIN\ntransaction:t\n\n");
        ana.say(&format!(
            "SEND\ndestination:{topic}\ntransaction:t\nundeliverable:error\nreceipt:r\n\n"
        ));
        ana.await_receipt("r");
        ana.ask("COMMIT\ntransaction:t\n\n");
        bob.message().lacks("transaction").lacks("undeliverable").lacks("receipt");
    }),
];

/// Two clients with these versions; the second may subscribe to all but clients.
fn pair(stage: &Stage<'_>, first: &str, second: &str) -> (Client, Client) {
    (stage.client(Agent, first), stage.client(Service, second))
}

/// A topic to which the client has subscribed.
fn shared(stage: &Stage<'_>, receiver: &mut Client) -> String {
    let topic = stage.topic();
    receiver.subscribe("0", &topic, "");
    topic
}

const FORGED: &str = "forged";

/// Checks that a header line of the broker occurs once, with the broker's value.
#[track_caller]
fn forged(
    stage: &Stage<'_>,
    name: &str,
    is_genuine: fn(&crate::conformance::stage::Frame) -> bool,
) {
    let (mut ana, mut bob) = pair(stage, "1.2", "1.2");
    let topic = shared(stage, &mut bob);
    ana.tell_with(&topic, &format!("{name}:{FORGED}\n"), "");
    let frame = bob.message();
    assert!(frame.all(name).count() <= 1 && is_genuine(&frame), "{frame}");
}
