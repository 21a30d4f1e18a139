//! TLS below length-prefixed envelopes, with rustls as the client.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ClientConnection;
use rustls_pki_types::ServerName;

use crate::support::client::{
    Client, Profile, Stream, Transport, connect, connect_frame, encode, envelope, tls_config,
};
use crate::support::frame::Frame;
use crate::support::scenarios::every_scenario;
use crate::support::server::Server;

every_scenario!(Transport::Tls);

#[test]
fn tls_1_2_without_a_server_name_is_served() {
    let server = Server::start();
    let mut config = tls_config(&server.authority(), &[&rustls::version::TLS12]);
    config.enable_sni = false;
    let stream = Stream::secure(connect(server.address(), None), config).unwrap();
    let mut ana = Client::over(stream);
    ana.send_bytes(&connect_frame(Profile::Agent, "ana"));
    ana.receive_connected();
    let body = vec![0xfe; 100_000];
    ana.send("/agent/ana", &body);
    assert!(ana.receive_message().body == body);
    ana.send_frame("DISCONNECT", &[("receipt-id", "r")], b"");
    assert_eq!(ana.receive().header("receipt-id"), "r");
    ana.receive_end();
}

/// Existing clients read the flag, the length and the frame with one call each, which returns one record
/// at most.
#[test]
fn a_frame_that_fits_one_record_never_straddles_two() {
    let server = Server::start();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut ana = Records::connect(&server, version);
        ana.write(&envelope(&connect_frame(Profile::Agent, "ana")));
        let mut bytes = Vec::new();
        let sizes = [1, 100, 5_000, 9_000, 9_000, 16_000, 3, 700, 12_000, 12_000];
        for size in sizes.repeat(4) {
            let body = vec![b'x'; size];
            bytes.extend(envelope(&encode("SEND", &[("destination", "/agent/ana")], &body)));
        }
        bytes.extend(envelope(&encode("DISCONNECT", &[], b"")));
        ana.write(&bytes);
        let mut commands = Vec::new();
        while commands.last().is_none_or(|last| last != "RECEIPT") {
            let record = ana.next_record();
            let mut rest = &record[..];
            while let [0, a, b, c, d, after @ ..] = rest {
                let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
                let (frame, after) = after.split_at_checked(length).expect("a whole frame");
                commands.push(Frame::read_classic(frame).command);
                rest = after;
            }
            assert!(rest.is_empty(), "a record ends within an envelope");
        }
        assert_eq!(commands.len(), 1 + 4 * sizes.len() + 1);
    }
}

#[test]
fn handshake_and_records_may_arrive_byte_by_byte() {
    let server = Server::start();
    let mut ana = Records::connect_slowly(&server);
    for byte in envelope(&connect_frame(Profile::Agent, "ana")) {
        ana.write(&[byte]);
    }
    assert_eq!(Frame::read_classic(&ana.next_record()[5..]).command, "CONNECTED");
    ana.slowly = true;
    ana.write(&envelope(&encode("SEND", &[("destination", "/agent/ana")], b"a\0b")));
    assert_eq!(Frame::read_classic(&ana.next_record()[5..]).body, b"a\0b");
}

#[test]
fn a_close_notify_ends_the_session_and_is_answered() {
    let server = Server::start();
    let mut ana = Client::log_in(&server, Transport::Tls, Profile::Agent, "ana");
    let Stream::Secure(secure) = ana.stream() else { panic!("TLS was asked for") };
    secure.conn.send_close_notify();
    secure.flush().unwrap();
    ana.receive_end();
    drop(ana);
    server.log.wait_for_line(&["closed", "login=\"ana\"", "reason=closed"]);
}

#[test]
fn a_stream_that_ends_without_close_notify_ends_the_session() {
    let server = Server::start();
    let ana = Client::log_in(&server, Transport::Tls, Profile::Agent, "ana");
    drop(ana);
    server.log.wait_for_line(&["closed", "login=\"ana\"", "transport=tls", "reason=closed"]);
}

#[test]
fn violations_of_tls_are_answered_with_an_alert_and_do_not_affect_others() {
    let server = Server::start();
    let mut eva = Client::log_in(&server, Transport::Tls, Profile::Agent, "eva");
    // A handshake record with other content.
    let mut stream = Stream::connect(server.address());
    stream.write_all(&[0x16, 3, 1, 0, 4, 0xff, 0, 0, 0]).unwrap();
    assert_eq!(stream.read_to_end().first(), Some(&0x15), "an alert");
    // A ClientHello that says it has 64 KiB, of which 17 arrive.
    let mut stream = Stream::connect(server.address());
    stream.write_all(&[0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xf0, 3, 3]).unwrap();
    stream.write_all(&[0; 0x3ffa]).unwrap();
    stream.write_all(&[0x16, 3, 1, 4, 0]).unwrap();
    stream.write_all(&[0; 0x400]).unwrap();
    stream.wait_for_any_end();
    server.log.wait_for_line(&["closed", "a TLS handshake message is too large"]);
    // A record within a session that does not decrypt.
    let mut ana = Client::log_in(&server, Transport::Tls, Profile::Agent, "ana");
    let mut socket = ana.stream().socket().try_clone().unwrap();
    socket.write_all(&[0x17, 3, 3, 0, 40]).unwrap();
    socket.write_all(&[7; 40]).unwrap();
    ana.stream().wait_for_any_end();
    drop((ana, socket));
    server.log.wait_for_line(&["closed", "login=\"ana\"", "a TLS record does not decrypt"]);
    eva.expect_nothing();
}

/// A TLS client that reads one record at a time, and can write single bytes.
struct Records {
    socket: TcpStream,
    connection: ClientConnection,
    slowly: bool,
}

impl Records {
    fn connect(server: &Server, version: &'static rustls::SupportedProtocolVersion) -> Self {
        let config = tls_config(&server.authority(), &[version]);
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        connection.set_buffer_limit(None);
        let mut socket = connect(server.address(), None);
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).unwrap();
        }
        Self { socket, connection, slowly: false }
    }

    fn connect_slowly(server: &Server) -> Self {
        let config = tls_config(&server.authority(), &[&rustls::version::TLS12]);
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = connect(server.address(), None);
        let mut records = Self { socket, connection, slowly: true };
        while records.connection.is_handshaking() {
            records.write_out();
            if records.connection.is_handshaking() {
                records.read_record();
            }
        }
        records
    }

    fn write(&mut self, bytes: &[u8]) {
        self.connection.writer().write_all(bytes).unwrap();
        self.write_out();
    }

    fn write_out(&mut self) {
        let mut bytes = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut bytes).unwrap();
        }
        let pieces = if self.slowly { 1 } else { bytes.len().max(1) };
        for piece in bytes.chunks(pieces) {
            self.socket.write_all(piece).unwrap();
        }
    }

    /// The content of the next record with application data.
    fn next_record(&mut self) -> Vec<u8> {
        loop {
            self.read_record();
            let mut plain = Vec::new();
            match self.connection.reader().read_to_end(&mut plain) {
                Ok(_) => panic!("the stream ended"),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            // Session tickets are records as well.
            if !plain.is_empty() {
                return plain;
            }
        }
    }

    fn read_record(&mut self) {
        let mut record = vec![0; 5];
        self.socket.read_exact(&mut record).unwrap();
        let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
        record.resize(5 + length, 0);
        self.socket.read_exact(&mut record[5..]).unwrap();
        let mut rest = &record[..];
        while !rest.is_empty() {
            self.connection.read_tls(&mut rest).unwrap();
            self.connection.process_new_packets().unwrap();
        }
    }
}
