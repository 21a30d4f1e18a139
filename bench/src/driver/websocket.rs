//! The client's side of a WebSocket: the upgrade, and encoding and parsing of frames.
//!
//! Frames are masked with the key zero, which RFC 6455 allows and which leaves the payload unchanged, so
//! that envelopes are encoded once and no time is spent on masking.

use memchr::memmem;

use crate::fault::Fault;

/// The request for an upgrade.
pub(super) fn request(host: &str, path: &str, subprotocols: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: Y29tLWJyb2tlci1iZW5jaA==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {subprotocols}\r\n\r\n"
    )
    .into_bytes()
}

/// The length of the response at the beginning of `data`, once it is whole.
///
/// # Errors
/// The server refuses the upgrade.
pub(super) fn response(data: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(end) = memmem::find(data, b"\r\n\r\n") else { return Ok(None) };
    if !data.starts_with(b"HTTP/1.1 101") {
        let line = data.split(|byte| *byte == b'\r').next().unwrap_or_default();
        return Err(Fault::Refused(String::from_utf8_lossy(line).into_owned()));
    }
    Ok(Some(end + 4))
}

/// The header of a frame to the server.
pub(super) fn header(opcode: u8, length: usize) -> Vec<u8> {
    let mut header = vec![FINAL | opcode];
    match length {
        0..126 => header.push(MASKED | length as u8),
        126..0x1_0000 => {
            header.push(MASKED | 126);
            header.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            header.push(MASKED | 127);
            header.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    header.extend_from_slice(&[0; 4]);
    header
}

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) opcode: u8,
    pub(super) is_final: bool,
    pub(super) payload: &'a [u8],
    /// Size of header and payload.
    pub(super) bytes: usize,
}

/// The frame at the beginning of `data`, once it is whole.
///
/// # Errors
/// The frame is masked, which RFC 6455 forbids servers.
#[inline]
pub(super) fn frame(data: &[u8]) -> Result<Option<Frame<'_>>, Fault> {
    let [first, second, rest @ ..] = data else { return Ok(None) };
    if second & MASKED != 0 {
        return Err(Fault::Malformed("a masked WebSocket frame"));
    }
    let (length, start) = match second {
        126 => match rest.first_chunk() {
            Some(length) => (usize::from(u16::from_be_bytes(*length)), 4),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(length) => (u64::from_be_bytes(*length) as usize, 10),
            None => return Ok(None),
        },
        length => (usize::from(*length), 2),
    };
    let bytes = start + length;
    Ok(data.get(start..bytes).map(|payload| Frame {
        opcode: first & 0x0F,
        is_final: first & FINAL != 0,
        payload,
        bytes,
    }))
}

pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_the_shortest_encoding_of_its_length() {
        assert_eq!(header(TEXT, 5), [0x81, 0x85, 0, 0, 0, 0]);
        assert_eq!(header(BINARY, 126), [0x82, 0xFE, 0, 126, 0, 0, 0, 0]);
        assert_eq!(header(TEXT, 0x1_0000).len(), 14);
    }

    #[test]
    fn a_frame_is_parsed_once_it_is_whole() {
        let long = [&[0x82, 126, 0x01, 0x00], &[7; 256][..]].concat();
        for data in [&b"\x81\x02hi"[..], &long] {
            for length in 0..data.len() {
                assert_eq!(frame(&data[..length]).unwrap(), None);
            }
            let found = frame(data).unwrap().unwrap();
            assert_eq!((found.bytes, found.is_final), (data.len(), true));
        }
        assert!(frame(b"\x81\x82....hi").is_err());
    }

    #[test]
    fn an_upgrade_is_accepted_or_its_refusal_quoted() {
        assert_eq!(response(b"HTTP/1.1 101 Switching Protocols\r\n").unwrap(), None);
        assert_eq!(response(b"HTTP/1.1 101 x\r\nA: b\r\n\r\nrest").unwrap(), Some(24));
        let fault = response(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap_err().to_string();
        assert!(fault.ends_with("404 Not Found"), "{fault}");
    }
}
