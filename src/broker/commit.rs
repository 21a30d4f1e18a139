//! Transactions: BEGIN, COMMIT and ABORT. A transaction is checked as a whole, then executed.

use super::execute::Commit;
use super::fault::{Code, Fault, Retry};
use super::ids::{PeerId, SessionId};
use super::jobs::Job;
use super::request::{Request, find_delivery, read_expiry};
use super::transaction::{HeldFrame, Transaction};
use super::{Broker, Moment, printable};
use crate::limits::Exceeded;
use crate::stomp::{Command, Frame, Name};

pub(super) fn begin(
    broker: &mut Broker,
    request: &Request<'_, '_>,
    now: Moment,
) -> Result<(), Fault> {
    let id = request.required(Name::Transaction)?;
    let max = u64::from(broker.limits.transactions_max);
    let begun = &broker.sessions[request.session].transactions;
    if begun.iter().any(|one| *one.id == *id) {
        let description = format!("there is a transaction {} already", printable(id));
        return Err(Fault::closing(Code::UnknownId, Retry::Never, description));
    }
    if begun.len() as u64 >= max {
        return Err(Fault::exceeded(Exceeded { limit: "transactions_max", max }));
    }
    let transaction = Transaction::new(id);
    let bytes = transaction.bytes;
    broker.make_transactions_room(request.session, bytes, now)?;
    broker.sessions[request.session].transactions.push(transaction);
    broker.note_transactions(request.session);
    Ok(())
}

/// Adds a SEND, ACK or NACK to a transaction.
pub(super) fn hold(
    broker: &mut Broker,
    request: &Request<'_, '_>,
    id: &[u8],
    frame: &Frame<'_>,
    now: Moment,
) -> Result<(), Fault> {
    // STOMP 1.2, "BEGIN": a transaction is handled as a whole, so a frame that could not be executed is
    // refused now.
    if frame.command == Command::Send {
        let destination = request.required(Name::Destination)?;
        broker.check_sendable(request.session, destination)?;
        read_expiry(&frame.headers, now)?;
    } else {
        find_delivery(broker, request)?;
    }
    let begun = &broker.sessions[request.session].transactions;
    let place = begun.iter().position(|one| *one.id == *id);
    let place = place.ok_or_else(|| Broker::unknown("transaction", id))?;
    let held = HeldFrame::new(frame);
    broker.make_transactions_room(request.session, held.cost_bytes(), now)?;
    broker.sessions[request.session].transactions[place].push(held);
    broker.note_transactions(request.session);
    Ok(())
}

/// Begins to execute a transaction. If it is large, a job of the client goes on with it.
pub(super) fn commit(
    broker: &mut Broker,
    peer: PeerId,
    request: &Request<'_, '_>,
    now: Moment,
) -> Result<(), Fault> {
    let transaction = take_transaction(broker, request)?;
    broker.note_origin(request.session);
    broker.peers.peer_mut(peer).publishes = true;
    broker.transactions.begin_commit(transaction.bytes);
    let origin = broker.sessions[request.session].origin.clone();
    let commit = Commit::new(peer, request, origin, transaction);
    let ended = broker.start(Some(peer), Job::Commit(Box::new(commit)), now);
    ended.and_then(|mut job| job.take_fault()).map_or(Ok(()), Err)
}

/// Removes the transaction that a COMMIT or ABORT names.
pub(super) fn take_transaction(
    broker: &mut Broker,
    request: &Request<'_, '_>,
) -> Result<Transaction, Fault> {
    let id = request.required(Name::Transaction)?;
    let begun = &mut broker.sessions[request.session].transactions;
    let position = begun.iter().position(|one| *one.id == *id);
    let position = position.ok_or_else(|| Broker::unknown("transaction", id))?;
    let taken = begun.remove(position);
    broker.note_transactions(request.session);
    Ok(taken)
}

impl Broker {
    /// Makes room for more bytes in the transactions of a session. If all sessions together have too much, the
    /// session with most pays: it is closed, unless it is the one that asks.
    fn make_transactions_room(
        &mut self,
        session: SessionId,
        bytes: u64,
        now: Moment,
    ) -> Result<(), Fault> {
        let profile = self.sessions[session].profile;
        let max = u64::from(self.limits.transaction_bytes_max[profile]);
        let begun = &self.sessions[session].transactions;
        if begun.iter().map(|one| one.bytes).sum::<u64>() + bytes > max {
            return Err(Fault::exceeded(Exceeded { limit: "transaction_bytes_max", max }));
        }
        let max = self.limits.transactions_total_bytes_max;
        while self.transactions.bytes() + bytes > max {
            let exceeded = Exceeded { limit: "transactions_total_bytes_max", max };
            let Some(payer) = self.transactions.payer_for(session, bytes) else {
                return Err(Fault::exceeded(exceeded).later());
            };
            let peer = self.sessions[payer].peer;
            self.refuse(peer, &Fault::holding_most(exceeded), now);
        }
        Ok(())
    }

    /// Notes what the transactions of a session occupy, which has changed.
    pub(super) fn note_transactions(&mut self, session: SessionId) {
        let begun = &self.sessions[session].transactions;
        self.transactions.set(session, begun.iter().map(|one| one.bytes).sum());
    }
}
