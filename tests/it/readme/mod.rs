//! The Rust example of README.md: that it stands there as it is compiled here, and that it works.

mod hello;

use crate::support::server::Setup;

#[test]
fn the_rust_example_says_hello() {
    let server = Setup::new().without_keys().start();
    let heard = hello::say_hello(&format!("tcp://{}", server.address())).unwrap();
    assert_eq!(heard.as_deref(), Some("hello, me"));
}

#[test]
fn the_rust_example_stands_in_the_readme() {
    let root = env!("CARGO_MANIFEST_DIR");
    let readme = std::fs::read_to_string(format!("{root}/README.md")).unwrap();
    let (_, block) = readme.split_once("```rust\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let compiled = include_str!("hello.rs").replace("pub(crate) fn", "fn");
    let (_, example) = compiled.split_once("\n\n").unwrap();
    assert_eq!(block, example);
}

#[test]
fn the_readme_tells_the_instructions_that_were_counted() {
    let root = env!("CARGO_MANIFEST_DIR");
    let read = |path: &str| std::fs::read_to_string(format!("{root}/{path}")).unwrap();
    let counted = read("bench/instructions.txt");
    let counted = counted.lines().find_map(|line| line.strip_prefix("sent ")).unwrap().to_owned();
    let readme = read("README.md").replace(",", "");
    for (before, behind) in [
        ("parsed dispatched encoded and queued takes\n", " instructions"),
        ("| instructions for a SEND with one receiver (bench/instructions) | ", " |"),
        ("- **1000 instructions**: ", " now"),
    ] {
        let (_, rest) = readme.split_once(before).expect(before);
        assert_eq!(rest.split_once(behind).unwrap().0, counted, "{before}");
    }
}
