//! Liveness: the deadline of each phase, heart-beats, pings, frames that do not go on, and timeouts.
//!
//! Clients are judged by the clock of [`Patience`](super::patience::Patience), and only once what they have
//! sent in time was read. The entries among the deadlines have the real time, at which the broker's own
//! heart-beats are due. An entry may be checked late.

use super::Engine;
use super::connection::{Connection, ConnectionId, NEVER, Phase, SURPLUS, Socket, Torn};
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
        if connection.phase == Phase::Open {
            return self.check_liveness(id.slot);
        }
        let deadline_ms = connection.deadline_ms;
        if deadline_ms > self.patience.judged_ms() {
            return self.arm(id.slot, self.patience.real_ms(deadline_ms));
        }
        if connection.flags.surplus {
            return self.close_now(id.slot, CloseReason::Exceeded(SURPLUS));
        }
        if connection.phase.reads_frames() && connection.is_unread_since(deadline_ms) {
            return self.arm(id.slot, self.now.ms() + UNREAD_MS);
        }
        let peer = connection.peer().map(|peer| self.broker.peers.peer(peer));
        if connection.phase == Phase::AwaitingConnect
            && peer.is_some_and(|peer| peer.login.is_some())
        {
            // It has sent its CONNECT, and waits for the broker.
            return self.arm(id.slot, self.now.ms() + UNREAD_MS);
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
        if connection.transport.answer_late(limit) {
            self.note_held(id.slot);
            return self.begin_close(id.slot, CloseReason::TimedOut(limit));
        }
        self.close_now(id.slot, CloseReason::TimedOut(limit));
    }

    /// Sends the agreed heart-beat, if one is due, and pings or closes a client that is silent or does not
    /// finish a frame.
    pub(super) fn check_liveness(&mut self, slot: u32) {
        let now_ms = self.now.ms();
        let connection = &mut self.connections[slot];
        if connection.flags.paused {
            connection.note_held_back(self.patience.now_ms());
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
        let judged_ms = self.patience.judged_ms();
        let silence = judge_silence(connection, peer.beats, &self.limits, judged_ms);
        let torn = judge_torn(connection, &self.limits, judged_ms);
        for judgement in [silence, torn] {
            match judgement {
                Judgement::Allowed => {}
                Judgement::At(at_ms) => next_ms = next_ms.min(self.patience.real_ms(at_ms)),
                Judgement::Unread => next_ms = next_ms.min(now_ms + UNREAD_MS),
                Judgement::Ping => {
                    connection.pinged_ms = self.patience.now_ms();
                    connection.transport.ping();
                    writes = true;
                    let until_ms = now_ms + u64::from(self.limits.websocket_pong_ms_max);
                    next_ms = next_ms.min(until_ms);
                }
                Judgement::Silent(limit) => return self.cut_silent(slot, limit),
                Judgement::Unfinished(limit) => return self.cut_unfinished(slot, limit),
            }
        }
        if writes {
            self.connections.list_to_flush(slot);
        }
        if next_ms != NEVER {
            self.arm(slot, next_ms.max(now_ms + 1));
        }
    }

    /// Notes how much of a frame has arrived that is not whole.
    #[inline(never)] // few frames are torn
    pub(super) fn note_torn(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        if connection.held_bytes() == 0 {
            connection.torn = None;
        } else if connection.phase == Phase::Open {
            let bytes = connection.unfinished_bytes();
            let frames = connection.totals.frames_in;
            let time_ms = self.limits.frame_ms_max;
            let step_bytes = u64::from(time_ms) * FRAME_BYTES_PER_MS_MIN;
            let goes_on = connection.torn.as_ref().is_none_or(|torn| {
                torn.frames_before != frames || bytes >= torn.bytes + step_bytes
            });
            if goes_on {
                let since_ms = self.patience.now_ms();
                connection.torn = Some(Torn { since_ms, bytes, frames_before: frames });
                self.arm(slot, self.now.ms() + u64::from(time_ms));
            }
        }
    }

    /// Refuses a client that has begun a frame and does not go on with it.
    #[cold] // frames arrive in time
    fn cut_unfinished(&mut self, slot: u32, limit: &'static str) {
        self.counters.timeouts += 1;
        self.refuse(slot, &Fault::unfinished(limit));
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

    /// Sets when the phase must be over, in real time if the broker is not paused meanwhile.
    pub(super) fn set_deadline(&mut self, slot: u32, at_ms: u64) {
        let connection = &mut self.connections[slot];
        let mut deadline_ms = self.patience.at(at_ms);
        if connection.flags.surplus {
            // The first one is `refusal_ms_max`, and in no phase does it stay longer.
            deadline_ms = deadline_ms.min(connection.deadline_ms);
        }
        connection.deadline_ms = deadline_ms;
        self.arm(slot, self.patience.real_ms(deadline_ms));
    }

    /// Has a connection checked at a real time or before.
    fn arm(&mut self, slot: u32, at_ms: u64) {
        let connection = &mut self.connections[slot];
        // An earlier entry causes a check that arms a new one.
        if at_ms < connection.armed_ms {
            connection.armed_ms = at_ms;
            self.deadlines.arm(at_ms, connection.id);
        }
    }
}

/// What to do about a client. Times are those of [`Patience`](super::patience::Patience).
enum Judgement {
    /// Nothing, however long it lasts.
    Allowed,
    /// Nothing before this time.
    At(u64),
    /// Nothing before what it has sent was read.
    Unread,
    /// Ping it, and judge it when the time for the pong is over.
    Ping,
    /// Close the connection because of this limit, or of the agreed heart-beat.
    Silent(&'static str),
    /// Refuse it because of this limit.
    Unfinished(&'static str),
}

/// Judges a client's silence. On WebSocket it is pinged before its connection is closed, even if
/// heart-beats were agreed, because browsers throttle the timers of background tabs.
fn judge_silence<S>(
    connection: &Connection<S>,
    beats: Beats,
    limits: &Limits,
    judged_ms: u64,
) -> Judgement {
    let after = |ms: u64| if ms == 0 { NEVER } else { connection.heard_ms.saturating_add(ms) };
    let patience_ms = 3 * u64::from(beats.incoming_ms) + u64::from(limits.heart_beat_margin_ms);
    let beat_due_ms = after(if beats.incoming_ms == 0 { 0 } else { patience_ms });
    let ping_due_ms = beat_due_ms.min(after(limits.websocket_ping_ms.into()));
    let (due_ms, judgement) = match (connection.transport.is_websocket(), connection.pinged_ms) {
        (false, _) => (beat_due_ms, Judgement::Silent("heart-beat")),
        (true, NEVER) => (ping_due_ms, Judgement::Ping),
        (true, pinged_ms) => {
            let pong_due_ms = pinged_ms + u64::from(limits.websocket_pong_ms_max);
            (pong_due_ms, Judgement::Silent("websocket_pong_ms_max"))
        }
    };
    if due_ms == NEVER {
        Judgement::Allowed
    } else if judged_ms < due_ms {
        Judgement::At(due_ms)
    } else if connection.is_unread_since(due_ms) {
        Judgement::Unread
    } else {
        judgement
    }
}

/// Judges a client that has begun a frame.
fn judge_torn<S>(connection: &Connection<S>, limits: &Limits, judged_ms: u64) -> Judgement {
    let Some(torn) = &connection.torn else { return Judgement::Allowed };
    let due_ms = torn.since_ms + u64::from(limits.frame_ms_max);
    if judged_ms < due_ms {
        Judgement::At(due_ms)
    } else if connection.is_unread_since(due_ms) {
        Judgement::Unread
    } else {
        Judgement::Unfinished("frame_ms_max")
    }
}

/// Bytes of an unfinished frame that are to arrive in a millisecond, on average over
/// [`Limits::frame_ms_max`]: 16 kbit/s, a quarter of the slowest uplink of 3G. Without a rate, the time for a
/// frame would have to suit the largest one on the slowest link, and who stops in the middle would hold its
/// memory as long. A frame of 4 MiB that is sent at this rate takes 35 minutes.
const FRAME_BYTES_PER_MS_MIN: u64 = 2;

/// Time after which a client is judged again whose input could not be read yet.
const UNREAD_MS: u64 = 100;
