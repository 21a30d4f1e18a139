//! The classic dialect of com-broker: frames in a length prefix, or in WebSocket messages.

use memchr::memmem;

use super::{Credentials, Envelope, Event, Login, Protocol, Role, Scan, readable};
use crate::fault::Fault;

/// The classic dialect.
#[derive(Debug)]
pub struct Classic {
    credentials: Credentials,
    /// Whether the transport delimits frames, so that they need no prefix.
    is_framed: bool,
    blank_line: memmem::Finder<'static>,
}

impl Classic {
    /// The dialect with these credentials; over a WebSocket every message is a frame.
    pub fn new(credentials: Credentials, is_framed: bool) -> Self {
        Self { credentials, is_framed, blank_line: memmem::Finder::new(b"\n\n") }
    }

    fn push(&self, out: &mut Vec<u8>, frame: &str) {
        if !self.is_framed {
            out.extend_from_slice(&prefix(frame.len()));
        }
        out.extend_from_slice(frame.as_bytes());
    }

    #[inline]
    fn event_of<'a>(&self, frame: &'a [u8]) -> Result<Event<'a>, Fault> {
        if frame.starts_with(b"MESSAGE\n") {
            let headers = self
                .blank_line
                .find(frame)
                .ok_or(Fault::Malformed("a MESSAGE without an end of its headers"))?;
            // The broker ends every frame in one NUL.
            let body = &frame[headers + 2..];
            return Ok(Event::Message(body.strip_suffix(b"\0").unwrap_or(body)));
        }
        if frame.starts_with(b"CONNECTED\n") || is_good_ack(frame) {
            return Ok(Event::Confirmed);
        }
        if frame.starts_with(b"RECEIPT\n") {
            return Ok(Event::Nothing);
        }
        Ok(Event::Refused(readable(frame)))
    }
}

impl Protocol for Classic {
    fn login(&self, login: &Login, out: &mut Vec<u8>) {
        let name = self.credentials.login_for(&login.name);
        let frame = format!(
            "CONNECT\naccept-version:1.2\nlogin:{name}\npasscode:{}\nsecret-key:{}\n\n\0",
            self.credentials.passcode_for(login.role),
            self.credentials.application_key,
        );
        self.push(out, &frame);
    }

    fn subscribe(&self, number: u32, destination: &str, out: &mut Vec<u8>) {
        let frame = format!(
            "SUBSCRIBE\ndestination:{destination}\ndestination-type:0\ntransaction:s{number}\n\n\0"
        );
        self.push(out, &frame);
    }

    fn envelope(&self, destination: &str, body_bytes: usize) -> Envelope {
        // Existing clients send no transaction if they want no ACK.
        let headers = format!("SEND\ndestination:{destination}\n\n");
        let mut head = Vec::new();
        if !self.is_framed {
            head.extend_from_slice(&prefix(headers.len() + body_bytes + 1));
        }
        head.extend_from_slice(headers.as_bytes());
        Envelope::new(head, b"\0")
    }

    #[inline]
    fn scan<'a>(&self, bytes: &'a [u8]) -> Result<Scan<'a>, Fault> {
        if self.is_framed {
            return Ok(Scan::Whole(bytes.len(), self.event_of(bytes)?));
        }
        let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(Scan::Partial);
        };
        if prefix[0] != 0 {
            return Err(Fault::Malformed("a frame without a length prefix"));
        }
        let length = u32::from_le_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        let Some(frame) = rest.get(..length) else { return Ok(Scan::Partial) };
        Ok(Scan::Whole(PREFIX_BYTES + length, self.event_of(frame)?))
    }

    fn destination_template(&self) -> &'static str {
        "/agent/{}"
    }

    fn topic_template(&self) -> &'static str {
        "/topic/{}"
    }

    fn owner(&self, destination: &str) -> Option<Login> {
        if let Some(name) = destination.strip_prefix("/agent/") {
            return Some(Login { name: name.into(), role: Role::Agent });
        }
        let name = destination.strip_prefix("/service/")?;
        Some(Login { name: name.into(), role: Role::Service })
    }
}

const PREFIX_BYTES: usize = 5;

fn prefix(length: usize) -> [u8; PREFIX_BYTES] {
    let [a, b, c, d] = (length as u32).to_le_bytes();
    [0, a, b, c, d]
}

fn is_good_ack(frame: &[u8]) -> bool {
    frame.starts_with(b"ACK\n") && memmem::find(frame, b"\nerror-desc:OK\n").is_some()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{events, login, published};
    use super::*;

    fn classic(is_framed: bool) -> Classic {
        let credentials = Credentials {
            application_key: "app".into(),
            agent_key: "agent".into(),
            service_key: "service".into(),
            ..Credentials::default()
        };
        Classic::new(credentials, is_framed)
    }

    fn framed(frame: &str) -> Vec<u8> {
        [&prefix(frame.len()), frame.as_bytes()].concat()
    }

    #[test]
    fn a_role_logs_in_with_the_key_of_its_profile() {
        let text = login(&classic(true), "ana", Role::Agent);
        assert!(text.contains("\nlogin:ana\npasscode:agent\nsecret-key:app\n"), "{text}");
        assert!(login(&classic(true), "ana", Role::Service).contains("\npasscode:service\n"));
    }

    #[test]
    fn a_body_is_in_a_frame_of_its_length() {
        let frame = "SEND\ndestination:/agent/ana\n\nhello\0";
        assert_eq!(published(&classic(true), "/agent/ana", b"hello"), frame.as_bytes());
        assert_eq!(published(&classic(false), "/agent/ana", b"hello"), framed(frame));
    }

    #[test]
    fn frames_are_separated() {
        let bytes = [
            framed("CONNECTED\nsession-id:5\n\n\0"),
            framed("MESSAGE\norigin:bob\ncontent-length:2\n\nhi\0"),
            framed("ACK\ntransaction:s0\nerror-desc:OK\n\n\0"),
            framed("MESSAGE\na:b\n\n\0"),
        ]
        .concat();
        let found = events(&classic(false), &bytes);
        assert_eq!(found, ["Confirmed", "message hi", "Confirmed", "message "]);
    }

    #[test]
    fn a_refusal_is_quoted() {
        let frame = b"ACK\ntransaction:1\nerror-desc:no such client\n\n\0";
        let Scan::Whole(_, Event::Refused(text)) = classic(true).scan(frame).unwrap() else {
            panic!("not refused");
        };
        assert_eq!(text, "ACK, transaction:1, error-desc:no such client");
        assert!(classic(false).scan(b"ERROR\n").is_err());
    }

    #[test]
    fn an_address_has_an_owner() {
        let owner = classic(true).owner("/agent/a/b").unwrap();
        assert_eq!(owner, Login { name: "a/b".into(), role: Role::Agent });
        assert_eq!(classic(true).owner("/topic/a"), None);
    }
}
