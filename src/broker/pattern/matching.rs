//! Matching a name in slices.

use std::cell::RefCell;

use super::cache::{Cache, Next, RowId};
use super::program::Program;
use super::sets::{Sets, Steps};

/// Steps in a unit of work.
const UNIT_STEPS: i64 = 40;

/// A name that is being matched. It is for one pattern and one name; several may be under way for a pattern.
#[derive(Debug, Default)]
pub(crate) struct Matching {
    /// How many bytes of the name were taken.
    at: usize,
    place: Place,
    /// The set that was reached, unless `place` is a row and the step has not ended.
    sets: Sets,
}

#[derive(Clone, Copy, Debug, Default)]
enum Place {
    /// Before the first byte, which was not looked at.
    #[default]
    New,
    /// A row of the cache, of a generation.
    Row(RowId, u32),
    /// A set that the cache does not have.
    Set,
}

/// The work that is left for a step. It may be exceeded by that of a byte.
struct Allowance {
    steps: i64,
}

impl Allowance {
    fn spend(&mut self, steps: Steps) {
        self.steps -= i64::from(steps);
    }

    fn is_spent(&self) -> bool {
        self.steps <= 0
    }
}

impl Matching {
    /// Whether nothing of the name was looked at.
    pub(super) fn has_not_begun(&self) -> bool {
        matches!(self.place, Place::New)
    }

    /// Goes on until there is an answer or the units are used up.
    pub(super) fn step(
        &mut self,
        program: &Program,
        cache: &RefCell<Cache>,
        name: &[u8],
        units: &mut u32,
    ) -> Option<bool> {
        let all = i64::from(*units) * UNIT_STEPS;
        let mut left = Allowance { steps: all };
        let answer = self.run(program, &mut cache.borrow_mut(), name, &mut left);
        let used = u32::try_from((all - left.steps + UNIT_STEPS - 1) / UNIT_STEPS);
        *units = units.saturating_sub(used.unwrap_or(u32::MAX).max(1));
        answer
    }

    fn run(
        &mut self,
        program: &Program,
        cache: &mut Cache,
        name: &[u8],
        left: &mut Allowance,
    ) -> Option<bool> {
        self.place = match self.place {
            Place::New => self.start(program, cache, name, left),
            // The rows were given up for another name.
            Place::Row(_, generation) if generation != cache.generation() => Place::Set,
            place => place,
        };
        if let Place::Row(row, generation) = self.place {
            match self.run_on_rows(row, program, cache, name, left) {
                RowsEnd::Answer(answer) => return Some(answer),
                RowsEnd::Spent(row) => {
                    cache.load(row, &mut self.sets);
                    left.spend(self.sets.ops().len() as Steps / 8);
                    self.place = Place::Row(row, generation);
                    return None;
                }
                RowsEnd::Full => self.place = Place::Set,
            }
        }
        self.run_on_sets(program, name, left)
    }

    #[cold]
    fn start_new(
        &mut self,
        program: &Program,
        cache: &mut Cache,
        name: &[u8],
        left: &mut Allowance,
    ) -> Place {
        left.spend(self.sets.start(program, name));
        if program.has_looks() {
            return Place::Set;
        }
        left.spend(row_steps(&self.sets));
        let Some(row) = cache.row(&mut self.sets) else { return Place::Set };
        cache.set_start(row);
        Place::Row(row, cache.generation())
    }

    fn start(
        &mut self,
        program: &Program,
        cache: &mut Cache,
        name: &[u8],
        left: &mut Allowance,
    ) -> Place {
        match cache.start() {
            Some(row) => Place::Row(row, cache.generation()),
            None => self.start_new(program, cache, name, left),
        }
    }

    fn run_on_rows(
        &mut self,
        mut row: RowId,
        program: &Program,
        cache: &mut Cache,
        name: &[u8],
        left: &mut Allowance,
    ) -> RowsEnd {
        while let Some(&byte) = name.get(self.at) {
            if left.is_spent() {
                return RowsEnd::Spent(row);
            }
            left.spend(1);
            let class = program.class(byte);
            match cache.next(row, class) {
                Next::Row(next) => row = next,
                Next::Dead => return RowsEnd::Answer(false),
                Next::Unknown => {
                    cache.load(row, &mut self.sets);
                    left.spend(self.sets.advance(program, name, self.at));
                    if self.sets.ops().is_empty() {
                        cache.set_next(row, class, None);
                        return RowsEnd::Answer(false);
                    }
                    left.spend(row_steps(&self.sets));
                    let Some(next) = cache.row(&mut self.sets) else {
                        self.at += 1;
                        return RowsEnd::Full;
                    };
                    cache.set_next(row, class, Some(next));
                    row = next;
                }
            }
            self.at += 1;
        }
        RowsEnd::Answer(cache.is_match(row))
    }

    fn run_on_sets(
        &mut self,
        program: &Program,
        name: &[u8],
        left: &mut Allowance,
    ) -> Option<bool> {
        while self.at < name.len() {
            if self.sets.ops().is_empty() {
                return Some(false);
            }
            if left.is_spent() {
                return None;
            }
            left.spend(self.sets.advance(program, name, self.at));
            self.at += 1;
        }
        Some(self.sets.is_match())
    }
}

/// How matching on rows ended.
enum RowsEnd {
    Answer(bool),
    /// The step ends here.
    Spent(RowId),
    /// The rows were given up, and the set is what was reached.
    Full,
}

/// The work to find or to add the row of a set.
fn row_steps(sets: &Sets) -> Steps {
    40 + 8 * sets.ops().len() as Steps
}
