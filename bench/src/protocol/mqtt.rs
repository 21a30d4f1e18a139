//! MQTT 3.1.1 at quality of service 0.

use super::{Credentials, Envelope, Event, Login, Protocol, Scan};
use crate::fault::Fault;

/// MQTT 3.1.1.
#[derive(Debug)]
pub struct Mqtt {
    credentials: Credentials,
}

impl Mqtt {
    /// The protocol with these credentials.
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials }
    }
}

impl Protocol for Mqtt {
    fn login(&self, login: &Login, out: &mut Vec<u8>) {
        // Keep-alive 0: the server expects no pings.
        let mut rest = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
        push_text(&mut rest, login.name.as_bytes());
        if let Some(passcode) = &self.credentials.passcode {
            rest[FLAGS_AT] |= WITH_USER_AND_PASSWORD;
            push_text(&mut rest, self.credentials.login_for(&login.name).as_bytes());
            push_text(&mut rest, passcode.as_bytes());
        }
        push_packet(out, CONNECT, &rest);
    }

    fn subscribe(&self, number: u32, destination: &str, out: &mut Vec<u8>) {
        // Packet identifiers begin at one.
        let mut rest = ((number % 0xFFFF) as u16 + 1).to_be_bytes().to_vec();
        push_text(&mut rest, destination.as_bytes());
        rest.push(0);
        push_packet(out, SUBSCRIBE, &rest);
    }

    fn envelope(&self, destination: &str, body_bytes: usize) -> Envelope {
        let mut head = vec![PUBLISH];
        push_length(&mut head, 2 + destination.len() + body_bytes);
        push_text(&mut head, destination.as_bytes());
        Envelope::new(head, b"")
    }

    #[inline]
    fn scan<'a>(&self, bytes: &'a [u8]) -> Result<Scan<'a>, Fault> {
        let Some((start, length)) = remaining_length(bytes)? else { return Ok(Scan::Partial) };
        let Some(rest) = bytes.get(start..start + length) else { return Ok(Scan::Partial) };
        let event = match (bytes[0] & 0xF0, rest) {
            (PUBLISH, [high, low, rest @ ..]) => {
                let topic_bytes = usize::from(u16::from_be_bytes([*high, *low]));
                let body = rest.get(topic_bytes..);
                Event::Message(body.ok_or(Fault::Malformed("PUBLISH without its topic"))?)
            }
            (CONNACK, [_, 0]) => Event::Confirmed,
            (CONNACK, [_, code]) => Event::Refused(format!("CONNACK with return code {code}")),
            (SUBACK, [_, _, 0..=2]) => Event::Confirmed,
            (SUBACK, _) => Event::Refused("SUBACK with a failure".into()),
            (PINGRESP, _) => Event::Nothing,
            _ => return Err(Fault::Malformed("an MQTT packet that no client gets")),
        };
        Ok(Scan::Whole(start + length, event))
    }

    fn destination_template(&self) -> &'static str {
        "{}"
    }
}

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
/// SUBSCRIBE with the flags that the standard prescribes.
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGRESP: u8 = 0xD0;

const FLAGS_AT: usize = 7;
const WITH_USER_AND_PASSWORD: u8 = 0xC0;

fn push_packet(out: &mut Vec<u8>, kind: u8, rest: &[u8]) {
    out.push(kind);
    push_length(out, rest.len());
    out.extend_from_slice(rest);
}

fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

// MQTT 3.1.1, 2.2.3 "Remaining Length": seven bits in each byte, the lowest first.
fn push_length(out: &mut Vec<u8>, mut length: usize) {
    while length > 0x7F {
        out.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Start and length of the rest of a packet.
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Fault> {
    let mut length = 0;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((index + 2, length)));
        }
    }
    if bytes.len() > 4 {
        return Err(Fault::Malformed("a packet length of more than four bytes"));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::super::testing::{events, published};
    use super::*;

    fn mqtt() -> Mqtt {
        Mqtt::new(Credentials::default())
    }

    #[test]
    fn a_login_is_a_clean_session() {
        let mut out = Vec::new();
        mqtt().login(&Login { name: "ab".into(), role: Role::Agent }, &mut out);
        assert_eq!(out, b"\x10\x0E\x00\x04MQTT\x04\x02\x00\x00\x00\x02ab");

        let credentials = Credentials {
            login: Some("u".into()),
            passcode: Some("p".into()),
            ..Credentials::default()
        };
        out.clear();
        Mqtt::new(credentials).login(&Login { name: "ab".into(), role: Role::Agent }, &mut out);
        assert_eq!(out, b"\x10\x14\x00\x04MQTT\x04\xC2\x00\x00\x00\x02ab\x00\x01u\x00\x01p");
    }

    #[test]
    fn packets_are_separated() {
        let long = vec![b'x'; 70_000];
        let mut bytes = b"\x20\x02\x00\x00\x90\x03\x00\x01\x00\xD0\x00".to_vec();
        bytes.extend(published(&mqtt(), "bench/a", b"hello"));
        let found = events(&mqtt(), &bytes);
        assert_eq!(found, ["Confirmed", "Confirmed", "Nothing", "message hello"]);
        let packet = published(&mqtt(), "bench/a", &long);
        assert_eq!(mqtt().scan(&packet).unwrap(), Scan::Whole(packet.len(), Event::Message(&long)));
    }

    #[test]
    fn refusals_are_reported() {
        for bytes in [&b"\x20\x02\x00\x05"[..], b"\x90\x03\x00\x01\x80"] {
            assert!(matches!(mqtt().scan(bytes).unwrap(), Scan::Whole(_, Event::Refused(_))));
        }
        assert!(mqtt().scan(b"\x30\xFF\xFF\xFF\xFF\x01").is_err());
    }
}
