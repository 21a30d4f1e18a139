//! An expression as a program: a nondeterministic automaton on bytes, in as little memory as it needs.

use std::mem::size_of;

use regex_automata::nfa::thompson::{self, Compiler, NFA, WhichCaptures};
use regex_automata::util::look::Look;
use regex_automata::util::primitives::StateID;
use regex_syntax::hir::Hir;

/// The index of an instruction.
pub(super) type OpId = u32;

/// The automaton. It starts at instruction 0.
#[derive(Debug)]
pub(super) struct Program {
    ops: Box<[Op]>,
    ranges: Box<[Range]>,
    targets: Box<[OpId]>,
    /// The class of each byte: no instruction tells bytes of one class apart.
    classes: Box<[u8; 256]>,
    classes_len: u32,
    has_looks: bool,
}

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    /// A byte within a range, and then the instruction.
    Range(Range),
    /// A byte within one of several ranges, which are sorted. The first of them, and their number.
    Ranges(u32, u32),
    /// Each of several instructions. The first of the targets, and their number.
    Union(u32, u32),
    /// An assertion, and then the instruction.
    Look(Look, OpId),
    /// A match, if the name ends here.
    Match,
    /// No match.
    Fail,
}

/// Bytes, and the instruction that follows them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    start: u8,
    end: u8,
    next: OpId,
}

impl Range {
    #[inline]
    pub(super) fn next(self, byte: u8) -> Option<OpId> {
        (self.start <= byte && byte <= self.end).then_some(self.next)
    }
}

impl Program {
    /// Builds the program of an expression, or nothing if that took more than so many bytes of memory. The memory
    /// bounds the work as well.
    pub(super) fn build(hir: &Hir, bytes_max: usize) -> Option<Self> {
        let config = thompson::Config::new()
            .utf8(false)
            .nfa_size_limit(Some(bytes_max))
            .which_captures(WhichCaptures::None);
        let nfa = Compiler::new().configure(config).build_from_hir(hir).ok()?;
        Some(Copying::copy(&nfa))
    }

    /// The number of instructions.
    pub(super) fn len(&self) -> usize {
        self.ops.len()
    }

    #[inline]
    pub(super) fn op(&self, id: OpId) -> Op {
        self.ops[id as usize]
    }

    /// The instruction that follows one of [`Op::Ranges`] on a byte.
    #[inline]
    pub(super) fn next_of_ranges(&self, first: u32, len: u32, byte: u8) -> Option<OpId> {
        let ranges = &self.ranges[first as usize..(first + len) as usize];
        let place = ranges.partition_point(|range| range.end < byte);
        ranges.get(place)?.next(byte)
    }

    /// The targets of [`Op::Union`].
    #[inline]
    pub(super) fn targets(&self, first: u32, len: u32) -> &[OpId] {
        &self.targets[first as usize..(first + len) as usize]
    }

    /// The class of a byte.
    #[inline]
    pub(super) fn class(&self, byte: u8) -> usize {
        usize::from(self.classes[usize::from(byte)])
    }

    /// The number of classes of bytes.
    pub(super) fn classes_len(&self) -> usize {
        self.classes_len as usize
    }

    /// Whether it looks at what is around a place in a name, so that a set of instructions does not tell what follows.
    pub(super) fn has_looks(&self) -> bool {
        self.has_looks
    }

    /// The memory that it holds outside of itself.
    pub(super) fn bytes(&self) -> usize {
        self.ops.len() * size_of::<Op>()
            + self.ranges.len() * size_of::<Range>()
            + self.targets.len() * size_of::<OpId>()
            + self.classes.len()
    }
}

/// Copies what can be reached of an automaton.
struct Copying {
    /// The states that are known to be reached, in the order of their instructions.
    reached: Vec<StateID>,
    /// The instruction of each state.
    ids: Vec<Option<OpId>>,
    ranges: Vec<Range>,
    targets: Vec<OpId>,
    has_looks: bool,
}

impl Copying {
    fn copy(nfa: &NFA) -> Program {
        let mut copying = Self {
            reached: Vec::new(),
            ids: vec![None; nfa.states().len()],
            ranges: Vec::new(),
            targets: Vec::new(),
            has_looks: false,
        };
        copying.id(nfa.start_anchored());
        let mut ops = Vec::new();
        while let Some(&state) = copying.reached.get(ops.len()) {
            let op = copying.op(nfa.state(state));
            ops.push(op);
        }
        let bytes = nfa.byte_classes();
        let classes = std::array::from_fn(|byte| bytes.get(byte as u8));
        let classes_len = classes.iter().max().map_or(1, |last| u32::from(*last) + 1);
        Program {
            ops: ops.into(),
            ranges: copying.ranges.into(),
            targets: copying.targets.into(),
            classes: Box::new(classes),
            classes_len,
            has_looks: copying.has_looks,
        }
    }

    /// The instruction of a state.
    fn id(&mut self, state: StateID) -> OpId {
        let next = self.reached.len() as OpId;
        let id = self.ids[state.as_usize()].get_or_insert(next);
        if *id == next {
            self.reached.push(state);
        }
        *id
    }

    fn op(&mut self, state: &thompson::State) -> Op {
        use thompson::State;
        match state {
            State::ByteRange { trans } => Op::Range(self.range(*trans)),
            State::Sparse(sparse) => self.ranges(sparse.transitions.iter().copied()),
            State::Dense(dense) => {
                let transition = |(byte, next): (u8, &StateID)| {
                    let (start, end) = (byte, byte);
                    thompson::Transition { start, end, next: *next }
                };
                let is_some = |one: &thompson::Transition| one.next != StateID::ZERO;
                let transitions = (0..=u8::MAX).zip(&dense.transitions[..]).map(transition);
                self.ranges(transitions.filter(is_some))
            }
            State::Look { look, next } => {
                self.has_looks = true;
                Op::Look(*look, self.id(*next))
            }
            State::Union { alternates } => self.union(alternates),
            State::BinaryUnion { alt1, alt2 } => self.union(&[*alt1, *alt2]),
            // There are none, but it would not matter.
            State::Capture { next, .. } => self.union(&[*next]),
            State::Match { .. } => Op::Match,
            State::Fail => Op::Fail,
        }
    }

    fn range(&mut self, transition: thompson::Transition) -> Range {
        let thompson::Transition { start, end, next } = transition;
        Range { start, end, next: self.id(next) }
    }

    fn ranges(&mut self, transitions: impl Iterator<Item = thompson::Transition>) -> Op {
        let first = self.ranges.len();
        for transition in transitions {
            let range = self.range(transition);
            self.ranges.push(range);
        }
        Op::Ranges(first as u32, (self.ranges.len() - first) as u32)
    }

    fn union(&mut self, states: &[StateID]) -> Op {
        let first = self.targets.len();
        for state in states {
            let id = self.id(*state);
            self.targets.push(id);
        }
        Op::Union(first as u32, states.len() as u32)
    }
}
