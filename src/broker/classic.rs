//! The classic dialect's rules: the effect of each command, and the answer to it.

use super::admission::Credentials;
use super::deliver::{Sending, Sent};
use super::fault::{CloseReason, Code, Disposition, Fault, Retry};
use super::ids::{PeerId, SessionId, SubscriptionIndex};
use super::job::Job;
use super::list::{self, List};
use super::message::{Content, NEVER, UserLines};
use super::peer::Closure;
use super::request::check_disguises;
use super::space::Space;
use super::speaker::{Done, Verdict};
use super::{Broker, Moment, desk};
use crate::buffer::{Lent, Shared};
use crate::classic::{Command, Frame, encode};
use crate::stomp::{Headers, Name};
use crate::work;

/// Handles a frame, unless its connection is closing.
pub(super) fn handle(broker: &mut Broker, peer: PeerId, lent: Lent<'_>, now: Moment) -> Done {
    let bytes = lent.bytes;
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
            match send(broker, &Request { peer, session, frame: &frame }, lent.shared, now) {
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
pub(super) fn follows_wide(broker: &mut Broker, peer: PeerId, bytes: &[u8]) -> bool {
    let Some(session) = broker.peers.peer(peer).session() else { return false };
    let mut frame = Frame::default();
    if frame.read(bytes, &broker.limits).is_err()
        || frame.command != Command::Send
        || frame.headers.has_odd_names()
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
            let is_over = connect(broker, peer, &frame.headers, now)?;
            return Ok(if is_over { Verdict::LoggedIn } else { Verdict::Stays });
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

    /// Answers a SUBSCRIBE or UNSUBSCRIBE with an ACK that lists its destinations. Without a transaction there
    /// is no ACK. An UNSUBSCRIBE ends the subscriptions.
    fn list(&self, broker: &mut Broker, subscriptions: Vec<SubscriptionIndex>, now: Moment) {
        let ends = self.frame.command == Command::Unsubscribe;
        let transaction = self.header(Name::Transaction);
        if transaction.is_none() && !ends {
            return;
        }
        let list = List::new(self.peer, subscriptions, ends, transaction);
        broker.start(Some(self.peer), Job::List(Box::new(list)), now);
    }

    /// Tells the fault of a SUBSCRIBE after which the connection stays open: in its ACK, or without a transaction
    /// in an ERROR.
    fn refuse(&self, broker: &mut Broker, fault: Fault) {
        match self.header(Name::Transaction) {
            Some(transaction) => {
                list::acknowledge(broker, self.peer, transaction, false, b"", &Err(fault));
            }
            None => broker.peers.reply(self.peer, |out| write_error(out, &fault)),
        }
    }
}

/// Handles a CONNECT. Returns whether its client is logged in; if not, the login waits.
pub(super) fn connect(
    broker: &mut Broker,
    peer: PeerId,
    headers: &Headers<'_>,
    now: Moment,
) -> Result<bool, Fault> {
    log_in(broker, peer, headers, now).inspect_err(|_| broker.note_refused_login(peer, headers))
}

fn log_in(
    broker: &mut Broker,
    peer: PeerId,
    headers: &Headers<'_>,
    now: Moment,
) -> Result<bool, Fault> {
    let credentials = Credentials::of_classic(headers)?;
    let Some(session) = broker.log_in(peer, (&credentials, headers), true, now)? else {
        return Ok(false);
    };
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
    Ok(true)
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
fn send(
    broker: &mut Broker,
    request: &Request<'_, '_>,
    shared: Option<&Shared>,
    now: Moment,
) -> Result<(), Fault> {
    request.check_session_id(broker)?;
    let content = Content {
        transaction: request.header(Name::Transaction),
        destination: request.required(Name::Destination)?,
        content_type: request.header(Name::ContentType),
        has_escapes: false,
        user_lines: UserLines::of(&request.frame.headers),
        body: request.frame.body,
        shared,
    };
    let sending =
        Sending { session: request.session, content: &content, expires_ms: NEVER, origin: None };
    check_disguises(broker, &request.frame.headers)?;
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
            return answer_subscription(broker, request, Err(fault), now);
        }
        Space::Topic => {
            let outcome = broker.subscribe_topic(request.session, name, None, now);
            return answer_subscription(broker, request, outcome, now);
        }
        Space::Queue => {
            let description = "queues are for clients of standard STOMP, which can acknowledge";
            let fault = Fault::staying(Code::InvalidDestinationType, description);
            return answer_subscription(broker, request, Err(fault), now);
        }
    }
    if !broker.sessions[request.session].profile.watches() {
        let fault = Fault::staying(Code::NoRights, "your profile may not watch clients");
        request.refuse(broker, fault);
        return Ok(());
    }
    let outcome = match kind {
        b"1" => broker.watch_clients(request.session, name, None, now),
        _ => broker.watch_client(request.session, name, None, now),
    };
    answer_subscription(broker, request, outcome, now)
}

/// Answers a SUBSCRIBE with its ACK. A fault after which the connection stays open is told there.
fn answer_subscription(
    broker: &mut Broker,
    request: &Request<'_, '_>,
    outcome: Result<SubscriptionIndex, Fault>,
    now: Moment,
) -> Result<(), Fault> {
    match outcome {
        Ok(index) => {
            request.list(broker, vec![index], now);
        }
        Err(fault) if fault.stays_in_classic() => request.refuse(broker, fault),
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
    let outcome = broker.subscribe_presence(request.session, text, None, now);
    let subscribed = outcome.as_ref().ok().copied();
    answer_subscription(broker, request, outcome, now)?;
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
    broker.meter.spend(ended.len() as u32 / work::LOOKUPS_PER_UNIT);
    request.list(broker, ended, now);
    Ok(())
}
