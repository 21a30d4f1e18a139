//! NATS, the protocol between clients and servers.

use memchr::memchr;

use super::{Credentials, Envelope, Event, Login, Protocol, Scan, decimal, readable};
use crate::fault::Fault;

/// NATS.
#[derive(Debug)]
pub struct Nats {
    credentials: Credentials,
}

impl Nats {
    /// The protocol with these credentials.
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials }
    }
}

impl Protocol for Nats {
    fn login(&self, login: &Login, out: &mut Vec<u8>) {
        let mut options = serde_json::json!({
            "verbose": false, "pedantic": false, "lang": "rust", "version": "1",
            "protocol": 1, "echo": true, "name": login.name,
        });
        if let Some(passcode) = &self.credentials.passcode {
            options["user"] = self.credentials.login_for(&login.name).into();
            options["pass"] = passcode.as_str().into();
        }
        out.extend_from_slice(format!("CONNECT {options}\r\nPING\r\n").as_bytes());
    }

    fn subscribe(&self, number: u32, destination: &str, out: &mut Vec<u8>) {
        // A SUB has no answer; the PONG confirms that the server has handled it.
        let line = format!("SUB {destination} {}\r\nPING\r\n", number + 1);
        out.extend_from_slice(line.as_bytes());
    }

    fn envelope(&self, destination: &str, body_bytes: usize) -> Envelope {
        Envelope::new(format!("PUB {destination} {body_bytes}\r\n").into_bytes(), b"\r\n")
    }

    #[inline]
    fn scan<'a>(&self, bytes: &'a [u8]) -> Result<Scan<'a>, Fault> {
        let Some(end) = memchr(b'\n', bytes) else { return Ok(Scan::Partial) };
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        if line.starts_with(b"MSG ") {
            let digits = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            let length = decimal(digits).ok_or(Fault::Malformed("MSG without a length"))?;
            let rest = &bytes[end + 1..];
            if rest.len() < length + 2 {
                return Ok(Scan::Partial);
            }
            return Ok(Scan::Whole(end + 1 + length + 2, Event::Message(&rest[..length])));
        }
        let event = if line == b"PONG" {
            Event::Confirmed
        } else if line == b"PING" {
            Event::Answer(b"PONG\r\n")
        } else if line.starts_with(b"INFO ") || line == b"+OK" {
            Event::Nothing
        } else {
            Event::Refused(readable(line))
        };
        Ok(Scan::Whole(end + 1, event))
    }

    fn destination_template(&self) -> &'static str {
        "{}"
    }
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::super::testing::{events, login, published};
    use super::*;

    fn nats() -> Nats {
        Nats::new(Credentials::default())
    }

    #[test]
    fn a_login_ends_in_a_ping() {
        let text = login(&nats(), "bench-1", Role::Agent);
        assert!(text.starts_with("CONNECT {") && text.ends_with("}\r\nPING\r\n"), "{text}");
        assert!(!text.contains("pass"), "{text}");
    }

    #[test]
    fn a_body_is_in_a_pub() {
        assert_eq!(published(&nats(), "bench.a", b"hello"), b"PUB bench.a 5\r\nhello\r\n");
    }

    #[test]
    fn lines_are_separated() {
        let bytes = b"INFO {}\r\nPONG\r\nMSG bench.a 1 5\r\nhe\r\no\r\nPING\r\n-ERR 'no'\r\n";
        let answer = format!("{:?}", Event::Answer(b"PONG\r\n"));
        let refused = format!("{:?}", Event::Refused("-ERR 'no'".into()));
        let expected = ["Nothing", "Confirmed", "message he\r\no", &answer, &refused];
        assert_eq!(events(&nats(), bytes), expected);
    }
}
