//! The doors: who gets a place among `connections_max`.
//!
//! Connections that are not logged in, or not any more, have their places only as long as nobody else needs them:
//! where all are in use, one of them is refused for the newcomer, which [`Strangers`](super::strangers::Strangers)
//! chooses. So who opens very many takes places from himself, and behind a proxy, where all clients are one source,
//! whoever logs in sooner than as many others arrive as there are places has got in. Only if all places
//! are held by clients that are logged in, the newcomer is refused.

use super::budget::Stage;
use super::connection::{Connection, ConnectionId, Phase, SURPLUS, Socket, source_of};
use super::{Accepted, Engine};
use crate::broker::CloseReason;
use crate::work;

/// Whether all places were in use of late, and what came of it, so that a run of such connections is logged once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Crowd {
    #[default]
    Little,
    /// Connections that are not logged in are refused for others.
    Full,
    /// Newcomers are refused, too.
    Overfull,
}

/// The part of `connections_max` that has to be free before it is logged again that all are in use.
const FREE_PARTS: usize = 8;

impl<S: Socket> Engine<S> {
    /// Adds a connection with a non-blocking socket. If all of `connections_max` are in use, one that is not logged in
    /// is refused for it; if there is none, the new one is, as soon as its protocol is known.
    ///
    /// # Errors
    /// Returns the socket if `refusals_max` connections are being refused already, or in a drain.
    pub fn accept(&mut self, socket: S, accepted: Accepted) -> Result<ConnectionId, S> {
        self.broker.meter.spend(work::SOCKET);
        let source = source_of(accepted.address.ip());
        let surplus = self.is_full() && (self.is_draining || !self.free_place(&accepted));
        if surplus || self.is_draining {
            self.counters.connections_refused += 1;
            if self.is_draining || self.surplus_len >= self.limits.refusals_max as usize {
                return Err(socket);
            }
            self.surplus_len += 1;
        } else {
            self.counters.connections_accepted += 1;
        }
        self.last_number += 1;
        let now_ms = self.now.ms();
        let time_ms = if surplus { self.limits.refusal_ms_max } else { self.limits.upgrade_ms_max };
        let due_ms = now_ms + u64::from(time_ms);
        let deadline_ms = self.patience.at(due_ms);
        let id = self.connections.next_id();
        let number = self.last_number;
        let mut connection = Connection::new(id, number, socket, accepted, now_ms, deadline_ms);
        connection.flags.surplus = surplus;
        connection.armed_ms = due_ms;
        connection.heard_ms = self.patience.at(now_ms);
        self.connections.insert(connection);
        if !surplus {
            self.strangers.add(id.slot, source);
        }
        self.deadlines.arm(due_ms, id);
        log::debug!(
            connection = self.last_number, listener = self.listener_name(accepted.listener),
            peer:% = accepted.address;
            "accepted"
        );
        Ok(id)
    }

    /// Closes a connection that could not be registered.
    pub fn forget(&mut self, id: ConnectionId) {
        self.close_now(id.slot, CloseReason::Lost);
    }

    /// Whether all places are in use.
    fn is_full(&mut self) -> bool {
        let max = self.limits.connections_max as usize;
        let used = self.places_used();
        if used < max - max / FREE_PARTS {
            self.crowd = Crowd::Little;
        }
        used >= max
    }

    fn places_used(&self) -> usize {
        self.connections.len() - self.surplus_len
    }

    /// Frees a place for a newcomer. Returns whether there is one.
    #[cold] // places are rarely all in use
    fn free_place(&mut self, newcomer: &Accepted) -> bool {
        let source = source_of(newcomer.address.ip());
        while self.places_used() >= self.limits.connections_max as usize {
            if self.reap_one() {
                continue;
            }
            let Some(slot) = self.strangers.payer_for(source) else {
                self.note_crowd(Crowd::Overfull, newcomer);
                return false;
            };
            self.note_crowd(Crowd::Full, newcomer);
            self.displace(slot);
        }
        true
    }

    /// Takes the place of a connection that is not logged in. If it can be told, it is; then it is one of those beyond
    /// `connections_max`, as far as there may be more of these.
    fn displace(&mut self, slot: u32) {
        self.strangers.remove(slot);
        self.counters.connections_refused += 1;
        let connection = &mut self.connections[slot];
        if connection.phase == Phase::AwaitingConnect {
            if self.surplus_len < self.limits.refusals_max as usize {
                let due_ms = self.now.ms() + u64::from(self.limits.refusal_ms_max);
                connection.deadline_ms = self.patience.at(due_ms);
                connection.flags.surplus = true;
                self.surplus_len += 1;
                self.counters.connections_closed += 1;
            }
            self.refuse_surplus(slot);
            self.flush_dirty(Stage::Receive);
            if self.connections[slot].flags.surplus {
                return;
            }
        }
        self.close_now(slot, CloseReason::Exceeded(SURPLUS));
    }

    /// Notes what all places being in use has led to, and logs it if it is worse than before.
    fn note_crowd(&mut self, crowd: Crowd, newcomer: &Accepted) {
        let connections_max = self.limits.connections_max;
        let not_logged_in = self.strangers.len();
        let listener = self.listener_name(newcomer.listener);
        match (self.crowd, crowd) {
            (Crowd::Little, Crowd::Full) => log::warn!(
                connections_max, not_logged_in, listener;
                "connections that are not logged in are closed for others, all places are in use"
            ),
            (Crowd::Little | Crowd::Full, Crowd::Overfull) => log::warn!(
                connections_max, listener;
                "connections refused, all places are in use"
            ),
            _ => return,
        }
        self.crowd = crowd;
    }
}
