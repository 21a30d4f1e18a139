//! Writing what is queued: gathered on plain sockets, whole frames packed into records on TLS.

use std::io::{self, IoSlice, Write};

use smallvec::SmallVec;

use super::connection::{Connection, Socket};
use crate::broker::peer::Peer;
use crate::outbound::{Frames, OutboundArena, OutboundQueue};
use crate::transport::Framing;
use crate::transport::tls::{RECORD_BYTES_MAX, TlsLayer};

/// How far a flush came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlushProgress {
    /// Nothing is left.
    Drained,
    /// The kernel takes no more for now.
    Blocked,
    /// The connection's share of the turn is used up.
    Spent,
}

/// What a flush may use, and what it found out.
#[derive(Debug)]
pub(super) struct FlushContext {
    /// Where small pieces are put side by side.
    staging: Vec<u8>,
    /// Deliveries of which the kernel took the last octet: when they arrived, and how many.
    pub(super) delivered: Vec<(u64, u32)>,
    /// Deliveries that TLS took in this write.
    staged: Vec<(u64, u32)>,
    /// Octets that one connection may be given in one go.
    pub(super) bytes_max: usize,
}

impl FlushContext {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { staging: Vec::new(), delivered: Vec::new(), staged: Vec::new(), bytes_max }
    }
}

/// Writes control octets and queued frames of one connection.
pub(super) fn flush<S: Socket>(
    connection: &mut Connection<S>,
    outbox: Option<(&mut OutboundArena, &mut Peer)>,
    context: &mut FlushContext,
) -> io::Result<FlushProgress> {
    let mut nothing = (OutboundArena::default(), OutboundQueue::default());
    let (arena, queue) = match outbox {
        Some((arena, peer)) => (arena, &mut peer.queue),
        None => (&mut nothing.0, &mut nothing.1),
    };
    let mut spent = 0;
    loop {
        let idle = connection.transport.control().is_empty() && queue.is_empty();
        if idle && connection.tls.as_ref().is_none_or(|tls| !tls.wants_write()) {
            return Ok(FlushProgress::Drained);
        }
        if spent >= context.bytes_max {
            return Ok(FlushProgress::Spent);
        }
        match write_some(connection, arena, queue, context)? {
            0 => return Ok(FlushProgress::Blocked),
            written => spent += written,
        }
    }
}

/// Writes once. Zero octets mean that the kernel takes no more.
fn write_some<S: Socket>(
    connection: &mut Connection<S>,
    arena: &mut OutboundArena,
    queue: &mut OutboundQueue,
    context: &mut FlushContext,
) -> io::Result<usize> {
    let written = if connection.tls.is_some() {
        write_tls(connection, arena, queue, context)?
    } else {
        write_plain(connection, arena, queue, context)?
    };
    connection.totals.bytes_out += written as u64;
    Ok(written)
}

fn write_plain<S: Socket>(
    connection: &mut Connection<S>,
    arena: &mut OutboundArena,
    queue: &mut OutboundQueue,
    context: &mut FlushContext,
) -> io::Result<usize> {
    let framing = connection.transport.framing();
    let frame_begun = queue.sent() > 0;
    let frames = arena.frames(queue);
    let result = {
        // Control octets go between whole frames: before the first, unless that is half out.
        let before = if frame_begun { &[][..] } else { connection.transport.control() };
        let only_first = frame_begun && !connection.transport.control().is_empty();
        let frames = frames.take(if only_first { 1 } else { usize::MAX });
        write_gathered(
            &mut connection.socket,
            framing,
            before,
            frames,
            queue.sent(),
            &mut context.staging,
        )
    };
    let mut written = match result {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
        Err(error) => return Err(error),
    };
    let total = written;
    if !frame_begun {
        let control = written.min(connection.transport.control().len());
        if control > 0 {
            connection.transport.note_control_sent(control);
            written -= control;
        }
    }
    let frames_out = &mut connection.totals.frames_out;
    consume(arena, queue, framing, written, |arrived_ns| {
        *frames_out += 1;
        note_delivered(&mut context.delivered, arrived_ns, 1);
    });
    Ok(total)
}

/// Writes as many frames as one call takes: small pieces side by side in `staging`, large shared
/// tails from where they are.
fn write_gathered<'a>(
    socket: &mut impl Write,
    framing: Framing,
    before: &'a [u8],
    frames: impl Iterator<Item = &'a crate::outbound::OutboundFrame>,
    sent: u32,
    staging: &mut Vec<u8>,
) -> io::Result<usize> {
    let mut pieces: SmallVec<[Piece<'a>; PIECES_MAX]> = SmallVec::new();
    staging.clear();
    staging.extend_from_slice(before);
    let mut staged_from = 0;
    let mut total = 0;
    for frame in frames {
        let length = frame.len();
        framing.write_header(length, frame.mark.text, staging);
        staging.extend_from_slice(&frame.head);
        let tail = frame.tail_bytes();
        if tail.len() <= COPIED_BYTES_MAX {
            staging.extend_from_slice(tail);
        } else {
            pieces.push(Piece::Staged(staged_from, staging.len()));
            pieces.push(Piece::Shared(tail));
            staged_from = staging.len();
        }
        total += length;
        if total >= WRITE_BYTES_MAX || pieces.len() + 2 > PIECES_MAX {
            break;
        }
    }
    let sent = sent as usize;
    if pieces.is_empty() {
        return socket.write(&staging[sent..]);
    }
    pieces.push(Piece::Staged(staged_from, staging.len()));
    let mut slices: SmallVec<[IoSlice<'_>; PIECES_MAX]> = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Staged(from, to) => IoSlice::new(&staging[*from..*to]),
            Piece::Shared(tail) => IoSlice::new(tail),
        })
        .collect();
    let mut slices = &mut slices[..];
    IoSlice::advance_slices(&mut slices, sent);
    socket.write_vectored(slices)
}

/// A run of octets to be written.
enum Piece<'a> {
    Staged(usize, usize),
    Shared(&'a [u8]),
}

/// Pieces that one call writes.
const PIECES_MAX: usize = 32;

/// Tails up to this size are copied: that costs less than a piece of their own.
const COPIED_BYTES_MAX: usize = 2048;

/// Octets that one call is offered, but for the last frame's.
const WRITE_BYTES_MAX: usize = 128 * 1024;

/// Removes what was written from the queue.
fn consume(
    arena: &mut OutboundArena,
    queue: &mut OutboundQueue,
    framing: Framing,
    mut written: usize,
    mut note_frame: impl FnMut(u64),
) {
    while written > 0 {
        let Some(length) = arena.frames(queue).next().map(|frame| frame.len()) else { return };
        let left = framing.header_len(length) + length - queue.sent() as usize;
        if written < left {
            queue.note_sent(written as u32);
            return;
        }
        written -= left;
        if let Some(mark) = arena.pop(queue) {
            note_frame(mark.arrived_ns);
        }
    }
}

/// Encrypts whole frames, then writes the records. TLS takes a window at most, so that the queue
/// stays the bound.
fn write_tls<S: Socket>(
    connection: &mut Connection<S>,
    arena: &mut OutboundArena,
    queue: &mut OutboundQueue,
    context: &mut FlushContext,
) -> io::Result<usize> {
    let framing = connection.transport.framing();
    let Some(tls) = &mut connection.tls else { return Ok(0) };
    if !tls.wants_write() && !tls.is_handshaking() {
        let control = connection.transport.control();
        context.staging.clear();
        context.staging.extend_from_slice(control);
        let control = control.len();
        if control > 0 {
            connection.transport.note_control_sent(control);
        }
        let staged = encrypt_frames(tls, arena.frames(queue), framing, &mut context.staging);
        for _ in 0..staged {
            if let Some(mark) = arena.pop(queue) {
                connection.totals.frames_out += 1;
                note_delivered(&mut context.staged, mark.arrived_ns, 1);
            }
        }
    }
    let mut written = 0;
    while tls.wants_write() {
        match tls.write_to(&mut connection.socket) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if tls.wants_write() {
        connection.staged.append(&mut context.staged);
    } else {
        let staged = std::mem::take(&mut connection.staged);
        for (arrived_ns, count) in staged.into_iter().chain(context.staged.drain(..)) {
            note_delivered(&mut context.delivered, arrived_ns, count);
        }
    }
    Ok(written)
}

/// Packs frames into records: as many as fit one, and none begins in a record that it does not fit
/// into. Says how many frames that were.
fn encrypt_frames(
    tls: &mut TlsLayer,
    frames: Frames<'_>,
    framing: Framing,
    record: &mut Vec<u8>,
) -> u32 {
    let mut count = 0;
    let mut total = record.len();
    for frame in frames {
        let length = framing.header_len(frame.len()) + frame.len();
        if !record.is_empty() && record.len() + length > RECORD_BYTES_MAX {
            tls.encrypt(record);
            record.clear();
        }
        framing.write_header(frame.len(), frame.mark.text, record);
        record.extend_from_slice(&frame.head);
        record.extend_from_slice(frame.tail_bytes());
        count += 1;
        total += length;
        if total >= TLS_WINDOW_BYTES {
            break;
        }
    }
    if !record.is_empty() {
        tls.encrypt(record);
        record.clear();
    }
    count
}

/// Plain octets that are encrypted before records are written.
const TLS_WINDOW_BYTES: usize = 64 * 1024;

#[inline]
fn note_delivered(delivered: &mut Vec<(u64, u32)>, arrived_ns: u64, count: u32) {
    if arrived_ns == 0 {
        return;
    }
    match delivered.last_mut() {
        Some((last, total)) if *last == arrived_ns => *total += count,
        _ => delivered.push((arrived_ns, count)),
    }
}
