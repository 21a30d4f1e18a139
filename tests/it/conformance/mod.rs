//! Conformance: a list of statements on servers, from STOMP 1.0, 1.1 and 1.2, and from our own protocol
//! where these leave room. Each names its source and is checked against the real program, over each
//! transport.
//!
//! `cargo test --test it conformance -- --nocapture` prints the list. Nothing sleeps: tests wait for
//! bytes, with a deadline.

mod acknowledging;
mod connecting;
mod delivering;
mod dialects;
mod disconnecting;
mod disguises;
mod frames;
mod headers;
mod heart_beats;
mod queues;
mod refusing;
mod stage;
mod subscribing;
mod transactions;
mod websocket;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread;

use stage::{Carrier, House, Stage};

/// A statement with its source and its check.
struct Statement {
    /// The specification and its section; "Ours" is `docs/protocol.md`.
    cites: &'static str,
    says: &'static str,
    over: Over,
    check: fn(&Stage<'_>),
}

/// The transports to which a statement applies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    All,
    WebSocket,
}

const fn statement(cites: &'static str, says: &'static str, check: fn(&Stage<'_>)) -> Statement {
    Statement { cites, says, over: Over::All, check }
}

const fn of_websocket(cites: &'static str, says: &'static str, check: fn(&Stage<'_>)) -> Statement {
    Statement { cites, says, over: Over::WebSocket, check }
}

/// All statements, in the order of the specification.
const CHAPTERS: [&[Statement]; 14] = [
    frames::STATEMENTS,
    headers::STATEMENTS,
    websocket::STATEMENTS,
    connecting::STATEMENTS,
    heart_beats::STATEMENTS,
    subscribing::STATEMENTS,
    delivering::STATEMENTS,
    queues::STATEMENTS,
    acknowledging::STATEMENTS,
    transactions::STATEMENTS,
    disconnecting::STATEMENTS,
    refusing::STATEMENTS,
    dialects::STATEMENTS,
    disguises::STATEMENTS,
];

#[test]
fn the_statements_hold_over_tcp() {
    hold_over(Carrier::Tcp);
}

#[test]
fn the_statements_hold_over_tls() {
    hold_over(Carrier::Tls);
}

#[test]
fn the_statements_hold_over_websocket() {
    hold_over(Carrier::Ws);
}

#[test]
fn the_statements_hold_over_websocket_in_tls() {
    hold_over(Carrier::Wss);
}

#[test]
fn there_are_many_statements_without_duplicates() {
    let mut said: Vec<_> = statements().map(|one| (one.cites, one.says)).collect();
    let count = said.len();
    assert!(count >= 100, "{count}");
    said.sort_unstable();
    said.dedup();
    assert_eq!(said.len(), count);
}

fn statements() -> impl Iterator<Item = &'static Statement> {
    CHAPTERS.into_iter().flatten()
}

/// Checks every statement, lists all, and fails with those that do not hold.
fn hold_over(carrier: Carrier) {
    let house = House::open();
    let statements: Vec<_> =
        statements().filter(|one| one.over == Over::All || carrier.is_websocket()).collect();
    let waiting = Mutex::new(statements.iter().enumerate());
    let outcomes = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..STAGES {
            scope.spawn(|| {
                loop {
                    let Some((index, statement)) = waiting.lock().unwrap().next() else { return };
                    let stage = Stage::new(&house, carrier);
                    let outcome = catch_unwind(AssertUnwindSafe(|| (statement.check)(&stage)));
                    let outcome = outcome.map_err(|panic| panic_text(&*panic));
                    outcomes.lock().unwrap().insert(index, outcome);
                }
            });
        }
    });
    let mut broken = String::new();
    for (statement, (_, outcome)) in statements.iter().zip(outcomes.into_inner().unwrap()) {
        let line = format!("{carrier}: {} — {}", statement.cites, statement.says);
        match outcome {
            Ok(()) => println!("holds   {line}"),
            Err(why) => {
                println!("broken  {line}");
                broken += &format!("\n{line}\n    {why}\n");
            }
        }
    }
    assert!(broken.is_empty(), "these statements do not hold:\n{broken}");
    println!("all {} statements hold over {carrier}", statements.len());
}

/// Statements that are checked at once, so that those which wait do so together.
const STAGES: usize = 8;

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}
