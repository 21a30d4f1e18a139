//! A load generator for message brokers: scenarios, protocols, and what is told of a run.
//!
//! ```text
//! cli ─► scenario ─► driver ─► protocol          what is sent, over what, in which octets
//!   │        └─► check, statistics ─► outcome    what arrived, and when
//!   └─► compare, report, threshold               what people and programs are told
//! ```

pub mod check;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod driver;
pub mod fault;
pub mod outcome;
pub mod process;
pub mod progress;
pub mod protocol;
pub mod relay;
pub mod report;
pub mod scenario;
pub mod stamp;
pub mod statistics;
pub mod target;
pub mod threshold;
