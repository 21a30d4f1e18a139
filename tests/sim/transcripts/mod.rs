//! Golden transcripts: frames of clients and the expected answers, as text.
//!
//! The files under `tests/transcripts` double as documentation. Those in `classic` were recorded
//! from the original broker; where an answer differs, the original's is beside it, and the head of the
//! file has the numbers of the differences in `docs/protocol.md`. The numbers are determined here; a
//! difference that no number explains fails the test.
//!
//! A file consists of blocks with empty lines between them. The first is its head:
//!
//! ```text
//! Agent -> service: MESSAGE to the destination first, ACK to the sender after
//! kind: contract
//! differs: 1 (last byte), 2 (ids)
//! ```
//!
//! The sentence is what the transcript demonstrates. `kind` classifies the original's behaviour:
//! `contract` (ordinary clients depend on it), `edge` (unusual input), `defect` or `crash`; a transcript
//! that was not recorded has neither line. A further line, `over: tcp, tls, ws, wss`, states that the
//! transcript holds over each of these transports: `open any` stands for them, a `(close 1000)` is
//! expected over WebSocket only, and if streams are among them, frames over WebSocket have the NUL
//! that clients append there. The steps follow, with the name of a client in the margin:
//!
//! ```text
//! A: open wss /path      opens a connection: tcp, tls, ws, wss or any; `silent` for a path asks for no
//!                        upgrade; WebSocket clients offer the subprotocol `stomp`
//! A> SEND                the lines of a frame that A sends, as the body of an envelope or as a
//! A> destination:/a      text message; the frame has no line end but those between the lines, so
//! A>                     one without a body ends in an empty line
//! A> hello^@
//! B< MESSAGE             what B gets
//! B- origin:x            a line of the original alone, or
//! B+ origin:y            a line of this broker alone
//! @2s                    time passes; `@50ms` likewise
//! # words                a remark
//! ```
//!
//! `^@` is NUL, `^M` CR, `^I` TAB, `^{c3 28}` any bytes, `^{78 *10000}` one of them many times.
//! `${sid:A}` and `${cid:A}` replace session ids and connection ids, with the client that got the id
//! first, and `${sid:A2}` for its second. The `0` with which the original ended its frames is written as
//! the NUL of this broker, which is difference 1.
//!
//! Other events of clients are in parentheses: `(close 1000)` of WebSocket, `(pong abc)`, `(ping)`,
//! `(end)` of the stream, `(reset)`, `(send failed)`; `(binary)` before a frame in a binary message,
//! `(bytes)` before bytes that are not a frame. `broker- (died …)` is a crash of the original. A client
//! answers a close, and ends its stream when it sees the end of the broker's.
//!
//! Other actions of clients:
//!
//! ```text
//! A: end                 ends its stream; `cut` does so without close_notify
//! A: reset               breaks the connection
//! A: bytes 00 ff        writes bytes as they are
//! A: hold                holds back what it sends from here on, for
//! A: write 5             write its first five bytes; -5: all but five; without a number: the rest
//! A: ping abc            a WebSocket ping
//! A: close 1000 bye      a WebSocket close
//! A: unanswering         does not answer a close
//! A: lingering           does not end its stream when it sees the end of the broker's
//! A: flag 1              the next envelope has this flag and a big-endian length,
//! A: characters          or a length that counts characters,
//! A: envelope 00 c4 …    or is these bytes
//! A: bare                the next frame is sent without an envelope or message
//! A: binary              the next message is binary,
//! A: fragments 30        or in two fragments,
//! A: unmasked            or not masked
//! ```
//!
//! `UPDATE_TRANSCRIPTS=1 cargo test --test sim` rewrites the answers; the difference is then reviewed.

mod differences;
mod script;
mod stage;
mod text;

use std::path::{Path, PathBuf};

use self::differences::{align, explain, take_down};
use self::script::{Script, Step};
use self::stage::Stage;
use crate::client::Carrier;

#[test]
fn the_broker_behaves_as_in_every_transcript() {
    let is_update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some();
    let mut wrong = Vec::new();
    for path in files() {
        let text = std::fs::read_to_string(&path).unwrap();
        let script = Script::parse(&text);
        let carriers: Vec<_> = script.over.iter().copied().map(Some).collect();
        for carrier in if carriers.is_empty() { vec![None] } else { carriers } {
            let expected = carrier.map_or_else(|| script.clone(), |one| script.over(one));
            let mut played = play(&expected);
            let name = carrier.map_or("", Carrier::name);
            let mut complain =
                |what: String| wrong.push(format!("{} {name}\n{what}", path.display()));
            match explain(&played) {
                Ok(_) if !played.is_recorded() => {}
                Ok(differs) => played.differs = differs,
                Err(difference) => complain(format!("  unexplained: {difference}")),
            }
            let (expected, found) = (expected.print(), played.print());
            if expected == found {
                continue;
            }
            if is_update {
                std::fs::write(&path, script.answered_as(&played).print()).unwrap();
            } else {
                complain(first_difference(&expected, &found));
            }
        }
    }
    assert!(wrong.is_empty(), "UPDATE_TRANSCRIPTS=1 rewrites them.\n{}", wrong.join("\n"));
}

fn play(script: &Script) -> Script {
    let mut stage = Stage::new();
    let play = |step: &Step| {
        let seen = stage.play(&step.stimulus);
        let answers =
            if script.is_recorded() { align(&step.answers, &seen) } else { take_down(&seen) };
        Step { stimulus: step.stimulus.clone(), answers }
    };
    Script { steps: script.steps.iter().map(play).collect(), ..script.clone() }
}

fn first_difference(expected: &str, found: &str) -> String {
    let mut pairs = expected.lines().zip(found.lines()).enumerate();
    match pairs.find(|(_, (expected, found))| expected != found) {
        Some((index, (expected, found))) => {
            format!("line {}\n  expected {expected}\n  found    {found}", index + 1)
        }
        None => "one of them goes on longer".to_owned(),
    }
}

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                None => folders.push(path),
                Some(extension) if extension == "txt" => files.push(path),
                Some(_) => {}
            }
        }
    }
    files.sort();
    files
}

#[test]
fn every_difference_in_a_head_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, list) = text.split_once("## Differences").expect("a list of differences");
    for path in files() {
        for number in Script::parse(&std::fs::read_to_string(&path).unwrap()).differs {
            let is_listed = list.lines().any(|line| line.starts_with(&format!("{number}. ")));
            assert!(is_listed, "{}: {number} is not in the list", path.display());
        }
    }
}
