//! Listening sockets.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

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
    /// Binds an address.
    ///
    /// # Errors
    /// Those of the system: the address is in use, is not this machine's, or needs rights.
    pub fn bind(address: SocketAddr, policy: ListenerPolicy) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // Who wants both families says so with two listeners.
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into());
        let address = socket.local_addr()?;
        Ok(Self { socket, policy, address })
    }
}

/// Connections that may wait to be accepted; the kernel cuts it to its own bound.
const BACKLOG: i32 = 4096;
