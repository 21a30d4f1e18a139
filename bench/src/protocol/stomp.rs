//! Standard STOMP 1.2.

use memchr::{memchr, memmem};

use super::{Credentials, Envelope, Event, Login, Protocol, Scan, decimal, readable};
use crate::fault::Fault;

/// STOMP 1.2.
#[derive(Debug)]
pub struct Stomp {
    credentials: Credentials,
    /// The value of the header `host`.
    host: String,
}

impl Stomp {
    /// The protocol with these credentials; `host` is the virtual host unless they name one.
    pub fn new(credentials: Credentials, host: &str) -> Self {
        let host = credentials.virtual_host.clone().unwrap_or_else(|| host.into());
        Self { credentials, host }
    }
}

impl Protocol for Stomp {
    fn login(&self, login: &Login, out: &mut Vec<u8>) {
        let name = self.credentials.login_for(&login.name);
        let frame = format!(
            "CONNECT\naccept-version:1.2\nhost:{}\nheart-beat:0,0\nlogin:{}\npasscode:{}\n",
            self.host,
            name,
            self.credentials.passcode_for(login.role),
        );
        out.extend_from_slice(frame.as_bytes());
        if self.credentials.passcode.is_none() {
            let key = format!("secret-key:{}\n", self.credentials.application_key);
            out.extend_from_slice(key.as_bytes());
        }
        out.extend_from_slice(b"\n\0");
    }

    fn subscribe(&self, number: u32, destination: &str, out: &mut Vec<u8>) {
        let frame = format!(
            "SUBSCRIBE\nid:{number}\ndestination:{destination}\nack:auto\nreceipt:s{number}\n\n\0"
        );
        out.extend_from_slice(frame.as_bytes());
    }

    fn envelope(&self, destination: &str, body_bytes: usize) -> Envelope {
        let head = format!("SEND\ndestination:{destination}\ncontent-length:{body_bytes}\n\n");
        Envelope::new(head.into_bytes(), b"\0")
    }

    #[inline]
    fn scan<'a>(&self, bytes: &'a [u8]) -> Result<Scan<'a>, Fault> {
        // Line ends between frames are heart-beats or padding.
        let blank = bytes.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
        if blank == bytes.len() {
            return Ok(Scan::Partial);
        }
        let frame = &bytes[blank..];
        let Some((headers, body_at)) = split_headers(frame) else { return Ok(Scan::Partial) };
        let body = &frame[body_at..];
        let length = match content_length(headers)? {
            Some(length) if body.len() <= length => return Ok(Scan::Partial),
            Some(length) if body[length] != 0 => {
                return Err(Fault::Malformed("a frame that does not end in NUL"));
            }
            Some(length) => length,
            None => match memchr(0, body) {
                Some(length) => length,
                None => return Ok(Scan::Partial),
            },
        };
        let event = event_of(headers, &body[..length]);
        Ok(Scan::Whole(blank + body_at + length + 1, event))
    }

    fn destination_template(&self) -> &'static str {
        "/topic/{}"
    }
}

/// Command and header lines without the blank line, and the start of the body.
fn split_headers(frame: &[u8]) -> Option<(&[u8], usize)> {
    let end = memmem::find(frame, b"\n\n");
    // RabbitMQ and ActiveMQ end lines in LF; CRLF is allowed since 1.2.
    match end {
        Some(end) => Some((&frame[..=end], end + 2)),
        None => memmem::find(frame, b"\n\r\n").map(|end| (&frame[..=end], end + 3)),
    }
}

fn content_length(headers: &[u8]) -> Result<Option<usize>, Fault> {
    const NAME: &[u8] = b"\ncontent-length:";
    let Some(at) = memmem::find(headers, NAME) else { return Ok(None) };
    let rest = &headers[at + NAME.len()..];
    let line = &rest[..memchr(b'\n', rest).unwrap_or(rest.len())];
    let digits = line.strip_suffix(b"\r").unwrap_or(line);
    decimal(digits).map(Some).ok_or(Fault::Malformed("a content-length that is no number"))
}

#[inline]
fn event_of<'a>(headers: &[u8], body: &'a [u8]) -> Event<'a> {
    if headers.starts_with(b"MESSAGE") {
        Event::Message(body)
    } else if headers.starts_with(b"CONNECTED") || headers.starts_with(b"RECEIPT") {
        Event::Confirmed
    } else {
        Event::Refused(readable(&[headers, body].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::super::testing::{events, login, published};
    use super::*;

    fn stomp() -> Stomp {
        Stomp::new(Credentials::default(), "localhost")
    }

    #[test]
    fn login_and_host_can_be_set() {
        let credentials = Credentials {
            login: Some("guest".into()),
            passcode: Some("secret".into()),
            virtual_host: Some("/".into()),
            ..Credentials::default()
        };
        let text = login(&Stomp::new(credentials, "localhost"), "bench-1", Role::Service);
        assert!(text.contains("\nhost:/\n"), "{text}");
        assert!(text.contains("\nlogin:guest\npasscode:secret\n\n\0"), "{text}");
        assert!(login(&stomp(), "bench-1", Role::Service).contains("\nlogin:bench-1\n"));
    }

    #[test]
    fn a_body_is_in_a_frame_with_its_length() {
        let frame = published(&stomp(), "/topic/a", b"hello");
        assert_eq!(frame, b"SEND\ndestination:/topic/a\ncontent-length:5\n\nhello\0");
    }

    #[test]
    fn frames_are_separated() {
        let bytes = b"CONNECTED\nversion:1.2\n\n\0\n\nMESSAGE\ncontent-length:3\nid:1\n\na\0b\0\n\
            RECEIPT\nreceipt-id:s0\n\n\0MESSAGE\r\nid:2\r\n\r\nhi\0";
        let found = events(&stomp(), bytes);
        assert_eq!(found, ["Confirmed", "message a\0b", "Confirmed", "message hi"]);
    }

    #[test]
    fn an_error_is_quoted() {
        let Scan::Whole(_, Event::Refused(text)) =
            stomp().scan(b"ERROR\nmessage:bad login\n\nsorry\0").unwrap()
        else {
            panic!("not refused");
        };
        assert_eq!(text, "ERROR, message:bad login, sorry");
    }
}
