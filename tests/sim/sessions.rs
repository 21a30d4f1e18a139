//! Whole sessions of clients, of every protocol and with every kind of end.

use com_broker::Profile;
use com_broker::internal::transport::{ListenerPolicy, Protocols, TlsMode};

/// The bytes of a client in a session, above TLS.
pub(crate) struct Session {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) policy: ListenerPolicy,
    /// Whether `connections_max` is reached already.
    pub(crate) is_surplus: bool,
}

impl Session {
    pub(crate) fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        let policy = ListenerPolicy::default();
        Self { name: name.into(), bytes: bytes.into(), policy, is_surplus: false }
    }

    fn on(self, protocols: Protocols, tls: TlsMode, listener: &str) -> Self {
        let name = format!("{}, {listener}", self.name);
        Self { name, policy: ListenerPolicy { protocols, tls }, ..self }
    }

    fn surplus(self) -> Self {
        Self { name: format!("{}, surplus", self.name), is_surplus: true, ..self }
    }

    pub(crate) fn is_representative(&self) -> bool {
        REPRESENTATIVES.contains(&&self.name[..])
    }
}

/// One session of each protocol, whose ciphertext is cut at every place.
pub(crate) const REPRESENTATIVES: [&str; 7] = [
    "standard 1.2",
    "standard 1.0",
    "standard 1.1",
    "classic",
    "GET /health HTTP/1.1",
    "WebSocket, classic",
    "WebSocket, standard",
];

/// All sessions.
pub(crate) fn sessions() -> Vec<Session> {
    let mut all = classic_sessions();
    all.extend(standard_sessions());
    all.extend(http_sessions());
    all.extend(websocket_sessions());
    all.extend(refused_sessions());
    all
}

/// Sessions that are longer than all buffers, one for each framing.
pub(crate) fn long_sessions() -> Vec<Session> {
    const TEXT: u8 = 0x81;
    let count = 150_000 / 1_500;
    let body = |number: usize| format!("{number} {}", "ñ".repeat(750));
    let classic = |number: usize| {
        let frame =
            format!("SEND\ndestination:/service/eye\ntransaction:{number}\n\n{}", body(number));
        frame.into_bytes()
    };
    let standard = |number: usize| {
        let frame =
            format!("SEND\ndestination:/service/eye\nreceipt:{number}\n\n{}\0", body(number));
        frame.into_bytes()
    };
    let numbers = 0..count;
    let all = |first: Vec<u8>, next: &dyn Fn(usize) -> Vec<u8>| {
        [vec![first], numbers.clone().map(next).collect()].concat().concat()
    };
    let login = standard_connect("1.2").into_bytes();
    let upgraded = |subprotocol, login: &[u8]| [upgrade(subprotocol), masked(TEXT, login)].concat();
    vec![
        Session::new(
            "classic, long",
            all(envelope(&connect("ana", 0)), &|number| envelope(&classic(number))),
        ),
        Session::new("standard, long", all(login.clone(), &standard)),
        Session::new(
            "WebSocket, classic, long",
            all(upgraded("stomp", &connect("ana", 0)), &|number| masked(TEXT, &classic(number))),
        ),
        Session::new(
            "WebSocket, standard, long",
            all(upgraded("v12.stomp", &login), &|number| masked(TEXT, &standard(number))),
        ),
    ]
}

fn classic_sessions() -> Vec<Session> {
    let login = envelope(&connect("ana", 0));
    let text = "SEND\ndestination:/agent/ana\ntransaction:1\n\nñandú €";
    let flagged = |flag: u8| {
        let frame = "SEND\ndestination:/service/eye\ntransaction:2\n\nseñal";
        let length = (frame.len() as u32).to_be_bytes();
        [&[flag], &length[..], frame.as_bytes()].concat()
    };
    let talk = [
        login.clone(),
        envelope(text.as_bytes()),
        flagged(1),
        flagged(2),
        flagged(128),
        envelope(b"SUBSCRIBE\ndestination:/topic/t\ndestination-type:0\ntransaction:3\n\n"),
        envelope("SEND\ndestination:/topic/t\n\nseñal\0".as_bytes()),
        envelope(b"SEND\ndestination:/agent/nobody\ntransaction:4\n\n"),
        envelope(b"DISCONNECT\nreceipt-id:5\n\n"),
    ];
    let fault = |last: &[u8]| [&login[..], &envelope(text.as_bytes()), last, &login].concat();
    vec![
        Session::new("classic", talk.concat()),
        Session::new("classic, flag 2 first", [flagged(2), login.clone()].concat()),
        Session::new("classic, unknown command", fault(&envelope(b"FLY\n\n"))),
        Session::new("classic, no length", fault(&[0; 5])),
        Session::new("classic, too long", fault(&[1, 0x7f, 0, 0, 0])),
        Session::new("classic, a torn end", fault(b"\0\xff\0\0\0SEND\n")),
        Session::new(
            "classic, wrong key",
            envelope(b"CONNECT\nlogin:a\npasscode:b\nsecret-key:c\n\n"),
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table of sessions")]
fn standard_sessions() -> Vec<Session> {
    let mut all = Vec::new();
    for version in ["1.0", "1.1", "1.2"] {
        all.push(Session::new(format!("standard {version}"), standard_talk(version)));
    }
    let login = standard_connect("1.2");
    let before = |bytes: &str| {
        Session::new(
            format!("standard, {bytes:?} first"),
            [
                bytes.as_bytes(),
                login.as_bytes(),
                b"SUBSCRIBE\nid:0\nreceipt:r\ndestination:/topic/t\n\n\0",
            ]
            .concat(),
        )
    };
    all.extend(["\n", "\n\n\n", "\r\n", "\r\n\n\r\n"].map(before));
    let crlf =
        login.replace('\n', "\r\n") + "\r\nBEGIN\r\ntransaction:t\r\nreceipt:r\r\n\r\n\0\r\n";
    all.push(Session::new("standard, CRLF", crlf));
    let stomp = login.replacen("CONNECT", "STOMP", 1) + "BEGIN\ntransaction:t\nreceipt:r\n\n\0";
    all.push(Session::new("standard, STOMP", stomp));
    for last in [
        "NOTHING\n\n\0",
        "SEND\nno colon\n\n\0",
        "SEND\nno colon\nreceipt:late\n\n\0",
        "SEND\nreceipt:early\nno colon\n\n\0",
        "SEND\ndestination:/topic/x\nreceipt:r9\ncontent-length:1\n\nxy\0",
        "SEND\nreceipt:r9\ndestination:/topic/\u{1}\\q\n\n\0",
        "SEND\ndestination:/topic/x\n\n\0\rSEND\n\n\0",
        "CONNECT\n\n\0",
        "DISCONNECT\n\n\0SEND\n\n\0",
        "SEND\ncontent-length:9999\n\n\0",
    ] {
        let bytes = format!("{login}BEGIN\ntransaction:t\nreceipt:r\n\n\0{last}{login}");
        all.push(Session::new(format!("standard, {last:?} last"), bytes));
    }
    for first in [
        "CONNECT\nx",
        "CONNECTED\n\n\0",
        "CONNECTx\n\n\0",
        "connect\n\n\0",
        "GETX\n\n\0",
        "DELETE\n\n\0",
        "POST\n\n\0",
        "SEND\ndestination:/topic/x\n\nearly\0",
        "CONNECT\nlogin:x\npasscode:y\n\n\0",
        "\rCONNECT\n\n\0",
    ] {
        all.push(Session::new(format!("standard, {first:?}"), format!("{first}\n{login}")));
    }
    all
}

fn http_sessions() -> Vec<Session> {
    let mut all = Vec::new();
    for (line, more) in [
        ("GET /health HTTP/1.1", "Host: x\r\n\r\n"),
        ("GET /health HTTP/1.0", "\r\n"),
        ("HEAD /health HTTP/1.1", "Host: x\r\n\r\n"),
        ("GET / HTTP/1.1", "Host: x\r\nAccept: text/html\r\n\r\n"),
        ("GET /nothing HTTP/1.1", "Host: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"),
        ("POST / HTTP/1.1", "Host: x\r\nContent-Length: 5\r\n\r\nhello"),
        ("PUT / HTTP/1.1", "Host: x\r\n\r\nGET /health HTTP/1.1\r\n\r\n"),
        ("DELETE / HTTP/1.1", "Host: x\r\n\r\n"),
        ("PATCH / HTTP/1.1", "Host: x\r\n\r\n"),
        ("TRACE / HTTP/1.1", "Host: x\r\n\r\n"),
        ("OPTIONS * HTTP/1.1", "Host: x\r\n\r\n"),
        ("CONNECT x:80 HTTP/1.1", "Host: x:80\r\n\r\n"),
        ("CONNECT x", "\r\n\r\n"),
        ("GET / HTTP/1.1", "\r\n"),
        ("GET / HTTP/3.7", "\r\n"),
        ("GET / HTTP/1.1", "Host: x\r\n folded\r\n\r\n"),
        ("GET /health HTTP/1.1", "Host: x\n\nrest"),
    ] {
        let name =
            if more == "Host: x\r\n\r\n" { line.to_owned() } else { format!("{line} {more:?}") };
        all.push(Session::new(name, format!("{line}\r\n{more}")));
    }
    all.push(Session::new("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    all.push(Session::new("a long request", format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1000))));
    all
}

#[expect(clippy::too_many_lines, reason = "a table of sessions")]
fn websocket_sessions() -> Vec<Session> {
    const TEXT: u8 = 0x81;
    const BINARY: u8 = 0x82;
    let close = masked(0x88, &1000_u16.to_be_bytes());
    let ping = masked(0x89, b"are you there");
    let classic = [upgrade("stomp"), masked(TEXT, &connect("ana", 0))].concat();
    let send = b"SEND\ndestination:/service/eye\ntransaction:1\n\nhello\0";
    let fragments = [masked(0x01, &send[..20]), ping.clone(), masked(0x80, &send[20..])].concat();
    let mut all = vec![Session::new(
        "WebSocket, classic",
        [
            classic.clone(),
            masked(TEXT, send),
            fragments,
            masked(BINARY, b"SEND\ndestination:/agent/ana\n\n\xff\0"),
            masked(TEXT, b"SEND\ndestination:/agent/ana\n\nlast\0"),
            close.clone(),
            masked(TEXT, send),
        ]
        .concat(),
    )];
    let standard =
        [upgrade("v12.stomp"), masked(TEXT, standard_connect("1.2").as_bytes())].concat();
    let talk = standard_talk("1.2");
    let (first, second) = talk.split_at(talk.len() / 2);
    all.push(Session::new(
        "WebSocket, standard",
        [
            upgrade("v10.stomp, v12.stomp"),
            masked(TEXT, first),
            ping,
            masked(TEXT, second),
            close.clone(),
        ]
        .concat(),
    ));
    let binary = [upgrade(""), masked(BINARY, &talk), close.clone()].concat();
    all.push(Session::new("WebSocket, standard, binary", binary));
    for (name, begun) in [("classic", &classic), ("standard", &standard)] {
        for (what, last) in [
            ("not masked", b"\x81\x02hi".to_vec()),
            ("a reserved bit", masked(0xc1, b"x")),
            ("no text", masked(TEXT, b"\xff")),
            ("too long", masked(BINARY, &[b'x'; 30_000])[..200].to_vec()),
            ("an error", masked(TEXT, b"FLY\n\n\0")),
            (
                "an error between fragments",
                [masked(0x01, b"FLY\n\n\0"), masked(0x80, b"FLY\n\n\0")].concat(),
            ),
            ("a logout", masked(TEXT, b"DISCONNECT\nreceipt:1\nreceipt-id:1\n\n\0")),
            ("a close by itself", Vec::new()),
        ] {
            let bytes = [&begun[..], &last, &close, &masked(TEXT, send)].concat();
            all.push(Session::new(format!("WebSocket, {name}, {what}"), bytes));
        }
    }
    all
}

/// Connections that a listener does not serve, or beyond `connections_max`.
fn refused_sessions() -> Vec<Session> {
    let speak = || {
        [
            Session::new("classic", envelope(&connect("ana", 0))),
            Session::new("standard", standard_connect("1.2")),
            Session::new("HTTP", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"),
            Session::new("HEAD", "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"),
            Session::new(
                "WebSocket",
                [upgrade("stomp"), masked(0x81, &connect("ana", 0))].concat(),
            ),
            Session::new("WebSocket 1.2", {
                [upgrade("v12.stomp"), masked(0x81, standard_connect("1.2").as_bytes())].concat()
            }),
        ]
    };
    let none = Protocols::NONE;
    let mut all: Vec<_> = speak().into_iter().map(Session::surplus).collect();
    for (protocols, tls, listener) in [
        (none, TlsMode::Optional, "nothing served"),
        (Protocols { ws: true, ..none }, TlsMode::Optional, "WebSocket served"),
        (Protocols { http: true, ..none }, TlsMode::Optional, "HTTP served"),
        (Protocols::ALL, TlsMode::Required, "TLS required"),
    ] {
        all.extend(speak().into_iter().map(|session| session.on(protocols, tls, listener)));
    }
    all
}

/// A classic CONNECT.
pub(crate) fn connect(login: &str, profile: usize) -> Vec<u8> {
    let (key, application) =
        (crate::rig::PROFILE_KEYS[Profile::ALL[profile]], crate::rig::APPLICATION_KEY);
    format!("CONNECT\nlogin:{login}\npasscode:{key}\nsecret-key:{application}\n\n").into_bytes()
}

/// A frame of the classic dialect in its envelope.
pub(crate) fn envelope(frame: &[u8]) -> Vec<u8> {
    [&[0], &(frame.len() as u32).to_le_bytes()[..], frame].concat()
}

/// A CONNECT of the standard dialect, with its NUL.
pub(crate) fn standard_connect(version: &str) -> String {
    let login = String::from_utf8(connect("ana", 0)).unwrap();
    let versions =
        if version == "1.0" { String::new() } else { format!("accept-version:{version}\n") };
    login.replacen('\n', &format!("\n{versions}host:x\n"), 1) + "\0\n"
}

fn standard_talk(version: &str) -> Vec<u8> {
    let login = standard_connect(version);
    let tell = "SEND\ndestination:/topic/a.b\ncontent-length:5\nreceipt:r2\n\na\0b\n\n\0\n\r\n";
    let held =
        "BEGIN\ntransaction:t\n\n\0SEND\ndestination:/service/eye\ntransaction:t\n\nseñal\0\n";
    format!(
        "{login}SUBSCRIBE\nid:0\ndestination:/topic/a.*\nreceipt:r1\n\n\0\n{tell}{held}\
         COMMIT\ntransaction:t\n\n\0\n\nSEND\ndestination:/agent/nobody\nreceipt:r3\nx:a\\c\n\nñ\0\
         DISCONNECT\nreceipt:r4\n\n\0\n"
    )
    .into_bytes()
}

/// A request for a WebSocket.
pub(crate) fn upgrade(subprotocols: &str) -> Vec<u8> {
    let offer = match subprotocols {
        "" => String::new(),
        names => format!("Sec-WebSocket-Protocol: {names}\r\n"),
    };
    format!(
        "GET /stomp?x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n"
    )
    .into_bytes()
}

/// A frame as a WebSocket client sends it.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}
