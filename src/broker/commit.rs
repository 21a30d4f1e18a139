//! Transactions: BEGIN, COMMIT and ABORT. A transaction is checked as a whole, then executed.

use super::deliver::{Sending, Sent};
use super::fault::{Code, Fault, Retry};
use super::ids::{DeliveryId, SessionId};
use super::message::Content;
use super::request::{
    Request, check_deliverable, content_of, destination_of, find_delivery, read_expiry,
};
use super::room::Demand;
use super::transaction::{HeldFrame, Transaction};
use super::{Broker, Moment, printable};
use crate::limits::Exceeded;
use crate::stomp::{Command, Frame, Name};
use crate::work::Progress;

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

/// Executes a transaction, after all its steps have been checked.
pub(super) fn commit(
    broker: &mut Broker,
    request: &Request<'_, '_>,
    now: Moment,
) -> Result<(), Fault> {
    let transaction = take_transaction(broker, request)?;
    let session = request.session;
    broker.note_origin(session);
    let frames: Vec<_> = transaction.frames.iter().map(HeldFrame::frame).collect();
    let mut steps = Vec::with_capacity(frames.len());
    for frame in &frames {
        let request = Request { headers: &frame.headers, ..*request };
        steps.push(Step::read(broker, &request, frame, now)?);
    }
    let mut demand = Demand::default();
    for step in &steps {
        if let Step::Send(content, Some(expires_ms)) = step {
            demand.add(broker, Sending { session, content, expires_ms: *expires_ms });
        }
    }
    let has_nacks = frames.iter().any(|frame| frame.command == Command::Nack);
    broker.check_room(&demand, session, has_nacks, now)?;
    for step in &steps {
        step.perform(broker, session, now)?;
    }
    Ok(())
}

/// A step of a transaction.
enum Step<'f> {
    /// Sends a message with its expiry; `None` if it has expired.
    Send(Content<'f>, Option<u64>),
    /// Settles a delivery, if it is still unsettled, by an ACK (`true`) or a NACK.
    Settle(Option<DeliveryId>, bool),
}

impl<'f> Step<'f> {
    /// Parses and checks a frame of a transaction.
    fn read(
        broker: &Broker,
        request: &Request<'_, '_>,
        frame: &'f Frame<'_>,
        now: Moment,
    ) -> Result<Self, Fault> {
        if frame.command != Command::Send {
            let delivery = find_delivery(broker, request)?;
            return Ok(Self::Settle(delivery, frame.command == Command::Ack));
        }
        let content = content_of(frame, destination_of(frame)?);
        broker.check_sendable(request.session, content.destination)?;
        check_deliverable(broker, request.session, &frame.headers)?;
        Ok(Self::Send(content, read_expiry(&frame.headers, now)?))
    }

    /// Executes the step, for which there is room.
    fn perform(&self, broker: &mut Broker, session: SessionId, now: Moment) -> Result<(), Fault> {
        match self {
            Self::Send(_, None) => broker.counters.messages_expired += 1,
            Self::Send(content, Some(expires_ms)) => {
                let sending = Sending { session, content, expires_ms: *expires_ms };
                if let Sent::Wide(mut wide) = broker.send_within_room(sending, now)? {
                    while wide.advance(broker) != Progress::Ended {}
                }
            }
            Self::Settle(delivery, is_consumed) => {
                delivery.iter().for_each(|one| broker.settle(*one, *is_consumed, now));
            }
        }
        Ok(())
    }
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
        let max = u64::from(self.limits.transaction_bytes_max);
        let begun = &self.sessions[session].transactions;
        if begun.iter().map(|one| one.bytes).sum::<u64>() + bytes > max {
            return Err(Fault::exceeded(Exceeded { limit: "transaction_bytes_max", max }));
        }
        let max = self.limits.transactions_total_bytes_max;
        while self.transactions.bytes() + bytes > max {
            let exceeded = Exceeded { limit: "transactions_total_bytes_max", max };
            let fault = Fault::exceeded(exceeded).later();
            let payer = self.transactions.payer_for(session, bytes).ok_or_else(|| fault.clone())?;
            let peer = self.sessions[payer].peer;
            self.refuse(peer, &fault, now);
        }
        Ok(())
    }

    /// Notes what the transactions of a session occupy, which has changed.
    pub(super) fn note_transactions(&mut self, session: SessionId) {
        let begun = &self.sessions[session].transactions;
        self.transactions.set(session, begun.iter().map(|one| one.bytes).sum());
    }
}
