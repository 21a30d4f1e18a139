//! Presence: services get events for all logins and all ends of sessions.

use serde_json::Value;

use crate::support::client::{Client, Profile, Transport, encode};
use crate::support::server::{Server, Setup};

/// A service that is subscribed to the presence of all matching destinations.
fn observer(server: &Server, transport: Transport, pattern: &str) -> Client {
    let mut sup = Client::log_in(server, transport, Profile::Service, "sup");
    sup.subscribe_presence(pattern, false);
    sup
}

/// The next event, in short: what, who, why.
fn event(observer: &mut Client) -> String {
    let message = observer.receive_message();
    let json: Value = serde_json::from_slice(&message.body).unwrap();
    assert_eq!(message.header("origin"), "STOMP-SERVER");
    assert_eq!(message.header("session-id"), observer.session_id);
    assert_eq!(json["event"], message.header("event"));
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    assert!(text("destination").ends_with(&text("login")), "{json}");
    assert!(json["connection-id"].is_u64(), "{json}");
    let at = text("at");
    assert!(at.len() == 24 && at.ends_with('Z'), "{json}");
    format!("{} {} {}", text("event"), text("login"), text("reason"))
}

#[test]
fn logins_and_logouts_are_reported_on_every_transport() {
    let server = Server::start();
    for transport in Transport::ALL {
        let mut sup = observer(&server, transport, "/agent/a.*");
        let mut ana = Client::log_in(&server, transport, Profile::Agent, "ana");
        assert_eq!(event(&mut sup), "logged ana login");
        // No events of clients that do not match, nor of services and admins.
        let _bob = Client::log_in(&server, transport, Profile::Agent, "bob");
        let _adm = Client::log_in(&server, transport, Profile::Admin, "adm");
        ana.send_frame("DISCONNECT", &[], b"");
        assert_eq!(event(&mut sup), "disconnected ana logout");
        assert_eq!(event(&mut sup), "logout ana logout");
        let boss = Client::log_in(&server, transport, Profile::SuperAgent, "a/boss");
        assert_eq!(event(&mut sup), "logged a/boss login");
        drop(boss);
        assert_eq!(event(&mut sup), "disconnected a/boss closed");
        assert_eq!(event(&mut sup), "logout a/boss closed");
        sup.expect_nothing();
        sup.send_frame("DISCONNECT", &[], b"");
        assert_eq!(sup.receive().command, "RECEIPT");
        sup.receive_end();
        drop((ana, _bob, _adm));
        server.log.wait_for_line(&["closed", "login=\"bob\""]);
        server.log.wait_for_line(&["closed", "login=\"adm\""]);
    }
}

#[test]
fn a_broken_connection_is_reported() {
    let server = Server::start();
    let mut sup = observer(&server, Transport::Tcp, ".*");
    for transport in Transport::ALL {
        let ana = Client::log_in(&server, transport, Profile::Agent, "ana");
        assert_eq!(event(&mut sup), "logged ana login");
        ana.reset();
        assert_eq!(event(&mut sup), "disconnected ana lost");
        assert_eq!(event(&mut sup), "logout ana lost");
    }
    sup.expect_nothing();
}

#[test]
fn a_refused_client_is_reported() {
    let server = Server::start();
    let mut sup = observer(&server, Transport::Ws, ".*");
    let mut ana = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    ana.send_bytes(b"NONSENSE\n\n");
    assert_eq!(event(&mut sup), "logged ana login");
    assert_eq!(event(&mut sup), "disconnected ana refused");
    assert_eq!(event(&mut sup), "logout ana refused");
}

#[test]
fn a_takeover_is_reported_as_an_end_and_a_login() {
    let server = Server::start();
    let mut sup = observer(&server, Transport::Tcp, ".*");
    let _older = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    let first = sup.receive_message();
    let _newer = Client::log_in(&server, Transport::Wss, Profile::Agent, "ana");
    let ended = sup.receive_message();
    let begun = sup.receive_message();
    let parse = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap();
    let [first, ended, begun] = [first, ended, begun].map(|message| parse(&message.body));
    assert_eq!((&ended["event"], &ended["reason"]), (&"disconnected".into(), &"taken-over".into()));
    assert_eq!((&begun["event"], &begun["reason"]), (&"logged".into(), &"takeover".into()));
    assert_eq!(ended["connection-id"], first["connection-id"]);
    assert_ne!(begun["connection-id"], first["connection-id"]);
    sup.expect_nothing();
}

#[test]
fn a_snapshot_reports_who_is_logged_in() {
    let server = Server::start();
    let mut sup = Client::log_in(&server, Transport::Tcp, Profile::Service, "sup");
    let _others: Vec<_> = [
        (Profile::Agent, "a/1"),
        (Profile::SuperAgent, "a/2"),
        (Profile::Agent, "b/3"),
        (Profile::Admin, "a/4"),
        (Profile::Service, "a/5"),
    ]
    .into_iter()
    .map(|(profile, login)| Client::log_in(&server, Transport::Tcp, profile, login))
    .collect();
    sup.subscribe_presence("/.*/a/.*", true);
    let mut found = Vec::new();
    for _ in 0..2 {
        let message = sup.receive_message();
        assert_eq!(message.header("event"), "logged");
        assert_eq!(message.header("snapshot"), "true");
        found.push(serde_json::from_slice::<Value>(&message.body).unwrap()["login"].clone());
    }
    found.sort_by_key(Value::to_string);
    assert_eq!(found, ["a/1", "a/2"]);
    sup.expect_nothing();
    let _later = Client::log_in(&server, Transport::Tcp, Profile::Agent, "a/6");
    let message = sup.receive_message();
    assert_eq!((message.header("event"), message.header("snapshot")), ("logged", ""));
}

#[test]
fn unsubscribing_ends_the_events_of_that_pattern() {
    let server = Server::start();
    let mut sup = observer(&server, Transport::Tcp, "/agent/a.*");
    sup.subscribe_presence("/agent/b.*", false);
    let headers =
        [("destination", "STOMP-SERVER"), ("destination-id", "/agent/a.*"), ("transaction", "u")];
    sup.send_frame("UNSUBSCRIBE", &headers, b"");
    assert_eq!(sup.receive().header("error-desc"), "OK");
    let _ana = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    let _bob = Client::log_in(&server, Transport::Tcp, Profile::Agent, "bob");
    assert_eq!(event(&mut sup), "logged bob login");
    sup.expect_nothing();
}

#[test]
fn only_services_may_subscribe_to_presence() {
    let server = Server::start();
    for (profile, login) in
        [(Profile::Agent, "a"), (Profile::SuperAgent, "b"), (Profile::Admin, "c")]
    {
        let mut client = Client::log_in(&server, Transport::Tcp, profile, login);
        let headers =
            [("destination", "STOMP-SERVER"), ("destination-id", ".*"), ("transaction", "s")];
        client.send_frame("SUBSCRIBE", &headers, b"");
        assert_eq!(client.receive().header("error-code"), "PROF_NO_RIGHTS");
        client.expect_nothing();
    }
}

#[test]
fn a_connection_without_a_login_is_not_reported() {
    let server = Setup::new().limits("connect_ms_max = 100").start();
    let mut sup = observer(&server, Transport::Tcp, ".*");
    let mut silent = Client::open(&server, Transport::Ws);
    silent.receive_error("TIMED_OUT");
    silent.receive_end();
    let mut refused = Client::open(&server, Transport::Tcp);
    refused.send_bytes(&encode("CONNECT", &[("login", "ana")], b""));
    refused.receive_error("MISSING_HEADER");
    refused.receive_end();
    sup.expect_nothing();
}
