//! `com-broker send`: one client that sends and goes.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};

use super::login::{KEYS_HELP, LoginArguments, LoginFault};
use crate::client::{Client, Printable, SendOptions};

/// `com-broker send`
#[derive(Args, Clone, Debug)]
#[command(
    group = ArgGroup::new("body").required(true),
    after_help = format!("\
Examples:
  com-broker send --login bob --to /agent/ana 'hello, ana'
  date | com-broker send --login bob --to /agent/ana -
  com-broker send --login bob --to /agent/ana --content-type image/png --file plan.png
  com-broker send --url tls://broker.example:6662 --ca certs/ca.pem \\
      --login reports --profile service --to /agent/ana --header priority:high 'look at this'

{KEYS_HELP}

Exit code: 0 if the broker passed the message on, 1 if it did not, 2 if the command makes no sense.")
)]
pub struct SendArguments {
    /// Address to send to, such as /agent/ana
    #[arg(long, value_name = "DESTINATION")]
    pub to: String,
    /// The message; - reads standard input
    #[arg(group = "body")]
    pub message: Option<String>,
    /// File whose content is the message
    #[arg(long, group = "body")]
    pub file: Option<PathBuf>,
    /// What the message is [default: text/plain for UTF-8, else application/octet-stream]
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// Header for the receiver; may be repeated
    #[arg(long = "header", value_name = "KEY:VALUE", value_parser = parse_header)]
    pub headers: Vec<(String, String)>,
    /// How often to send it
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub count: u64,
    /// Where to log in, and as whom.
    #[command(flatten)]
    pub login: LoginArguments,
}

/// Logs in, sends, waits for the answer, logs out.
///
/// # Errors
/// Whatever kept the message from being passed on; [`LoginFault::exit_code`] tells the shell.
pub(super) fn run(arguments: &SendArguments) -> Result<(), LoginFault> {
    let body = arguments.read_body()?;
    let mut client = arguments.login.connect()?;
    if let Err(fault) = arguments.send(&mut client, &body) {
        return Err(LoginArguments::leave(client, fault));
    }
    print(&arguments.report(&body))?;
    client.disconnect()?;
    Ok(())
}

impl SendArguments {
    fn read_body(&self) -> Result<Vec<u8>, LoginFault> {
        match (&self.file, &self.message) {
            (Some(path), _) => {
                fs::read(path).map_err(|source| LoginFault::Input { path: path.clone(), source })
            }
            (None, Some(message)) if message != "-" => Ok(message.clone().into_bytes()),
            (None, _) => {
                let mut body = Vec::new();
                io::stdin().lock().read_to_end(&mut body).map_err(|source| LoginFault::Input {
                    path: Path::new("standard input").to_owned(),
                    source,
                })?;
                Ok(body)
            }
        }
    }

    fn send(&self, client: &mut Client, body: &[u8]) -> Result<(), LoginFault> {
        let options =
            SendOptions { content_type: self.content_type.clone(), headers: self.headers.clone() };
        for _ in 0..self.count {
            client.send_and_wait(&self.to, body, &options)?;
            // What others send us meanwhile is not what we came for.
            while client.next(std::time::Duration::ZERO)?.is_some() {}
        }
        Ok(())
    }

    fn report(&self, body: &[u8]) -> String {
        let to = Printable(self.to.as_bytes());
        let bytes = match body.len() {
            1 => "1 byte".to_owned(),
            count => format!("{count} bytes"),
        };
        match self.count {
            1 => format!("sent {bytes} to {to}\n"),
            count => format!("sent {count} times {bytes} to {to}\n"),
        }
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("use KEY:VALUE, such as priority:high".to_owned()),
    }
}

fn print(text: &str) -> Result<(), LoginFault> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(fault) if fault.kind() != io::ErrorKind::BrokenPipe => Err(LoginFault::Output(fault)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        send: SendArguments,
    }

    fn parse(more: &[&str]) -> Result<SendArguments, clap::Error> {
        let arguments = ["send", "--login", "bob", "--to", "/agent/ana"].iter().chain(more);
        Arguments::try_parse_from(arguments).map(|arguments| arguments.send)
    }

    #[test]
    fn there_is_one_message() {
        assert_eq!(parse(&["hello"]).unwrap().read_body().unwrap(), b"hello");
        assert_eq!(parse(&["-"]).unwrap().message.as_deref(), Some("-"));
        assert!(parse(&["--file", "/nowhere"]).unwrap().read_body().is_err());
        assert!(parse(&[]).is_err());
        assert!(parse(&["hello", "--file", "x"]).is_err());
        assert!(parse(&["hello", "--count", "0"]).is_err());
    }

    #[test]
    fn headers_have_a_name_and_a_value() {
        let arguments = parse(&["hello", "--header", "a: b:c ", "--header", "d:"]).unwrap();
        let header = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(arguments.headers, [header("a", "b:c"), header("d", "")]);
        assert!(parse(&["hello", "--header", "a"]).is_err());
        assert!(parse(&["hello", "--header", ":a"]).is_err());
    }

    #[test]
    fn the_report_is_one_line() {
        assert_eq!(parse(&["hello"]).unwrap().report(b"hello"), "sent 5 bytes to /agent/ana\n");
        let often = parse(&["x", "--count", "3"]).unwrap();
        assert_eq!(often.report(b"x"), "sent 3 times 1 byte to /agent/ana\n");
    }
}
