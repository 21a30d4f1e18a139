//! Buffers for what has arrived in part. They grow with what arrives, never by a promise of the client: what
//! one occupies is at most half more than what it holds.
//!
//! The buffer of a large frame is shared with whoever keeps its body, so that the body is never copied.

use std::ops::Deref;
use std::rc::Rc;

/// Overhead of an allocator for each small allocation.
pub(crate) const ALLOCATION_BYTES: usize = 16;

/// Memory of a copy of bytes: glibc gives no less than 32.
pub(crate) fn allocated_bytes(bytes: &[u8]) -> usize {
    match bytes.len() {
        0 => 0,
        len => (len + ALLOCATION_BYTES).max(2 * ALLOCATION_BYTES),
    }
}

/// A buffer that holds one large frame, which does not change any more.
pub(crate) type Shared = Rc<Frozen>;

/// Bytes that do not change any more.
#[derive(Debug, Default)]
pub struct Frozen {
    bytes: Vec<u8>,
    /// Whether they are known to be UTF-8.
    is_text: bool,
}

impl Deref for Frozen {
    type Target = Vec<u8>;

    #[inline]
    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl From<Vec<u8>> for Frozen {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, is_text: false }
    }
}

/// Bytes that are lent, and the buffer that they are in, if that can be shared.
#[derive(Clone, Copy, Debug)]
pub struct Lent<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// The buffer.
    pub shared: Option<&'a Shared>,
}

/// A part of a shared buffer, which keeps all of it.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    buffer: Shared,
    from: usize,
    to: usize,
}

/// Size from which bodies are shared. Smaller ones cost less to copy than a piece costs to write.
pub(crate) const SHARED_BYTES_MIN: usize = 64 * 1024;

impl<'a> Lent<'a> {
    /// Bytes of which whoever keeps them makes a copy.
    #[inline]
    pub(crate) fn unshared(bytes: &'a [u8]) -> Self {
        Self { bytes, shared: None }
    }

    /// Its piece of the buffer, if it is large and can be shared.
    #[inline]
    pub(crate) fn piece(&self) -> Option<Piece> {
        self.shared.and_then(|shared| Piece::of(self.bytes, shared))
    }

    /// Without the buffer, if it is less than half of that.
    fn unless_small_part(self) -> Self {
        let is_most = |shared: &&Shared| shared.capacity() / 2 <= self.bytes.len();
        Self { shared: self.shared.filter(is_most), ..self }
    }
}

impl Piece {
    /// The piece of a buffer that `bytes` are, if they are in it and large.
    pub(crate) fn of(bytes: &[u8], buffer: &Shared) -> Option<Self> {
        let from = bytes.as_ptr().addr().checked_sub(buffer.as_ptr().addr())?;
        let to = from.checked_add(bytes.len())?;
        (bytes.len() >= SHARED_BYTES_MIN && to <= buffer.len()).then(|| Self {
            buffer: Rc::clone(buffer),
            from,
            to,
        })
    }

    /// All of a buffer, however small.
    pub(crate) fn whole(bytes: Vec<u8>) -> Self {
        let to = bytes.len();
        Self { buffer: Rc::new(bytes.into()), from: 0, to }
    }

    /// The bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.from..self.to]
    }

    /// The buffer.
    pub(crate) fn buffer(&self) -> &Shared {
        &self.buffer
    }

    /// Whether it is known to be UTF-8, as all of its buffer is and it cuts no character.
    pub(crate) fn is_known_as_text(&self) -> bool {
        let cuts = |at: usize| self.buffer.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
        self.buffer.is_text && !cuts(self.from) && !cuts(self.to)
    }

    /// What is the same for the same piece alone, as long as it exists.
    pub(crate) fn identity(&self) -> (usize, usize, usize) {
        (Rc::as_ptr(&self.buffer).addr(), self.from, self.to)
    }
}

/// Memory of a shared buffer.
pub(crate) fn shared_bytes(buffer: &Shared) -> usize {
    shared_bytes_of(buffer.capacity())
}

fn shared_bytes_of(capacity: usize) -> usize {
    size_of::<Frozen>() + 4 * size_of::<usize>() + capacity
}

/// A body that is kept. A large one is shared with whoever gets it, so that it is never copied again.
#[derive(Debug)]
pub(crate) enum Body {
    /// A copy of a small one.
    Copied(Box<[u8]>),
    /// A large one.
    Shared(Piece),
}

impl Default for Body {
    fn default() -> Self {
        Self::Copied(Box::default())
    }
}

impl Body {
    /// Keeps a body: the buffer that it is in, if it is large and the buffer can be shared.
    pub(crate) fn new(lent: Lent<'_>) -> Self {
        if lent.bytes.len() < SHARED_BYTES_MIN {
            return Self::Copied(lent.bytes.into());
        }
        Self::Shared(lent.piece().unwrap_or_else(|| Piece::whole(lent.bytes.to_vec())))
    }

    /// Keeps a body that may be kept for long: a buffer of which it is a small part is not.
    pub(crate) fn new_apart(lent: Lent<'_>) -> Self {
        Self::new(lent.unless_small_part())
    }

    /// Memory of [`Self::new`].
    pub(crate) fn cost_of(lent: Lent<'_>) -> usize {
        match lent.piece() {
            Some(piece) => shared_bytes(&piece.buffer),
            None if lent.bytes.len() >= SHARED_BYTES_MIN => shared_bytes_of(lent.bytes.len()),
            None => allocated_bytes(lent.bytes),
        }
    }

    /// Its memory.
    pub(crate) fn cost_bytes(&self) -> usize {
        Self::cost_of(self.lent())
    }

    /// Its bytes, with the buffer that they are in.
    #[inline]
    pub(crate) fn lent(&self) -> Lent<'_> {
        match self {
            Self::Copied(bytes) => Lent::unshared(bytes),
            Self::Shared(piece) => Lent { bytes: piece.bytes(), shared: Some(&piece.buffer) },
        }
    }
}

/// Takes the first `end` bytes of a buffer, which are a large frame and what was used before it, to be shared. The
/// rest stays. `is_text` says whether they are known to be UTF-8.
pub(crate) fn share(pending: &mut Vec<u8>, end: usize, is_text: bool) -> Shared {
    let rest = pending[end..].to_vec();
    let mut whole = std::mem::replace(pending, rest);
    whole.truncate(end);
    whole.shrink_to_fit();
    Rc::new(Frozen { bytes: whole, is_text })
}

/// Appends bytes to a buffer. `expected` is the length that it is going to have, as far as that is known.
pub(crate) fn append(buffer: &mut Vec<u8>, bytes: &[u8], expected: usize) {
    let wanted = buffer.len() + bytes.len();
    if wanted > buffer.capacity() && wanted > DOUBLED_BYTES_MAX {
        let grown = wanted + wanted / 2;
        let capacity = if expected < wanted { grown } else { grown.min(expected) };
        buffer.reserve_exact(capacity - buffer.len());
    }
    buffer.extend_from_slice(bytes);
}

/// Length up to which the standard library decides.
const DOUBLED_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_buffer_holds_little_but_the_frame() {
        for (before, frame, behind) in [(0, 100_000, 0), (9, 70_000, 70_000), (9, 4 << 20, 1)] {
            let mut pending = Vec::new();
            append(&mut pending, &vec![1; before + frame], 0);
            append(&mut pending, &vec![2; behind], 0);
            let shared = share(&mut pending, before + frame, false);
            assert_eq!((shared.len(), pending.len()), (before + frame, behind));
            assert!(pending.iter().all(|byte| *byte == 2));
            assert_eq!(shared.capacity(), shared.len());
        }
    }

    #[test]
    fn a_piece_is_in_its_buffer_and_large() {
        let shared: Shared = Rc::new(vec![7; SHARED_BYTES_MIN + 10].into());
        let piece = Piece::of(&shared[10..], &shared).unwrap();
        assert_eq!(piece.bytes().as_ptr(), shared[10..].as_ptr());
        assert_eq!(piece.bytes().len(), SHARED_BYTES_MIN);
        assert!(Piece::of(&shared[11..], &shared).is_none(), "small");
        assert!(Piece::of(&shared.to_vec(), &shared).is_none(), "elsewhere");
    }

    #[test]
    fn a_piece_of_text_is_text_unless_it_cuts_a_character() {
        let text = format!("SEND\n\n{}€\0", "x".repeat(SHARED_BYTES_MIN)).into_bytes();
        let end = text.len();
        for is_text in [true, false] {
            let shared = share(&mut text.clone(), end, is_text);
            for (to, is_whole) in [(end, true), (end - 1, true), (end - 2, false), (end - 4, true)]
            {
                let piece = Piece::of(&shared[6..to], &shared).unwrap();
                assert_eq!(piece.is_known_as_text(), is_text && is_whole, "{to}");
            }
        }
    }

    #[test]
    fn a_large_body_is_shared_and_costs_what_it_keeps() {
        let shared: Shared = Rc::new(vec![7; 4 * SHARED_BYTES_MIN].into());
        for (len, is_lent, shares) in [
            (SHARED_BYTES_MIN - 1, true, false),
            (SHARED_BYTES_MIN, true, false),
            (2 * SHARED_BYTES_MIN, true, true),
            (2 * SHARED_BYTES_MIN, false, false),
        ] {
            let lent = Lent { bytes: &shared[..len], shared: is_lent.then_some(&shared) };
            let body = Body::new_apart(lent);
            assert_eq!(body.lent().bytes, lent.bytes);
            assert_eq!(body.lent().shared.is_some(), len >= SHARED_BYTES_MIN);
            assert_eq!(body.lent().shared.is_some_and(|one| Rc::ptr_eq(one, &shared)), shares);
            let most = if shares { shared.capacity() } else { len };
            assert!((most..most + 100).contains(&body.cost_bytes()), "{}", body.cost_bytes());
            assert_eq!(Body::new(lent).cost_bytes(), Body::cost_of(lent));
        }
    }

    #[test]
    fn a_large_buffer_is_at_most_half_larger_than_needed_and_ends_as_large_as_expected() {
        for (expected, is_known) in [(4_195_000, true), (4_195_000, false), (70_000, true)] {
            let mut buffer = Vec::new();
            let (mut moves, mut capacity) = (0, 0);
            while buffer.len() < expected {
                let bytes = vec![7; 1_460.min(expected - buffer.len())];
                append(&mut buffer, &bytes, if is_known { expected } else { 0 });
                if buffer.capacity() != capacity {
                    (moves, capacity) = (moves + 1, buffer.capacity());
                }
                let bound = (buffer.len() * 3 / 2).max(2 * DOUBLED_BYTES_MAX);
                assert!(capacity <= bound, "{capacity} for {}", buffer.len());
            }
            assert!(moves < 24, "{moves}");
            assert!(!is_known || capacity <= expected.max(2 * DOUBLED_BYTES_MAX), "{capacity}");
            assert_eq!(buffer.len(), expected);
        }
    }
}
