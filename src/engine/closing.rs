//! How connections end: told of a fault or not, once all is out or at once, and reaped when the turn
//! ends.

use super::Engine;
use super::connection::{Connection, Phase, Socket};
use super::endings::Ending;
use crate::broker::encoding::Encoding;
use crate::broker::peer::Peer;
use crate::broker::{CloseReason, Code, Fault, Retry};
use crate::transport::websocket::CloseCode;

impl<S: Socket> Engine<S> {
    /// Tells a peer of a fault and closes its connection, in whatever phase it is.
    #[inline(never)]
    pub(super) fn refuse(&mut self, slot: u32, fault: &Fault) {
        match self.connections[slot].peer {
            Some(peer) => {
                self.broker.refuse(peer, fault, self.now);
                self.note_closure(slot);
            }
            None => self.begin_close(slot, fault.close_reason()),
        }
    }

    /// Follows the broker, where it has settled that a connection closes.
    #[inline]
    pub(super) fn note_closure(&mut self, slot: u32) {
        if self.broker.peers.has_closing() {
            self.follow_closure(slot);
        }
    }

    #[inline(never)]
    fn follow_closure(&mut self, slot: u32) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        let Some(peer) = connection.peer else { return };
        let Some(closure) = self.broker.peers.peer(peer).closure() else { return };
        if connection.phase.reads_frames() {
            connection.phase = Phase::Flushing(closure.reason);
            self.set_deadline(slot, self.now.ms() + u64::from(self.limits.close_flush_ms_max));
        }
    }

    /// Closes a connection once what is queued is out.
    #[inline(never)]
    pub(super) fn begin_close(&mut self, slot: u32, reason: CloseReason) {
        let connection = &mut self.connections[slot];
        if !connection.phase.reads_frames() {
            return;
        }
        connection.phase = Phase::Flushing(reason);
        if let Some(peer) = connection.peer {
            self.broker.end_peer(peer, reason, self.now);
        }
        self.set_deadline(slot, self.now.ms() + u64::from(self.limits.close_flush_ms_max));
        self.connections.list_to_flush(slot);
    }

    /// Closes a connection without looking at what is queued. It is reaped at the end of the turn.
    #[inline(never)]
    pub(super) fn close_now(&mut self, slot: u32, reason: CloseReason) {
        let connection = &mut self.connections[slot];
        if matches!(connection.phase, Phase::Closed(_)) {
            return;
        }
        let reason = connection.phase.reason().unwrap_or(reason);
        if let Some(peer) = connection.peer {
            self.broker.end_peer(peer, reason, self.now);
        }
        connection.phase = Phase::Closed(reason);
        let id = connection.id;
        self.connections.to_reap.push(id);
    }

    /// What comes after the last octet of a connection that closes: a WebSocket close, a
    /// close_notify, the end of our stream; then the peer's.
    #[cold]
    pub(super) fn handle_drained(&mut self, slot: u32, reason: CloseReason) {
        let connection = &mut self.connections[slot];
        let peer = connection.peer.map(|peer| self.broker.peers.peer(peer));
        let code = close_code(reason, peer);
        if connection.transport.begin_close(code) && !connection.flags.ended {
            connection.phase = Phase::AwaitingClose(reason);
            self.set_deadline(slot, self.now.ms() + u64::from(self.limits.linger_ms_max));
            return self.flush_slot(slot);
        }
        if !connection.transport.control().is_empty() {
            return self.flush_slot(slot);
        }
        self.end_stream(slot, reason);
    }

    /// Ends our stream, and waits for the peer to end its own: closing with unread input would
    /// reset the connection, and the peer might lose what it was sent last.
    pub(super) fn end_stream(&mut self, slot: u32, reason: CloseReason) {
        let connection = &mut self.connections[slot];
        if let Some(tls) = &mut connection.tls {
            tls.begin_close();
            while tls.wants_write() && tls.write_to(&mut connection.socket).is_ok_and(|n| n > 0) {}
        }
        if connection.socket.shutdown_write().is_err() || connection.flags.ended {
            return self.close_now(slot, reason);
        }
        connection.phase = Phase::Lingering(reason);
        self.set_deadline(slot, self.now.ms() + u64::from(self.limits.linger_ms_max));
    }

    /// Lets go of the connections that are closed.
    #[inline]
    pub(super) fn reap(&mut self) {
        if !self.connections.to_reap.is_empty() {
            self.reap_slow();
        }
    }

    #[cold]
    fn reap_slow(&mut self) {
        let mut list = self.connections.to_reap.take();
        for id in list.drain(..) {
            let Some(connection) = self.connections.remove(id) else { continue };
            self.memory.note_released(connection.held_bytes());
            if connection.flags.surplus {
                self.surplus_len -= 1;
            } else {
                self.counters.connections_closed += 1;
            }
            let mut endings = std::mem::take(&mut self.endings);
            endings.note(&self.ending_of(&connection), self.now.ms());
            self.endings = endings;
            if let Some(peer) = connection.peer {
                let reason = connection.phase.reason().unwrap_or(CloseReason::Lost);
                self.broker.close_peer(peer, reason, self.now);
            }
            self.closed.push((id, connection.socket));
        }
        self.connections.to_reap.take_back(list);
    }

    fn ending_of<'a>(&'a self, connection: &'a Connection<S>) -> Ending<'a> {
        let login = connection.peer.and_then(|peer| self.broker.past_login_of(peer));
        let queued = connection.peer.map(|peer| self.broker.peers.peer(peer).queue.bytes());
        // Who speaks neither dialect gets answers to plain requests.
        let queued = queued.map_or_else(|| connection.transport.control().len() as u64, u64::from);
        let encrypted = connection.tls.as_ref().map_or(0, |tls| tls.unsent_bytes());
        Ending {
            number: connection.number,
            listener: self.listener_name(connection.listener),
            address: connection.address,
            transport: connection.transport_name(),
            login: login.unwrap_or_default(),
            reason: connection.phase.reason().unwrap_or(CloseReason::Lost),
            duration_ms: self.now.ms().saturating_sub(connection.accepted_ms),
            totals: connection.totals,
            unsent_bytes: queued + encrypted,
        }
    }
}

/// The WebSocket close code that goes with a reason; none where the peer's own close or breach has
/// settled it. Classic clients wait for 1000; clients of the standard dialect learn from the hundreds
/// whether to come back.
fn close_code(reason: CloseReason, peer: Option<&Peer>) -> Option<CloseCode> {
    let is_standard = peer.is_some_and(|peer| matches!(peer.encoding, Encoding::Standard(_)));
    let retry = peer.and_then(Peer::closure).and_then(|closure| closure.retry);
    if let (true, Some(code), Some(retry)) = (is_standard, reason.code(), retry) {
        return Some(CloseCode::from(4000 + 100 * retry as u16 + code as u16));
    }
    match (reason, retry) {
        (CloseReason::EndOfStream | CloseReason::Transport(_), _) => None,
        (CloseReason::Refused(Code::Draining), _) => Some(CloseCode::Away),
        (CloseReason::Exceeded(_), Some(Retry::Later)) => Some(CloseCode::Again),
        (CloseReason::Exceeded(_), _) => Some(CloseCode::Size),
        _ => Some(CloseCode::Normal),
    }
}
