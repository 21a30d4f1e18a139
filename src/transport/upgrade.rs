//! The HTTP request at the beginning of a connection, and the upgrade to WebSocket.
//!
//! httparse reads it, because tungstenite's handshake refuses requests that arrive in small pieces,
//! bytes behind the request, lists in several lines, and HTTP/1.0.

use tungstenite::handshake::derive_accept_key;

use super::request::{HeadFault, NO_LINES, PlainRequest, RequestHead};
use super::{Dialect, Protocols, TransportFault};

/// The request of one connection, while it arrives.
#[derive(Debug)]
pub struct UpgradeLayer {
    protocols: Protocols,
    pending: Vec<u8>,
    /// Bytes of `pending` that were searched for the end; `examined ≤ pending.len()`.
    examined: usize,
}

/// What a request turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Upgraded {
    /// More bytes have to arrive.
    Partial,
    /// An upgrade to WebSocket; the answer is in the control bytes.
    WebSocket(Dialect),
    /// A request without an upgrade, which has to be answered.
    Request(PlainRequest),
}

impl UpgradeLayer {
    /// A request that begins with `pending`.
    pub fn new(protocols: Protocols, pending: Vec<u8>) -> Self {
        Self { protocols, pending, examined: 0 }
    }

    /// Takes the request out of `wire` and leaves what follows it there.
    ///
    /// # Errors
    /// The request is malformed, too large, or asks for what is not served. The refusal is in the
    /// control bytes.
    pub fn next_request(
        &mut self,
        wire: &mut &mut [u8],
        bytes_max: u32,
        control: &mut Vec<u8>,
    ) -> Result<Upgraded, TransportFault> {
        let before = self.pending.len();
        self.pending.extend_from_slice(wire);
        let end = find_end(&self.pending, self.examined.saturating_sub(END_BYTES_MAX - 1));
        self.examined = self.pending.len();
        if end.unwrap_or(self.pending.len()) > bytes_max as usize {
            let why = "The request is too large";
            return Err(self.refuse(control, "431 Request Header Fields Too Large", why));
        }
        let Some(end) = end else {
            *wire = &mut [];
            return Ok(Upgraded::Partial);
        };
        *wire = &mut std::mem::take(wire)[end - before..];
        self.pending.truncate(end);
        match self.read(control) {
            Ok(upgraded) => Ok(upgraded),
            Err(Refusal { status, why }) => Err(self.refuse(control, status, why)),
        }
    }

    /// Answers a request that did not arrive in time.
    pub(super) fn refuse_late(&self, limit: &str, control: &mut Vec<u8>) {
        let why = format!("The request did not arrive in time ({limit})");
        self.write_refusal(control, "408 Request Timeout", &why);
    }

    /// Memory that is held for the request.
    pub fn held_bytes(&self) -> usize {
        self.pending.capacity()
    }

    fn read(&self, control: &mut Vec<u8>) -> Result<Upgraded, Refusal> {
        let mut lines = NO_LINES;
        let head = RequestHead::parse(&self.pending, &mut lines)?;
        let plain = head.plain()?;
        let is_served = self.protocols.ws || self.protocols.http;
        if !is_served || !head.asks_for_websocket() {
            return Ok(Upgraded::Request(plain));
        }
        if !self.protocols.ws {
            let why = "WebSocket is not served on this port";
            return Err(Refusal { status: "403 Forbidden", why });
        }
        let key = check_upgrade(&head)?;
        let (dialect, subprotocol) = choose(&head);
        write_acceptance(control, key, subprotocol);
        Ok(Upgraded::WebSocket(dialect))
    }

    fn refuse(
        &self,
        control: &mut Vec<u8>,
        status: &'static str,
        why: &'static str,
    ) -> TransportFault {
        self.write_refusal(control, status, why);
        TransportFault::BadRequest(why)
    }

    fn write_refusal(&self, control: &mut Vec<u8>, status: &str, why: &str) {
        let lines = match status {
            // RFC 6455, 4.2.2: the answer names the versions that are understood.
            WRONG_VERSION => UPGRADE_LINES,
            _ => "",
        };
        // RFC 9110, 9.3.2: the answer to HEAD has no body, not even in an error.
        let is_head = self.pending.starts_with(b"HEAD ");
        let body = format!("{why}\n");
        control.extend_from_slice(&response(status, TEXT, lines, body.as_bytes(), is_head));
    }
}

/// Why a request is refused: the status and a sentence for the body.
struct Refusal {
    status: &'static str,
    why: &'static str,
}

impl Refusal {
    fn bad(why: &'static str) -> Self {
        Self { status: "400 Bad Request", why }
    }
}

impl From<HeadFault> for Refusal {
    fn from(fault: HeadFault) -> Self {
        match fault {
            HeadFault::Malformed(why) => Self::bad(why),
            HeadFault::TooManyLines => Self {
                status: "431 Request Header Fields Too Large",
                why: "The request has too many header lines",
            },
            HeadFault::Version => Self {
                status: "505 HTTP Version Not Supported",
                why: "HTTP/1.1 and HTTP/1.0 are spoken here",
            },
        }
    }
}

/// Bytes of the longest empty line with the line feed before it.
const END_BYTES_MAX: usize = 3;

/// End of the head, behind its empty line. RFC 9112, 2.2: a line feed alone may end a line.
fn find_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut feeds = memchr::memchr_iter(b'\n', &bytes[from..]).map(|at| from + at + 1);
    feeds.find_map(|next| match &bytes[next..] {
        [b'\n', ..] => Some(next + 1),
        [b'\r', b'\n', ..] => Some(next + 2),
        _ => None,
    })
}

/// Checks an upgrade to WebSocket by RFC 6455, 4.2.1, and returns its key.
fn check_upgrade<'a>(head: &RequestHead<'a>) -> Result<&'a [u8], Refusal> {
    if !head.lists("connection", b"upgrade") {
        let why = "The header Upgrade: websocket needs the header Connection: upgrade beside it, \
            which a proxy on the way may have dropped";
        return Err(Refusal::bad(why));
    }
    match head.only("sec-websocket-version") {
        Some(b"13") => {}
        Some(_) => {
            let why = "Version 13 of WebSocket is spoken here";
            return Err(Refusal { status: WRONG_VERSION, why });
        }
        None => return Err(Refusal::bad("One header Sec-WebSocket-Version is needed")),
    }
    if head.has_body() {
        return Err(Refusal::bad("A request for a WebSocket has no body"));
    }
    let key = head.only("sec-websocket-key").filter(|key| is_key(key));
    let why = "One header Sec-WebSocket-Key is needed, of 16 bytes in base64";
    key.ok_or_else(|| Refusal::bad(why))
}

const WRONG_VERSION: &str = "426 Upgrade Required";

/// Header lines of an answer that demands a WebSocket. RFC 9110, 7.8: `Upgrade` is a connection option
/// as well.
pub(crate) const UPGRADE_LINES: &str =
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";

/// Whether it is 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    matches!(key, [digits @ .., b'=', b'='] if digits.len() == 22 && digits.iter().all(is_digit))
}

/// Supported subprotocols, in order of preference.
const SUBPROTOCOLS: [(&str, Dialect); 4] = [
    ("v12.stomp", Dialect::Standard),
    ("v11.stomp", Dialect::Standard),
    ("v10.stomp", Dialect::Standard),
    ("stomp", Dialect::Classic),
];

/// The preferred subprotocol among those offered; `None` if none of them is supported.
fn choose(head: &RequestHead<'_>) -> (Dialect, Option<&'static str>) {
    let is_offered =
        |name: &str| head.list("sec-websocket-protocol").any(|offer| offer == name.as_bytes());
    let best = SUBPROTOCOLS.into_iter().find(|(name, _)| is_offered(name));
    best.map_or((Dialect::Standard, None), |(name, dialect)| (dialect, Some(name)))
}

/// RFC 6455, 4.2.2.
fn write_acceptance(control: &mut Vec<u8>, key: &[u8], subprotocol: Option<&str>) {
    let accept = derive_accept_key(key);
    let chosen =
        subprotocol.map_or_else(String::new, |name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{chosen}\r\n"
    );
    control.extend_from_slice(answer.as_bytes());
}

/// A whole HTTP response after which the connection closes; without the body if `is_head`. `lines` are
/// further header lines, each with its end.
pub(crate) fn response(
    status: &str,
    content_type: &str,
    lines: &str,
    body: &[u8],
    is_head: bool,
) -> Vec<u8> {
    let length = body.len();
    let mut out = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n{lines}\r\n"
    )
    .into_bytes();
    if !is_head {
        out.extend_from_slice(body);
    }
    out
}

/// The media type of plain text.
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::super::request::Method;
    use super::*;

    const UPGRADE: &str = "GET /any?x=1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n";

    fn request(text: &str) -> (Result<Upgraded, TransportFault>, String, String) {
        let mut bytes = text.as_bytes().to_vec();
        let mut wire = &mut bytes[..];
        let mut control = Vec::new();
        let result = UpgradeLayer::new(Protocols::ALL, Vec::new()).next_request(
            &mut wire,
            4096,
            &mut control,
        );
        (result, String::from_utf8(control).unwrap(), String::from_utf8(wire.to_vec()).unwrap())
    }

    #[test]
    fn the_subprotocol_decides_the_dialect_and_is_echoed() {
        let cases = [
            ("Sec-WebSocket-Protocol: stomp\r\n", Dialect::Classic, Some("stomp")),
            (
                "Sec-WebSocket-Protocol: v10.stomp ,, v12.stomp\r\n",
                Dialect::Standard,
                Some("v12.stomp"),
            ),
            (
                "sec-websocket-protocol: v10.stomp\r\nSec-WebSocket-Protocol: v11.stomp\r\n",
                Dialect::Standard,
                Some("v11.stomp"),
            ),
            ("Sec-WebSocket-Protocol: mqtt\r\n", Dialect::Standard, None),
            ("", Dialect::Standard, None),
        ];
        for (offer, dialect, echoed) in cases {
            let (result, answer, rest) = request(&format!("{UPGRADE}{offer}\r\nrest"));
            assert_eq!(result, Ok(Upgraded::WebSocket(dialect)), "{offer}");
            assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
            assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
            let line = echoed.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
            assert_eq!(answer.contains("Sec-WebSocket-Protocol"), line.is_some());
            assert!(line.is_none_or(|line| answer.contains(&line)), "{answer}");
            assert_eq!(rest, "rest", "bytes behind the request belong to the WebSocket");
        }
    }

    #[test]
    fn a_request_may_arrive_byte_by_byte() {
        let mut layer = UpgradeLayer::new(Protocols::ALL, Vec::new());
        let mut control = Vec::new();
        let text = format!("{UPGRADE}\r\n");
        for (index, byte) in text.bytes().enumerate() {
            let mut bytes = [byte];
            let mut wire = &mut bytes[..];
            let result = layer.next_request(&mut wire, 4096, &mut control).unwrap();
            assert_eq!(result == Upgraded::Partial, index + 1 < text.len());
        }
    }

    #[test]
    fn lists_of_an_upgrade_may_span_several_lines() {
        for (from, to) in [
            ("Connection: keep-alive, Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"),
            ("Connection: keep-alive, Upgrade", "CONNECTION:\t,UPGRADE ,"),
            ("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: WebSocket"),
            ("Upgrade: websocket", "Upgrade: h2c ,WEBSOCKET"),
            ("GET /any?x=1", "GET ws://broker.example/any"),
        ] {
            let text = format!("{}\r\n", UPGRADE.replace(from, to));
            assert_eq!(request(&text).0, Ok(Upgraded::WebSocket(Dialect::Standard)), "{to}");
        }
    }

    #[test]
    fn a_request_without_a_websocket_upgrade_is_plain() {
        let plain = |method, path: &str, is_too_old| {
            let path = path.into();
            let request = PlainRequest { method, path, accepts_html: false, is_too_old };
            Ok(Upgraded::Request(request))
        };
        for (text, method, path) in [
            ("GET /health HTTP/1.1\r\nHost: x\r\n\r\n", Method::Get, "/health"),
            ("HEAD /health?x HTTP/1.1\r\nHost: x\r\n\r\n", Method::Head, "/health"),
            ("GET /health HTTP/1.0\r\n\r\n", Method::Get, "/health"),
            ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", Method::Options, "*"),
            ("POST / HTTP/1.1\r\nHost: x\r\n\r\n", Method::Other, "/"),
            // RFC 9110, 7.8: other upgrades are ignored.
            (
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                 Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
                Method::Get,
                "/",
            ),
            (&(UPGRADE.replace("HTTP/1.1", "HTTP/1.0") + "\r\n"), Method::Get, "/any"),
            (&(UPGRADE.replace("GET", "HEAD") + "\r\n"), Method::Head, "/any"),
            (&(UPGRADE.replace("GET", "POST") + "\r\n"), Method::Other, "/any"),
        ] {
            let is_too_old = text.contains("HTTP/1.0") && text.contains("Upgrade");
            assert_eq!(request(text).0, plain(method, path, is_too_old), "{text}");
        }
    }

    #[test]
    fn a_bad_request_is_refused_with_its_status_and_reason() {
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let changed = |from: &str, to: &str| format!("{}\r\n", UPGRADE.replace(from, to));
        for (text, status) in [
            ("GET \u{1} HTTP/1.1\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
            ("GET / HTTP/2.0\r\nHost: x\r\n\r\n".to_owned(), "505"),
            (format!("GET /{} HTTP/1.1\r\n", "x".repeat(5000)), "431"),
            (format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(100)), "431"),
            (changed(": 13", ": 8"), "426"),
            (changed(": 13", ": 13, 8"), "426"),
            (changed("Sec-WebSocket-Version: 13\r\n", ""), "400"),
            (changed("keep-alive, Upgrade", "keep-alive"), "400"),
            (changed(key, ""), "400"),
            (changed(key, &key.repeat(2)), "400"),
            (changed("dGhl", "dGh"), "400"),
            (changed("dGhl", "dGh*"), "400"),
            (changed("Q==", "QQ="), "400"),
            (changed("Host: x", "Host: x\r\nContent-Length: 5"), "400"),
            (changed("Host: x", "Host: x\r\nTransfer-Encoding: chunked"), "400"),
        ] {
            let (result, answer, _) = request(&text);
            let start = format!("HTTP/1.1 {status} ");
            assert!(result.is_err() && answer.starts_with(&start), "{text}: {answer}");
            assert!(answer.ends_with('\n') && !answer.ends_with("\r\n\r\n"), "{answer}");
            assert_eq!(answer.contains("\r\nSec-WebSocket-Version: 13\r\n"), status == "426");
        }
    }

    #[test]
    fn rfc_9110_9_3_2_the_answer_to_head_has_no_body() {
        for rest in ["/ HTTP/1.1\r\n\r\n", "/ HTTP/9.9\r\n\r\n", "x HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let (result, answer, _) = request(&format!("HEAD {rest}"));
            assert!(result.is_err() && answer.ends_with("\r\n\r\n"), "{rest}: {answer}");
        }
    }
}
