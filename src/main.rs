//! The program `com-broker`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use com_broker::cli::send::{self, SendArguments};
use com_broker::cli::watch::{self, WatchArguments};

#[derive(Parser)]
#[command(name = "com-broker", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Log in, send a message, wait until the broker has passed it on
    Send(SendArguments),
    /// Log in, watch clients, print what arrives
    Watch(WatchArguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Send(arguments) => send::run(&arguments),
        Command::Watch(arguments) => watch::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("com-broker: {fault}");
            fault.exit_code()
        }
    }
}
