//! What the tests share: a broker in a process of its own, a blocking client, and the scenarios
//! that hold on every transport.

pub(crate) mod client;
pub(crate) mod frame;
pub(crate) mod scenarios;
pub(crate) mod server;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a condition may take that is expected to come true; far more than it ever does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A directory of a test's own, removed in the end.
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// An empty one.
    pub(crate) fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("it-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
