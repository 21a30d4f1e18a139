//! The standard dialect's rules: the effect of each command of STOMP 1.0, 1.1 and 1.2, and the answer to it.

use super::admission::Credentials;
use super::answer::Answer;
use super::commit::{begin, commit, hold, take_transaction};
use super::deliver::{Sending, Sent};
use super::encoding::Encoding;
use super::execute::Settle;
use super::fault::{CloseReason, Code, Fault, Retry};
use super::ids::{PeerId, SessionId, SubscriptionIndex};
use super::message::NEVER;
use super::peer::Peer;
use super::request::{
    Request, agree_on_beats, check_deliverable, check_disguises, check_host, content_of,
    destination_of, escaped, find_delivery, parse_number, read_expiry,
};
use super::space::Space;
use super::speaker::{Data, Done, Verdict};
use super::store::List;
use super::subscription::{AckMode, Standard, Turn};
use super::{Broker, Moment, desk, printable};
use crate::buffer::Lent;
use crate::classic::encode::number_header;
use crate::limits::Exceeded;
use crate::stomp::frame::OwnedLines;
use crate::stomp::{
    Assembler, Command, Frame, Headers, Malformed, Name, ScanBounds, Version, encode,
};
use crate::work;

/// Handles the frames in data, until it is used up, the connection closes, or its client is not to be handled
/// any further in this turn.
pub(super) fn handle(
    broker: &mut Broker,
    peer: PeerId,
    assembler: &mut Assembler,
    data: Data<'_>,
    now: Moment,
) -> Done {
    let one = broker.peers.peer_mut(peer);
    if one.session().is_none() {
        if let Some(closure) = one.closure() {
            return Done::ignored(closure.reason);
        }
        one.prefer_binary(data.is_binary);
    }
    handle_frames(broker, peer, assembler, data.lent, now)
}

/// Goes on with the frames that were left.
#[cold] // few connections use up their share
pub(super) fn resume(
    broker: &mut Broker,
    peer: PeerId,
    assembler: &mut Assembler,
    now: Moment,
) -> Done {
    match broker.peers.peer(peer).closure() {
        Some(closure) => Done::ignored(closure.reason),
        None => handle_frames(broker, peer, assembler, Lent::unshared(&[]), now),
    }
}

#[inline(always)] // the path of a SEND
fn handle_frames(
    broker: &mut Broker,
    peer: PeerId,
    assembler: &mut Assembler,
    lent: Lent<'_>,
    now: Moment,
) -> Done {
    let mut client = Client::of(broker.peers.peer(peer), peer);
    let mut bytes = lent.bytes;
    let mut done = Done { frames: 0, verdict: Verdict::Stays, pauses: false };
    while assembler.has_more(bytes) {
        if done.frames > 0
            && broker.pauses(peer)
            && !follows_wide(broker, &client, assembler, &mut bytes)
        {
            assembler.keep(bytes);
            done.pauses = true;
            break;
        }
        let bounds = ScanBounds::new(&broker.limits, client.session.is_some());
        let mut frame = Frame::default();
        let verdict = match assembler.next_frame(&mut bytes, &bounds, &mut frame) {
            Ok(true) => {
                done.frames += 1;
                // A frame from elsewhere has a buffer of its own; and only what is in a buffer becomes a piece of it.
                frame.shared = frame.shared.or(lent.shared);
                let mut lines = work::of_lines(frame.headers.count());
                if frame.has_backslash {
                    lines = frame.headers.count() * work::ESCAPED_LINE;
                }
                broker.meter.spend(work::FRAME + work::of_bytes(frame.body.len()) + lines);
                handle_frame(broker, &client, &frame, now)
            }
            Ok(false) => break,
            Err(malformed) => refuse_malformed(broker, &client, &malformed, now),
        };
        match verdict {
            Verdict::Stays => {}
            Verdict::LoggedIn => {
                done.verdict = verdict;
                client = Client::of(broker.peers.peer(peer), peer);
            }
            Verdict::Closing(_) => {
                done.verdict = verdict;
                break;
            }
        }
    }
    if done.frames == 0 {
        // A part of a frame or line ends, of which very many may come in messages of a WebSocket.
        broker.meter.spend(work::FRAME);
    }
    done.pauses |= broker.is_busy(peer);
    assembler.release();
    broker.counters.frames_in += u64::from(done.frames);
    done
}

/// Whether the next frame is a SEND to the receivers of the client's last one, which are many and have not got it
/// yet. The frame is still the next one then.
#[cold] // asked only where a client pauses
fn follows_wide(
    broker: &mut Broker,
    client: &Client,
    assembler: &mut Assembler,
    bytes: &mut &[u8],
) -> bool {
    let Some(session) = client.session else { return false };
    if client.version == Version::V1_0
        || broker.is_share_spent()
        || !broker.has_open_wide(client.peer)
    {
        return false;
    }
    let bounds = ScanBounds::new(&broker.limits, true);
    let mut frame = Frame::default();
    assembler.peek(bytes, &bounds, &mut frame).is_ok_and(|is_whole| is_whole)
        && can_follow(&frame)
        && destination_of(&frame).is_ok_and(|name| broker.follows_wide(client.peer, session, name))
}

/// Whether a frame is a SEND whose only effect is its delivery.
fn can_follow(frame: &Frame<'_>) -> bool {
    use Name::{Expiration, Expires, Transaction, Undeliverable};
    let has = |name| frame.headers.value(name).is_some();
    frame.command == Command::Send
        && !frame.has_backslash
        && !frame.has_return
        && !frame.headers.has_odd_names()
        && ![Transaction, Expiration, Expires, Undeliverable].into_iter().any(has)
}

/// The state of the sender while its data is handled. It is renewed by a login.
struct Client {
    peer: PeerId,
    /// The lowest version before the login.
    version: Version,
    session: Option<SessionId>,
}

impl Client {
    fn of(one: &Peer, peer: PeerId) -> Self {
        let Encoding::Standard(version) = one.encoding else {
            panic!("a connection of the standard dialect has an encoding of the classic one");
        };
        Self { peer, version, session: one.session() }
    }
}

fn handle_frame(broker: &mut Broker, client: &Client, frame: &Frame<'_>, now: Moment) -> Verdict {
    if client.version == Version::V1_0 {
        return handle_with_blanks(broker, client, frame, now);
    }
    handle_trimmed(broker, client, frame, now)
}

/// STOMP 1.0, "CONNECT" and "SUBSCRIBE": the examples have a blank behind the colon that is not part of
/// the value.
#[inline(never)] // only before login and in version 1.0
fn handle_with_blanks(
    broker: &mut Broker,
    client: &Client,
    frame: &Frame<'_>,
    now: Moment,
) -> Verdict {
    let is_1_0 = frame.command != Command::Connect
        || Version::negotiate(frame.headers.value(Name::AcceptVersion)) == Some(Version::V1_0);
    match frame.headers.with_trimmed_values().filter(|_| is_1_0) {
        Some(headers) => handle_trimmed(broker, client, &Frame { headers, ..*frame }, now),
        None => handle_trimmed(broker, client, frame, now),
    }
}

fn handle_trimmed(broker: &mut Broker, client: &Client, frame: &Frame<'_>, now: Moment) -> Verdict {
    // A receipt's id goes back as it came, still escaped.
    let receipt = frame.headers.value(Name::Receipt);
    let receipt = receipt.filter(|_| frame.command != Command::Connect);
    match handle_escaped(broker, client, frame, now) {
        Ok(Outcome::Nothing) => answer(broker, client.peer, receipt, None),
        Ok(Outcome::Sent(delivered)) => answer(broker, client.peer, receipt, Some(delivered)),
        Ok(Outcome::LoggedIn) => return Verdict::LoggedIn,
        Ok(Outcome::LoggedOut) => return log_out(broker, client.peer, receipt, now),
        Err(fault) => return broker.refuse_request(client.peer, &fault, receipt, now),
    }
    Verdict::Stays
}

/// Sends an ERROR about a frame that could not be parsed.
#[cold] // few frames are malformed
fn refuse_malformed(
    broker: &mut Broker,
    client: &Client,
    malformed: &Malformed,
    now: Moment,
) -> Verdict {
    let mut receipt = malformed.receipt.as_deref();
    if client.version == Version::V1_0 {
        receipt = receipt.map(<[u8]>::trim_ascii);
    }
    broker.refuse_request(client.peer, &malformed.fault.into(), receipt, now)
}

/// Writes an ERROR.
pub(super) fn write_error(
    out: &mut Vec<u8>,
    version: Version,
    fault: &Fault,
    receipt: Option<&[u8]>,
) {
    encode::begin(out, "ERROR");
    encode::header(out, version, b"message", fault.description.as_bytes());
    encode::plain_header(out, "error-code", fault.code.word().as_bytes());
    encode::plain_header(out, "retry", fault.retry().word().as_bytes());
    // STOMP 1.2, "Value Encoding": with an undefined escape sequence the ERROR would be malformed, too; and with a
    // carriage return in it.
    let is_well_formed =
        |escaped: &&[u8]| version.unescape(escaped).is_ok() && !escaped.contains(&b'\r');
    if let Some(receipt) = receipt.filter(is_well_formed) {
        encode::plain_header(out, "receipt-id", receipt);
    }
    if fault.code == Code::UnsupportedVersion {
        encode::plain_header(out, "version", b"1.0,1.1,1.2");
    }
    // With exactly "text/plain", stompit 1.0 reads the body and throws an exception that cannot be caught.
    encode::plain_header(out, "content-type", b"text/plain;charset=utf-8");
    number_header(out, "content-length", fault.description.len() as u64);
    encode::finish(out, fault.description.as_bytes());
}

/// The outcome of a frame.
enum Outcome {
    Nothing,
    /// A message was queued to this number of sessions.
    Sent(u32),
    LoggedIn,
    LoggedOut,
}

/// Handles a frame whose header lines may be escaped.
fn handle_escaped(
    broker: &mut Broker,
    client: &Client,
    frame: &Frame<'_>,
    now: Moment,
) -> Result<Outcome, Fault> {
    let version = client.version;
    if !frame.body.is_empty() && !frame.command.may_have_body(version) {
        let description = "a frame with this command may not have a body";
        return Err(Fault::closing(Code::MalformedFrame, Retry::Never, description));
    }
    // STOMP 1.2, "Augmented BNF": neither names nor values hold one.
    if frame.has_return && version == Version::V1_2 {
        let description = "a header holds a carriage return that does not end its line";
        return Err(Fault::closing(Code::MalformedHeader, Retry::Never, description));
    }
    // STOMP 1.2, "Value Encoding": CONNECT is not escaped.
    if !frame.has_backslash || frame.command == Command::Connect {
        return handle_unescaped(broker, client, frame, now);
    }
    let lines = OwnedLines::unescaped(&frame.headers, version).map_err(|_| {
        let description = "a header holds an escape sequence that the version does not define";
        Fault::closing(Code::MalformedHeader, Retry::Never, description)
    })?;
    let unescaped = Frame { headers: lines.headers(), ..*frame };
    handle_unescaped(broker, client, &unescaped, now)
}

fn handle_unescaped(
    broker: &mut Broker,
    client: &Client,
    frame: &Frame<'_>,
    now: Moment,
) -> Result<Outcome, Fault> {
    let Some(session) = client.session else {
        return handle_first(broker, client.peer, frame, now);
    };
    let request = Request { session, version: client.version, headers: &frame.headers };
    if frame.command == Command::Send {
        check_disguises(broker, &frame.headers)?;
    }
    match frame.command {
        Command::Send | Command::Ack | Command::Nack => {
            match frame.headers.value(Name::Transaction) {
                Some(id) => hold(broker, &request, id, frame, now)?,
                None => return perform(broker, &request, frame, now),
            }
        }
        Command::Subscribe => subscribe(broker, &request, now)?,
        Command::Unsubscribe => unsubscribe(broker, &request, now)?,
        Command::Begin => begin(broker, &request, now)?,
        Command::Commit => commit(broker, client.peer, &request, now)?,
        Command::Abort => {
            let aborted = take_transaction(broker, &request)?;
            broker.free(Some(client.peer), aborted, now);
        }
        Command::Disconnect => return Ok(Outcome::LoggedOut),
        Command::Connect => {
            let description = "this connection is logged in already";
            return Err(Fault::closing(Code::AlreadyLogged, Retry::Never, description));
        }
    }
    Ok(Outcome::Nothing)
}

/// Handles a frame of a connection that is not logged in.
#[inline(never)] // once for each connection
fn handle_first(
    broker: &mut Broker,
    peer: PeerId,
    frame: &Frame<'_>,
    now: Moment,
) -> Result<Outcome, Fault> {
    if frame.command != Command::Connect {
        let description = "nothing but CONNECT is accepted before login";
        return Err(Fault::closing(Code::NotLoggedIn, Retry::Never, description));
    }
    match connect(broker, peer, &frame.headers, now)? {
        true => Ok(Outcome::LoggedIn),
        // A CONNECT has no receipt.
        false => Ok(Outcome::Nothing),
    }
}

/// Sends a RECEIPT for a frame that was handled, if the client asked for one.
fn answer(broker: &mut Broker, peer: PeerId, receipt: Option<&[u8]>, delivered: Option<u32>) {
    if let Some(receipt) = receipt {
        broker.answer(peer, Answer::Receipt(receipt, delivered));
    }
}

fn log_out(broker: &mut Broker, peer: PeerId, receipt: Option<&[u8]>, now: Moment) -> Verdict {
    if let Some(verdict) = broker.cut_overflowed(peer, now) {
        return verdict;
    }
    answer(broker, peer, receipt, None);
    Verdict::Closing(broker.end_peer(peer, CloseReason::LoggedOut, now))
}

// -- login ----------------------------------------------------------------------------------

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
    let Some(version) = Version::negotiate(headers.value(Name::AcceptVersion)) else {
        let description = "none of the accepted versions is supported: 1.0, 1.1 and 1.2 are";
        return Err(Fault::closing(Code::UnsupportedVersion, Retry::Never, description));
    };
    broker.peers.peer_mut(peer).encoding = Encoding::Standard(version);
    check_host(broker, headers)?;
    let beats = agree_on_beats(headers.value(Name::HeartBeat), broker.limits.heart_beat_ms_min)?;
    let credentials = Credentials::of_standard(headers)?;
    let resumes = headers.value(Name::Resume) == Some(b"true");
    let Some(session) = broker.log_in(peer, (&credentials, headers), resumes, now)? else {
        return Ok(false);
    };
    broker.sessions[session].has_inbox = headers.value(Name::Inbox) == Some(b"true");
    broker.peers.peer_mut(peer).beats = beats;
    let ours_ms = broker.limits.heart_beat_ms_min;
    let (session, destinations) = (&broker.sessions[session], &broker.destinations);
    broker.peers.reply(peer, |out| {
        encode::begin(out, "CONNECTED");
        encode::plain_header(out, "version", version.text().as_bytes());
        encode::plain_header(out, "session", session.token());
        encode::plain_header(out, "server", SERVER.as_bytes());
        let offer = |agreed: u32| if agreed == 0 { 0 } else { ours_ms };
        let value = format!("{},{}", offer(beats.outgoing_ms), offer(beats.incoming_ms));
        encode::plain_header(out, "heart-beat", value.as_bytes());
        encode::plain_header(out, "login", credentials.login);
        encode::plain_header(out, "profile-code", session.profile.code().as_bytes());
        encode::plain_header(out, "profile-desc", session.profile.description().as_bytes());
        encode::plain_header(out, "destination", &destinations[session.destination].name);
        encode::finish(out, b"");
    });
    Ok(true)
}

/// `server` in CONNECTED.
const SERVER: &str = concat!("com-broker/", env!("CARGO_PKG_VERSION"));

// -- messages -------------------------------------------------------------------------------

/// Executes a SEND, ACK or NACK outside of transactions.
fn perform(
    broker: &mut Broker,
    request: &Request<'_, '_>,
    frame: &Frame<'_>,
    now: Moment,
) -> Result<Outcome, Fault> {
    if frame.command != Command::Send {
        let is_consumed = frame.command == Command::Ack;
        if let Some(delivery) = find_delivery(broker, request)? {
            let peer = broker.sessions[request.session].peer;
            broker.begin_settling(peer, Settle::new(delivery, is_consumed), now);
        }
        return Ok(Outcome::Nothing);
    }
    let content = content_of(frame, destination_of(frame)?);
    check_deliverable(broker, request.session, &frame.headers)?;
    let expires_ms = if content.user_lines.is_empty() {
        NEVER
    } else if let Some(expires_ms) = read_expiry(&frame.headers, now)? {
        expires_ms
    } else {
        broker.check_sendable(request.session, content.destination)?;
        broker.counters.messages_expired += 1;
        return Ok(Outcome::Sent(0));
    };
    let sending = Sending { session: request.session, content: &content, expires_ms, origin: None };
    match broker.send(sending, now)? {
        Sent::Queued(count) => Ok(Outcome::Sent(count)),
        Sent::Wide(wide) => {
            let peer = broker.sessions[request.session].peer;
            broker.start_wide(peer, wide);
            // The job answers.
            Ok(Outcome::Sent(0))
        }
        Sent::Nobody => Ok(Outcome::Sent(0)),
    }
}

// -- subscriptions --------------------------------------------------------------------------

fn subscribe(broker: &mut Broker, request: &Request<'_, '_>, now: Moment) -> Result<(), Fault> {
    let name = request.required(Name::Destination)?;
    if request.headers.value(Name::Selector).is_some() {
        let why = "is not served: subscribe to a topic for each kind of message, or look at the \
                   header of each";
        return Err(Fault::malformed(Name::Selector, why));
    }
    end_inherited(broker, request, name, now);
    let standard = Box::new(read_subscription(broker, request)?);
    let session = request.session;
    if name == Space::BROKER || name == Space::PRESENCE {
        let text = request.headers.value(Name::DestinationId).unwrap_or(b".*");
        let index = broker.subscribe_presence(session, text, Some(standard), now)?;
        if request.headers.value(Name::Snapshot) == Some(b"true") {
            desk::send_snapshot(broker, index, now);
        }
        return Ok(());
    }
    let own = broker.sessions[session].destination;
    if request.headers.value(Name::DestinationType) == Some(b"1") {
        check_may_watch(broker, session)?;
        broker.watch_clients(session, name, Some(standard), now)?;
    } else if Space::of(name) == Space::Topic {
        broker.subscribe_topic(session, name, Some(standard), now)?;
    } else if Space::of(name) == Space::Queue {
        broker.subscribe_queue(session, name, standard, now)?;
    } else if *name == *broker.destinations[own].name {
        broker.subscribe_own(session, standard, now)?;
    } else if Space::of(name) != Space::Client {
        return Err(Broker::unknown_space(name, Code::NothingToSubscribe));
    } else {
        check_may_watch(broker, session)?;
        broker.watch_client(session, name, Some(standard), now)?;
    }
    Ok(())
}

/// Ends subscriptions of an earlier connection that a SUBSCRIBE replaces. A client that resumes them may
/// subscribe as if it had none: the new subscription replaces those with the same id or destination.
fn end_inherited(broker: &mut Broker, request: &Request<'_, '_>, name: &[u8], now: Moment) {
    let id = request.headers.value(Name::Id).map(|id| escaped(request.version, id));
    let session = &broker.sessions[request.session];
    let (peer, moves) = (session.peer, session.moves);
    if moves == 0 {
        return;
    }
    let is_inherited = |index: &SubscriptionIndex| {
        let standard = broker.subscriptions[*index].standard.as_ref();
        standard.is_some_and(|standard| standard.made_at != moves)
    };
    let mut replaced = broker.subscriptions_to(request.session, name, None);
    broker.meter.spend(replaced.len() as u32 / work::LOOKUPS_PER_UNIT);
    let by_id = id.and_then(|id| broker.subscription_by_id(request.session, &id));
    replaced.extend(by_id.filter(|index| !replaced.contains(index)));
    replaced.retain(is_inherited);
    broker.unsubscribe(peer, replaced, now);
}

fn check_may_watch(broker: &Broker, session: SessionId) -> Result<(), Fault> {
    if broker.sessions[session].profile.watches() {
        return Ok(());
    }
    Err(Fault::staying(Code::NoRights, "your profile may not watch clients"))
}

fn read_subscription(broker: &Broker, request: &Request<'_, '_>) -> Result<Standard, Fault> {
    let id = match (request.headers.value(Name::Id), request.version) {
        (None, Version::V1_0) => None,
        (Some(id), _) if !id.is_empty() => Some(escaped(request.version, id)),
        _ => return Err(Fault::missing(Name::Id)),
    };
    let max = broker.limits.subscription_id_bytes_max;
    if let Some(id) = &id {
        if id.len() > max as usize {
            let exceeded = Exceeded { limit: "subscription_id_bytes_max", max: u64::from(max) };
            return Err(Fault::exceeded(exceeded));
        }
        if broker.subscription_by_id(request.session, id).is_some() {
            let description = format!("there is a subscription {} already", printable(id));
            return Err(Fault::closing(Code::UnknownId, Retry::Never, description));
        }
    }
    let mode = match request.headers.value(Name::Ack) {
        None | Some(b"auto") => AckMode::Auto,
        Some(b"client") => AckMode::Client,
        Some(b"client-individual") => AckMode::ClientIndividual,
        Some(_) => {
            let why = "is none of auto, client, client-individual";
            return Err(Fault::malformed(Name::Ack, why));
        }
    };
    let largest = broker.limits.prefetch_max;
    let prefetch = match request.headers.value(Name::PrefetchCount) {
        None => largest,
        Some(text) => match parse_number(text) {
            None => return Err(Fault::malformed(Name::PrefetchCount, "is no number")),
            Some(0) => largest,
            Some(wanted) => wanted.min(u64::from(largest)) as u32,
        },
    };
    let (unacknowledged, turn) = (List::default(), Turn::Listed);
    let moves = broker.sessions[request.session].moves;
    Ok(Standard { id, mode, prefetch, unacknowledged, turn, made_at: moves, ready_at: moves })
}

fn unsubscribe(broker: &mut Broker, request: &Request<'_, '_>, now: Moment) -> Result<(), Fault> {
    let index = match (request.headers.value(Name::Id), request.version) {
        (Some(id), _) => {
            let found = broker.subscription_by_id(request.session, &escaped(request.version, id));
            found.ok_or_else(|| Broker::unknown("subscription", id))?
        }
        (None, Version::V1_0) => find_by_destination(broker, request)?,
        (None, _) => return Err(Fault::missing(Name::Id)),
    };
    let peer = broker.sessions[request.session].peer;
    broker.unsubscribe(peer, vec![index], now);
    Ok(())
}

/// STOMP 1.0, "UNSUBSCRIBE": a subscription without an id is named by its destination.
fn find_by_destination(
    broker: &mut Broker,
    request: &Request<'_, '_>,
) -> Result<SubscriptionIndex, Fault> {
    let name = request.required(Name::Destination)?;
    let named = broker.subscriptions_to(request.session, name, None);
    broker.meter.spend(named.len() as u32 / work::LOOKUPS_PER_UNIT);
    named.first().copied().ok_or_else(|| Broker::unknown("subscription to", name))
}
