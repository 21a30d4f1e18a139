//! A scripted socket: the engine's end of a connection, in memory.
//!
//! `inbound` holds bytes from the other end, and `outbound` those that the engine has written, as far as
//! the other end's window has room. It does not know what the bytes mean.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::rc::Rc;

use com_broker::internal::engine::Socket;

use crate::faults::SocketFaults;

/// The engine's end of a connection.
#[derive(Debug)]
pub(crate) struct ScriptedSocket {
    inbound: Vec<u8>,
    /// Whether the other end has ended its stream.
    inbound_ended: bool,
    is_reset: bool,
    /// Bytes that the engine has written and the other end has not read, with the tick of each write.
    outbound: VecDeque<(u64, Vec<u8>)>,
    /// Tick at which the engine ended its stream.
    ended_at: Option<u64>,
    /// Bytes that the window has room for.
    window: usize,
    /// Whether a write of the engine would have blocked, so that it waits for a writable event.
    is_blocking: bool,
    faults: SocketFaults,
    /// Actions of the engine that matter to the model, with their ticks.
    activities: Vec<(u64, Activity)>,
    /// Counts actions on all sockets, to order them.
    ticks: Rc<Cell<u64>>,
}

/// An action of the engine on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    /// It read this many bytes.
    Read(u64),
    /// It read the end of the stream.
    End,
    /// It found the connection broken.
    Broken,
}

impl ScriptedSocket {
    /// A new socket; `ticks` counts the writes to all sockets.
    pub(crate) fn new(ticks: Rc<Cell<u64>>, faults: SocketFaults) -> Self {
        Self {
            inbound: Vec::new(),
            inbound_ended: false,
            is_reset: false,
            outbound: VecDeque::new(),
            ended_at: None,
            window: usize::MAX,
            is_blocking: false,
            faults,
            activities: Vec::new(),
            ticks,
        }
    }

    /// The other end writes.
    pub(crate) fn push_inbound(&mut self, bytes: &[u8]) {
        self.inbound.extend_from_slice(bytes);
    }

    /// Bytes that the engine has not read.
    pub(crate) fn inbound_len(&self) -> usize {
        self.inbound.len()
    }

    /// The other end ends its stream. Returns whether it had not done so.
    pub(crate) fn end_inbound(&mut self) -> bool {
        !std::mem::replace(&mut self.inbound_ended, true)
    }

    /// The connection breaks; unread bytes are lost.
    pub(crate) fn reset(&mut self) {
        self.is_reset = true;
        self.inbound.clear();
    }

    /// The other end reads: takes out the next write and its tick.
    pub(crate) fn take_outbound(&mut self) -> Option<(u64, Vec<u8>)> {
        self.outbound.pop_front()
    }

    /// Sets the other end's window.
    pub(crate) fn set_window(&mut self, bytes: usize) {
        self.window = bytes;
    }

    /// Ends all faults.
    pub(crate) fn calm_down(&mut self) {
        self.faults = SocketFaults::none();
    }

    /// Actions of the engine with their ticks.
    pub(crate) fn activities(&self) -> impl Iterator<Item = (u64, Activity)> {
        self.activities.iter().copied()
    }

    /// Drops recorded actions.
    pub(crate) fn forget_activities(&mut self) {
        self.activities.clear();
    }

    /// Whether a writable event is due.
    pub(crate) fn take_writable(&mut self) -> bool {
        if self.window == 0 {
            return false;
        }
        std::mem::take(&mut self.is_blocking)
    }

    /// Whether the engine can read something.
    pub(crate) fn is_readable(&self) -> bool {
        !self.inbound.is_empty() || self.inbound_ended || self.is_reset
    }

    /// Tick at which the engine ended its stream, if it has.
    pub(crate) fn ended_at(&self) -> Option<u64> {
        self.ended_at
    }

    /// Whether dropping the socket now would reset the connection, as the kernel does if bytes are
    /// unread.
    pub(crate) fn resets_when_dropped(&self) -> bool {
        !self.inbound.is_empty() && !self.is_reset
    }

    fn tick(&self) -> u64 {
        self.ticks.set(self.ticks.get() + 1);
        self.ticks.get()
    }

    fn note(&mut self, activity: Activity) {
        self.activities.push((self.tick(), activity));
    }

    /// The number of bytes that a write of `wanted` bytes takes.
    fn admit(&mut self, wanted: usize) -> io::Result<usize> {
        if self.is_reset {
            self.note(Activity::Broken);
            return Err(ErrorKind::BrokenPipe.into());
        }
        let count = self.faults.cut_write(wanted.min(self.window));
        if count == 0 && wanted > 0 {
            self.is_blocking = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        if self.window != usize::MAX {
            self.window -= count;
        }
        Ok(count)
    }
}

impl Read for ScriptedSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_reset {
            self.note(Activity::Broken);
            return Err(ErrorKind::ConnectionReset.into());
        }
        if self.inbound.is_empty() {
            if !self.inbound_ended {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.note(Activity::End);
            return Ok(0);
        }
        if self.faults.interrupts() {
            return Err(ErrorKind::Interrupted.into());
        }
        let wanted = self.faults.cut_read(buffer.len().min(self.inbound.len()));
        buffer[..wanted].copy_from_slice(&self.inbound[..wanted]);
        self.inbound.drain(..wanted);
        self.note(Activity::Read(wanted as u64));
        Ok(wanted)
    }
}

impl Write for ScriptedSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = self.admit(slices.iter().map(|slice| slice.len()).sum())?;
        let mut bytes = Vec::with_capacity(count);
        for slice in slices {
            let left = count - bytes.len();
            bytes.extend_from_slice(&slice[..slice.len().min(left)]);
        }
        self.outbound.push_back((self.tick(), bytes));
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket for ScriptedSocket {
    fn shutdown_write(&mut self) -> io::Result<()> {
        if self.is_reset {
            return Err(ErrorKind::NotConnected.into());
        }
        self.ended_at = Some(self.tick());
        Ok(())
    }
}
