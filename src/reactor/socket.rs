//! A TCP socket as the engine wants it, and the kernel's options on it.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;
use socket2::{SockRef, TcpKeepalive};

use crate::engine::Socket;
use crate::limits::Limits;

/// A connected TCP socket that does not block.
#[derive(Debug)]
pub struct TcpSocket(TcpStream);

/// How the kernel finds out that a peer is gone.
#[derive(Clone, Copy, Debug)]
pub struct TcpTimes {
    keepalive: Duration,
    user_timeout: Duration,
}

impl TcpTimes {
    /// Those that the limits say.
    pub fn new(limits: &Limits) -> Self {
        Self {
            keepalive: Duration::from_millis(u64::from(limits.tcp_keepalive_ms)),
            user_timeout: Duration::from_millis(u64::from(limits.tcp_user_timeout_ms)),
        }
    }
}

impl TcpSocket {
    /// Takes an accepted stream.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(stream)
    }

    /// What the poll registers.
    pub(super) fn source(&mut self) -> &mut TcpStream {
        &mut self.0
    }

    /// Sends at once, and lets the kernel probe silent peers. An option that the system refuses is
    /// no reason to refuse the connection.
    pub(super) fn set_options(&self, times: TcpTimes) {
        let socket = SockRef::from(&self.0);
        let _ = socket.set_tcp_nodelay(true);
        let keepalive = TcpKeepalive::new()
            .with_time(times.keepalive)
            .with_interval(times.keepalive / KEEPALIVE_PROBES)
            .with_retries(KEEPALIVE_PROBES);
        let _ = socket.set_tcp_keepalive(&keepalive);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket.set_tcp_user_timeout(Some(times.user_timeout));
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = times.user_timeout;
    }
}

impl Read for TcpSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for TcpSocket {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.write(octets)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for TcpSocket {
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }

    /// epoll(7): on a stream, a read that gives less than was asked for has taken all there was.
    #[inline]
    fn may_have_more(count: usize, wanted: usize) -> bool {
        count == wanted || cfg!(not(any(target_os = "linux", target_os = "android")))
    }
}

/// Probes without an answer after which the kernel gives a peer up.
const KEEPALIVE_PROBES: u32 = 3;
