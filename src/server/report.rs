//! The report on how a server ended.

use log::Level;

use crate::engine::Engine;
use crate::reactor::{Outcome, TcpSocket};

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Whether it drained or ended at once.
    pub outcome: Outcome,
    /// Connections that ended since the drain began.
    pub connections: u64,
    /// Those among them that were closed with unsent bytes.
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

    /// Logs how the connections ended, and the counters.
    pub(super) fn log(self, engine: &Engine<TcpSocket>) {
        // Lines about single connections may have filled the log's channel; these lines must not be
        // dropped.
        log::logger().flush();
        for sum in engine.drain_sums() {
            if sum.is_cut {
                sum.log(Level::Warn, "cut before all was sent to them");
            } else {
                sum.log(Level::Info, "closed in the drain");
            }
        }
        let Self { connections, connections_cut, .. } = self;
        if connections_cut == 0 {
            log::info!(connections; "drained");
        } else {
            let connections = connections - connections_cut;
            log::warn!(connections, connections_cut; "drained in part");
        }
        engine.counters().log();
    }
}
