//! A load generator for message brokers: scenarios, protocols, and what is told of a run.
//!
//! ```text
//! arguments                                       what the command line says
//!     ▲
//!    run ─► scenario ─► driver ─► protocol         what is sent, over what, in which bytes
//!     ▲        └─► check, statistics ─► outcome    what arrived, and when
//!  compare ─► report                               many runs: medians, ratios, bars
//!     ▲
//!    cli ─► report, threshold, relay               what people and programs are told
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
