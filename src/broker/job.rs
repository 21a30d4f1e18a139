//! What a job is: the kinds, and what each does in a slice, has accepted and holds.

use super::drain::Drain;
use super::execute::{Commit, Settle, free};
use super::expel::Expel;
use super::fault::Fault;
use super::leave::{Follow, Inherit, Leave};
use super::list::List;
use super::presence::{Snapshot, announce};
use super::select::{Await, LogIn, LoginTable, Select};
use super::transaction::Transaction;
use super::wide::Wide;
use super::{Broker, Moment};
use crate::work::Progress;

/// A job with what is left of it.
#[derive(Debug)]
pub(super) enum Job {
    /// Ends subscriptions, of a session that has ended or of a client.
    Leave(Leave),
    /// Takes over the subscriptions of a session that has moved to another connection.
    Inherit(Box<Inherit>),
    /// Waits until what was accepted from earlier connections with the login id is done.
    Follow(Follow),
    /// Settles messages.
    Settle(Settle),
    /// Frees a transaction.
    Free(Box<Transaction>),
    /// Executes a transaction.
    Commit(Box<Commit>),
    /// Delivers messages to many receivers.
    Wide(Box<Wide>),
    /// Matches a new pattern against all clients.
    Select(Select),
    /// Waits until somebody else's job has done that.
    Await(Await),
    /// Matches a client that logs in with all patterns.
    LogIn(LogIn),
    /// Lists clients that are watched, and ends subscriptions.
    List(Box<List>),
    /// Sends presence events about clients that are logged in.
    Snapshot(Snapshot),
    /// Sends presence events to many services.
    Announce,
    /// Ends all sessions that subscribe by one pattern.
    Expel(Box<Expel>),
    /// Tells clients that the broker shuts down.
    Drain(Drain),
}

impl Job {
    /// Does a slice: at least one step, and no more once the share is used up.
    pub(super) fn advance(&mut self, broker: &mut Broker, now: Moment) -> Progress {
        match self {
            Self::Leave(leave) => leave.advance(broker, now),
            Self::Inherit(inherit) => inherit.advance(broker, now),
            Self::Follow(follow) => follow.advance(broker),
            Self::Settle(settle) => settle.advance(broker, now),
            Self::Free(transaction) => free(broker, transaction),
            Self::Commit(commit) => commit.advance(broker, now),
            Self::Wide(wide) => wide.advance(broker),
            Self::Select(select) => select.advance(broker),
            Self::Await(await_) => await_.advance(broker),
            Self::LogIn(login) => login.advance(broker, now),
            Self::List(list) => list.advance(broker, now),
            Self::Snapshot(snapshot) => snapshot.advance(broker, now),
            Self::Announce => announce(broker),
            Self::Expel(expel) => expel.advance(broker, now),
            Self::Drain(drain) => drain.advance(broker, now),
        }
    }

    /// Whether something is not done that was accepted from a connection.
    pub(super) fn has_accepted(&self) -> bool {
        match self {
            Self::Leave(leave) => leave.has_accepted(),
            Self::Inherit(inherit) => inherit.has_accepted(),
            Self::Wide(_) => true,
            _ => false,
        }
    }

    /// Why the job has achieved nothing, if it has not.
    pub(super) fn take_fault(&mut self) -> Option<Fault> {
        match self {
            Self::Commit(commit) => commit.take_fault(),
            _ => None,
        }
    }

    /// Memory of what the job holds for its owner.
    pub(super) fn held_bytes(&self, logins: &LoginTable) -> u32 {
        match self {
            Self::Wide(wide) => wide.held_bytes() as u32,
            Self::List(list) => list.held_bytes(),
            Self::LogIn(login) => login.held_bytes(logins),
            // A transaction counts where it counted before its COMMIT.
            Self::Commit(commit) => commit.held_bytes(),
            Self::Leave(leave) => leave.held_bytes(),
            Self::Select(_)
            | Self::Await(_)
            | Self::Inherit(_)
            | Self::Follow(_)
            | Self::Settle(_)
            | Self::Free(_)
            | Self::Snapshot(_)
            | Self::Announce
            | Self::Expel(_)
            | Self::Drain(_) => 0,
        }
    }
}
