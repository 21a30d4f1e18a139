//! The client of the standard dialect against a scripted broker.

use std::io::Write;
use std::time::Duration;

use super::scripted_broker::{NulTerminated, Peer, ScriptedBroker};
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn options(scheme: &str, broker: &ScriptedBroker) -> Options {
    Options::new(format!("{scheme}://{}", broker.address))
        .login("ana")
        .keys("my_app_secret_key", "my_agent_secret_key")
        .connect_timeout(PATIENCE)
        .answer_timeout(PATIENCE)
}

fn connect(broker: &ScriptedBroker) -> StandardClient {
    StandardClient::connect(&options("tcp", broker)).unwrap()
}

/// The next message.
fn next(client: &mut StandardClient) -> StandardMessage {
    client.next(PATIENCE).unwrap().expect("a message arrives")
}

/// Has a client subscribe, which has to send this frame, and returns the messages that it gets.
fn subscribing(
    target: StandardTarget<'static>,
    subscribe: &'static [u8],
    sent: &'static [&str],
) -> Vec<StandardMessage> {
    let broker = ScriptedBroker::standard(move |peer| {
        peer.log_in();
        peer.expect(subscribe);
        peer.answer("RECEIPT\nreceipt-id:1\n\n");
        for frame in sent {
            peer.answer(frame);
        }
        peer.close();
    });
    let mut client = connect(&broker);
    client.subscribe("it", target).unwrap();
    let messages = sent.iter().map(|_| next(&mut client)).collect();
    drop(client);
    broker.finish();
    messages
}

/// A session that uses every feature once.
fn full_script(peer: &mut dyn Peer) {
    peer.log_in();
    peer.expect(b"SUBSCRIBE\nid:own\nack:auto\ndestination:/agent/ana\nreceipt:1\n\n");
    peer.answer("RECEIPT\nreceipt-id:1\n\n");
    peer.expect(
        b"SEND\ndestination:/topic/x\ncontent-type:text/plain\ncontent-length:6\n\
          colour: r\\ce\\\\d\\n\nreceipt:2\n\nh\xc3\xa9llo",
    );
    peer.answer(
        "MESSAGE\nsubscription:own\nmessage-id:9\ndestination:/agent/ana\norigin:bob\n\
         origin-destination:/agent/bob\ncontent-length:4\ncolour: r\\ce\\\\d\\n\n\nb\0ck",
    );
    peer.answer("RECEIPT\nreceipt-id:2\ndelivered:3\n\n");
    peer.expect(
        b"SEND\ndestination:/topic/x\ncontent-type:application/octet-stream\ncontent-length:3\n\
          receipt:3\n\n\0\xff\0",
    );
    peer.answer("RECEIPT\nreceipt-id:3\ndelivered:0\n\n");
    peer.expect(b"DISCONNECT\nreceipt:4\n\n");
    peer.answer("RECEIPT\nreceipt-id:4\n\n");
    peer.close();
}

fn play_full_script(broker: ScriptedBroker, options: &Options) {
    const COLOUR: &str = " r:e\\d\n";
    let mut client = StandardClient::connect(options).unwrap();
    assert_eq!(client.session().profile_code, "1");
    assert_eq!(client.session().destination, "/agent/ana");
    client.subscribe("own", StandardTarget::Destination("/agent/ana")).unwrap();
    let coloured = SendOptions::default().header("colour", COLOUR);
    assert_eq!(client.send("/topic/x", "h\u{e9}llo", &coloured).unwrap(), 3);
    assert_eq!(client.send("/topic/x", b"\0\xff\0", &SendOptions::default()).unwrap(), 0);
    let message = client.next(Duration::ZERO).unwrap().expect("it was kept");
    assert_eq!((&*message.subscription, &*message.body), ("own", &b"b\0ck"[..]));
    assert_eq!(message.origin_destination, "/agent/bob");
    assert_eq!(message.headers, [("colour".to_owned(), COLOUR.to_owned())]);
    client.disconnect().unwrap();
    broker.finish();
}

// behaviour: bodies-unchanged
// behaviour: headers-pass
// behaviour: answer-matched
#[test]
fn a_session_over_tcp() {
    let broker = ScriptedBroker::standard(full_script);
    let options = options("tcp", &broker);
    play_full_script(broker, &options);
}

// behaviour: chunking-invisible
#[test]
fn a_session_over_secure_websocket_whose_messages_tear_the_frames() {
    let (broker, ca) = ScriptedBroker::standard_secure_websocket(full_script);
    let options = options("wss", &broker).ca_pem(ca);
    play_full_script(broker, &options);
}

// behaviour: login-refused
#[test]
fn a_refused_login_has_its_reason_and_whether_to_try_again() {
    let broker = ScriptedBroker::standard(|peer| {
        peer.expect(scripted_broker::CONNECT.as_bytes());
        peer.answer("ERROR\nmessage:full\nerror-code:TOO_MANY_CONNECTIONS\nretry:later\n\n");
        peer.close();
    });
    let error = StandardClient::connect(&options("tcp", &broker)).unwrap_err();
    let ClientError::Refused(error) = error else { panic!("{error}") };
    assert_eq!(error.code.as_deref(), Some("TOO_MANY_CONNECTIONS"));
    assert_eq!(error.retry, Some(Retry::Later));
    broker.finish();
}

#[test]
fn an_error_is_a_refusal() {
    let broker = ScriptedBroker::standard(|peer| {
        peer.log_in();
        peer.expect(
            b"SUBSCRIBE\nid:x\nack:auto\ndestination:.*\ndestination-type:1\nreceipt:1\n\n",
        );
        peer.answer("ERROR\nmessage:no rights\nerror-code:PROF_NO_RIGHTS\nretry:never\n\n");
        peer.close();
    });
    let mut client = connect(&broker);
    let error = client.subscribe("x", StandardTarget::Pattern(".*")).unwrap_err();
    let ClientError::Refused(error) = error else { panic!("{error}") };
    assert_eq!(error.description, "no rights");
    assert_eq!(error.retry, Some(Retry::Never));
    drop(client);
    broker.finish();
}

// behaviour: nobody-there
#[test]
fn sending_without_a_receiver_is_refused() {
    let broker = ScriptedBroker::standard(|peer| {
        peer.log_in();
        peer.expect(
            b"SEND\ndestination:/agent/no\ncontent-type:text/plain\ncontent-length:1\nreceipt:1\n\nx",
        );
        peer.answer("ERROR\nmessage:nobody\nreceipt-id:1\nerror-code:NO_SUCH_DESTINATION\n\n");
        peer.close();
    });
    let mut client = connect(&broker);
    let error = client.send("/agent/no", "x", &SendOptions::default()).unwrap_err();
    let ClientError::Refused(error) = error else { panic!("{error}") };
    assert_eq!(error.code.as_deref(), Some("NO_SUCH_DESTINATION"));
    drop(client);
    broker.finish();
}

// behaviour: own-headers-refused
#[test]
fn headers_of_the_client_and_the_broker_are_not_sent() {
    let broker = ScriptedBroker::standard(|peer| {
        peer.log_in();
        peer.close();
    });
    let mut client = connect(&broker);
    for name in ["origin", "receipt", "message-id", "dead-letter-reason", " ack", "event:x"] {
        let boss = SendOptions::default().header(name, "boss");
        let error = client.send("/topic/x", "x", &boss).unwrap_err();
        let reserved = EncodeFault::Reserved(name.to_owned());
        assert!(matches!(&error, ClientError::Unsendable(fault) if *fault == reserved), "{error}");
    }
    drop(client);
    broker.finish();
}

// behaviour: answer-times-out
#[test]
fn waiting_for_a_silent_broker_times_out() {
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    let broker = ScriptedBroker::standard(move |peer| {
        peer.log_in();
        peer.expect(b"SUBSCRIBE\nid:a\nack:auto\ndestination:/topic/a\nreceipt:1\n\n");
        resumed.recv().unwrap();
        peer.answer("RECEIPT\nreceipt-id:1\n\n");
        peer.answer("MESSAGE\nsubscription:a\ndestination:/topic/a\n\nhi");
        peer.close();
    });
    let options = options("tcp", &broker).answer_timeout(Duration::from_millis(50));
    let mut client = StandardClient::connect(&options).unwrap();
    let error = client.subscribe("a", StandardTarget::Destination("/topic/a")).unwrap_err();
    assert_eq!(error.to_string(), "no answer in time: RECEIPT did not come");
    resume.send(()).unwrap();
    assert_eq!(next(&mut client).body, b"hi");
    drop(client);
    broker.finish();
}

// behaviour: answer-matched
#[test]
fn a_late_answer_is_not_taken_for_another_one() {
    let broker = ScriptedBroker::standard(|peer| {
        peer.log_in();
        peer.expect(b"SUBSCRIBE\nid:a\nack:auto\ndestination:/topic/a\nreceipt:1\n\n");
        peer.answer("MESSAGE\nsubscription:a\ndestination:/topic/a\n\nhi");
        peer.expect(b"SUBSCRIBE\nid:b\nack:auto\ndestination:/topic/b\nreceipt:2\n\n");
        peer.answer("RECEIPT\nreceipt-id:1\n\n");
        peer.answer("RECEIPT\nreceipt-id:2\n\n");
        peer.answer("RECEIPT\nreceipt-id:3\n\n");
        peer.close();
    });
    let mut client = StandardClient::connect(&options("tcp", &broker).queued_bytes_max(1)).unwrap();
    // The queue is full before the answer arrives.
    let error = client.subscribe("a", StandardTarget::Destination("/topic/a")).unwrap_err();
    assert!(matches!(error, ClientError::Flooded), "{error:?}");
    assert_eq!(next(&mut client).body, b"hi");
    client.subscribe("b", StandardTarget::Destination("/topic/b")).unwrap();
    // An answer without a request is unexpected.
    let error = client.next(PATIENCE).unwrap_err();
    assert!(matches!(error, ClientError::Unexpected { .. }), "{error:?}");
    drop(client);
    broker.finish();
}

// behaviour: incoming-bounded
#[test]
fn a_full_queue_loses_nothing() {
    let broker = ScriptedBroker::standard(|peer| {
        peer.log_in();
        peer.expect(b"SUBSCRIBE\nid:a\nack:auto\ndestination:/topic/a\nreceipt:1\n\n");
        for body in ["one", "two", "three"] {
            peer.answer(&format!("MESSAGE\nsubscription:a\ndestination:/topic/a\n\n{body}"));
        }
        peer.answer("RECEIPT\nreceipt-id:1\n\n");
        peer.answer("MESSAGE\nsubscription:a\ndestination:/topic/a\n\nfour");
        peer.close();
    });
    let options = options("tcp", &broker).queued_bytes_max(400);
    let mut client = StandardClient::connect(&options).unwrap();
    let error = client.subscribe("a", StandardTarget::Destination("/topic/a")).unwrap_err();
    assert!(matches!(error, ClientError::Flooded), "{error:?}");
    for body in ["one", "two", "three", "four"] {
        assert_eq!(next(&mut client).body, body.as_bytes());
    }
    drop(client);
    broker.finish();
}

// behaviour: malformed-refused
#[test]
fn a_malformed_frame_ends_the_connection() {
    for (bytes, fault) in [
        (&b"\x07ELL\n\n\0"[..], FrameFault::NotStomp(7)),
        (b"MESSAGE\nx\n\n\0", FrameFault::NoColon),
        (b"MESSAGE\ncontent-length:1\n\nab\0", FrameFault::NoNul),
    ] {
        let broker = ScriptedBroker::start(move |socket| {
            let mut peer = NulTerminated(socket);
            peer.log_in();
            peer.0.write_all(bytes).unwrap();
            peer.close();
        });
        let mut client = connect(&broker);
        let error = client.next(PATIENCE).unwrap_err();
        assert!(matches!(error, ClientError::Malformed(found) if found == fault), "{error:?}");
        let error = client.send("/topic/x", "x", &SendOptions::default()).unwrap_err();
        assert!(matches!(error, ClientError::Closed), "{error:?}");
        drop(client);
        broker.finish();
    }
}

// behaviour: frame-bounded
#[test]
fn a_frame_that_is_too_long_is_refused_by_its_length() {
    let broker = ScriptedBroker::start(|socket| {
        let mut peer = NulTerminated(socket);
        peer.log_in();
        peer.0.write_all(b"MESSAGE\ncontent-length:1000\n\n").unwrap();
        peer.close();
    });
    let mut client =
        StandardClient::connect(&options("tcp", &broker).frame_bytes_max(1_000)).unwrap();
    let error = client.next(PATIENCE).unwrap_err();
    let expected = FrameFault::TooLong { bytes: 1_030, max: 1_000 };
    assert!(matches!(error, ClientError::Malformed(fault) if fault == expected), "{error:?}");
    drop(client);
    broker.finish();
}

// behaviour: first-header-wins
#[test]
fn the_first_of_repeated_headers_counts() {
    let [message] = &subscribing(
        StandardTarget::Destination("/agent/ana"),
        b"SUBSCRIBE\nid:it\nack:auto\ndestination:/agent/ana\nreceipt:1\n\n",
        &["MESSAGE\nsubscription:it\norigin:bob\norigin:eve\ncolour:red\ncolour:blue\n\n"],
    )[..] else {
        panic!("there is one")
    };
    assert_eq!(message.origin, "bob");
    assert_eq!(message.header("colour"), Some("red"));
}

// behaviour: watch-address
#[test]
fn an_address_can_be_watched() {
    let messages = subscribing(
        StandardTarget::Destination("/agent/bob"),
        b"SUBSCRIBE\nid:it\nack:auto\ndestination:/agent/bob\nreceipt:1\n\n",
        &["MESSAGE\nsubscription:it\ndestination:/agent/bob\norigin:eve\n\nhi"],
    );
    assert_eq!((&*messages[0].destination, &*messages[0].origin), ("/agent/bob", "eve"));
    assert_eq!(messages[0].body, b"hi");
}

// behaviour: watch-pattern
#[test]
fn addresses_can_be_watched_by_a_pattern() {
    let messages = subscribing(
        StandardTarget::Pattern("/agent/.*"),
        b"SUBSCRIBE\nid:it\nack:auto\ndestination:/agent/.*\ndestination-type:1\nreceipt:1\n\n",
        &[
            "MESSAGE\nsubscription:it\ndestination:/agent/bob\n\nhi",
            "MESSAGE\nsubscription:it\ndestination:/agent/who-came-later\n\nhi",
        ],
    );
    assert_eq!(messages[0].destination, "/agent/bob");
    assert_eq!(messages[1].destination, "/agent/who-came-later");
}

// behaviour: presence
#[test]
fn presence_can_be_subscribed() {
    let messages = subscribing(
        StandardTarget::Presence { pattern: "/agent/.*", with_snapshot: true },
        b"SUBSCRIBE\nid:it\nack:auto\ndestination:STOMP-SERVER\ndestination-id:/agent/.*\n\
          snapshot:true\nreceipt:1\n\n",
        &[
            "MESSAGE\nsubscription:it\norigin:STOMP-SERVER\nevent:logged\nsnapshot:true\n\n{}",
            "MESSAGE\nsubscription:it\norigin:STOMP-SERVER\nevent:logout\n\n{}",
        ],
    );
    let events: Vec<_> = messages.iter().map(|message| message.header("event")).collect();
    assert_eq!(events, [Some("logged"), Some("logout")]);
    assert!(messages.iter().all(|message| message.origin == BROKER));
    assert_eq!(messages[0].header("snapshot"), Some("true"));
}

// behaviour: topics
#[test]
fn topics_can_be_subscribed_by_a_wildcard() {
    let messages = subscribing(
        StandardTarget::Destination("/topic/invoices/*"),
        b"SUBSCRIBE\nid:it\nack:auto\ndestination:/topic/invoices/*\nreceipt:1\n\n",
        &["MESSAGE\nsubscription:it\ndestination:/topic/invoices/7\n\npaid"],
    );
    assert_eq!((&*messages[0].subscription, &*messages[0].body), ("it", &b"paid"[..]));
    assert_eq!(messages[0].destination, "/topic/invoices/7");
}
