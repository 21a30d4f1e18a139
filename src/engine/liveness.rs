//! Liveness: the deadline of each phase, heart-beats, pings, and timeouts.

use super::Engine;
use super::connection::{Connection, ConnectionId, NEVER, Phase, SURPLUS, Socket};
use crate::broker::peer::Beats;
use crate::broker::{CloseReason, Fault};
use crate::limits::Limits;
use crate::outbound::Framing;

impl<S: Socket> Engine<S> {
    /// Checks a connection whose deadline may have passed.
    #[inline(never)] // deadlines are rarely due
    pub(super) fn check_deadline(&mut self, armed_ms: u64, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else { return };
        if connection.armed_ms != armed_ms {
            return;
        }
        connection.armed_ms = NEVER;
        let deadline_ms = connection.deadline_ms;
        if deadline_ms > self.now.ms() {
            return self.set_deadline(id.slot, deadline_ms);
        }
        if connection.phase == Phase::Open {
            return self.check_liveness(id.slot);
        }
        if connection.flags.surplus {
            return self.close_now(id.slot, CloseReason::Exceeded(SURPLUS));
        }
        let limit = match connection.phase {
            Phase::AwaitingProtocol
                if connection.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) =>
            {
                "tls_handshake_ms_max"
            }
            Phase::AwaitingProtocol => "upgrade_ms_max",
            Phase::AwaitingConnect => "connect_ms_max",
            Phase::Flushing(reason) | Phase::AwaitingClose(reason) | Phase::Lingering(reason) => {
                return self.close_now(id.slot, reason);
            }
            Phase::Open | Phase::Closed(_) => return,
        };
        self.counters.timeouts += 1;
        if connection.phase == Phase::AwaitingConnect {
            return self.refuse(id.slot, &Fault::timed_out(limit));
        }
        let held = connection.held_bytes();
        if connection.transport.answer_late(limit) {
            self.memory.note_released(held - connection.held_bytes());
            return self.begin_close(id.slot, CloseReason::TimedOut(limit));
        }
        self.close_now(id.slot, CloseReason::TimedOut(limit));
    }

    /// Sends the agreed heart-beat, if one is due, and pings or closes a client that is silent.
    pub(super) fn check_liveness(&mut self, slot: u32) {
        let now_ms = self.now.ms();
        let connection = &mut self.connections[slot];
        if connection.flags.paused {
            // The client may have sent heart-beats that were not read.
            connection.note_heard(now_ms);
        }
        let Some(peer) = connection.peer() else { return };
        let peer = self.broker.peers.peer(peer);
        let (mut next_ms, mut writes) = (NEVER, false);
        if peer.beats.outgoing_ms > 0 {
            // Early, to allow for the latency of the network.
            let interval_ms = u64::from(peer.beats.outgoing_ms) * 3 / 4;
            if now_ms >= connection.sent_ms + interval_ms {
                connection.sent_ms = now_ms;
                if peer.queue.is_empty() && connection.transport.control().is_empty() {
                    connection.transport.beat(peer.framing != Framing::WebSocketBinary);
                    writes = true;
                }
            }
            next_ms = next_ms.min(connection.sent_ms + interval_ms);
        }
        match judge_silence(connection, peer.beats, &self.limits, now_ms) {
            Silence::Allowed => {}
            Silence::JudgeAt(at_ms) => next_ms = next_ms.min(at_ms),
            Silence::Ping(until_ms) => {
                connection.pinged_ms = now_ms;
                connection.transport.ping();
                writes = true;
                next_ms = next_ms.min(until_ms);
            }
            Silence::TimedOut(limit) => return self.cut_silent(slot, limit),
        }
        if writes {
            self.connections.list_to_flush(slot);
        }
        if next_ms != NEVER {
            self.set_deadline(slot, next_ms.max(now_ms + 1));
        }
    }

    /// Closes the connection of a client that has been silent for too long. On WebSocket it gets an ERROR
    /// and a close, which a page that was suspended reads when it runs again.
    #[cold] // most clients are heard in time
    fn cut_silent(&mut self, slot: u32, limit: &'static str) {
        self.counters.timeouts += 1;
        let connection = &self.connections[slot];
        if !connection.transport.is_websocket() {
            return self.close_now(slot, CloseReason::TimedOut(limit));
        }
        let Some(peer) = connection.peer() else { return };
        let verdict = self.broker.cut_silent(peer, limit, self.now);
        self.follow(slot, verdict);
    }

    pub(super) fn set_deadline(&mut self, slot: u32, at_ms: u64) {
        let connection = &mut self.connections[slot];
        let mut at_ms = at_ms;
        if connection.flags.surplus {
            // In no phase does it stay longer than `refusal_ms_max`.
            at_ms = at_ms.min(connection.accepted_ms + u64::from(self.limits.refusal_ms_max));
        }
        connection.deadline_ms = at_ms;
        // An earlier entry causes a check that arms a new one.
        if at_ms < connection.armed_ms {
            connection.armed_ms = at_ms;
            self.deadlines.arm(at_ms, connection.id);
        }
    }
}

/// What to do about a client from which nothing has arrived for some time.
enum Silence {
    /// Nothing, however long it lasts.
    Allowed,
    /// Nothing before this time.
    JudgeAt(u64),
    /// Ping it; it has until this time to send something.
    Ping(u64),
    /// Close the connection because of this limit, or of the agreed heart-beat.
    TimedOut(&'static str),
}

/// Judges a client's silence. On WebSocket it is pinged before its connection is closed, even if
/// heart-beats were agreed, because browsers throttle the timers of background tabs.
fn judge_silence<S>(
    connection: &Connection<S>,
    beats: Beats,
    limits: &Limits,
    now_ms: u64,
) -> Silence {
    let after = |ms: u64| if ms == 0 { NEVER } else { connection.heard_ms.saturating_add(ms) };
    let patience_ms = 3 * u64::from(beats.incoming_ms) + u64::from(limits.heart_beat_margin_ms);
    let beat_due_ms = after(if beats.incoming_ms == 0 { 0 } else { patience_ms });
    if !connection.transport.is_websocket() {
        return match beat_due_ms {
            NEVER => Silence::Allowed,
            at_ms if now_ms < at_ms => Silence::JudgeAt(at_ms),
            _ => Silence::TimedOut("heart-beat"),
        };
    }
    let pong_ms = u64::from(limits.websocket_pong_ms_max);
    let ping_due_ms = beat_due_ms.min(after(limits.websocket_ping_ms.into()));
    match (connection.pinged_ms, ping_due_ms) {
        (NEVER, NEVER) => Silence::Allowed,
        (NEVER, at_ms) if now_ms < at_ms => Silence::JudgeAt(at_ms),
        (NEVER, _) => Silence::Ping(now_ms + pong_ms),
        (pinged_ms, _) if now_ms < pinged_ms + pong_ms => Silence::JudgeAt(pinged_ms + pong_ms),
        _ => Silence::TimedOut("websocket_pong_ms_max"),
    }
}
