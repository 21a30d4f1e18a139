//! The sources, as text.

use std::path::{Path, PathBuf};

use crate::regex;

/// The trees of code in programs and libraries.
pub(crate) const TREES: &[&str] = &["src", "bench/src", "clients/rust/src"];

/// A source file.
pub(crate) struct Source {
    /// Its path in its tree.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    /// Its top-level module.
    pub(crate) fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Its lines without comments.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Its text before the tests at its foot.
    pub(crate) fn without_tests(&self) -> &str {
        let tests = regex(
            r"(?m)^#\[cfg\((all\()?test\b[^\n]*\n(#\[[^\n]*\n)*(pub(\(crate\))? )?mod [a-z_]+ \{",
        );
        let end = tests.find(self.text.as_bytes()).map_or(self.text.len(), |found| found.start());
        &self.text[..end]
    }

    /// Its modules that are compiled for tests only.
    fn test_modules(&self) -> impl Iterator<Item = String> {
        let declared =
            regex(r"(?m)^#\[cfg\((all\()?test\b[^\n]*\n(pub(\(crate\))? )?mod ([a-z_]+);");
        let folder = folder_of(&self.path);
        let names: Vec<_> = declared
            .captures_iter(self.text.as_bytes())
            .map(|captures| String::from_utf8_lossy(&captures[4]).into_owned())
            .collect();
        names.into_iter().map(move |name| format!("{folder}{name}.rs"))
    }
}

/// The folder of a file's child modules, with a slash behind it.
fn folder_of(path: &str) -> String {
    let (folder, name) = path.split_at(path.rfind('/').map_or(0, |at| at + 1));
    match name {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        _ => path.replace(".rs", "/"),
    }
}

/// All files of a folder.
pub(crate) fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    assert!(files.len() > 5, "where are the sources of {folder}?");
    let read = |path: PathBuf| Source {
        text: std::fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/"),
    };
    files.into_iter().map(read).collect()
}

/// All files of a folder, without those that are compiled for tests only.
pub(crate) fn program_sources(folder: &str) -> Vec<Source> {
    let mut all = sources(folder);
    let tests: Vec<_> = all.iter().flat_map(Source::test_modules).collect();
    all.retain(|source| !tests.contains(&source.path));
    all
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Skips what cargo builds beside a package of its own.
        if path.ends_with("target") {
            continue;
        }
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}
