//! The client against a scripted broker, over all four transports.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use super::scripted_broker::{Peer, Prefixed, ScriptedBroker, tls_config};
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

/// What a session does that meets everything once.
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
         content-type:text/plain\ncontent-length:4\n\nback",
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
    assert!(client.is_addressee(&message));
    assert_eq!(client.disconnect().unwrap(), []);
    broker.finish();
}

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

#[test]
fn a_wrong_key_is_refused_for_good_and_not_repeated() {
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
    // Out of order: what belongs to the others waits for them.
    let error = client.wait_ack(third, PATIENCE).unwrap_err();
    assert!(matches!(&error, ClientError::Refused(error)
        if error.transaction == Some(third) && !error.closes()));
    assert_eq!(client.wait_ack(second, PATIENCE).unwrap().transaction, second);
    let Some(Event::Error(error)) = client.next(PATIENCE).unwrap() else { panic!("it was kept") };
    assert_eq!(error.transaction, Some(first));
    assert_eq!(client.next(PATIENCE).unwrap(), Some(Event::Closed));
    assert_eq!(client.next(None).unwrap(), Some(Event::Closed));
    drop(client);
    broker.finish();
}

#[test]
fn a_farewell_ends_the_wait_for_an_ack() {
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

#[test]
fn a_frame_that_comes_in_pieces_survives_a_timeout() {
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

#[test]
fn a_broker_that_is_silent_is_not_waited_for() {
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

#[test]
fn what_cannot_be_sent_is_not_sent() {
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
    let reserved = SendOptions::default().header("origin", "boss");
    assert_eq!(fault("/agent/b", reserved), EncodeFault::Reserved("origin".to_owned()));
    let fault = fault("/agent/b\n\n", SendOptions::default());
    assert_eq!(fault, EncodeFault::LineBreak("destination".to_owned()));
    let error = client.disconnect().unwrap_err();
    assert!(matches!(error, ClientError::Ended { awaited: "RECEIPT" }), "{error:?}");
    broker.finish();
}

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

#[test]
fn nobody_there_is_said_with_the_address() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = Options::new(format!("tcp://{free}")).login("ana").keys("a", "b");
    let error = Client::connect(&options).unwrap_err();
    assert_eq!(error.to_string(), format!("connection refused at {free}: is the broker running?"));
}

#[test]
fn what_was_not_given_is_named_before_connecting() {
    let error = Client::connect(&Options::new("tcp://127.0.0.1:1")).unwrap_err();
    assert_eq!(error.to_string(), "no login id was given");
    let error = Client::connect(&Options::new("tcp://127.0.0.1:1").login("ana")).unwrap_err();
    assert_eq!(error.to_string(), "no key was given");
}

fn refuse_tls(peer: &mut dyn Peer) {
    peer.expect(b"");
}

#[test]
fn a_certificate_of_a_stranger_is_not_trusted() {
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

#[test]
fn a_certificate_for_another_host_is_not_trusted() {
    let (broker, ca) = ScriptedBroker::tls(refuse_tls);
    let url = format!("tls://localhost:{}", broker.address.port());
    let options = Options::new(url).login("ana").keys("a", "b").ca_pem(ca);
    let error = Client::connect(&options).unwrap_err();
    assert!(error.to_string().contains("not made for this host"), "{error}");
}

#[test]
fn insecure_trusts_anyone() {
    let (broker, _) = ScriptedBroker::tls(full_script);
    let options = options("ssl", &broker).insecure();
    play_full_script(broker, &options);
}

#[test]
fn a_port_without_tls_is_suspected() {
    let broker = ScriptedBroker::start(|mut socket| {
        let _ = socket.read(&mut [0; 1024]).unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let error = Client::connect(&options("tls", &broker).insecure()).unwrap_err();
    assert!(error.to_string().contains("does this port speak it?"), "{error}");
    broker.finish();
}

#[test]
fn a_ca_must_be_one() {
    let broker = ScriptedBroker::start(drop);
    let error = Client::connect(&options("tls", &broker).ca_pem("nonsense")).unwrap_err();
    assert!(matches!(error, ClientError::Trust(TrustFault::NoCertificate)), "{error:?}");
    broker.finish();
    let broker = ScriptedBroker::start(drop);
    let error = Client::connect(&options("tls", &broker).ca("/nowhere/ca.pem")).unwrap_err();
    assert!(error.to_string().starts_with("the CA file /nowhere/ca.pem cannot be read"), "{error}");
    broker.finish();
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

#[test]
fn a_path_that_is_no_websocket_is_suspected() {
    let broker = ScriptedBroker::start(|mut socket| {
        let _ = socket.read(&mut [0; 1024]).unwrap();
        socket.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    let error = Client::connect(&options("ws", &broker)).unwrap_err();
    assert!(error.to_string().contains("status 404 Not Found: is the path right?"), "{error}");
    broker.finish();
}
