//! The mailbox of a loop: a bounded channel of letters, and a bell, which is a waker that ends the poll.
//!
//! It does not know the content of letters.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use mio::{Registry, Token, Waker};

/// Makes a mailbox for `letters_max` letters, whose bell the poll reports as `token`.
///
/// # Errors
/// Those of the system.
pub(super) fn mailbox<L>(
    registry: &Registry,
    token: Token,
    letters_max: u32,
) -> io::Result<(Mailbox<L>, Handle<L>)> {
    let bell = Arc::new(Bell { waker: Waker::new(registry, token)?, is_rung: false.into() });
    let (posting, letters) = sync_channel(letters_max as usize);
    let mailbox = Mailbox { letters, bell: Arc::clone(&bell), letters_max, has_letters: false };
    Ok((mailbox, Handle { letters: posting, bell }))
}

/// Posts letters, from any thread. Clones post into the same mailbox.
///
/// Posting never waits, and its success does not mean that the letter is read: letters that are left
/// when the loop ends are dropped. A sender that has to know puts something into the letter whose drop
/// it can observe, such as the sending end of a channel.
///
/// A loop whose handles are all dropped continues to serve its connections.
pub(crate) struct Handle<L> {
    letters: SyncSender<L>,
    bell: Arc<Bell>,
}

impl<L> Handle<L> {
    /// Posts a letter, which the loop reads in its next turn.
    ///
    /// # Errors
    /// The mailbox is full, or the loop has ended. The letter is dropped.
    pub(crate) fn post(&self, letter: L) -> Result<(), PostFault> {
        match self.letters.try_send(letter) {
            Ok(()) => {
                self.bell.ring();
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err(PostFault::Full),
            Err(TrySendError::Disconnected(_)) => Err(PostFault::Ended),
        }
    }
}

impl<L> Clone for Handle<L> {
    fn clone(&self) -> Self {
        Self { letters: self.letters.clone(), bell: Arc::clone(&self.bell) }
    }
}

impl<L> fmt::Debug for Handle<L> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Handle(..)")
    }
}

/// Why a letter was not posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostFault {
    /// `mailbox_letters_max` letters wait to be read. The loop reads as many in each turn, so that there
    /// is room again a turn later.
    Full,
    /// The loop has ended.
    Ended,
}

impl fmt::Display for PostFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Full => "the broker's mailbox is full (mailbox_letters_max)",
            Self::Ended => "the broker has ended",
        })
    }
}

impl std::error::Error for PostFault {}

/// The loop's end of the channel.
pub(super) struct Mailbox<L> {
    letters: Receiver<L>,
    bell: Arc<Bell>,
    letters_max: u32,
    /// Whether there may be unread letters.
    has_letters: bool,
}

impl<L> Mailbox<L> {
    /// Notes that the poll reported the bell. To be called before letters are read.
    pub(super) fn note_rung(&mut self) {
        // A swap rather than a store, to synchronise with the swap of the last `ring`.
        self.bell.is_rung.swap(false, Ordering::AcqRel);
        self.has_letters = true;
    }

    /// Whether there may be letters to read.
    pub(super) fn has_letters(&self) -> bool {
        self.has_letters
    }

    /// Letters that are read in one turn, so that endless posting does not hold up the loop.
    pub(super) fn letters_per_turn_max(&self) -> u32 {
        self.letters_max
    }

    /// The next letter.
    pub(super) fn take_letter(&mut self) -> Option<L> {
        // A channel whose handles are all dropped is treated as an empty one.
        let letter = self.letters.try_recv().ok();
        self.has_letters = letter.is_some();
        letter
    }
}

/// Ends the poll, once for all letters that are posted before the loop reads them.
struct Bell {
    waker: Waker,
    /// Whether the poll was woken since the loop last began to read letters.
    is_rung: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        if !self.is_rung.swap(true, Ordering::AcqRel) && self.waker.wake().is_err() {
            // The next letter wakes the poll instead.
            self.is_rung.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    const BELL: Token = Token(7);

    fn make(letters_max: u32) -> (Poll, Events, Mailbox<u32>, Handle<u32>) {
        let poll = Poll::new().unwrap();
        let (mailbox, handle) = mailbox(poll.registry(), BELL, letters_max).unwrap();
        (poll, Events::with_capacity(8), mailbox, handle)
    }

    fn rings(poll: &mut Poll, events: &mut Events) -> usize {
        poll.poll(events, Some(Duration::ZERO)).unwrap();
        events.iter().filter(|event| event.token() == BELL).count()
    }

    #[test]
    fn the_bell_rings_once_for_all_letters_that_are_posted_before_they_are_read() {
        let (mut poll, mut events, mut mailbox, handle) = make(8);
        assert_eq!(rings(&mut poll, &mut events), 0);
        let other = handle.clone();
        handle.post(1).unwrap();
        other.post(2).unwrap();
        assert_eq!(rings(&mut poll, &mut events), 1);
        assert_eq!(rings(&mut poll, &mut events), 0, "it rang a second time");
        mailbox.note_rung();
        handle.post(3).unwrap();
        assert_eq!(rings(&mut poll, &mut events), 1, "a letter posted during reading rings, too");
        let letters: Vec<_> = std::iter::from_fn(|| mailbox.take_letter()).collect();
        assert_eq!(letters, [1, 2, 3]);
        assert!(!mailbox.has_letters());
    }

    #[test]
    fn a_full_mailbox_refuses_letters_until_it_is_read() {
        let (_poll, _events, mut mailbox, handle) = make(2);
        handle.post(1).unwrap();
        handle.post(2).unwrap();
        assert_eq!(handle.post(3), Err(PostFault::Full));
        assert_eq!(mailbox.take_letter(), Some(1));
        handle.post(4).unwrap();
        assert_eq!(mailbox.take_letter(), Some(2));
        assert_eq!(mailbox.take_letter(), Some(4));
        assert_eq!(mailbox.take_letter(), None);
    }

    #[test]
    fn nothing_is_posted_to_a_loop_that_has_ended() {
        let (poll, _events, mailbox, handle) = make(2);
        handle.post(1).unwrap();
        drop((mailbox, poll));
        assert_eq!(handle.post(2), Err(PostFault::Ended));
    }

    #[test]
    fn letters_are_read_even_if_all_handles_are_dropped() {
        let (mut poll, mut events, mut mailbox, handle) = make(2);
        handle.post(1).unwrap();
        drop(handle);
        assert_eq!(rings(&mut poll, &mut events), 1);
        assert_eq!(mailbox.take_letter(), Some(1));
        assert_eq!(mailbox.take_letter(), None);
    }

    /// Threads that post at the same time as the loop reads never leave a letter without a ring.
    #[test]
    fn no_letter_is_left_unread() {
        const COUNT: u32 = 20_000;
        let (mut poll, mut events, mut mailbox, handle) = make(16);
        thread::scope(|scope| {
            for _ in 0..2 {
                let handle = handle.clone();
                scope.spawn(move || {
                    for number in 0..COUNT {
                        while handle.post(number) == Err(PostFault::Full) {
                            thread::yield_now();
                        }
                    }
                });
            }
            let mut read = 0;
            while read < 2 * COUNT {
                // A bell that was not rung shows as a timeout.
                poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
                assert!(!events.is_empty(), "{read} letters were read, and no bell rang");
                mailbox.note_rung();
                while mailbox.take_letter().is_some() {
                    read += 1;
                }
            }
        });
    }
}
