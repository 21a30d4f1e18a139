//! Transactions: BEGIN, COMMIT and ABORT. A transaction is checked as a whole, then executed.

use super::execute::Commit;
use super::fault::{Code, Fault, Retry};
use super::ids::{PeerId, SessionId};
use super::job::Job;
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
    /// session with most pays: it is closed, if it holds so much more than the one that asks would.
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
        if self.transactions.bytes() + bytes <= self.limits.transactions_total_bytes_max {
            return Ok(());
        }
        self.make_transactions_room_slow(session, bytes, now)
    }

    /// What jobs are about to free does not count: it takes them a few turns, in which nobody else is to pay. So that it
    /// is little, nobody gets more while it is not.
    #[cold] // memory is rarely short
    fn make_transactions_room_slow(
        &mut self,
        session: SessionId,
        bytes: u64,
        now: Moment,
    ) -> Result<(), Fault> {
        let max = self.limits.transactions_total_bytes_max;
        let exceeded = Exceeded { limit: "transactions_total_bytes_max", max };
        if self.transactions.bytes() + bytes > max + max / FREEING_PARTS {
            return Err(Fault::exceeded(exceeded).later());
        }
        if self.transactions.lasting_bytes() + bytes <= max {
            return Ok(());
        }
        // One that pays frees enough. What is being executed cannot be freed: if that is most, nobody holds so much.
        let part = max / self.sessions.len() as u64;
        let payer = self.transactions.payer_for(session, bytes, part);
        let Some(payer) = payer else { return Err(Fault::exceeded(exceeded).later()) };
        self.refuse(self.sessions[payer].peer, &Fault::holding_most(exceeded), now);
        Ok(())
    }

    /// Notes what the transactions of a session occupy, which has changed.
    pub(super) fn note_transactions(&mut self, session: SessionId) {
        let begun = &self.sessions[session].transactions;
        self.transactions.set(session, begun.iter().map(|one| one.bytes).sum());
    }
}

/// The part of `transactions_total_bytes_max` by which it may be exceeded while transactions are being freed.
pub(super) const FREEING_PARTS: u64 = 8;

#[cfg(test)]
mod tests {
    use super::super::peer::Opening;
    use super::super::{Data, Keys, Options, Speaker};
    use super::*;
    use crate::dialect::Dialect;
    use crate::limits::Limits;
    use crate::outbound::Framing;
    use crate::profile::ByProfile;

    const NOW: Moment = Moment { ns: 0, unix_ms: 0 };

    const FRAME: &str = "SEND\ndestination:/topic/a\ntransaction:t\n\n\0";

    fn begin(broker: &mut Broker, slot: u32, frames: usize) -> Speaker {
        let (dialect, framing, number) = (Dialect::Standard, Framing::Line, slot.into());
        let mut speaker = broker.open_peer(Opening { slot, number, framing, dialect });
        let login = format!("CONNECT\naccept-version:1.2\nlogin:{slot}\npasscode:app.super\n\n\0");
        say(broker, &mut speaker, &login);
        let frames = FRAME.repeat(frames);
        say(broker, &mut speaker, &format!("BEGIN\ntransaction:t\n\n\0{frames}"));
        speaker
    }

    fn say(broker: &mut Broker, speaker: &mut Speaker, text: &str) {
        broker.handle(speaker, Data::unshared(text.as_bytes()), NOW);
        broker.check_invariants();
    }

    fn count_there(broker: &Broker, all: &[Speaker]) -> usize {
        all.iter().filter(|one| broker.peers.peer(one.peer).session().is_some()).count()
    }

    fn finish(broker: &mut Broker) {
        while broker.has_work() {
            broker.begin_share(1_000);
            broker.advance_jobs(NOW);
            broker.check_invariants();
        }
    }

    /// A table that is full: some who hold much of it, and others who hold little.
    fn fill() -> (Broker, Vec<Speaker>, Vec<Speaker>) {
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        let limits = Limits {
            transaction_bytes_max: ByProfile::all(1 << 20),
            transactions_total_bytes_max: 4 << 20,
            ..Limits::default()
        };
        let mut broker = Broker::new(Options::new(limits, keys, Box::new(|| 1)));
        broker.begin_share(1_000_000);
        let little: Vec<_> = (0..20).map(|slot| begin(&mut broker, slot, 10)).collect();
        let max = broker.limits.transactions_total_bytes_max;
        let mut much: Vec<_> = (20..29).map(|slot| begin(&mut broker, slot, 0)).collect();
        for one in (0..9).cycle() {
            let before = broker.transactions.bytes();
            say(&mut broker, &mut much[one], &FRAME.repeat(10));
            let added = broker.transactions.bytes() - before;
            if broker.transactions.bytes() + added > max {
                break;
            }
        }
        (broker, much, little)
    }

    #[test]
    fn one_pays_though_a_job_has_still_to_free_what_it_holds() {
        let (mut broker, much, little) = fill();
        let mut guest = begin(&mut broker, 90, 0);
        let max = broker.limits.transactions_total_bytes_max;
        for _ in 0..20 {
            broker.begin_share(1);
            say(&mut broker, &mut guest, &FRAME.repeat(3));
            broker.begin_share(10);
            broker.resume(&mut guest, NOW);
        }
        assert_eq!(count_there(&broker, &much), 8, "one has paid");
        assert_eq!(count_there(&broker, &little), 20);
        assert_eq!(count_there(&broker, &[guest]), 1);
        let (all, lasting) = (broker.transactions.bytes(), broker.transactions.lasting_bytes());
        assert!(all > max && lasting < max, "{all} and {lasting} of {max}");
        finish(&mut broker);
        assert_eq!(broker.transactions.bytes(), broker.transactions.open_bytes());
    }

    #[test]
    fn what_is_being_freed_is_bounded_and_nobody_else_pays_meanwhile() {
        let (mut broker, much, little) = fill();
        let mut guests: Vec<_> = (90..100).map(|slot| begin(&mut broker, slot, 0)).collect();
        for guest in &mut guests {
            // Jobs do not go on meanwhile.
            broker.begin_share(1);
            say(&mut broker, guest, &FRAME.repeat(400));
            for _ in 0..400 {
                broker.begin_share(1);
                broker.resume(guest, NOW);
            }
        }
        let max = broker.limits.transactions_total_bytes_max;
        assert!(broker.transactions.bytes() <= max + max / FREEING_PARTS);
        // What the first freed, the guests have used up.
        assert_eq!((count_there(&broker, &much), count_there(&broker, &little)), (7, 20));
        let there = count_there(&broker, &guests);
        assert!(there < 10, "{there} found room that was not there");
        finish(&mut broker);
    }

    #[test]
    fn nobody_pays_for_transactions_that_are_being_executed() {
        let (mut broker, mut much, little) = fill();
        for one in &mut much {
            broker.begin_share(1);
            say(&mut broker, one, "COMMIT\ntransaction:t\n\n\0");
        }
        let guest = begin(&mut broker, 90, 0);
        let mut guests = vec![guest];
        for slot in 91..100 {
            broker.begin_share(1_000);
            guests.push(begin(&mut broker, slot, 300));
        }
        assert_eq!((count_there(&broker, &much), count_there(&broker, &little)), (9, 20));
        assert!(count_there(&broker, &guests) < 10, "there is no room yet");
        finish(&mut broker);
        assert_eq!((count_there(&broker, &much), count_there(&broker, &little)), (9, 20));
        let late = begin(&mut broker, 110, 10);
        assert_eq!(count_there(&broker, &[late]), 1);
    }
}
