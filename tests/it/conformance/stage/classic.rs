//! A client of the classic dialect, as far as it meets clients of the standard one.

use super::{APPLICATION_KEY, Arrival, Frame, Link, Profile};

pub(crate) struct ClassicClient {
    link: Link,
    pub(crate) connected: Frame,
}

impl ClassicClient {
    #[track_caller]
    pub(crate) fn log_in(mut link: Link, login: &str, profile: Profile) -> Self {
        let (key, application) = (profile.key(), APPLICATION_KEY);
        let text = format!(
            "CONNECT\naccept-version:1.2\nlogin:{login}\npasscode:{key}\n\
             secret-key:{application}\n\n\0"
        );
        link.send_classic(text.as_bytes());
        let Arrival::Frame(connected) = link.next() else { panic!("no answer to CONNECT") };
        assert_eq!(connected.command, "CONNECTED", "{connected}");
        Self { link, connected }
    }

    /// Sends a frame: the text, and the NUL.
    pub(crate) fn say(&mut self, text: &str) {
        self.octets(&[text.as_bytes(), b"\0"].concat());
    }

    /// Sends a frame of those octets.
    pub(crate) fn octets(&mut self, frame: &[u8]) {
        self.link.send_classic(frame);
    }

    /// Sends a frame and takes its ACK, which is good.
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
        match self.link.next() {
            Arrival::Frame(frame) => {
                assert_eq!(frame.command, command, "{frame}");
                frame
            }
            other => panic!("instead of {command} arrived {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn message(&mut self) -> Frame {
        self.expect("MESSAGE")
    }

    /// The connection ends, in an orderly way.
    #[track_caller]
    pub(crate) fn ends(&mut self) {
        loop {
            match self.link.next() {
                Arrival::Close(_) => {}
                Arrival::End => return,
                other => panic!("instead of the end arrived {other:?}"),
            }
        }
    }

    pub(crate) fn address(&self) -> String {
        self.connected.get("destination").unwrap().to_owned()
    }
}
