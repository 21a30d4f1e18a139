//! The file that a configuration comes from, for messages and for relative paths.

use std::path::{Path, PathBuf};

use super::fault::{ConfigFault, Offence, Place};
use super::lines::KeyLines;

/// The file of settings that are not overridden, if there is one.
pub(super) struct Source<'a> {
    pub(super) path: Option<&'a Path>,
    pub(super) lines: &'a KeyLines,
}

impl Source<'_> {
    /// The place of `key`.
    pub(super) fn place(&self, key: &str) -> Place {
        let Some(path) = self.path else { return Place::Setting(key.into()) };
        let line = self.lines.line_near(key);
        Place::File { path: path.into(), line, key: Some(key.into()) }
    }

    /// A fault at `key`.
    pub(super) fn fault(&self, key: &str, offence: Offence) -> ConfigFault {
        ConfigFault { place: self.place(key), offence }
    }

    /// Resolves a path of the file relative to the file's directory, so that it does not depend on
    /// where the broker is started.
    pub(super) fn beside(&self, path: &Path) -> PathBuf {
        self.path.and_then(Path::parent).map_or_else(|| path.into(), |parent| parent.join(path))
    }
}
