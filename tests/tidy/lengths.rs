//! The bound on the length of files.

use crate::hold_to;
use crate::sources::{TREES, program_sources};

/// Lines of a file without its tests.
const LINES_MAX: usize = 600;

#[test]
fn no_file_is_long() {
    let mut found = Vec::new();
    for tree in TREES {
        for source in program_sources(tree) {
            let lines = source.without_tests().lines().count();
            println!("{lines:5} {tree}/{}", source.path);
            if lines > LINES_MAX {
                found.push((format!("{tree}/{}", source.path), "is long".to_owned()));
            }
        }
    }
    hold_to(&[], found, &format!("a file has at most {LINES_MAX} lines without its tests"));
}
