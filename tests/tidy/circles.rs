//! There are no import circles.
//!
//! The rule is about siblings: no module in a folder may reach itself by imports, where everything in a
//! folder counts as the folder. So neither two files nor two folders depend on each other, and each can be
//! read, moved and compiled after those that it uses. A module and its children are not siblings: a child
//! may use what its parent defines, and a parent consists of its children. But an item that a parent only
//! re-exports counts as the item itself: a child that imports its sibling's type from `super` depends on its
//! sibling.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{Source, TREES, program_sources};
use crate::{hold_to, regex};

#[test]
fn there_are_no_import_circles() {
    let mut found = Vec::new();
    for tree in TREES {
        let graph = Graph::of(&program_sources(tree));
        assert!(
            graph.edges.values().map(BTreeMap::len).sum::<usize>() > 20,
            "no imports in {tree}?"
        );
        for (folder, circle) in graph.circles() {
            let place = [tree, &*folder.replace("::", "/")].join("/");
            graph.tell(&folder, &circle);
            found.push((place.trim_end_matches('/').to_owned(), circle.join(", ")));
        }
    }
    hold_to(&[], found, "neighbours do not need each other");
}

/// Modules and their dependencies.
struct Graph {
    modules: BTreeMap<String, Module>,
    /// In each folder: the siblings of which one uses another, with the imports.
    edges: BTreeMap<String, BTreeMap<(String, String), BTreeSet<String>>>,
}

/// A module, `a::b`; the root has no name.
#[derive(Default)]
struct Module {
    /// The paths in it, as written.
    paths: Vec<Vec<String>>,
    /// The names that it imports, and their paths.
    imports: BTreeMap<String, Vec<String>>,
}

impl Graph {
    fn of(sources: &[Source]) -> Self {
        let mut graph = Self { modules: BTreeMap::new(), edges: BTreeMap::new() };
        for source in sources {
            graph.modules.entry(module_of(&source.path)).or_default().read(source);
        }
        let mut found = Vec::new();
        for (user, module) in &graph.modules {
            for path in &module.paths {
                if let Some(used) = graph.resolve(user, path, 0) {
                    found.push((user.clone(), used, path.join("::")));
                }
            }
        }
        for (user, used, path) in found {
            graph.note(&user, &used, path);
        }
        graph
    }

    /// The module that a path leads to, if it is in this crate.
    fn resolve(&self, from: &str, path: &[String], depth: usize) -> Option<String> {
        assert!(depth < 20, "{from} imports {path:?} from itself");
        let (first, mut rest) = path.split_first()?;
        let mut module = match &**first {
            "crate" => String::new(),
            "self" => from.to_owned(),
            "super" => parent_of(from).to_owned(),
            name => Some(join(from, name)).filter(|module| self.modules.contains_key(module))?,
        };
        while let Some((name, behind)) = rest.split_first() {
            let below = join(&module, name);
            if name == "super" {
                module = parent_of(&module).to_owned();
            } else if self.modules.contains_key(&below) {
                module = below;
            } else if let Some(stands_for) = self.modules[&module].imports.get(name) {
                // A path into another crate ends here.
                let stands_for = [stands_for, behind].concat();
                return self.resolve(&module, &stands_for, depth + 1);
            } else {
                break;
            }
            rest = behind;
        }
        Some(module)
    }

    fn note(&mut self, user: &str, used: &str, path: String) {
        let (user_names, used_names) = (names(user), names(used));
        let common = user_names.iter().zip(&used_names).take_while(|(a, b)| a == b).count();
        let (Some(one), Some(other)) = (user_names.get(common), used_names.get(common)) else {
            return;
        };
        let edge = ((*one).to_owned(), (*other).to_owned());
        let folder = self.edges.entry(user_names[..common].join("::")).or_default();
        folder.entry(edge).or_default().insert(format!("{user} uses {path}"));
    }

    /// Siblings that reach each other, with their folder.
    fn circles(&self) -> Vec<(String, Vec<String>)> {
        let mut circles = Vec::new();
        for (folder, edges) in &self.edges {
            let all: BTreeSet<&str> = edges.keys().map(|(user, _)| &**user).collect();
            let reached: BTreeMap<_, _> = all.iter().map(|one| (*one, reach(edges, one))).collect();
            let mut seen = BTreeSet::new();
            for one in all.iter().filter(|one| reached[**one].contains(**one)) {
                let with_it = |other: &&&str| {
                    reached[*one].contains(**other)
                        && reached.get(**other).is_some_and(|back| back.contains(*one))
                };
                let circle: Vec<_> =
                    all.iter().filter(with_it).map(|name| (*name).to_owned()).collect();
                if seen.insert(circle.clone()) {
                    circles.push((folder.clone(), circle));
                }
            }
        }
        circles
    }

    /// Lists the imports in a circle.
    fn tell(&self, folder: &str, circle: &[String]) {
        for ((user, used), paths) in &self.edges[folder] {
            if circle.contains(user) && circle.contains(used) {
                println!("{folder}: {user} -> {used}: {paths:?}");
            }
        }
    }
}

impl Module {
    fn read(&mut self, source: &Source) {
        let comments = regex(r"(?m)//[^\n]*$");
        let text = comments.replace_all(source.without_tests().as_bytes(), &b""[..]).into_owned();
        let imports = regex(r"(?m)^\s*(?:pub(?:\([^)]*\))? )?use ([^;]+);");
        for captures in imports.captures_iter(&text) {
            let tree = String::from_utf8_lossy(&captures[1]).replace(" as ", "@");
            let tree: String = tree.split_whitespace().collect();
            expand(&tree, &[], &mut |path, name| {
                self.imports.insert(name.to_owned(), path.to_vec());
                self.paths.push(path.to_vec());
            });
        }
        let rest = imports.replace_all(&text, &b""[..]);
        let mentioned = regex(r"\b(?:crate|super|self)(?:::[A-Za-z_][A-Za-z0-9_]*)+");
        for found in mentioned.find_iter(&rest) {
            let path = String::from_utf8_lossy(found.as_bytes());
            self.paths.push(path.split("::").map(str::to_owned).collect());
        }
    }
}

/// Passes each path behind a `use`, and its name, to `say`.
fn expand(tree: &str, before: &[String], say: &mut impl FnMut(&[String], &str)) {
    let (head, group) = match tree.split_once('{') {
        Some((head, group)) => (head, group.strip_suffix('}')),
        None => (tree, None),
    };
    let mut path = before.to_vec();
    path.extend(head.split("::").filter(|name| !name.is_empty()).map(str::to_owned));
    let Some(group) = group else {
        let last = path.pop().expect("a name");
        let (last, name) = last.split_once('@').map_or((&*last, &*last), |pair| pair);
        if last != "self" || path.is_empty() {
            path.push(last.to_owned());
        }
        let name = if name == "self" { path[path.len() - 1].clone() } else { name.to_owned() };
        return say(&path, &name);
    };
    let mut depth = 0_usize;
    let parts = group.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.filter(|part| !part.is_empty()).for_each(|part| expand(part, &path, say));
}

/// All siblings that are reached from one by one step or more.
fn reach<'g>(
    edges: &'g BTreeMap<(String, String), BTreeSet<String>>,
    from: &str,
) -> BTreeSet<&'g str> {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![from.to_owned()];
    while let Some(one) = waiting.pop() {
        for (_, used) in edges.keys().filter(|(user, _)| *user == one) {
            if reached.insert(&**used) {
                waiting.push(used.clone());
            }
        }
    }
    reached
}

fn module_of(path: &str) -> String {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("mod").map_or(path, |folder| folder.trim_end_matches('/'));
    if matches!(path, "lib" | "main") { String::new() } else { path.replace('/', "::") }
}

fn names(module: &str) -> Vec<&str> {
    module.split("::").filter(|name| !name.is_empty()).collect()
}

fn parent_of(module: &str) -> &str {
    module.rsplit_once("::").map_or("", |(parent, _)| parent)
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

#[test]
fn circles_are_found_through_groups_renames_and_reexports() {
    let circles = |files: &[(&str, &str)]| {
        let source = |(path, text): &(&str, &str)| Source {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        Graph::of(&files.iter().map(source).collect::<Vec<_>>()).circles()
    };
    let circle = |folder: &str, of: &[&str]| {
        vec![(folder.to_owned(), of.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())]
    };
    let lib = ("lib.rs", "pub mod a;\npub mod b;\n");
    let a = ("a.rs", "use crate::{b::{C, D as E}};\n");
    assert_eq!(circles(&[lib, a, ("b.rs", "use super::a;\n")]), circle("", &["a", "b"]));
    assert_eq!(circles(&[lib, a, ("b.rs", "fn f() { crate::a::g() }\n")]), circle("", &["a", "b"]));
    assert_eq!(circles(&[lib, a, ("b.rs", "// use super::a;\n")]), []);
    let test = "#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n";
    assert_eq!(circles(&[lib, a, ("b.rs", test)]), [], "tests may use what they like");

    // An item that the parent defines is not a sibling's; one that it re-exports is.
    let face = ("a/mod.rs", "mod c;\nmod d;\npub(crate) use d::{D as Given};\npub struct Own;\n");
    let c = ("a/c.rs", "use super::{Given, Own};\n");
    assert_eq!(circles(&[face, c, ("a/d.rs", "use super::Own;\n")]), []);
    assert_eq!(circles(&[face, c, ("a/d.rs", "use super::c::C;\n")]), circle("a", &["c", "d"]));

    // Two folders depend on each other, although no two of their files do.
    let folders = [
        ("a/mod.rs", "mod c;\nmod d;\n"),
        ("a/c.rs", "use crate::b::e::E;\n"),
        ("a/d.rs", ""),
        ("b/mod.rs", "mod e;\nmod f;\n"),
        ("b/e.rs", ""),
        ("b/f.rs", "use crate::a::d::D;\n"),
    ];
    assert_eq!(circles(&folders), circle("", &["a", "b"]));
}
