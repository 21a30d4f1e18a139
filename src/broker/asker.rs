//! Who asks for room in a table that all sessions share.

use super::ids::SessionId;

/// Who asks for room.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    Session(SessionId),
    /// Nobody: what there is has to do, and nobody pays.
    Nobody,
}

/// Purposes for which subscriptions of ended sessions are sought.
pub(super) const PURPOSES: usize = 4;
