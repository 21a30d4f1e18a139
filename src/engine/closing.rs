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
        let reason = self.end_peer(slot, reason);
        self.connections[slot].phase = Phase::Flushing(reason);
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
        let reason = self.end_peer(slot, reason);
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Closed(reason);
        let id = connection.id;
        self.connections.to_reap.push(id);
    }

    /// Ends the broker's side of a connection. Says why the connection ends: another may have taken it
    /// over in this very turn.
    fn end_peer(&mut self, slot: u32, reason: CloseReason) -> CloseReason {
        let peer = self.connections[slot].peer;
        peer.map_or(reason, |peer| self.broker.end_peer(peer, reason, self.now))
    }

    /// What comes after the last byte of a connection that closes: a WebSocket close, a
    /// close_notify, the end of our stream; then the peer's.
    #[cold]
    pub(super) fn handle_drained(&mut self, slot: u32, reason: CloseReason) {
        let connection = &mut self.connections[slot];
        let peer = connection.peer.map(|peer| self.broker.peers.peer(peer));
        let is_standard = peer.is_some_and(|peer| matches!(peer.encoding, Encoding::Standard(_)));
        let retry = peer.and_then(Peer::closure).and_then(|closure| closure.retry);
        let code = close_code(is_standard, reason, retry);
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
fn close_code(is_standard: bool, reason: CloseReason, retry: Option<Retry>) -> Option<CloseCode> {
    if let (true, Some(code), Some(retry)) = (is_standard, reason.code(), retry) {
        return Some(CloseCode::from(4000 + 100 * retry.number() + code.number()));
    }
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
    const CODES: [Code; 25] = [
        Code::MalformedCommand,
        Code::UnknownCommand,
        Code::MalformedHeader,
        Code::WrongProfile,
        Code::TakenOver,
        Code::AlreadyLogged,
        Code::NoRights,
        Code::NothingToSubscribe,
        Code::InvalidDestinationType,
        Code::InvalidRegex,
        Code::InvalidApplicationKey,
        Code::InvalidProfileKey,
        Code::MissingHeader,
        Code::NotLoggedIn,
        Code::WrongSession,
        Code::NoSuchDestination,
        Code::LimitExceeded,
        Code::SlowConsumer,
        Code::Draining,
        Code::TimedOut,
        Code::ProtocolNotServed,
        Code::MalformedFrame,
        Code::UnsupportedVersion,
        Code::UnknownHost,
        Code::UnknownId,
    ];

    fn code_of(is_standard: bool, reason: CloseReason, retry: Option<Retry>) -> Option<u16> {
        close_code(is_standard, reason, retry).map(u16::from)
    }

    #[test]
    fn close_codes_of_the_standard_dialect_are_what_clients_have_seen_from_the_first_release_on() {
        for (number, code) in CODES.into_iter().enumerate() {
            let number = number as u16;
            for (retry, first) in [(Retry::Never, 4000), (Retry::Later, 4100), (Retry::Now, 4200)] {
                let found = code_of(true, CloseReason::Refused(code), Some(retry));
                assert_eq!(found, Some(first + number), "{code:?} {retry:?}");
            }
        }
        for (reason, code) in [
            (CloseReason::TakenOver, 4004),
            (CloseReason::Exceeded("body_bytes_max"), 4016),
            (CloseReason::TooSlow("hard_bytes_max"), 4017),
            (CloseReason::TimedOut("connect_ms_max"), 4019),
        ] {
            assert_eq!(code_of(true, reason, Some(Retry::Never)), Some(code), "{reason}");
        }
    }

    #[test]
    fn classic_clients_and_those_that_were_told_no_error_get_the_codes_of_websocket() {
        for (reason, retry, code) in [
            (CloseReason::LoggedOut, None, Some(1000)),
            (CloseReason::Refused(Code::NotLoggedIn), Some(Retry::Never), Some(1000)),
            (CloseReason::Refused(Code::Draining), Some(Retry::Now), Some(1001)),
            (CloseReason::Exceeded("body_bytes_max"), Some(Retry::Never), Some(1009)),
            (CloseReason::Exceeded("connections_max"), Some(Retry::Later), Some(1013)),
            (CloseReason::EndOfStream, None, None),
            (CloseReason::Transport("a reserved opcode"), None, None),
        ] {
            assert_eq!(code_of(false, reason, retry), code, "{reason}");
        }
        assert_eq!(code_of(true, CloseReason::LoggedOut, None), Some(1000));
    }
}
