//! The program `com-broker-bench`.

use std::process::ExitCode;

use clap::Parser;
use com_broker_bench::arguments::Arguments;
use com_broker_bench::cli;

fn main() -> ExitCode {
    match cli::run(&Arguments::parse()) {
        Ok(code) => code,
        Err(fault) => {
            eprintln!("com-broker-bench: {fault}");
            fault.exit_code()
        }
    }
}
