//! Input: read into one buffer, parsed by the transport and passed to the broker; and the requests that
//! the transport itself answers.

use std::io::ErrorKind;

use super::Engine;
use super::connection::{Connection, Kept, Last, Phase, Rest, SURPLUS, Socket, source_of};
use crate::broker::peer::Opening;
use crate::broker::{CloseReason, Code, Data, Done, Fault, News, Retry};
use crate::http;
use crate::limits::{Exceeded, Limits};
use crate::transport::tls::TlsLayer;
use crate::transport::{
    Dialect, FrameBound, Inbound, PlainRequest, Protocols, TlsMode, TransportFault, detect,
};
use crate::work;

/// The buffers of all reads; connections own none.
pub(super) struct Scratch {
    wire: Box<[u8]>,
    plain: Box<[u8]>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            wire: vec![0; WIRE_BYTES].into_boxed_slice(),
            plain: vec![0; PLAIN_BYTES].into_boxed_slice(),
        }
    }
}

const WIRE_BYTES: usize = 64 * 1024;
const PLAIN_BYTES: usize = 32 * 1024;

/// Bytes of the smallest read, if there are so many.
const READ_BYTES_MIN: usize = 4 * 1024;

impl<S: Socket> Engine<S> {
    /// Reads at most so many bytes from a connection and handles them, within a share of so many units.
    pub(super) fn read_connection(&mut self, slot: u32, bytes_max: usize, units: u32) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.flags.listed_to_read = false;
        self.broker.begin_share(units);
        let mut budget = bytes_max;
        loop {
            if self.holds_back(slot) {
                return;
            }
            if self.connections[slot].kept.is_some() {
                if self.broker.is_share_spent() {
                    return self.connections.list_to_continue(slot);
                }
                if !self.handle_kept(slot) {
                    return;
                }
            }
            let bytes_left = self.read_bytes_left();
            let connection = &mut self.connections[slot];
            if !connection.flags.readable || matches!(connection.phase, Phase::Closed(_)) {
                return;
            }
            if budget == 0 || self.broker.is_share_spent() {
                return self.connections.list_to_continue(slot);
            }
            let wanted = budget.min(bytes_left);
            match connection.socket.read(&mut self.scratch.wire[..wanted]) {
                Ok(0) => {
                    connection.flags.readable = false;
                    connection.flags.ended = true;
                    return self.handle_end(slot);
                }
                Ok(count) => {
                    budget -= count;
                    connection.totals.bytes_in += count as u64;
                    connection.note_heard(self.patience.now_ms());
                    if !connection.flags.end_announced && !S::may_have_more(count, wanted) {
                        connection.flags.readable = false;
                    }
                    self.count_read(count);
                    self.handle_bytes(slot, count);
                    self.relieve_pressure();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.flags.readable = false;
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.close_now(slot, CloseReason::Lost),
            }
        }
    }

    #[inline]
    fn count_read(&mut self, bytes: usize) {
        self.counters.bytes_in += bytes as u64;
        self.broker.meter.spend(work::READ + work::RECEIVED_KIB * work::of_bytes(bytes));
    }

    /// Bytes of one read, for which the share lasts about.
    #[inline]
    fn read_bytes_left(&self) -> usize {
        let bytes =
            (self.broker.units_left() as usize).saturating_mul(1024 / work::RECEIVED_KIB as usize);
        bytes.clamp(READ_BYTES_MIN, self.scratch.wire.len())
    }

    /// Handles the bytes in the scratch buffer, and keeps what is left when the share ends.
    fn handle_bytes(&mut self, slot: u32, count: usize) {
        let connection = &mut self.connections[slot];
        if !connection.reads_transport() {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch.wire);
        if connection.phase == Phase::AwaitingProtocol
            && connection.tls.is_none()
            && connection.totals.bytes_in == count as u64
        {
            self.detect_tls(slot, scratch[0]);
        }
        if self.connections[slot].has_given_up_tls() {
            self.scratch.wire = scratch;
            return self.close_now(slot, CloseReason::Lost);
        }
        let left = if self.connections[slot].tls.is_some() {
            self.handle_encrypted(slot, &scratch[..count])
        } else {
            self.handle_plain(slot, &mut scratch[..count])
        };
        if left > 0 {
            self.keep_input(slot).wire = Rest::of(&scratch[count - left..count]);
        }
        self.scratch.wire = scratch;
        self.end_input(slot);
        let connection = &self.connections[slot];
        let added = (connection.noted_bytes as usize).min(count);
        let unmasked = if connection.transport.is_websocket() { work::UNMASKED_KIB } else { 0 };
        let units = work::FRESH_KIB * work::of_bytes(added) + unmasked * work::of_bytes(count);
        self.broker.meter.spend(units);
    }

    /// Where input is kept that is not handled in this turn.
    #[cold] // few connections use up their share
    fn keep_input(&mut self, slot: u32) -> &mut Kept {
        self.connections[slot].kept.get_or_insert_default()
    }

    /// Notes what a connection holds after input was handled.
    fn end_input(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        connection.transport.release();
        let held = connection.held_bytes();
        if held != connection.noted_bytes {
            self.note_held(slot);
        }
        if held > 0 || self.connections[slot].torn.is_some() {
            self.note_torn(slot);
        }
        self.wake_flush(slot);
    }

    /// Notes that the job of a connection's client has ended, or occupies more or less than before.
    #[cold] // few requests become jobs
    pub(super) fn note_job(&mut self, news: News) {
        let slot = news.slot;
        let Some(connection) = self.connections.get_mut(slot) else { return };
        if news.has_ended {
            connection.note_held_back(self.patience.now_ms());
            return self.connections.list_to_continue(slot);
        }
        let Some(peer) = connection.peer() else { return };
        if let Some(kept) = &mut connection.kept {
            kept.job_bytes = self.broker.peers.peer(peer).job_bytes();
            self.note_held(slot);
        }
    }

    /// Goes on with input that was kept. Returns whether all of it is handled; if not, the connection is
    /// listed, or it is when its client's job ends.
    #[cold] // few connections use up their share
    fn handle_kept(&mut self, slot: u32) -> bool {
        let connection = &mut self.connections[slot];
        if connection.peer().is_some_and(|peer| self.broker.peers.peer(peer).is_busy()) {
            return false;
        }
        let Some(mut kept) = connection.kept.take() else { return true };
        self.handle_rest(slot, &mut kept);
        let connection = &mut self.connections[slot];
        let marker = connection.kept.take();
        if marker.is_some() || !kept.is_empty() {
            kept.job_bytes = marker.as_ref().map_or(0, |marker| marker.job_bytes);
            kept.last = kept.last.or_else(|| marker.and_then(|marker| marker.last));
            connection.kept = Some(kept);
        }
        self.end_input(slot);
        self.relieve_pressure();
        let is_over = self.connections[slot].kept.is_none();
        if !is_over {
            self.connections.list_to_continue(slot);
        }
        is_over
    }

    /// Handles input that was kept, in order, until the share ends again.
    fn handle_rest(&mut self, slot: u32, kept: &mut Kept) {
        if let Some(speaker) = &mut self.connections[slot].speaker {
            let done = self.broker.resume(speaker, self.now);
            if self.follow_done(slot, done) {
                return;
            }
        }
        if let Some(last) = kept.last.take() {
            *kept = Kept::default();
            self.handle_last(slot, last);
            return;
        }
        let is_encrypted = self.connections[slot].tls.is_some();
        if !kept.plain.bytes().is_empty() {
            let left = self.handle_plain(slot, kept.plain.bytes_mut());
            kept.plain.leave(left);
        }
        if !kept.plain.bytes().is_empty() || self.connections[slot].kept.is_some() {
            return;
        }
        let left = if is_encrypted {
            self.handle_encrypted(slot, kept.wire.bytes())
        } else {
            self.handle_plain(slot, kept.wire.bytes_mut())
        };
        kept.wire.leave(left);
        if let Some(newer) = self.connections[slot].kept.take() {
            kept.plain = newer.plain;
            kept.last = newer.last;
            // Even if nothing is left here, the inlet may hold something.
            self.keep_input(slot).job_bytes = newer.job_bytes;
        }
    }

    /// Begins TLS, or not, according to a connection's first byte and the listener's policy.
    #[inline(never)] // once for each connection
    pub(super) fn detect_tls(&mut self, slot: u32, first: u8) {
        let connection = &mut self.connections[slot];
        let refused = match (first == detect::TLS_HANDSHAKE, connection.policy.tls, &self.tls) {
            (true, TlsMode::Off, _) | (true, _, None) => Some("TLS is not served on this port"),
            (false, TlsMode::Required, _) => {
                // Each protocol is then refused in its own terms.
                connection.policy.protocols = Protocols::NONE;
                None
            }
            (false, _, _) => None,
            (true, _, Some(service)) => match TlsLayer::new(&service.config) {
                Ok(layer) => {
                    connection.tls = Some(Box::new(layer));
                    self.secured_len += 1;
                    let time_ms = self.limits.tls_handshake_ms_max;
                    self.set_deadline(slot, self.now.ms() + u64::from(time_ms));
                    None
                }
                Err(_) => Some("the TLS configuration is unusable"),
            },
        };
        if let Some(why) = refused {
            self.close_now(slot, CloseReason::Transport(why));
        }
    }

    /// Returns the number of bytes that are left when the share ends.
    #[inline(never)] // large, and of no use to plain connections
    fn handle_encrypted(&mut self, slot: u32, wire: &[u8]) -> usize {
        let mut wire = wire;
        let mut plain = std::mem::take(&mut self.scratch.plain);
        loop {
            let connection = &mut self.connections[slot];
            if !connection.reads_transport() {
                wire = &[];
                break;
            }
            let Some((result, is_ended)) = self.decrypt(slot, &mut wire, &mut plain) else { break };
            match result {
                Ok(0) if is_ended => {
                    self.handle_close_notify(slot);
                    break;
                }
                Ok(0) if wire.is_empty() => break,
                Ok(0) if self.broker.is_share_spent() => {
                    self.keep_input(slot);
                    break;
                }
                Ok(0) => {}
                Ok(count) => {
                    let left = self.handle_plain(slot, &mut plain[..count]);
                    if left > 0 {
                        self.keep_input(slot).plain = Rest::of(&plain[count - left..count]);
                    }
                    // More may be decrypted already, even if `wire` is used up.
                    if self.connections[slot].kept.is_some() {
                        break;
                    }
                    if self.broker.is_share_spent() {
                        self.keep_input(slot);
                        break;
                    }
                }
                Err(TransportFault::Tls(why)) => {
                    self.begin_close(slot, CloseReason::Transport(why));
                    break;
                }
                Err(_) => break,
            }
        }
        self.scratch.plain = plain;
        wire.len()
    }

    /// Decrypts some of `wire` into `plain`, and counts what that takes. Returns the number of bytes there, and whether
    /// the client has ended TLS; `None` if there is no TLS.
    fn decrypt(
        &mut self,
        slot: u32,
        wire: &mut &[u8],
        plain: &mut [u8],
    ) -> Option<(Result<usize, TransportFault>, bool)> {
        let tls = self.connections[slot].tls.as_mut()?;
        let was_handshaking = tls.is_handshaking();
        let had_output = tls.wants_write();
        let result = tls.decrypt(wire, plain);
        self.broker.meter.spend(tls.take_units());
        if was_handshaking {
            // What costs much is what is answered; a part of a flight is only collected.
            let answers = !had_output && tls.wants_write();
            let service = self.tls.as_ref().filter(|_| answers);
            let units = service.map_or(work::FRAME, |service| tls.units_of(service));
            self.broker.meter.spend(units);
        }
        let is_ended = tls.is_ended_by_client();
        if was_handshaking && !tls.is_handshaking() {
            self.set_deadline(slot, self.now.ms() + u64::from(self.limits.upgrade_ms_max));
        }
        Some((result, is_ended))
    }

    /// Handles the client's `close_notify`. Its socket may stay open until it gets the broker's.
    fn handle_close_notify(&mut self, slot: u32) {
        match self.connections[slot].phase {
            Phase::AwaitingClose(reason) => self.end_stream(slot, reason),
            _ => self.begin_close(slot, CloseReason::EndOfStream),
        }
    }

    /// Handles bytes of a plain connection, or decrypted ones. Returns the number of bytes that are left when
    /// the share ends.
    fn handle_plain(&mut self, slot: u32, bytes: &mut [u8]) -> usize {
        let mut wire = bytes;
        loop {
            let connection = &mut self.connections[slot];
            if !connection.phase.reads_frames() {
                return self.await_close(slot, wire);
            }
            let bound = frame_bound(&self.limits, connection.phase);
            let policy = connection.policy;
            let upgrade_max = self.limits.upgrade_bytes_max;
            match connection.transport.next_inbound(&mut wire, &policy, bound, upgrade_max) {
                Ok(None) => return 0,
                Ok(Some(Inbound::Data { lent, is_binary })) => {
                    let speaker = connection.speaker.as_mut().expect(OPENED);
                    let done = self.broker.handle(speaker, Data { lent, is_binary }, self.now);
                    if self.follow_done(slot, done) {
                        return wire.len();
                    }
                }
                Ok(Some(Inbound::Part)) => self.broker.meter.spend(work::FRAME),
                Ok(Some(Inbound::Opened(dialect))) => self.open(slot, dialect),
                Ok(Some(Inbound::Unserved(dialect, what))) => {
                    self.refuse_unserved(slot, dialect, what);
                }
                Ok(Some(Inbound::Request(request))) => self.answer_request(slot, &request),
                Ok(Some(Inbound::Closed)) => {
                    if self.handle_last(slot, Last::Close) {
                        return 0;
                    }
                }
                Err(fault) => {
                    self.handle_last(slot, Last::Fault(fault));
                    return 0;
                }
            }
            if !wire.is_empty() && self.broker.is_share_spent() {
                return wire.len();
            }
        }
    }

    /// Handles the last event of a transport; once the job has ended, if one runs for frames before it, so that these
    /// are answered. Returns whether it does.
    #[inline(never)] // once for each connection
    fn handle_last(&mut self, slot: u32, last: Last) -> bool {
        let peer = self.connections[slot].peer();
        if peer.is_some_and(|peer| self.broker.peers.peer(peer).is_busy()) {
            self.keep_input(slot).last = Some(last);
            return true;
        }
        match last {
            Last::Close => self.begin_close(slot, CloseReason::EndOfStream),
            Last::Fault(fault) => self.handle_fault(slot, fault),
        }
        false
    }

    /// Carries out the broker's verdict on a connection's data. Returns whether its client is not to be
    /// handled any further in this turn.
    #[inline]
    fn follow_done(&mut self, slot: u32, done: Done) -> bool {
        self.connections[slot].totals.frames_in += done.frames;
        self.follow(slot, done.verdict);
        if done.pauses {
            let peer = self.connections[slot].peer();
            let job_bytes = peer.map_or(0, |peer| self.broker.peers.peer(peer).job_bytes());
            self.keep_input(slot).job_bytes = job_bytes;
            let speaker = self.connections[slot].speaker.as_mut();
            return !speaker.is_some_and(|speaker| self.broker.gathers(speaker));
        }
        false
    }

    /// Looks for the WebSocket close in the input of a client whose connection closes; frames are
    /// skipped.
    /// Returns the number of bytes that are left when the share ends.
    #[inline(never)] // once for each connection
    fn await_close(&mut self, slot: u32, bytes: &mut [u8]) -> usize {
        let connection = &mut self.connections[slot];
        if !connection.reads_transport() {
            return 0;
        }
        let mut wire = bytes;
        let bound = frame_bound(&self.limits, Phase::Open);
        let policy = connection.policy;
        loop {
            self.broker.meter.spend(work::FRAME);
            match connection.transport.next_inbound(&mut wire, &policy, bound, 0) {
                Ok(None) => return 0,
                Ok(Some(Inbound::Closed)) | Err(_) => break,
                Ok(Some(_)) if self.broker.is_share_spent() => return wire.len(),
                Ok(Some(_)) => {}
            }
        }
        if let Phase::AwaitingClose(reason) = connection.phase {
            self.end_stream(slot, reason);
        }
        0
    }

    /// Opens a connection in the broker, once its dialect is known.
    #[inline(never)] // once for each connection
    fn open(&mut self, slot: u32, dialect: Dialect) {
        let connection = &mut self.connections[slot];
        let framing = connection.transport.framing();
        let opening = Opening { slot, number: connection.number, framing, dialect };
        let speaker = self.broker.open_peer(opening);
        self.broker.note_source(&speaker, source_of(connection.address.ip()));
        connection.speaker = Some(speaker);
        connection.phase = Phase::AwaitingConnect;
        self.set_deadline(slot, self.now.ms() + u64::from(self.limits.connect_ms_max));
        if self.connections[slot].flags.surplus {
            self.refuse_surplus(slot);
        }
    }

    /// Refuses a connection whose listener does not serve its protocol.
    #[inline(never)] // once for each connection
    fn refuse_unserved(&mut self, slot: u32, dialect: Dialect, what: &'static str) {
        let why = why_unserved(&self.connections[slot], what);
        self.open(slot, dialect);
        if self.connections[slot].phase == Phase::AwaitingConnect {
            self.counters.protocol_errors += 1;
            let fault = Fault::closing(Code::ProtocolNotServed, Retry::Never, why);
            self.refuse(slot, &fault);
        }
    }

    /// Refuses a connection beyond `connections_max`.
    pub(super) fn refuse_surplus(&mut self, slot: u32) {
        let max = self.limits.connections_max;
        let exceeded = Exceeded { limit: SURPLUS, max: max.into() };
        let description = format!("all {max} connections that {SURPLUS} allows are in use");
        let fault = Fault { description: description.into(), ..Fault::exceeded(exceeded).later() };
        self.refuse(slot, &fault);
    }

    /// Notes a login. From now on only pings and heart-beats have deadlines.
    #[inline(never)] // once for each connection
    pub(super) fn note_login(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        connection.phase = Phase::Open;
        self.strangers.remove(slot);
        self.check_liveness(slot);
    }

    #[inline(never)] // once for each connection
    fn answer_request(&mut self, slot: u32, request: &PlainRequest) {
        self.broker.meter.spend(work::HTTP);
        let connection = &mut self.connections[slot];
        let protocols = connection.policy.protocols;
        if !protocols.http && !protocols.ws {
            let why = if lacks_tls(connection) { ONLY_TLS } else { NO_HTTP };
            connection.transport.answer(&http::refusal(request, why));
            return self.handle_fault(slot, TransportFault::BadRequest(why));
        }
        let served = http::Served { http: protocols.http, sample: self.serves_sample };
        let response = http::answer(request, served);
        connection.transport.answer(&response);
        self.begin_close(slot, CloseReason::Answered);
    }

    /// Closes a connection because of a fault, with an ERROR in its dialect, if that is known.
    #[inline(never)] // once for each connection
    fn handle_fault(&mut self, slot: u32, fault: TransportFault) {
        let fault = match fault {
            TransportFault::TooLarge(exceeded) => Fault::exceeded(exceeded),
            TransportFault::EmptyFrame => {
                Fault::closing(Code::MalformedFrame, Retry::Never, fault.to_string())
            }
            TransportFault::BadRequest(why)
            | TransportFault::WebSocket(_, why)
            | TransportFault::Tls(why) => {
                self.counters.protocol_errors += 1;
                return self.begin_close(slot, CloseReason::Transport(why));
            }
        };
        self.refuse(slot, &fault);
    }

    /// Handles the client's end of stream.
    #[inline(never)] // once for each connection
    pub(super) fn handle_end(&mut self, slot: u32) {
        let connection = &mut self.connections[slot];
        match connection.phase {
            Phase::AwaitingProtocol | Phase::AwaitingConnect | Phase::Open => {
                // Requests before the end are still answered.
                self.begin_close(slot, CloseReason::EndOfStream);
                self.wake_flush(slot);
            }
            Phase::Flushing(_) | Phase::Closed(_) => {}
            Phase::AwaitingClose(reason) | Phase::Lingering(reason) => {
                self.close_now(slot, reason);
            }
        }
    }
}

const OPENED: &str = "the transport announces the dialect before data";

/// Why a connection's listener does not serve its protocol.
fn why_unserved<S>(connection: &Connection<S>, what: &'static str) -> String {
    match lacks_tls(connection) {
        true => ONLY_TLS.to_owned(),
        false => format!("this listener does not serve {what}"),
    }
}

/// Whether a connection is plain although its listener requires TLS.
fn lacks_tls<S>(connection: &Connection<S>) -> bool {
    connection.tls.is_none() && connection.policy.tls == TlsMode::Required
}

const ONLY_TLS: &str = "only TLS is served on this port";

/// The answer to a request on a listener that serves neither plain HTTP nor WebSocket.
const NO_HTTP: &str = "this listener does not serve HTTP and WebSocket";

fn frame_bound(limits: &Limits, phase: Phase) -> FrameBound {
    match phase {
        Phase::Open => FrameBound {
            bytes_max: limits.frame_bytes_max(),
            limit: "body_bytes_max",
            limit_max: limits.body_bytes_max,
        },
        _ => FrameBound {
            bytes_max: limits.login_frame_bytes_max,
            limit: "login_frame_bytes_max",
            limit_max: limits.login_frame_bytes_max,
        },
    }
}
