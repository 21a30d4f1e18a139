//! What the broker measures about itself, and the forms in which it hands that out: latency
//! histograms, counters, a table for the log and files for the HdrHistogram tools.
//!
//! It knows nothing else of ours, and no clock: every time is an argument.
//!
//! ```text
//! record ──► Latencies ──take_snapshot──► Snapshot ──┬─► percentile_table      the totals
//!            interval, total                         └─► write_files   .hlog   the interval
//!                                                                      .hgrm   the totals
//! ```
//!
//! The first two steps are the loop's and cost nanoseconds and microseconds. The rest compresses,
//! formats and waits for a disk, so [`Exporter`] does it on a thread of its own.

mod calendar;
mod counters;
mod exporter;
mod files;
mod latencies;
mod table;

pub(crate) use calendar::Timestamp;
pub(crate) use counters::Counters;
pub(crate) use exporter::Exporter;
pub(crate) use files::try_directory;
pub use latencies::Latencies;
pub(crate) use latencies::Stage;
