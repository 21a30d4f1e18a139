//! Jobs: work that may be too large for one turn of the loop. A job is a value with a cursor; each turn
//! advances it by a slice.
//!
//! A job that a client asked for makes the client busy: nothing else of it is handled before the job has
//! ended, so that its answers come in order. Everybody else is handled as ever. A job must not assume
//! that what it met in an earlier slice still exists.

use std::collections::VecDeque;

use super::answer::Later;
use super::execute::Commit;
use super::fault::{Code, Fault, Retry};
use super::ids::{DestinationId, PeerId, SessionId, SubscriptionIndex};
use super::list::List;
use super::presence::Snapshot;
use super::select::{Await, LogIn, LoginTable, Select};
use super::shares::PURPOSES;
use super::wide::Wide;
use super::{Broker, Moment};
use crate::work::Progress;

/// A job with what is left of it.
#[derive(Debug)]
pub(super) enum Job {
    /// Ends the subscriptions of a session that has ended.
    Leave(Leave),
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
    /// Tells clients that the broker shuts down.
    Drain(std::vec::IntoIter<PeerId>),
}

/// A job that has begun.
#[derive(Debug)]
struct Running {
    /// The client that asked for it.
    owner: Option<PeerId>,
    job: Job,
    /// Jobs of the same request that follow it.
    rest: VecDeque<Job>,
    /// What it gets when all have ended.
    answer: Option<Later>,
    waits: bool,
}

/// What has become of the job of a connection's client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct News {
    /// The slot of the connection.
    pub slot: u32,
    /// Whether it has ended, so that the connection can be handled again; if not, it occupies more or less.
    pub has_ended: bool,
}

/// All jobs that have begun, those whose turn is next first.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    running: VecDeque<Running>,
    /// Connections to be told about their job.
    news: Vec<News>,
}

impl Jobs {
    /// The subscriptions of ended sessions that a job ends; some may have ended.
    pub(super) fn leaving(&self) -> impl Iterator<Item = SubscriptionIndex> {
        let leaving = self.running.iter().filter_map(|one| match &one.job {
            Job::Leave(leave) => leave.subscriptions.get(leave.next..),
            _ => None,
        });
        leaving.flatten().copied()
    }

    /// The next of them that was not sought for a purpose before, of the jobs from `at` on.
    pub(super) fn seek_leaving(
        &mut self,
        purpose: usize,
        at: &mut usize,
    ) -> Option<SubscriptionIndex> {
        while let Some(one) = self.running.get_mut(*at) {
            if let Job::Leave(leave) = &mut one.job
                && let Some(index) = leave.seek(purpose)
            {
                return Some(index);
            }
            *at += 1;
        }
        None
    }

    /// The number of jobs.
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether any job runs.
    #[inline]
    pub(super) fn is_any(&self) -> bool {
        !self.running.is_empty()
    }

    /// The wide message that a client sent last, as long as it has not begun.
    pub(super) fn open_wide(&self, client: PeerId) -> Option<&Wide> {
        match self.running.back()? {
            Running { owner, job: Job::Wide(wide), .. } if *owner == Some(client) => {
                Some(&**wide).filter(|wide| wide.is_open())
            }
            _ => None,
        }
    }

    /// Whether a job could go on at once.
    fn is_ready(&self) -> bool {
        self.running.iter().any(|one| !one.waits)
    }
}

impl Broker {
    /// Begins a job with a first slice. If more is left, later turns go on with it; if not, returns it. If a job
    /// of the client runs already, the new one follows it.
    pub(super) fn start(
        &mut self,
        owner: Option<PeerId>,
        mut job: Job,
        now: Moment,
    ) -> Option<Job> {
        if let Some(running) = owner.and_then(|owner| self.running_of(owner)) {
            running.rest.push_back(job);
            return None;
        }
        let progress = job.advance(self, now);
        if progress == Progress::Ended {
            return Some(job);
        }
        if let Some(owner) = owner {
            let bytes = job.held_bytes(&self.logins);
            self.peers.peer_mut(owner).set_job(Some(bytes));
        }
        let (rest, waits) = (VecDeque::new(), progress == Progress::Waits);
        self.jobs.running.push_back(Running { owner, job, rest, answer: None, waits });
        None
    }

    /// Leaves a message to many receivers to a job, which begins at the end of the turn. Until then, others of the
    /// client to the same receivers join it, so that each receiver gets all by one write.
    #[cold] // few messages have many receivers
    pub(super) fn start_wide(&mut self, owner: PeerId, wide: Box<Wide>) {
        let joins = self.jobs.open_wide(owner).is_some_and(|open| open.has_same_fan(&wide));
        match self.jobs.running.back_mut() {
            Some(Running { job: Job::Wide(open), .. }) if joins => open.join(*wide),
            _ => {
                let (owner, job) = (Some(owner), Job::Wide(wide));
                self.jobs.running.push_back(Running {
                    owner,
                    job,
                    rest: VecDeque::new(),
                    answer: None,
                    waits: false,
                });
            }
        }
        let bytes = self.jobs.running.back().map(|running| running.job.held_bytes(&self.logins));
        self.peers.peer_mut(owner).set_job(bytes);
    }

    /// The jobs of a client that run.
    fn running_of(&mut self, client: PeerId) -> Option<&mut Running> {
        if !self.peers.peer(client).is_busy() {
            return None;
        }
        self.jobs.running.iter_mut().rev().find(|one| one.owner == Some(client))
    }

    /// Leaves the answer to a busy client to its job.
    #[cold] // few requests become jobs
    pub(super) fn answer_later(&mut self, client: PeerId, answer: Later) {
        match self.running_of(client) {
            Some(Running { job: Job::Wide(wide), .. }) => wide.answer_later(answer),
            Some(running) => running.answer = Some(answer),
            None => {}
        }
    }

    /// Advances jobs in turn, each by a slice, until the share of the turn is used up.
    pub(crate) fn advance_jobs(&mut self, now: Moment) {
        if self.jobs.running.is_empty() {
            return;
        }
        self.advance_jobs_slow(now);
    }

    #[cold] // most turns have no jobs
    fn advance_jobs_slow(&mut self, now: Moment) {
        let mut left = self.units_left();
        let mut waiting = 0;
        while left > 0 && waiting < self.jobs.running.len() {
            let Some(mut running) = self.jobs.running.pop_front() else { return };
            let before = self.meter.spent() + self.pending_units();
            let is_only = self.jobs.running.is_empty();
            let slice = if is_only { left } else { SLICE_UNITS.min(left) };
            self.begin_share(slice as u32);
            let progress = running.job.advance(self, now);
            let spent = self.meter.spent() + self.pending_units() - before;
            left = left.saturating_sub(spent.max(1));
            running.waits = progress == Progress::Waits;
            waiting = if running.waits { waiting + 1 } else { 0 };
            match progress {
                Progress::Ended => match running.rest.pop_front() {
                    Some(next) => {
                        running.job = next;
                        self.jobs.running.push_back(running);
                    }
                    None => self.end_job(running, now),
                },
                Progress::More | Progress::Waits => {
                    self.note_memory(&running);
                    self.jobs.running.push_back(running);
                }
            }
        }
    }

    /// Notes what a job occupies after a slice.
    fn note_memory(&mut self, running: &Running) {
        let bytes = running.job.held_bytes(&self.logins);
        let owner = running.owner.filter(|one| self.peers.get(*one).is_some());
        let Some(owner) = owner.filter(|one| self.peers.peer(*one).job_bytes() != bytes) else {
            return;
        };
        let peer = self.peers.peer_mut(owner);
        if peer.is_busy() {
            peer.set_job(Some(bytes));
            self.jobs.news.push(News { slot: peer.slot, has_ended: false });
        }
    }

    fn end_job(&mut self, mut running: Running, now: Moment) {
        let Some(owner) = running.owner.filter(|one| self.peers.get(*one).is_some()) else {
            return;
        };
        let peer = self.peers.peer_mut(owner);
        let was_busy = peer.is_busy();
        peer.set_job(None);
        let slot = peer.slot;
        if !was_busy {
            return;
        }
        self.jobs.news.push(News { slot, has_ended: true });
        if let Job::Wide(wide) = &running.job {
            for (answer, delivered) in wide.answers() {
                self.answer_now(owner, answer.answer(Some(delivered)));
            }
        }
        if let Some(fault) = running.job.take_fault() {
            let receipt = running.answer.as_ref().and_then(Later::receipt);
            self.refuse_request(owner, &fault, receipt, now);
        } else if let Some(answer) = &running.answer {
            self.answer_now(owner, answer.answer(None));
        }
    }

    /// Lets the transactions that a session executes settle what it holds, before it returns that to the queues.
    pub(super) fn settle_committed(&mut self, session: SessionId, now: Moment) {
        // Taken out, since the queues may be served.
        let mut running = std::mem::take(&mut self.jobs.running);
        for one in &mut running {
            if let Job::Commit(commit) = &mut one.job {
                commit.settle_rest(session, self, now);
            }
        }
        running.append(&mut self.jobs.running);
        self.jobs.running = running;
    }

    /// What has become of the job of a connection's client.
    #[inline]
    pub(crate) fn take_news(&mut self) -> Option<News> {
        self.jobs.news.pop()
    }

    /// Whether there is work that does not wait for anything.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.has_queue_work() || (!self.jobs.running.is_empty() && self.jobs.is_ready())
    }
}

impl Job {
    /// Does a slice: at least one step, and no more once the share is used up.
    fn advance(&mut self, broker: &mut Broker, now: Moment) -> Progress {
        match self {
            Self::Leave(leave) => leave.advance(broker, now),
            Self::Commit(commit) => commit.advance(broker, now),
            Self::Wide(wide) => wide.advance(broker),
            Self::Select(select) => select.advance(broker),
            Self::Await(await_) => await_.advance(broker),
            Self::LogIn(login) => login.advance(broker),
            Self::List(list) => list.advance(broker, now),
            Self::Snapshot(snapshot) => snapshot.advance(broker, now),
            Self::Drain(peers) => drain(broker, peers, now),
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
    fn held_bytes(&self, logins: &LoginTable) -> u32 {
        match self {
            Self::Wide(wide) => wide.held_bytes() as u32,
            Self::List(list) => list.held_bytes(),
            Self::LogIn(login) => login.held_bytes(logins),
            // A transaction counts where it counted before its COMMIT.
            Self::Commit(_)
            | Self::Select(_)
            | Self::Await(_)
            | Self::Leave(_)
            | Self::Snapshot(_)
            | Self::Drain(_) => 0,
        }
    }
}

/// The end of the subscriptions of a session that has ended.
#[derive(Debug)]
pub(super) struct Leave {
    subscriptions: Vec<SubscriptionIndex>,
    /// The subscription that is next. Some behind it may have ended, for somebody who needed room.
    next: usize,
    /// How far they were sought, by purpose.
    sought: [usize; PURPOSES],
    /// Queues whose consumers were among them, to be served once all are ended.
    queues: Vec<DestinationId>,
}

impl Leave {
    pub(super) fn new(subscriptions: Vec<SubscriptionIndex>) -> Self {
        Self { subscriptions, next: 0, sought: [0; PURPOSES], queues: Vec::new() }
    }

    /// The next subscription that was not sought for a purpose before.
    fn seek(&mut self, purpose: usize) -> Option<SubscriptionIndex> {
        let position = self.sought[purpose].max(self.next);
        let found = self.subscriptions.get(position).copied()?;
        self.sought[purpose] = position + 1;
        Some(found)
    }

    fn advance(&mut self, broker: &mut Broker, now: Moment) -> Progress {
        while let Some(index) = self.subscriptions.get(self.next).copied() {
            self.next += 1;
            if let Some(id) = broker.end_subscription(index, now) {
                broker.release_destination(id);
                if self.queues.last() != Some(&id) {
                    self.queues.push(id);
                }
            }
            if broker.is_share_spent() {
                return Progress::More;
            }
        }
        while let Some(id) = self.queues.pop() {
            broker.serve_queue(id, now);
            broker.release_destination(id);
            if broker.is_share_spent() {
                return Progress::More;
            }
        }
        Progress::Ended
    }
}

fn drain(broker: &mut Broker, peers: &mut std::vec::IntoIter<PeerId>, now: Moment) -> Progress {
    let fault = Fault::closing(Code::Draining, Retry::Now, "the broker is shutting down");
    for peer in peers {
        if broker.peers.get(peer).is_some() {
            broker.refuse(peer, &fault, now);
        }
        if broker.is_share_spent() {
            return Progress::More;
        }
    }
    Progress::Ended
}

/// Units of a slice, after which the next job has its turn.
const SLICE_UNITS: u64 = 1_000;
