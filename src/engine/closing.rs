//! How connections end: with or without an ERROR, after a flush or at once, and reaped when the turn ends.

use super::Engine;
use super::budget::Stage;
use super::connection::{Connection, Phase, Socket, source_of};
use super::endings::Ending;
use crate::broker::peer::Peer;
use crate::broker::{CloseReason, Code, Fault, Retry, Verdict};
use crate::transport::websocket::CloseCode;
use crate::work;

impl<S: Socket> Engine<S> {
    /// Carries out the broker's verdict on a connection.
    #[inline]
    pub(super) fn follow(&mut self, slot: u32, verdict: Verdict) {
        match verdict {
            Verdict::Stays => {}
            Verdict::LoggedIn => self.note_login(slot),
            Verdict::Closing(reason) => self.begin_flushing(slot, reason),
        }
    }

    /// Tells a client of a fault and closes its connection, in any phase.
    #[inline(never)] // once for each connection, or rarer
    pub(super) fn refuse(&mut self, slot: u32, fault: &Fault) {
        match self.connections[slot].peer() {
            Some(peer) => {
                let verdict = self.broker.refuse(peer, fault, self.now);
                self.follow(slot, verdict);
            }
            None => self.begin_close(slot, fault.close_reason()),
        }
    }

    /// Closes a connection once its queue is written.
    #[inline(never)] // once for each connection
    pub(super) fn begin_close(&mut self, slot: u32, reason: CloseReason) {
        if self.connections[slot].phase.reads_frames() {
            let reason = self.end_peer(slot, reason);
            self.begin_flushing(slot, reason);
            self.connections.list_to_flush(slot);
        }
    }

    /// Closes a connection whose peer in the broker is closing, once its queue is written.
    #[inline(never)] // once for each connection
    pub(super) fn begin_flushing(&mut self, slot: u32, reason: CloseReason) {
        let connection = &mut self.connections[slot];
        if connection.phase.reads_frames() {
            connection.phase = Phase::Flushing(reason);
            if !connection.flags.surplus {
                self.strangers.add(slot, source_of(connection.address.ip()));
            }
            connection.drop_held();
            if connection.kept.is_some() {
                // Its client's job keeps it no longer; a WebSocket close may be in it.
                self.connections.list_to_continue(slot);
            }
            self.note_held(slot);
            if self.connections[slot].kept.is_some() {
                // It waited for the end of a job, which wakes nobody that closes.
                self.connections.list_to_continue(slot);
            }
            self.set_deadline(slot, self.now.ms() + u64::from(self.limits.close_flush_ms_max));
        }
    }

    /// Closes a connection without writing its queue. It is reaped at the end of the turn.
    #[inline(never)] // once for each connection
    pub(super) fn close_now(&mut self, slot: u32, reason: CloseReason) {
        let connection = &mut self.connections[slot];
        if matches!(connection.phase, Phase::Closed(_)) {
            return;
        }
        let reason = connection.phase.reason().unwrap_or(reason);
        let reason = self.end_peer(slot, reason);
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Closed(reason);
        // It is freed with the connection, and nobody has to pay for it any more.
        let sealed_bytes = std::mem::take(&mut connection.sealed_bytes);
        self.broker.peers.arena.note_sealed(sealed_bytes, 0);
        self.strangers.remove(slot);
        let id = connection.id;
        self.connections.to_reap.push(id);
        self.note_held(slot);
    }

    /// Ends the session on a connection. Returns the reason that holds: another connection may have taken
    /// the session over earlier in the turn.
    fn end_peer(&mut self, slot: u32, reason: CloseReason) -> CloseReason {
        let peer = self.connections[slot].peer();
        peer.map_or(reason, |peer| self.broker.end_peer(peer, reason, self.now))
    }

    /// Continues to close a connection whose queue is written: with a WebSocket close, if one is due, and
    /// then with the end of the stream.
    #[cold] // once for each connection
    pub(super) fn handle_drained(&mut self, slot: u32, reason: CloseReason) {
        let connection = &mut self.connections[slot];
        let peer = connection.peer().map(|peer| self.broker.peers.peer(peer));
        let retry = peer.and_then(Peer::closure).and_then(|closure| closure.retry);
        let code = peer.and_then(Peer::close_code).map(CloseCode::from);
        let code = code.or_else(|| common_code(reason, retry));
        if connection.transport.close_websocket(code) && !connection.flags.ended {
            connection.phase = Phase::AwaitingClose(reason);
            self.set_deadline(slot, self.now.ms() + u64::from(self.limits.linger_ms_max));
            return self.flush_slot(slot);
        }
        if !connection.transport.control().is_empty() {
            return self.flush_slot(slot);
        }
        self.end_stream(slot, reason);
    }

    /// Ends the outgoing stream, after a `close_notify` on TLS, and waits for the client's end of stream:
    /// to close a socket with unread input would reset the connection, and the client might lose the last
    /// bytes.
    pub(super) fn end_stream(&mut self, slot: u32, reason: CloseReason) {
        let connection = &mut self.connections[slot];
        if let Some(tls) = &mut connection.tls {
            tls.close_notify();
            while tls.wants_write() && tls.write_to(&mut connection.socket).is_ok_and(|n| n > 0) {}
        }
        if connection.socket.shutdown_write().is_err() || connection.flags.ended {
            return self.close_now(slot, reason);
        }
        connection.phase = Phase::Lingering(reason);
        self.set_deadline(slot, self.now.ms() + u64::from(self.limits.linger_ms_max));
    }

    /// Removes closed connections, as many as a turn may.
    #[inline]
    pub(super) fn reap(&mut self) {
        if !self.connections.to_reap.is_empty() {
            self.budget.begin(Stage::Reaping, &mut self.broker);
            self.reap_slow(false);
        }
    }

    /// Removes all closed connections.
    pub(super) fn reap_all(&mut self) {
        self.reap_slow(true);
    }

    #[cold] // in most turns no connection closes
    fn reap_slow(&mut self, takes_all: bool) {
        while self.reap_one() {
            if self.broker.is_share_spent() && !takes_all {
                return;
            }
        }
    }

    /// Removes the connection that was closed first. Returns whether there was one.
    pub(super) fn reap_one(&mut self) -> bool {
        let Some(id) = self.connections.to_reap.pop() else { return false };
        let Some(connection) = self.connections.remove(id) else { return true };
        self.broker.meter.spend(work::SOCKET + work::of_freed(connection.noted_bytes));
        self.memory.set_held(id.slot, connection.noted_bytes, 0, self.now.ms());
        self.memory.set_ending(id.slot, connection.ending_bytes, 0);
        self.secured_len -= usize::from(connection.tls.is_some());
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
        true
    }

    fn ending_of<'a>(&'a self, connection: &'a Connection<S>) -> Ending<'a> {
        let login = connection.peer().and_then(|peer| self.broker.past_login_of(peer));
        let profile = login.and_then(|(_, profile)| Some(profile.as_ref()?.key_name()));
        let peer = connection.peer().map(|peer| self.broker.peers.peer(peer));
        let queued = peer.map(|peer| u64::from(peer.queue.bytes()) + u64::from(peer.dropped_bytes));
        // Without a peer, only answers to plain requests may be unsent.
        let queued = queued.unwrap_or_else(|| connection.transport.control().len() as u64);
        let encrypted = connection.tls.as_ref().map_or(0, |tls| tls.unsent_bytes());
        Ending {
            number: connection.number,
            listener: self.listener_name(connection.listener),
            address: connection.address,
            transport: connection.transport_name(),
            login: login.map_or("", |(login, _)| login),
            profile,
            reason: connection.phase.reason().unwrap_or(CloseReason::Lost),
            duration_ms: self.now.ms().saturating_sub(connection.accepted_ms),
            totals: connection.totals,
            unsent_bytes: queued + encrypted,
        }
    }
}

/// The WebSocket close code for a reason; `None` if it follows from the client's own close or violation.
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
    fn without_a_code_of_the_broker_the_close_code_is_a_registered_one() {
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
