//! Timeouts: connections that end in time, and pings to silent clients.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use tungstenite::{Message, WebSocket};

use crate::support::PATIENCE;
use crate::support::client::{
    Client, Profile, Stream, Transport, connect_frame, encode, envelope, tls_config, upgrade,
};
use crate::support::server::{Server, Setup};

/// A broker on which all other time limits are long.
fn only(limit: &str) -> Server {
    let limits = ["upgrade_ms_max", "tls_handshake_ms_max", "connect_ms_max"]
        .map(|name| format!("{name} = {}", if name == limit { LIMIT_MS } else { 600_000 }));
    Setup::new().limits(&limits.join("\n")).start()
}

const LIMIT_MS: u64 = 200;

/// Checks the line of the connection in the log: the limit that ended it, and that it did not end too
/// early.
fn check_line(server: &Server, limit: &str) {
    let line = server.log.wait_for_line(&["closed", &format!("reason=timed-out:{limit} ")]);
    let (_, duration) = line.split_once("duration_ms=").unwrap();
    let (duration, _) = duration.split_once(' ').unwrap();
    assert!(duration.parse::<u64>().unwrap() >= LIMIT_MS, "{line}");
}

#[test]
fn a_silent_connection_is_closed() {
    let server = only("upgrade_ms_max");
    assert_eq!(Stream::connect(server.address()).read_to_end(), b"");
    check_line(&server, "upgrade_ms_max");
    assert_eq!(server.stop().count("timeouts"), 1);
}

#[test]
fn an_incomplete_tls_hello_is_closed() {
    let server = only("tls_handshake_ms_max");
    let mut stream = Stream::connect(server.address());
    stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap();
    assert_eq!(stream.read_to_end(), b"");
    check_line(&server, "tls_handshake_ms_max");
}

#[test]
fn a_tls_connection_on_which_nothing_follows_is_closed() {
    let server = only("upgrade_ms_max");
    let mut stream = Stream::connect_securely(server.address(), &server.authority());
    stream.wait_for_any_end();
    check_line(&server, "upgrade_ms_max");
}

#[test]
fn an_incomplete_upgrade_is_closed() {
    let server = only("upgrade_ms_max");
    let mut stream = Stream::connect(server.address());
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").unwrap();
    let answer = String::from_utf8(stream.read_to_end()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
    assert!(answer.ends_with("(upgrade_ms_max)\n"), "{answer}");
    drop(stream);
    check_line(&server, "upgrade_ms_max");
}

/// Single bytes do not extend the deadline.
#[test]
fn an_upgrade_in_single_bytes_is_closed() {
    let server = only("upgrade_ms_max");
    let mut stream = Stream::connect(server.address());
    let mut bytes = b"GET /".iter().chain(std::iter::repeat(&b'x'));
    stream.socket().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !matches!(stream.read(&mut [0]), Ok(0)) {
        assert!(Instant::now() < deadline, "the connection stays open");
        // The connection may be closed meanwhile.
        let _ = stream.write_all(&[*bytes.next().unwrap()]);
    }
    check_line(&server, "upgrade_ms_max");
}

#[test]
fn a_client_that_does_not_log_in_gets_an_error_and_is_closed() {
    let server = only("connect_ms_max");
    for transport in Transport::ALL {
        let mut client = Client::open(&server, transport);
        if !transport.is_websocket() {
            // Half an envelope suffices for detection.
            client.stream().write_all(&envelope(b"CONNECT\n\n")[..6]).unwrap();
        }
        let error = client.receive_error("TIMED_OUT");
        assert_eq!(error.header("retry"), "later");
        assert!(error.header("error-desc").contains("connect_ms_max"), "{error:?}");
        client.receive_end();
        drop(client);
        server.log.wait_for_line(&["closed", "login=\"\"", "reason=timed-out:connect_ms_max "]);
    }
    assert_eq!(server.stop().count("timeouts"), 4);
}

#[test]
fn the_close_code_tells_a_standard_client_without_login_to_reconnect() {
    let server = only("connect_ms_max");
    let stream = Stream::connect(server.address());
    let (mut websocket, _) = upgrade(stream, Some("v12.stomp"));
    let message = websocket.read().unwrap();
    assert!(message.to_text().unwrap().contains("error-code:TIMED_OUT\n"), "{message}");
    let Ok(Message::Close(Some(close))) = websocket.read() else { panic!("a close") };
    assert!((4100..4200).contains(&u16::from(close.code)), "{close}");
}

#[test]
fn a_client_that_is_logged_in_may_be_silent() {
    let limits = "upgrade_ms_max = 200\ntls_handshake_ms_max = 200\nconnect_ms_max = 200";
    let server = Setup::new().limits(limits).start();
    let mut clients: Vec<_> = Transport::ALL
        .into_iter()
        .zip(["a", "b", "c", "d"])
        .map(|(transport, login)| Client::log_in(&server, transport, Profile::Agent, login))
        .collect();
    // These two connected later, and have timed out.
    Stream::connect(server.address()).wait_for_any_end();
    Stream::connect(server.address()).wait_for_any_end();
    for client in &mut clients {
        client.expect_nothing();
    }
}

#[test]
fn a_websocket_client_that_answers_pings_is_kept() {
    let server =
        Setup::new().limits("websocket_ping_ms = 50\nwebsocket_pong_ms_max = 1500").start();
    let started = Instant::now();
    for transport in [Transport::Ws, Transport::Wss] {
        let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
        let mut pings = 0;
        // Longer than a client is kept that does not answer.
        while started.elapsed() < Duration::from_millis(2500) {
            match ana.websocket().read().unwrap() {
                Message::Ping(_) => pings += 1,
                other => panic!("a ping was expected, not {other:?}"),
            }
            ana.websocket().flush().unwrap();
        }
        assert!(pings >= 2 || transport == Transport::Wss, "{pings} pings");
        ana.expect_nothing();
    }
}

/// A page in a browser does not see pings, so that heart-beats are needed as well.
#[test]
fn pings_do_not_replace_heart_beats() {
    let server = Setup::new().limits("websocket_ping_ms = 100\nheart_beat_ms_min = 200").start();
    for transport in [Transport::Ws, Transport::Wss] {
        let stream = match transport {
            Transport::Wss => Stream::connect_securely(server.address(), &server.authority()),
            _ => Stream::connect(server.address()),
        };
        let (mut websocket, _) = upgrade(stream, Some("v12.stomp"));
        let login = String::from_utf8(connect_frame(Profile::Agent, "ana")).unwrap();
        let login = login.replace("CONNECT\n", "CONNECT\nheart-beat:0,400\n");
        websocket.send(Message::text(login + "\0")).unwrap();
        let (mut pings, mut beats) = (0, 0);
        let started = Instant::now();
        while beats < 3 {
            match websocket.read().unwrap() {
                Message::Text(text) if text.as_str() == "\n" => beats += 1,
                Message::Text(text) => assert!(text.starts_with("CONNECTED\n"), "{text}"),
                Message::Ping(_) => pings += 1,
                other => panic!("{other:?}"),
            }
            assert!(started.elapsed() < PATIENCE, "{pings} pings, {beats} beats");
        }
        assert!(pings >= 3, "{pings} pings");
    }
}

#[test]
fn a_websocket_client_that_sends_is_not_pinged() {
    let server = Setup::new().limits("websocket_ping_ms = 1000").start();
    let mut ana = Client::log_in(&server, Transport::Ws, Profile::Agent, "ana");
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(1500) {
        ana.send("/agent/ana", b"x");
        let heard = Instant::now();
        match ana.websocket().read().unwrap() {
            Message::Text(_) => {}
            Message::Ping(_) => assert!(heard.elapsed() >= Duration::from_millis(900)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_websocket_client_that_does_not_answer_pings_is_closed() {
    let server =
        Setup::new().limits("websocket_ping_ms = 100\nwebsocket_pong_ms_max = 150").start();
    let mut sup = Client::log_in(&server, Transport::Tcp, Profile::Service, "sup");
    sup.subscribe_presence("/agent/.*", false);
    // tungstenite would answer by itself, so it only upgrades.
    let (websocket, _) = upgrade(Stream::connect(server.address()), Some("stomp"));
    let mut ana = Client::over_websocket(websocket);
    ana.send_bytes(&connect_frame(Profile::Agent, "ana"));
    let bytes = ana.stream().read_to_end();
    // A ping, and then a close.
    assert!(bytes.ends_with(b"\x89\0\x88\x02\x03\xe8"), "{}", bytes.escape_ascii());
    assert_eq!(sup.receive_message().header("event"), "logged");
    for event in ["disconnected", "logout"] {
        let message = sup.receive_message();
        assert_eq!(message.header("event"), event);
        assert!(message.text().contains("\"reason\":\"timed-out\""), "{message:?}");
    }
    check_line(&server, "websocket_pong_ms_max");
    sup.expect_nothing();
}

/// A client of the standard dialect that has agreed to beat every half second.
enum Beating {
    Tcp(Stream),
    WebSocket(Box<WebSocket<Stream>>),
}

impl Beating {
    fn log_in(server: &Server, transport: Transport, login: &str) -> Self {
        let frame = String::from_utf8(connect_frame(Profile::Agent, login)).unwrap() + "\0";
        let frame =
            frame.replace("CONNECT\n", "CONNECT\naccept-version:1.2\nhost:x\nheart-beat:500,0\n");
        let mut stream = Stream::open(server, transport);
        let mut client = if transport.is_websocket() {
            Self::WebSocket(Box::new(upgrade(stream, Some("v12.stomp")).0))
        } else {
            stream.write_all(frame.as_bytes()).unwrap();
            Self::Tcp(stream)
        };
        if let Self::WebSocket(websocket) = &mut client {
            websocket.send(Message::text(frame)).unwrap();
        }
        let connected = client.receive();
        assert!(connected.contains("\nheart-beat:0,500\n"), "{connected}");
        client
    }

    fn beat(&mut self) {
        match self {
            Self::Tcp(stream) => stream.write_all(b"\n").unwrap(),
            Self::WebSocket(websocket) => websocket.send(Message::text("\n")).unwrap(),
        }
    }

    /// The next frame.
    fn receive(&mut self) -> String {
        match self {
            Self::Tcp(stream) => {
                let mut bytes = vec![0];
                while stream.read_exact(&mut bytes[..1]).is_ok() && bytes[0] != 0 {
                    bytes.push(bytes[0]);
                }
                String::from_utf8(bytes.split_off(1)).unwrap()
            }
            Self::WebSocket(websocket) => loop {
                if let Message::Text(text) = websocket.read().unwrap() {
                    return text.as_str().to_owned();
                }
            },
        }
    }

    fn log_out(&mut self) {
        let frame = "DISCONNECT\nreceipt:bye\n\n\0";
        match self {
            Self::Tcp(stream) => stream.write_all(frame.as_bytes()).unwrap(),
            Self::WebSocket(websocket) => websocket.send(Message::text(frame)).unwrap(),
        }
        assert!(self.receive().trim_start().starts_with("RECEIPT\n"), "it was cut");
    }
}

/// A broker that is stopped for a while, as by a debugger or with its machine, blames nobody: neither those
/// whose heart-beats wait in the kernel nor those whose last ones are still on the way.
#[test]
fn clients_that_beat_while_the_broker_is_stopped_stay() {
    let server = Setup::new().limits("heart_beat_ms_min = 500\nheart_beat_margin_ms = 500").start();
    let log_in = |group: &str| -> Vec<Beating> {
        let transports = Transport::ALL.into_iter().cycle().take(24).enumerate();
        let login = |number: usize| format!("{group}/{number}");
        transports.map(|(at, transport)| Beating::log_in(&server, transport, &login(at))).collect()
    };
    let (mut beating, mut stopped_too) = (log_in("beating"), log_in("stopped"));
    let dead = Beating::log_in(&server, Transport::Tcp, "dead");
    beat(&mut [&mut beating, &mut stopped_too], Duration::from_millis(600));
    server.signal("STOP");
    // Silence of two seconds is too long.
    beat(&mut [&mut beating], Duration::from_millis(3_500));
    server.signal("CONT");
    beat(&mut [&mut beating], Duration::from_millis(800));
    beat(&mut [&mut beating, &mut stopped_too], Duration::from_millis(2_500));
    server.log.wait_for_line(&["closed", "login=\"dead\"", "reason=timed-out:heart-beat "]);
    for client in beating.iter_mut().chain(&mut stopped_too) {
        client.log_out();
    }
    drop((beating, stopped_too, dead));
    assert_eq!(server.stop().count("timeouts"), 1);
}

/// Has clients beat for a time, more often than they have agreed to.
fn beat(groups: &mut [&mut Vec<Beating>], time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        for client in groups.iter_mut().flat_map(|group| group.iter_mut()) {
            client.beat();
        }
        // Nothing tells that time has passed, but time.
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

/// A frame that does not go on is refused, over every transport.
#[test]
fn a_frame_that_was_begun_and_does_not_go_on_is_refused() {
    let server = Setup::new().limits("frame_ms_max = 200").start();
    let mut witness = Client::log_in(&server, Transport::Tcp, Profile::Agent, "witness");
    for transport in Transport::ALL {
        let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
        if transport.is_websocket() {
            // A fragment of a text message of five bytes.
            ana.stream().write_all(b"\x01\x85\0\0\0\0SEND\n").unwrap();
        } else {
            ana.stream().write_all(&envelope(b"SEND\n\n")[..8]).unwrap();
        }
        let error = ana.receive_error("TIMED_OUT");
        assert_eq!(error.header("retry"), "now");
        assert!(error.header("error-desc").contains("frame_ms_max"), "{error:?}");
        ana.receive_end();
        drop(ana);
        let line = server.log.wait_for_line(&["closed", "reason=timed-out:frame_ms_max "]);
        assert!(line.contains("login=\"ana\""), "{line}");
        check_line(&server, "frame_ms_max");
    }
    witness.expect_nothing();
    drop(witness);
    assert_eq!(server.stop().count("timeouts"), 4);
}

/// A client that does not end its stream after the broker's is dropped after a while.
#[test]
fn a_client_that_never_ends_its_own_stream_is_dropped() {
    let server = Setup::new().limits("linger_ms_max = 200").start();
    let mut ana = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    ana.send_frame("DISCONNECT", &[], b"");
    assert_eq!(ana.receive().command, "RECEIPT");
    ana.receive_end();
    let line = server.log.wait_for_line(&["closed", "login=\"ana\"", "reason=logout"]);
    assert!(line.contains("transport=tcp"), "{line}");
}

/// A client that does not read the last bytes is dropped after a while.
#[test]
fn a_client_that_does_not_take_its_last_bytes_is_dropped() {
    let server = Setup::new().limits("close_flush_ms_max = 200").start();
    let mut ana = Client::log_in_narrow(&server, Profile::Agent, "ana");
    let body = vec![b'x'; 1 << 20];
    let mut bytes = Vec::new();
    // More than the kernel's buffers hold.
    for _ in 0..7 {
        bytes.extend(envelope(&encode("SEND", &[("destination", "/agent/ana")], &body)));
    }
    bytes.extend(envelope(&encode("DISCONNECT", &[], b"")));
    ana.stream().write_all(&bytes).unwrap();
    server.log.wait_for_line(&["closed", "login=\"ana\"", "reason=logout"]);
}

#[test]
fn a_slow_handshake_within_its_time_is_served() {
    let server = Setup::new().start();
    let config = tls_config(&server.authority(), &[&rustls::version::TLS13]);
    let socket = crate::support::client::connect(server.address(), None);
    // Others connect and disconnect meanwhile.
    for _ in 0..20 {
        drop(Client::log_in(&server, Transport::Tls, Profile::Agent, "eva"));
    }
    let mut ana = Client::over(Stream::secure(socket, config).unwrap());
    ana.send_bytes(&connect_frame(Profile::Agent, "ana"));
    ana.receive_connected();
}
