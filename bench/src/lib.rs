//! A load generator for message brokers: scenarios, protocols and reports.
//!
//! ```text
//! arguments                                       the command line
//!     ▲
//!    run ─► scenario ─► driver ─► protocol         messages, connections, encoding
//!     ▲        └─► check, statistics ─► outcome    arrivals and latencies
//!  compare ─► report                               many runs: medians, ratios, bars
//!     ▲
//!    cli ─► report, threshold, relay               reports for people and programs
//! ```

pub mod arguments;
pub mod check;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod driver;
pub mod fault;
pub mod machine;
pub mod outcome;
pub mod process;
pub mod progress;
pub mod protocol;
pub mod relay;
pub mod report;
pub mod run;
pub mod scenario;
pub mod stamp;
pub mod statistics;
pub mod target;
pub mod threshold;
