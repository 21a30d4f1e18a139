//! Listening sockets.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

use super::socket::SocketOptions;
use crate::transport::ListenerPolicy;

/// A bound socket, and the protocols that it serves.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(super) socket: TcpListener,
    pub(super) policy: ListenerPolicy,
    /// The bound address, with the port that the system chose if any was asked for.
    pub address: SocketAddr,
    /// Its name in the log.
    pub name: String,
}

/// Address families that `[::]` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Families {
    /// IPv6 and IPv4, if the system supports both on one socket.
    Both,
    /// IPv6 alone, because another listener has the port for IPv4.
    Ipv6,
}

impl Listening {
    /// Binds an address. Connections inherit the `options`. Without a name, its name is the address.
    ///
    /// # Errors
    /// Those of the system: the address is in use, is not one of this machine, or needs privileges.
    pub(crate) fn bind(
        address: SocketAddr,
        families: Families,
        name: Option<&str>,
        policy: ListenerPolicy,
        options: &SocketOptions,
    ) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            let wants_both = families == Families::Both && address.ip().is_unspecified();
            match socket.set_only_v6(!wants_both) {
                // OpenBSD has no sockets of both families.
                Err(error) if wants_both => {
                    let error = error.to_string();
                    log::warn!(address:%, error; "listening for IPv6 only");
                }
                result => result?,
            }
        }
        socket.bind(&address.into())?;
        options.apply_to_listener(&socket);
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into());
        let address = socket.local_addr()?;
        let name = name.map_or_else(|| address.to_string(), str::to_owned);
        Ok(Self { socket, policy, address, name })
    }
}

/// Connections that may wait to be accepted; the kernel has a bound of its own.
const BACKLOG: i32 = 4096;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};
    use std::time::Duration;

    use socket2::SockRef;

    use super::*;

    #[test]
    fn connections_inherit_the_options_of_the_listener() {
        let options = SocketOptions {
            keepalive: Duration::from_secs(90),
            user_timeout: Duration::from_millis(61_000),
            busy_poll_us: 0,
            send_buffer_bytes: 100_000,
            receive_buffer_bytes: 50_000,
        };
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listening =
            Listening::bind(any_port, Families::Both, None, ListenerPolicy::default(), &options)
                .unwrap();
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
        // The kernel doubles sizes for its own overhead.
        assert_eq!(socket.send_buffer_size().unwrap(), 200_000);
        assert_eq!(socket.recv_buffer_size().unwrap(), 100_000);
    }

    #[test]
    fn the_unspecified_address_serves_both_families() {
        use std::net::{Ipv6Addr, SocketAddr};

        let options = SocketOptions {
            keepalive: Duration::from_secs(90),
            user_timeout: Duration::from_millis(61_000),
            busy_poll_us: 0,
            send_buffer_bytes: 0,
            receive_buffer_bytes: 0,
        };
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let bind = |families| {
            Listening::bind(all, families, Some("all"), ListenerPolicy::default(), &options)
        };
        let both = match bind(Families::Both) {
            Ok(both) => both,
            // EAFNOSUPPORT: the machine has no IPv6.
            Err(error) => return assert_eq!(error.raw_os_error(), Some(97), "{error}"),
        };
        assert_eq!(both.name, "all");
        let port = both.address.port();
        for loopback in
            [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()]
        {
            TcpStream::connect(loopback).unwrap();
        }
        let alone = bind(Families::Ipv6).unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, alone.address.port())).unwrap_err();
        TcpStream::connect((Ipv6Addr::LOCALHOST, alone.address.port())).unwrap();
    }
}
