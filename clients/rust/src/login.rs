//! The login in either dialect: the connection, CONNECT, and the frame that answers it.

use crate::connection::{Arrival, Connection, Dialect};
use crate::error::ClientError;
use crate::frame::Frame;
use crate::options::Options;
use crate::wire::Deadline;

/// The answer that a login expects.
pub(crate) const CONNECTED: &str = "CONNECTED";

/// Connects, sends CONNECT and returns the answer, whatever it is. One timeout holds for all of it.
pub(crate) fn log_in(
    options: &Options,
    dialect: Dialect,
) -> Result<(Connection, Frame), ClientError> {
    let (login, keys) = options.credentials()?;
    let deadline = Deadline::after(options.connect_timeout);
    let mut connection = Connection::open_until(options, dialect, deadline)?;
    // Without `host`, which a broker with virtual hosts would check.
    let connect = Frame::new("CONNECT")
        .with("accept-version", "1.2")
        .with("login", login)
        .with("passcode", &keys.profile)
        .with("secret-key", &keys.application);
    connection.send(&connect)?;
    match connection.next_until(deadline)? {
        Arrival::Frame(answer) => Ok((connection, answer)),
        Arrival::NotYet => Err(ClientError::NoAnswer { awaited: CONNECTED }),
        Arrival::End => Err(ClientError::Ended { awaited: CONNECTED }),
    }
}
