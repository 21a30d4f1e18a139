//! Logins: how a session is opened, taken over, and ended.

use std::rc::Rc;

use super::admission::{Credentials, Grant};
use super::encoding::Encoding;
use super::execute::Accepted;
use super::fault::{CloseReason, Code, Fault, Retry};
use super::ids::{PeerId, SessionId};
use super::job::Job;
use super::leave::{Inherit, Leave};
use super::peer::{Closure, PeerState};
use super::presence::Event;
use super::rights::Rights;
use super::select::Selection;
use super::session::Session;
use super::space::Space;
use super::{Broker, Moment, write_error};
use crate::limits::Exceeded;
use crate::profile::Profile;
use crate::stomp::{Headers, Name, lookalike};
use crate::work;

impl Broker {
    /// Notes the login id of a refused login for the log: its beginning, and nothing if it holds a key,
    /// which somebody may have put in its place.
    #[cold] // few logins are refused
    pub(super) fn note_refused_login(&mut self, peer: PeerId, headers: &Headers<'_>) {
        let Some(login) = headers.value(Name::Login) else { return };
        self.meter.spend(work::LOG + work::of_bytes(login.len()));
        // A wrong key may be the right one of another broker. A passcode may hold both, with a dot between.
        let given = [Name::Passcode, Name::SecretKey].into_iter().filter_map(|n| headers.value(n));
        let mut given = given.flat_map(|value| value.split(|byte| *byte == b'.'));
        let holds = |key: &[u8]| !key.is_empty() && memchr::memmem::find(login, key).is_some();
        if given.any(holds) || self.admission.has_key_in(login) {
            return;
        }
        let end = login.len().min(SHOWN_LOGIN_BYTES);
        let ellipsis = if end < login.len() { "…" } else { "" };
        let mut shown = String::new();
        for c in String::from_utf8_lossy(&login[..end]).chars() {
            match lookalike::is_unseen(c) {
                true => shown.extend(c.escape_unicode()),
                false => shown.push(c),
            }
        }
        shown.push_str(ellipsis);
        self.peers.peer_mut(peer).past_login = Some((shown.into(), None));
    }

    /// Admits a client, and opens a session on its connection or moves its session there. A moved session
    /// keeps its subscriptions if the client `resumes` them. Returns nothing if the CONNECT with these header lines
    /// waits until it is known which patterns select the client.
    pub(super) fn log_in(
        &mut self,
        peer: PeerId,
        (credentials, headers): (&Credentials<'_>, &Headers<'_>),
        resumes: bool,
        now: Moment,
    ) -> Result<Option<SessionId>, Fault> {
        let grant = self.admission.admit(credentials)?;
        let login = credentials.login;
        self.check_login(login)?;
        self.check_patience(peer)?;
        let owner = self.destinations.owner_of(login);
        owner.map_or(Ok(()), |session| self.check_yields(session, peer, grant.profile))?;
        let address = grant.profile.address_of(login);
        let selected = self.select_for(peer, (grant.profile, &address), headers, owner, now);
        let Some(selection) = selected else { return Ok(None) };
        if let Some(session) = owner {
            let session = self.take_over(session, peer, grant, resumes, now)?;
            self.follow_earlier(peer, session, now);
            return Ok(Some(session));
        }
        let found = self.destinations.find(&address, None);
        let destination = found.unwrap_or_else(|| self.make_destination(&address));
        let mut session = Session::new(destination, peer, grant.profile, (self.entropy)());
        self.counters.logins += 1;
        session.number = self.counters.logins;
        let session = self.sessions.insert(session);
        self.destinations.set_owner(destination, Some(session));
        self.note_selection(session, selection);
        self.attach(session, peer, grant.rights);
        self.meter.spend(work::SESSION);
        self.publish_presence(Event::Logged, session, "login", now);
        self.follow_earlier(peer, session, now);
        Ok(Some(session))
    }

    /// The patterns that select a client that logs in, or nothing if a job is at it, or the login waits until there are
    /// fewer events about others.
    fn select_for(
        &mut self,
        peer: PeerId,
        client: (Profile, &[u8]),
        headers: &Headers<'_>,
        owner: Option<SessionId>,
        now: Moment,
    ) -> Option<Selection> {
        match self.select_at_once(peer, client, headers, owner, now) {
            Ok(selection) => Some(selection),
            Err(job) => {
                // It may need no more than its first slice.
                self.start(Some(peer), Job::LogIn(job), now)?;
                Some(self.remove_login(peer)?.into_selection())
            }
        }
    }

    /// Moves a session, whose profile yields, to a newer connection, and closes the older one.
    fn take_over(
        &mut self,
        session: SessionId,
        newcomer: PeerId,
        grant: Grant,
        resumes: bool,
        now: Moment,
    ) -> Result<SessionId, Fault> {
        self.note_takeover(session, now)?;
        let older = self.peers.peer(self.sessions[session].peer).encoding;
        let newer = self.peers.peer(newcomer).encoding;
        let accepted = self.release_connection(session, now);
        // STOMP 1.2, "SUBSCRIBE id Header": ids belong to a connection. A client that resumes them must
        // be able to name them, and versions escape them differently.
        let session = match resumes && (newer == older || newer == Encoding::Classic) {
            true => self.move_with_subscriptions(session, (newcomer, grant.rights), accepted, now),
            false => {
                self.move_without_subscriptions(session, (newcomer, grant.rights), accepted, now)
            }
        };
        self.counters.takeovers += 1;
        self.publish_presence(Event::Logged, session, "takeover", now);
        Ok(session)
    }

    /// Moves a session to a newer connection with its subscriptions. Its client waits until what the older one holds
    /// is returned to the queues; that is delivered again after CONNECTED.
    fn move_with_subscriptions(
        &mut self,
        session: SessionId,
        (newcomer, rights): (PeerId, Rc<Rights>),
        accepted: Option<Accepted>,
        now: Moment,
    ) -> SessionId {
        self.sessions[session].moves += 1;
        self.attach(session, newcomer, rights);
        let held = self.sessions[session].subscriptions.all().to_vec();
        self.meter.spend(work::of_bytes(size_of_val(&*held)));
        if accepted.is_some() || !held.is_empty() {
            let as_moved = (session, self.sessions[session].moves);
            self.start_inheriting(newcomer, Inherit::new(accepted, as_moved, held), now);
        }
        session
    }

    /// Moves a session to a newer connection without its subscriptions, which end. It gets another id, so that none
    /// of them delivers anything more.
    fn move_without_subscriptions(
        &mut self,
        session: SessionId,
        (newcomer, rights): (PeerId, Rc<Rights>),
        accepted: Option<Accepted>,
        now: Moment,
    ) -> SessionId {
        let Some(renewed) = self.sessions.renew(session) else { return session };
        let ended = self.sessions[renewed].release_all();
        self.note_shares(renewed);
        self.destinations.set_owner(self.sessions[renewed].destination, Some(renewed));
        self.attach(renewed, newcomer, rights);
        if accepted.is_some() || !ended.is_empty() {
            let login = Box::<[u8]>::from(self.login(renewed));
            self.start_leaving(Leave::new(accepted, ended), &login, now);
        }
        renewed
    }

    /// Checks that a session yields to a client of that profile with the same login id. It does not yield to one that
    /// has waited and has an older connection: those that wait are not all served in order, and a client that comes
    /// again is not to lose to its own earlier attempt.
    fn check_yields(
        &self,
        session: SessionId,
        newcomer: PeerId,
        profile: Profile,
    ) -> Result<(), Fault> {
        let held = self.sessions[session].profile;
        if !held.yields_to_newcomer() {
            let description = "the login id is in use, and its client does not yield to another";
            return Err(Fault::closing(Code::AlreadyLogged, Retry::Later, description));
        }
        if held != profile {
            let description = "the login id is in use under another profile";
            return Err(Fault::closing(Code::WrongProfile, Retry::Later, description));
        }
        let (holder, newcomer) = (self.sessions[session].peer, self.peers.peer(newcomer));
        if newcomer.login.is_some() && self.peers.peer(holder).number > newcomer.number {
            return Err(Fault::taken_over());
        }
        Ok(())
    }

    /// Tells the older connection of a session that it is taken over, closes it, and ends what belongs to
    /// the connection. Returns what was accepted from it and is not done.
    fn release_connection(&mut self, session: SessionId, now: Moment) -> Option<Accepted> {
        let older = self.sessions[session].peer;
        let accepted = self.take_accepted(older, session);
        let login = String::from_utf8_lossy(self.login(session)).into();
        let profile = self.sessions[session].profile;
        self.peers.peer_mut(older).past_login = Some((login, Some(profile)));
        let reason = CloseReason::TakenOver;
        self.publish_presence(Event::Disconnected, session, reason.presence_word(), now);
        let fault = Fault::taken_over();
        let retry = Some(Retry::Never);
        let encoding = self.peers.peer(older).encoding;
        self.peers.reply_last(older, Closure { reason, retry }, |out| {
            write_error(out, encoding, &fault, None);
        });
        self.abort_transactions(session, now);
        accepted
    }

    /// STOMP 1.2, "BEGIN": the end of the connection aborts its transactions.
    fn abort_transactions(&mut self, session: SessionId, now: Moment) {
        let aborted = std::mem::take(&mut self.sessions[session].transactions);
        self.note_transactions(session);
        for transaction in aborted {
            self.free(None, transaction, now);
        }
    }

    /// Counts a takeover. Two programs with the same login id would take it from each other for ever;
    /// past `takeovers_max` in a window the newcomer is refused.
    fn note_takeover(&mut self, session: SessionId, now: Moment) -> Result<(), Fault> {
        let window_ms = u64::from(self.limits.takeover_window_ms);
        let session = &mut self.sessions[session];
        if now.ms() - session.takeover_window_ms >= window_ms {
            session.takeover_window_ms = now.ms();
            session.takeovers = 0;
        }
        if session.takeovers >= self.limits.takeovers_max {
            let description = format!(
                "the login id was taken over more than {} times in {window_ms} ms (takeovers_max): \
                 is it configured twice?",
                self.limits.takeovers_max
            );
            return Err(Fault::closing(Code::AlreadyLogged, Retry::Later, description));
        }
        session.takeovers += 1;
        Ok(())
    }

    fn attach(&mut self, session: SessionId, peer: PeerId, rights: Rc<Rights>) {
        let one = &mut self.sessions[session];
        one.peer = peer;
        one.rights = Some(rights);
        // The connection has not sent anything yet.
        one.last_sent_to = None;
        let profile = one.profile;
        self.peers.set_limits(peer, self.limits.outbound[profile]);
        self.peers.peer_mut(peer).state = PeerState::Connected(session);
    }

    /// The login id of the session that has ended on a connection, with its profile, or of a login that was refused.
    pub fn past_login_of(&self, peer: PeerId) -> Option<&(Box<str>, Option<Profile>)> {
        self.peers.peer(peer).past_login.as_ref()
    }

    /// Ends the session on a connection, if there is one. The connection stays.
    pub(super) fn end_session(&mut self, peer: PeerId, reason: CloseReason, now: Moment) {
        let Some(id) = self.peers.peer(peer).session() else { return };
        self.publish_presence(Event::Disconnected, id, reason.presence_word(), now);
        self.publish_presence(Event::Logout, id, reason.presence_word(), now);
        let accepted = self.take_accepted(peer, id);
        self.abort_transactions(id, now);
        let login = Box::<[u8]>::from(self.login(id));
        let Some(session) = self.sessions.remove(id) else { return };
        let shown = String::from_utf8_lossy(&login).into();
        self.peers.peer_mut(peer).past_login = Some((shown, Some(session.profile)));
        self.meter.spend(work::SESSION);
        self.forget_shares(id);
        self.peers.peer_mut(peer).state = PeerState::AwaitingConnect;
        self.destinations.set_owner(session.destination, None);
        self.release_destination(session.destination);
        let subscriptions = session.subscriptions.into_all();
        self.start_leaving(Leave::new(accepted, subscriptions), &login, now);
    }

    /// The login id of a session.
    pub(super) fn login(&self, session: SessionId) -> &[u8] {
        self.sessions[session].login(&self.destinations)
    }

    /// Checks the length of a login id, and that it cannot be mistaken for something else.
    fn check_login(&mut self, login: &[u8]) -> Result<(), Fault> {
        if login.is_empty() {
            return Err(Fault::missing(Name::Login));
        }
        let max = u64::from(self.limits.login_id_bytes_max);
        if login.len() as u64 > max {
            return Err(Fault::exceeded(Exceeded { limit: "login_id_bytes_max", max }));
        }
        self.meter.spend(lookalike::units_of(login));
        lookalike::check(login).map_err(|fault| Fault::malformed(Name::Login, fault.why()))?;
        if self.admission.is_key(login) {
            return Err(Fault::malformed(Name::Login, "is one of the keys"));
        }
        if login.eq_ignore_ascii_case(Space::BROKER) {
            return Err(Fault::malformed(Name::Login, "is the name of the broker itself"));
        }
        if memchr::memmem::find(login, LIST_SEPARATOR).is_some() {
            let why = "holds ]:[, which stands between the parts of a line in lists of clients";
            return Err(Fault::malformed(Name::Login, why));
        }
        Ok(())
    }
}

/// Bytes of a refused login id that the log shows.
const SHOWN_LOGIN_BYTES: usize = 256;

/// The separator in the lists of classic ACKs.
const LIST_SEPARATOR: &[u8] = b"]:[";
