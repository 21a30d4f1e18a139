//! Loss, duplicates and order, checked as messages arrive.
//!
//! It knows a stream only as a line of numbers. The scenario knows which receiver of which stream a line
//! stands for.

use std::collections::HashSet;

/// Checks the numbers that arrive on every line.
#[derive(Debug, Default)]
pub struct Checker {
    /// The next expected number of each line.
    next: Vec<u32>,
    /// Skipped numbers that may still arrive, as line and number.
    missing: HashSet<(u32, u32)>,
    verdict: Verdict,
}

/// The irregularities of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages that never arrived.
    pub lost: u64,
    /// Messages that arrived again.
    pub duplicated: u64,
    /// Messages that arrived after a later one.
    pub reordered: u64,
    /// Bodies that arrived changed.
    pub damaged: u64,
}

impl Verdict {
    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

impl Checker {
    /// A checker for a number of lines.
    pub fn new(lines: usize) -> Self {
        Self { next: vec![0; lines], ..Self::default() }
    }

    /// Notes an arrival. Returns whether the message was new.
    #[inline]
    pub fn note(&mut self, line: u32, sequence: u32) -> bool {
        let Some(next) = self.next.get_mut(line as usize) else {
            self.verdict.damaged += 1;
            return false;
        };
        if sequence == *next {
            *next += 1;
            return true;
        }
        self.note_slow(line, sequence)
    }

    /// Notes a body that arrived changed.
    pub fn note_damaged(&mut self) {
        self.verdict.damaged += 1;
    }

    /// The irregularities, given the number of messages sent on each line.
    pub fn finish(mut self, sent: impl Fn(u32) -> u32) -> Verdict {
        self.verdict.lost += self.missing.len() as u64;
        for (line, next) in self.next.iter().enumerate() {
            self.verdict.lost += u64::from(sent(line as u32).saturating_sub(*next));
        }
        self.verdict
    }

    #[cold] // messages arrive in order
    fn note_slow(&mut self, line: u32, sequence: u32) -> bool {
        let next = &mut self.next[line as usize];
        if sequence > *next {
            for passed in *next..sequence {
                if self.missing.len() < MISSING_MAX {
                    self.missing.insert((line, passed));
                } else {
                    self.verdict.lost += 1;
                }
            }
            *next = sequence + 1;
            return true;
        }
        let is_late = self.missing.remove(&(line, sequence));
        if is_late {
            self.verdict.reordered += 1;
        } else {
            self.verdict.duplicated += 1;
        }
        is_late
    }
}

/// Skipped numbers that are remembered; further ones count as lost at once.
const MISSING_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(arrivals: &[(u32, u32)], sent: u32) -> Verdict {
        let mut checker = Checker::new(2);
        for (line, sequence) in arrivals {
            checker.note(*line, *sequence);
        }
        checker.finish(|_| sent)
    }

    #[test]
    fn messages_in_order_are_clean() {
        assert!(verdict(&[(0, 0), (1, 0), (0, 1), (1, 1)], 2).is_clean());
    }

    #[test]
    fn gaps_and_missing_ends_are_lost() {
        let found = verdict(&[(0, 0), (0, 2), (1, 0)], 3);
        assert_eq!(found, Verdict { lost: 3, ..Verdict::default() });
    }

    #[test]
    fn a_late_message_is_reordered_and_not_lost() {
        let found = verdict(&[(0, 1), (0, 0), (1, 0), (1, 1)], 2);
        assert_eq!(found, Verdict { reordered: 1, ..Verdict::default() });
    }

    #[test]
    fn a_message_that_arrives_again_is_a_duplicate() {
        let found = verdict(&[(0, 0), (0, 0), (1, 0)], 1);
        assert_eq!(found, Verdict { duplicated: 1, ..Verdict::default() });
    }

    #[test]
    fn a_line_that_does_not_exist_is_damage() {
        let found = verdict(&[(0, 0), (1, 0), (7, 0)], 1);
        assert_eq!(found, Verdict { damaged: 1, ..Verdict::default() });
    }
}
