//! Headers and names of a client cannot be mistaken for those of the broker or of another client.

use super::{Statement, statement};
use crate::conformance::stage::{Stage, connect};
use crate::support::client::Profile::{Agent, Service};

pub(crate) const STATEMENTS: &[Statement] = &[
    statement("Ours, 'Messages'", "no header name reads as the broker's when trimmed", |stage| {
        let topic = stage.topic();
        let mut receivers = ["1.0", "1.1", "1.2"].map(|version| stage.client(Service, version));
        receivers.iter_mut().for_each(|one| one.subscribe("0", &topic, ""));
        let refuse = |version: &str, line: &str| {
            let frame = format!("SEND\ndestination:{topic}\n{line}:boss\n\nx");
            let error = stage.client(Agent, version).refused(&frame, "UNKNOWN_FORMAT_HEADER");
            assert!(error.get("message").unwrap().contains("reads as"), "{line:?}: {error}");
        };
        for blank in BLANKS {
            for version in ["1.0", "1.1", "1.2"] {
                refuse(version, &format!("{blank}origin"));
            }
            refuse("1.2", &format!("origin{blank}"));
            refuse("1.2", blank);
        }
        for name in OWNED {
            refuse("1.0", &format!(" {name}"));
            refuse("1.2", &format!("{name}\t"));
        }
        for line in ["\\norigin", "origin\\n", "origin\\c", "origin\\cx\\n", "\\corigin", "\\n\\c"]
        {
            refuse("1.1", line);
            refuse("1.2", line);
        }
        refuse("1.2", "\\rorigin\\r");
        receivers.iter_mut().for_each(|one| one.hears_nothing());
    }),
    statement("Ours, 'Messages'", "nor in a transaction", |stage| {
        let mut ana = stage.agent();
        ana.ask("BEGIN\ntransaction:t\n\n");
        let frame = "SEND\ndestination:/topic/a\ntransaction:t\n origin:boss\n\nx";
        ana.refused(frame, "UNKNOWN_FORMAT_HEADER");
    }),
    statement("Ours, 'Messages'", "nor from classic clients, nor without a name", |stage| {
        let topic = stage.topic();
        let mut bob = stage.service();
        bob.subscribe("0", &topic, "");
        let lines = [":x", "\t:x", "\torigin:boss", "destination\u{a0}:/agent/boss", "\u{85}:x"];
        for line in lines {
            let mut ana = stage.classic(Agent);
            ana.say(&format!("SEND\ndestination:{topic}\n{line}\n\nx"));
            let error = ana.expect("ERROR");
            error.has("error-code", "UNKNOWN_FORMAT_HEADER").has("retry", "never");
            ana.ends();
        }
        for line in [&b"\xa0origin:boss"[..], b"origin\x85:boss", b"\xff:x"] {
            let mut ana = stage.classic(Agent);
            let head = format!("SEND\ndestination:{topic}\n");
            ana.bytes(&[head.as_bytes(), line, b"\n\nx\0"].concat());
            ana.expect("ERROR").has("error-code", "UNKNOWN_FORMAT_HEADER");
            ana.ends();
        }
        bob.hears_nothing();
    }),
    statement(
        "Ours, 'Frames'",
        "a carriage return ends a line only before its line feed",
        |stage| {
            for line in
                ["k:a\rorigin:boss", "k\rorigin:boss", "content-type:a\rorigin:boss", "\rk:v"]
            {
                stage.agent().refused(&format!("SEND\ndestination:/topic/a\n{line}\n\nx"), CODE);
            }
            let receipt =
                stage.agent().refused("SEND\ndestination:/topic/a\nreceipt:a\rb\n\nx", CODE);
            assert_eq!(receipt.get("receipt-id"), None);
            for line in
                ["transaction:1\rorigin:boss", "k:a\rorigin:boss", "k\rorigin:boss", "k:v\r\r"]
            {
                let mut ana = stage.classic(Agent);
                ana.say(&format!("SEND\ndestination:/topic/a\n{line}\n\nx"));
                ana.expect("ERROR").has("error-code", CODE).has("retry", "never");
                ana.ends();
            }
            let (mut ana, mut bob) = (stage.classic(Agent), stage.classic(Agent));
            ana.ask(&format!("SEND\r\ndestination:{}\r\nk:v\r\n\r\n\rx\r", bob.address()));
            bob.message().has("k", "v").says("\rx\r");
        },
    ),
    statement("Ours, 'Messages'", "where one may pass, classic clients get a blank", |stage| {
        let (mut bob, topic) = (stage.classic(Agent), stage.topic());
        bob.ask(&format!("SUBSCRIBE\ndestination:{topic}\ndestination-type:0\n\n"));
        for version in ["1.0", "1.1"] {
            let mut ana = stage.client(Agent, version);
            let lines = "k:a\rorigin:boss\nj\rorigin:boss\ncontent-type:a\rorigin:boss\n";
            let check = |message: crate::support::frame::Frame| {
                message.has("k", "a origin:boss").has("j origin", "boss");
                message.has("content-type", "a origin:boss").says("x");
                assert!(message.lines.iter().all(|line| !format!("{line:?}").contains("\\r")));
            };
            ana.tell_with(&topic, lines, "x");
            check(bob.message());
            ana.ask("BEGIN\ntransaction:t\n\n");
            let held = format!("SEND\ndestination:{topic}\ntransaction:t\n{lines}\nx");
            ana.ask(&held);
            ana.ask("COMMIT\ntransaction:t\n\n");
            check(bob.message());
        }
    }),
    statement("Ours, 'Frames'", "classic clients get no line without a value", |stage| {
        let mut bob = stage.classic(Agent);
        let check = |message: crate::support::frame::Frame| {
            message.has("content-type", "text/plain").has("k", "v").says("x");
            assert!(message.lines.iter().all(|line| !line.1.trim().is_empty()), "{message}");
            assert!(["empty", "blank", "feed"].iter().all(|name| message.get(name).is_none()));
        };
        for content_type in ["", " "] {
            let lines = format!("empty:\nblank:  \nfeed:\\n\ncontent-type:{content_type}\nk:v\n");
            assert_eq!(stage.agent().tell_with(&bob.address(), &lines, "x"), 1);
            check(bob.message());
        }
        let lines = "empty: \nblank:  \nk:v\n";
        stage.classic(Agent).say(&format!("SEND\ndestination:{}\n{lines}\nx", bob.address()));
        check(bob.message());
    }),
    statement("Ours, 'Messages'", "other names pass with their blanks", |stage| {
        let (mut ana, mut bob) = (stage.agent(), stage.classic(Agent));
        let more = " k :v\n\u{a0}note:w\nk\\corigin:x\nOrigin:y\n";
        assert_eq!(ana.tell_with(&bob.address(), more, "x"), 1);
        let frame = bob.message();
        frame.has(" k ", "v").has("\u{a0}note", "w").has("Origin", "y").says("x");
        frame.has("k", "origin:x").has("origin", &ana.login());
    }),
    statement("Ours, 'Messages'", "the broker's names never come from a sender", |stage| {
        let (mut bob, mut cat) = (stage.service(), stage.classic(Agent));
        let topic = stage.topic();
        bob.subscribe("0", &topic, "");
        cat.ask(&format!("SUBSCRIBE\ndestination:{topic}\ndestination-type:0\n\n"));
        let names = OWNED.iter().filter(|name| !GIVEN.contains(name));
        let lines: String = names.map(|name| format!("{name}:{FORGED}\n")).collect();
        stage.agent().tell_with(&topic, &lines, "1");
        stage.classic(Agent).ask(&format!("SEND\ndestination:{topic}\n{lines}\n2"));
        for body in ["1", "2"] {
            for frame in [bob.message(), cat.message()] {
                assert!(frame.lines.iter().all(|line| line.1 != FORGED), "{frame}");
                frame.says(body);
            }
        }
    }),
    statement("Ours, 'Sessions'", "a login id that looks like another is refused", |stage| {
        let login = stage.name("ana");
        let mut ana = stage.join(&login, Agent, "1.2");
        for blank in BLANKS {
            for other in [format!("{login}{blank}"), format!("{blank}{login}")] {
                for version in ["1.1", "1.2"] {
                    let more = format!("accept-version:{version}\n");
                    let text = connect(&other, Agent, &more);
                    let error = stage.stranger().refused(&text, "UNKNOWN_FORMAT_HEADER");
                    assert!(error.get("message").unwrap().contains("login"), "{error}");
                }
            }
        }
        let inside = ["\u{200b}", "\u{200d}", "\u{202e}", "\u{ad}", "\u{fe0f}", "\u{e000}", "\x01"];
        let others = inside.map(|character| login.replace('n', &format!("n{character}")));
        let listed = format!("{login}]:[0]:[/agent/{login}");
        let decomposed = login.replace('n', "n\u{303}");
        for other in others.into_iter().chain([decomposed, "stomp-server".to_owned(), listed]) {
            let text = connect(&other, Agent, "accept-version:1.2\n");
            stage.stranger().refused(&text, "UNKNOWN_FORMAT_HEADER").has("retry", "never");
        }
        ana.hears_nothing();
        stage.join(&stage.name("añá€😀 b/c:d"), Agent, "1.2");
    }),
    statement("Ours, 'Destinations'", "so is a topic or a queue", |stage| {
        let (topic, queue) = (stage.topic(), stage.queue());
        for blank in BLANKS.iter().filter(|blank| **blank != " ") {
            check_refused(stage, &format!("{topic}{blank}"), "UNKNOWN_FORMAT_HEADER");
        }
        check_refused(stage, &format!("{topic} "), "UNKNOWN_FORMAT_HEADER");
        check_refused(stage, &format!("{queue}\u{200b}"), "UNKNOWN_FORMAT_HEADER");
        check_refused(stage, &format!("{queue}n\u{303}"), "UNKNOWN_FORMAT_HEADER");
        let mut bob = stage.classic(Agent);
        bob.say(&format!("SEND\ndestination:{topic}\u{a0}\n\nx"));
        bob.expect("ERROR").has("error-code", "UNKNOWN_FORMAT_HEADER");
    }),
];

/// Checks that SEND and SUBSCRIBE to a name are refused.
#[track_caller]
fn check_refused(stage: &Stage<'_>, name: &str, code: &str) {
    stage.service().refused(&format!("SEND\ndestination:{name}\n\nx"), code);
    stage.service().refused(&format!("SUBSCRIBE\nid:0\ndestination:{name}\n\n"), code);
}

/// Characters that JavaScript's `trim()` or Python's `strip()` drop, and invisible ones.
const BLANKS: [&str; 24] = [
    " ", "\t", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x1f", "\x7f", "\u{85}", "\u{a0}",
    "\u{1680}", "\u{180e}", "\u{2000}", "\u{2007}", "\u{200a}", "\u{200b}", "\u{2028}", "\u{2029}",
    "\u{202f}", "\u{205f}", "\u{2060}", "\u{3000}", "\u{feff}",
];

/// Headers that the broker sets, that instruct it in SEND, or that are secret.
const OWNED: [&str; 20] = [
    "ack",
    "content-length",
    "content-type",
    "destination",
    "error-code",
    "error-desc",
    "event",
    "message-id",
    "origin",
    "origin-destination",
    "passcode",
    "receipt",
    "receipt-id",
    "redelivered",
    "secret-key",
    "session-id",
    "snapshot",
    "subscription",
    "transaction",
    "undeliverable",
];

/// Those that a sender may set, with their meaning.
const GIVEN: [&str; 6] =
    ["content-length", "content-type", "destination", "receipt", "session-id", "transaction"];

const FORGED: &str = "forged";

const CODE: &str = "UNKNOWN_FORMAT_HEADER";
