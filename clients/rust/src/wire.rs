//! The TCP socket below every transport, with deadlines, and the client's clock.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::error::ClientError;
use crate::url::BrokerUrl;

/// A socket whose reads and writes fail with `WouldBlock` once the deadline has passed.
///
/// The deadline holds for a whole operation, however many reads it takes, so that a server that sends
/// single bytes does not extend it. One read or write is tried even after it: with a timeout of zero, bytes
/// that have arrived are taken.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: TcpStream,
    deadline: Deadline,
    /// Whether a read or write was tried after the deadline.
    is_overdue: bool,
    /// Current timeout of the socket, which is set only when it changes.
    read_timeout: Option<Duration>,
}

impl Wire {
    /// Connects to the first address of the host that answers.
    pub(crate) fn connect(url: &BrokerUrl, deadline: Deadline) -> Result<Self, ClientError> {
        let addresses = (url.host.as_str(), url.port)
            .to_socket_addrs()
            .map_err(|source| ClientError::Resolve { host: url.host.clone(), source })?;
        let mut last = None;
        for address in addresses {
            let connected = match deadline.remaining() {
                Some(time) => TcpStream::connect_timeout(&address, time.max(SHORTEST)),
                None => TcpStream::connect(address),
            };
            match connected.and_then(|socket| Self::new(socket, deadline)) {
                Ok(wire) => return Ok(wire),
                Err(source) => last = Some((address, source)),
            }
        }
        Err(match last {
            Some((address, source)) => {
                ClientError::Connect { address: address.to_string(), source }
            }
            None => ClientError::Resolve {
                host: url.host.clone(),
                source: io::Error::from(io::ErrorKind::NotFound),
            },
        })
    }

    fn new(socket: TcpStream, deadline: Deadline) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self { socket, deadline, is_overdue: false, read_timeout: None })
    }

    pub(crate) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
        self.is_overdue = false;
    }

    /// The time for one read or write.
    fn take_time(&mut self) -> io::Result<Option<Duration>> {
        let remaining = self.deadline.remaining();
        if remaining == Some(Duration::ZERO) {
            if self.is_overdue {
                return Err(io::Error::from(io::ErrorKind::WouldBlock));
            }
            self.is_overdue = true;
        }
        Ok(remaining)
    }

    fn read_what_is_there(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_nonblocking(true)?;
        let read = self.socket.read(buffer);
        self.socket.set_nonblocking(false)?;
        read
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let timeout = self.take_time()?;
            if timeout == Some(Duration::ZERO) {
                return self.read_what_is_there(buffer);
            }
            if timeout != self.read_timeout {
                self.socket.set_read_timeout(timeout)?;
                self.read_timeout = timeout;
            }
            match self.socket.read(buffer) {
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
                read => return read.map_err(timed_out_as_blocked),
            }
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let timeout = self.take_time()?.map(|time| time.max(SHORTEST));
            self.socket.set_write_timeout(timeout)?;
            match self.socket.write(bytes) {
                Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
                written => return written.map_err(timed_out_as_blocked),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// When an operation has to be finished.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// No deadline.
    pub(crate) const NEVER: Self = Self(None);

    pub(crate) fn after(timeout: Duration) -> Self {
        // A time that cannot be represented is no deadline.
        Self(now().checked_add(timeout))
    }

    /// The time that is left; `None` without a deadline.
    pub(crate) fn remaining(self) -> Option<Duration> {
        self.0.map(|end| end.saturating_duration_since(now()))
    }
}

/// The shortest timeout of a socket, for which zero would mean none.
const SHORTEST: Duration = Duration::from_millis(1);

#[expect(clippy::disallowed_methods, reason = "the clock of a blocking client")]
fn now() -> Instant {
    Instant::now()
}

/// Maps the error of a socket timeout, which differs between systems, to `WouldBlock`.
fn timed_out_as_blocked(fault: io::Error) -> io::Error {
    match fault.kind() {
        io::ErrorKind::TimedOut => io::Error::from(io::ErrorKind::WouldBlock),
        _ => fault,
    }
}
