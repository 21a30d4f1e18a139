//! Sets that were reached before, and what each byte makes of them.

use std::hash::BuildHasher;
use std::mem::size_of;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::program::{OpId, Program};
use super::sets::Sets;

/// The row of a set.
pub(super) type RowId = u32;

/// What a byte makes of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another set.
    Row(RowId),
    /// A set from which no match can be reached.
    Dead,
    /// It is not known.
    Unknown,
}

const UNKNOWN: RowId = RowId::MAX;
const DEAD: RowId = RowId::MAX - 1;

/// A table of sets by classes of bytes, in bounded memory. When that is full, all of it is given up.
#[derive(Debug)]
pub(super) struct Cache {
    bytes_max: usize,
    stride: usize,
    /// For each row and class, the next row.
    table: Vec<RowId>,
    rows: Vec<Row>,
    /// The sets of all rows.
    ops: Vec<OpId>,
    by_set: HashTable<RowId>,
    hasher: RandomState,
    start: Option<RowId>,
    generation: u32,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    first: u32,
    len: u32,
    is_match: bool,
}

impl Row {
    fn ops(self, ops: &[OpId]) -> &[OpId] {
        &ops[self.first as usize..(self.first + self.len) as usize]
    }
}

impl Cache {
    /// An empty table for a program. It holds no memory yet.
    pub(super) fn new(program: &Program, bytes_max: usize) -> Self {
        Self {
            bytes_max,
            stride: program.classes_len(),
            table: Vec::new(),
            rows: Vec::new(),
            ops: Vec::new(),
            by_set: HashTable::new(),
            hasher: RandomState::default(),
            start: None,
            generation: 0,
        }
    }

    /// A number that changes when rows are given up.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// The row before the first byte.
    pub(super) fn start(&self) -> Option<RowId> {
        self.start
    }

    /// Remembers the row before the first byte.
    pub(super) fn set_start(&mut self, row: RowId) {
        self.start = Some(row);
    }

    /// Whether a name that ends here matches.
    pub(super) fn is_match(&self, row: RowId) -> bool {
        self.rows[row as usize].is_match
    }

    /// What a byte of a class makes of a row.
    #[inline]
    pub(super) fn next(&self, row: RowId, class: usize) -> Next {
        match self.table[row as usize * self.stride + class] {
            UNKNOWN => Next::Unknown,
            DEAD => Next::Dead,
            row => Next::Row(row),
        }
    }

    /// Remembers what a byte of a class makes of a row; nothing is no match.
    pub(super) fn set_next(&mut self, row: RowId, class: usize, next: Option<RowId>) {
        self.table[row as usize * self.stride + class] = next.unwrap_or(DEAD);
    }

    /// Reads the set of a row.
    pub(super) fn load(&self, row: RowId, sets: &mut Sets) {
        let row = self.rows[row as usize];
        sets.load(row.ops(&self.ops), row.is_match);
    }

    /// The row of a set, which is added if it is new. Without room for it, all rows are given up.
    pub(super) fn row(&mut self, sets: &mut Sets) -> Option<RowId> {
        sets.sort();
        let hash = self.hasher.hash_one(sets.ops());
        let is_it = |row: &RowId| self.rows[*row as usize].ops(&self.ops) == sets.ops();
        if let Some(row) = self.by_set.find(hash, is_it) {
            return Some(*row);
        }
        let id = self.rows.len() as RowId;
        let row = Row {
            first: self.ops.len() as u32,
            len: sets.ops().len() as u32,
            is_match: sets.is_match(),
        };
        make_room(&mut self.rows, 1);
        make_room(&mut self.ops, sets.ops().len());
        make_room(&mut self.table, self.stride);
        self.rows.push(row);
        self.ops.extend_from_slice(sets.ops());
        self.table.resize(self.table.len() + self.stride, UNKNOWN);
        let (rows, ops, hasher) = (&self.rows, &self.ops, &self.hasher);
        let rehash = |row: &RowId| hasher.hash_one(rows[*row as usize].ops(ops));
        self.by_set.insert_unique(hash, id, rehash);
        if self.bytes() > self.bytes_max {
            self.clear();
            return None;
        }
        Some(id)
    }

    /// The memory that it holds outside of itself.
    pub(super) fn bytes(&self) -> usize {
        self.table.capacity() * size_of::<RowId>()
            + self.rows.capacity() * size_of::<Row>()
            + self.ops.capacity() * size_of::<OpId>()
            + self.by_set.allocation_size()
    }

    fn clear(&mut self) {
        self.table = Vec::new();
        self.rows = Vec::new();
        self.ops = Vec::new();
        self.by_set = HashTable::new();
        self.start = None;
        self.generation = self.generation.wrapping_add(1);
    }
}

/// Makes room without doubling what is held, as `Vec` does by itself.
fn make_room<T>(vec: &mut Vec<T>, len: usize) {
    if vec.capacity() - vec.len() < len {
        vec.reserve_exact(len.max(vec.len() / 4));
    }
}
