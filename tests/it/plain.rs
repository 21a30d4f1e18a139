//! Plain TCP: envelopes in any pieces, and listeners that serve only some protocols.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use crate::support::client::{
    Client, Profile, Stream, Transport, connect, connect_frame, encode, envelope,
};
use crate::support::scenarios::every_scenario;
use crate::support::server::{Server, Setup};

every_scenario!(Transport::Tcp);

#[test]
fn a_session_may_arrive_byte_by_byte() {
    let server = Server::start();
    let mut ana = Client::over(Stream::connect(server.address()));
    let session = [
        envelope(&connect_frame(Profile::Agent, "ana")),
        envelope(&encode("SEND", &[("destination", "/agent/ana")], b"a\0b")),
        envelope(&encode("DISCONNECT", &[("receipt-id", "r")], b"")),
    ];
    for byte in session.concat() {
        ana.stream().write_all(&[byte]).unwrap();
    }
    ana.receive_connected();
    assert_eq!(ana.receive_message().body, b"a\0b");
    assert_eq!(ana.receive().header("receipt-id"), "r");
    ana.receive_end();
}

#[test]
fn a_session_may_be_cut_in_two_anywhere() {
    let server = Server::start();
    let login = envelope(&connect_frame(Profile::Agent, "ana"));
    let rest = [
        envelope(&encode("SEND", &[("destination", "/agent/ana"), ("transaction", "1")], b"x")),
        envelope(&encode("DISCONNECT", &[], b"")),
    ];
    let session = [login, rest.concat()].concat();
    for cut in 1..session.len() {
        let mut ana = Client::over(Stream::connect(server.address()));
        ana.stream().write_all(&session[..cut]).unwrap();
        // Ensures that the other half is read later than this one.
        let mut other = Client::open(&server, Transport::Tcp);
        other.send_bytes(b"FENCE\n\n");
        other.receive_error("UNKNOWN_COMMAND");
        ana.stream().write_all(&session[cut..]).unwrap();
        ana.receive_connected();
        assert_eq!(ana.receive_message().text(), "x", "cut at {cut}");
        assert_eq!(ana.receive().command, "ACK");
        assert_eq!(ana.receive().command, "RECEIPT");
        ana.receive_end();
    }
}

#[test]
fn frames_may_arrive_joined() {
    let server = Server::start();
    let mut ana = Client::over(Stream::connect(server.address()));
    let mut bytes = envelope(&connect_frame(Profile::Agent, "ana"));
    for number in 0..500 {
        let body = number.to_string();
        bytes.extend(envelope(&encode("SEND", &[("destination", "/agent/ana")], body.as_bytes())));
    }
    ana.stream().write_all(&bytes).unwrap();
    ana.receive_connected();
    for number in 0..500 {
        assert_eq!(ana.receive_message().text(), number.to_string());
    }
}

#[test]
fn both_byte_orders_of_the_length_are_read_and_little_endian_is_written() {
    let server = Server::start();
    let mut ana = Client::over(Stream::connect(server.address()));
    let big = |frame: &[u8]| [&[1], &(frame.len() as u32).to_be_bytes()[..], frame].concat();
    ana.stream().write_all(&big(&connect_frame(Profile::Agent, "ana"))).unwrap();
    // The client panics if the answer's envelope is not little-endian.
    ana.receive_connected();
    // Longer than 255 bytes, so that the order matters.
    let body = [b'x'; 0x0203];
    ana.stream().write_all(&big(&encode("SEND", &[("destination", "/agent/ana")], &body))).unwrap();
    assert_eq!(ana.receive_message().body, body);
    ana.send("/agent/ana", &body);
    assert_eq!(ana.receive_message().body, body);
}

#[test]
fn a_length_may_count_characters() {
    let server = Server::start();
    let mut ana = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    let text = "señal «ñandú» 👋";
    let characters = text.chars().count().to_string();
    let headers = [("destination", "/agent/ana"), ("content-length", &*characters)];
    let frame = encode("SEND", &headers, text.as_bytes());
    let claimed = String::from_utf8(frame.clone()).unwrap().chars().count() as u32;
    assert!((claimed as usize) < frame.len());
    let envelope = [&[0], &claimed.to_le_bytes()[..], &frame].concat();
    for _ in 0..3 {
        ana.stream().write_all(&envelope).unwrap();
    }
    for _ in 0..3 {
        let message = ana.receive_message();
        assert_eq!(message.text(), text);
        assert_eq!(message.header("content-length"), text.len().to_string());
    }
    ana.expect_nothing();
}

#[test]
fn on_a_takeover_the_older_connection_gets_its_error_first() {
    let server = Server::start();
    let mut older = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    let _newer = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    // The newer one has its CONNECTED, so that the older one's ERROR and end have to be sent.
    let socket = older.stream().socket().try_clone().unwrap();
    socket.set_nonblocking(true).unwrap();
    older.receive_error("NEW_CONNECTION_LOGGED");
    older.receive_end();
}

#[test]
fn frames_before_the_end_of_the_stream_are_answered() {
    let server = Server::start();
    let mut ana = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    ana.send("/agent/ana", &vec![b'x'; 1 << 20]);
    ana.stream().socket().shutdown(Shutdown::Write).unwrap();
    assert_eq!(ana.receive_message().body.len(), 1 << 20);
    ana.receive_end();
    server.log.wait_for_line(&["closed", "login=\"ana\"", "reason=closed"]);
}

#[test]
fn every_notation_of_a_frame_in_use_is_accepted() {
    let server = Server::start();
    let mut ana = Client::open(&server, Transport::Tcp);
    let [application, agent] = [crate::support::server::APPLICATION_KEY, Profile::Agent.key()];
    ana.send_bytes(
        format!(
            "CONNECT\r\naccept-version: 1.2\r\n login :  ana \r\nlogin:eva\r\n\
             passcode: {agent}\r\nsecret-key: {application}\r\n\r\n\0"
        )
        .as_bytes(),
    );
    let connected = ana.receive_connected();
    assert_eq!(connected.header("login"), "ana", "blanks are trimmed and the first counts");
}

#[test]
fn violations_are_named_and_do_not_affect_others() {
    let server = Server::start();
    let mut eva = Client::log_in(&server, Transport::Tcp, Profile::Agent, "eva");
    for (frame, code) in [
        (&b"HELO\n\n"[..], "UNKNOWN_COMMAND"),
        (b"SE ND\n\n", "INVALID_FORMAT_COMMAND"),
        (b"SEND\ndestination\n\n", "UNKNOWN_FORMAT_HEADER"),
        (b"SEND\ncolor:green\n\n", "MISSING_HEADER"),
        (b"SUBSCRIBE\ndestination:/agent/eva\n\n", "MISSING_HEADER"),
        (b"CONNECT\nlogin:bob\n\n", "LOGIN_ID_ALREADY_LOGGED"),
    ] {
        let mut bob = Client::log_in(&server, Transport::Tcp, Profile::SuperAgent, "bob");
        bob.send_bytes(frame);
        assert_eq!(bob.receive_error(code).header("retry"), "never");
        bob.receive_end();
    }
    eva.expect_nothing();
}

#[test]
fn a_malformed_regular_expression_fails_its_ack_and_the_connection_stays() {
    let server = Server::start();
    let mut sup = Client::log_in(&server, Transport::Tcp, Profile::Service, "sup");
    for pattern in ["(", r"(a)\1", "(?=a)b", "a)|(b"] {
        let headers =
            [("destination", pattern), ("destination-type", "1"), ("transaction", pattern)];
        sup.send_frame("SUBSCRIBE", &headers, b"");
        let ack = sup.receive();
        let found = (ack.command.as_str(), ack.header("error-code"), ack.header("transaction"));
        assert_eq!(found, ("ACK", "INVALID_REGEX", pattern), "{ack:?}");
        assert_ne!(ack.header("error-desc"), "OK");
    }
    sup.expect_nothing();
}

#[test]
fn a_listener_serves_only_its_protocols() {
    let server = Setup::new()
        .listener("protocols = [\"classic\"]")
        .listener("protocols = [\"ws\"]")
        .listener("protocols = [\"http\"]")
        .start();
    let [classic, ws, http] = [0, 1, 2].map(|index| server.addresses()[index]);
    let envelope = envelope(&connect_frame(Profile::Agent, "ana"));
    let stomp = [&connect_frame(Profile::Agent, "ana")[..], b"\0"].concat();
    let upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: stomp\r\n\r\n";
    let health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    let requests: [&[u8]; 4] = [&envelope, &stomp, upgrade, health];
    const CLASSIC: &str = "ERROR\nerror-desc:this listener does not serve the classic dialect\n";
    const STOMP: &str = "ERROR\nmessage:this listener does not serve standard STOMP\n";
    const HTTP: &str = "HTTP/1.1 403 ";
    let answers = [
        (classic, ["CONNECTED\n", STOMP, HTTP, HTTP]),
        (ws, [CLASSIC, STOMP, "HTTP/1.1 101 ", "HTTP/1.1 400 "]),
        (http, [CLASSIC, STOMP, "HTTP/1.1 403 ", "HTTP/1.1 200 "]),
    ];
    for (address, answers) in answers {
        for (request, answer) in requests.into_iter().zip(answers) {
            let mut stream = Stream::connect(address);
            stream.write_all(request).unwrap();
            // The envelope and the bytes behind the beginning are not checked.
            let skipped = if request[0] == 0 { 5 } else { 0 };
            let mut found = vec![0; skipped + answer.len()];
            stream.read_exact(&mut found).unwrap();
            assert_eq!(
                found[skipped..].escape_ascii().to_string(),
                answer.escape_default().to_string()
            );
            if answer.contains("does not serve") {
                let rest = String::from_utf8(stream.read_to_end()).unwrap();
                assert!(rest.contains("error-code:PROTOCOL_NOT_SERVED\nretry:never\n"), "{rest}");
            }
            if answer == HTTP && address == classic {
                let rest = String::from_utf8(stream.read_to_end()).unwrap();
                assert!(
                    rest.ends_with("this listener does not serve HTTP and WebSocket\n"),
                    "{rest}"
                );
            }
        }
    }
    server.log.wait_for_line(&["closed", "reason=PROTOCOL_NOT_SERVED "]);
    let why = "reason=\"transport:this listener does not serve HTTP and WebSocket\"";
    server.log.wait_for_line(&["closed", why]);
}

#[test]
fn a_listener_takes_or_refuses_tls_as_configured() {
    let server = Setup::new()
        .listener("tls = \"required\"")
        .listener("tls = \"off\"")
        .listener("tls = \"optional\"")
        .start();
    let log_in = |stream: Stream| {
        let mut client = Client::over(stream);
        client.send_bytes(&connect_frame(Profile::Admin, &format!("{:p}", &client)));
        client
    };
    let [required, off, optional] = [0, 1, 2].map(|index| server.addresses()[index]);
    for address in [required, optional] {
        let stream = Stream::connect_securely(address, &server.authority());
        log_in(stream).receive_connected();
    }
    for address in [off, optional] {
        let mut client = log_in(Stream::connect(address));
        client.receive_connected();
        client.send_frame("DISCONNECT", &[], b"");
        assert_eq!(client.receive().command, "RECEIPT");
        client.receive_end();
    }
    let mut refused = log_in(Stream::connect(required));
    let error = refused.receive_error("PROTOCOL_NOT_SERVED");
    assert!(error.header("error-desc").contains("only TLS"), "{error:?}");
    assert_eq!(error.header("retry"), "never");
    refused.receive_end();
    let mut refused = Stream::connect(required);
    refused.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let answer = String::from_utf8(refused.read_to_end()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("only TLS"), "{answer}");
    let config = crate::support::client::tls_config(
        &server.authority(),
        &[&rustls::version::TLS13, &rustls::version::TLS12],
    );
    let error = Stream::secure(connect(off, None), config).err().expect("no TLS there");
    assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    server.log.wait_for_line(&["closed", "TLS is not served on this port"]);
    server.log.wait_for_line(&["closed", "reason=\"transport:only TLS is served on this port\""]);
}

#[test]
fn many_clients_are_served_at_once() {
    const COUNT: usize = 200;
    let server = Server::start();
    let mut clients: Vec<_> = (0..COUNT)
        .map(|number| {
            let login = format!("client/{number}");
            Client::log_in(&server, Transport::Tcp, Profile::Agent, &login)
        })
        .collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let to = format!("/agent/client/{}", (number + 1) % COUNT);
        client.send(&to, number.to_string().as_bytes());
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let from = (number + COUNT - 1) % COUNT;
        assert_eq!(client.receive_message().text(), from.to_string());
    }
    drop(clients);
    let totals = server.stop();
    assert_eq!(totals.count("deliveries"), COUNT as u64);
    assert_eq!(totals.count("connections_closed"), totals.count("connections_accepted"));
}
