//! Scenarios for every transport, which the modules of the transports instantiate with
//! [`every_scenario!`].

use super::client::{Client, Profile, Transport, connect_frame, encode};
use super::server::{APPLICATION_KEY, Server, Setup};

/// A test for each scenario.
macro_rules! every_scenario {
    ($transport:expr) => {
        every_scenario! {
            $transport;
            every_profile_logs_in,
            wrong_keys_are_refused_and_never_shown,
            a_message_reaches_its_receiver_and_is_acknowledged,
            a_client_may_send_to_itself,
            a_client_is_watched_directly,
            clients_are_watched_by_a_pattern,
            unsubscribing_ends_the_copies,
            the_profile_rule_holds,
            a_takeover_keeps_session_and_subscriptions,
            an_unknown_destination_is_an_error_and_the_connection_stays,
            a_foreign_session_id_is_refused,
            nothing_is_accepted_before_login,
            disconnect_is_receipted_and_ends,
            bodies_hold_any_bytes,
            bodies_of_a_mebibyte_pass_both_ways,
            many_messages_stay_in_order,
            an_empty_frame_ends_only_its_own_connection,
        }
    };
    ($transport:expr; $($name:ident,)*) => {
        $(#[test]
        fn $name() {
            crate::support::scenarios::$name($transport);
        })*
    };
}

pub(crate) use every_scenario;

pub(crate) fn every_profile_logs_in(transport: Transport) {
    let server = Server::start();
    let expected = [
        ("1", "agent", "/agent/"),
        ("2", "super agent", "/agent/"),
        ("3", "service", "/service/"),
        ("4", "admin", "/admin/"),
    ];
    for (profile, (code, description, prefix)) in Profile::ALL.into_iter().zip(expected) {
        let login = format!("some/{code}");
        let mut client = Client::open(&server, transport);
        client.send_bytes(&connect_frame(profile, &login));
        let connected = client.receive_connected();
        assert_eq!(
            connected.names(),
            [
                "accept-version",
                "session-id",
                "login",
                "profile-code",
                "profile-desc",
                "destination",
                "connection-id"
            ]
        );
        assert_eq!(connected.header("accept-version"), "1.2");
        assert_eq!(connected.header("session-id").len(), 32);
        assert_eq!(connected.header("login"), login);
        assert_eq!(connected.header("profile-code"), code);
        assert_eq!(connected.header("profile-desc"), description);
        assert_eq!(connected.header("destination"), format!("{prefix}{login}"));
        assert_eq!(connected.body, b"");
    }
    assert_eq!(server.stop().count("logins"), 4);
}

pub(crate) fn wrong_keys_are_refused_and_never_shown(transport: Transport) {
    let server = Server::start();
    let agent = Profile::Agent.key();
    for (application, profile, code) in [
        ("wrong-secret-7", agent, "INVALID_APP_KEY"),
        (APPLICATION_KEY, "wrong-secret-7", "INVALID_PROFILE_KEY"),
        (agent, APPLICATION_KEY, "INVALID_APP_KEY"),
    ] {
        let mut client = Client::open(&server, transport);
        let headers = [("login", "ana"), ("passcode", profile), ("secret-key", application)];
        client.send_frame("CONNECT", &headers, b"");
        let error = client.receive_error(code);
        assert_eq!(error.header("retry"), "never");
        assert!(!error.header("error-desc").contains("wrong-secret-7"), "{error:?}");
        client.receive_end();
    }
    let log = server.log.clone();
    assert_eq!(server.stop().count("logins"), 0);
    assert!(!log.text().contains("wrong-secret-7"));
}

pub(crate) fn a_message_reaches_its_receiver_and_is_acknowledged(transport: Transport) {
    let server = Server::start();
    let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
    let mut bob = Client::log_in(&server, transport, Profile::Admin, "bob");
    let session_id = bob.session_id.clone();
    bob.send_frame(
        "SEND",
        &[
            ("destination", "/agent/ana"),
            ("transaction", "t-1"),
            ("session-id", &session_id),
            ("color", "dark: green"),
            ("content-type", "text/x"),
            ("content-length", "3"),
        ],
        "más".as_bytes(),
    );
    let message = ana.receive_message();
    let expected = [
        ("transaction", "t-1"),
        ("session-id", &ana.session_id),
        ("origin", "bob"),
        ("destination", "/admin/bob"),
        ("content-type", "text/x"),
        ("content-length", "4"),
        ("color", "dark: green"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(message.lines, expected);
    assert_eq!(message.text(), "más");
    let ack = bob.receive();
    assert_eq!(ack.command, "ACK");
    assert_eq!(ack.names(), ["session-id", "transaction", "error-desc"]);
    assert_eq!(ack.header("session-id"), session_id);
    assert_eq!(ack.header("transaction"), "t-1");
    assert_eq!(ack.header("error-desc"), "OK");
    // Without a transaction, there is no ACK.
    bob.send("/agent/ana", b"2");
    assert_eq!(ana.receive_message().text(), "2");
    bob.expect_nothing();
}

pub(crate) fn a_client_may_send_to_itself(transport: Transport) {
    let server = Server::start();
    let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
    ana.send_frame("SEND", &[("destination", "/agent/ana"), ("transaction", "1")], b"me");
    assert_eq!(ana.receive_message().text(), "me");
    assert_eq!(ana.receive().command, "ACK");
}

pub(crate) fn a_client_is_watched_directly(transport: Transport) {
    let server = Server::start();
    let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
    let mut eva = Client::log_in(&server, transport, Profile::Agent, "eva");
    let mut sup = Client::log_in(&server, transport, Profile::Service, "sup");
    let ack = sup.subscribe("0", "/agent/ana");
    assert!(ack.text().contains("[ana]:["), "{ack:?}");
    sup.send("/agent/eva", b"unwatched");
    assert_eq!(eva.receive_message().text(), "unwatched");
    eva.send("/agent/ana", b"watched");
    let message = ana.receive_message();
    assert_eq!(sup.receive(), message, "a watcher gets the same frame as the receiver");
    sup.expect_nothing();
    // The address is watched: the subscription stays while the client is away.
    drop(ana);
    server.log.wait_for_line(&["closed", "login=\"ana\""]);
    let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
    eva.send("/agent/ana", b"again");
    assert_eq!(ana.receive_message().text(), "again");
    assert_eq!(sup.receive_message().text(), "again");
}

pub(crate) fn clients_are_watched_by_a_pattern(transport: Transport) {
    let server = Server::start();
    let mut sup = Client::log_in(&server, transport, Profile::Service, "sup");
    sup.subscribe("1", "/agent/team/[0-9]+");
    let mut seven = Client::log_in(&server, transport, Profile::Agent, "team/7");
    let mut other = Client::log_in(&server, transport, Profile::SuperAgent, "team/7x");
    other.send("/agent/team/7", b"to 7");
    assert_eq!(seven.receive_message().text(), "to 7");
    assert_eq!(sup.receive_message().text(), "to 7");
    seven.send("/agent/team/7x", b"to 7x");
    assert_eq!(other.receive_message().text(), "to 7x");
    sup.expect_nothing();
    // Two subscriptions to the same client make one copy.
    sup.subscribe("0", "/agent/team/7");
    other.send("/agent/team/7", b"once");
    assert_eq!(sup.receive_message().text(), "once");
    sup.expect_nothing();
}

pub(crate) fn unsubscribing_ends_the_copies(transport: Transport) {
    let server = Server::start();
    let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
    let mut eva = Client::log_in(&server, transport, Profile::Agent, "eva");
    let mut sup = Client::log_in(&server, transport, Profile::Service, "sup");
    let mut boss = Client::log_in(&server, transport, Profile::SuperAgent, "boss");
    sup.subscribe("0", "/agent/ana");
    sup.subscribe("1", "/agent/e.*");
    boss.subscribe("1", "/agent/.*");
    let headers = [("destination", "/agent/ana"), ("transaction", "u-1")];
    sup.send_frame("UNSUBSCRIBE", &headers, b"");
    assert_eq!(sup.receive().header("error-desc"), "OK");
    eva.send("/agent/ana", b"1");
    ana.send("/agent/eva", b"2");
    assert_eq!(sup.receive_message().text(), "2");
    sup.send_frame("UNSUBSCRIBE", &[("transaction", "u-2")], b"");
    assert_eq!(sup.receive().header("transaction"), "u-2");
    ana.send("/agent/eva", b"3");
    ana.expect_nothing_but(&["1"]);
    sup.expect_nothing();
    boss.expect_nothing_but(&["1", "2", "3", "nothing in between"]);
}

pub(crate) fn the_profile_rule_holds(transport: Transport) {
    let server = Server::start();
    let logins = ["a", "b", "c", "d"];
    let mut clients: Vec<_> = Profile::ALL
        .into_iter()
        .zip(logins)
        .map(|(profile, login)| Client::log_in(&server, transport, profile, login))
        .collect();
    let destinations: Vec<_> = clients.iter().map(|client| client.destination.clone()).collect();
    // Whom each profile may watch: a row for each watcher.
    let allowed = [[false; 4], [true, false, false, false], [true, true, false, false], [false; 4]];
    for (watcher, row) in clients.iter_mut().zip(allowed) {
        for (destination, allowed) in destinations.iter().zip(row) {
            let headers =
                [("destination", &**destination), ("destination-type", "0"), ("transaction", "s")];
            watcher.send_frame("SUBSCRIBE", &headers, b"");
            let ack = watcher.receive();
            let code = if allowed { "" } else { "PROF_NO_RIGHTS" };
            assert_eq!((ack.command.as_str(), ack.header("error-code")), ("ACK", code));
        }
    }
}

pub(crate) fn a_takeover_keeps_session_and_subscriptions(transport: Transport) {
    let server = Server::start();
    let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
    let mut older = Client::log_in(&server, transport, Profile::SuperAgent, "boss");
    older.subscribe("0", "/agent/ana");
    let mut newer = Client::log_in(&server, transport, Profile::SuperAgent, "boss");
    let error = older.receive_error("NEW_CONNECTION_LOGGED");
    assert_eq!(error.header("retry"), "never");
    older.receive_end();
    assert_eq!(newer.session_id, older.session_id);
    drop(older);
    newer.send("/agent/ana", b"hello");
    assert_eq!(ana.receive_message().text(), "hello");
    assert_eq!(newer.receive_message().text(), "hello");
    // A login of another profile is not taken over, nor one of a profile without takeovers.
    let mut sup = Client::log_in(&server, transport, Profile::Service, "sup");
    for (profile, login, code) in [
        (Profile::Agent, "boss", "WRONG_PROFILE_REGISTERED"),
        (Profile::Service, "sup", "LOGIN_ID_ALREADY_LOGGED"),
    ] {
        let mut refused = Client::open(&server, transport);
        refused.send_bytes(&connect_frame(profile, login));
        assert_eq!(refused.receive_error(code).header("retry"), "later");
        refused.receive_end();
    }
    newer.expect_nothing();
    sup.expect_nothing();
    drop((ana, newer, sup));
    assert_eq!(server.stop().count("takeovers"), 1);
}

pub(crate) fn an_unknown_destination_is_an_error_and_the_connection_stays(transport: Transport) {
    let server = Server::start();
    let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
    ana.send_frame("SEND", &[("destination", "/agent/nobody"), ("transaction", "1")], b"hello");
    let error = ana.receive_error("NO_SUCH_DESTINATION");
    assert_eq!(error.header("retry"), "", "retry is told where the connection closes");
    ana.expect_nothing();
}

pub(crate) fn a_foreign_session_id_is_refused(transport: Transport) {
    let server = Server::start();
    let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
    let mut eva = Client::log_in(&server, transport, Profile::Agent, "eva");
    let headers = [("destination", "/agent/eva"), ("session-id", &eva.session_id.clone())];
    ana.send_frame("SEND", &headers, b"as eva");
    assert_eq!(ana.receive_error("WRONG_SESSION").header("retry"), "never");
    ana.receive_end();
    eva.expect_nothing();
}

pub(crate) fn nothing_is_accepted_before_login(transport: Transport) {
    let server = Server::start();
    for command in ["SEND", "SUBSCRIBE", "UNSUBSCRIBE", "DISCONNECT"] {
        let mut client = Client::open(&server, transport);
        let headers = [("destination", "/agent/ana"), ("destination-type", "1")];
        client.send_frame(command, &headers, b"");
        client.receive_error("NOT_LOGGED_IN");
        client.receive_end();
    }
}

/// Also if the client writes after DISCONNECT: closing with unread bytes would reset the connection and
/// discard the RECEIPT.
pub(crate) fn disconnect_is_receipted_and_ends(transport: Transport) {
    let server = Server::start();
    let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
    let junk = encode("SEND", &[("destination", "/agent/ana")], &vec![b'x'; 200_000]);
    ana.send_frame("DISCONNECT", &[("receipt-id", "r-9")], b"");
    for _ in 0..5 {
        ana.send_bytes(&junk);
    }
    let receipt = ana.receive();
    assert_eq!(receipt.command, "RECEIPT");
    assert_eq!(
        receipt.names(),
        ["session-id", "login", "destination", "connection-id", "receipt-id"]
    );
    assert_eq!(receipt.header("receipt-id"), "r-9");
    assert_eq!(receipt.header("login"), "ana");
    let code = ana.receive_end();
    assert_eq!(code, transport.is_websocket().then_some(1000));
    drop(ana);
    server.log.wait_for_line(&["closed", "login=\"ana\"", "reason=logout"]);
}

pub(crate) fn bodies_hold_any_bytes(transport: Transport) {
    let server = Server::start();
    let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
    let all: Vec<u8> = (0..=255).chain([0, 0, 10, 0]).collect();
    ana.send("/agent/ana", &[&all[..], &[0]].concat());
    let message = ana.receive_message();
    assert_eq!(message.body, all, "one NUL ends the frame");
    let length = all.len().to_string();
    assert_eq!(message.header("content-length"), length);
    ana.send_frame("SEND", &[("destination", "/agent/ana"), ("content-length", &length)], &all);
    assert_eq!(ana.receive_message().body, all, "content-length says that the NUL belongs to it");
}

pub(crate) fn bodies_of_a_mebibyte_pass_both_ways(transport: Transport) {
    let server = Server::start();
    let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
    let mut bob = Client::log_in(&server, transport, Profile::Agent, "bob");
    let body: Vec<u8> = (0..1_u32 << 18).flat_map(|n| (n | 1 << 31).to_be_bytes()).collect();
    ana.send("/agent/bob", &body);
    let message = bob.receive_message();
    assert!(message.body == body, "a body of {} bytes arrived", message.body.len());
    bob.send("/agent/ana", &message.body);
    assert!(ana.receive_message().body == body, "the body back");
}

pub(crate) fn many_messages_stay_in_order(transport: Transport) {
    const COUNT: usize = 2_000;
    let server = Setup::new().start();
    let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
    let mut bob = Client::log_in(&server, transport, Profile::Agent, "bob");
    let sender = std::thread::spawn(move || {
        for number in 0..COUNT {
            bob.send("/agent/ana", number.to_string().as_bytes());
        }
        bob
    });
    for number in 0..COUNT {
        assert_eq!(ana.receive_message().text(), number.to_string());
    }
    sender.join().unwrap().expect_nothing();
}

pub(crate) fn an_empty_frame_ends_only_its_own_connection(transport: Transport) {
    let server = Server::start();
    let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
    let mut bob = Client::log_in(&server, transport, Profile::Agent, "bob");
    bob.send_bytes(b"");
    let error = bob.receive();
    assert_eq!((error.command.as_str(), error.header("retry")), ("ERROR", "never"));
    bob.receive_end();
    ana.expect_nothing();
}
