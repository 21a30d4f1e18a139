//! WebSocket: messages and frames, text and binary, subprotocols, closes.

use super::{Statement, of_websocket};
use crate::conformance::stage::{Arrival, Carrier, Client, Ending, Server, connect};
use crate::support::client::Profile::Agent;

pub(crate) const STATEMENTS: &[Statement] = &[
    of_websocket("Ours, 'Standard dialect'", "a frame that is text is a text message", |stage| {
        let mut ana = stage.agent();
        assert!(!ana.connected.as_ref().unwrap().is_binary);
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        ana.tell(&topic, "señal");
        assert!(!ana.message().is_binary);
    }),
    of_websocket("RFC 6455, 5.6", "a frame that is not UTF-8 is a binary message", |stage| {
        let mut ana = stage.agent();
        let mut bob = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        bob.bytes(&[format!("SEND\ndestination:{topic}\n\n").as_bytes(), b"\xff\0"].concat());
        let frame = ana.message();
        assert!(frame.is_binary && frame.body == [0xff], "{frame}");
    }),
    of_websocket("Ours, 'Messages'", "who connects in binary gets binary, always", |stage| {
        let mut ana = stage.strict().stranger();
        let more = "accept-version:1.2\nheart-beat:0,100\n";
        let login = connect(&stage.name("binary"), Agent, more);
        ana.link.send_binary(format!("{login}\0").as_bytes());
        assert!(ana.expect("CONNECTED").is_binary);
        assert_eq!(ana.link.next(), Arrival::Beat { is_binary: true });
        let topic = stage.name("/topic/open/t");
        ana.subscribe("0", &topic, "");
        ana.tell(&topic, "text");
        assert!(ana.message().is_binary);
    }),
    of_websocket("Ours, 'Messages'", "who connects in text gets text, always", |stage| {
        let stage = stage.strict();
        let mut ana = stage.beating("0,100");
        let topic = stage.name("/topic/open/t");
        ana.subscribe("0", &topic, "");
        ana.link.send_binary(format!("SEND\ndestination:{topic}\n\ntext\0").as_bytes());
        assert!(!ana.message().is_binary);
        assert_eq!(ana.link.next(), Arrival::Beat { is_binary: false });
        ana.link.send_binary(
            &[format!("SEND\ndestination:{topic}\n\n").as_bytes(), b"\xff\0"].concat(),
        );
        assert!(ana.message().is_binary);
        ana.tell(&topic, "text");
        assert!(!ana.message().is_binary);
    }),
    of_websocket("Ours, 'Messages'", "CONNECT says it, not what comes before it", |stage| {
        let mut ana = stage.stranger();
        ana.link.send_binary(b"\n");
        let login = connect(&stage.name("text"), Agent, "accept-version:1.2\n");
        assert!(!ana.log_in(&login).is_binary);
    }),
    of_websocket("Ours, 'Messages'", "a message ends in the NUL of its frame", |stage| {
        // The link checks every message for it, and every frame on a stream for a line end behind it.
        let topic = stage.topic();
        let mut clients = [stage.agent(), stage.over(Carrier::Tcp).agent()];
        for client in &mut clients {
            client.subscribe("0", &topic, "");
            // The tail behind different heads is encoded once.
            client.subscribe("1", &topic, "");
        }
        for size in [5, 5000] {
            let body = "x".repeat(size);
            stage.agent().tell(&topic, &body);
            for client in &mut clients {
                assert_eq!(client.bodies(2), [&*body, &*body]);
            }
        }
    }),
    of_websocket(
        "Ours, 'Standard dialect'",
        "a frame may stretch over several messages",
        |stage| {
            let mut ana = stage.agent();
            let topic = stage.topic();
            ana.subscribe("0", &topic, "");
            ana.bytes(b"SEND\ndestin");
            ana.bytes(format!("ation:{topic}\n\nin thr").as_bytes());
            ana.bytes(b"ee pieces\0");
            ana.message().says("in three pieces");
        },
    ),
    of_websocket("Ours, 'Standard dialect'", "a message may hold line ends and frames", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        let send = format!("SEND\ndestination:{topic}\n\n");
        ana.bytes(format!("\n\n{send}1\0\n{send}2\0{send}3\0\n").as_bytes());
        assert_eq!(ana.bodies(3), ["1", "2", "3"]);
    }),
    of_websocket("RFC 6455, 5.4", "a message may come in fragments", |stage| {
        let mut ana = stage.agent();
        ana.link.send_as(0x01, b"BEGIN\ntransac");
        ana.link.send_as(0x00, b"tion:t\nreceipt:");
        ana.link.send_as(0x80, b"r\n\n\0");
        ana.await_receipt("r");
    }),
    of_websocket("RFC 6455, 4.2.2", "the highest subprotocol offered is chosen", |stage| {
        let cases = [
            ("v10.stomp, v11.stomp, v12.stomp", Some("v12.stomp")),
            ("v10.stomp, v11.stomp", Some("v11.stomp")),
            ("v10.stomp", Some("v10.stomp")),
            ("soap, v11.stomp", Some("v11.stomp")),
            ("soap", None),
            ("", None),
        ];
        for (offered, chosen) in cases {
            let link = stage.link(offered);
            assert_eq!(link.subprotocol.as_deref(), chosen, "{offered}");
            let mut ana = Client::new(link);
            let login = connect(&stage.name("sub"), Agent, "accept-version:1.0,1.1,1.2\n");
            ana.log_in(&login).has("version", "1.2");
        }
    }),
    of_websocket("STOMP 1.2, 'Heart-beating'", "a beat is a message of its own", |stage| {
        let mut ana = stage.strict().beating("0,100");
        ana.await_beats(2);
    }),
    of_websocket("RFC 6455, 7.4.1", "a DISCONNECT ends in a normal close", |stage| {
        let mut ana = stage.agent();
        ana.ask("DISCONNECT\n\n");
        assert_eq!(ana.ends(), Ending { code: Some(1000) });
    }),
    of_websocket("RFC 6455, 7.1.2", "a client's close is answered with its code", |stage| {
        let mut ana = stage.agent();
        ana.link.send_as(0x88, &1001_u16.to_be_bytes());
        assert_eq!(ana.link.next(), Arrival::Close(1001));
    }),
    of_websocket("Ours, 'Standard dialect'", "4000 to 4099 say: do not come back", |stage| {
        let mut ana = stage.agent();
        ana.say("BEGIN\n\n");
        ana.expect("ERROR").has("retry", "never");
        assert!(matches!(ana.ends().code, Some(4000..4100)));
    }),
    of_websocket("Ours, 'Standard dialect'", "4100 to 4199 say: come back later", |stage| {
        let service = stage.service();
        let mut other = stage.stranger();
        other.say(&connect(&service.login(), crate::support::client::Profile::Service, ""));
        other.expect("ERROR").has("retry", "later");
        assert!(matches!(other.ends().code, Some(4100..4200)));
    }),
    of_websocket("Ours, 'Standard dialect'", "4200 to 4299 say: come back now", |stage| {
        let broker = Server::start();
        let mut ana = stage.with(&broker).agent();
        broker.signal("TERM");
        ana.expect("ERROR").has("retry", "now").has("error-code", "DRAINING");
        assert!(matches!(ana.ends().code, Some(4200..4300)));
    }),
];
