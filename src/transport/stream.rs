//! A stream of frames that end themselves: what arrives is lent on as it is.

/// The layer of one connection whose frames stand side by side.
#[derive(Debug)]
pub(super) struct StreamLayer {
    /// What arrived before it was settled that there is nothing around frames. It comes first.
    held: Vec<u8>,
    /// Whether `held` was lent out and is to be dropped.
    lent: bool,
}

impl StreamLayer {
    /// A stream of which `held` has arrived.
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

    /// Frees what was lent out last.
    pub(super) fn release(&mut self) {
        if self.lent {
            *self = Self::new(Vec::new());
        }
    }

    /// Memory that is held for what was not lent out yet.
    pub(super) fn held_bytes(&self) -> usize {
        self.held.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_held_comes_first_and_is_freed() {
        let mut layer = StreamLayer::new(b"CON".to_vec());
        let mut bytes = *b"NECT";
        let mut wire = &mut bytes[..];
        assert_eq!(layer.next_bytes(&mut wire), Some(&b"CON"[..]));
        assert_eq!(layer.next_bytes(&mut wire), Some(&b"NECT"[..]));
        assert_eq!(layer.next_bytes(&mut wire), None);
        assert_eq!(layer.held_bytes(), 0);
    }
}
