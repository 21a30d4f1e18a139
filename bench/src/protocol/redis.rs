//! Redis publish and subscribe, in RESP 2.

use memchr::memchr;

use super::{Credentials, Envelope, Event, Login, Protocol, Scan, decimal, readable};
use crate::fault::Fault;

/// Redis.
#[derive(Debug)]
pub struct Redis {
    credentials: Credentials,
}

impl Redis {
    /// The protocol with these credentials.
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials }
    }
}

impl Protocol for Redis {
    fn login(&self, _login: &Login, out: &mut Vec<u8>) {
        match (&self.credentials.passcode, &self.credentials.login) {
            (Some(passcode), Some(login)) => push_command(out, &["AUTH", login, passcode]),
            (Some(passcode), None) => push_command(out, &["AUTH", passcode]),
            (None, _) => push_command(out, &["PING"]),
        }
    }

    fn subscribe(&self, _number: u32, destination: &str, out: &mut Vec<u8>) {
        push_command(out, &["SUBSCRIBE", destination]);
    }

    fn envelope(&self, destination: &str, body_bytes: usize) -> Envelope {
        let name_bytes = destination.len();
        let head =
            format!("*3\r\n$7\r\nPUBLISH\r\n${name_bytes}\r\n{destination}\r\n${body_bytes}\r\n");
        Envelope::new(head.into_bytes(), b"\r\n")
    }

    #[inline]
    fn scan<'a>(&self, bytes: &'a [u8]) -> Result<Scan<'a>, Fault> {
        let mut cursor = Cursor { bytes, at: 0 };
        let Some(line) = cursor.line() else { return Ok(Scan::Partial) };
        let event = match line.split_first() {
            Some((b'*', count)) => {
                let count = decimal(count).ok_or(Fault::Malformed("an array without a length"))?;
                match cursor.push_event(count)? {
                    Some(event) => event,
                    None => return Ok(Scan::Partial),
                }
            }
            // The number of receivers of a PUBLISH.
            Some((b':', _)) => Event::Nothing,
            Some((b'+', _)) => Event::Confirmed,
            Some((b'-', _)) => Event::Refused(readable(line)),
            _ => return Err(Fault::Malformed("a reply of no known kind")),
        };
        Ok(Scan::Whole(cursor.at, event))
    }

    fn destination_template(&self) -> &'static str {
        "{}"
    }
}

fn push_command(out: &mut Vec<u8>, words: &[&str]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The next line without its end.
    #[inline]
    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let end = memchr(b'\n', rest)?;
        self.at += end + 1;
        Some(rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]))
    }

    /// The next bulk string.
    #[inline]
    fn bulk(&mut self) -> Result<Option<&'a [u8]>, Fault> {
        let Some(line) = self.line() else { return Ok(None) };
        let digits = line.strip_prefix(b"$").and_then(decimal);
        let length = digits.ok_or(Fault::Malformed("a bulk string without a length"))?;
        let Some(text) = self.bytes.get(self.at..self.at + length) else { return Ok(None) };
        if self.bytes.len() < self.at + length + 2 {
            return Ok(None);
        }
        self.at += length + 2;
        Ok(Some(text))
    }

    /// A push to a subscriber: kind, channel, and a body or a count.
    #[inline]
    fn push_event(&mut self, count: usize) -> Result<Option<Event<'a>>, Fault> {
        let Some(kind) = self.bulk()? else { return Ok(None) };
        let Some(_channel) = self.bulk()? else { return Ok(None) };
        match (kind, count) {
            (b"message", 3) => Ok(self.bulk()?.map(Event::Message)),
            (b"subscribe", 3) => Ok(self.line().map(|_| Event::Confirmed)),
            _ => Err(Fault::Malformed("a push of no known kind")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::super::testing::{events, login, published};
    use super::*;

    fn redis() -> Redis {
        Redis::new(Credentials::default())
    }

    #[test]
    fn a_login_is_a_ping_or_an_auth() {
        assert_eq!(login(&redis(), "a", Role::Agent), "*1\r\n$4\r\nPING\r\n");
        let credentials = Credentials { passcode: Some("p".into()), ..Credentials::default() };
        let text = login(&Redis::new(credentials), "a", Role::Agent);
        assert_eq!(text, "*2\r\n$4\r\nAUTH\r\n$1\r\np\r\n");
    }

    #[test]
    fn a_body_is_in_a_publish() {
        assert_eq!(
            published(&redis(), "bench:a", b"hello"),
            b"*3\r\n$7\r\nPUBLISH\r\n$7\r\nbench:a\r\n$5\r\nhello\r\n"
        );
    }

    #[test]
    fn replies_are_separated() {
        let bytes = b"+PONG\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n\
            *3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\nh\r\nj\r\n:5\r\n-ERR no\r\n";
        let refused = format!("{:?}", Event::Refused("-ERR no".into()));
        let expected = ["Confirmed", "Confirmed", "message h\r\nj", "Nothing", &refused];
        assert_eq!(events(&redis(), bytes), expected);
    }
}
