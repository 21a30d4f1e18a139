//! TLS below the other layers: rustls, fed from memory and drained into the socket.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};

use super::TransportFault;
use super::records::{Records, Stage};
use crate::work;

/// What TLS is served with.
#[derive(Clone, Debug)]
pub struct TlsService {
    /// The certificate, the versions and the cipher suites.
    pub config: Arc<ServerConfig>,
    /// Units of work that a signature with the certificate's key takes.
    pub signature_units: u32,
}

impl From<Arc<ServerConfig>> for TlsService {
    /// With a key of which nothing is known.
    fn from(config: Arc<ServerConfig>) -> Self {
        Self { config, signature_units: work::HANDSHAKE }
    }
}

/// TLS of one connection.
#[derive(Debug)]
pub(crate) struct TlsLayer {
    connection: ServerConnection,
    /// Whether the client's `close_notify` has arrived.
    close_received: bool,
    /// Plain bytes that were encrypted since everything was last written.
    unsent_bytes: usize,
    /// Bytes of records since then, and of these the bytes that are written.
    sealed_bytes: usize,
    written_bytes: usize,
    /// What has arrived.
    records: Records,
    /// Units of work of what was decrypted, which are still to be counted.
    units: u32,
    /// The client's violation of the protocol, reported once all data before it is decrypted.
    violation: Option<TransportFault>,
}

impl TlsLayer {
    /// A connection before its handshake.
    ///
    /// # Errors
    /// The configuration cannot serve any connection.
    pub(crate) fn new(config: &Arc<ServerConfig>) -> Result<Self, TransportFault> {
        let mut connection = ServerConnection::new(Arc::clone(config))
            .map_err(|_| TransportFault::Tls("the TLS configuration is unusable"))?;
        // The outbound queue holds the bound; at most one window of records is buffered here.
        connection.set_buffer_limit(None);
        Ok(Self {
            connection,
            close_received: false,
            unsent_bytes: 0,
            sealed_bytes: 0,
            written_bytes: 0,
            records: Records::default(),
            units: 0,
            violation: None,
        })
    }

    /// Decrypts some of `wire` into `plain`, a few KiB at once, and returns the number of bytes there, which may be zero
    /// though there is more. `wire` is used up when it is empty and this returns zero.
    ///
    /// # Errors
    /// The client violated the protocol. An alert is still to be written.
    pub(crate) fn decrypt(
        &mut self,
        wire: &mut &[u8],
        plain: &mut [u8],
    ) -> Result<usize, TransportFault> {
        let mut has_stepped = false;
        loop {
            match self.connection.reader().read(plain) {
                Ok(0) => {
                    // RFC 8446, 6.1: data after close_notify is ignored.
                    self.close_received = true;
                    *wire = &[];
                    return Ok(0);
                }
                Ok(count) => {
                    self.count(count);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(TransportFault::Tls("the record layer failed")),
            }
            if let Some(violation) = self.violation {
                *wire = &[];
                return Err(violation);
            }
            // `read_tls` takes an empty slice for the end of the stream.
            if wire.is_empty() || has_stepped {
                self.count(0);
                return Ok(0);
            }
            let before = *wire;
            self.connection
                .read_tls(wire)
                .map_err(|_| TransportFault::Tls("the record layer is full"))?;
            self.records.take_in(&before[..before.len() - wire.len()]);
            if self.connection.is_handshaking() && self.records.is_too_large() {
                *wire = &[];
                return Err(TransportFault::Tls("a TLS handshake message is too large"));
            }
            let had_output = self.connection.wants_write();
            self.violation =
                self.connection.process_new_packets().map_err(|error| name(&error)).err();
            if !had_output && self.connection.wants_write() {
                self.records.note_answered();
            }
            has_stepped = true;
        }
    }

    /// Counts the work of records that have ended, and that brought so many bytes.
    fn count(&mut self, plain_bytes: usize) {
        let may_change_keys = self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let stage = match self.connection.is_handshaking() {
            true => Stage::Handshake,
            false => Stage::Data { may_change_keys },
        };
        self.units += self.records.take_units(plain_bytes, stage);
    }

    /// Units of work since the last time, without answers in a handshake and without the bytes.
    pub(crate) fn take_units(&mut self) -> u32 {
        std::mem::take(&mut self.units)
    }

    /// Bytes that have arrived and cannot be decrypted before there are more, or of which no message is whole yet; at
    /// most.
    pub(crate) fn held_bytes(&self) -> usize {
        self.records.kept_bytes()
    }

    /// Whether the client's `close_notify` has arrived.
    pub(crate) fn is_ended_by_client(&self) -> bool {
        self.close_received
    }

    /// Whether the handshake is still going on.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Units of work that it takes to answer a flight of the handshake.
    pub(crate) fn units_of(&self, service: &TlsService) -> u32 {
        match self.connection.handshake_kind() {
            // Nothing is signed.
            Some(HandshakeKind::Resumed) => work::HANDSHAKE_RESUMED,
            _ => service.signature_units,
        }
    }

    /// Encrypts bytes; up to [`RECORD_BYTES_MAX`] of them become one record.
    pub(crate) fn encrypt(&mut self, plain: &[u8]) {
        // Writing into memory without a limit does not fail.
        let _ = self.connection.writer().write_all(plain);
        self.unsent_bytes += plain.len();
        self.sealed_bytes += plain.len() + plain.len().div_ceil(RECORD_BYTES_MAX) * SEAL_BYTES;
    }

    /// Queues a `close_notify` alert.
    pub(crate) fn close_notify(&mut self) {
        self.connection.send_close_notify();
    }

    /// Whether there are records to write.
    pub(crate) fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Writes as many records as one call takes.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn write_to(&mut self, socket: &mut impl Write) -> io::Result<usize> {
        let written = self.connection.write_tls(socket)?;
        self.written_bytes += written;
        if !self.connection.wants_write() {
            (self.unsent_bytes, self.sealed_bytes, self.written_bytes) = (0, 0, 0);
        }
        Ok(written)
    }

    /// Memory of records that are not written yet, at most: a record is freed once all of it is written.
    pub(crate) fn waiting_bytes(&self) -> usize {
        let left = self.sealed_bytes.saturating_sub(self.written_bytes);
        self.sealed_bytes.min(left + RECORD_BYTES_MAX + SEAL_BYTES)
    }

    /// Upper bound of the plain bytes whose records are not written yet.
    pub(crate) fn unsent_bytes(&self) -> u64 {
        self.unsent_bytes as u64
    }
}

/// Plain bytes that one record can carry.
pub(crate) const RECORD_BYTES_MAX: usize = 16_384;

/// Bytes of a record besides these: its header, its inner type or nonce, and its tag, and what its allocation takes.
const SEAL_BYTES: usize = 64;

fn name(error: &rustls::Error) -> TransportFault {
    use rustls::Error;
    TransportFault::Tls(match error {
        Error::InvalidMessage(_) => "a malformed TLS message",
        Error::PeerIncompatible(_) => "no TLS version or cipher in common",
        Error::PeerMisbehaved(_) => "TLS was broken by the peer",
        Error::AlertReceived(_) => "the peer sent a TLS alert",
        Error::DecryptError => "a TLS record does not decrypt",
        Error::PeerSentOversizedRecord => "an oversized TLS record",
        _ => "TLS failed",
    })
}
