//! CONNECT and CONNECTED: logins, keys and the negotiation of versions.

use super::{Statement, statement};
use crate::conformance::stage::{APPLICATION_KEY, connect};
use crate::support::client::Profile::{self, Admin, Agent, Service, SuperAgent};

pub(crate) const STATEMENTS: &[Statement] = &[
    statement("STOMP 1.2, 'CONNECT or STOMP Frame'", "STOMP is handled like CONNECT", |stage| {
        let mut ana = stage.stranger();
        let login = connect(&stage.name("stomp"), Agent, "accept-version:1.2\n");
        ana.log_in(&login.replacen("CONNECT", "STOMP", 1)).has("version", "1.2");
    }),
    statement("STOMP 1.2, 'Protocol Negotiation'", "the highest in common is spoken", |stage| {
        let cases = [
            ("1.2", "1.2"),
            ("1.1", "1.1"),
            ("1.0", "1.0"),
            ("1.0,1.1,1.2", "1.2"),
            ("1.2,1.1,1.0", "1.2"),
            ("1.1,1.2,1.0", "1.2"),
            ("1.0,1.1,2.0", "1.1"),
            ("1.0, 1.1", "1.1"),
        ];
        for (accepted, version) in cases {
            let mut ana = stage.stranger();
            let more = format!("accept-version:{accepted}\n");
            ana.log_in(&connect(&stage.name("v"), Agent, &more)).has("version", version);
        }
    }),
    statement("STOMP 1.2, 'Protocol Negotiation'", "without a list it is 1.0", |stage| {
        let mut ana = stage.stranger();
        ana.log_in(&connect(&stage.name("v"), Agent, "")).has("version", "1.0");
        // 1.0 is in effect: a subscription needs no id, and nothing is escaped.
        ana.ask("SUBSCRIBE\ndestination:/topic/a\\tb\n\n");
    }),
    statement("STOMP 1.0, 'CONNECT'", "blanks behind the colon are no part of a value", |stage| {
        for more in ["", "accept-version:1.0\n", "accept-version: 1.0 \n"] {
            let mut ana = stage.stranger();
            let login = stage.name("ana");
            let text = connect(&login, Agent, more).replace(':', ": ").replace('\n', " \n");
            let text = text.replacen("CONNECT ", "CONNECT", 1).replace("\n \n", "\n\n");
            ana.log_in(&text).has("version", "1.0").has("login", &login);
            let topic = stage.topic();
            ana.ask(&format!("SUBSCRIBE\ndestination: {topic}\nack: client\n\n"));
            assert_eq!(ana.tell_with(&format!(" {topic}"), "k:  v \ncontent-length: 1\n", "x"), 1);
            ana.message().has("destination", &topic).has("k", "v").says("x");
        }
        for version in ["1.1", "1.2", "1.0,1.2"] {
            let text = connect("ana", Agent, &format!("accept-version:{version}\n"));
            let text = text.replace("login:", "login: ");
            stage.stranger().refused(&text, "UNKNOWN_FORMAT_HEADER");
        }
    }),
    statement("STOMP 1.2, 'Protocol Negotiation'", "ERROR says the versions otherwise", |stage| {
        for accepted in ["1.3", "2.0,3.0", "1.20", ""] {
            let text = connect(&stage.name("v"), Agent, &format!("accept-version:{accepted}\n"));
            let error = stage.stranger().refused(&text, "UNSUPPORTED_VERSION");
            error.has("version", "1.0,1.1,1.2").has("content-type", "text/plain;charset=utf-8");
            assert!(error.text().contains("1.2"), "{error}");
        }
    }),
    statement("STOMP 1.2, 'CONNECTED Frame'", "version, session, server are set", |stage| {
        for version in ["1.0", "1.1", "1.2"] {
            let ana = stage.client(Agent, version);
            let connected = ana.connected.unwrap();
            connected.has("version", version).says("");
            assert!(!connected.get("session").unwrap().is_empty(), "{connected}");
            let (name, number) = connected.get("server").unwrap().split_once('/').unwrap();
            assert!(name == "com-broker" && number.starts_with(|c: char| c.is_ascii_digit()));
        }
    }),
    statement("STOMP 1.2, 'CONNECTED Frame'", "a session id is unique", |stage| {
        let sessions = [stage.agent(), stage.agent()]
            .map(|client| client.connected.unwrap().get("session").unwrap().to_owned());
        assert_ne!(sessions[0], sessions[1]);
    }),
    statement("Ours, 'Standard dialect'", "CONNECTED says who one is and where", |stage| {
        let cases = [
            (Agent, "1", "agent", "/agent/"),
            (SuperAgent, "2", "super agent", "/agent/"),
            (Service, "3", "service", "/service/"),
            (Admin, "4", "admin", "/admin/"),
        ];
        for (profile, code, description, prefix) in cases {
            let login = stage.name("who/is");
            let connected = stage.join(&login, profile, "1.2").connected.unwrap();
            connected.has("login", &login).has("destination", &format!("{prefix}{login}"));
            connected.has("profile-code", code).has("profile-desc", description);
        }
    }),
    statement("Ours, 'Standard dialect'", "host may be left out", |stage| {
        for stage in [&stage.strict(), stage] {
            let mut ana = stage.stranger();
            let login = connect(&stage.name("host"), Agent, "accept-version:1.2\n");
            ana.log_in(&login.replace("host:broker.example\n", ""));
        }
    }),
    statement("STOMP 1.2, 'CONNECT or STOMP Frame'", "any host, where none is named", |stage| {
        let login = connect(&stage.name("host"), Agent, "accept-version:1.2\n");
        stage.stranger().log_in(&login.replace("broker.example", "elsewhere.example"));
    }),
    statement("STOMP 1.2, 'CONNECT or STOMP Frame'", "an unknown host is refused", |stage| {
        let stage = stage.strict();
        let login = connect(&stage.name("host"), Agent, "accept-version:1.2\n");
        stage.stranger().log_in(&login.replace("broker.example", "second.example"));
        let elsewhere = login.replace("broker.example", "elsewhere.example");
        stage.stranger().refused(&elsewhere, "UNKNOWN_HOST").has("retry", "never");
    }),
    statement("STOMP 1.2, 'Connecting'", "nothing is accepted before CONNECT", |stage| {
        let frames = [
            "SEND\ndestination:/topic/a\n\n",
            "SUBSCRIBE\nid:0\ndestination:/topic/a\n\n",
            "BEGIN\ntransaction:t\n\n",
            "DISCONNECT\n\n",
        ];
        for frame in frames {
            stage.stranger().refused(frame, "NOT_LOGGED_IN");
        }
    }),
    statement("Ours, 'Sessions'", "a second CONNECT on a connection is refused", |stage| {
        let mut ana = stage.agent();
        let again = connect(&ana.login(), Agent, "accept-version:1.2\n");
        ana.refused(&again, "LOGIN_ID_ALREADY_LOGGED");
        stage.agent().refused(&connect(&stage.name("b"), Agent, ""), "LOGIN_ID_ALREADY_LOGGED");
    }),
    statement("Ours, 'Standard dialect'", "a wrong application key is refused for good", |stage| {
        let login = connect(&stage.name("key"), Agent, "");
        let wrong = login.replace(APPLICATION_KEY, "wrong");
        stage.stranger().refused(&wrong, "INVALID_APP_KEY").has("retry", "never");
    }),
    statement("Ours, 'Standard dialect'", "a wrong profile key is refused for good", |stage| {
        let login = connect(&stage.name("key"), Agent, "");
        let wrong = login.replace(Agent.key(), "wrong");
        stage.stranger().refused(&wrong, "INVALID_PROFILE_KEY").has("retry", "never");
    }),
    statement("Ours, 'Standard dialect'", "both keys may stand in passcode", |stage| {
        for profile in Profile::ALL {
            let login = stage.name("php");
            let key = profile.key();
            let connected = stage
                .stranger()
                .log_in(&format!("CONNECT\nlogin:{login}\npasscode:{APPLICATION_KEY}.{key}\n\n"));
            connected.has("login", &login);
        }
        let wrong = format!("CONNECT\nlogin:a\npasscode:wrong.{}\n\n", Agent.key());
        stage.stranger().refused(&wrong, "INVALID_APP_KEY");
        let wrong = format!("CONNECT\nlogin:a\npasscode:{APPLICATION_KEY}.wrong\n\n");
        stage.stranger().refused(&wrong, "INVALID_PROFILE_KEY");
    }),
    statement("Ours, 'Standard dialect'", "login and both keys are needed", |stage| {
        let login = connect("somebody", Agent, "");
        for name in ["login", "passcode", "secret-key"] {
            let start = login.find(&format!("{name}:")).unwrap();
            let end = start + login[start..].find('\n').unwrap() + 1;
            let without = [&login[..start], &login[end..]].concat();
            let error = stage.stranger().refused(&without, "MISSING_HEADER");
            assert!(error.get("message").unwrap().contains(name), "{error}");
        }
        stage.stranger().refused(&connect("", Agent, ""), "MISSING_HEADER");
    }),
    statement("STOMP 1.2, 'Header receipt'", "a CONNECT gets no RECEIPT", |stage| {
        let mut ana = stage.stranger();
        ana.log_in(&connect(&stage.name("r"), Agent, "accept-version:1.2\nreceipt:r\n"));
        ana.hears_nothing();
        let text = connect("x", Agent, "accept-version:9\nreceipt:r\n");
        stage.stranger().refused(&text, "UNSUPPORTED_VERSION").lacks("receipt-id");
    }),
    statement("Ours, 'Standard dialect'", "who does not log in in time is told so", |stage| {
        let mut ana = stage.strict().stranger();
        ana.bytes(b"\n");
        ana.fails("TIMED_OUT").has("retry", "later");
    }),
];
