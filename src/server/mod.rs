//! The composition root: binds, builds, runs and drains.

pub mod certificates;
pub mod identity;

use std::fmt;

use crate::config::Config;

/// Runs the broker until it is told to stop.
///
/// # Errors
/// Names what could not be started.
pub fn run(config: Config) -> Result<(), ServeFault> {
    drop(config);
    Err(ServeFault)
}

/// Why the broker does not run.
#[derive(Debug)]
pub struct ServeFault;

impl fmt::Display for ServeFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("there is no server yet")
    }
}

impl std::error::Error for ServeFault {}
