//! The encoding of a connection's frames: the dialect and its version.

use crate::dialect::Dialect;
use crate::stomp::Version;

/// The form in which frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// The classic dialect.
    Classic,
    /// A version of standard STOMP; the lowest until one is negotiated.
    Standard(Version),
}

impl Encoding {
    /// The encoding for a connection that has not logged in.
    pub fn before_login(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Classic => Self::Classic,
            Dialect::Standard => Self::Standard(Version::V1_0),
        }
    }

    /// The index of the encoding among all.
    #[inline]
    pub fn index(self) -> usize {
        match self {
            Self::Classic => 0,
            Self::Standard(version) => 1 + version as usize,
        }
    }
}
