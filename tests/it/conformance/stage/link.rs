//! A blocking connection over any transport, which reads frames of the standard dialect. WebSocket is
//! implemented here, for control over each byte.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use crate::support::PATIENCE;
use crate::support::client::{Stream, Transport};
use crate::support::frame::Frame;
use crate::support::server::Server;

/// The next arrival.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Frame(Frame),
    /// A line end between frames, and whether it came as a binary WebSocket message.
    Beat {
        is_binary: bool,
    },
    /// The broker's WebSocket close, which has been answered.
    Close(u16),
    /// The broker's orderly end of stream.
    End,
}

pub(crate) struct Link {
    stream: Stream,
    is_websocket: bool,
    /// Unused bytes.
    pending: Vec<u8>,
    /// The subprotocol that the broker chose.
    pub(crate) subprotocol: Option<String>,
    /// Whether a broken connection counts as an end.
    pub(crate) accepts_breaks: bool,
    /// Whether WebSocket pings are answered.
    pub(crate) answers_pings: bool,
}

impl Link {
    pub(crate) fn open(server: &Server, transport: Transport, subprotocols: &str) -> Self {
        let stream = Stream::open(server, transport);
        let is_websocket = transport.is_websocket();
        let mut link = Self {
            stream,
            is_websocket,
            pending: Vec::new(),
            subprotocol: None,
            accepts_breaks: false,
            answers_pings: true,
        };
        if is_websocket {
            link.upgrade(subprotocols);
        }
        link
    }

    /// Sends bytes of frames: on a stream as they are, on WebSocket as one message, which is text if it
    /// is UTF-8.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let is_text = str::from_utf8(bytes).is_ok();
        self.send_as(if is_text { TEXT } else { BINARY }, bytes);
    }

    /// Sends bytes of frames, on WebSocket as one binary message.
    pub(crate) fn send_binary(&mut self, bytes: &[u8]) {
        self.send_as(BINARY, bytes);
    }

    /// Sends one WebSocket frame with that first byte, or bytes on a stream.
    pub(crate) fn send_as(&mut self, first: u8, bytes: &[u8]) {
        if !self.is_websocket {
            return self.write(bytes);
        }
        // A mask of zeros does not change the payload.
        let mut frame = vec![first];
        match bytes.len() {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length @ 126..0x1_0000 => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(bytes);
        self.write(&frame);
    }

    pub(crate) fn is_websocket(&self) -> bool {
        self.is_websocket
    }

    /// Ends the client's stream, but continues to read.
    pub(crate) fn end_stream(&self) {
        let _ = self.stream.socket().shutdown(Shutdown::Write);
    }

    /// The next arrival, with a deadline.
    pub(crate) fn next(&mut self) -> Arrival {
        loop {
            let arrival = if self.is_websocket { self.take_message() } else { self.take_frame() };
            if let Some(arrival) = arrival {
                return arrival;
            }
            if !self.read_more() {
                let left = String::from_utf8_lossy(&self.pending);
                assert!(left.is_empty(), "the stream ended within a frame: {left}");
                return Arrival::End;
            }
        }
    }

    fn take_frame(&mut self) -> Option<Arrival> {
        if self.pending.first() == Some(&b'\n') {
            self.pending.remove(0);
            return Some(Arrival::Beat { is_binary: false });
        }
        Frame::take_standard(&mut self.pending).map(Arrival::Frame)
    }

    fn take_message(&mut self) -> Option<Arrival> {
        let [first, length, ..] = self.pending[..] else { return None };
        let (start, length) = match length {
            126 => (4, u16::from_be_bytes(self.pending.get(2..4)?.try_into().unwrap()).into()),
            127 => (10, u64::from_be_bytes(self.pending.get(2..10)?.try_into().unwrap())),
            short => (2, short.into()),
        };
        let end = start + length as usize;
        let payload = self.pending.get(start..end)?.to_vec();
        self.pending.drain(..end);
        match first {
            TEXT | BINARY if payload == b"\n" => Some(Arrival::Beat { is_binary: first == BINARY }),
            TEXT | BINARY => {
                if first == TEXT {
                    assert!(str::from_utf8(&payload).is_ok(), "a text message is text");
                }
                let frame = Frame::read_message(&payload);
                Some(Arrival::Frame(Frame { is_binary: first == BINARY, ..frame }))
            }
            PING => {
                if self.answers_pings {
                    self.send_as(PONG, &payload);
                }
                self.take_message()
            }
            CLOSE => {
                self.send_as(CLOSE, &payload);
                let code = payload[..2].try_into().unwrap();
                Some(Arrival::Close(u16::from_be_bytes(code)))
            }
            other => panic!("a WebSocket frame that begins with {other:#x}"),
        }
    }

    /// Reads; returns false at the end of the stream.
    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.pending.extend_from_slice(&buffer[..count]);
                count > 0
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing arrived in {PATIENCE:?}; so far: {:?}", self.pending)
            }
            Err(_) if self.accepts_breaks => false,
            Err(error) => panic!("the connection broke instead of ending: {error}"),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    fn upgrade(&mut self, subprotocols: &str) {
        let offer = match subprotocols {
            "" => String::new(),
            names => format!("Sec-WebSocket-Protocol: {names}\r\n"),
        };
        let request = format!(
            "GET /stomp HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\n{offer}\r\n"
        );
        self.write(request.as_bytes());
        let end = loop {
            let found = self.pending.windows(4).position(|four| four == b"\r\n\r\n");
            match found {
                Some(at) => break at + 4,
                None => assert!(self.read_more(), "no answer to the upgrade"),
            }
        };
        let answer = String::from_utf8(self.pending.drain(..end).collect()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        self.subprotocol = answer.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("sec-websocket-protocol").then(|| value.to_owned())
        });
    }
}

// First bytes of WebSocket frames, RFC 6455, 5.2: the flag of a final fragment, and the opcode.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
