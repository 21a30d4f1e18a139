//! A byte stream without an envelope around frames: bytes are lent on as they arrive.

/// The layer of one connection whose frames delimit themselves.
#[derive(Debug)]
pub(super) struct StreamLayer {
    /// Bytes that arrived during detection, which are lent first.
    held: Vec<u8>,
    /// Whether `held` was lent and can be freed.
    lent: bool,
}

impl StreamLayer {
    /// A stream that begins with `held`.
    pub(super) fn new(held: Vec<u8>) -> Self {
        Self { held, lent: false }
    }

    /// The next bytes, or `None` when `wire` is used up.
    pub(super) fn next_bytes<'a, 'w: 'a>(
        &'a mut self,
        wire: &mut &'w mut [u8],
    ) -> Option<&'a [u8]> {
        self.release();
        if !self.held.is_empty() {
            self.lent = true;
            return Some(&self.held);
        }
        let bytes = std::mem::take(wire);
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Frees the bytes that were lent last.
    pub(super) fn release(&mut self) {
        if self.lent {
            *self = Self::new(Vec::new());
        }
    }

    /// Memory that is held for bytes that were not lent yet.
    pub(super) fn held_bytes(&self) -> usize {
        self.held.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_bytes_come_first_and_are_freed() {
        let mut layer = StreamLayer::new(b"CON".to_vec());
        let mut bytes = *b"NECT";
        let mut wire = &mut bytes[..];
        assert_eq!(layer.next_bytes(&mut wire), Some(&b"CON"[..]));
        assert_eq!(layer.next_bytes(&mut wire), Some(&b"NECT"[..]));
        assert_eq!(layer.next_bytes(&mut wire), None);
        assert_eq!(layer.held_bytes(), 0);
    }
}
