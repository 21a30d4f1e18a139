//! The file that a configuration comes from, if any: for messages, and for the paths in it.

use std::path::{Path, PathBuf};

use super::fault::{ConfigFault, Offence, Place};
use super::lines::KeyLines;

/// Where values that are not overruled stand.
pub(super) struct Origin<'a> {
    pub(super) path: Option<&'a Path>,
    pub(super) lines: &'a KeyLines,
}

impl Origin<'_> {
    /// Where `key` stands.
    pub(super) fn place(&self, key: &str) -> Place {
        let Some(path) = self.path else { return Place::Setting(key.into()) };
        let line = self.lines.line_near(key);
        Place::File { path: path.into(), line, key: Some(key.into()) }
    }

    /// An offence at `key`.
    pub(super) fn fault(&self, key: &str, offence: Offence) -> ConfigFault {
        ConfigFault { place: self.place(key), offence }
    }

    /// A path in the file is relative to the file, so that it means the same wherever the broker
    /// is started.
    pub(super) fn beside(&self, path: &Path) -> PathBuf {
        self.path.and_then(Path::parent).map_or_else(|| path.into(), |parent| parent.join(path))
    }
}
