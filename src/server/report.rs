//! How a server came to its end.

use crate::engine::Engine;
use crate::reactor::{Outcome, TcpSocket};

/// How a server came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Whether it drained, or left at once.
    pub outcome: Outcome,
    /// Connections that ended from the beginning of the drain on.
    pub connections: u64,
    /// Those among them that were cut before all was sent to them.
    pub connections_cut: u64,
}

impl Report {
    pub(super) fn new(outcome: Outcome, engine: &Engine<TcpSocket>) -> Self {
        let sums = engine.drain_sums();
        let cut = sums.iter().filter(|sum| sum.is_cut);
        Self {
            outcome,
            connections: sums.iter().map(|sum| sum.connections).sum(),
            connections_cut: cut.map(|sum| sum.connections).sum(),
        }
    }

    /// Tells the log how the connections ended, and what was counted.
    pub(super) fn log(self, engine: &Engine<TcpSocket>) {
        // Lines about single connections may fill the way to the log: these shall not be dropped.
        log::logger().flush();
        for sum in engine.drain_sums() {
            if sum.is_cut {
                log::warn!("cut before all was sent to them {pairs}", pairs = sum);
            } else {
                log::info!("closed in the drain {pairs}", pairs = sum);
            }
        }
        let Self { connections, connections_cut, .. } = self;
        if connections_cut == 0 {
            log::info!("drained connections={connections}");
        } else {
            let connections = connections - connections_cut;
            log::warn!(
                "drained in part connections={connections} connections_cut={connections_cut}"
            );
        }
        log::info!("totals {pairs}", pairs = engine.counters());
    }
}
