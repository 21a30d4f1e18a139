//! WebSocket, plain and over TLS, with tungstenite as the client.

use std::io::{Read, Write};
use std::time::Instant;

use tungstenite::Message;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::support::client::{
    Client, Profile, Stream, Transport, connect_frame, encode, envelope, upgrade,
};
use crate::support::scenarios::every_scenario;
use crate::support::server::{Server, Setup};

mod plain {
    use super::*;

    every_scenario!(Transport::Ws);
}

mod secure {
    use super::*;

    every_scenario!(Transport::Wss);
}

#[test]
fn the_chosen_subprotocol_is_answered() {
    let server = Server::start();
    for (offer, answer) in
        [(Some("stomp"), Some("stomp")), (Some("mqtt, stomp"), Some("stomp")), (None, None)]
    {
        let (_, response) = upgrade(Stream::connect(server.address()), offer);
        let chosen = response.headers().get("sec-websocket-protocol");
        assert_eq!(chosen.map(|value| value.to_str().unwrap()), answer, "{offer:?}");
    }
}

/// RFC 6455, 5.5.3: of pings that came meanwhile, the most recent is answered.
#[test]
fn the_last_of_many_pings_is_answered() {
    let server = Server::start();
    for transport in [Transport::Ws, Transport::Wss] {
        let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
        let number = |number: u32| format!("{number:0100}");
        let pings = (0..500).flat_map(|one| masked(FINAL | PING, number(one).as_bytes()));
        ana.stream().write_all(&pings.collect::<Vec<_>>()).unwrap();
        let last = number(499);
        loop {
            match ana.websocket().read().unwrap() {
                Message::Pong(payload) if payload == last.as_bytes() => break,
                Message::Pong(_) => {}
                other => panic!("a pong was expected, not {other:?}"),
            }
        }
    }
}

#[test]
fn messages_may_be_fragmented_with_pings_between() {
    let server = Server::start();
    for transport in [Transport::Ws, Transport::Wss] {
        let mut ana = Client::open(&server, transport);
        let login = connect_frame(Profile::Agent, "ana");
        let (first, rest) = login.split_at(7);
        let (second, third) = rest.split_at(20);
        let stream = ana.stream();
        stream.write_all(&masked(TEXT, first)).unwrap();
        stream.write_all(&masked(FINAL | PING, b"one")).unwrap();
        stream.write_all(&masked(CONTINUATION, second)).unwrap();
        stream.write_all(&masked(FINAL | PONG, b"unasked")).unwrap();
        stream.write_all(&masked(CONTINUATION, b"")).unwrap();
        stream.write_all(&masked(FINAL | PING, b"two")).unwrap();
        stream.write_all(&masked(FINAL | CONTINUATION, third)).unwrap();
        for expected in ["one", "two"] {
            match ana.websocket().read().unwrap() {
                Message::Pong(payload) => assert_eq!(payload, expected.as_bytes()),
                other => panic!("a pong was expected, not {other:?}"),
            }
        }
        ana.receive_connected();
        // A mebibyte in a thousand pieces, which cut characters in two.
        let body = "ñ".repeat(1 << 19);
        let frame = encode("SEND", &[("destination", "/agent/ana")], body.as_bytes());
        let mut pieces = frame.chunks(1001).peekable();
        let mut bytes = Vec::new();
        let mut opcode = TEXT;
        while let Some(piece) = pieces.next() {
            let last = if pieces.peek().is_none() { FINAL } else { 0 };
            bytes.extend(masked(last | opcode, piece));
            opcode = CONTINUATION;
        }
        ana.stream().write_all(&bytes).unwrap();
        assert!(ana.receive_message().text() == body);
        ana.send_frame("DISCONNECT", &[], b"");
        assert_eq!(ana.receive().command, "RECEIPT");
        assert_eq!(ana.receive_end(), Some(1000));
    }
}

#[test]
fn upgrade_and_messages_may_arrive_byte_by_byte_or_joined() {
    let server = Server::start();
    let session = [
        UPGRADE,
        &masked(FINAL | TEXT, &connect_frame(Profile::Agent, "ana")),
        &masked(FINAL | BINARY, &encode("SEND", &[("destination", "/agent/ana")], b"a\0b")),
        &masked(FINAL | TEXT, &encode("DISCONNECT", &[("receipt-id", "r")], b"")),
    ]
    .concat();
    for piece in [1, 7, session.len()] {
        let mut stream = Stream::connect(server.address());
        for piece in session.chunks(piece) {
            stream.write_all(piece).unwrap();
        }
        stream.write_all(&masked(FINAL | CLOSE, &1000_u16.to_be_bytes())).unwrap();
        let answer = stream.read_to_end();
        let answer = answer.escape_ascii().to_string();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        let order =
            ["CONNECTED\\n", "MESSAGE\\n", "a\\x00b\\x00", "RECEIPT\\n", "\\x88\\x02\\x03\\xe8"];
        let places: Vec<_> = order.iter().map(|part| answer.find(part)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{answer}");
    }
}

#[test]
fn a_refused_upgrade_is_answered_in_http() {
    let server = Setup::new().limits("upgrade_bytes_max = 2048").start();
    let long = format!("GET / HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(4096));
    let old = String::from_utf8(UPGRADE.to_vec()).unwrap().replace("Version: 13", "Version: 8");
    let keyless = String::from_utf8(UPGRADE.to_vec()).unwrap().replace("WebSocket-Key", "Nothing");
    for (request, status) in [
        ("POST / HTTP/1.1\r\nHost: x\r\n\r\n", "405 "),
        ("GET / HTTP/1.1\r\nno header\r\n\r\n", "400 "),
        (&old, "426 "),
        (&keyless, "400 "),
        (&long, "431 "),
    ] {
        let mut stream = Stream::connect(server.address());
        stream.write_all(request.as_bytes()).unwrap();
        let answer = String::from_utf8(stream.read_to_end()).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}{answer}");
    }
}

/// RFC 9110, 5.3: several lines of a list are one list.
#[test]
fn lists_of_an_upgrade_may_span_several_lines() {
    let server = Server::start();
    let upgrade = String::from_utf8(UPGRADE.to_vec()).unwrap();
    for (from, to) in [
        ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"),
        ("Connection: Upgrade", "connection:\tkeep-alive ,,UPGRADE"),
        ("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: WebSocket"),
        ("Protocol: stomp", "Protocol: mqtt\r\nSec-WebSocket-Protocol: wamp , stomp"),
    ] {
        let mut stream = Stream::connect(server.address());
        stream.write_all(upgrade.replacen(from, to, 1).as_bytes()).unwrap();
        stream.write_all(&masked(FINAL | CLOSE, &1000_u16.to_be_bytes())).unwrap();
        let answer = stream.read_to_end();
        let (head, rest) = answer.split_at(answer.len() - 4);
        let head = String::from_utf8_lossy(head);
        assert!(head.starts_with("HTTP/1.1 101 "), "{to}: {head}");
        assert!(head.contains("\r\nSec-WebSocket-Protocol: stomp\r\n"), "{to}: {head}");
        assert_eq!(rest, b"\x88\x02\x03\xe8", "{to}");
    }
}

#[test]
fn violations_of_the_protocol_have_their_close_codes() {
    let server = Server::start();
    let mut eva = Client::log_in(&server, Transport::Ws, Profile::Agent, "eva");
    let mut unmasked = masked(FINAL | TEXT, b"SEND\n\n");
    unmasked[1] &= 0x7f;
    for (what, bytes, code) in [
        ("an unmasked frame", unmasked, 1002),
        ("a reserved bit", masked(FINAL | 0x40 | TEXT, b"x"), 1002),
        ("a reserved opcode", masked(FINAL | 3, b"x"), 1002),
        ("a continuation of nothing", masked(FINAL | CONTINUATION, b"x"), 1002),
        ("a message in a message", [masked(TEXT, b"x"), masked(TEXT, b"x")].concat(), 1002),
        ("a fragmented ping", masked(PING, b"x"), 1002),
        ("a long ping", masked(FINAL | PING, &[b'x'; 126]), 1002),
        ("a close code that may not be sent", masked(FINAL | CLOSE, &1005_u16.to_be_bytes()), 1002),
        ("text that is not UTF-8", masked(FINAL | TEXT, b"SEND\n\n\xff"), 1007),
    ] {
        for transport in [Transport::Ws, Transport::Wss] {
            let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
            ana.stream().write_all(&bytes).unwrap();
            assert_eq!(ana.receive_end(), Some(code), "{what}");
        }
    }
    eva.expect_nothing();
}

#[test]
fn a_message_that_is_too_large_is_named_before_the_close() {
    let server = Setup::new()
        .limits("body_bytes_max = 2000\nheader_bytes_max = 2500\ndestination_bytes_max = 2000\nlogin_frame_bytes_max = 2000\nlogin_id_bytes_max = 1000")
        .start();
    for transport in [Transport::Ws, Transport::Wss] {
        let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
        // The announced length suffices.
        let announced = [FINAL | BINARY, 0x80 | 127, 0, 0, 0, 0, 0x7f, 0, 0, 0, 1, 2, 3, 4];
        ana.stream().write_all(&announced).unwrap();
        let error = ana.receive_error("LIMIT_EXCEEDED");
        assert!(error.header("error-desc").contains("body_bytes_max"), "{error:?}");
        assert_eq!(ana.receive_end(), Some(1009));
        // All fragments together count.
        let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
        ana.stream().write_all(&masked(BINARY, &[b'x'; 3000])).unwrap();
        ana.stream().write_all(&masked(CONTINUATION, &[b'x'; 3000])).unwrap();
        ana.receive_error("LIMIT_EXCEEDED");
        assert_eq!(ana.receive_end(), Some(1009));
    }
}

#[test]
fn a_close_is_answered_with_its_own_code() {
    let server = Server::start();
    for transport in [Transport::Ws, Transport::Wss] {
        for code in [1000, 1001, 4321] {
            let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
            let close = CloseFrame { code: CloseCode::from(code), reason: "bye".into() };
            ana.websocket().close(Some(close)).unwrap();
            assert_eq!(ana.receive_end(), Some(code));
        }
    }
    server.log.wait_for_line(&["closed", "login=\"ana\"", "transport=wss", "reason=closed"]);
}

/// RFC 6455, 5.5.1: no data may follow a close.
#[test]
fn frames_before_a_close_are_answered_before_it() {
    let server = Server::start();
    let send = encode("SEND", &[("destination", "/agent/ana"), ("transaction", "1")], b"x");
    for (last, code) in [
        (masked(FINAL | CLOSE, &1000_u16.to_be_bytes()), 1000),
        (masked(FINAL | CONTINUATION, b"x"), 1002),
    ] {
        for transport in [Transport::Ws, Transport::Wss] {
            let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
            ana.stream().write_all(&[masked(FINAL | TEXT, &send), last.clone()].concat()).unwrap();
            assert_eq!(ana.receive_message().text(), "x");
            assert_eq!(ana.receive().command, "ACK");
            assert_eq!(ana.receive_end(), Some(code));
        }
    }
}

/// Browsers wait for the server to end the connection before they notify the page.
#[test]
fn the_connection_ends_as_soon_as_the_close_is_answered() {
    let server = Setup::new().limits("linger_ms_max = 600_000").start();
    for transport in [Transport::Ws, Transport::Wss] {
        let started = Instant::now();
        let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
        ana.send_frame("DISCONNECT", &[], b"");
        for _ in 0..20 {
            ana.send("/agent/ana", &[b'x'; 70_000]);
        }
        assert_eq!(ana.receive().command, "RECEIPT");
        // tungstenite answers the close while it waits for the end of the stream.
        assert_eq!(ana.receive_end(), Some(1000), "after {:?}", started.elapsed());
    }
}

#[test]
fn a_classic_envelope_within_a_websocket_is_refused() {
    let server = Server::start();
    let mut ana = Client::open(&server, Transport::Ws);
    ana.send_bytes(&envelope(&connect_frame(Profile::Agent, "ana")));
    assert_eq!(ana.receive().command, "ERROR");
    assert_eq!(ana.receive_end(), Some(1000));
}

#[test]
fn a_connection_may_break_during_the_upgrade() {
    let server = Server::start();
    let mut stream = Stream::connect(server.address());
    stream.write_all(&UPGRADE[..30]).unwrap();
    drop(stream);
    let mut stream = Stream::connect(server.address());
    stream.write_all(UPGRADE).unwrap();
    stream.read_exact(&mut [0; 12]).unwrap();
    drop(stream);
    server.log.wait_for("both ends", |log| log.matches(" closed connection=").count() == 2);
}

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: stomp\r\n\r\n";

const FINAL: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A frame of a client, encoded here so that it can be malformed.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ ..126 => bytes.push(0x80 | length as u8),
        length @ ..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}
