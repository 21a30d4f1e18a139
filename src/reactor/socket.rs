//! A TCP socket as the engine wants it, and the kernel's options on it.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use mio::net::TcpStream;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, TcpKeepalive, Type};

use crate::engine::Socket;

/// A connected TCP socket that does not block. It asks the kernel itself: the C library's calls are
/// points at which a thread may be cancelled, which costs two atomic exchanges a call once there was a
/// second thread.
#[derive(Debug)]
pub(crate) struct TcpSocket(TcpStream);

/// What is asked of the kernel for each connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    /// Silence after which a peer is probed.
    pub keepalive: Duration,
    /// How long sent bytes may stay unacknowledged.
    pub user_timeout: Duration,
    /// For how many microseconds a read that finds nothing asks the device.
    pub busy_poll_us: u32,
    /// Size of the buffer for what is sent; zero leaves it to the kernel.
    pub send_buffer_bytes: u32,
    /// Size of the buffer for what is received; zero leaves it to the kernel.
    pub receive_buffer_bytes: u32,
}

impl SocketOptions {
    /// Tries on a socket that is thrown away what the kernel grants, and logs what it does not: once,
    /// however many listeners there are.
    ///
    /// # Errors
    /// There is no socket to be had.
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
                "a setting has no effect, this kernel may want the capability CAP_NET_ADMIN for it \
                 socket_busy_poll_us={wanted} error={error:?}"
            );
        }
        Ok(())
    }

    /// Asks for them on a listener, whose connections inherit them: for sizes that is the only way
    /// in time, because they are part of the handshake. What the system refuses is no reason to
    /// serve nobody.
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

    /// Sends at once, and lets the kernel probe silent peers.
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

/// Linux gives twice what was asked for, of which it uses the half itself, and no more than its bound.
fn warn_if_less(name: &str, wanted: u32, given: io::Result<usize>, bound: &str) {
    match given {
        Ok(given) if given >= wanted as usize => {}
        Ok(given) => log::warn!(
            "the kernel allows less than a setting asks for setting={name} wanted={wanted} \
             allowed={given} bound=net.core.{bound}"
        ),
        Err(error) => {
            let error = error.to_string();
            log::warn!("a setting has no effect setting={name} wanted={wanted} error={error:?}");
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

    /// Asks for what connections do not inherit from their listener, which on Linux is nothing: it
    /// saves six system calls for each.
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

    /// epoll(7): on a stream, a read that gives less than was asked for has taken all there was.
    #[inline]
    fn may_have_more(count: usize, wanted: usize) -> bool {
        count == wanted || cfg!(not(any(target_os = "linux", target_os = "android")))
    }
}

/// Probes without an answer after which the kernel gives a peer up.
const KEEPALIVE_PROBES: u32 = 3;
