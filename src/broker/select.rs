//! Which clients a regular expression selects: each new one is matched against all clients, and each new client
//! against all of them. Both may take long, as patterns and login ids may be chosen for it, and so are done in
//! slices.
//!
//! A pattern takes effect when all clients are matched, and a client is logged in when it is matched with the
//! patterns that were there when it asked. Later patterns are matched against logins that wait as well, and
//! before they are against sessions: so none is missed, and a login waits for no more than there was.

use super::bits::BitSet;
use super::fault::Fault;
use super::groups::{Group, GroupTable, Groups, State, slot_of};
use super::ids::{GroupId, GroupKind, LoginId, PeerId, SessionId};
use super::line::Kin;
use super::pattern::{Matching, Pattern};
use super::presence::{cost_of, is_public};
use super::session::Session;
use super::table::Table;
use super::{Broker, Moment};
use crate::profile::Profile;
use crate::stomp::Headers;
use crate::stomp::frame::OwnedLines;
use crate::work::{Meter, Progress};

/// Goes on matching a name. Takes from the units what it used.
fn go_on(
    pattern: &Pattern,
    under_way: &mut Option<Matching>,
    name: &[u8],
    units: &mut u32,
) -> Option<bool> {
    let mut matching = under_way.take().unwrap_or_default();
    let answer = pattern.step(&mut matching, name, units);
    if answer.is_none() {
        *under_way = Some(matching);
    }
    answer
}

// -- a pattern against clients ----------------------------------------------------------------

/// A new pattern that is matched against all clients: first those whose login waits, then the sessions, since the
/// former become the latter meanwhile.
#[derive(Debug)]
pub(super) struct Select {
    kind: GroupKind,
    group: GroupId,
    over_logins: bool,
    /// The slot that is next.
    slot: u32,
    /// What is being matched there.
    under_way: Option<(Whom, Matching)>,
}

/// A client to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Login(LoginId),
    Session(SessionId),
}

impl Select {
    /// A pattern that nothing was matched against.
    pub(super) fn new(kind: GroupKind, group: GroupId) -> Self {
        Self { kind, group, over_logins: true, slot: 0, under_way: None }
    }

    /// Matches further clients, until the share of the turn is used up.
    pub(super) fn advance(&mut self, broker: &mut Broker) -> Progress {
        loop {
            let known = State::Known(broker.counters.logins);
            let Some(table) = broker.groups.by_pattern(self.kind) else { return Progress::Ended };
            // With the last member the group is gone.
            let Some(number) = table.get(self.group).map(Group::number) else {
                return Progress::Ended;
            };
            let slots = if self.over_logins {
                broker.logins.slots_len()
            } else {
                broker.sessions.slots_len()
            };
            if self.slot < slots {
                self.step(broker, number);
            } else if self.over_logins {
                (self.over_logins, self.slot) = (false, 0);
            } else {
                broker.groups.set_state(self.kind, self.group, known);
                return Progress::Ended;
            }
            if broker.is_share_spent() {
                return Progress::More;
            }
        }
    }

    /// Goes on with the client in the slot, if one is there, and then to the next slot.
    fn step(&mut self, broker: &mut Broker, number: u64) {
        let mut units = broker.slice_units();
        let before = units;
        let is_over = self.match_slot(broker, number, &mut units);
        broker.meter.spend((before - units).max(1));
        if is_over {
            self.under_way = None;
            self.slot += 1;
        }
    }

    /// Returns whether all is known of the client in the slot.
    fn match_slot(&mut self, broker: &mut Broker, number: u64, units: &mut u32) -> bool {
        let Broker { sessions, destinations, groups, logins, .. } = broker;
        let group = groups.by_pattern(self.kind).and_then(|table| table.get(self.group));
        let Some(pattern) = group.map(Group::pattern) else { return true };
        let (whom, address) = if self.over_logins {
            match logins.at(self.slot) {
                Some((id, Some(login))) if login.selection.is_later(self.kind, number) => {
                    (Whom::Login(id), &*login.address)
                }
                _ => return true,
            }
        } else {
            match sessions.at(self.slot).filter(|(_, one)| is_public(one.profile)) {
                Some((id, one)) => (Whom::Session(id), &*destinations[one.destination].name),
                None => return true,
            }
        };
        let begun = self.under_way.take().filter(|(same, _)| *same == whom);
        let mut matching = begun.map(|(_, matching)| matching);
        let Some(is_in) = go_on(pattern, &mut matching, address, units) else {
            self.under_way = matching.map(|matching| (whom, matching));
            return false;
        };
        let bit = slot_of(self.group);
        match whom {
            Whom::Login(id) => {
                if let Some(Some(login)) = logins.get_mut(id) {
                    login.selection.set(self.kind, bit, is_in);
                }
            }
            Whom::Session(id) if self.kind == GroupKind::Presence => {
                sessions[id].events.set(bit, is_in);
            }
            Whom::Session(id) => {
                let address = sessions[id].destination;
                destinations.set_group(address, bit, is_in);
            }
        }
        true
    }
}

/// Whether a pattern that somebody else has begun to match is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Await {
    kind: GroupKind,
    group: GroupId,
}

impl Await {
    /// A pattern that somebody waits for.
    pub(super) fn new(kind: GroupKind, group: GroupId) -> Self {
        Self { kind, group }
    }

    /// Waits as long as it is not.
    pub(super) fn advance(self, broker: &Broker) -> Progress {
        let group = broker.groups.by_pattern(self.kind).and_then(|table| table.get(self.group));
        match group.map(Group::state) {
            Some(State::New | State::Matching) => Progress::Waits,
            Some(State::Known(_)) | None => Progress::Ended,
        }
    }
}

// -- a client against patterns ----------------------------------------------------------------

/// The patterns that select a client that logs in.
#[derive(Debug)]
pub(super) struct Selection {
    clients: Found,
    presence: Found,
}

impl Found {
    /// Nothing is to be matched.
    fn known(slots: BitSet) -> Self {
        Self { newest: u64::MAX, slot: u32::MAX, under_way: None, slots }
    }
}

/// The patterns of a kind that select it.
#[derive(Debug, Default)]
struct Found {
    /// The number of the newest group that is to be matched. Later ones are matched against it.
    newest: u64,
    /// The slot that is next.
    slot: u32,
    /// The group in it that is being matched.
    under_way: Option<(GroupId, Matching)>,
    /// Slots of groups that select it. A slot may be free since, or that of another group which does not.
    slots: BitSet,
}

impl Selection {
    fn new(groups: &Groups) -> Self {
        let until = |newest| Found { newest, ..Found::default() };
        let (clients, presence) = (groups.clients.newest(), groups.presence.newest());
        Self { clients: until(clients), presence: until(presence) }
    }

    /// That of a client who is not watched.
    fn none() -> Self {
        let known = || Found::known(BitSet::default());
        Self { clients: known(), presence: known() }
    }

    /// That of a client whose session is taken over.
    fn of(session: &Session) -> Self {
        Self { presence: Found::known(session.events.clone()), ..Self::none() }
    }

    /// The number of subscriptions that get events about the client.
    fn receivers(&self, groups: &Groups, meter: &mut Meter) -> usize {
        meter.spend(self.presence.slots.iter().count() as u32 / GROUPS_PER_UNIT);
        let known = self.presence.slots.iter().filter_map(|slot| groups.presence.known_at(slot));
        known.map(|group| group.members().len()).sum()
    }

    /// Matches patterns until the units are used up. Returns whether all are.
    fn advance(&mut self, groups: &Groups, address: &[u8], units: &mut u32) -> bool {
        self.clients.advance(&groups.clients, address, units)
            && self.presence.advance(&groups.presence, address, units)
    }

    /// Whether a group is matched against the client, and not the client against the group.
    fn is_later(&self, kind: GroupKind, number: u64) -> bool {
        match kind {
            GroupKind::Presence => number > self.presence.newest,
            GroupKind::Clients | GroupKind::Topics => number > self.clients.newest,
        }
    }

    fn set(&mut self, kind: GroupKind, slot: u32, is_in: bool) {
        match kind {
            GroupKind::Presence => self.presence.slots.set(slot, is_in),
            GroupKind::Clients | GroupKind::Topics => self.clients.slots.set(slot, is_in),
        };
    }
}

impl Found {
    fn advance(&mut self, groups: &GroupTable<Pattern>, address: &[u8], units: &mut u32) -> bool {
        while self.slot < groups.slots_len() {
            let own = groups.at(self.slot).filter(|(_, group)| group.number() <= self.newest);
            if let Some((id, group)) = own {
                if *units == 0 {
                    return false;
                }
                let begun = self.under_way.take().filter(|(same, _)| *same == id);
                let mut matching = begun.map(|(_, matching)| matching);
                match go_on(group.pattern(), &mut matching, address, units) {
                    Some(is_in) => _ = self.slots.set(self.slot, is_in),
                    None => {
                        self.under_way = matching.map(|matching| (id, matching));
                        return false;
                    }
                }
            }
            self.slot += 1;
        }
        true
    }
}

/// A CONNECT that waits until its client is matched with the patterns.
#[derive(Debug)]
pub(super) struct Login {
    peer: PeerId,
    profile: Profile,
    /// The header lines of the CONNECT, which is then handled as if it had arrived just now.
    lines: OwnedLines,
    address: Box<[u8]>,
    selection: Selection,
    /// Whether it takes a session over, for which the patterns are known.
    takes_over: bool,
    /// When it began, in milliseconds.
    asked_ms: u64,
    stage: Stage,
}

/// How far a login is that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is matched with the patterns.
    Matching,
    /// It waits until there are fewer events about others that have to be sent first. The event about it costs so
    /// much.
    InLine(u64),
    /// It may go on, and the event about it costs so much.
    Admitted(u64),
    /// It has waited for too long.
    Late,
}

/// All such logins.
pub(super) type LoginTable = Table<LoginId, Option<Box<Login>>>;

impl Login {
    /// What selects the client, as far as it is known.
    pub(super) fn into_selection(self) -> Selection {
        self.selection
    }

    fn held_bytes(&self) -> u32 {
        (size_of::<Self>() + self.lines.cost_bytes() + self.address.len()) as u32
    }
}

/// The work of a login at the end of which the client is matched.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogIn(LoginId);

impl LogIn {
    /// Matches further patterns, until the share of the turn is used up, and stands in line then.
    pub(super) fn advance(self, broker: &mut Broker, now: Moment) -> Progress {
        let all = broker.slice_units();
        let Broker { logins, groups, meter, peers, .. } = broker;
        let Some(Some(login)) = logins.get_mut(self.0) else { return Progress::Ended };
        if peers.get(login.peer).is_none_or(|peer| peer.closure().is_some()) {
            broker.forget_login(self.0);
            return Progress::Ended;
        }
        if login.stage != Stage::Matching {
            meter.spend(1);
            return if self.is_in_line(logins) { Progress::Waits } else { Progress::Ended };
        }
        let mut units = all;
        let is_matched = login.selection.advance(groups, &login.address, &mut units);
        meter.spend((all - units).max(1));
        if !is_matched {
            return Progress::More;
        }
        let receivers = login.selection.receivers(groups, meter);
        broker.stand_in_line(self.0, receivers, now)
    }

    /// The login.
    pub(super) fn id(self) -> LoginId {
        self.0
    }

    /// Whether it is in line, where nothing is done for it until its turn has come.
    pub(super) fn is_in_line(self, logins: &LoginTable) -> bool {
        let login = logins.get(self.0).and_then(Option::as_ref);
        login.is_some_and(|login| matches!(login.stage, Stage::InLine(_)))
    }

    /// Memory of the login.
    pub(super) fn held_bytes(self, logins: &LoginTable) -> u32 {
        let login = logins.get(self.0).and_then(Option::as_ref);
        login.map_or(0, |login| login.held_bytes())
    }
}

impl Broker {
    /// Whether all logins wait, as messages whose senders are gone hold much.
    fn all_logins_wait(&self) -> bool {
        self.jobs.left_bytes() > self.limits.inbound_total_bytes_max / LEFT_PART
    }

    /// Matches a client that logs in with the patterns, unless it takes a session over. If that takes long, or others
    /// have to be done with first, a job has to go on with it, and the CONNECT is handled again once
    /// [`Self::take_login`] returns it; then the answer is known.
    pub(super) fn select_at_once(
        &mut self,
        peer: PeerId,
        (profile, address): (Profile, &[u8]),
        headers: &Headers<'_>,
        owner: Option<SessionId>,
        now: Moment,
    ) -> Result<Selection, LogIn> {
        let takes_over = owner.is_some();
        let before = self.remove_login(peer).filter(|login| *login.address == *address);
        let asked_ms = before.as_ref().map_or_else(|| now.ms(), |login| login.asked_ms);
        let is_admitted =
            before.as_ref().is_some_and(|login| matches!(login.stage, Stage::Admitted(_)));
        let mut selection = match (owner, before) {
            _ if !is_public(profile) => Selection::none(),
            (Some(session), _) => Selection::of(&self.sessions[session]),
            (None, Some(before)) if !before.takes_over => before.selection,
            (None, _) => Selection::new(&self.groups),
        };
        let all_wait = !is_admitted && self.all_logins_wait();
        if !all_wait && (!is_public(profile) || self.groups.patterns_len() == 0) {
            return Ok(selection);
        }
        let all = self.slice_units().max(UNITS_AT_ONCE);
        let mut units = all;
        let is_matched = selection.advance(&self.groups, address, &mut units);
        self.meter.spend(all - units);
        let is_free = is_admitted || !self.announcements.has_line();
        let is_free = is_free || selection.receivers(&self.groups, &mut self.meter) == 0;
        if is_matched && is_free && !all_wait {
            return Ok(selection);
        }
        let (lines, address) = (OwnedLines::copied(headers), address.into());
        let stage = Stage::Matching;
        let login = Login { peer, profile, lines, address, selection, takes_over, asked_ms, stage };
        let id = self.logins.insert(Some(Box::new(login)));
        self.peers.peer_mut(peer).login = Some(id);
        Err(LogIn(id))
    }

    /// Checks that a login did not wait for too long.
    pub(super) fn check_patience(&self, peer: PeerId) -> Result<(), Fault> {
        let login = self.peers.peer(peer).login.and_then(|id| self.logins.get(id)?.as_ref());
        match login.is_some_and(|login| login.stage == Stage::Late) {
            true => Err(Fault::out_of_patience("connect_ms_max")),
            false => Ok(()),
        }
    }

    /// Admits a login whose patterns are known, or has it stand in line.
    fn stand_in_line(&mut self, id: LoginId, receivers: usize, now: Moment) -> Progress {
        let all_wait = self.all_logins_wait();
        let is_free = !all_wait && (receivers == 0 || !self.announcements.has_line());
        let cost = if receivers == 0 { 0 } else { cost_of(receivers) };
        let connect_ms_max = u64::from(self.limits.connect_ms_max);
        let Some(Some(login)) = self.logins.get_mut(id) else { return Progress::Ended };
        if is_free {
            login.stage = Stage::Admitted(cost);
            self.announcements.admit(cost);
        } else if receivers > 0 {
            login.stage = Stage::InLine(cost);
            let source = self.peers.get(login.peer).map(|peer| peer.source).unwrap_or_default();
            self.announcements.line.push(Kin::new(source, login.profile), id);
            return Progress::Waits;
        } else if now.ms() >= login.asked_ms + connect_ms_max {
            login.stage = Stage::Late;
        } else {
            return Progress::Waits;
        }
        Progress::Ended
    }

    /// Whether the next login in line may go on.
    pub(super) fn line_moves(&self) -> bool {
        self.announcements.line.len() > 0
            && !self.announcements.are_many()
            && !self.all_logins_wait()
    }

    /// Admits logins that stand in line as far as there is room for the events about them, and refuses those that
    /// have waited for too long.
    pub(super) fn move_line(&mut self, now: Moment) {
        self.refuse_late(now);
        while self.line_moves() {
            let Some(id) = self.announcements.line.pop() else { return };
            self.meter.spend(1);
            if let Some(Some(login)) = self.logins.get_mut(id)
                && let Stage::InLine(cost) = login.stage
            {
                login.stage = Stage::Admitted(cost);
                self.announcements.admit(cost);
                self.jobs.unpark(id);
            }
            // At least one goes on in each turn.
            if self.is_share_spent() {
                return;
            }
        }
    }

    /// Refuses logins that have waited for too long: of each kin the oldest ones. Some are looked at in each turn.
    fn refuse_late(&mut self, now: Moment) {
        let kin_len = self.announcements.line.kin_len();
        let (mut left, mut asked) = (ASKED_PER_TURN, kin_len.min(ASKED_PER_TURN));
        while left > 0 && asked > 0 {
            let Some(kin) = self.announcements.line.kin_after(self.announcements.asked) else {
                return;
            };
            (self.announcements.asked, asked) = (kin, asked - 1);
            while let Some(oldest) = self.announcements.line.oldest_of(kin)
                && left > 0
                && self.is_past(oldest, now)
            {
                self.announcements.line.take_oldest_of(kin);
                self.jobs.unpark(oldest);
                left -= 1;
            }
            self.meter.spend(1);
        }
        self.meter.spend((ASKED_PER_TURN - left) as u32);
    }

    /// Whether a login in line is gone, or is refused since it has waited for too long.
    fn is_past(&mut self, id: LoginId, now: Moment) -> bool {
        let late_ms = now.ms().checked_sub(u64::from(self.limits.connect_ms_max));
        let Some(Some(login)) = self.logins.get_mut(id) else { return true };
        let is_late = late_ms.is_some_and(|late_ms| login.asked_ms <= late_ms);
        if is_late {
            login.stage = Stage::Late;
        }
        is_late
    }

    /// Notes what selects a client that has logged in.
    pub(super) fn note_selection(&mut self, session: SessionId, selection: Selection) {
        let one = &mut self.sessions[session];
        for slot in selection.clients.slots.iter() {
            self.destinations.set_group(one.destination, slot, true);
        }
        one.events = selection.presence.slots;
    }

    /// Takes the header lines of a CONNECT that waited, and waits no longer.
    pub(super) fn take_login(&mut self, peer: PeerId) -> Option<OwnedLines> {
        let id = self.peers.peer(peer).login?;
        let login = self.logins.get_mut(id)?.as_mut()?;
        if !matches!(login.stage, Stage::Admitted(_) | Stage::Late) {
            return None;
        }
        Some(std::mem::replace(&mut login.lines, OwnedLines::none()))
    }

    /// Forgets the login of a connection that waits.
    pub(super) fn remove_login(&mut self, peer: PeerId) -> Option<Box<Login>> {
        let id = self.peers.peer_mut(peer).login.take()?;
        self.forget_login(id)
    }

    fn forget_login(&mut self, id: LoginId) -> Option<Box<Login>> {
        let login = self.logins.remove(id)??;
        self.jobs.unpark(id);
        if let Stage::Admitted(cost) = login.stage {
            self.announcements.note_admitted(cost);
            self.jobs.stir();
        }
        Some(login)
    }
}

/// The part of [`inbound_total_bytes_max`](crate::limits::Limits::inbound_total_bytes_max) that may be in messages to
/// many receivers whose senders are gone before logins wait.
const LEFT_PART: u64 = 4;

/// Groups whose members are counted for a unit.
const GROUPS_PER_UNIT: u32 = 2;

/// Logins and kin in line that are looked at in each turn, as they may have waited for too long.
const ASKED_PER_TURN: usize = 64;

/// Units that a login may take in any case before it becomes a job, to dismiss as many patterns by their prefixes.
const UNITS_AT_ONCE: u32 = 200;

#[cfg(test)]
mod tests {
    use super::super::peer::Opening;
    use super::super::{Data, Keys, Options, Speaker, Verdict};
    use super::*;
    use crate::dialect::Dialect;
    use crate::limits::Limits;
    use crate::outbound::Framing;

    fn broker() -> Broker {
        let keys = Keys::new("app", ["agent", "super", "service", "admin"]).unwrap();
        Broker::new(Options::new(Limits::default(), keys, Box::new(|| 1)))
    }

    fn open(broker: &mut Broker) -> Speaker {
        let (dialect, framing) = (Dialect::Classic, Framing::LengthPrefix);
        broker.open_peer(Opening { slot: 0, number: 1, framing, dialect })
    }

    fn say(broker: &mut Broker, who: &mut Speaker, text: &str) -> Verdict {
        let data = Data::unshared(text.as_bytes());
        broker.handle(who, data, Moment::default()).verdict
    }

    const LOGIN: &str = "CONNECT\nlogin:ana\npasscode:agent\nsecret-key:app\n\n";

    /// A broker with patterns that the prefix of a login dismisses.
    fn with_patterns(count: u32) -> Broker {
        let mut broker = broker();
        let mut watcher = open(&mut broker);
        say(&mut broker, &mut watcher, "CONNECT\nlogin:w\npasscode:super\nsecret-key:app\n\n");
        for number in 0..count {
            let text = format!("SUBSCRIBE\ndestination-type:1\ndestination:/agent/x{number}.*\n\n");
            assert_eq!(say(&mut broker, &mut watcher, &text), Verdict::Stays);
        }
        broker
    }

    #[test]
    fn a_few_patterns_are_dismissed_at_once_though_the_share_is_used_up() {
        let mut broker = with_patterns(UNITS_AT_ONCE - 10);
        let mut ana = open(&mut broker);
        broker.begin_share(0);
        assert_eq!(say(&mut broker, &mut ana, LOGIN), Verdict::LoggedIn);
        assert!(broker.logins.is_empty());
    }

    #[test]
    fn a_login_whose_job_ends_at_once_does_not_wait() {
        // The job has only one pattern left.
        let mut broker = with_patterns(UNITS_AT_ONCE + 1);
        let mut ana = open(&mut broker);
        broker.begin_share(0);
        assert_eq!(say(&mut broker, &mut ana, LOGIN), Verdict::LoggedIn);
        assert!(broker.logins.is_empty());
    }

    #[test]
    fn a_login_goes_on_where_it_waited() {
        let mut broker = with_patterns(UNITS_AT_ONCE + 20);
        let mut ana = open(&mut broker);
        broker.begin_share(0);
        let data = Data::unshared(LOGIN.as_bytes());
        let done = broker.handle(&mut ana, data, Moment::default());
        assert_eq!((done.verdict, done.pauses), (Verdict::Stays, true));
        assert_eq!(broker.resume(&mut ana, Moment::default()).verdict, Verdict::Stays, "busy");
        broker.begin_share(1_000);
        broker.advance_jobs(Moment::default());
        assert!(broker.take_news().is_some_and(|news| news.has_ended));
        let done = broker.resume(&mut ana, Moment::default());
        assert_eq!((done.verdict, done.pauses), (Verdict::LoggedIn, false));
        assert!(broker.logins.is_empty());
        broker.check_invariants();
    }
}
