//! Writing queued frames: a single run from its lane, several runs copied side by side, and on TLS packed
//! into records.

use std::io::{self, ErrorKind, IoSlice};

use smallvec::SmallVec;

use super::connection::{Connection, Socket};
use crate::broker::peer::Peer;
use crate::outbound::{FrameRun, FrameSlice, Framing, OutboundArena, OutboundQueue, Written};
use crate::transport::tls::{RECORD_BYTES_MAX, TlsLayer};

/// Why a flush ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlushProgress {
    /// Everything is written.
    Drained,
    /// The kernel takes no more for now.
    Blocked,
    /// The connection's share of the turn is used up.
    Spent,
}

/// What all flushes share, and the deliveries that they completed.
#[derive(Debug)]
pub(super) struct FlushContext {
    /// Where pieces are copied side by side.
    staging: FrameRun,
    /// Deliveries of which the kernel took the last byte: arrival time and count.
    pub(super) delivered: Vec<(u64, u32)>,
}

impl FlushContext {
    pub(super) fn new() -> Self {
        Self { staging: FrameRun::default(), delivered: Vec::new() }
    }
}

/// Writes control bytes and queued frames of one connection, and of what it has queued about `bytes_max` bytes. Frames
/// of this turn that are not written, or that the kernel does not take, are moved to the queue's backlog.
pub(super) fn flush<S: Socket>(
    connection: &mut Connection<S>,
    outbox: Option<(&mut OutboundArena, &mut Peer)>,
    context: &mut FlushContext,
    bytes_max: usize,
) -> io::Result<FlushProgress> {
    let Some((arena, peer)) = outbox else {
        return flush_control(connection);
    };
    let mut flush =
        Flush { connection, arena, queue: &mut peer.queue, framing: peer.framing, context };
    let progress = flush.run(bytes_max);
    if flush.queue.has_runs() {
        flush.arena.keep(flush.queue, flush.framing, 0);
    }
    progress
}

/// Moves this turn's frames to the backlog, for a connection that is not written to.
pub(super) fn keep(arena: &mut OutboundArena, peer: &mut Peer) {
    if peer.queue.has_runs() {
        arena.keep(&mut peer.queue, peer.framing, 0);
    }
}

/// One connection's flush.
struct Flush<'f, S> {
    connection: &'f mut Connection<S>,
    arena: &'f mut OutboundArena,
    queue: &'f mut OutboundQueue,
    framing: Framing,
    context: &'f mut FlushContext,
}

impl<S: Socket> Flush<'_, S> {
    fn run(&mut self, bytes_max: usize) -> io::Result<FlushProgress> {
        let mut left = bytes_max;
        loop {
            if self.connection.tls.is_some() {
                if flush_tls(self.connection)? == FlushProgress::Blocked {
                    return Ok(FlushProgress::Blocked);
                }
                self.note_tls_drained();
            }
            let has_control = !self.connection.transport.control().is_empty();
            if !has_control && self.queue.is_empty() {
                return Ok(FlushProgress::Drained);
            }
            if left == 0 {
                return Ok(FlushProgress::Spent);
            }
            let step = if has_control && self.arena.partial_bytes(self.queue) == 0 {
                write_control(self.connection)?
            } else if self.queue.has_backlog() {
                self.write_backlog(has_control, left)?
            } else {
                self.write_turn()?
            };
            match step {
                Step::Wrote(bytes) => left = left.saturating_sub(bytes),
                Step::Blocked => return Ok(FlushProgress::Blocked),
            }
        }
    }

    /// Writes frames of this turn, a very long run in part: the rest is kept. To keep it costs as much as to write it.
    #[inline]
    fn write_turn(&mut self) -> io::Result<Step> {
        if let Some(slice) = self.arena.only_run(self.queue) {
            let wanted = slice.bytes.len();
            let slice = if wanted > CALL_BYTES_MAX { slice.within(CALL_BYTES_MAX) } else { slice };
            let written = write_frames(self.connection, slice, self.framing)?;
            if written == wanted {
                let all = self.arena.note_all_written(self.queue);
                self.note(all);
                return Ok(Step::Wrote(written));
            }
            let begun = self.arena.keep(self.queue, self.framing, written);
            self.note(begun);
            return Ok(Step::of(self.connection, written));
        }
        let staging = &mut self.context.staging;
        staging.clear();
        if !self.arena.stage(self.queue, self.framing, STAGED_BYTES_MAX, staging) {
            self.arena.keep(self.queue, self.framing, 0);
            return self.write_backlog(false, STAGED_BYTES_MAX);
        }
        let wanted = staging.bytes.len();
        let written = write_frames(self.connection, staging.as_slice(), self.framing)?;
        if written == wanted {
            let all = self.arena.note_all_written(self.queue);
            self.note(all);
            return Ok(Step::Wrote(written));
        }
        let begun = self.arena.keep_staged(self.queue, &self.context.staging, written);
        self.note(begun);
        Ok(Step::of(self.connection, written))
    }

    /// Writes frames of earlier turns: with `only_partial` the rest of a partly written frame, behind
    /// which control bytes wait, otherwise as much as one call takes, about `bytes_max` bytes at most.
    fn write_backlog(&mut self, only_partial: bool, bytes_max: usize) -> io::Result<Step> {
        let written = if only_partial {
            let partial_bytes = self.arena.partial_bytes(self.queue);
            let first = self.arena.backlog(self.queue).next().unwrap_or_default();
            let rest = &first[..partial_bytes.min(TLS_WINDOW_BYTES)];
            write_frames(self.connection, FrameSlice::unbroken(rest), self.framing)?
        } else if self.connection.tls.is_some() {
            let staging = &mut self.context.staging;
            staging.clear();
            self.arena.stage_backlog(self.queue, TLS_WINDOW_BYTES, staging);
            write_frames(self.connection, staging.as_slice(), self.framing)?
        } else {
            let pieces = self.arena.backlog(self.queue);
            write_gathered(self.connection, pieces, bytes_max, &mut self.context.staging.bytes)?
        };
        let (connection, context) = (&mut *self.connection, &mut *self.context);
        let mut chunks: SmallVec<[Written; 4]> = SmallVec::new();
        self.arena.advance_backlog(self.queue, written, |chunk| chunks.push(chunk));
        chunks.into_iter().for_each(|chunk| note(connection, &mut context.delivered, chunk));
        Ok(Step::of(self.connection, written))
    }

    #[inline]
    fn note(&mut self, written: Written) {
        note(self.connection, &mut self.context.delivered, written);
    }

    /// Notes that the kernel took all records, and thus the deliveries in them.
    fn note_tls_drained(&mut self) {
        for (arrived_ns, count) in std::mem::take(&mut self.connection.staged) {
            note_delivered(&mut self.context.delivered, arrived_ns, count);
        }
    }
}

/// The outcome of one write.
enum Step {
    /// This many bytes were taken.
    Wrote(usize),
    /// The kernel takes no more.
    Blocked,
}

impl Step {
    /// The outcome of a write that may have been cut short. TLS takes everything; whether the kernel
    /// does shows when its records are written.
    fn of<S>(connection: &Connection<S>, written: usize) -> Self {
        if written == 0 && connection.tls.is_none() { Self::Blocked } else { Self::Wrote(written) }
    }
}

/// Writes TLS records and control bytes of a connection without a queue.
fn flush_control<S: Socket>(connection: &mut Connection<S>) -> io::Result<FlushProgress> {
    loop {
        if flush_tls(connection)? == FlushProgress::Blocked {
            return Ok(FlushProgress::Blocked);
        }
        if connection.transport.control().is_empty() {
            return Ok(FlushProgress::Drained);
        }
        if let Step::Blocked = write_control(connection)? {
            return Ok(FlushProgress::Blocked);
        }
    }
}

/// Writes control bytes, to be called between whole frames.
fn write_control<S: Socket>(connection: &mut Connection<S>) -> io::Result<Step> {
    let control = connection.transport.control();
    let written = match &mut connection.tls {
        Some(tls) => {
            tls.encrypt(control);
            control.len()
        }
        None => {
            let written = taken(connection.socket.write(control))?;
            connection.totals.bytes_out += written as u64;
            written
        }
    };
    connection.transport.note_control_sent(written);
    Ok(Step::of(connection, written))
}

/// Writes frames that stand side by side; on TLS encrypts one window of them.
#[inline]
fn write_frames<S: Socket>(
    connection: &mut Connection<S>,
    frames: FrameSlice<'_>,
    framing: Framing,
) -> io::Result<usize> {
    if let Some(tls) = &mut connection.tls {
        return Ok(encrypt(tls, frames, framing));
    }
    let written = taken(connection.socket.write(frames.bytes))?;
    connection.totals.bytes_out += written as u64;
    Ok(written)
}

/// Writes as many pieces as one call takes, and of a large one `bytes_max` bytes at most: small ones copied side by side
/// into `staging`, large ones from where they are.
fn write_gathered<'a, S: Socket>(
    connection: &mut Connection<S>,
    pieces: impl Iterator<Item = &'a [u8]>,
    bytes_max: usize,
    staging: &mut Vec<u8>,
) -> io::Result<usize> {
    let mut parts: SmallVec<[Part<'a>; PARTS_MAX]> = SmallVec::new();
    staging.clear();
    let mut staged_from = 0;
    let mut total = 0;
    for piece in pieces {
        let whole = piece.len();
        let piece = &piece[..whole.min(CALL_BYTES_MAX).min(bytes_max)];
        if piece.len() <= COPIED_BYTES_MAX {
            staging.extend_from_slice(piece);
        } else {
            parts.push(Part::Staged(staged_from, staging.len()));
            parts.push(Part::Kept(piece));
            staged_from = staging.len();
        }
        total += piece.len();
        if piece.len() < whole || total >= STAGED_BYTES_MAX || parts.len() + 3 > PARTS_MAX {
            break;
        }
    }
    let result = if parts.is_empty() {
        connection.socket.write(staging)
    } else {
        parts.push(Part::Staged(staged_from, staging.len()));
        let slices: SmallVec<[IoSlice<'_>; PARTS_MAX]> = parts
            .iter()
            .map(|part| match part {
                Part::Staged(from, to) => IoSlice::new(&staging[*from..*to]),
                Part::Kept(piece) => IoSlice::new(piece),
            })
            .collect();
        connection.socket.write_vectored(&slices)
    };
    let written = taken(result)?;
    connection.totals.bytes_out += written as u64;
    Ok(written)
}

/// A part of a gathered write.
enum Part<'a> {
    Staged(usize, usize),
    Kept(&'a [u8]),
}

/// Parts of one gathered write.
const PARTS_MAX: usize = 32;

/// Size up to which a piece is copied, which costs less than a part of its own.
const COPIED_BYTES_MAX: usize = 2048;

/// Bytes that a call takes of one run or piece at most: what a kernel takes in one call may take long.
const CALL_BYTES_MAX: usize = 256 * 1024;

/// Bytes after which a call gets no further piece.
const STAGED_BYTES_MAX: usize = 128 * 1024;

/// Plain bytes after which no further frame is encrypted before the records are written, so that
/// unsent bytes wait in the queue, whose limits count them.
const TLS_WINDOW_BYTES: usize = 64 * 1024;

/// Encrypts frames, as many in a record as fit. With a framing that keeps records whole, a frame does not
/// begin in a record that it does not fit into. Returns the number of bytes: one window, up to the end of
/// a frame.
fn encrypt(tls: &mut TlsLayer, frames: FrameSlice<'_>, framing: Framing) -> usize {
    let whole = frames.bytes.len();
    let keeps_whole = framing.keeps_records_whole();
    let mut from = 0;
    let mut end = 0;
    for (next, _) in frames.ends() {
        if keeps_whole && end > from && next - from > RECORD_BYTES_MAX {
            tls.encrypt(&frames.bytes[from..end]);
            from = end;
        }
        end = next;
        if end >= TLS_WINDOW_BYTES {
            tls.encrypt(&frames.bytes[from..end]);
            return end;
        }
    }
    // The beginning of a frame that is larger than a window.
    if keeps_whole && end > from && whole > end && whole - from > RECORD_BYTES_MAX {
        tls.encrypt(&frames.bytes[from..end]);
        from = end;
    }
    tls.encrypt(&frames.bytes[from..]);
    whole
}

/// Writes the records that TLS holds.
#[inline]
fn flush_tls<S: Socket>(connection: &mut Connection<S>) -> io::Result<FlushProgress> {
    let Some(tls) = &mut connection.tls else { return Ok(FlushProgress::Drained) };
    while tls.wants_write() {
        match taken(tls.write_to(&mut connection.socket))? {
            0 => return Ok(FlushProgress::Blocked),
            written => connection.totals.bytes_out += written as u64,
        }
    }
    Ok(FlushProgress::Drained)
}

/// The number of bytes that the kernel took; zero if the call would block or was interrupted.
#[inline]
fn taken(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(0)
        }
        result => result,
    }
}

/// Counts written frames. Deliveries on TLS count as delivered when the kernel has taken all records.
#[inline]
fn note<S>(connection: &mut Connection<S>, delivered: &mut Vec<(u64, u32)>, written: Written) {
    connection.totals.frames_out += written.frames;
    let into = if connection.tls.is_some() { &mut connection.staged } else { delivered };
    note_delivered(into, written.arrived_ns, written.deliveries);
}

#[inline]
fn note_delivered(delivered: &mut Vec<(u64, u32)>, arrived_ns: u64, count: u32) {
    if count == 0 {
        return;
    }
    match delivered.last_mut() {
        Some((last, total)) if *last == arrived_ns => *total += count,
        _ => delivered.push((arrived_ns, count)),
    }
}
