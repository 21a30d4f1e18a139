//! Replays the corpus of the fuzzer, past crashes included, so that every ordinary test run covers the
//! fuzz targets.

#[expect(unreachable_pub, reason = "the fuzz package shares the file as its library")]
#[path = "../fuzz/targets.rs"]
mod targets;

use std::fs;
use std::path::Path;

macro_rules! replay {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target), targets::$target);
        })*

        #[test]
        fn every_corpus_has_a_target() {
            let targets = [$(stringify!($target),)*];
            for entry in fs::read_dir(corpus()).expect("there is a corpus") {
                let name = entry.expect("it can be read").file_name();
                assert!(targets.iter().any(|target| *name == **target), "{name:?}");
            }
        }
    };
}

replay! {
    classic_frame headers standard_stream upgrade_request websocket_bytes length_prefix
    session_script config_file
}

fn corpus() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus"))
}

fn replay(name: &str, target: fn(&[u8])) {
    let mut count = 0;
    for entry in fs::read_dir(corpus().join(name)).expect("the target has a corpus") {
        let path = entry.expect("it can be read").path();
        // Shown when the test fails, for which the last one is the reason.
        println!("{}", path.display());
        target(&fs::read(&path).expect("it can be read"));
        count += 1;
    }
    assert!(count > 0, "{name} has no corpus");
}
