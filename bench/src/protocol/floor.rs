//! The protocol of the floor relay, which has only what a relay needs.
//!
//! ```text
//! ┌─────────────┬─────────────┬────────────┐
//! │ length: u32 │ channel: u32│ length − 4 │   little-endian; copied to every receiver of the
//! └─────────────┴─────────────┴────────────┘   channel
//! ```

use super::{Envelope, Event, Login, Protocol, Scan};
use crate::fault::Fault;

/// The protocol of the floor relay.
#[derive(Debug)]
pub struct Floor;

/// The channel of a frame that subscribes its sender to the channel in its body, and is echoed.
pub const SUBSCRIBE: u32 = u32::MAX;

/// The channel of a frame that is only echoed.
pub const ECHO: u32 = u32::MAX - 1;

/// Size of length and channel.
pub const HEADER_BYTES: usize = 8;

impl Protocol for Floor {
    fn login(&self, _login: &Login, out: &mut Vec<u8>) {
        out.extend_from_slice(&header(ECHO, 0));
    }

    fn subscribe(&self, _number: u32, destination: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(&header(SUBSCRIBE, 4));
        out.extend_from_slice(&channel(destination).to_le_bytes());
    }

    fn envelope(&self, destination: &str, body_bytes: usize) -> Envelope {
        Envelope::new(header(channel(destination), body_bytes).to_vec(), b"")
    }

    #[inline]
    fn scan<'a>(&self, bytes: &'a [u8]) -> Result<Scan<'a>, Fault> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(Scan::Partial);
        };
        let (channel, length) = split_header(*header)?;
        let Some(body) = rest.get(..length) else { return Ok(Scan::Partial) };
        let event = match channel {
            SUBSCRIBE | ECHO => Event::Confirmed,
            _ => Event::Message(body),
        };
        Ok(Scan::Whole(HEADER_BYTES + length, event))
    }

    fn destination_template(&self) -> &'static str {
        "{}"
    }
}

/// Channel and body length of a frame.
///
/// # Errors
/// The length does not cover the channel.
#[inline]
pub fn split_header(header: [u8; HEADER_BYTES]) -> Result<(u32, usize), Fault> {
    let [a, b, c, d, channel @ ..] = header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let length = length.checked_sub(4).ok_or(Fault::Malformed("a frame without a channel"))?;
    Ok((u32::from_le_bytes(channel), length))
}

fn header(channel: u32, body_bytes: usize) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = (body_bytes as u32 + 4).to_le_bytes();
    let [e, f, g, h] = channel.to_le_bytes();
    [a, b, c, d, e, f, g, h]
}

/// The number at the end of a destination's name.
fn channel(destination: &str) -> u32 {
    let digits =
        destination.len() - destination.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    destination[destination.len() - digits..].parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{events, published};
    use super::*;

    #[test]
    fn a_destination_is_the_number_at_its_end() {
        assert_eq!(channel("bench-x-00042"), 42);
        assert_eq!(channel("7"), 7);
        assert_eq!(channel("none"), 0);
    }

    #[test]
    fn frames_are_separated() {
        let mut bytes = Vec::new();
        Floor.subscribe(0, "bench-3", &mut bytes);
        assert_eq!(bytes, b"\x08\0\0\0\xFF\xFF\xFF\xFF\x03\0\0\0");
        bytes.extend(published(&Floor, "bench-3", b"hello"));
        assert_eq!(events(&Floor, &bytes), ["Confirmed", "message hello"]);
        assert!(Floor.scan(b"\x03\0\0\0\0\0\0\0").is_err());
    }
}
