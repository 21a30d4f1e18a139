//! The classic dialect's rules: the effect of each command, and the answer to it.

use super::admission::Credentials;
use super::deliver::{Sending, Sent};
use super::fault::{CloseReason, Code, Disposition, Fault, Retry};
use super::groups::{Group, slot_of};
use super::ids::{PeerId, SessionId, SubscriptionIndex};
use super::message::{Content, NEVER, UserLines};
use super::peer::Closure;
use super::session::Session;
use super::space::Space;
use super::speaker::{Done, Verdict};
use super::subscription::Target;
use super::{Broker, Moment, desk};
use crate::classic::{Command, Frame, encode};
use crate::stomp::{Headers, Name};
use crate::work;

/// Handles a frame, unless its connection is closing.
pub(super) fn handle(broker: &mut Broker, peer: PeerId, bytes: &[u8], now: Moment) -> Done {
    let one = broker.peers.peer(peer);
    let session = one.session();
    if session.is_none()
        && let Some(closure) = one.closure()
    {
        return Done::ignored(closure.reason);
    }
    broker.counters.frames_in += 1;
    let mut frame = Frame::default();
    let result = frame.read(bytes, &broker.limits).map_err(Fault::from);
    let lines = work::of_lines(frame.headers.count());
    broker.meter.spend(work::FRAME + work::of_bytes(bytes.len()) + lines);
    // Most frames are SENDs: a constant outcome saves copies of a verdict.
    let result = match (result, session, frame.command) {
        (Ok(()), Some(session), Command::Send) => {
            match send(broker, &Request { peer, session, frame: &frame }, now) {
                Ok(()) => return Done::stays(broker.is_busy(peer)),
                Err(fault) => Err(fault),
            }
        }
        (Ok(()), _, _) => handle_other(broker, peer, session, &frame, now),
        (Err(fault), _, _) => Err(fault),
    };
    let verdict = result.unwrap_or_else(|fault| broker.refuse(peer, &fault, now));
    Done { frames: 1, verdict, pauses: broker.is_busy(peer) }
}

/// Whether a frame is a SEND to the receivers of the client's last one, which are many and have not got it yet.
#[cold] // asked only behind a wide message
pub(super) fn follows_wide(broker: &Broker, peer: PeerId, bytes: &[u8]) -> bool {
    let Some(session) = broker.peers.peer(peer).session() else { return false };
    let mut frame = Frame::default();
    if frame.read(bytes, &broker.limits).is_err()
        || frame.command != Command::Send
        || frame.headers.disguised_line().is_some()
    {
        return false;
    }
    let request = Request { peer, session, frame: &frame };
    let name = request.header(Name::Destination);
    request.check_session_id(broker).is_ok()
        && name.is_some_and(|name| broker.follows_wide(peer, session, name))
}

/// Writes an ERROR.
pub(super) fn write_error(out: &mut Vec<u8>, fault: &Fault) {
    encode::begin(out, "ERROR");
    encode::header(out, "error-desc", fault.description.as_bytes());
    encode::header(out, "error-code", fault.code.word().as_bytes());
    if let Disposition::Closes(retry) = fault.disposition {
        encode::header(out, "retry", retry.word().as_bytes());
    }
    encode::finish(out, b"");
}

/// Handles any frame except a SEND after login.
#[inline(never)] // keeps the path of a SEND short
fn handle_other(
    broker: &mut Broker,
    peer: PeerId,
    session: Option<SessionId>,
    frame: &Frame<'_>,
    now: Moment,
) -> Result<Verdict, Fault> {
    let session = match (session, frame.command) {
        (Some(_), Command::Connect) => {
            let description = "this connection is logged in already";
            return Err(Fault::closing(Code::AlreadyLogged, Retry::Never, description));
        }
        (Some(session), _) => session,
        (None, Command::Connect) => {
            connect(broker, peer, &frame.headers, now)
                .inspect_err(|_| broker.note_refused_login(peer, &frame.headers))?;
            return Ok(Verdict::LoggedIn);
        }
        (None, _) => {
            let description = "nothing but CONNECT is accepted before login";
            return Err(Fault::closing(Code::NotLoggedIn, Retry::Never, description));
        }
    };
    let request = Request { peer, session, frame };
    match frame.command {
        Command::Subscribe => subscribe(broker, &request, now)?,
        Command::Unsubscribe => unsubscribe(broker, &request, now)?,
        Command::Disconnect => return Ok(disconnect(broker, &request, now)),
        Command::Connect | Command::Send => {}
    }
    Ok(Verdict::Stays)
}

/// A frame from a client that is logged in.
struct Request<'f, 'o> {
    peer: PeerId,
    session: SessionId,
    frame: &'f Frame<'o>,
}

impl<'o> Request<'_, 'o> {
    fn header(&self, name: Name) -> Option<&'o [u8]> {
        self.frame.headers.value(name)
    }

    #[inline(always)] // on the path of a SEND; `name` is constant
    fn required(&self, name: Name) -> Result<&'o [u8], Fault> {
        match self.header(name) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(Fault::missing(name)),
        }
    }

    /// Checks that a session id in the frame is the client's own.
    fn check_session_id(&self, broker: &Broker) -> Result<(), Fault> {
        match self.header(Name::SessionId) {
            Some(given) if given != broker.sessions[self.session].token() => {
                let description = "the session id is not the one of this connection";
                Err(Fault::closing(Code::WrongSession, Retry::Never, description))
            }
            _ => Ok(()),
        }
    }

    /// Answers a SUBSCRIBE or UNSUBSCRIBE with an ACK that lists its destinations. Without a transaction
    /// there is no ACK, but a fault still gets an ERROR.
    fn acknowledge_list(&self, broker: &mut Broker, list: &[u8], outcome: Result<(), Fault>) {
        let Some(transaction) = self.header(Name::Transaction) else {
            if let Err(fault) = outcome {
                broker.peers.reply(self.peer, |out| write_error(out, &fault));
            }
            return;
        };
        let title = match self.frame.command {
            Command::Subscribe => "Destinations subscribed:",
            _ => "Destinations unsubscribed:",
        };
        let token = broker.sessions[self.session].token();
        broker.peers.reply(self.peer, |out| {
            begin_ack(out, token, transaction);
            match &outcome {
                Ok(()) => encode::header(out, "error-desc", b"OK"),
                Err(fault) => {
                    encode::header(out, "error-desc", fault.description.as_bytes());
                    encode::header(out, "error-code", fault.code.word().as_bytes());
                }
            }
            let end = &LIST_RULE[1..LIST_RULE.len() - 1];
            encode::finish(out, &[title.as_bytes(), LIST_RULE, list, end].concat());
        });
    }
}

/// The rule before and after a list in an ACK.
const LIST_RULE: &[u8] = b"\n--------------------\n";

fn connect(
    broker: &mut Broker,
    peer: PeerId,
    headers: &Headers<'_>,
    now: Moment,
) -> Result<(), Fault> {
    let credentials = Credentials::of_classic(headers)?;
    let session = broker.log_in(peer, &credentials, true, now)?;
    broker.sessions[session].has_inbox = true;
    let number = broker.peers.peer(peer).number;
    let (session, destinations) = (&broker.sessions[session], &broker.destinations);
    broker.peers.reply(peer, |out| {
        encode::begin(out, "CONNECTED");
        encode::header(out, "accept-version", b"1.2");
        encode::header(out, "session-id", session.token());
        encode::header(out, "login", credentials.login);
        encode::header(out, "profile-code", session.profile.code().as_bytes());
        encode::header(out, "profile-desc", session.profile.description().as_bytes());
        encode::header(out, "destination", &destinations[session.destination].name);
        encode::number_header(out, "connection-id", number);
        encode::finish(out, b"");
    });
    Ok(())
}

fn disconnect(broker: &mut Broker, request: &Request<'_, '_>, now: Moment) -> Verdict {
    if let Some(verdict) = broker.cut_overflowed(request.peer, now) {
        return verdict;
    }
    let session = &broker.sessions[request.session];
    let (token, destination) = (*session.token(), session.destination);
    let login = session.login(&broker.destinations).to_vec();
    let name = broker.destinations[destination].name.clone();
    let receipt = request.header(Name::ReceiptId).filter(|value| !value.is_empty());
    let number = broker.peers.peer(request.peer).number;
    let reason = CloseReason::LoggedOut;
    broker.end_session(request.peer, reason, now);
    broker.peers.reply_last(request.peer, Closure { reason, retry: None }, |out| {
        encode::begin(out, "RECEIPT");
        encode::header(out, "session-id", &token);
        encode::header(out, "login", &login);
        encode::header(out, "destination", &name);
        encode::number_header(out, "connection-id", number);
        encode::header(out, "receipt-id", receipt.unwrap_or(b"-na-"));
        encode::finish(out, b"");
    });
    Verdict::Closing(reason)
}

#[inline(always)] // into `handle`, its only caller
fn send(broker: &mut Broker, request: &Request<'_, '_>, now: Moment) -> Result<(), Fault> {
    request.check_session_id(broker)?;
    let content = Content {
        transaction: request.header(Name::Transaction),
        destination: request.required(Name::Destination)?,
        content_type: request.header(Name::ContentType),
        has_escapes: false,
        user_lines: UserLines::of(&request.frame.headers),
        body: request.frame.body,
    };
    let sending =
        Sending { session: request.session, content: &content, expires_ms: NEVER, origin: None };
    if let Some(line) = request.frame.headers.disguised_line() {
        return Err(Fault::disguised(line.name));
    }
    match broker.send(sending, now)? {
        Sent::Queued(_) => {}
        Sent::Wide(wide) => {
            broker.start_wide(request.peer, wide);
        }
        Sent::Nobody => return broker.unreachable(content.destination).map_or(Ok(()), Err),
    }
    if let Some(transaction) = content.transaction {
        broker.acknowledge(request.peer, request.session, transaction);
    }
    Ok(())
}

fn subscribe(broker: &mut Broker, request: &Request<'_, '_>, now: Moment) -> Result<(), Fault> {
    request.check_session_id(broker)?;
    if request.header(Name::Destination) == Some(Space::BROKER) {
        return subscribe_presence(broker, request, now);
    }
    let kind = request.header(Name::DestinationType);
    let kind = kind.ok_or_else(|| Fault::missing(Name::DestinationType))?;
    let name = request.required(Name::Destination)?;
    match Space::of(name) {
        Space::Client => {}
        // A regular expression may begin with any character.
        Space::Broker | Space::Unknown if kind == b"1" => {}
        Space::Broker | Space::Unknown => {
            let fault = Broker::unknown_space(name, Code::NothingToSubscribe);
            return answer_subscription(broker, request, Err(fault));
        }
        Space::Topic => {
            let outcome = broker.subscribe_topic(request.session, name, None);
            return answer_subscription(broker, request, outcome);
        }
        Space::Queue => {
            let description = "queues are for clients of standard STOMP, which can acknowledge";
            let fault = Fault::staying(Code::InvalidDestinationType, description);
            return answer_subscription(broker, request, Err(fault));
        }
    }
    if !broker.sessions[request.session].profile.watches() {
        let fault = Fault::staying(Code::NoRights, "your profile may not watch clients");
        request.acknowledge_list(broker, b"", Err(fault));
        return Ok(());
    }
    let outcome = match kind {
        b"1" => broker.watch_clients(request.session, name, None),
        _ => broker.watch_client(request.session, name, None),
    };
    answer_subscription(broker, request, outcome)
}

/// Answers a SUBSCRIBE with its ACK. A fault after which the connection stays open is told there.
fn answer_subscription(
    broker: &mut Broker,
    request: &Request<'_, '_>,
    outcome: Result<SubscriptionIndex, Fault>,
) -> Result<(), Fault> {
    match outcome {
        Ok(index) => {
            let mut list = Vec::new();
            list_watched(broker, request.session, index, b"", &mut list);
            request.acknowledge_list(broker, &list, Ok(()));
        }
        Err(fault) if fault.disposition == Disposition::Stays => {
            request.acknowledge_list(broker, b"", Err(fault));
        }
        Err(fault) => return Err(fault),
    }
    Ok(())
}

fn subscribe_presence(
    broker: &mut Broker,
    request: &Request<'_, '_>,
    now: Moment,
) -> Result<(), Fault> {
    let text = request.header(Name::DestinationId).unwrap_or(b".*");
    let outcome = broker.subscribe_presence(request.session, text, None);
    let subscribed = outcome.as_ref().ok().copied();
    answer_subscription(broker, request, outcome)?;
    if let Some(index) = subscribed
        && request.header(Name::Snapshot) == Some(b"true")
    {
        desk::send_snapshot(broker, index, now);
    }
    Ok(())
}

fn unsubscribe(broker: &mut Broker, request: &Request<'_, '_>, now: Moment) -> Result<(), Fault> {
    request.check_session_id(broker)?;
    let destination = request.header(Name::Destination).filter(|value| !value.is_empty());
    let events = request.header(Name::DestinationId);
    let ended = match destination {
        Some(name) => broker.subscriptions_to(request.session, name, events),
        None => broker.sessions[request.session].subscriptions.all().to_vec(),
    };
    let mut list = Vec::new();
    for index in ended {
        list_watched(broker, request.session, index, b"Subscription: ", &mut list);
        broker.unsubscribe(index, now);
    }
    request.acknowledge_list(broker, &list, Ok(()));
    Ok(())
}

/// Writes a line for each client that a subscription matches and its session may watch, or one line for a
/// topic.
fn list_watched(
    broker: &Broker,
    watcher: SessionId,
    index: SubscriptionIndex,
    prefix: &[u8],
    out: &mut Vec<u8>,
) {
    let watcher = broker.sessions[watcher].profile;
    let mut write_client = |owner: &Session| {
        if watcher.may_watch(owner.profile) {
            let (login, name) = (owner.login(&broker.destinations), owner.destination);
            let name = &broker.destinations[name].name;
            let parts: [&[u8]; 8] =
                [prefix, b"[", login, b"]:[", owner.token(), b"]:[", name, b"]\n"];
            parts.iter().for_each(|part| out.extend_from_slice(part));
        }
    };
    let topic = match broker.subscriptions[index].target {
        Target::Topic(id) => Some(&*broker.destinations[id].name),
        Target::Topics(group) => broker.groups.wildcards.get(group).map(Group::text),
        Target::Client(id) | Target::Own(id) => {
            let owner = broker.destinations[id].owner;
            return owner.into_iter().for_each(|owner| write_client(&broker.sessions[owner]));
        }
        Target::Clients(group) => {
            let sessions = broker.sessions.iter().map(|(_, session)| session);
            let address = |session: &Session| &broker.destinations[session.destination];
            return sessions
                .filter(|session| address(session).has_group(slot_of(group)))
                .for_each(write_client);
        }
        Target::Presence(_) | Target::Queue(_) => None,
    };
    if let Some(name) = topic {
        let parts: [&[u8]; 4] = [prefix, b"[]:[]:[", name, b"]\n"];
        parts.iter().for_each(|part| out.extend_from_slice(part));
    }
}

fn begin_ack(out: &mut Vec<u8>, token: &[u8; 32], transaction: &[u8]) {
    out.extend_from_slice(b"ACK\n");
    encode::plain_header(out, b"session-id", token);
    encode::plain_header(out, b"transaction", transaction);
}
