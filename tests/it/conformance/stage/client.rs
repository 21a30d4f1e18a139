//! A client of the standard dialect, with control over each byte.

use std::collections::VecDeque;

use super::{Arrival, Frame, Link};

pub(crate) struct Client {
    pub(crate) link: Link,
    /// The answer to CONNECT.
    pub(crate) connected: Option<Frame>,
    /// Frames that arrived while another one was awaited.
    early: VecDeque<Frame>,
    fences: u32,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// The code of the WebSocket close; `None` on a stream.
    pub(crate) code: Option<u16>,
}

impl Client {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, connected: None, early: VecDeque::new(), fences: 0 }
    }

    /// Sends a frame: the text and a NUL.
    pub(crate) fn say(&mut self, text: &str) {
        self.link.send(&[text.as_bytes(), b"\0"].concat());
    }

    /// Sends bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.link.send(bytes);
    }

    /// Sends a CONNECT and takes the CONNECTED.
    #[track_caller]
    pub(crate) fn log_in(&mut self, text: &str) -> Frame {
        self.say(text);
        let connected = self.expect("CONNECTED");
        self.connected = Some(connected.clone());
        connected
    }

    /// Subscribes, and waits until that is in effect. `more` are further header lines.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, id: &str, destination: &str, more: &str) {
        self.ask(&format!("SUBSCRIBE\nid:{id}\ndestination:{destination}\n{more}\n"));
    }

    /// Subscribes to its own address.
    #[track_caller]
    pub(crate) fn listen(&mut self) {
        self.subscribe("mine", &self.address(), "");
    }

    /// Sends a message, waits for its RECEIPT, and returns the number of sessions that it was
    /// delivered to.
    #[track_caller]
    pub(crate) fn tell(&mut self, destination: &str, body: &str) -> u32 {
        self.tell_with(destination, "", body)
    }

    /// Sends a message with further header lines; see [`tell`](Self::tell).
    #[track_caller]
    pub(crate) fn tell_with(&mut self, destination: &str, more: &str, body: &str) -> u32 {
        let receipt = self.ask(&format!("SEND\ndestination:{destination}\n{more}\n{body}"));
        receipt.get("delivered").unwrap().parse().unwrap()
    }

    /// Sends a frame with a `receipt` added as its last header line, and waits for its RECEIPT.
    #[track_caller]
    pub(crate) fn ask(&mut self, text: &str) -> Frame {
        let id = self.next_fence();
        let (head, body) = text.split_once("\n\n").unwrap();
        self.say(&format!("{head}\nreceipt:{id}\n\n{body}"));
        self.await_receipt(&id)
    }

    /// Waits for a RECEIPT; frames before it are kept.
    #[track_caller]
    pub(crate) fn await_receipt(&mut self, id: &str) -> Frame {
        loop {
            let frame = self.arrive();
            assert_ne!(frame.command, "ERROR", "{frame}");
            if frame.command == "RECEIPT" && frame.get("receipt-id") == Some(id) {
                return frame;
            }
            self.early.push_back(frame);
        }
    }

    /// The next frame.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Frame {
        match self.early.pop_front() {
            Some(frame) => frame,
            None => self.arrive(),
        }
    }

    /// The next frame, which has to be of that command.
    #[track_caller]
    pub(crate) fn expect(&mut self, command: &str) -> Frame {
        let frame = self.next();
        assert_eq!(frame.command, command, "{frame}");
        frame
    }

    /// The next frame, which has to be a MESSAGE.
    #[track_caller]
    pub(crate) fn message(&mut self) -> Frame {
        self.expect("MESSAGE")
    }

    /// The bodies of the next messages.
    #[track_caller]
    pub(crate) fn bodies(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.message().text().to_owned()).collect()
    }

    /// Checks that no frame has arrived, by waiting for a RECEIPT behind all queued frames.
    #[track_caller]
    pub(crate) fn hears_nothing(&mut self) {
        let id = self.next_fence();
        self.say(&format!("BEGIN\ntransaction:{id}\nreceipt:{id}\n\n"));
        self.await_receipt(&id);
        self.say(&format!("ABORT\ntransaction:{id}\n\n"));
        assert!(self.early.is_empty(), "{}", self.early[0]);
    }

    /// Sends a frame that is refused, and returns the ERROR, behind which the connection ends.
    #[track_caller]
    pub(crate) fn refused(&mut self, text: &str, code: &str) -> Frame {
        self.say(text);
        self.fails(code)
    }

    /// Checks that the next frame is an ERROR with that code, and that the connection ends behind it.
    #[track_caller]
    pub(crate) fn fails(&mut self, code: &str) -> Frame {
        let error = self.expect("ERROR");
        error.has("error-code", code);
        self.ends();
        error
    }

    /// Checks that the connection ends in order, without a frame before that.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> Ending {
        assert!(self.early.is_empty(), "{}", self.early[0]);
        let mut ending = Ending { code: None };
        loop {
            match self.link.next() {
                Arrival::Beat { .. } => {}
                Arrival::Close(code) => ending.code = Some(code),
                Arrival::End => return ending,
                Arrival::Frame(frame) => panic!("instead of the end arrived {frame}"),
            }
        }
    }

    /// Waits for the end of the connection, in order or not.
    pub(crate) fn ends_somehow(&mut self) {
        self.link.accepts_breaks = true;
        self.ends();
    }

    /// Checks that it is cut for its silence: over WebSocket with an ERROR, unless it answers pings,
    /// otherwise without one.
    #[track_caller]
    pub(crate) fn is_cut_for_silence(&mut self) {
        self.link.accepts_breaks = true;
        self.link.answers_pings = false;
        if self.link.is_websocket() {
            self.expect("ERROR").has("error-code", "TIMED_OUT").has("retry", "now");
            assert!(matches!(self.ends().code, Some(4200..4300)));
        } else {
            self.ends();
        }
    }

    /// Waits for heart-beats.
    #[track_caller]
    pub(crate) fn await_beats(&mut self, count: u32) {
        for _ in 0..count {
            let arrival = self.link.next();
            assert!(matches!(arrival, Arrival::Beat { .. }), "{arrival:?}");
        }
    }

    /// Its address.
    pub(crate) fn address(&self) -> String {
        self.connected_line("destination")
    }

    /// Its login id.
    pub(crate) fn login(&self) -> String {
        self.connected_line("login")
    }

    fn connected_line(&self, name: &str) -> String {
        self.connected.as_ref().and_then(|frame| frame.get(name)).unwrap().to_owned()
    }

    fn next_fence(&mut self) -> String {
        self.fences += 1;
        format!("fence-{}", self.fences)
    }

    #[track_caller]
    fn arrive(&mut self) -> Frame {
        loop {
            match self.link.next() {
                Arrival::Frame(frame) => return frame,
                Arrival::Beat { .. } => {}
                other => panic!("instead of a frame arrived {other:?}"),
            }
        }
    }
}
