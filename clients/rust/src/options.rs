//! The options of a client: address, login, trust, timeouts and bounds.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::ClientError;
use crate::frame::EncodeFault;
use crate::tls::Trust;

/// Options of a client. All but the URL, the login id and the keys have defaults.
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
    /// Options with a URL that begins with `tcp://`, `tls://`, `ws://` or `wss://`.
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

    /// Sets the login id, which together with the profile makes the client's address.
    #[must_use]
    pub fn login(mut self, login: impl Into<String>) -> Self {
        self.login = Some(login.into());
        self
    }

    /// Sets the application key and the key of the profile.
    #[must_use]
    pub fn keys(mut self, application: impl Into<String>, profile: impl Into<String>) -> Self {
        self.keys = Some(LoginKeys { application: application.into(), profile: profile.into() });
        self
    }

    /// Trusts the authorities in this PEM file instead of those of the system.
    #[must_use]
    pub fn ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.trust = Trust::File(path.into());
        self
    }

    /// Trusts the authorities in this PEM text instead of those of the system.
    #[must_use]
    pub fn ca_pem(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.trust = Trust::Pem(text.into());
        self
    }

    /// Trusts any certificate, so that a man in the middle can read the keys and all messages.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.trust = Trust::Anyone;
        self
    }

    /// Sets the time for connecting, including handshakes and login.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the time that the broker may take to answer, and to read what is sent.
    #[must_use]
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// Sets the size of the largest frame that is accepted.
    #[must_use]
    pub fn frame_bytes_max(mut self, bytes: usize) -> Self {
        self.frame_bytes_max = bytes;
        self
    }

    /// Sets the memory for messages that arrive while an answer is awaited.
    #[must_use]
    pub fn queued_bytes_max(mut self, bytes: usize) -> Self {
        self.queued_bytes_max = bytes;
        self
    }

    /// The login id and the keys, neither of which may be missing.
    pub(crate) fn credentials(&self) -> Result<(&str, &LoginKeys), ClientError> {
        let login = self.login.as_deref().filter(|login| !login.is_empty());
        let login = login.ok_or(ClientError::Missing("login id"))?;
        let has_both = |keys: &&LoginKeys| !keys.application.is_empty() && !keys.profile.is_empty();
        let keys = self.keys.as_ref().filter(has_both).ok_or(ClientError::Missing("key"))?;
        Ok((login, keys))
    }

    /// Refuses bounds of zero with which no call could succeed. The answer timeout may be zero: then only
    /// answers that have arrived already are taken.
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

/// Options of a message. The default fits most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// Media type of the body. Without one: `text/plain` for UTF-8, `application/octet-stream`
    /// otherwise.
    pub content_type: Option<String>,
    /// Further headers, which reach the receiver unchanged.
    pub headers: Vec<(String, String)>,
}

impl SendOptions {
    /// Sets the media type of the body.
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

    /// The further headers, unless one of them is reserved.
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

/// Headers that only the client or the broker may set: `docs/protocol.md`, "Messages".
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

/// A name as a receiver may read it: many trim it, and those that do not unescape end it at the first
/// colon. The broker checks more invisible characters than this.
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
