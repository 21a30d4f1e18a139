//! A queue for events that arrive while an answer is awaited, bounded by memory.

use std::collections::VecDeque;

/// An item with a known need of memory.
pub(crate) trait Weighed {
    /// Memory of the item in bytes, which must not change.
    fn weight(&self) -> usize;
}

/// Memory of an item besides its text.
pub(crate) const ITEM_BYTES: usize = 256;

/// Memory of the headers of a message, including the strings themselves, since there may be many short ones.
pub(crate) fn weight_of_headers(headers: &[(String, String)]) -> usize {
    let text: usize = headers.iter().map(|(key, value)| key.len() + value.len()).sum();
    text + size_of_val(headers)
}

/// A queue with a soft bound: it takes items even if it is full, since an item that has been read from the
/// connection would be lost otherwise. The reader checks [`is_full`](Self::is_full).
#[derive(Debug)]
pub(crate) struct WeighedQueue<T> {
    items: VecDeque<T>,
    /// Sum of the items' weights.
    bytes: usize,
    bytes_max: usize,
}

impl<T: Weighed> WeighedQueue<T> {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { items: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(crate) fn push(&mut self, item: T) {
        self.bytes += item.weight();
        self.items.push_back(item);
    }

    pub(crate) fn take_first(&mut self) -> Option<T> {
        self.take(|_| true)
    }

    /// Takes the first wanted item, even from the middle.
    pub(crate) fn take(&mut self, is_wanted: impl FnMut(&T) -> bool) -> Option<T> {
        let index = self.items.iter().position(is_wanted)?;
        let item = self.items.remove(index)?;
        self.bytes -= item.weight();
        Some(item)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weighed for usize {
        fn weight(&self) -> usize {
            *self
        }
    }

    #[test]
    fn it_is_full_by_the_weight_of_its_items() {
        let mut queue = WeighedQueue::new(6);
        for item in [1, 2, 3] {
            assert!(!queue.is_full());
            queue.push(item);
        }
        assert!(queue.is_full());
        queue.push(4);
        assert_eq!(queue.take(|item| *item == 2), Some(2));
        assert_eq!(queue.take(|item| *item == 2), None);
        assert!(queue.is_full());
        assert_eq!(queue.take_first(), Some(1));
        assert_eq!(queue.take_first(), Some(3));
        assert!(!queue.is_full());
        assert_eq!(queue.take_first(), Some(4));
        assert_eq!(queue.take_first(), None);
        assert_eq!(queue.bytes, 0);
    }
}
