//! Regular expressions of clients on whole names of destinations.
//!
//! What a client may send is made cheap to compile by bounds that are checked before the work is done (`syntax`,
//! `program`), and matching is cut into slices (`matching`): a pattern and a name may be chosen so that each
//! byte of the name takes time with the size of the pattern.

mod cache;
mod cost;
mod matching;
mod program;
mod sets;
mod syntax;

use std::cell::RefCell;
use std::mem::size_of;

use self::cache::Cache;
pub(crate) use self::matching::Matching;
use self::program::Program;
use self::syntax::Refusal;
use super::fault::{Code, Fault};
use crate::limits::{Exceeded, Limits};

/// A regular expression that matches whole names of destinations.
#[derive(Debug)]
pub(crate) struct Pattern {
    text: Box<[u8]>,
    prefix: Box<[u8]>,
    program: Program,
    cache: RefCell<Cache>,
}

impl Pattern {
    /// Compiles a pattern of a client, within limits.
    ///
    /// # Errors
    /// `INVALID_REGEX` if it does not compile, `LIMIT_EXCEEDED` if it or the compiled pattern is too large.
    pub(crate) fn compile(text: &[u8], limits: &Limits) -> Result<Self, Fault> {
        if text.len() > limits.pattern_bytes_max as usize {
            let max = u64::from(limits.pattern_bytes_max);
            return Err(Fault::exceeded(Exceeded { limit: "pattern_bytes_max", max }));
        }
        let invalid = |why: &str| {
            let description = format!("the regular expression is invalid: {why}");
            Fault::staying(Code::InvalidRegex, description)
        };
        let source = std::str::from_utf8(text).map_err(|_| invalid("it is not UTF-8"))?;
        let bytes_max = limits.pattern_compiled_bytes_max;
        let compiled = syntax::parse(source).and_then(|hir| {
            let program = Program::build(&hir, bytes_max as usize).ok_or(Refusal::TooLarge)?;
            Ok((syntax::prefix(&hir), program))
        });
        match compiled {
            Ok((prefix, program)) => {
                let cache_bytes_max = (bytes_max as usize).saturating_sub(program.bytes());
                let cache = RefCell::new(Cache::new(&program, cache_bytes_max));
                Ok(Self { text: text.into(), prefix, program, cache })
            }
            Err(Refusal::TooLarge) => {
                let max = u64::from(bytes_max);
                Err(Fault::exceeded(Exceeded { limit: "pattern_compiled_bytes_max", max }))
            }
            Err(Refusal::Invalid(why)) => Err(invalid(&why)),
        }
    }

    /// Whether it matches a destination's whole name.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        let mut matching = self.begin();
        loop {
            if let Some(answer) = self.step(&mut matching, name, &mut { u32::MAX }) {
                return answer;
            }
        }
    }

    /// Begins to match a name.
    pub(crate) fn begin(&self) -> Matching {
        Matching::default()
    }

    /// Goes on matching a name, the same as in the steps before. Takes from `units` what it used, one at least,
    /// and returns the answer, or `None` if the units were used up before there was one. A byte is not
    /// interrupted: what it takes beyond the units is bounded by the size of the pattern.
    pub(crate) fn step(
        &self,
        matching: &mut Matching,
        name: &[u8],
        units: &mut u32,
    ) -> Option<bool> {
        if matching.has_not_begun() && !name.starts_with(&self.prefix) {
            *units = units.saturating_sub(1);
            return Some(false);
        }
        matching.step(&self.program, &self.cache, name, units)
    }

    /// What every name that matches begins with.
    #[cfg(test)]
    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The memory that it holds: the program, which does not change, and the cache, which grows as names are matched.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.text.len()
            + self.prefix.len()
            + self.program.bytes()
            + self.cache.borrow().bytes()
    }
}

#[cfg(test)]
mod tests;
