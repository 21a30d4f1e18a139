//! TLS under the frames: rustls, fed from what was read and drained into what is written.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

use super::TransportError;

/// TLS of one connection.
#[derive(Debug)]
pub(crate) struct TlsLayer {
    connection: ServerConnection,
    /// Whether the peer said that nothing more follows.
    close_received: bool,
    /// Bytes that were encrypted since all was written.
    unsent_bytes: usize,
    /// How the peer broke the protocol, once it has: what it had sent before is still lent out.
    breach: Option<TransportError>,
}

impl TlsLayer {
    /// A connection of which no byte was read.
    ///
    /// # Errors
    /// The configuration cannot serve any connection.
    pub(crate) fn new(config: &Arc<ServerConfig>) -> Result<Self, TransportError> {
        let mut connection = ServerConnection::new(Arc::clone(config))
            .map_err(|_| TransportError::Tls("the TLS configuration is unusable"))?;
        // The queue in front of it is the bound; at most one window is staged here.
        connection.set_buffer_limit(None);
        Ok(Self { connection, close_received: false, unsent_bytes: 0, breach: None })
    }

    /// Decrypts some of `wire` and says how much of `plain` that filled. `wire` is used up when it
    /// is empty and nothing more comes out.
    ///
    /// # Errors
    /// The peer broke the protocol. The alert that says so is still to be written.
    pub(crate) fn decrypt(
        &mut self,
        wire: &mut &[u8],
        plain: &mut [u8],
    ) -> Result<usize, TransportError> {
        loop {
            match self.connection.reader().read(plain) {
                Ok(0) => {
                    // The peer said that it closes; nothing that follows is authentic.
                    self.close_received = true;
                    *wire = &[];
                    return Ok(0);
                }
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(TransportError::Tls("the record layer failed")),
            }
            if let Some(breach) = self.breach {
                *wire = &[];
                return Err(breach);
            }
            // An empty slice would be taken for the end of the stream.
            if wire.is_empty() {
                return Ok(0);
            }
            self.connection
                .read_tls(wire)
                .map_err(|_| TransportError::Tls("the record layer is full"))?;
            self.breach = self.connection.process_new_packets().map_err(|error| name(&error)).err();
        }
    }

    /// Whether the peer said that nothing more follows.
    pub(crate) fn is_ended_by_peer(&self) -> bool {
        self.close_received
    }

    /// Whether the handshake is still going on.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Encrypts bytes, at most one record's worth to make one record.
    pub(crate) fn encrypt(&mut self, plain: &[u8]) {
        // Without a limit, and into memory, this does not fail.
        let _ = self.connection.writer().write_all(plain);
        self.unsent_bytes += plain.len();
    }

    /// Says that nothing more follows.
    pub(crate) fn begin_close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Whether there is something to write.
    pub(crate) fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Writes records, as many as fit one call.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn write_to(&mut self, socket: &mut impl Write) -> io::Result<usize> {
        let written = self.connection.write_tls(socket)?;
        if !self.connection.wants_write() {
            self.unsent_bytes = 0;
        }
        Ok(written)
    }

    /// How many of the bytes that were encrypted may not be written yet.
    pub(crate) fn unsent_bytes(&self) -> u64 {
        self.unsent_bytes as u64
    }
}

/// Bytes that fit into one record.
pub(crate) const RECORD_BYTES_MAX: usize = 16_384;

fn name(error: &rustls::Error) -> TransportError {
    use rustls::Error;
    TransportError::Tls(match error {
        Error::InvalidMessage(_) => "a malformed TLS message",
        Error::PeerIncompatible(_) => "no TLS version or cipher in common",
        Error::PeerMisbehaved(_) => "TLS was broken by the peer",
        Error::AlertReceived(_) => "the peer sent a TLS alert",
        Error::DecryptError => "a TLS record does not decrypt",
        Error::PeerSentOversizedRecord => "an oversized TLS record",
        _ => "TLS failed",
    })
}
