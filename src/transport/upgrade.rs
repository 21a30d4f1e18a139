//! The HTTP request that begins a WebSocket, or that is answered as it is.
//!
//! tungstenite's own handshake machine refuses clients that send few octets at a time or anything
//! behind the request, with bounds that cannot be changed; its parser and its answer are used here
//! without it.

use tungstenite::Error;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};
use tungstenite::http::HeaderValue;

use super::{Dialect, Protocols, TransportError};

/// A request that is arriving.
#[derive(Debug)]
pub struct UpgradeLayer {
    protocols: Protocols,
    pending: Vec<u8>,
    /// How much of `pending` was searched for the end; `examined ≤ pending.len()`.
    examined: usize,
}

/// What a request turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Upgraded {
    /// More has to arrive.
    Partial,
    /// WebSocket; the answer is in the control octets.
    WebSocket(Dialect),
    /// A plain request, to be answered.
    Request(PlainRequest),
}

/// A GET or a HEAD that asks for no WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainRequest {
    /// What is asked for.
    pub path: String,
    /// Whether only the head of the answer is wanted.
    pub is_head: bool,
}

impl UpgradeLayer {
    /// A request of which `pending` has arrived.
    pub fn new(protocols: Protocols, pending: Vec<u8>) -> Self {
        Self { protocols, pending, examined: 0 }
    }

    /// Takes the request out of what was read; what follows it is left in `wire`.
    ///
    /// # Errors
    /// The request is none, is too large, or asks for what is not served. The answer that says so
    /// is in the control octets.
    pub fn next_request(
        &mut self,
        wire: &mut &mut [u8],
        bytes_max: u32,
        control: &mut Vec<u8>,
    ) -> Result<Upgraded, TransportError> {
        let before = self.pending.len();
        self.pending.extend_from_slice(wire);
        let search_from = self.examined.saturating_sub(END.len() - 1);
        let found = memchr::memmem::find(&self.pending[search_from..], END);
        self.examined = self.pending.len();
        let end = found.map(|at| search_from + at + END.len());
        if end.unwrap_or(self.pending.len()) > bytes_max as usize {
            refuse(control, "431 Request Header Fields Too Large", "The request is too large");
            return Err(TransportError::BadRequest("the HTTP request is too large"));
        }
        let Some(end) = end else {
            *wire = &mut [];
            return Ok(Upgraded::Partial);
        };
        *wire = &mut std::mem::take(wire)[end - before..];
        self.pending.truncate(end);
        self.read(control)
    }

    /// Memory that is held for a request that is not whole.
    pub fn held_bytes(&self) -> usize {
        self.pending.capacity()
    }

    fn read(&mut self, control: &mut Vec<u8>) -> Result<Upgraded, TransportError> {
        let is_head = self.pending.starts_with(b"HEAD ");
        if is_head {
            // The parser takes nothing but GET, and the two differ in what is answered only.
            self.pending.splice(..HEAD.len(), GET);
        }
        let request = match Request::try_parse(&self.pending) {
            Ok(Some((_, request))) => request,
            Err(Error::Protocol(ProtocolError::WrongHttpMethod)) => {
                refuse_method(control);
                return Err(TransportError::BadRequest("an HTTP method other than GET and HEAD"));
            }
            Ok(None) | Err(_) => {
                refuse(control, "400 Bad Request", "This is no HTTP/1.1 request");
                return Err(TransportError::BadRequest("a malformed HTTP request"));
            }
        };
        if !request.headers().contains_key("upgrade") {
            let path = request.uri().path().to_owned();
            return Ok(Upgraded::Request(PlainRequest { path, is_head }));
        }
        if is_head {
            refuse_method(control);
            return Err(TransportError::BadRequest("a WebSocket upgrade by HEAD"));
        }
        if !self.protocols.ws {
            refuse(control, "403 Forbidden", "WebSocket is not served on this port");
            return Err(TransportError::NotServed("WebSocket"));
        }
        let version = request.headers().get("sec-websocket-version");
        if version.is_some_and(|version| version != "13") {
            // RFC 6455, 4.2.2: the answer names the versions that are understood.
            control.extend_from_slice(
                b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\n",
            );
            control.extend_from_slice(
                b"Upgrade: websocket\r\nConnection: Upgrade, close\r\nContent-Length: 0\r\n\r\n",
            );
            return Err(TransportError::BadRequest("a version of WebSocket other than 13"));
        }
        let mut response = match create_response(&request) {
            Ok(response) => response,
            Err(error) => {
                refuse(control, "400 Bad Request", &error.to_string());
                return Err(TransportError::BadRequest("a malformed WebSocket upgrade"));
            }
        };
        let (dialect, subprotocol) = choose(&request)?;
        if let Some(name) = subprotocol {
            let value = HeaderValue::from_static(name);
            response.headers_mut().insert("sec-websocket-protocol", value);
        }
        // Writing into memory does not fail, and all values are text.
        let _ = write_response(control, &response);
        Ok(Upgraded::WebSocket(dialect))
    }
}

const HEAD: &[u8] = b"HEAD";
const GET: [u8; 3] = *b"GET";

/// The blank line after the last header.
const END: &[u8] = b"\r\n\r\n";

/// The subprotocols that we speak, the best first.
const SUBPROTOCOLS: [(&str, Dialect); 4] = [
    ("v12.stomp", Dialect::Standard),
    ("v11.stomp", Dialect::Standard),
    ("v10.stomp", Dialect::Standard),
    ("stomp", Dialect::Classic),
];

/// The best subprotocol that is offered; none, if none of ours is.
fn choose(request: &Request) -> Result<(Dialect, Option<&'static str>), TransportError> {
    let offers = request.headers().get_all("sec-websocket-protocol");
    let offered = |name: &str| {
        offers
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|offer| offer.trim() == name)
    };
    let best = SUBPROTOCOLS.into_iter().find(|(name, _)| offered(name));
    Ok(best.map_or((Dialect::Standard, None), |(name, dialect)| (dialect, Some(name))))
}

fn refuse(control: &mut Vec<u8>, status: &str, why: &str) {
    control.extend_from_slice(&response(status, TEXT, why.as_bytes()));
}

/// RFC 9110, 15.5.6: a 405 says what is allowed.
fn refuse_method(control: &mut Vec<u8>) {
    let why = "Only GET and HEAD are served here";
    let head = head("405 Method Not Allowed", TEXT, "Allow: GET, HEAD\r\n", why.len());
    control.extend_from_slice(&head);
    control.extend_from_slice(why.as_bytes());
}

/// A whole HTTP response after which the connection closes.
pub fn response(status: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut out = head(status, content_type, "", body.len());
    out.extend_from_slice(body);
    out
}

/// The media type of plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// The head of an HTTP response after which the connection closes. `lines` are further header lines,
/// each with its end.
pub fn head(status: &str, content_type: &str, lines: &str, body_len: usize) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {body_len}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n{lines}\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPGRADE: &str = "GET /any?x=1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n";

    fn request(text: &str) -> (Result<Upgraded, TransportError>, String, String) {
        let mut octets = text.as_bytes().to_vec();
        let mut wire = &mut octets[..];
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
                "Sec-WebSocket-Protocol: v10.stomp, v12.stomp\r\n",
                Dialect::Standard,
                Some("v12.stomp"),
            ),
            (
                "Sec-WebSocket-Protocol: v10.stomp\r\nSec-WebSocket-Protocol: v11.stomp\r\n",
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
            let line = echoed.map(|name| format!("sec-websocket-protocol: {name}\r\n"));
            assert_eq!(answer.contains("sec-websocket-protocol"), line.is_some());
            assert!(line.is_none_or(|line| answer.contains(&line)), "{answer}");
            assert_eq!(rest, "rest", "what follows the request is the WebSocket's");
        }
    }

    #[test]
    fn a_request_may_arrive_octet_by_octet() {
        let mut layer = UpgradeLayer::new(Protocols::ALL, Vec::new());
        let mut control = Vec::new();
        let text = format!("{UPGRADE}\r\n");
        for (index, octet) in text.bytes().enumerate() {
            let mut octets = [octet];
            let mut wire = &mut octets[..];
            let result = layer.next_request(&mut wire, 4096, &mut control).unwrap();
            assert_eq!(result == Upgraded::Partial, index + 1 < text.len());
        }
    }

    #[test]
    fn what_is_no_upgrade_is_answered() {
        let (result, ..) = request("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
        let plain = |path: &str, is_head| PlainRequest { path: path.into(), is_head };
        assert_eq!(result, Ok(Upgraded::Request(plain("/health", false))));
        let (result, ..) = request("HEAD /health?x HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(result, Ok(Upgraded::Request(plain("/health", true))));
        let upgrade_by_head = UPGRADE.replace("GET", "HEAD") + "\r\n";
        let cases = [
            ("POST / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405 "),
            (&upgrade_by_head, "HTTP/1.1 405 "),
            ("GET / HTTP/1.0\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 400 "),
            ("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 400 "),
            ("GET \u{1} HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        ];
        for (text, expected) in cases {
            let (result, answer, _) = request(text);
            assert!(result.is_err() && answer.starts_with(expected), "{text}: {answer}");
        }
        let (result, answer, _) = request(&format!("{}\r\n", UPGRADE.replace(": 13", ": 8")));
        assert!(result.is_err() && answer.starts_with("HTTP/1.1 426 "), "{answer}");
        assert!(answer.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{answer}");
        let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(5000));
        assert!(request(&long).1.starts_with("HTTP/1.1 431 "));
    }
}
