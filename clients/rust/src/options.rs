//! How a client connects: where to, as whom, whom it trusts, how long it waits, what it holds.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::ClientError;
use crate::frame::EncodeFault;
use crate::tls::Trust;

/// How a client connects. Only the URL, the login id and the keys have no default.
///
/// ```
/// use com_broker_client::Options;
/// use std::time::Duration;
///
/// let options = Options::new("tls://broker.example:6662")
///     .login("ana")
///     .keys("the application key", "the agent key")
///     .ca("certs/ca.pem")
///     .answer_timeout(Duration::from_secs(2));
/// assert!(!format!("{options:?}").contains("the agent key"));
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) url: String,
    pub(crate) login: Option<String>,
    pub(crate) keys: Option<LoginKeys>,
    pub(crate) trust: Trust,
    pub(crate) connect_timeout: Duration,
    pub(crate) answer_timeout: Duration,
    pub(crate) frame_bytes_max: usize,
    pub(crate) queued_bytes_max: usize,
}

impl Options {
    /// Connects to `tcp://`, `tls://`, `ws://` or `wss://`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            login: None,
            keys: None,
            trust: Trust::System,
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(5),
            frame_bytes_max: 16 * MIB,
            queued_bytes_max: 64 * MIB,
        }
    }

    /// The login id. With the profile it makes the client's address.
    #[must_use]
    pub fn login(mut self, login: impl Into<String>) -> Self {
        self.login = Some(login.into());
        self
    }

    /// The application key and the key of the profile to log in with.
    #[must_use]
    pub fn keys(mut self, application: impl Into<String>, profile: impl Into<String>) -> Self {
        self.keys = Some(LoginKeys { application: application.into(), profile: profile.into() });
        self
    }

    /// Trusts the authorities in this PEM file, and no others. Without one, the system's.
    #[must_use]
    pub fn ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.trust = Trust::File(path.into());
        self
    }

    /// Trusts the authorities in this PEM text, and no others.
    #[must_use]
    pub fn ca_pem(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.trust = Trust::Pem(text.into());
        self
    }

    /// Trusts whoever answers, so that whoever is in between can read the keys and all messages.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.trust = Trust::Anyone;
        self
    }

    /// How long connecting may take, from the first packet until the broker has let us in.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long the broker may take for an answer, and for reading what we send.
    #[must_use]
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// The largest frame that we take.
    #[must_use]
    pub fn frame_bytes_max(mut self, bytes: usize) -> Self {
        self.frame_bytes_max = bytes;
        self
    }

    /// What may be held of messages that arrive while an answer is awaited.
    #[must_use]
    pub fn queued_bytes_max(mut self, bytes: usize) -> Self {
        self.queued_bytes_max = bytes;
        self
    }

    /// The login id and the keys, without which there is nothing to connect for.
    pub(crate) fn credentials(&self) -> Result<(&str, &LoginKeys), ClientError> {
        let login = self.login.as_deref().filter(|login| !login.is_empty());
        let login = login.ok_or(ClientError::Missing("login id"))?;
        let has_both = |keys: &&LoginKeys| !keys.application.is_empty() && !keys.profile.is_empty();
        let keys = self.keys.as_ref().filter(has_both).ok_or(ClientError::Missing("key"))?;
        Ok((login, keys))
    }

    /// Refuses limits under which nothing could ever succeed. An answer that may take no time is none of
    /// them: it takes what is there.
    pub(crate) fn check_limits(&self) -> Result<(), ClientError> {
        for (name, is_zero) in [
            ("connect_timeout", self.connect_timeout.is_zero()),
            ("frame_bytes_max", self.frame_bytes_max == 0),
            ("queued_bytes_max", self.queued_bytes_max == 0),
        ] {
            if is_zero {
                return Err(ClientError::Zero(name));
            }
        }
        Ok(())
    }
}

/// What a message is sent with. The default fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// What the body is. Without one: `text/plain` for UTF-8, `application/octet-stream` otherwise.
    pub content_type: Option<String>,
    /// Further headers, which reach the receiver as they are.
    pub headers: Vec<(String, String)>,
}

impl SendOptions {
    /// Says what the body is.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((key.into(), value.into()));
        self
    }

    /// The further headers, unless one of them is not the sender's to choose.
    pub(crate) fn user_headers(&self) -> Result<&[(String, String)], EncodeFault> {
        for (key, _) in &self.headers {
            let name = name_as_read(key);
            if RESERVED_HEADERS.contains(&name) {
                return Err(EncodeFault::Reserved(key.clone()));
            }
            if name.is_empty() || key.trim() != key {
                return Err(EncodeFault::Padded(key.clone()));
            }
        }
        Ok(&self.headers)
    }

    pub(crate) fn content_type_of(&self, body: &[u8]) -> &str {
        match &self.content_type {
            Some(content_type) => content_type,
            None if std::str::from_utf8(body).is_ok() => "text/plain",
            None => "application/octet-stream",
        }
    }
}

/// What only the client or the broker says of a message: `docs/protocol.md`, "Messages".
const RESERVED_HEADERS: [&str; 21] = [
    "ack",
    "content-length",
    "content-type",
    "dead-letter-reason",
    "destination",
    "error-code",
    "error-desc",
    "event",
    "message-id",
    "origin",
    "origin-destination",
    "passcode",
    "receipt",
    "receipt-id",
    "redelivered",
    "secret-key",
    "session-id",
    "snapshot",
    "subscription",
    "transaction",
    "undeliverable",
];

/// A name as a receiver may read it: many strip blanks around it, and those that do not unescape end it at
/// the first colon. The broker, which knows more of what is not seen, refuses the rest.
fn name_as_read(key: &str) -> &str {
    let is_dropped = |c: char| c.is_whitespace() || c.is_control() || c == '\u{feff}';
    key.split(':').next().unwrap_or_default().trim_matches(is_dropped)
}

/// The two secrets of a login; `Debug` does not show them.
#[derive(Clone)]
pub(crate) struct LoginKeys {
    pub(crate) application: String,
    pub(crate) profile: String,
}

impl fmt::Debug for LoginKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("LoginKeys(..)")
    }
}

const MIB: usize = 1024 * 1024;
