//! Listening sockets.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

use super::socket::SocketOptions;
use crate::transport::ListenerPolicy;

/// A bound socket, and what connections to it may be.
#[derive(Debug)]
pub struct Listening {
    pub(super) socket: TcpListener,
    pub(super) policy: ListenerPolicy,
    /// The address that was bound: with its port, where any was asked for.
    pub address: SocketAddr,
}

impl Listening {
    /// Binds an address. Connections to it get these options.
    ///
    /// # Errors
    /// Those of the system: the address is in use, is not this machine's, or needs rights.
    pub fn bind(
        address: SocketAddr,
        policy: ListenerPolicy,
        options: &SocketOptions,
    ) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // Who wants both families says so with two listeners.
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        options.apply_to_listener(&socket);
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into());
        let address = socket.local_addr()?;
        Ok(Self { socket, policy, address })
    }
}

/// Connections that may wait to be accepted; the kernel cuts it to its own bound.
const BACKLOG: i32 = 4096;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};
    use std::time::Duration;

    use socket2::SockRef;

    use super::*;

    #[test]
    fn connections_inherit_what_was_asked_of_the_listener() {
        let options = SocketOptions {
            keepalive: Duration::from_secs(90),
            user_timeout: Duration::from_millis(61_000),
            busy_poll_us: 0,
            send_buffer_bytes: 100_000,
            receive_buffer_bytes: 50_000,
        };
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listening = Listening::bind(any_port, ListenerPolicy::default(), &options).unwrap();
        let _client = TcpStream::connect(listening.address).unwrap();
        // The handshake is over when the client is connected, so there is no need to wait.
        let (accepted, _) = listening.socket.accept().unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), options.keepalive);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), options.keepalive / 3);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(options.user_timeout));
        // The kernel doubles them for what it keeps beside the octets.
        assert_eq!(socket.send_buffer_size().unwrap(), 200_000);
        assert_eq!(socket.recv_buffer_size().unwrap(), 100_000);
    }
}
