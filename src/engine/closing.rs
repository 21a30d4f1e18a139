//! How connections end: told of a fault or not, once all is out or at once, and reaped when the turn
//! ends.

use super::Engine;
use super::connection::{Connection, Phase, Socket};
use super::endings::Ending;
use crate::broker::peer::Peer;
use crate::broker::{CloseReason, Code, Fault, Retry, Verdict};
use crate::transport::websocket::CloseCode;

impl<S: Socket> Engine<S> {
    /// Carries out what the broker answered about a connection.
    #[inline]
    pub(super) fn follow(&mut self, slot: u32, verdict: Verdict) {
        match verdict {
            Verdict::Stays => {}
            Verdict::LoggedIn => self.note_login(slot),
            Verdict::Closing(reason) => self.begin_flushing(slot, reason),
        }
    }

    /// Tells a peer of a fault and closes its connection, in whatever phase it is.
    #[inline(never)]
    pub(super) fn refuse(&mut self, slot: u32, fault: &Fault) {
        match self.connections[slot].peer() {
            Some(peer) => {
                let verdict = self.broker.refuse(peer, fault, self.now);
                self.follow(slot, verdict);
            }
            None => self.begin_close(slot, fault.close_reason()),
        }
    }

    /// Closes a connection once what is queued is out.
    #[inline(never)]
    pub(super) fn begin_close(&mut self, slot: u32, reason: CloseReason) {
        if self.connections[slot].phase.reads_frames() {
            let reason = self.end_peer(slot, reason);
            self.begin_flushing(slot, reason);
            self.connections.list_to_flush(slot);
        }
    }

    /// Closes a connection, of which the broker has closed its side, once what is queued is out.
    #[inline(never)]
    pub(super) fn begin_flushing(&mut self, slot: u32, reason: CloseReason) {
        let connection = &mut self.connections[slot];
        if connection.phase.reads_frames() {
            connection.phase = Phase::Flushing(reason);
            self.set_deadline(slot, self.now.ms() + u64::from(self.limits.close_flush_ms_max));
        }
    }

    /// Closes a connection without looking at what is queued. It is reaped at the end of the turn.
    #[inline(never)]
    pub(super) fn close_now(&mut self, slot: u32, reason: CloseReason) {
        let connection = &mut self.connections[slot];
        if matches!(connection.phase, Phase::Closed(_)) {
            return;
        }
        let reason = connection.phase.reason().unwrap_or(reason);
        let reason = self.end_peer(slot, reason);
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Closed(reason);
        let id = connection.id;
        self.connections.to_reap.push(id);
    }

    /// Ends the broker's side of a connection. Gives the reason that holds: another connection may have
    /// taken the session over earlier in the turn.
    fn end_peer(&mut self, slot: u32, reason: CloseReason) -> CloseReason {
        let peer = self.connections[slot].peer();
        peer.map_or(reason, |peer| self.broker.end_peer(peer, reason, self.now))
    }

    /// What comes after the last byte of a connection that closes: a WebSocket close, a
    /// close_notify, the end of our stream; then the peer's.
    #[cold]
    pub(super) fn handle_drained(&mut self, slot: u32, reason: CloseReason) {
        let connection = &mut self.connections[slot];
        let peer = connection.peer().map(|peer| self.broker.peers.peer(peer));
        let retry = peer.and_then(Peer::closure).and_then(|closure| closure.retry);
        let code = peer.and_then(Peer::close_code).map(CloseCode::from);
        let code = code.or_else(|| common_code(reason, retry));
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
            if let Some(peer) = connection.peer() {
                let reason = connection.phase.reason().unwrap_or(CloseReason::Lost);
                self.broker.close_peer(peer, reason, self.now);
            }
            self.closed.push((id, connection.socket));
        }
        self.connections.to_reap.take_back(list);
    }

    fn ending_of<'a>(&'a self, connection: &'a Connection<S>) -> Ending<'a> {
        let login = connection.peer().and_then(|peer| self.broker.past_login_of(peer));
        let queued = connection.peer().map(|peer| self.broker.peers.peer(peer).queue.bytes());
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

/// The common close code of WebSocket that goes with a reason; none where the peer's own close or breach
/// has settled it.
fn common_code(reason: CloseReason, retry: Option<Retry>) -> Option<CloseCode> {
    match (reason, retry) {
        (CloseReason::EndOfStream | CloseReason::Transport(_), _) => None,
        (CloseReason::Refused(Code::Draining), _) => Some(CloseCode::Away),
        (CloseReason::Exceeded(_), Some(Retry::Later)) => Some(CloseCode::Again),
        (CloseReason::Exceeded(_), _) => Some(CloseCode::Size),
        _ => Some(CloseCode::Normal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_get_no_code_of_their_own_get_that_of_websocket() {
        for (reason, retry, code) in [
            (CloseReason::LoggedOut, None, Some(1000)),
            (CloseReason::Refused(Code::NotLoggedIn), Some(Retry::Never), Some(1000)),
            (CloseReason::Refused(Code::Draining), Some(Retry::Now), Some(1001)),
            (CloseReason::Exceeded("body_bytes_max"), Some(Retry::Never), Some(1009)),
            (CloseReason::Exceeded("connections_max"), Some(Retry::Later), Some(1013)),
            (CloseReason::EndOfStream, None, None),
            (CloseReason::Transport("a reserved opcode"), None, None),
        ] {
            assert_eq!(common_code(reason, retry).map(u16::from), code, "{reason}");
        }
    }
}
