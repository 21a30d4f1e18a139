//! Slow consumers: they are cut off, others are not affected, and memory stays bounded.

use std::thread;
use std::time::Instant;

use crate::support::client::{Client, Profile, Transport};
use crate::support::server::{Server, Setup};

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;
const BODY_BYTES: usize = 64 * 1024;

/// A broker with frames of up to 128 KiB, so that limits on queues can be small.
fn setup() -> Setup {
    Setup::new().limits("body_bytes_max = \"124 KiB\"\nheader_bytes_max = \"4 KiB\"")
}

/// The body of a message, with its number.
fn body(number: usize) -> Vec<u8> {
    let mut body = format!("{number} ").into_bytes();
    body.resize(BODY_BYTES, b'x');
    body
}

fn number_of(body: &[u8]) -> usize {
    assert_eq!(body.len(), BODY_BYTES);
    let end = body.iter().position(|byte| *byte == b' ').unwrap();
    std::str::from_utf8(&body[..end]).unwrap().parse().unwrap()
}

/// Reads the frames that were sent to a cut client: whole messages in order, then the ERROR.
fn read_what_is_left(client: &mut Client) -> usize {
    for expected in 0.. {
        let frame = client.receive();
        if frame.command == "ERROR" {
            assert_eq!(frame.header("error-code"), "SLOW_CONSUMER");
            assert!(frame.header("error-desc").contains("hard_bytes_max"), "{frame:?}");
            assert_eq!(frame.header("retry"), "now");
            client.receive_end();
            return expected;
        }
        assert_eq!(number_of(&frame.body), expected);
    }
    unreachable!("numbers end")
}

/// Sends to a receiver that does not read and to others that do, until the first is cut. Checks that the
/// publisher gets an ACK for each message, and the others get all messages in order.
fn publish_until_cut(server: &Server, stalled: &str, others: &[Transport]) {
    let receivers: Vec<_> = others
        .iter()
        .enumerate()
        .map(|(index, transport)| {
            let login = format!("brisk/{index}");
            Client::log_in(server, *transport, Profile::Agent, &login)
        })
        .collect();
    let readers: Vec<_> = receivers
        .into_iter()
        .map(|mut receiver| {
            thread::spawn(move || {
                for expected in 0.. {
                    let message = receiver.receive_message();
                    if message.body.is_empty() {
                        return expected;
                    }
                    assert_eq!(number_of(&message.body), expected);
                }
                unreachable!("numbers end")
            })
        })
        .collect();
    let mut publisher = Client::log_in(server, Transport::Tcp, Profile::Admin, "publisher");
    let mut sent = 0;
    let mut is_cut = false;
    while !is_cut {
        let body = body(sent);
        assert!(sent < 2_000, "the receiver is never cut");
        for index in 0..others.len() {
            let destination = format!("/agent/brisk/{index}");
            let headers = [("destination", &*destination), ("transaction", "t")];
            publisher.send_frame("SEND", &headers, &body);
            assert_eq!(publisher.receive().command, "ACK");
        }
        let headers = [("destination", stalled), ("transaction", "t")];
        publisher.send_frame("SEND", &headers, &body);
        let answer = publisher.receive();
        is_cut = answer.header("error-code") == "NO_SUCH_DESTINATION";
        assert!(is_cut || answer.command == "ACK", "{answer:?}");
        sent += 1;
    }
    for (index, reader) in readers.into_iter().enumerate() {
        publisher.send(&format!("/agent/brisk/{index}"), b"");
        assert_eq!(reader.join().unwrap(), sent);
    }
    publisher.expect_nothing();
}

#[test]
fn a_receiver_above_its_hard_limit_is_cut_and_others_are_not() {
    let server = setup().outbound(MIB, MIB, 600_000).start();
    let before = server.resident_bytes();
    let mut stalled = Client::log_in_narrow(&server, Profile::Agent, "stalled");
    publish_until_cut(&server, "/agent/stalled", &Transport::ALL);
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes more");
    read_what_is_left(&mut stalled);
    drop(stalled);
    let line = server.log.wait_for_line(&["closed", "login=\"stalled\""]);
    assert!(line.contains(" reason=SLOW_CONSUMER:hard_bytes_max "), "{line}");
    assert_eq!(server.stop().count("slow_consumers"), 1);
}

#[test]
fn a_cut_receiver_that_never_reads_again_is_dropped() {
    let server = setup().outbound(MIB, MIB, 600_000).limits("close_flush_ms_max = 200").start();
    let _stalled = Client::log_in_narrow(&server, Profile::Agent, "stalled");
    publish_until_cut(&server, "/agent/stalled", &[Transport::Tcp]);
    server.log.wait_for_line(&["closed", "login=\"stalled\"", "reason=SLOW_CONSUMER"]);
}

#[test]
fn a_receiver_that_stays_above_its_soft_limit_is_cut() {
    const SOFT_MS: u64 = 300;
    let server =
        setup().outbound(64 * MIB, MIB, SOFT_MS as u32).limits("close_flush_ms_max = 200").start();
    let mut stalled = Client::log_in_narrow(&server, Profile::Agent, "stalled");
    let mut brisk = Client::log_in(&server, Transport::Ws, Profile::Agent, "brisk");
    let mut publisher = Client::log_in(&server, Transport::Tcp, Profile::Admin, "publisher");
    // More than the kernel's buffers hold, and far less than the hard limit.
    let count = 16 * MIB as usize / BODY_BYTES;
    let started = Instant::now();
    for number in 0..count {
        publisher.send("/agent/stalled", &body(number));
    }
    server.log.wait_for_line(&[
        "closed",
        "login=\"stalled\"",
        "reason=SLOW_CONSUMER:soft_bytes_max ",
    ]);
    assert!(started.elapsed().as_millis() >= u128::from(SOFT_MS));
    publisher.send("/agent/brisk", b"hello");
    assert_eq!(brisk.receive_message().text(), "hello");
    // Messages that it sent after the cut had no receiver.
    publisher.send("/admin/publisher", b"the end");
    while publisher.receive_or_error("NO_SUCH_DESTINATION").text() != "the end" {}
    drop((publisher, brisk));
    assert!(read_until_broken(&mut stalled) < count);
    assert_eq!(server.stop().count("slow_consumers"), 1);
}

/// Reads the messages that were sent to a client that was closed before it read, in order.
fn read_until_broken(client: &mut Client) -> usize {
    let mut bytes = Vec::new();
    let _ = std::io::Read::read_to_end(client.stream(), &mut bytes);
    bytes.len() / BODY_BYTES
}

#[test]
fn a_receiver_that_catches_up_is_kept() {
    let server = setup().outbound(64 * MIB, MIB, 600_000).start();
    let mut late = Client::log_in_narrow(&server, Profile::Agent, "late");
    let mut publisher = Client::log_in(&server, Transport::Tcp, Profile::Admin, "publisher");
    let count = 16 * MIB as usize / BODY_BYTES;
    for number in 0..count {
        publisher.send("/agent/late", &body(number));
    }
    publisher.expect_nothing();
    for number in 0..count {
        assert_eq!(number_of(&late.receive_message().body), number);
    }
    late.expect_nothing();
    drop((publisher, late));
    assert_eq!(server.stop().count("slow_consumers"), 0);
}

#[test]
fn a_watcher_that_does_not_read_is_cut_and_the_watched_client_is_not() {
    let server = setup().outbound(MIB, MIB, 600_000).start();
    let mut stalled = Client::log_in_narrow(&server, Profile::SuperAgent, "stalled");
    stalled.subscribe("1", "/agent/w.*");
    let mut sup = Client::log_in(&server, Transport::Tcp, Profile::Service, "sup");
    sup.subscribe_presence("/agent/stalled", false);
    let mut watched = Client::log_in(&server, Transport::Ws, Profile::Agent, "watched");
    let mut publisher = Client::log_in(&server, Transport::Tcp, Profile::Admin, "publisher");
    let mut sent = 0;
    while !sup.has_news() {
        assert!(sent < 2_000, "the watcher is never cut");
        publisher.send("/agent/watched", &body(sent));
        assert_eq!(number_of(&watched.receive_message().body), sent);
        sent += 1;
    }
    assert!(sup.receive_message().text().contains("\"reason\":\"slow-consumer\""));
    assert_eq!(sup.receive_message().header("event"), "logout");
    assert!(read_what_is_left(&mut stalled) < sent);
    drop(stalled);
    watched.expect_nothing();
    server.log.wait_for_line(&["closed", "login=\"stalled\"", "reason=SLOW_CONSUMER"]);
}

#[test]
fn publishers_are_paused_while_memory_is_short_and_nothing_is_lost() {
    const TOTAL: u32 = 8 * MIB;
    let server = setup()
        .outbound(TOTAL, TOTAL, 600_000)
        .limits(&format!("outbound_total_bytes_max = {TOTAL}\npause_ms_max = 600_000"))
        .start();
    let before = server.resident_bytes();
    let count = 48 * MIB as usize / BODY_BYTES;
    let mut late = Client::log_in_narrow(&server, Profile::Agent, "late");
    let mut publisher = Client::log_in(&server, Transport::Tcp, Profile::Admin, "publisher");
    let publisher = thread::spawn(move || {
        for number in 0..count {
            publisher.send("/agent/late", &body(number));
        }
        publisher
    });
    server.log.wait_for_line(&["publishers paused"]);
    // Clients that do not publish are served meanwhile.
    let mut sup = Client::log_in(&server, Transport::Wss, Profile::Service, "sup");
    sup.subscribe("1", "/agent/.*");
    sup.send_frame("UNSUBSCRIBE", &[("transaction", "u")], b"");
    assert_eq!(sup.receive().command, "ACK");
    assert!(!publisher.is_finished(), "the publisher is held back");
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < u64::from(TOTAL) + (16 << 20), "{grown} bytes more");
    for number in 0..count {
        assert_eq!(number_of(&late.receive_message().body), number);
    }
    let mut publisher = publisher.join().unwrap();
    publisher.expect_nothing();
    late.expect_nothing();
    server.log.wait_for_line(&["publishers resumed"]);
    drop((publisher, late, sup));
    let totals = server.stop();
    assert!(totals.count("publishers_paused") >= 1);
    assert_eq!(totals.count("slow_consumers"), 0);
}
