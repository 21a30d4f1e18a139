//! Measurements of the broker and their formats: latency histograms, counters, counted memory, a table for the log and
//! files for the HdrHistogram tools.
//!
//! It uses no other module but the calendar, and no clock: every time is an argument.
//!
//! ```text
//! record ──► Latencies ──take_snapshot──► Snapshot ──┬─► percentile_table      the totals
//!            interval, total                         └─► write_files   .hlog   the interval
//!                                                                      .hgrm   the totals
//! ```
//!
//! The first two steps are done by the loop and take nanoseconds and microseconds. The others compress,
//! format and wait for a disk, so that [`Exporter`] does them on a thread of its own.

mod accounts;
mod counters;
mod exporter;
mod files;
mod latencies;
mod table;

pub(crate) use accounts::Accounts;
pub(crate) use counters::Counters;
pub(crate) use exporter::Exporter;
pub(crate) use files::{probe_directory, try_directory};
pub use latencies::Latencies;
pub(crate) use latencies::Stage;
