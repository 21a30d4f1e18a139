//! Frames: commands, line ends, bodies and their length, bounds.

use super::{Statement, statement};
use crate::conformance::stage::connect;
use crate::support::client::Profile::Agent;

pub(crate) const STATEMENTS: &[Statement] = &[
    statement("STOMP 1.2, 'STOMP Frames'", "the body follows the blank line, up to NUL", |stage| {
        let mut ana = stage.agent();
        ana.subscribe("0", &stage.name("/topic/other"), "");
        let topic = stage.topic();
        ana.subscribe("1", &topic, "");
        ana.bytes(format!("SEND\ndestination:{topic}\n\nhello\n\nworld\0").as_bytes());
        ana.message().has("subscription", "1").says("hello\n\nworld");
    }),
    statement("STOMP 1.2, 'STOMP Frames'", "lines may end in CR LF", |stage| {
        let mut ana = stage.stranger();
        ana.log_in(
            &connect(&stage.name("crlf"), Agent, "accept-version:1.2\n").replace('\n', "\r\n"),
        );
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        ana.bytes(format!("SEND\r\ndestination:{topic}\r\nk:v\r\n\r\nx\r\ny\0").as_bytes());
        ana.message().has("k", "v").says("x\r\ny");
    }),
    statement("STOMP 1.2, 'STOMP Frames'", "what the broker sends ends its lines in LF", |stage| {
        let mut ana = stage.stranger();
        let connected = ana.log_in(&connect(&stage.name("crlf"), Agent, "accept-version:1.2\r\n"));
        assert!(connected.lines.iter().all(|(_, value)| !value.contains('\r')), "{connected}");
    }),
    statement("STOMP 1.2, 'Augmented BNF'", "line ends may stand between frames", |stage| {
        let mut ana = stage.stranger();
        let login = connect(&stage.name("ends"), Agent, "accept-version:1.2\n");
        ana.log_in(&format!("\n\r\n\n{login}"));
        ana.bytes(b"\n\n\r\n\nBEGIN\ntransaction:t\nreceipt:1\n\n\0\r\n\r\n\n");
        ana.bytes(b"\nABORT\ntransaction:t\nreceipt:2\n\n\0\n");
        ana.await_receipt("1");
        ana.await_receipt("2");
    }),
    statement("STOMP 1.2, 'Augmented BNF'", "a CR by itself is no line end", |stage| {
        let mut ana = stage.agent();
        ana.bytes(b"\rBEGIN\ntransaction:t\n\n\0");
        ana.fails("INVALID_FORMAT_FRAME");
    }),
    statement("STOMP 1.2, 'STOMP Frames'", "commands are case-sensitive", |stage| {
        stage.agent().refused("send\ndestination:/topic/a\n\n", "UNKNOWN_COMMAND");
        stage.agent().refused("Begin\ntransaction:t\n\n", "UNKNOWN_COMMAND");
    }),
    statement(
        "STOMP 1.2, 'Client Frames'",
        "commands of a server are none of a client's",
        |stage| {
            for command in ["MESSAGE", "RECEIPT", "ERROR", "CONNECTED"] {
                stage.agent().refused(&format!("{command}\n\n"), "UNKNOWN_COMMAND");
            }
        },
    ),
    statement("STOMP 1.2, 'Client Frames'", "a blank is part of a command", |stage| {
        stage.agent().refused("BEGIN \ntransaction:t\n\n", "UNKNOWN_COMMAND");
        stage.agent().refused(" BEGIN\ntransaction:t\n\n", "UNKNOWN_COMMAND");
    }),
    statement("STOMP 1.2, 'STOMP Frames'", "a frame may arrive byte by byte", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        for byte in format!("SEND\ndestination:{topic}\n\nslow\0").bytes() {
            ana.bytes(&[byte]);
        }
        ana.message().says("slow");
    }),
    statement("STOMP 1.2, 'STOMP Frames'", "several frames may arrive at once", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        let frames: String =
            (0..50).map(|n| format!("SEND\ndestination:{topic}\n\n{n}\0\n")).collect();
        ana.bytes(frames.as_bytes());
        let expected: Vec<_> = (0..50).map(|n| n.to_string()).collect();
        assert_eq!(ana.bodies(50), expected);
    }),
    statement("STOMP 1.2, 'Header content-length'", "bytes are counted, not characters", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        ana.say(&format!("SEND\ndestination:{topic}\ncontent-length:8\n\n¡señal"));
        ana.message().has("content-length", "8").says("¡señal");
    }),
    statement("STOMP 1.2, 'Header content-length'", "NULs may stand in a body with it", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        ana.say(&format!("SEND\ndestination:{topic}\ncontent-length:5\n\na\0b\0c"));
        ana.message().has("content-length", "5").says("a\0b\0c");
    }),
    statement("STOMP 1.2, 'Header content-length'", "a NUL is needed even so", |stage| {
        let mut ana = stage.agent();
        ana.bytes(b"SEND\ndestination:/topic/a\ncontent-length:2\n\nabc\0");
        ana.fails("INVALID_FORMAT_FRAME");
    }),
    statement("STOMP 1.1, 'SEND'", "without it the first NUL ends the frame", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        ana.bytes(format!("SEND\ndestination:{topic}\n\none\0").as_bytes());
        ana.message().says("one");
    }),
    statement("STOMP 1.2, 'Header content-length'", "it is a number", |stage| {
        for length in ["x", "-1", "1.5", "", "99999999999999999999999"] {
            let frame = format!("SEND\ndestination:/topic/a\ncontent-length:{length}\n\nb");
            stage.agent().refused(&frame, "UNKNOWN_FORMAT_HEADER");
        }
    }),
    statement("STOMP 1.2, 'MESSAGE'", "a MESSAGE has the content-length of its body", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        ana.tell(&topic, "añb");
        ana.message().has("content-length", "4");
        ana.tell(&topic, "");
        ana.message().has("content-length", "0").says("");
    }),
    statement("STOMP 1.2, 'Body'", "every byte of a body passes untouched", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        let body: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        let head = format!("SEND\ndestination:{topic}\ncontent-length:512\n\n");
        ana.bytes(&[head.as_bytes(), &body, b"\0"].concat());
        assert_eq!(ana.message().body, body);
    }),
    statement("STOMP 1.2, 'Body'", "only SEND may have a body", |stage| {
        let bodies = [
            "SUBSCRIBE\nid:0\ndestination:/topic/a\n\nbody",
            "UNSUBSCRIBE\nid:0\n\nbody",
            "BEGIN\ntransaction:t\n\nbody",
            "ACK\nid:0-1\n\nbody",
            "DISCONNECT\n\nbody",
        ];
        for frame in bodies {
            stage.agent().refused(frame, "INVALID_FORMAT_FRAME");
            stage.client(Agent, "1.1").refused(frame, "INVALID_FORMAT_FRAME");
        }
        let login = connect(&stage.name("body"), Agent, "");
        stage.stranger().refused(&format!("{login}body"), "INVALID_FORMAT_FRAME");
    }),
    statement("STOMP 1.0, 'SUBSCRIBE'", "the body of a SUBSCRIBE is ignored", |stage| {
        let mut ana = stage.client(Agent, "1.0");
        let topic = stage.topic();
        ana.ask(&format!("SUBSCRIBE\ndestination:{topic}\n\nignored"));
        ana.tell(&topic, "heard");
        ana.message().says("heard");
    }),
    statement("Ours, 'Standard dialect'", "content-length:0 may stand on any frame", |stage| {
        let mut ana = stage.service();
        let queue = stage.queue();
        let more = "content-length:0\n";
        ana.subscribe("0", &queue, &format!("ack:client\n{more}"));
        ana.tell(&queue, "one");
        let id = ana.message().get("ack").unwrap().to_owned();
        ana.ask(&format!("NACK\nid:{id}\n{more}\n"));
        let id = ana.message().get("ack").unwrap().to_owned();
        ana.ask(&format!("ACK\nid:{id}\n{more}\n"));
        ana.ask(&format!("BEGIN\ntransaction:t\n{more}\n"));
        ana.ask(&format!("COMMIT\ntransaction:t\n{more}\n"));
        ana.ask(&format!("BEGIN\ntransaction:t\n{more}\n"));
        ana.ask(&format!("ABORT\ntransaction:t\n{more}\n"));
        ana.ask(&format!("UNSUBSCRIBE\nid:0\n{more}\n"));
        ana.ask(&format!("DISCONNECT\n{more}\n"));
    }),
    statement("Ours, 'Standard dialect'", "so may a negative one, without a body", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &topic, "content-length:-1\n");
        ana.ask(&format!("SEND\ndestination:{topic}\ncontent-length:-1\n\n"));
        ana.message().has("content-length", "0").says("");
        let frame = format!("SEND\ndestination:{topic}\ncontent-length:-1\n\nx");
        ana.refused(&frame, "UNKNOWN_FORMAT_HEADER");
    }),
    statement("Ours, 'Standard dialect'", "a bodiless frame may lack its empty line", |stage| {
        let login = connect(&stage.name("login"), Agent, "accept-version:1.2\n");
        let mut ana = stage.stranger();
        ana.log_in(login.strip_suffix('\n').unwrap());
        let topic = stage.topic();
        ana.say(&format!("SUBSCRIBE\nid:0\ndestination:{topic}\nreceipt:s\n"));
        ana.await_receipt("s");
        assert_eq!(ana.tell(&topic, "x"), 1);
        ana.message().says("x");
        ana.say("UNSUBSCRIBE\nid:0\nreceipt:u\n");
        ana.await_receipt("u");
        ana.bytes(b"DISCONNECT\nreceipt:bye\n\0");
        ana.expect("RECEIPT").has("receipt-id", "bye");
        ana.ends();
        // A SEND could have lost its body.
        stage.agent().refused(&format!("SEND\ndestination:{topic}\n"), "UNKNOWN_FORMAT_HEADER");
    }),
    statement("Ours, 'Standard dialect'", "100 header lines are ordinary", |stage| {
        let mut ana = stage.agent();
        let topic = stage.topic();
        ana.subscribe("0", &topic, "");
        let lines: String = (0..200).map(|n| format!("k{n}:v\n")).collect();
        assert_eq!(ana.tell_with(&topic, &lines, ""), 1);
        ana.message().has("k199", "v");
    }),
    statement("STOMP 1.2, 'Size Limits'", "the number of header lines is bounded", |stage| {
        let lines = "k:v\n".repeat(20);
        let error = stage
            .strict()
            .agent()
            .refused(&format!("SEND\n{lines}destination:/topic/open/a\n\n"), "LIMIT_EXCEEDED");
        assert!(error.get("message").unwrap().contains("header_count_max"), "{error}");
    }),
    statement("STOMP 1.2, 'Size Limits'", "so is the header of a frame that goes on", |stage| {
        let mut ana = stage.strict().agent();
        ana.bytes(format!("SEND\nk:{}", "x".repeat(5000)).as_bytes());
        let error = ana.fails("LIMIT_EXCEEDED");
        assert!(error.get("message").unwrap().contains("header_bytes_max"), "{error}");
    }),
    statement("STOMP 1.2, 'Size Limits'", "so is a body that is only announced", |stage| {
        let mut ana = stage.strict().agent();
        ana.bytes(b"SEND\ndestination:/topic/open/a\ncontent-length:65537\n\n");
        let error = ana.fails("LIMIT_EXCEEDED");
        assert!(error.get("message").unwrap().contains("body_bytes_max"), "{error}");
    }),
    statement("STOMP 1.2, 'Size Limits'", "so is a body that goes on without a NUL", |stage| {
        let mut ana = stage.strict().agent();
        ana.bytes(b"SEND\ndestination:/topic/open/a\n\n");
        for _ in 0..70 {
            ana.bytes(&[b'x'; 1000]);
        }
        ana.fails("LIMIT_EXCEEDED");
    }),
    statement("STOMP 1.2, 'Size Limits'", "a body as large as allowed passes", |stage| {
        let stage = stage.strict();
        let mut ana = stage.agent();
        let topic = stage.name("/topic/open/t");
        ana.subscribe("0", &topic, "");
        ana.tell(&topic, &"x".repeat(64 * 1024));
        ana.message().has("content-length", "65536");
    }),
    statement("Ours, 'Standard dialect'", "before the login the bounds are far smaller", |stage| {
        let stage = stage.strict();
        let long = format!("k:{}\naccept-version:1.2\n", "x".repeat(1100));
        let text = connect(&stage.name("long"), Agent, &long);
        let error = stage.stranger().refused(&text, "LIMIT_EXCEEDED");
        assert!(error.get("message").unwrap().contains("login_frame_bytes_max"), "{error}");
    }),
];
