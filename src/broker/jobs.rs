//! Jobs: work that may be too large for one turn of the loop. A job is a value with a cursor; each turn
//! advances it by a slice.
//!
//! A job that a client asked for makes the client busy: nothing else of it is handled before the job has
//! ended, so that its answers come in order. Everybody else is handled as ever. A job must not assume
//! that what it met in an earlier slice still exists.

use std::collections::{BTreeMap, VecDeque};

use super::answer::Later;
use super::execute::{Accepted, Settle};
use super::ids::{DestinationId, LoginId, PeerId, SessionId, SubscriptionIndex};
use super::job::Job;
use super::leave::{Follow, Inherit, Leave};
use super::select::LoginTable;
use super::transaction::Transaction;
use super::wide::Wide;
use super::{Broker, Moment};
use crate::work::Progress;

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
    /// What of its memory is in the account of those whose client is gone.
    left_bytes: u32,
    /// The login id of a connection that is no more, while something is not done that was accepted from it.
    left_by: Option<Box<[u8]>>,
    /// Whether a drain waits for it.
    precedes_drain: bool,
}

impl Running {
    fn new(owner: Option<PeerId>, job: Job) -> Self {
        let (rest, answer, left_by) = (VecDeque::new(), None, None);
        let (waits, precedes_drain) = (false, false);
        Self { owner, job, rest, answer, waits, left_bytes: 0, left_by, precedes_drain }
    }

    /// Notes the login id of the connection that has left it behind.
    fn note_left_by(&mut self, login: &[u8], left: &mut BTreeMap<Box<[u8]>, u32>) {
        if self.left_by.is_none() {
            self.left_by = Some(login.into());
            *left.entry(login.into()).or_default() += 1;
        }
    }
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
    /// How many of them wait.
    waiting: usize,
    /// Jobs of logins in line, which are not asked before their turn has come.
    parked: BTreeMap<LoginId, Running>,
    /// Connections to be told about their job.
    news: Vec<News>,
    /// Changes that have copied a part of a list that some job may hold, since jobs were last asked what they hold.
    copies: usize,
    /// The job that is asked next.
    asked: usize,
    /// Memory of jobs whose client is gone.
    left_bytes: u64,
    /// The login ids in [`Running::left_by`], with the number of jobs of each.
    left: BTreeMap<Box<[u8]>, u32>,
    /// Whether something has ended for which jobs may wait that were not asked since.
    is_stirred: bool,
    /// Whether the broker shuts down.
    drains: bool,
}

impl Jobs {
    /// Notes that something has ended for which jobs may wait.
    pub(super) fn stir(&mut self) {
        self.is_stirred = true;
    }

    /// The subscriptions that no session lists any more and that are still to be ended; some may have ended.
    pub(super) fn leaving(&self) -> impl Iterator<Item = SubscriptionIndex> {
        let leaving = self.running.iter().filter_map(|one| match &one.job {
            Job::Leave(leave) => Some(leave.left()),
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

    /// Notes which jobs deliver what was accepted before a drain.
    pub(super) fn note_accepted(&mut self) {
        self.drains = true;
        for one in &mut self.running {
            let delivers = matches!(one.job, Job::Wide(_) | Job::Commit(_) | Job::Leave(_));
            one.precedes_drain = delivers || one.job.has_accepted();
        }
    }

    /// Has clients be told first that the broker shuts down: those that publish begin job after job meanwhile.
    fn put_drain_first(&mut self) {
        let is_drain = |one: &Running| matches!(one.job, Job::Drain(_));
        if self.drains
            && let Some(at) = self.running.iter().position(is_drain)
            && let Some(drain) = self.running.remove(at)
        {
            self.running.push_front(drain);
        }
    }

    /// Whether one of these, or what they have left to another, has not ended.
    pub(super) fn has_accepted(&self) -> bool {
        let is_left =
            |job: &Job| matches!(job, Job::Leave(_) | Job::Inherit(_)) && job.has_accepted();
        self.running.iter().any(|one| one.precedes_drain || is_left(&one.job))
    }

    /// The number of jobs.
    pub(super) fn len(&self) -> usize {
        self.running.len() + self.parked.len()
    }

    /// Whether any job runs.
    #[inline]
    pub(super) fn is_any(&self) -> bool {
        !self.running.is_empty() || !self.parked.is_empty()
    }

    /// Has the job of a login go on that stands in line, if there is one.
    pub(super) fn unpark(&mut self, login: LoginId) {
        if let Some(running) = self.parked.remove(&login) {
            self.push_running(running);
        }
    }

    /// Keeps a job for later turns.
    fn keep(&mut self, mut running: Running, logins: &LoginTable) {
        match &running.job {
            Job::LogIn(login) if login.is_in_line(logins) => {
                running.waits = false;
                self.parked.insert(login.id(), running);
            }
            _ => self.push_running(running),
        }
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

    /// Adds a job that has not begun.
    fn push(&mut self, owner: Option<PeerId>, job: Job) {
        self.push_running(Running::new(owner, job));
    }

    /// Whether something is not done that was accepted from an earlier connection with a login id.
    pub(super) fn are_left_by(&self, login: &[u8]) -> bool {
        !self.left.is_empty() && self.left.contains_key(login)
    }

    /// Notes what has become of a job that a connection has left behind.
    fn note_left(&mut self, running: &mut Running, progress: Progress) {
        let is_done = progress == Progress::Ended || !running.job.has_accepted();
        let Some(login) = running.left_by.take_if(|_| is_done) else { return };
        if let Some(count) = self.left.get_mut(&login) {
            *count -= 1;
            if *count == 0 {
                self.left.remove(&login);
            }
        }
    }

    /// The queues that deliver nothing while messages return to them, once for each job.
    pub(super) fn held_up_queues(&self) -> Vec<DestinationId> {
        let held_up = |job: &Job| match job {
            Job::Leave(leave) => leave.held_up(),
            Job::Inherit(inherit) => inherit.held_up(),
            Job::Settle(settle) => settle.held_up(),
            Job::Commit(commit) => commit.held_up(),
            _ => None,
        };
        self.running
            .iter()
            .flat_map(|one| one.rest.iter().chain([&one.job]))
            .filter_map(held_up)
            .collect()
    }

    /// Panics if the number of jobs that connections have left behind differs from a recount.
    pub(super) fn check_invariants(&self) {
        let mut left = BTreeMap::new();
        for login in self.running.iter().filter_map(|one| one.left_by.clone()) {
            *left.entry(login).or_default() += 1;
        }
        assert_eq!(left, self.left, "jobs that connections have left behind");
    }

    /// Memory of jobs whose client is gone.
    pub(super) fn left_bytes(&self) -> u64 {
        self.left_bytes
    }

    fn push_running(&mut self, running: Running) {
        self.waiting += usize::from(running.waits);
        self.running.push_back(running);
    }

    fn pop_running(&mut self) -> Option<Running> {
        let running = self.running.pop_front()?;
        self.waiting -= usize::from(running.waits);
        self.asked = self.asked.saturating_sub(1);
        Some(running)
    }

    /// Whether a job could go on at once.
    #[inline]
    fn is_ready(&self) -> bool {
        self.is_stirred || self.running.len() > self.waiting
    }

    /// Notes that a change has copied a part of a list, so that who holds the list as it was may hold the part alone.
    pub(super) fn note_copies(&mut self) {
        self.copies += usize::from(self.is_any());
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
        let waits = progress == Progress::Waits;
        self.jobs.keep(Running { waits, ..Running::new(owner, job) }, &self.logins);
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
                self.jobs.push(Some(owner), Job::Wide(wide));
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
        if let Some(login) = self.peers.peer(client).login
            && self.jobs.parked.contains_key(&login)
        {
            return self.jobs.parked.get_mut(&login);
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
        if self.jobs.is_any() {
            self.advance_jobs_slow(now);
        }
    }

    #[cold] // most turns have no jobs
    fn advance_jobs_slow(&mut self, now: Moment) {
        self.jobs.put_drain_first();
        self.ask_waiting();
        let least = self.units_left().min(1);
        self.move_line(now);
        // Logins that go on leave time for a step at least.
        let mut left = self.units_left().max(least);
        let mut waiting = 0;
        while left > 0 && waiting < self.jobs.running.len() && !self.peers.arena.is_full() {
            let Some(mut running) = self.jobs.pop_running() else { return };
            let before = self.meter.spent() + self.pending_units();
            let is_only = self.jobs.running.is_empty();
            let slice = if is_only { left } else { SLICE_UNITS.min(left) };
            self.begin_share(slice as u32);
            let progress = running.job.advance(self, now);
            let spent = self.meter.spent() + self.pending_units() - before;
            left = left.saturating_sub(spent.max(1));
            running.waits = progress == Progress::Waits;
            self.jobs.note_left(&mut running, progress);
            let is_parked = matches!(&running.job, Job::LogIn(one) if one.is_in_line(&self.logins));
            waiting = if running.waits { waiting + usize::from(!is_parked) } else { 0 };
            self.jobs.is_stirred |= progress == Progress::Ended;
            match progress {
                Progress::Ended => match running.rest.pop_front() {
                    Some(next) => {
                        running.job = next;
                        self.jobs.push_running(running);
                    }
                    None => self.end_job(running, now),
                },
                Progress::More | Progress::Waits => {
                    let bytes = running.job.held_bytes(&self.logins);
                    running.left_bytes = self.note_memory(running.owner, bytes, running.left_bytes);
                    self.jobs.keep(running, &self.logins);
                }
            }
        }
        self.jobs.is_stirred &= waiting < self.jobs.running.len();
    }

    /// Notes what jobs occupy that wait for their turn: of a few in each turn, as their client may be gone, and of some
    /// for each copy of a part of a list that they may hold, so that it is known of all before much was copied.
    fn ask_waiting(&mut self) {
        let count = ASKED_PER_TURN + std::mem::take(&mut self.jobs.copies) * ASKED_PER_COPY;
        let count = count.min(self.jobs.running.len());
        for _ in 0..count {
            self.jobs.asked = (self.jobs.asked + 1) % self.jobs.running.len();
            let at = self.jobs.asked;
            let Some(one) = self.jobs.running.get(at) else { return };
            let bytes = one.job.held_bytes(&self.logins);
            let left_bytes = self.note_memory(one.owner, bytes, one.left_bytes);
            self.jobs.running[at].left_bytes = left_bytes;
        }
        self.meter.spend(count as u32 / JOBS_PER_UNIT);
    }

    /// Notes what a job occupies, of which so much was in the account of those whose client is gone. Returns what is
    /// now.
    fn note_memory(&mut self, owner: Option<PeerId>, bytes: u32, left_before: u32) -> u32 {
        let owner = owner.filter(|one| self.peers.get(*one).is_some());
        let left_bytes = if owner.is_some() { 0 } else { bytes };
        self.jobs.left_bytes += u64::from(left_bytes);
        self.jobs.left_bytes -= u64::from(left_before);
        let Some(owner) = owner.filter(|one| self.peers.peer(*one).job_bytes() != bytes) else {
            return left_bytes;
        };
        let peer = self.peers.peer_mut(owner);
        if peer.is_busy() {
            peer.set_job(Some(bytes));
            self.jobs.news.push(News { slot: peer.slot, has_ended: false });
        }
        left_bytes
    }

    fn end_job(&mut self, mut running: Running, now: Moment) {
        self.jobs.left_bytes -= u64::from(running.left_bytes);
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

    /// Has a client take over the subscriptions of its session.
    pub(super) fn start_inheriting(&mut self, client: PeerId, inherit: Inherit, now: Moment) {
        let job = Job::Inherit(Box::new(inherit));
        if !job.has_accepted() {
            self.start(Some(client), job, now);
            return;
        }
        self.peers.peer_mut(client).set_job(Some(0));
        // Its first slice would queue frames before the answer to the login.
        self.jobs.push(Some(client), job);
    }

    /// Ends subscriptions that no session lists any more, once the client with the login id has done what was
    /// accepted from it.
    pub(super) fn start_leaving(&mut self, leave: Leave, login: &[u8], now: Moment) {
        let job = Job::Leave(leave);
        if !job.has_accepted() {
            self.start(None, job, now);
            return;
        }
        // Its first slice would queue frames before the answer to a login.
        let mut running = Running::new(None, job);
        running.note_left_by(login, &mut self.jobs.left);
        self.jobs.push_running(running);
    }

    /// Has a client that has logged in wait until what was accepted from earlier connections with its login id is
    /// done, so that nobody gets what it sends before what they sent.
    pub(super) fn follow_earlier(&mut self, client: PeerId, session: SessionId, now: Moment) {
        if self.jobs.are_left_by(self.login(session)) {
            self.start(Some(client), Job::Follow(Follow::new(session)), now);
        }
    }

    /// Sends presence events to many services, from the end of the turn on.
    pub(super) fn begin_announcing(&mut self) {
        self.jobs.push(None, Job::Announce);
    }

    /// Frees a transaction that is not executed; it counts until it is freed.
    pub(super) fn free(&mut self, owner: Option<PeerId>, transaction: Transaction, now: Moment) {
        self.transactions.begin_freeing(transaction.bytes);
        self.start(owner, Job::Free(Box::new(transaction)), now);
    }

    /// Settles messages. If they are many, a job of the client goes on with it.
    #[inline]
    pub(super) fn begin_settling(&mut self, client: PeerId, mut settle: Settle, now: Moment) {
        if settle.advance(self, now) != Progress::Ended {
            self.start(Some(client), Job::Settle(settle), now);
        }
    }

    /// Takes what was accepted from a client and is not done, as its session ends or moves to another connection.
    /// Messages to many receivers are delivered by their own jobs.
    pub(super) fn take_accepted(&mut self, client: PeerId, session: SessionId) -> Option<Accepted> {
        if !self.is_busy(client) {
            return None;
        }
        let Self { jobs: Jobs { running, left, .. }, sessions, destinations, meter, .. } = self;
        meter.spend(running.len() as u32 / JOBS_PER_UNIT);
        let own = running.iter_mut().enumerate().filter(|(_, one)| one.owner == Some(client));
        let mut found = None;
        for (at, one) in own {
            match &mut one.job {
                Job::Wide(_) => one.note_left_by(sessions[session].login(destinations), left),
                Job::Inherit(inherit) => return inherit.take_accepted(),
                Job::Commit(commit) if commit.is_accepted() => found = Some(at),
                Job::Settle(_) => found = Some(at),
                _ => {}
            }
        }
        let removed = self.jobs.running.remove(found?)?;
        self.jobs.waiting -= usize::from(removed.waits);
        self.jobs.left_bytes -= u64::from(removed.left_bytes);
        match removed.job {
            Job::Commit(commit) => Some(Accepted::Commit(commit)),
            Job::Settle(settle) => Some(Accepted::Settle(settle)),
            _ => None,
        }
    }

    /// What has become of the job of a connection's client.
    #[inline]
    pub(crate) fn take_news(&mut self) -> Option<News> {
        self.jobs.news.pop()
    }

    /// Whether there is work that does not wait for anything.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.has_queue_work()
            || (!self.jobs.running.is_empty() && self.jobs.is_ready())
            || self.line_moves()
    }
}

/// Units of a slice, after which the next job has its turn.
const SLICE_UNITS: u64 = 1_000;

/// Jobs that are looked through for a unit.
const JOBS_PER_UNIT: u32 = 64;

/// Jobs that are asked what they hold for each part of a list that was copied.
const ASKED_PER_COPY: usize = 4;

/// Jobs that are asked in each turn.
const ASKED_PER_TURN: usize = 16;
