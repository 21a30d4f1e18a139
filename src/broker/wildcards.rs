//! Topics with wildcards, and which of them match a name.
//!
//! A trie over levels. A chain of nodes with one child each is one node with several levels, so that there are
//! at most two nodes for each pattern. Names of levels are numbered, so that a level is compared in one step
//! however long its name is, and is stored once however many patterns have it. The edges of all nodes are
//! in one index: a node with 100,000 children costs no more than 100,000 nodes with one.

use std::fmt;
use std::mem::size_of;

use smallvec::SmallVec;

use super::fault::Fault;
use super::hashing::NameHasher;
use super::index::NameIndex;
use super::levels::{Levels, Part, split};
use crate::limits::{Exceeded, Limits};

/// Checks that a topic with wildcards has no more levels than are allowed.
///
/// # Errors
/// It has more.
pub(crate) fn check(levels: usize, limits: &Limits) -> Result<(), Fault> {
    if levels > limits.wildcard_levels_max as usize {
        let max = u64::from(limits.wildcard_levels_max);
        return Err(Fault::exceeded(Exceeded { limit: "wildcard_levels_max", max }));
    }
    Ok(())
}

/// A set of topics with wildcards, each with a value.
#[derive(Debug)]
pub(crate) struct Wildcards<G> {
    words: Words,
    nodes: Vec<Node<G>>,
    free_nodes: Vec<NodeId>,
    /// Children of nodes by the first level of their label.
    edges: NameIndex<NodeId>,
    /// The memory of labels that are not in their node.
    label_bytes: usize,
    len: usize,
    /// The number of patterns by their number of levels, without `>`. The last number is not zero.
    depths: Vec<u32>,
}

type NodeId = u32;

/// The number of a level's name.
type Word = u32;

/// `*`, as a level of a pattern.
const ANY: Word = u32::MAX;

/// A level of a name that no pattern has.
const UNKNOWN: Word = u32::MAX - 1;

const ROOT: NodeId = 0;
const NO_NODE: NodeId = u32::MAX;

/// The levels of a pattern or of a name. A name has few, and on the stack there is room for those.
type Path = SmallVec<[Word; 16]>;

/// The levels of a node.
type Label = SmallVec<[Word; 4]>;

#[derive(Debug)]
struct Node<G> {
    /// The levels between the parent and this node: one at least, except for the root.
    label: Label,
    parent: NodeId,
    /// The number of children.
    children_len: u32,
    /// The exclusive or of the children's ids, which is the id of an only child.
    children: u32,
    /// The child whose label begins with `*`, or `NO_NODE`.
    any: NodeId,
    /// The value of the pattern that ends here.
    here: Option<G>,
    /// The value of the pattern that ends here with `>`.
    rest: Option<G>,
}

impl<G: Copy> Wildcards<G> {
    /// An empty set, whose hash tables are keyed with a secret.
    pub(crate) fn new(secret: u128) -> Self {
        Self {
            words: Words::new(NameHasher::new(secret)),
            nodes: vec![Node::new(ROOT, &[])],
            free_nodes: Vec::new(),
            edges: NameIndex::new(),
            label_bytes: 0,
            len: 0,
            depths: Vec::new(),
        }
    }

    /// Adds a pattern; returns the value that it had.
    pub(crate) fn insert(&mut self, pattern: &Levels, value: G) -> Option<G> {
        let (path, has_rest) = self.words.take(pattern);
        let node = self.make_node(&path);
        let old = self.nodes[node as usize].value_mut(has_rest).replace(value);
        if old.is_some() {
            self.words.release(&path);
        } else {
            self.len += 1;
            if self.depths.len() <= path.len() {
                self.depths.resize(path.len() + 1, 0);
            }
            self.depths[path.len()] += 1;
        }
        old
    }

    /// Removes a pattern; returns the value that it had.
    pub(crate) fn remove(&mut self, pattern: &Levels) -> Option<G> {
        let (path, has_rest) = self.words.find_all(pattern)?;
        let node = self.find_node(&path)?;
        let old = self.nodes[node as usize].value_mut(has_rest).take()?;
        self.words.release(&path);
        self.len -= 1;
        self.depths[path.len()] -= 1;
        while self.depths.last() == Some(&0) {
            self.depths.pop();
        }
        self.prune(node);
        if self.len == 0 {
            self.reset();
        }
        Some(old)
    }

    /// The value of a pattern that is the same but for its separators.
    pub(crate) fn find(&self, pattern: &Levels) -> Option<G> {
        let (path, has_rest) = self.words.find_all(pattern)?;
        let node = &self.nodes[self.find_node(&path)? as usize];
        if has_rest { node.rest } else { node.here }
    }

    /// Appends the values of all patterns that match a name. Returns the work that it took: the levels that were
    /// looked at, and the nodes that were visited.
    pub(crate) fn lookup(&self, name: &[u8], found: &mut Vec<G>) -> u32 {
        if self.len == 0 {
            return 0;
        }
        // One level more than the longest pattern has tells what `>` needs to know.
        let levels = split(name).take(self.depths.len());
        let path: Path = levels.map(|level| self.words.find(level).unwrap_or(UNKNOWN)).collect();
        let mut visited = 0;
        let mut waiting: SmallVec<[(NodeId, u32); 16]> = SmallVec::new();
        waiting.push((ROOT, 0));
        while let Some((id, at)) = waiting.pop() {
            visited += 1;
            let node = &self.nodes[id as usize];
            let Some(rest) = node.rest_of(&path[at as usize..]) else { continue };
            let Some(&next) = rest.first() else {
                found.extend(node.here);
                continue;
            };
            found.extend(node.rest);
            let at = (path.len() - rest.len()) as u32;
            if node.any != NO_NODE {
                waiting.push((node.any, at));
            }
            let has_others = node.children_len > u32::from(node.any != NO_NODE);
            if has_others && next != UNKNOWN {
                waiting.extend(self.child(id, next).map(|child| (child, at)));
            }
        }
        visited + path.len() as u32
    }

    /// The number of patterns.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no patterns.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory that is held, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.words.bytes()
            + self.nodes.capacity() * size_of::<Node<G>>()
            + self.label_bytes
            + self.free_nodes.capacity() * size_of::<NodeId>()
            + self.edges.bytes()
            + self.depths.capacity() * size_of::<u32>()
    }

    /// The child of a node whose label begins with a level.
    fn child(&self, from: NodeId, word: Word) -> Option<NodeId> {
        if word == ANY {
            let any = self.nodes[from as usize].any;
            return (any != NO_NODE).then_some(any);
        }
        let hash = hash_edge(&self.words.hasher, from, word);
        self.edges.find(hash, |child| {
            let child = &self.nodes[child as usize];
            child.parent == from && child.label[0] == word
        })
    }

    /// The node at the end of a path.
    fn find_node(&self, path: &[Word]) -> Option<NodeId> {
        let mut id = ROOT;
        let mut rest = path;
        while let Some(&first) = rest.first() {
            id = self.child(id, first)?;
            rest = rest.strip_prefix(&self.nodes[id as usize].label[..])?;
        }
        Some(id)
    }

    /// The node at the end of a path, which is made if there is none.
    fn make_node(&mut self, path: &[Word]) -> NodeId {
        let mut id = ROOT;
        let mut rest = path;
        while let Some(&first) = rest.first() {
            let Some(child) = self.child(id, first) else {
                let leaf = self.add_node(id, rest);
                self.link(leaf);
                return leaf;
            };
            let label = &self.nodes[child as usize].label;
            let common = label.iter().zip(rest).take_while(|(one, other)| one == other).count();
            id = if common < label.len() { self.split_node(child, common) } else { child };
            rest = &rest[common..];
        }
        id
    }

    /// Inserts a node in a node's label, behind so many levels.
    fn split_node(&mut self, id: NodeId, at: usize) -> NodeId {
        let node = &mut self.nodes[id as usize];
        let parent = node.parent;
        let upper: Path = node.label[..at].into();
        let lower: Path = node.label[at..].into();
        self.unlink(id);
        let middle = self.add_node(parent, &upper);
        self.link(middle);
        self.move_node(id, middle, &lower);
        middle
    }

    /// Removes a node that is not needed any more, and joins what it held apart.
    fn prune(&mut self, id: NodeId) {
        let node = &self.nodes[id as usize];
        if id == ROOT || node.has_value() {
            return;
        }
        if node.children_len == 0 {
            let parent = node.parent;
            self.unlink(id);
            self.free_node(id);
            // Only a parent that has just one child left is joined with it: this ends here.
            self.join(parent);
        } else {
            self.join(id);
        }
    }

    /// Joins a node without a value with its only child.
    fn join(&mut self, id: NodeId) {
        let node = &self.nodes[id as usize];
        if id == ROOT || node.has_value() || node.children_len != 1 {
            return;
        }
        let (parent, child) = (node.parent, node.children);
        let labels = node.label.iter().chain(&self.nodes[child as usize].label);
        let label: Path = labels.copied().collect();
        self.unlink(child);
        self.unlink(id);
        self.free_node(id);
        self.move_node(child, parent, &label);
    }

    /// Gives a node, which is not linked, another parent and label.
    fn move_node(&mut self, id: NodeId, parent: NodeId, label: &[Word]) {
        let node = &mut self.nodes[id as usize];
        self.label_bytes -= heap_bytes(&node.label);
        node.label = label.into();
        self.label_bytes += heap_bytes(&node.label);
        node.parent = parent;
        self.link(id);
    }

    fn add_node(&mut self, parent: NodeId, label: &[Word]) -> NodeId {
        let node = Node::new(parent, label);
        self.label_bytes += heap_bytes(&node.label);
        if let Some(id) = self.free_nodes.pop() {
            self.nodes[id as usize] = node;
            return id;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as NodeId
    }

    fn free_node(&mut self, id: NodeId) {
        let node = std::mem::replace(&mut self.nodes[id as usize], Node::new(ROOT, &[]));
        self.label_bytes -= heap_bytes(&node.label);
        self.free_nodes.push(id);
    }

    /// Adds a node to the children of its parent.
    fn link(&mut self, id: NodeId) {
        let Node { parent, ref label, .. } = self.nodes[id as usize];
        let word = label[0];
        let from = &mut self.nodes[parent as usize];
        from.children_len += 1;
        from.children ^= id;
        if word == ANY {
            from.any = id;
            return;
        }
        self.edges.insert(hash_edge(&self.words.hasher, parent, word), id);
    }

    /// Removes a node from the children of its parent.
    fn unlink(&mut self, id: NodeId) {
        let Node { parent, ref label, .. } = self.nodes[id as usize];
        let word = label[0];
        let from = &mut self.nodes[parent as usize];
        from.children_len -= 1;
        from.children ^= id;
        if word == ANY {
            from.any = NO_NODE;
            return;
        }
        self.edges.remove(hash_edge(&self.words.hasher, parent, word), id);
    }

    /// Gives back the memory of an empty set.
    fn reset(&mut self) {
        self.nodes = vec![Node::new(ROOT, &[])];
        self.free_nodes = Vec::new();
        self.words.reset();
    }
}

impl<G: Copy> Node<G> {
    fn new(parent: NodeId, label: &[Word]) -> Self {
        Self {
            label: label.into(),
            parent,
            children_len: 0,
            children: 0,
            any: NO_NODE,
            here: None,
            rest: None,
        }
    }

    fn has_value(&self) -> bool {
        self.here.is_some() || self.rest.is_some()
    }

    fn value_mut(&mut self, has_rest: bool) -> &mut Option<G> {
        if has_rest { &mut self.rest } else { &mut self.here }
    }

    /// What is left of a name after the label, if that matches.
    #[inline]
    fn rest_of<'a>(&self, name: &'a [Word]) -> Option<&'a [Word]> {
        let (name, rest) = name.split_at_checked(self.label.len())?;
        // Without an early end the compiler compares several levels at once.
        let matches =
            |matches, (one, other): (&Word, &Word)| matches & ((*one == *other) | (*one == ANY));
        self.label.iter().zip(name).fold(true, matches).then_some(rest)
    }
}

fn heap_bytes(label: &Label) -> usize {
    if label.spilled() { label.capacity() * size_of::<Word>() } else { 0 }
}

fn hash_edge(hasher: &NameHasher, from: NodeId, word: Word) -> u64 {
    hasher.hash(&(u64::from(from) << 32 | u64::from(word)).to_le_bytes())
}

/// The names of levels, numbered.
struct Words {
    hasher: NameHasher,
    by_name: NameIndex<Word>,
    entries: Vec<WordEntry>,
    free: Vec<Word>,
    /// The length of all names.
    name_bytes: usize,
}

#[derive(Debug, Default)]
struct WordEntry {
    name: Box<[u8]>,
    /// How often patterns have it.
    uses: u32,
}

impl Words {
    fn new(hasher: NameHasher) -> Self {
        let (entries, free) = (Vec::new(), Vec::new());
        Self { hasher, by_name: NameIndex::new(), entries, free, name_bytes: 0 }
    }

    #[inline]
    fn find(&self, name: &[u8]) -> Option<Word> {
        let hash = self.hasher.hash(name);
        self.by_name.find(hash, |word| *self.entries[word as usize].name == *name)
    }

    /// The path of a pattern without `>`, and whether it ends with that; `None` if no pattern has such a level.
    fn find_all(&self, pattern: &Levels) -> Option<(Path, bool)> {
        let (levels, has_rest) = without_rest(pattern);
        let word = |part: &Part| match part {
            Part::Literal(name) => self.find(name),
            _ => Some(ANY),
        };
        Some((levels.iter().map(word).collect::<Option<_>>()?, has_rest))
    }

    /// As [`Self::find_all`], but counts uses and adds what is missing.
    fn take(&mut self, pattern: &Levels) -> (Path, bool) {
        let (levels, has_rest) = without_rest(pattern);
        let word = |part: &Part| match part {
            Part::Literal(name) => self.take_one(name),
            _ => ANY,
        };
        (levels.iter().map(word).collect(), has_rest)
    }

    fn take_one(&mut self, name: &[u8]) -> Word {
        if let Some(word) = self.find(name) {
            self.entries[word as usize].uses += 1;
            return word;
        }
        let entry = WordEntry { name: name.into(), uses: 1 };
        self.name_bytes += name.len();
        let word = if let Some(word) = self.free.pop() {
            self.entries[word as usize] = entry;
            word
        } else {
            self.entries.push(entry);
            (self.entries.len() - 1) as Word
        };
        self.by_name.insert(self.hasher.hash(name), word);
        word
    }

    /// Counts down the uses of a path, and removes what is not used any more.
    fn release(&mut self, path: &[Word]) {
        for word in path.iter().copied().filter(|word| *word != ANY) {
            let entry = &mut self.entries[word as usize];
            entry.uses -= 1;
            if entry.uses > 0 {
                continue;
            }
            let name = std::mem::take(&mut entry.name);
            self.name_bytes -= name.len();
            self.by_name.remove(self.hasher.hash(&name), word);
            self.free.push(word);
        }
    }

    fn reset(&mut self) {
        self.entries = Vec::new();
        self.free = Vec::new();
    }

    fn bytes(&self) -> usize {
        self.by_name.bytes()
            + self.entries.capacity() * size_of::<WordEntry>()
            + self.free.capacity() * size_of::<Word>()
            + self.name_bytes
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Words").field("entries", &self.entries).finish_non_exhaustive()
    }
}

/// The levels of a pattern without `>`, and whether it ends with that.
fn without_rest(pattern: &Levels) -> (&[Part], bool) {
    match pattern.parts() {
        [levels @ .., Part::Rest] => (levels, true),
        levels => (levels, false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: u128 = 0x243f_6a88_85a3_08d3_1319_8a2e_0370_7344;

    fn levels(text: &str) -> Levels {
        Levels::parse(text).unwrap()
    }

    fn wildcards(patterns: &[String]) -> Wildcards<u32> {
        let mut wildcards = Wildcards::new(SECRET);
        for (value, pattern) in (0..).zip(patterns) {
            assert_eq!(wildcards.insert(&levels(pattern), value), None, "{pattern} twice");
        }
        wildcards
    }

    fn found(wildcards: &Wildcards<u32>, name: &str) -> Vec<u32> {
        let mut found = Vec::new();
        wildcards.lookup(name.as_bytes(), &mut found);
        found.sort_unstable();
        found
    }

    #[test]
    fn a_name_finds_the_patterns_that_match_it() {
        let patterns =
            [">", "/topic/>", "/topic/*", "/topic/*/c", "/topic/a.*", "*.*.a.b", "/topic/a"];
        let mut wildcards = wildcards(&patterns.map(String::from));
        assert_eq!(found(&wildcards, "/topic"), [0]);
        assert_eq!(found(&wildcards, ".topic.a"), [0, 1, 2, 6]);
        assert_eq!(found(&wildcards, "/topic/a/b"), [0, 1, 4, 5]);
        assert_eq!(found(&wildcards, "/topic/a.c"), [0, 1, 3, 4]);
        assert_eq!(found(&wildcards, "/topic/"), [0, 1, 2]);
        assert_eq!(found(&wildcards, ""), [0]);
        assert_eq!(wildcards.find(&levels(".topic.a/*")), Some(4));
        assert_eq!(wildcards.find(&levels("/topic/*/*")), None);
        assert_eq!(wildcards.insert(&levels(".topic.*"), 7), Some(2));
        assert_eq!(wildcards.remove(&levels("/topic/*/d")), None);
        assert_eq!(wildcards.remove(&levels("/topic/*")), Some(7));
        assert_eq!(wildcards.remove(&levels("/topic/*")), None);
        assert_eq!(found(&wildcards, "/topic/a"), [0, 1, 6]);
        assert_eq!(wildcards.len(), patterns.len() - 1);
    }

    #[test]
    fn a_pattern_has_so_many_levels_at_most() {
        let limits = Limits { wildcard_levels_max: 3, ..Limits::default() };
        assert!(check(Levels::count("/topic/*"), &limits).is_ok());
        assert!(check(Levels::count("a.b.>"), &limits).is_ok());
        let fault = check(Levels::count("/topic/*/>"), &limits).unwrap_err();
        assert_eq!(fault.description, "more than the 3 that wildcard_levels_max allows");
    }

    /// Patterns with `*` or the level for each bit of their number, and then the tail.
    fn all_choices(len: u32, level: &str, tail: &str) -> Vec<String> {
        let choose = |number: u32, bit: u32| if number >> bit & 1 == 0 { "*" } else { level };
        let bits = u32::BITS - (len - 1).leading_zeros();
        (0..len)
            .map(|number| {
                let levels = (0..bits).map(|bit| choose(number, bit)).collect::<Vec<_>>();
                format!("/topic.{}{tail}", levels.join("."))
            })
            .collect()
    }

    #[test]
    fn a_lookup_visits_few_nodes_whatever_the_patterns_are() {
        let long = "b".repeat(300);
        let longer = format!(".{}", "b".repeat(4000));
        let deep = format!("{}.c", ".a".repeat(60));
        for (level, tail) in [("a", ""), ("a", &*deep), ("a", ".>"), (&*long, ""), ("a", &*longer)]
        {
            let patterns = all_choices(1000, level, tail);
            let wildcards = wildcards(&patterns);
            let name = format!("/topic{}{tail}", format!(".{level}").repeat(10));
            let mut found = Vec::new();
            let work = wildcards.lookup(name.as_bytes(), &mut found);
            assert_eq!(found.len(), 1000);
            assert!(work > 1000 && work < 2100, "{work} for {level} and {tail}");
            // A name that fits nowhere, with as many levels.
            let work = wildcards.lookup(&b".".repeat(4096), &mut found);
            assert!(work < 150, "{work} for {level} and {tail}");
        }
    }

    #[test]
    fn patterns_that_do_not_fit_are_not_visited() {
        let wide: Vec<_> = (0..100_000).map(|number| format!("/topic/{number}/*")).collect();
        let mut wildcards = wildcards(&wide);
        let mut found = Vec::new();
        let work = wildcards.lookup(b"/topic/77777/x", &mut found);
        assert!(found == [77_777] && work < 10, "{work}");
        let held = wildcards.bytes();
        for pattern in wide.iter().skip(1) {
            assert!(wildcards.remove(&levels(pattern)).is_some());
        }
        assert_eq!((wildcards.edges.len(), wildcards.words.by_name.len()), (1, 3));
        let index_bytes = wildcards.edges.bytes() + wildcards.words.by_name.bytes();
        assert!(wildcards.bytes() < held && index_bytes < 1_000, "{index_bytes}");
        assert_eq!(wildcards.remove(&levels(&wide[0])), Some(0));
        assert!(wildcards.is_empty() && wildcards.bytes() < 1000, "{}", wildcards.bytes());
    }

    #[test]
    fn patterns_of_thousands_of_levels_share_nodes_and_names() {
        let patterns: Vec<_> =
            (1..1000).map(|number| format!("/topic{}.>", ".a".repeat(2 * number))).collect();
        let mut wildcards = wildcards(&patterns);
        let mut found = Vec::new();
        let name = format!("/topic{}", ".a".repeat(2040));
        let work = wildcards.lookup(name.as_bytes(), &mut found);
        assert_eq!(found.len(), 999);
        assert!(work < 3100, "{work}");
        assert!(wildcards.bytes() < 400_000, "{}", wildcards.bytes());
        for pattern in &patterns {
            assert!(wildcards.remove(&levels(pattern)).is_some());
        }
        assert!(wildcards.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(String),
        Remove(String),
    }

    fn pattern() -> impl Strategy<Value = String> {
        let level = || prop_oneof![Just("a"), Just("b"), Just("*"), Just("long")];
        let first = prop_oneof![Just(""), level()];
        let others = proptest::collection::vec((prop_oneof![Just('.'), Just('/')], level()), 0..7);
        (first, others, any::<bool>()).prop_map(|(first, others, has_rest)| {
            let mut text = first.to_owned();
            for (separator, level) in others {
                text.push(separator);
                text.push_str(level);
            }
            if has_rest {
                text.push_str(if text.is_empty() { ">" } else { "/>" });
            }
            text
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![pattern().prop_map(Step::Insert), pattern().prop_map(Step::Remove)]
    }

    fn same(one: &str, other: &str) -> bool {
        one.replace('.', "/") == other.replace('.', "/")
    }

    /// Checks what holds between the parts.
    fn check_parts(wildcards: &Wildcards<u32>) {
        let used = wildcards.nodes.len() - wildcards.free_nodes.len();
        assert!(used <= 2 * wildcards.len() + 1, "{used} nodes");
        let heap: usize = wildcards.nodes.iter().map(|node| heap_bytes(&node.label)).sum();
        assert_eq!(wildcards.label_bytes, heap);
        let names: usize = wildcards.words.entries.iter().map(|entry| entry.name.len()).sum();
        assert_eq!(wildcards.words.name_bytes, names);
        let is_free = |id: NodeId| wildcards.free_nodes.contains(&id);
        for (id, node) in (0..).zip(&wildcards.nodes).filter(|(id, _)| !is_free(*id)) {
            let children: Vec<_> = (0..)
                .zip(&wildcards.nodes)
                .filter(|(child, node)| *child != ROOT && node.parent == id && !is_free(*child))
                .collect();
            assert_eq!(children.len(), node.children_len as usize);
            assert_eq!(children.iter().fold(0, |all, (child, _)| all ^ child), node.children);
            assert!(id == ROOT || node.has_value() || children.len() > 1, "joined");
            for (child, node) in children {
                assert_eq!(wildcards.child(id, node.label[0]), Some(child));
            }
        }
    }

    proptest! {
        #[test]
        fn a_lookup_finds_what_matches(
            steps in proptest::collection::vec(step(), 0..60),
            names in proptest::collection::vec("[ab./*>]{0,12}|/?(a|b|long)([./](a|b|long)){0,6}", 1..20),
        ) {
            let mut wildcards = Wildcards::new(SECRET);
            let mut model: Vec<(String, u32)> = Vec::new();
            for (value, step) in (0..).zip(steps) {
                let (Step::Insert(text) | Step::Remove(text)) = &step;
                let held = model.iter().position(|(held, _)| same(held, text));
                let old = held.map(|place| model.swap_remove(place).1);
                prop_assert_eq!(wildcards.find(&levels(text)), old);
                if let Step::Insert(text) = step {
                    prop_assert_eq!(wildcards.insert(&levels(&text), value), old);
                    model.push((text, value));
                } else {
                    prop_assert_eq!(wildcards.remove(&levels(text)), old);
                }
                prop_assert_eq!(wildcards.len(), model.len());
                check_parts(&wildcards);
            }
            for name in names {
                let matching = model.iter().filter(|(text, _)| levels(text).matches(name.as_bytes()));
                let mut expected: Vec<_> = matching.map(|(_, value)| *value).collect();
                expected.sort_unstable();
                prop_assert_eq!(found(&wildcards, &name), expected, "{}", name);
            }
        }
    }
}
