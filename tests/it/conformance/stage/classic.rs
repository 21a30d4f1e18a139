//! A client of the classic dialect, for statements on both dialects.

use crate::support::client::{Client, Profile, Transport};
use crate::support::frame::Frame;
use crate::support::server::Server;

pub(crate) struct ClassicClient(Client);

impl ClassicClient {
    #[track_caller]
    pub(crate) fn log_in(
        server: &Server,
        transport: Transport,
        profile: Profile,
        login: &str,
    ) -> Self {
        Self(Client::log_in(server, transport, profile, login))
    }

    /// Sends a frame: the text and a NUL.
    pub(crate) fn say(&mut self, text: &str) {
        self.bytes(&[text.as_bytes(), b"\0"].concat());
    }

    /// Sends a frame.
    pub(crate) fn bytes(&mut self, frame: &[u8]) {
        self.0.send_bytes(frame);
    }

    /// Sends a frame and takes its ACK, which has to be `OK`.
    #[track_caller]
    pub(crate) fn ask(&mut self, text: &str) -> Frame {
        let (command, rest) = text.split_once('\n').unwrap();
        self.say(&format!("{command}\ntransaction:7\n{rest}"));
        let ack = self.expect("ACK");
        ack.has("transaction", "7").has("error-desc", "OK");
        ack
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, command: &str) -> Frame {
        let frame = self.0.receive();
        assert_eq!(frame.command, command, "{frame}");
        frame
    }

    #[track_caller]
    pub(crate) fn message(&mut self) -> Frame {
        self.expect("MESSAGE")
    }

    /// Checks that the connection ends in order.
    #[track_caller]
    pub(crate) fn ends(&mut self) {
        self.0.receive_end();
    }

    pub(crate) fn session_id(&self) -> &str {
        &self.0.session_id
    }

    pub(crate) fn address(&self) -> String {
        self.0.destination.clone()
    }
}
