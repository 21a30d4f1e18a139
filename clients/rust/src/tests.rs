//! The client against a scripted broker, over all four transports.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use tungstenite::handshake::derive_accept_key;

use super::scripted_broker::{NulTerminated, Peer, Prefixed, ScriptedBroker, tls_config};
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn options(scheme: &str, broker: &ScriptedBroker) -> Options {
    Options::new(format!("{scheme}://{}", broker.address))
        .login("ana")
        .keys("my_app_secret_key", "my_agent_secret_key")
        .connect_timeout(PATIENCE)
        .answer_timeout(PATIENCE)
}

fn connect(broker: &ScriptedBroker) -> Client {
    Client::connect(&options("tcp", broker)).unwrap()
}

/// A session that uses every feature once.
fn full_script(peer: &mut dyn Peer) {
    peer.log_in();
    peer.expect(
        b"SEND\ntransaction:1\nsession-id:s1\ndestination:/agent/bob\ncontent-type:text/plain\n\
          content-length:6\ncolour:red\n\nh\xc3\xa9llo",
    );
    peer.answer("ACK\nsession-id:s1\ntransaction:1\nerror-desc:OK\n\n");
    peer.expect(
        b"SEND\ntransaction:2\nsession-id:s1\ndestination:/agent/bob\n\
          content-type:application/octet-stream\ncontent-length:3\n\n\0\xff\0",
    );
    peer.ping();
    peer.answer(
        "MESSAGE\ntransaction:9\nsession-id:s1\norigin:bob\ndestination:/agent/bob\n\
         content-type:text/plain\ncontent-length:4\ncolour:red\n\nback",
    );
    peer.answer("ACK\nsession-id:s1\ntransaction:2\nerror-desc:OK\n\n");
    peer.expect(b"DISCONNECT\nreceipt-id:DISCONNECTED\n\n");
    peer.answer(
        "RECEIPT\nsession-id:s1\nlogin:ana\ndestination:/agent/ana\nconnection-id:7\n\
         receipt-id:DISCONNECTED\n\n",
    );
    peer.close();
}

fn play_full_script(broker: ScriptedBroker, options: &Options) {
    let mut client = Client::connect(options).unwrap();
    assert_eq!(client.session().destination, "/agent/ana");
    assert_eq!(client.session().session_id, "s1");
    assert_eq!(client.session().profile_code, "1");
    assert_eq!(client.session().profile_description, "agent");
    assert_eq!(client.session().connection_id, "7");
    let red = SendOptions::default().header("colour", "red");
    client.send_and_wait("/agent/bob", "h\u{e9}llo", &red).unwrap();
    client.send_and_wait("/agent/bob", b"\0\xff\0", &SendOptions::default()).unwrap();
    let Some(Event::Message(message)) = client.next(Duration::ZERO).unwrap() else {
        panic!("the message was kept while the ACK was awaited")
    };
    assert_eq!(message.body, b"back");
    assert_eq!(message.headers, [("colour".to_owned(), "red".to_owned())]);
    assert!(client.is_addressee(&message));
    assert_eq!(client.disconnect().unwrap(), []);
    broker.finish();
}

// behaviour: bodies-unchanged
// behaviour: headers-pass
#[test]
fn a_session_over_tcp() {
    let broker = ScriptedBroker::tcp(full_script);
    let options = options("tcp", &broker);
    play_full_script(broker, &options);
}

#[test]
fn a_session_over_tls() {
    let (broker, ca) = ScriptedBroker::tls(full_script);
    let options = options("tls", &broker).ca_pem(ca);
    play_full_script(broker, &options);
}

// behaviour: bodies-unchanged
#[test]
fn a_session_over_websocket() {
    let broker = ScriptedBroker::websocket(full_script);
    let options = options("ws", &broker);
    play_full_script(broker, &options);
}

#[test]
fn a_session_over_secure_websocket() {
    let (broker, ca) = ScriptedBroker::secure_websocket(full_script);
    let options = options("wss", &broker).ca_pem(ca);
    play_full_script(broker, &options);
}

// behaviour: login-refused
// behaviour: keys-stay-secret
#[test]
fn a_wrong_key_is_refused_for_good_and_not_shown() {
    let broker = ScriptedBroker::tcp(|peer| {
        peer.expect(b"CONNECT\naccept-version:1.2\nlogin:ana\npasscode:hush\nsecret-key:hush\n\n");
        peer.answer("ERROR\nerror-desc:wrong\nerror-code:INVALID_APP_KEY\nretry:never\n\n");
        peer.close();
    });
    let options = options("tcp", &broker).keys("hush", "hush");
    let error = Client::connect(&options).unwrap_err();
    assert_eq!(error.to_string(), "the broker refused: wrong (INVALID_APP_KEY)");
    assert!(!format!("{error:?} {options:?}").contains("hush"));
    let ClientError::Refused(refusal) = error else { panic!("{error:?}") };
    assert_eq!(refusal.retry, Some(Retry::Never));
    broker.finish();
}

// behaviour: answer-matched
// behaviour: nobody-there
#[test]
fn an_error_without_a_transaction_is_about_the_oldest_request() {
    let broker = ScriptedBroker::tcp(|peer| {
        peer.log_in();
        for (transaction, to) in [(1, "nobody"), (2, "bob"), (3, "nobody")] {
            let frame = format!(
                "SEND\ntransaction:{transaction}\nsession-id:s1\ndestination:/agent/{to}\n\
                 content-type:text/plain\ncontent-length:1\n\nx"
            );
            peer.expect(frame.as_bytes());
        }
        peer.answer("ERROR\nerror-desc:nobody there\nerror-code:NO_SUCH_DESTINATION\n\n");
        peer.answer("ACK\nsession-id:s1\ntransaction:2\nerror-desc:OK\n\n");
        peer.answer("ERROR\nerror-desc:nobody there\nerror-code:NO_SUCH_DESTINATION\n\n");
        peer.close();
    });
    let mut client = connect(&broker);
    let mut send = |to| client.send(to, "x", &SendOptions::default()).unwrap();
    let [first, second, third] = ["/agent/nobody", "/agent/bob", "/agent/nobody"].map(&mut send);
    // Out of order: answers to other requests are kept.
    let error = client.wait_ack(third, PATIENCE).unwrap_err();
    assert!(matches!(&error, ClientError::Refused(error)
        if error.transaction == Some(third) && !error.closes()
            && error.code.as_deref() == Some("NO_SUCH_DESTINATION")));
    assert_eq!(client.wait_ack(second, PATIENCE).unwrap().transaction, second);
    let Some(Event::Error(error)) = client.next(PATIENCE).unwrap() else { panic!("it was kept") };
    assert_eq!(error.transaction, Some(first));
    assert_eq!(client.next(PATIENCE).unwrap(), Some(Event::Closed));
    assert_eq!(client.next(None).unwrap(), Some(Event::Closed));
    drop(client);
    broker.finish();
}

#[test]
fn an_error_that_closes_ends_the_wait_for_an_ack() {
    let broker = ScriptedBroker::tcp(|peer| {
        peer.log_in();
        peer.expect(
            b"SEND\ntransaction:1\nsession-id:s1\ndestination:/agent/bob\n\
              content-type:text/plain\ncontent-length:1\n\nx",
        );
        peer.answer(
            "ERROR\nerror-desc:taken over\nerror-code:NEW_CONNECTION_LOGGED\nretry:now\n\n",
        );
        peer.close();
    });
    let mut client = connect(&broker);
    let error = client.send_and_wait("/agent/bob", "x", &SendOptions::default()).unwrap_err();
    let ClientError::Refused(refusal) = error else { panic!("{error:?}") };
    assert_eq!((refusal.retry, refusal.transaction), (Some(Retry::Now), None));
    assert_eq!(client.next(PATIENCE).unwrap(), Some(Event::Closed));
    let error = client.send("/agent/bob", "x", &SendOptions::default()).unwrap_err();
    assert!(matches!(error, ClientError::Closed), "{error:?}");
    drop(client);
    broker.finish();
}

#[test]
fn subscriptions_are_listed() {
    let broker = ScriptedBroker::tcp(|peer| {
        peer.log_in();
        peer.expect(
            b"SUBSCRIBE\ntransaction:1\nsession-id:s1\ndestination-type:0\n\
              destination:/agent/bob\n\n",
        );
        peer.answer(
            "ACK\nsession-id:s1\ntransaction:1\nerror-desc:OK\n\nDestinations subscribed:\n\
             --------------------\n[bob]:[s2]:[/agent/bob]\n--------------------",
        );
        peer.expect(
            b"SUBSCRIBE\ntransaction:2\nsession-id:s1\ndestination-type:1\n\
              destination:/agent/.*\n\n",
        );
        peer.answer(
            "ACK\nsession-id:s1\ntransaction:2\nerror-desc:no such right\n\
             error-code:PROF_NO_RIGHTS\n\n",
        );
        peer.expect(
            b"SUBSCRIBE\ntransaction:3\nsession-id:s1\ndestination-type:0\n\
              destination:STOMP-SERVER\ndestination-id:.*\nsnapshot:true\n\n",
        );
        peer.answer("ACK\nsession-id:s1\ntransaction:3\nerror-desc:OK\n\n");
        peer.expect(
            b"UNSUBSCRIBE\ntransaction:4\nsession-id:s1\ndestination:STOMP-SERVER\n\
              destination-id:.*\n\n",
        );
        peer.answer("ACK\nsession-id:s1\ntransaction:4\nerror-desc:OK\n\n");
        peer.expect(b"UNSUBSCRIBE\ntransaction:5\nsession-id:s1\n\n");
        peer.answer(
            "ACK\nsession-id:s1\ntransaction:5\nerror-desc:OK\n\nDestinations unsubscribed:\n\
             --------------------\nSubscription: [bob]:[s2]:[/agent/bob]\n--------------------",
        );
    });
    let mut client = connect(&broker);
    let listed = client.subscribe(Target::Client("/agent/bob")).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&*listed[0].login, &*listed[0].destination), ("bob", "/agent/bob"));
    let error = client.subscribe(Target::Pattern("/agent/.*")).unwrap_err();
    assert_eq!(error.to_string(), "the broker refused: no such right (PROF_NO_RIGHTS)");
    client.subscribe_presence(".*", true).unwrap();
    client.unsubscribe_presence(".*").unwrap();
    assert_eq!(client.unsubscribe(None).unwrap(), listed);
    broker.finish();
}

// behaviour: incoming-bounded
#[test]
fn a_full_queue_loses_nothing() {
    let broker = ScriptedBroker::tcp(|peer| {
        peer.log_in();
        peer.expect(
            b"SEND\ntransaction:1\nsession-id:s1\ndestination:/agent/bob\n\
              content-type:text/plain\ncontent-length:1\n\nx",
        );
        for body in ["one", "two"] {
            peer.answer(&format!(
                "MESSAGE\nsession-id:s2\norigin:b\ndestination:/agent/b\n\n{body}"
            ));
        }
        peer.answer("ACK\nsession-id:s1\ntransaction:1\nerror-desc:OK\n\n");
        peer.close();
    });
    let options = options("tcp", &broker).queued_bytes_max(1);
    let mut client = Client::connect(&options).unwrap();
    let id = client.send("/agent/bob", "x", &SendOptions::default()).unwrap();
    for body in ["one", "two"] {
        let error = client.wait_ack(id, PATIENCE).unwrap_err();
        assert!(matches!(error, ClientError::QueueFull { transaction } if transaction == id));
        let Some(Event::Message(message)) = client.next(Duration::ZERO).unwrap() else {
            panic!("{body} was lost")
        };
        assert_eq!(message.body, body.as_bytes());
        assert!(!client.is_addressee(&message));
    }
    client.wait_ack(id, PATIENCE).unwrap();
    drop(client);
    broker.finish();
}

// behaviour: chunking-invisible
#[test]
fn a_torn_frame_survives_a_timeout() {
    let (resume, resumed) = std::sync::mpsc::channel();
    let broker = ScriptedBroker::start(move |socket| {
        let mut peer = Prefixed(socket);
        peer.log_in();
        let frame = b"\0\x14\0\0\0MESSAGE\norigin:b\n\nhi\0";
        peer.0.write_all(&frame[..9]).unwrap();
        resumed.recv().unwrap();
        peer.0.write_all(&frame[9..]).unwrap();
        peer.close();
    });
    let mut client = connect(&broker);
    assert_eq!(client.next(Duration::from_millis(20)).unwrap(), None);
    resume.send(()).unwrap();
    let Some(Event::Message(message)) = client.next(PATIENCE).unwrap() else {
        panic!("it is whole")
    };
    assert_eq!(message.body, b"hi");
    drop(client);
    broker.finish();
}

// behaviour: answer-times-out
#[test]
fn waiting_for_a_silent_broker_times_out() {
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    let broker = ScriptedBroker::start(move |socket| {
        let mut peer = Prefixed(socket);
        peer.log_in();
        peer.expect(
            b"SEND\ntransaction:1\nsession-id:s1\ndestination:/agent/bob\n\
              content-type:text/plain\ncontent-length:1\n\nx",
        );
        resumed.recv().unwrap();
    });
    let mut client = connect(&broker);
    let id = client.send("/agent/bob", "x", &SendOptions::default()).unwrap();
    let error = client.wait_ack(id, Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.to_string(), "no answer in time: ACK did not come");
    resume.send(()).unwrap();
    broker.finish();
}

// behaviour: own-headers-refused
#[test]
fn bad_headers_are_refused_before_sending() {
    let broker = ScriptedBroker::tcp(|peer| {
        peer.log_in();
        peer.expect(b"DISCONNECT\nreceipt-id:DISCONNECTED\n\n");
    });
    let mut client = connect(&broker);
    let mut fault = |to: &str, options: SendOptions| match client.send(to, "x", &options) {
        Err(ClientError::Unsendable(fault)) => fault,
        other => panic!("{other:?}"),
    };
    let forged = SendOptions::default().header("a", "b\ndestination:/agent/c");
    assert_eq!(fault("/agent/b", forged), EncodeFault::LineBreak("a".to_owned()));
    for name in ["origin", "session-id", "receipt", "event", " origin", "ack\u{3000}"] {
        let reserved = SendOptions::default().header(name, "boss");
        assert_eq!(fault("/agent/b", reserved), EncodeFault::Reserved(name.to_owned()));
    }
    for (name, value) in [("", "a"), (" note", "a"), ("note", "a "), ("note", " a")] {
        let padded = SendOptions::default().header(name, value);
        assert_eq!(fault("/agent/b", padded), EncodeFault::Padded(name.to_owned()));
    }
    let fault = fault("/agent/b\n\n", SendOptions::default());
    assert_eq!(fault, EncodeFault::LineBreak("destination".to_owned()));
    let error = client.disconnect().unwrap_err();
    assert!(matches!(error, ClientError::Ended { awaited: "RECEIPT" }), "{error:?}");
    broker.finish();
}

// behaviour: frame-bounded
#[test]
fn a_frame_that_is_too_long_is_not_awaited() {
    let broker = ScriptedBroker::start(|socket| {
        let mut peer = Prefixed(socket);
        peer.log_in();
        peer.0.write_all(&[0, 0, 0, 0, 0x7f]).unwrap();
        peer.close();
    });
    let mut client = connect(&broker);
    let error = client.next(PATIENCE).unwrap_err();
    assert!(matches!(error, ClientError::Malformed(FrameFault::TooLong { .. })), "{error:?}");
    assert_eq!(client.next(PATIENCE).unwrap(), Some(Event::Closed));
    drop(client);
    broker.finish();
}

// behaviour: malformed-refused
#[test]
fn a_stream_that_ends_inside_a_frame_is_torn() {
    let broker = ScriptedBroker::start(|socket| {
        let mut peer = Prefixed(socket);
        peer.log_in();
        peer.0.write_all(b"\0\x14\0\0\0MESS").unwrap();
        peer.close();
    });
    let mut client = connect(&broker);
    let error = client.next(PATIENCE).unwrap_err();
    assert!(matches!(error, ClientError::Malformed(FrameFault::Torn)), "{error:?}");
    drop(client);
    broker.finish();
}

// behaviour: failure-explained
#[test]
fn a_refused_connection_is_reported_with_its_address() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = Options::new(format!("tcp://{free}")).login("ana").keys("a", "b");
    let error = Client::connect(&options).unwrap_err();
    assert_eq!(error.to_string(), format!("connection refused at {free}: is the broker running?"));
}

// behaviour: options-checked
#[test]
fn missing_options_are_named_before_connecting() {
    let error = Client::connect(&Options::new("tcp://127.0.0.1:1")).unwrap_err();
    assert_eq!(error.to_string(), "no login id was given");
    let error = Client::connect(&Options::new("tcp://127.0.0.1:1").login("ana")).unwrap_err();
    assert_eq!(error.to_string(), "no key was given");
    let error = Client::connect(&Options::new("tcp://127.0.0.1:1").login("ana").keys("", "b"));
    assert_eq!(error.unwrap_err().to_string(), "no key was given");
    let error = Client::connect(&Options::new("tcp://127.0.0.1:1").login("").keys("a", "b"));
    assert_eq!(error.unwrap_err().to_string(), "no login id was given");
}

// behaviour: options-checked
#[test]
fn limits_of_zero_are_named_before_connecting() {
    let all = Options::new("tcp://127.0.0.1:1").login("ana").keys("a", "b");
    for (name, options) in [
        ("connect_timeout", all.clone().connect_timeout(Duration::ZERO)),
        ("frame_bytes_max", all.clone().frame_bytes_max(0)),
        ("queued_bytes_max", all.queued_bytes_max(0)),
    ] {
        let expected = format!("the option {name} must be more than zero");
        assert_eq!(Client::connect(&options).unwrap_err().to_string(), expected);
        assert_eq!(StandardClient::connect(&options).unwrap_err().to_string(), expected);
        assert_eq!(Connection::open(&options).unwrap_err().to_string(), expected);
    }
}

/// A timeout, and most of it.
const LOGIN_LIMIT: Duration = Duration::from_secs(2);
const MOST_OF_IT: Duration = Duration::from_millis(1_500);

/// Reads until nothing has arrived for `quiet`. Returns whether the stream is still open.
fn is_open_after(socket: &mut TcpStream, quiet: Duration) -> bool {
    socket.set_read_timeout(Some(quiet)).unwrap();
    loop {
        match socket.read(&mut [0; 1024]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(fault) => return fault.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

// behaviour: login-times-out
#[test]
fn connecting_and_logging_in_share_one_limit() {
    let broker = ScriptedBroker::start(|mut socket| {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        assert!(is_open_after(&mut socket, MOST_OF_IT), "the client waits for the handshake");
        let request = String::from_utf8(request).unwrap();
        let key = |line: &str| line.strip_prefix("Sec-WebSocket-Key: ").map(str::to_owned);
        let accept = derive_accept_key(request.lines().find_map(key).unwrap().as_bytes());
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: stomp\r\n\r\n"
        );
        socket.write_all(response.as_bytes()).unwrap();
        // With a limit of its own, the login would be waited for longer than this.
        assert!(!is_open_after(&mut socket, MOST_OF_IT), "the limit begins anew");
    });
    let options = options("ws", &broker).connect_timeout(LOGIN_LIMIT);
    let error = Client::connect(&options).unwrap_err();
    assert!(matches!(error, ClientError::NoAnswer { .. }), "{error:?}");
    broker.finish();
}

// behaviour: login-times-out
#[test]
fn a_login_without_an_answer_is_given_up() {
    for scheme in ["tcp", "tls", "ws", "wss"] {
        let broker = ScriptedBroker::start(|mut socket| {
            assert!(!is_open_after(&mut socket, PATIENCE), "the client gives up");
        });
        let options =
            options(scheme, &broker).insecure().connect_timeout(Duration::from_millis(50));
        let error = Client::connect(&options).unwrap_err();
        assert!(matches!(error, ClientError::NoAnswer { .. }), "{scheme}: {error:?}");
        broker.finish();
    }
}

// behaviour: keys-stay-secret
#[test]
fn keys_are_in_no_text_form_and_no_error() {
    let broker = ScriptedBroker::tcp(|peer| {
        peer.expect(b"CONNECT\naccept-version:1.2\nlogin:ana\npasscode:hush\nsecret-key:hush\n\n");
        peer.answer(scripted_broker::CONNECTED);
        peer.close();
    });
    let client = Client::connect(&options("tcp", &broker).keys("hush", "hush")).unwrap();
    assert!(!format!("{client:?}").contains("hush"), "{client:?}");
    drop(client);
    broker.finish();
    let broker = ScriptedBroker::start(|mut socket| {
        assert!(!is_open_after(&mut socket, PATIENCE), "nothing is sent");
    });
    let error = Client::connect(&options("tcp", &broker).keys("hush", "hush\n")).unwrap_err();
    assert!(matches!(error, ClientError::Unsendable(_)), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    broker.finish();
}

/// A client that has subscribed hears what the broker sends.
fn hearing(
    subscribe: &'static [u8],
    ack: &'static str,
    sent: &'static [&str],
) -> (Client, ScriptedBroker) {
    let broker = ScriptedBroker::tcp(move |peer| {
        peer.log_in();
        peer.expect(subscribe);
        peer.answer(ack);
        for frame in sent {
            peer.answer(frame);
        }
        peer.close();
    });
    (connect(&broker), broker)
}

/// The messages that come until the broker closes the connection.
fn heard(mut client: Client) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        match client.next(PATIENCE).unwrap().expect("the broker closes the connection") {
            Event::Message(message) => messages.push(message),
            Event::Closed => return messages,
            other => panic!("{other:?}"),
        }
    }
}

// behaviour: watch-address
#[test]
fn a_client_can_be_watched() {
    let (mut client, broker) = hearing(
        b"SUBSCRIBE\ntransaction:1\nsession-id:s1\ndestination-type:0\n\
          destination:/agent/bob\n\n",
        "ACK\nsession-id:s1\ntransaction:1\nerror-desc:OK\n\nDestinations subscribed:\n\
         --------------------\n[bob]:[s2]:[/agent/bob]\n--------------------",
        &["MESSAGE\nsession-id:s2\norigin:eve\ndestination:/agent/eve\n\nhi"],
    );
    let watched = client.subscribe(Target::Client("/agent/bob")).unwrap();
    let Some(Event::Message(message)) = client.next(PATIENCE).unwrap() else { panic!("it comes") };
    assert!(!client.is_addressee(&message), "it is a copy");
    assert_eq!((&*message.origin, &*message.body), ("eve", &b"hi"[..]));
    drop(client);
    assert_eq!(message.session_id, watched[0].session_id);
    broker.finish();
}

// behaviour: watch-pattern
#[test]
fn clients_can_be_watched_by_a_pattern() {
    let (mut client, broker) = hearing(
        b"SUBSCRIBE\ntransaction:1\nsession-id:s1\ndestination-type:1\n\
          destination:/agent/.*\n\n",
        "ACK\nsession-id:s1\ntransaction:1\nerror-desc:OK\n\nDestinations subscribed:\n\
         --------------------\n[bob]:[s2]:[/agent/bob]\n--------------------",
        &[
            "MESSAGE\nsession-id:s2\norigin:eve\ndestination:/agent/eve\n\nhi",
            "MESSAGE\nsession-id:later\norigin:eve\ndestination:/agent/eve\n\nhi",
        ],
    );
    let watched = client.subscribe(Target::Pattern("/agent/.*")).unwrap();
    assert_eq!(watched[0].destination, "/agent/bob");
    let receivers: Vec<_> = heard(client).into_iter().map(|message| message.session_id).collect();
    assert_eq!(receivers, ["s2", "later"]);
    broker.finish();
}

// behaviour: presence
#[test]
fn presence_can_be_subscribed() {
    let (mut client, broker) = hearing(
        b"SUBSCRIBE\ntransaction:1\nsession-id:s1\ndestination-type:0\n\
          destination:STOMP-SERVER\ndestination-id:/agent/.*\nsnapshot:true\n\n",
        "ACK\nsession-id:s1\ntransaction:1\nerror-desc:OK\n\n",
        &[
            "MESSAGE\norigin:STOMP-SERVER\ndestination:STOMP-SERVER\nevent:logged\nsnapshot:true\n\n{}",
            "MESSAGE\norigin:STOMP-SERVER\ndestination:STOMP-SERVER\nevent:logout\n\n{}",
        ],
    );
    client.subscribe_presence("/agent/.*", true).unwrap();
    let messages = heard(client);
    let said: Vec<_> = messages.iter().map(|message| message.header("event")).collect();
    assert_eq!(said, [Some("logged"), Some("logout")]);
    assert_eq!(messages[0].header("snapshot"), Some("true"));
    assert!(messages.iter().all(|message| message.origin == BROKER));
    broker.finish();
}

// behaviour: first-header-wins
#[test]
fn the_first_of_repeated_headers_counts() {
    let (mut client, broker) = hearing(
        b"UNSUBSCRIBE\ntransaction:1\nsession-id:s1\n\n",
        "ACK\nsession-id:s1\ntransaction:1\ntransaction:2\nerror-desc:OK\nerror-desc:no\n\n",
        &["MESSAGE\norigin:bob\norigin:eve\ncolour:red\ncolour:blue\n\n"],
    );
    client.unsubscribe(None).unwrap();
    let messages = heard(client);
    assert_eq!((&*messages[0].origin, messages[0].header("colour")), ("bob", Some("red")));
    broker.finish();
}

/// Logs in a client, reads one frame, and ends the connection without an answer. Fails if the client
/// connects again or sends anything more.
fn read_one_and_end(
    log_in: fn(&mut TcpStream),
    last_bytes: &'static [u8],
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        log_in(&mut socket);
        let mut sent = Vec::new();
        while !sent.ends_with(last_bytes) {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            sent.push(byte[0]);
        }
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(socket.read(&mut [0]).unwrap_or(0), 0, "nothing is sent again");
        // The client has dropped its end, so it does nothing more.
        listener.set_nonblocking(true).unwrap();
        let again = listener.accept().unwrap_err();
        assert_eq!(again.kind(), std::io::ErrorKind::WouldBlock, "it does not connect again");
    });
    (address, thread)
}

fn options_at(address: SocketAddr) -> Options {
    Options::new(format!("tcp://{address}"))
        .login("ana")
        .keys("my_app_secret_key", "my_agent_secret_key")
        .connect_timeout(PATIENCE)
        .answer_timeout(PATIENCE)
}

// behaviour: never-sent-twice
#[test]
fn an_unanswered_message_is_not_sent_again() {
    let (address, thread) = read_one_and_end(|socket| Prefixed(socket).log_in(), b"hi");
    let mut client = Client::connect(&options_at(address)).unwrap();
    let id = client.send("/agent/bob", "hi", &SendOptions::default()).unwrap();
    for _ in 0..2 {
        let error = client.wait_ack(id, PATIENCE).unwrap_err();
        assert!(matches!(error, ClientError::Ended { awaited: "ACK" }), "{error:?}");
    }
    let error = client.send("/agent/bob", "hi", &SendOptions::default()).unwrap_err();
    assert!(matches!(error, ClientError::Closed), "{error:?}");
    drop(client);
    thread.join().unwrap();

    let (address, thread) = read_one_and_end(|socket| NulTerminated(socket).log_in(), b"hi\0");
    let mut client = StandardClient::connect(&options_at(address)).unwrap();
    let error = client.send("/topic/x", "hi", &SendOptions::default()).unwrap_err();
    assert!(matches!(error, ClientError::Ended { awaited: "RECEIPT" }), "{error:?}");
    let error = client.send("/topic/x", "hi", &SendOptions::default()).unwrap_err();
    assert!(matches!(error, ClientError::Closed), "{error:?}");
    drop(client);
    thread.join().unwrap();
}

fn refuse_tls(peer: &mut dyn Peer) {
    peer.expect(b"");
}

// behaviour: certificate-verified
#[test]
fn a_certificate_of_an_unknown_authority_is_not_trusted() {
    let (_, other_ca) = tls_config();
    let (broker, _) = ScriptedBroker::tls(refuse_tls);
    let options = options("tls", &broker).ca_pem(other_ca);
    let error = Client::connect(&options).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "certificate of {} not trusted: pass the CA that signed it, such as --ca certs/ca.pem",
            broker.address
        )
    );
}

// behaviour: certificate-verified
#[test]
fn a_certificate_for_another_host_is_not_trusted() {
    let (broker, ca) = ScriptedBroker::tls(refuse_tls);
    let url = format!("tls://localhost:{}", broker.address.port());
    let options = Options::new(url).login("ana").keys("a", "b").ca_pem(ca);
    let error = Client::connect(&options).unwrap_err();
    assert!(error.to_string().contains("not made for this host"), "{error}");
}

#[test]
fn insecure_trusts_any_certificate() {
    let (broker, _) = ScriptedBroker::tls(full_script);
    let options = options("ssl", &broker).insecure();
    play_full_script(broker, &options);
}

// behaviour: failure-explained
#[test]
fn the_error_of_a_port_without_tls_suggests_so() {
    let broker = ScriptedBroker::start(|mut socket| {
        let _ = socket.read(&mut [0; 1024]).unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let error = Client::connect(&options("tls", &broker).insecure()).unwrap_err();
    assert!(error.to_string().contains("does this port speak it?"), "{error}");
    broker.finish();
}

#[test]
fn a_ca_must_be_a_certificate() {
    let broker = ScriptedBroker::start(drop);
    let error = Client::connect(&options("tls", &broker).ca_pem("nonsense")).unwrap_err();
    assert!(matches!(error, ClientError::Trust(TrustFault::NoCertificate)), "{error:?}");
    broker.finish();
    let broker = ScriptedBroker::start(drop);
    let error = Client::connect(&options("tls", &broker).ca("/nowhere/ca.pem")).unwrap_err();
    assert!(error.to_string().starts_with("the CA file /nowhere/ca.pem cannot be read"), "{error}");
    broker.finish();
}

/// The fault of a client with an unusable CA file, which must not begin a handshake.
fn fault_of_ca(path: &Path) -> String {
    let broker = ScriptedBroker::start(|mut socket| {
        assert_eq!(socket.read(&mut [0]).unwrap(), 0, "no handshake begins");
    });
    let error = Client::connect(&options("tls", &broker).ca(path)).unwrap_err();
    assert!(matches!(error, ClientError::Trust(TrustFault::Unreadable { .. })), "{error:?}");
    broker.finish();
    let before = format!("the CA file {} cannot be read: ", path.display());
    error.to_string().strip_prefix(&before).expect("it names the file").to_owned()
}

#[test]
fn a_ca_file_may_have_four_mebibytes_and_not_a_byte_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let (broker, ca) = ScriptedBroker::tls(full_script);
    let mut text = ca.into_bytes();
    text.resize(4 << 20, b'\n');
    std::fs::write(&path, &text).unwrap();
    let options = options("tls", &broker).ca(&path);
    play_full_script(broker, &options);
    text.push(b'\n');
    std::fs::write(&path, &text).unwrap();
    assert_eq!(fault_of_ca(&path), "too large: more than 4194304 bytes");
}

#[test]
fn a_ca_file_must_be_a_regular_file() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(fault_of_ca(folder.path()), "not a regular file");
    assert!(fault_of_ca(&folder.path().join("none.pem")).contains("os error 2"));
}

/// Opening a pipe waits for its writer, and some devices never end.
#[cfg(unix)]
#[test]
fn pipes_and_devices_are_not_opened_for_a_ca() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let link = folder.path().join("link.pem");
    std::os::unix::fs::symlink(&pipe, &link).unwrap();
    for path in [&*pipe, &*link, Path::new("/dev/zero")] {
        assert_eq!(fault_of_ca(path), "not a regular file", "{}", path.display());
    }
}

#[test]
fn a_websocket_without_the_subprotocol_is_refused() {
    let broker = ScriptedBroker::start(|socket| {
        let _ = tungstenite::accept(socket).unwrap();
    });
    let error = Client::connect(&options("ws", &broker)).unwrap_err();
    assert!(error.to_string().contains("does not accept our WebSocket subprotocol"), "{error}");
    broker.finish();
}

// behaviour: failure-explained
#[test]
fn the_error_for_a_refused_upgrade_suggests_the_path() {
    let broker = ScriptedBroker::start(|mut socket| {
        let _ = socket.read(&mut [0; 1024]).unwrap();
        socket.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    let error = Client::connect(&options("ws", &broker)).unwrap_err();
    assert!(error.to_string().contains("status 404 Not Found: is the path right?"), "{error}");
    broker.finish();
}
