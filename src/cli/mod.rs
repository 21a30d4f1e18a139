//! The command line: [`Arguments`] mirrors it, [`run`] does what it asks for.

mod allocator;
mod certs;
mod check;
mod login;
mod send;
mod serve;
mod watch;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{self, ConfigFault};
use crate::server::ServeFault;
use crate::server::certificates::CertificateFault;
use crate::server::identity::IdentityFault;

pub(crate) use certs::CertsArguments;
pub(crate) use login::LoginFault;
pub(crate) use send::SendArguments;
pub(crate) use serve::ServeArguments;
pub(crate) use watch::WatchArguments;

/// A message broker: clients log in under a name and a profile, get an address, and send messages
/// to any address, over TCP, TLS and WebSocket.
///
/// Without a command, com-broker serves. Without a configuration, it serves on loopback addresses
/// with development keys and certificates, and says so.
#[derive(Debug, Parser)]
#[command(
    name = "com-broker",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  com-broker                                      serve on 127.0.0.1:6661 and :6662, for development
  com-broker config --default > broker.toml       begin a configuration
  com-broker check --config broker.toml           see what it amounts to
  com-broker serve --config broker.toml           serve with it"
)]
pub struct Arguments {
    /// The command; `serve` if absent.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Arguments of `serve` if no command is given.
    #[command(flatten)]
    pub serve: ServeArguments,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker
    Serve(ServeArguments),
    /// Validate a configuration and print the effective one, keys masked
    ///
    /// The exit code is 0 if the configuration is valid, and 2 otherwise. Whether the ports are free is not
    /// tried.
    #[command(after_help = CHECK_HELP)]
    Check(ServeArguments),
    /// Print the default configuration, every key with its meaning
    Config(ConfigArguments),
    /// Log in, send a message, wait until the broker has passed it on
    Send(SendArguments),
    /// Log in, watch clients, print what arrives
    Watch(WatchArguments),
    /// Make a development authority and a server certificate
    Certs(CertsArguments),
    /// Print a completion script for a shell
    Completion(CompletionArguments),
}

/// What is behind the options of `com-broker check`.
const CHECK_HELP: &str = "\
It prints the configuration that results, keys masked, and the memory that clients can occupy within
its limits. Keys come from where they come from for serve.

Examples:
  com-broker check --config /etc/com-broker/broker.toml
  com-broker check | grep memory_bytes_max";

/// `com-broker config`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  com-broker config --default > broker.toml")]
pub struct ConfigArguments {
    /// Print the default configuration
    #[arg(long, required = true)]
    pub default: bool,
}

/// `com-broker completion`
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  com-broker completion bash > ~/.local/share/bash-completion/completions/com-broker"
)]
pub struct CompletionArguments {
    /// The shell that shall complete
    pub shell: Shell,
}

/// Runs the command.
///
/// # Errors
/// The command failed; the fault has its exit code.
pub fn run(arguments: Arguments) -> Result<(), CliFault> {
    match arguments.command.unwrap_or(Command::Serve(arguments.serve)) {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Config(_) => print(config::default_document()),
        Command::Send(arguments) => send::run(&arguments).map_err(CliFault::Login),
        Command::Watch(arguments) => watch::run(&arguments).map_err(CliFault::Login),
        Command::Certs(arguments) => certs::run(&arguments),
        Command::Completion(arguments) => print(&completion(arguments.shell)),
    }
}

/// Why a command failed.
#[derive(Debug)]
pub enum CliFault {
    /// The configuration is wrong.
    Config(ConfigFault),
    /// The configured certificate cannot be used.
    Identity(IdentityFault),
    /// The broker could not run.
    Serve(ServeFault),
    /// A second signal ended the drain.
    Abandoned,
    /// A command that logs in failed.
    Login(LoginFault),
    /// Certificates could not be made.
    Certificates(CertificateFault),
    /// The log could not be started.
    Log(io::Error),
    /// Standard output cannot be written to.
    Output(io::Error),
}

impl CliFault {
    /// 2 if the user has to change the configuration or the arguments, 1 otherwise.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Login(fault) => fault.exit_code(),
            Self::Config(_)
            | Self::Identity(_)
            | Self::Serve(
                ServeFault::Identity(_) | ServeFault::LatencyDirectory(..) | ServeFault::Core(_),
            ) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for CliFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(fault) => fault.fmt(out),
            Self::Identity(fault) => fault.fmt(out),
            Self::Serve(fault) => fault.fmt(out),
            Self::Abandoned => out.write_str("left at once, at a second signal"),
            Self::Login(fault) => fault.fmt(out),
            Self::Certificates(fault) => fault.fmt(out),
            Self::Log(fault) => write!(out, "log: {fault}"),
            Self::Output(fault) => write!(out, "standard output: {fault}"),
        }
    }
}

impl std::error::Error for CliFault {}

fn completion(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "com-broker", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Prints to standard output. A reader that has closed the pipe is not a fault.
fn print(text: &str) -> Result<(), CliFault> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(fault) if fault.kind() != io::ErrorKind::BrokenPipe => Err(CliFault::Output(fault)),
        _ => Ok(()),
    }
}

/// The names of all environment variables.
fn variable_names() -> impl Iterator<Item = String> {
    std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_command_means_serve() {
        let arguments = Arguments::try_parse_from(["com-broker", "--listen", "[::1]:0"]).unwrap();
        assert!(arguments.command.is_none());
        assert_eq!(arguments.serve.overrides().listen, ["[::1]:0"]);
    }

    #[test]
    fn keys_are_never_arguments() {
        let mut help = Vec::new();
        let mut commands = vec![Arguments::command()];
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().cloned());
            help.extend(command.get_arguments().map(|argument| argument.get_id().to_string()));
        }
        assert!(help.iter().any(|name| name == "tls_key"));
        let names_a_file = |name: &str| name == "tls_key" || name.ends_with("_key_file");
        assert!(help.iter().all(|name| names_a_file(name) || !name.contains("key")), "{help:?}");
    }

    #[test]
    fn help_texts_fit_the_screen() {
        for mut command in Arguments::command().get_subcommands().cloned() {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let help = command.render_long_help().to_string();
            assert!(help.ends_with(&format!("{after}\n")) || after.is_empty(), "{help}");
        }
    }

    #[test]
    fn there_is_a_script_for_every_shell() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            assert!(completion(shell).contains("com-broker"), "{shell}");
        }
    }
}
