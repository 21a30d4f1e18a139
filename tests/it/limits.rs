//! Limits: a client that exceeds one gets an ERROR with its name and is closed; others are not affected.

use std::io::{Read, Write};

use tungstenite::Message;

use crate::support::client::{
    Client, Profile, Stream, Transport, connect_frame, encode, envelope, upgrade,
};
use crate::support::server::{APPLICATION_KEY, Server, Setup};

/// Has a client exceed a limit on each transport, while another one is connected.
fn exceed(server: &Server, limit: &str, profile: Profile, offend: impl Fn(&mut Client)) {
    let mut witness = Client::log_in(server, Transport::Tcp, Profile::Agent, "witness");
    for transport in Transport::ALL {
        let mut offender = Client::log_in(server, transport, profile, "offender");
        offend(&mut offender);
        offender.receive_limit_exceeded(limit);
        drop(offender);
        let reason = format!("reason=LIMIT_EXCEEDED:{limit} ");
        server.log.wait_for_line(&["closed", "login=\"offender\"", &reason]);
        witness.expect_nothing();
    }
}

fn with_limits(lines: &str) -> Server {
    Setup::new().limits(lines).start()
}

#[test]
fn connections_max() {
    let server = with_limits("connections_max = 2");
    let mut ana = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    let eva = Client::log_in(&server, Transport::Tcp, Profile::Agent, "eva");
    for transport in Transport::ALL {
        let mut third = Client::open(&server, transport);
        if !transport.is_websocket() {
            third.send_bytes(&connect_frame(Profile::Agent, "ian"));
        }
        let error = third.receive_error("LIMIT_EXCEEDED");
        assert!(error.header("error-desc").contains("connections_max"), "{error:?}");
        assert_eq!(error.header("retry"), "later", "{error:?}");
        // 1013: try again later.
        assert_eq!(third.receive_end(), transport.is_websocket().then_some(1013));
        let name = format!("transport={} ", format!("{transport:?}").to_lowercase());
        server.log.wait_for_line(&["closed", &name, "reason=LIMIT_EXCEEDED:connections_max "]);
    }
    ana.expect_nothing();
    // Logged once, not for each connection.
    server.log.wait_for_line(&["WARN", "connections refused", "connections_max=2"]);
    assert_eq!(server.log.text().matches("connections refused").count(), 1);
    drop(eva);
    server.log.wait_for_line(&["closed", "login=\"eva\""]);
    let mut eva = Client::log_in(&server, Transport::Wss, Profile::Agent, "eva");
    eva.expect_nothing();
    drop((ana, eva));
    let totals = server.stop();
    assert_eq!(totals.count("connections_refused"), 4);
    assert_eq!(totals.count("connections_accepted"), totals.count("connections_closed"));
}

#[test]
fn a_standard_client_beyond_connections_max_gets_an_error_of_its_dialect() {
    let server = with_limits("connections_max = 1");
    let mut ana = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    let mut stream = Stream::connect(server.address());
    stream.write_all(b"CONNECT\naccept-version:1.2\nhost:x\n\n\0").unwrap();
    let answer = String::from_utf8(stream.read_to_end()).unwrap();
    assert!(answer.starts_with("ERROR\n"), "{answer}");
    for expected in ["error-code:LIMIT_EXCEEDED\n", "retry:later\n", "connections_max"] {
        assert!(answer.contains(expected), "{answer}");
    }
    let (mut websocket, _) = upgrade(Stream::connect(server.address()), Some("v12.stomp"));
    let message = websocket.read().unwrap();
    assert!(message.to_text().unwrap().contains("connections_max"), "{message}");
    let Ok(Message::Close(Some(close))) = websocket.read() else { panic!("a close") };
    assert!((4100..4200).contains(&u16::from(close.code)), "{close}");
    // Health checks still succeed.
    let mut stream = Stream::connect(server.address());
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(stream.read_to_end().starts_with(b"HTTP/1.1 200 OK\r\n"));
    ana.expect_nothing();
}

#[test]
fn refusals_max_and_refusal_ms_max() {
    let server = with_limits("connections_max = 1\nrefusals_max = 2\nrefusal_ms_max = 300");
    let mut ana = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    let mut silent = [(); 2].map(|()| Stream::connect(server.address()));
    // As many as may wait to be refused are silent; one more is closed at once.
    Stream::connect(server.address()).wait_for_any_end();
    assert!(!server.log.text().contains("closed connection="), "{}", server.log.text());
    for stream in &mut silent {
        assert_eq!(stream.read_to_end(), b"");
    }
    for number in [2, 3] {
        let number = format!("connection={number} ");
        let line = server.log.wait_for_line(&["closed", &number, ":connections_max "]);
        let (_, duration) = line.split_once("duration_ms=").unwrap();
        let (duration, _) = duration.split_once(' ').unwrap();
        assert!(duration.parse::<u64>().unwrap() >= 300, "{line}");
    }
    // There is room again for a refusal, and the time for it is bounded as well.
    let mut told = Client::open(&server, Transport::Tcp);
    told.send_bytes(&connect_frame(Profile::Agent, "ian"));
    told.receive_error("LIMIT_EXCEEDED");
    server.log.wait_for_line(&["closed", "connection=4 ", ":connections_max "]);
    ana.expect_nothing();
    drop(ana);
    assert_eq!(server.stop().count("connections_refused"), 4);
}

#[test]
fn login_frame_bytes_max() {
    let server = with_limits("login_frame_bytes_max = 500\nlogin_id_bytes_max = 100");
    let mut witness = Client::log_in(&server, Transport::Tcp, Profile::Agent, "witness");
    for transport in Transport::ALL {
        let mut offender = Client::open(&server, transport);
        let mut frame = connect_frame(Profile::Agent, "offender");
        frame.resize(700, b'x');
        offender.send_bytes(&frame);
        offender.receive_limit_exceeded("login_frame_bytes_max");
        witness.expect_nothing();
    }
    // After the login, larger frames are allowed.
    let body = [b'x'; 10_000];
    witness.send("/agent/witness", &body);
    assert_eq!(witness.receive_message().body, body);
}

/// The least that a configuration may have is what the shortest CONNECT takes, and enough for it.
#[test]
fn the_smallest_limits_that_are_allowed_let_clients_log_in() {
    let key = Profile::SuperAgent.key();
    let connect = format!("STOMP\nlogin:a\npasscode:{APPLICATION_KEY}.{key}\n\n");
    let request = "GET / HTTP/1.1\r\nHost:a\r\nUpgrade:websocket\r\nConnection:upgrade\r\n\
        Sec-WebSocket-Version:13\r\nSec-WebSocket-Key:AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let limits = format!(
        "login_id_bytes_max = 1\ndestination_bytes_max = 8\npattern_bytes_max = 2\nsubscription_id_bytes_max = 1\n\
             header_count_max = 2\nheader_bytes_max = {bytes}\nlogin_frame_bytes_max = {bytes}\n\
             upgrade_bytes_max = {}",
        request.len(),
        bytes = connect.len()
    );
    let server = with_limits(&limits);
    let answer = |sent: &[&[u8]]| {
        let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        stream.write_all(&sent.concat()).unwrap();
        let mut answer = [0; 512];
        let len = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..len]).into_owned()
    };
    let tcp = answer(&[connect.as_bytes(), b"\0"]);
    assert!(tcp.starts_with("CONNECTED\n"), "{tcp}");
    let longer = answer(&[connect.replace("login:a", "login:ab").as_bytes(), b"\0"]);
    assert!(longer.starts_with("ERROR\n") && longer.contains("login_frame_bytes_max"), "{longer}");
    let ws = answer(&[request.as_bytes()]);
    assert!(ws.starts_with("HTTP/1.1 101 "), "{ws}");
    let larger = request.replace("Host:a", "Host:ab");
    assert!(answer(&[larger.as_bytes()]).starts_with("HTTP/1.1 431 "));
}

#[test]
fn body_bytes_max() {
    let server = with_limits("body_bytes_max = 5000");
    exceed(&server, "body_bytes_max", Profile::Agent, |client| {
        client.send("/agent/offender", &[b'x'; 5000]);
        assert_eq!(client.receive_message().body.len(), 5000);
        client.send("/agent/offender", &[b'x'; 5001]);
    });
    assert_eq!(server.stop().count("limit_exceeded"), 4);
}

#[test]
fn body_bytes_max_where_the_whole_frame_is_too_large() {
    let server = with_limits("body_bytes_max = 5000");
    exceed(&server, "body_bytes_max", Profile::Agent, |client| {
        client.send("/agent/offender", &[b'x'; 100_000]);
    });
}

#[test]
fn header_bytes_max() {
    let server = with_limits("header_bytes_max = 4096");
    exceed(&server, "header_bytes_max", Profile::Agent, |client| {
        let headers = [("destination", "/agent/offender"), ("color", &*"x".repeat(3000))];
        client.send_frame("SEND", &headers, b"");
        assert_eq!(client.receive_message().header("color").len(), 3000);
        let headers = [("destination", "/agent/offender"), ("color", &*"x".repeat(4097))];
        client.send_frame("SEND", &headers, b"");
    });
}

#[test]
fn header_count_max() {
    let server = with_limits("header_count_max = 10");
    exceed(&server, "header_count_max", Profile::Agent, |client| {
        let headers = [&[("destination", "/agent/offender")][..], &[("a", "b"); 9]].concat();
        client.send_frame("SEND", &headers, b"");
        client.receive_message();
        client.send_frame("SEND", &[&headers[..], &[("a", "b")]].concat(), b"");
    });
}

#[test]
fn login_id_bytes_max() {
    let server = with_limits("login_id_bytes_max = 50");
    let mut witness = Client::log_in(&server, Transport::Tcp, Profile::Agent, "witness");
    let longest = "ñ".repeat(25);
    let mut client = Client::log_in(&server, Transport::Ws, Profile::Agent, &longest);
    client.expect_nothing();
    let mut offender = Client::open(&server, Transport::Tcp);
    offender.send_bytes(&connect_frame(Profile::Agent, &format!("{longest}x")));
    offender.receive_limit_exceeded("login_id_bytes_max");
    witness.expect_nothing();
}

#[test]
fn subscriptions_per_session_max() {
    let server = with_limits("subscriptions_per_session_max = 2");
    exceed(&server, "subscriptions_per_session_max", Profile::Service, |client| {
        client.subscribe("0", "/agent/witness");
        client.subscribe("1", "/agent/a.*");
        // A repeated subscription is not counted twice.
        client.subscribe("1", "/agent/a.*");
        let headers = [("destination", "/agent/b.*"), ("destination-type", "1")];
        client.send_frame("SUBSCRIBE", &headers, b"");
    });
}

/// A client of the classic dialect is refused a subscription because others have used up what there is. It stays.
fn is_used_up(client: &mut Client, limit: &str, kind: &str, destination: &str) {
    let headers =
        [("destination", destination), ("destination-type", kind), ("transaction", "more")];
    client.send_frame("SUBSCRIBE", &headers, b"");
    let ack = client.receive();
    let found = (ack.command.as_str(), ack.header("error-code"));
    assert_eq!(found, ("ACK", "LIMIT_EXCEEDED"), "{ack:?}");
    assert!(ack.header("error-desc").contains(limit), "{ack:?}");
}

#[test]
fn patterns_max() {
    let server = with_limits("patterns_max = 3");
    let mut boss = Client::log_in(&server, Transport::Tcp, Profile::SuperAgent, "boss");
    boss.subscribe("1", "/agent/of-boss");
    let mut desk = Client::log_in(&server, Transport::Tcp, Profile::Service, "desk");
    desk.subscribe("1", "/agent/a.*");
    desk.subscribe_presence("/agent/.*", false);
    is_used_up(&mut desk, "patterns_max", "1", "/agent/b.*");
    // The same expression is not another one.
    desk.subscribe("1", "/agent/of-boss");
    // What a client holds goes with it, if nobody else holds it.
    drop(desk);
    server.log.wait_for_line(&["closed", "login=\"desk\""]);
    boss.subscribe("1", "/agent/b.*");
    boss.subscribe("1", "/agent/c.*");
    boss.expect_nothing();
}

#[test]
fn patterns_per_session_max() {
    for (lines, limit) in [
        ("patterns_per_session_max = 2", "patterns_per_session_max"),
        // Nobody else has used them up.
        ("patterns_max = 2", "patterns_max"),
    ] {
        let server = with_limits(lines);
        exceed(&server, limit, Profile::Service, |client| {
            client.subscribe("1", "/agent/a.*");
            client.subscribe_presence("/agent/.*", false);
            // A repeated subscription is not counted twice.
            client.subscribe("1", "/agent/a.*");
            let headers = [("destination", "/agent/b.*"), ("destination-type", "1")];
            client.send_frame("SUBSCRIBE", &headers, b"");
        });
    }
}

#[test]
fn wildcards_max() {
    let server = with_limits("wildcards_max = 2\npatterns_max = 1");
    let mut boss = Client::log_in(&server, Transport::Tcp, Profile::SuperAgent, "boss");
    boss.subscribe("0", "/topic/>");
    let mut desk = Client::log_in(&server, Transport::Tcp, Profile::Service, "desk");
    // Patterns and wildcards are counted apart.
    desk.subscribe("1", "/agent/a.*");
    desk.subscribe("0", "/topic/*");
    is_used_up(&mut desk, "wildcards_max", "0", "/topic/a.*");
    desk.subscribe("0", "/topic/>");
    boss.expect_nothing();
}

#[test]
fn wildcards_per_session_max() {
    let server = with_limits("wildcards_per_session_max = 2");
    exceed(&server, "wildcards_per_session_max", Profile::Service, |client| {
        client.subscribe("0", "/topic/>");
        client.subscribe("0", "/topic/*");
        client.subscribe("0", "/topic/*");
        let headers = [("destination", "/topic/a.*"), ("destination-type", "0")];
        client.send_frame("SUBSCRIBE", &headers, b"");
    });
}

#[test]
fn pattern_bytes_max() {
    let server = with_limits("pattern_bytes_max = 100");
    exceed(&server, "pattern_bytes_max", Profile::Service, |client| {
        client.subscribe("1", &"a".repeat(100));
        let headers = [("destination", &*"a".repeat(101)), ("destination-type", "1")];
        client.send_frame("SUBSCRIBE", &headers, b"");
    });
}

#[test]
fn pattern_compiled_bytes_max() {
    let server = with_limits("");
    exceed(&server, "pattern_compiled_bytes_max", Profile::Service, |client| {
        client.subscribe("1", "/agent/(a|b){3}");
        let headers = [("destination", "((a{100}){100}){100}"), ("destination-type", "1")];
        client.send_frame("SUBSCRIBE", &headers, b"");
    });
}

#[test]
fn destinations_max() {
    let server = with_limits("destinations_max = 2");
    let mut ana = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    ana.subscribe("0", "/topic/a");
    let mut eva = Client::log_in(&server, Transport::Ws, Profile::Agent, "eva");
    eva.subscribe("0", "/topic/b");
    // Addresses do not count, so that nobody is kept from logging in.
    let mut bob = Client::log_in(&server, Transport::Tcp, Profile::Agent, "bob");
    is_used_up(&mut bob, "destinations_max", "0", "/topic/c");
    bob.subscribe("0", "/topic/a");
    ana.expect_nothing();
    // An unused destination makes room.
    drop(eva);
    server.log.wait_for_line(&["closed", "login=\"eva\""]);
    bob.subscribe("0", "/topic/c");
}

#[test]
fn takeovers_max() {
    let server = with_limits("takeovers_max = 2\ntakeover_window_ms = 600_000");
    let mut last = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    for _ in 0..2 {
        let newer = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
        last.receive_error("NEW_CONNECTION_LOGGED");
        last = newer;
    }
    let mut refused = Client::open(&server, Transport::Tcp);
    refused.send_bytes(&connect_frame(Profile::Agent, "ana"));
    let error = refused.receive_error("LOGIN_ID_ALREADY_LOGGED");
    assert_eq!(error.header("retry"), "later");
    assert!(error.header("error-desc").contains("takeovers_max"), "{error:?}");
    refused.receive_end();
    last.expect_nothing();
}

#[test]
fn inbound_total_bytes_max() {
    let lines = "body_bytes_max = 40_000\nheader_bytes_max = 4096\n\
                 inbound_total_bytes_max = 100_000";
    let server = with_limits(lines);
    let mut witness = Client::log_in(&server, Transport::Tcp, Profile::Agent, "witness");
    // Torn frames that are allowed each, but not all together.
    let frame = encode("SEND", &[("destination", "/agent/witness")], &[b'x'; 30_000]);
    let frame = envelope(&frame);
    let (last, most) = frame.split_last().unwrap();
    let mut holders: Vec<Client> = Vec::new();
    while !holders.last_mut().is_some_and(Client::has_news) {
        let login = format!("holder/{}", holders.len());
        assert!(holders.len() < 20, "nobody was refused");
        let mut holder = Client::log_in(&server, Transport::Tcp, Profile::Agent, &login);
        holder.stream().write_all(most).unwrap();
        holders.push(holder);
        witness.expect_nothing();
    }
    let mut refused = holders.pop().unwrap();
    let error = refused.receive_error("LIMIT_EXCEEDED");
    assert!(error.header("error-desc").contains("inbound_total_bytes_max"), "{error:?}");
    assert_eq!(error.header("retry"), "later");
    refused.receive_end();
    holders[0].stream().write_all(&[*last]).unwrap();
    assert_eq!(witness.receive_message().body.len(), 30_000);
    witness.expect_nothing();
}

/// Memory is allocated for bytes that arrive, not for announced lengths.
#[test]
fn an_announcement_of_two_gibibytes_takes_no_memory() {
    let server = Server::start();
    let mut witness = Client::log_in(&server, Transport::Tcp, Profile::Agent, "witness");
    let before = server.resident_bytes();
    for logged_in in [false, true] {
        let limit = if logged_in { "body_bytes_max" } else { "login_frame_bytes_max" };
        for prefix in
            [&[1, 0x7f, 0xff, 0xff, 0xff][..], &[0, 0, 0, 0, 0x80], &[1, 0xff, 0xff, 0, 0]]
        {
            let mut offender = Client::open(&server, Transport::Tcp);
            if logged_in {
                offender.send_bytes(&connect_frame(Profile::Agent, "offender"));
                offender.receive_connected();
            }
            offender.stream().write_all(prefix).unwrap();
            offender.stream().write_all(&[b'x'; 1000]).unwrap();
            offender.receive_limit_exceeded(limit);
        }
    }
    // The largest allowed frame, announced by many clients that send little of it.
    let announced = [&[1][..], &(4_u32 << 20).to_be_bytes(), b"SEND\n"].concat();
    let mut holders = Vec::new();
    for number in 0..100 {
        let login = format!("holder/{number}");
        let mut holder = Client::log_in(&server, Transport::Tcp, Profile::Agent, &login);
        holder.stream().write_all(&announced).unwrap();
        holders.push(holder);
    }
    witness.expect_nothing();
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
}

#[test]
fn a_wrong_content_length_has_no_effect() {
    let server = Server::start();
    let mut ana = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    for length in ["0", "1", "4294967295", "99999999999999999999", "-1", "x"] {
        let headers = [("destination", "/agent/ana"), ("content-length", length)];
        ana.send_frame("SEND", &headers, b"hello");
        let message = ana.receive_message();
        assert_eq!((message.text(), message.header("content-length")), ("hello", "5"));
    }
}

/// The descriptors are used up before `connections_max` is reached.
#[test]
fn accepting_continues_once_descriptors_are_free() {
    let server = Setup::new().descriptors_max(40).start();
    let mut clients = Vec::new();
    let mut waiting = None;
    for number in 0..60 {
        let mut client = Client::over(Stream::connect(server.address()));
        client.send_bytes(&connect_frame(Profile::Agent, &format!("client/{number}")));
        if server.log.text().contains("accepting failed") {
            waiting = Some(client);
            break;
        }
        clients.push(client);
        // The log has a line for each accepted connection, or for a failure.
        server.log.wait_for("the next connection", |log| {
            log.contains(&format!("accepted connection={} ", number + 1))
                || log.contains("accepting failed")
        });
    }
    server.log.wait_for_line(&[
        "ERROR",
        "accepting failed",
        "os error 24",
        "advice=",
        "LimitNOFILE",
    ]);
    let mut waiting = waiting.unwrap_or_else(|| clients.pop().unwrap());
    // Open connections are served.
    clients[0].receive_connected();
    clients[0].expect_nothing();
    clients.drain(1..5);
    waiting.receive_connected();
    waiting.expect_nothing();
    drop((clients, waiting));
    server.stop();
}

/// A wrong key is not shown, however long its frame is.
#[test]
fn refused_keys_are_not_shown() {
    let server = Server::start();
    let mut client = Client::open(&server, Transport::Tcp);
    let key = "x".repeat(900);
    let headers = [("login", "ana"), ("passcode", &*key), ("secret-key", APPLICATION_KEY)];
    client.send_frame("CONNECT", &headers, b"");
    let mut answer = String::new();
    client.stream().read_to_string(&mut answer).unwrap();
    assert!(answer.contains("INVALID_PROFILE_KEY"), "{answer}");
    assert!(!answer.contains("xxx") && !answer.contains(APPLICATION_KEY), "{answer}");
}
