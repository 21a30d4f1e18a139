//! Matching by the set of instructions that a name may have reached.

use regex_automata::util::look::LookMatcher;

use super::program::{Op, OpId, Program};

/// Steps of work, of about two nanoseconds each.
pub(super) type Steps = u32;

/// To follow an instruction.
const OP_STEPS: Steps = 3;

/// To look at the letters around a place.
const LOOK_STEPS: Steps = 10;

/// The instructions that what was read of a name has reached: those that take a byte, and the match.
#[derive(Debug, Default)]
pub(super) struct Sets {
    current: Vec<OpId>,
    next: Vec<OpId>,
    /// The instructions that were looked at since the last byte, as bits.
    seen: Vec<u64>,
    stack: Vec<OpId>,
    is_match: bool,
}

impl Sets {
    /// The set before the first byte of a name.
    pub(super) fn start(&mut self, program: &Program, name: &[u8]) -> Steps {
        let mut steps = self.prepare(program);
        steps += self.reach(program, name, 0, 0);
        self.finish();
        steps
    }

    /// Replaces the set.
    pub(super) fn load(&mut self, ops: &[OpId], is_match: bool) {
        self.current.clear();
        self.current.extend_from_slice(ops);
        self.is_match = is_match;
    }

    /// Takes the byte of a name at a place.
    pub(super) fn advance(&mut self, program: &Program, name: &[u8], at: usize) -> Steps {
        let byte = name[at];
        let mut steps = self.prepare(program) + OP_STEPS * self.current.len() as Steps;
        let current = std::mem::take(&mut self.current);
        for id in &current {
            let next = match program.op(*id) {
                Op::Range(range) => range.next(byte),
                Op::Ranges(first, len) => program.next_of_ranges(first, len, byte),
                _ => None,
            };
            if let Some(next) = next {
                steps += self.reach(program, name, at + 1, next);
            }
        }
        self.current = current;
        self.finish();
        steps
    }

    /// Makes the order of the set's instructions a property of the set.
    pub(super) fn sort(&mut self) {
        self.current.sort_unstable();
    }

    /// The set.
    pub(super) fn ops(&self) -> &[OpId] {
        &self.current
    }

    /// Whether the name matches if it ends here.
    pub(super) fn is_match(&self) -> bool {
        self.is_match
    }

    fn prepare(&mut self, program: &Program) -> Steps {
        let words = program.len().div_ceil(u64::BITS as usize);
        self.seen.clear();
        self.seen.resize(words, 0);
        self.is_match = false;
        4 + words as Steps / 4
    }

    fn finish(&mut self) {
        std::mem::swap(&mut self.current, &mut self.next);
        self.next.clear();
    }

    /// Whether an instruction is looked at for the first time since the last byte.
    #[inline]
    fn is_new(&mut self, id: OpId) -> bool {
        let word = &mut self.seen[id as usize / 64];
        let old = *word;
        *word |= 1 << (id % 64);
        *word != old
    }

    /// Adds an instruction and what can be reached from it without a byte.
    #[inline]
    fn reach(&mut self, program: &Program, name: &[u8], at: usize, id: OpId) -> Steps {
        if !self.is_new(id) {
            return 0;
        }
        if let Op::Range(_) | Op::Ranges(..) = program.op(id) {
            self.next.push(id);
            return 0;
        }
        self.reach_beyond(program, name, at, id)
    }

    #[inline(never)]
    fn reach_beyond(&mut self, program: &Program, name: &[u8], at: usize, id: OpId) -> Steps {
        let mut steps = 0;
        self.stack.push(id);
        while let Some(id) = self.stack.pop() {
            steps += OP_STEPS;
            match program.op(id) {
                Op::Range(_) | Op::Ranges(..) => self.next.push(id),
                Op::Union(first, len) => {
                    steps += len;
                    for target in program.targets(first, len) {
                        if self.is_new(*target) {
                            self.stack.push(*target);
                        }
                    }
                }
                Op::Look(look, next) => {
                    steps += LOOK_STEPS;
                    if LookMatcher::new().matches(look, name, at) && self.is_new(next) {
                        self.stack.push(next);
                    }
                }
                Op::Match => {
                    self.is_match = true;
                    self.next.push(id);
                }
                Op::Fail => {}
            }
        }
        steps
    }
}
