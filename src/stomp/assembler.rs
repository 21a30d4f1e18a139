//! Frames of standard STOMP, assembled from bytes that are cut anywhere.
//!
//! A frame that is whole in the bytes that arrived is lent from there. If it is torn, the bytes are
//! kept until they are used up:
//!
//! ```text
//! pending  │ used already │ frame │ the next one, torn │
//!          0             start                  pending.len()
//! ```
//!
//! A torn frame is scanned again only when what it needs has arrived, so that the work does not grow
//! with the square of the frame's length if a client sends single bytes.

use memchr::{memchr, memchr2, memchr2_iter};

use super::frame::{Frame, LONGEST_COMMAND, Malformed, Need, Scan, ScanBounds, ScanFault};
use crate::buffer::{self, SHARED_BYTES_MIN, Shared};

/// The unused bytes of one connection's frames.
#[derive(Debug, Default)]
pub struct Assembler {
    pending: Vec<u8>,
    /// Where the next frame begins; `start ≤ examined ≤ pending.len()`.
    start: usize,
    /// End of the bytes that were searched for what the frame needs.
    examined: usize,
    /// What the frame needs, if it is torn.
    need: Option<Need>,
    /// The buffer of the large frame that was lent last.
    lent: Option<Shared>,
}

impl Assembler {
    /// Scans the next whole frame into `frame`, which has to be new. Returns whether there is one; if
    /// not, `wire` is used up.
    ///
    /// # Errors
    /// The frame is malformed, even if it is not whole.
    #[inline]
    pub fn next_frame<'a, 'w: 'a>(
        &'a mut self,
        wire: &mut &'w [u8],
        bounds: &ScanBounds,
        frame: &mut Frame<'a>,
    ) -> Result<bool, Box<Malformed>> {
        if self.start == self.pending.len() {
            self.release();
            skip_line_ends(wire)?;
            if wire.len() > 1 {
                let scan = match frame.scan(wire, bounds) {
                    Ok(scan) => scan,
                    Err(fault) => frame.scan_slow(wire, bounds, fault)?,
                };
                if let Scan::Whole(used) = scan {
                    *wire = &wire[used..];
                    return Ok(true);
                }
            }
        }
        self.next_frame_slow(wire, bounds, frame)
    }

    /// The next frame while bytes are pending or if the frame is torn.
    #[cold] // few frames are torn
    fn next_frame_slow<'a>(
        &'a mut self,
        wire: &mut &[u8],
        bounds: &ScanBounds,
        frame: &mut Frame<'a>,
    ) -> Result<bool, Box<Malformed>> {
        self.lent = None;
        let expected = self.start + self.frame_bytes_expected(bounds);
        buffer::append(&mut self.pending, std::mem::take(wire), expected);
        if self.need.is_none() {
            let mut rest = &self.pending[self.start..];
            skip_line_ends(&mut rest)?;
            self.start = self.pending.len() - rest.len();
            self.examined = self.start;
        }
        if self.start == self.pending.len() || !self.has_what_it_needs(bounds) {
            return Ok(false);
        }
        *frame = Frame::default();
        if self.pending.len() - self.start >= SHARED_BYTES_MIN
            && let Some(from) = self.share(bounds)?
        {
            let shared = self.lent.get_or_insert_default();
            let bytes = &shared[from..];
            let scan = frame.scan(bytes, bounds);
            scan.or_else(|fault| frame.scan_slow(bytes, bounds, fault))?;
            frame.shared = Some(shared);
            return Ok(true);
        }
        let bytes = &self.pending[self.start..];
        let scan = frame.scan(bytes, bounds);
        match scan.or_else(|fault| frame.scan_slow(bytes, bounds, fault))? {
            Scan::Whole(used) => {
                self.start += used;
                self.examined = self.start;
                self.need = None;
                Ok(true)
            }
            Scan::Partial(need) => {
                self.examined = self.pending.len();
                self.need = Some(need);
                Ok(false)
            }
        }
    }

    /// Whether anything is left in which [`Self::next_frame`] may find a frame. To ask costs less than to
    /// look, and most frames arrive alone.
    #[inline]
    pub fn has_more(&self, wire: &[u8]) -> bool {
        !wire.is_empty() || self.start < self.pending.len()
    }

    /// Moves the next frame to a buffer of its own, if it is whole and its body is large. Returns where it begins there.
    fn share(&mut self, bounds: &ScanBounds) -> Result<Option<usize>, Box<Malformed>> {
        let bytes = &self.pending[self.start..];
        let mut frame = Frame::default();
        let scan = frame.scan(bytes, bounds);
        let scan = scan.or_else(|fault| frame.scan_slow(bytes, bounds, fault))?;
        let Scan::Whole(used) = scan else { return Ok(None) };
        let from = self.start;
        // What was used before it would be kept, too.
        if frame.body.len() < SHARED_BYTES_MIN || from > used / 8 {
            return Ok(None);
        }
        drop(frame);
        self.lent = Some(buffer::share(&mut self.pending, from + used, false));
        (self.start, self.examined, self.need) = (0, 0, None);
        Ok(Some(from))
    }

    /// Looks at the next frame, as [`Self::next_frame`] does, which still finds it afterwards. All of `wire` is kept.
    ///
    /// # Errors
    /// The frame is malformed.
    #[cold] // few frames are looked at before they are handled
    pub fn peek<'a>(
        &'a mut self,
        wire: &mut &[u8],
        bounds: &ScanBounds,
        frame: &mut Frame<'a>,
    ) -> Result<bool, Box<Malformed>> {
        buffer::append(&mut self.pending, std::mem::take(wire), 0);
        (self.examined, self.need) = (self.start, None);
        let mut bytes = &self.pending[self.start..];
        skip_line_ends(&mut bytes)?;
        if bytes.len() < 2 {
            return Ok(false);
        }
        let scan = frame.scan(bytes, bounds).or_else(|fault| frame.scan_slow(bytes, bounds, fault));
        Ok(matches!(scan?, Scan::Whole(_)))
    }

    /// Keeps bytes for later, which follow those that are kept already.
    #[cold] // few connections use up their share of a turn
    pub fn keep(&mut self, bytes: &[u8]) {
        buffer::append(&mut self.pending, bytes, 0);
    }

    /// Frees used bytes. To be called when all bytes of a read are used up or kept.
    #[inline]
    pub fn release(&mut self) {
        if self.pending.capacity() > 0 || self.lent.is_some() {
            self.release_held();
        }
    }

    #[inline(never)] // most frames come whole
    fn release_held(&mut self) {
        if self.start == self.pending.len() {
            *self = Self::default();
            return;
        }
        self.lent = None;
        if self.start > self.pending.len() / 2 {
            // What is moved is less than what was used since it was moved last.
            self.pending.drain(..self.start);
            self.examined -= self.start;
            self.start = 0;
        }
    }

    /// Memory that is held for unused bytes.
    pub fn held_bytes(&self) -> usize {
        self.pending.capacity() + self.lent.as_ref().map_or(0, |lent| lent.capacity())
    }

    /// Bytes that have arrived of a torn frame.
    pub fn unfinished_bytes(&self) -> usize {
        self.pending.len() - self.start
    }

    /// The size of a torn frame, or the most that it may have; 0 if that is not known yet.
    fn frame_bytes_expected(&self, bounds: &ScanBounds) -> usize {
        match self.need {
            Some(Need::Bytes(bytes)) => bytes,
            Some(Need::Nul) => bounds.header_bytes_max as usize + bounds.body_bytes_max as usize,
            None | Some(Need::Command | Need::Line) => 0,
        }
    }

    /// Whether another scan can find more: a whole frame, or an exceeded bound.
    fn has_what_it_needs(&mut self, bounds: &ScanBounds) -> bool {
        let frame_bytes = self.pending.len() - self.start;
        let new = &self.pending[self.examined..];
        let (found, most) = match self.need {
            // A carriage return by itself may be half of a line end between frames.
            None => (frame_bytes > 1, 1),
            Some(Need::Bytes(bytes)) => (frame_bytes >= bytes, usize::MAX),
            Some(Need::Command) => (memchr2(b'\n', 0, new).is_some(), LONGEST_COMMAND),
            // Before the header ends, neither it nor a fault in it is told.
            Some(Need::Line) => {
                let from = self.examined.saturating_sub(EMPTY_LINE_BYTES - 1).max(self.start);
                (ends_header(&self.pending[from..]), bounds.header_bytes_max as usize)
            }
            Some(Need::Nul) => (
                memchr(0, new).is_some(),
                bounds.header_bytes_max as usize + bounds.body_bytes_max as usize,
            ),
        };
        self.examined = self.pending.len();
        found || frame_bytes > most
    }
}

/// The longest end of a header: the end of its last line, and an empty one.
const EMPTY_LINE_BYTES: usize = b"\n\r\n".len();

/// Whether lines of a header are followed by its end: an empty line or a NUL.
fn ends_header(lines: &[u8]) -> bool {
    memchr2_iter(b'\n', 0, lines)
        .any(|at| matches!(&lines[at..], [0, ..] | [_, b'\n', ..] | [_, b'\r', b'\n', ..]))
}

/// STOMP 1.2, "Augmented BNF": line ends may stand between frames. They serve as heart-beats.
fn skip_line_ends(wire: &mut &[u8]) -> Result<(), ScanFault> {
    loop {
        match wire {
            [b'\n', rest @ ..] | [b'\r', b'\n', rest @ ..] => *wire = rest,
            [b'\r', _, ..] => return Err(ScanFault::StrayByte),
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::Limits;
    use crate::stomp::frame::Command;

    type Owned = (Command, Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>);

    fn read(runs: &[&[u8]], limits: &Limits) -> Result<Vec<Owned>, ScanFault> {
        let bounds = ScanBounds::new(limits, true);
        let mut assembler = Assembler::default();
        let mut frames = Vec::new();
        for run in runs {
            let mut wire = *run;
            loop {
                let mut frame = Frame::default();
                let is_whole = assembler.next_frame(&mut wire, &bounds, &mut frame);
                if !is_whole.map_err(|malformed| malformed.fault)? {
                    break;
                }
                let lines = frame.headers.lines();
                let lines = lines.map(|line| (line.name.to_vec(), line.value.to_vec())).collect();
                frames.push((frame.command, lines, frame.body.to_vec()));
            }
            assert!(wire.is_empty());
            assembler.release();
        }
        Ok(frames)
    }

    #[test]
    fn bounds_hold_for_a_client_that_sends_single_bytes() {
        let limits = Limits { header_bytes_max: 40, body_bytes_max: 10, ..Limits::default() };
        for bytes in [
            &b"SEND\nx:1234567890123456789012345678901234567890"[..],
            b"SEND\n\n123456789012345678901234567890123456789012345",
            b"SEND\ncontent-length:11\n\n",
        ] {
            let runs: Vec<_> = bytes.chunks(1).collect();
            assert!(matches!(read(&runs, &limits), Err(ScanFault::Exceeds(_))), "{bytes:?}");
        }
    }

    #[test]
    fn the_buffer_of_a_large_frame_can_be_shared() {
        let bounds = ScanBounds::new(&Limits::default(), true);
        for with_length in [true, false] {
            let body = vec![b'b'; 200_000];
            let head = if with_length { "SEND\ncontent-length:200000\n\n" } else { "SEND\n\n" };
            let bytes =
                [b"SEND\n\nfirst\0", head.as_bytes(), &body, b"\0\nSEND\n\nthird\0SEN"].concat();
            let mut assembler = Assembler::default();
            let (mut bodies, mut kept) = (Vec::new(), Vec::new());
            for mut wire in bytes.chunks(65_000) {
                loop {
                    let mut frame = Frame::default();
                    if !assembler.next_frame(&mut wire, &bounds, &mut frame).unwrap() {
                        break;
                    }
                    bodies.push(frame.body.to_vec());
                    if let Some(shared) = frame.shared {
                        assert!(buffer::Piece::of(frame.body, shared).is_some());
                        kept.push(Shared::clone(shared));
                    }
                }
                assembler.release();
            }
            assert_eq!(bodies, [b"first", &body[..], b"third"]);
            let [shared] = &kept[..] else { panic!("one frame is large") };
            assert_eq!(Shared::strong_count(shared), 1, "the assembler has let go of it");
            assert!(shared.capacity() < 200_100, "{}", shared.capacity());
            assert_eq!(assembler.unfinished_bytes(), 3);
            assert!(assembler.held_bytes() < 1000, "{}", assembler.held_bytes());
        }
    }

    #[test]
    fn a_frame_that_was_looked_at_is_still_the_next_one() {
        let bounds = ScanBounds::new(&Limits::default(), true);
        let bytes = b"SEND\na:1\n\n\0\nSEND\na:2\n\nbody\0SEND\na:3\n\n\0SEND\na";
        for cut in 0..bytes.len() {
            let mut assembler = Assembler::default();
            let mut bodies = Vec::new();
            for mut wire in [&bytes[..cut], &bytes[cut..]] {
                loop {
                    let mut frame = Frame::default();
                    let is_next = assembler.peek(&mut wire, &bounds, &mut frame).unwrap();
                    let seen = frame.body.to_vec();
                    drop(frame);
                    assert!(wire.is_empty());
                    let mut frame = Frame::default();
                    let found = assembler.next_frame(&mut wire, &bounds, &mut frame).unwrap();
                    assert_eq!(found, is_next);
                    if !found {
                        break;
                    }
                    assert_eq!(frame.body, seen);
                    bodies.push(seen);
                }
                assembler.release();
            }
            assert_eq!(bodies, [&b""[..], b"body", b""], "cut at {cut}");
            assert_eq!(assembler.unfinished_bytes(), 6, "cut at {cut}");
        }
    }

    #[test]
    fn faults_are_found_however_frames_arrive() {
        let cases: [(&[u8], ScanFault); 5] = [
            (b"FOO\n\n\0", ScanFault::UnknownCommand),
            (b"SEND\nx\n\n\0", ScanFault::NoName),
            (b"SEND\na:b\0\n\n", ScanFault::NulInHeader),
            (b"SEND\ncontent-length:1\n\nab", ScanFault::NoNul),
            (b"\rSEND\n\n\0", ScanFault::StrayByte),
        ];
        for (bytes, fault) in cases {
            assert_eq!(read(&[bytes], &Limits::default()), Err(fault));
            let runs: Vec<_> = bytes.chunks(1).collect();
            assert!(read(&runs, &Limits::default()).is_err(), "{}", bytes.escape_ascii());
        }
    }

    /// The commands that are read when bytes arrive in these runs, up to a malformed frame.
    fn read_all(runs: &[&[u8]], logged_in: bool) -> (Vec<Command>, Option<Box<Malformed>>) {
        let limits = Limits { header_bytes_max: 60, header_count_max: 3, ..Limits::default() };
        let bounds = ScanBounds::new(&limits, logged_in);
        let mut assembler = Assembler::default();
        let mut commands = Vec::new();
        for mut wire in runs.iter().copied() {
            loop {
                let mut frame = Frame::default();
                match assembler.next_frame(&mut wire, &bounds, &mut frame) {
                    Ok(true) => commands.push(frame.command),
                    Ok(false) => break,
                    Err(malformed) => return (commands, Some(malformed)),
                }
            }
            assembler.release();
        }
        (commands, None)
    }

    proptest! {
        #[test]
        fn chunking_is_invisible_whatever_is_wrong(
            words in prop::collection::vec(prop::sample::select(&[
                "SEND\n", "DISCONNECT\n", "FOO\n", "CONNECT\n", "\n", "\n\n", "\0", "\n\0", "receipt:r\n",
                "receipt:s\r\n", "content-length:1\n", "content-length:-1\n", ":x\n", "no colon\n", "k:v\n",
                "ñ:\\t\n", "body", "\r\n", "k:v\0", "SEND\n\n\0", "a line that goes on and on and on:",
            ][..]), 0..12),
            logged_in in any::<bool>(),
        ) {
            let bytes = words.concat().into_bytes();
            let whole = read_all(&[&bytes], logged_in);
            for size in [1, 2, 3, 7] {
                let runs: Vec<_> = bytes.chunks(size).collect();
                prop_assert_eq!(read_all(&runs, logged_in), whole.clone(), "by {}", size);
            }
        }

        #[test]
        fn chunking_is_invisible(
            frames in prop::collection::vec(
                ("[a-z]{1,6}", prop::collection::vec(any::<u8>(), 0..40), any::<bool>(), 0..3usize),
                1..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..14),
            crlf in any::<bool>(),
        ) {
            let end = if crlf { "\r\n" } else { "\n" };
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for (value, body, with_length, beats) in &frames {
                let body: Vec<u8> = body.iter().copied().filter(|o| *with_length || *o != 0).collect();
                let mut head = format!("SEND{end}destination:{value}{end}");
                let mut lines = vec![(b"destination".to_vec(), value.clone().into_bytes())];
                if *with_length {
                    head += &format!("content-length:{}{end}", body.len());
                    lines.push((b"content-length".to_vec(), body.len().to_string().into_bytes()));
                }
                bytes.extend_from_slice(head.as_bytes());
                bytes.extend_from_slice(end.as_bytes());
                bytes.extend_from_slice(&body);
                bytes.push(0);
                bytes.extend_from_slice(end.repeat(*beats).as_bytes());
                expected.push((Command::Send, lines, body));
            }
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let runs: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&runs, &Limits::default()).unwrap(), expected.clone());
            let runs: Vec<_> = bytes.chunks(1).collect();
            prop_assert_eq!(read(&runs, &Limits::default()).unwrap(), expected);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&[&bytes], &Limits::default());
            let _ = read(&bytes.chunks(3).collect::<Vec<_>>(), &Limits::default());
        }
    }
}
