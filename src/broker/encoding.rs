//! How frames are written for a connection.

use crate::dialect::Dialect;
use crate::stomp::Version;

/// How frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As the classic dialect does.
    Classic,
    /// As a version of standard STOMP does; the lowest, until a version is agreed.
    Standard(Version),
}

impl Encoding {
    /// What a connection reads until it has logged in.
    pub fn before_login(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Classic => Self::Classic,
            Dialect::Standard => Self::Standard(Version::V1_0),
        }
    }

    /// The place of the encoding among all.
    #[inline]
    pub fn index(self) -> usize {
        match self {
            Self::Classic => 0,
            Self::Standard(version) => 1 + version as usize,
        }
    }
}
