//! The engine's TCP socket, and its options.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, TcpKeepalive, Type};

use crate::engine::Socket;

/// A connected, non-blocking TCP socket. It makes system calls directly: those of the C library are
/// cancellation points, which cost two atomic exchanges a call once there was a second thread.
#[derive(Debug)]
pub(crate) struct TcpSocket(TcpStream);

/// Socket options of each connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    /// Silence after which the kernel probes a client.
    pub keepalive: Duration,
    /// Time for which sent bytes may stay unacknowledged.
    pub user_timeout: Duration,
    /// Time for which an empty read polls the network device, in microseconds.
    pub busy_poll_us: u32,
    /// Size of the send buffer; zero leaves it to the kernel.
    pub send_buffer_bytes: u32,
    /// Size of the receive buffer; zero leaves it to the kernel.
    pub receive_buffer_bytes: u32,
}

impl SocketOptions {
    /// Applies the options to a temporary socket and logs what the kernel refuses, so that this is
    /// logged once, however many listeners there are.
    ///
    /// # Errors
    /// A socket cannot be made.
    pub(crate) fn report_refusals(&self) -> io::Result<()> {
        let socket = RawSocket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        let Self { send_buffer_bytes, receive_buffer_bytes, .. } = *self;
        if send_buffer_bytes > 0 {
            let set = socket.set_send_buffer_size(send_buffer_bytes as usize);
            let given = set.and_then(|()| socket.send_buffer_size());
            warn_if_less("socket_send_buffer_bytes", send_buffer_bytes, given, "wmem_max");
        }
        if receive_buffer_bytes > 0 {
            let set = socket.set_recv_buffer_size(receive_buffer_bytes as usize);
            let given = set.and_then(|()| socket.recv_buffer_size());
            warn_if_less("socket_receive_buffer_bytes", receive_buffer_bytes, given, "rmem_max");
        }
        #[cfg(target_os = "linux")]
        if self.busy_poll_us > 0
            && let Err(error) = socket.set_busy_poll(self.busy_poll_us)
        {
            let (wanted, error) = (self.busy_poll_us, error.to_string());
            log::warn!(
                socket_busy_poll_us = wanted, error;
                "a setting has no effect, this kernel may want the capability CAP_NET_ADMIN for it"
            );
        }
        Ok(())
    }

    /// Sets the options on a listener, whose connections inherit them: buffer sizes have to be known
    /// before the TCP handshake. Refusals of the kernel are not fatal.
    pub(super) fn apply_to_listener(&self, listener: &RawSocket) {
        self.apply_to_all(&SockRef::from(listener));
        if self.send_buffer_bytes > 0 {
            let _ = listener.set_send_buffer_size(self.send_buffer_bytes as usize);
        }
        if self.receive_buffer_bytes > 0 {
            let _ = listener.set_recv_buffer_size(self.receive_buffer_bytes as usize);
        }
        #[cfg(target_os = "linux")]
        if self.busy_poll_us > 0 {
            let _ = listener.set_busy_poll(self.busy_poll_us);
        }
    }

    /// Disables Nagle's algorithm, and has the kernel probe silent clients.
    fn apply_to_all(&self, socket: &SockRef<'_>) {
        let _ = socket.set_tcp_nodelay(true);
        let keepalive = TcpKeepalive::new()
            .with_time(self.keepalive)
            .with_interval(self.keepalive / KEEPALIVE_PROBES)
            .with_retries(KEEPALIVE_PROBES);
        let _ = socket.set_tcp_keepalive(&keepalive);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket.set_tcp_user_timeout(Some(self.user_timeout));
    }
}

/// Logs a buffer that is smaller than wanted. Linux reports twice the size it granted, for its own
/// overhead.
fn warn_if_less(name: &str, wanted: u32, given: io::Result<usize>, bound: &str) {
    match given {
        Ok(given) if given >= wanted as usize => {}
        Ok(given) => log::warn!(
            setting:% = name, wanted, allowed = given, bound:% = format_args!("net.core.{bound}");
            "the kernel allows less than a setting asks for"
        ),
        Err(error) => {
            let error = error.to_string();
            log::warn!(setting:% = name, wanted, error; "a setting has no effect");
        }
    }
}

impl TcpSocket {
    /// Wraps an accepted stream.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(stream)
    }

    /// The event source for the poll.
    pub(super) fn source(&mut self) -> &mut TcpStream {
        &mut self.0
    }

    /// Sets the options that connections do not inherit from their listener. Linux has none, which
    /// saves six system calls a connection.
    pub(super) fn set_options(&self, options: &SocketOptions) {
        if cfg!(not(any(target_os = "linux", target_os = "android"))) {
            options.apply_to_all(&SockRef::from(&self.0));
        }
    }
}

impl Read for TcpSocket {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (count, _) = recv(&self.0, buffer, RecvFlags::empty())?;
        Ok(count)
    }
}

impl Write for TcpSocket {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(&self.0, bytes, SendFlags::NOSIGNAL)?)
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

    /// epoll(7): a read from a stream that returns less than was asked for has emptied it.
    #[inline]
    fn may_have_more(count: usize, wanted: usize) -> bool {
        count == wanted || cfg!(not(any(target_os = "linux", target_os = "android")))
    }
}

/// Unanswered probes after which the kernel drops the connection.
const KEEPALIVE_PROBES: u32 = 3;
