//! The program `com-broker`.

use std::process::ExitCode;

use clap::Parser;
use com_broker::internal::cli::{self, Arguments};

fn main() -> ExitCode {
    match cli::run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("com-broker: {fault}");
            fault.exit_code()
        }
    }
}
