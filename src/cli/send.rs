//! `com-broker send`: a client that sends a message and logs out.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};
use com_broker_client::{Printable, SendOptions, StandardClient};

use super::login::{KEYS_HELP, LoginArguments, LoginFault, parse_count};

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

Who got it are the client at the address and those who watch it, or the subscribers of the topic. A
message to a queue waits there until a consumer takes it.

Exit code: 0 if somebody got the message or it waits in a queue, 3 if nobody did or there is no
such destination, 1 if the broker refused it or could not be reached, 2 if the command makes no
sense or the key is another profile's.")
)]
pub struct SendArguments {
    /// Where to send it: an address such as /agent/ana, a topic such as /topic/news, or a queue
    #[arg(long, value_name = "DESTINATION", value_parser = parse_destination)]
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
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_count)]
    #[arg(allow_negative_numbers = true)]
    pub count: u64,
    /// Where to log in, and as whom.
    #[command(flatten)]
    pub login: LoginArguments,
}

/// Logs in, sends, waits for the answer, logs out.
///
/// # Errors
/// The message could not be sent, or it had no receiver.
pub(super) fn run(arguments: &SendArguments) -> Result<(), LoginFault> {
    let body = arguments.read_body()?;
    let mut client = arguments.login.connect()?;
    let delivered = arguments.send(&mut client, &body)?;
    let has_receiver = delivered > 0 || arguments.is_to_queue();
    if has_receiver {
        print(&arguments.report(&body, delivered))?;
    }
    client.disconnect()?;
    if !has_receiver {
        let (destination, may_expire) = (arguments.to.clone(), arguments.may_expire());
        return Err(LoginFault::NoReceiver { destination, may_expire });
    }
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

    /// Sends the message `count` times, and returns the number of deliveries in all.
    fn send(&self, client: &mut StandardClient, body: &[u8]) -> Result<u64, LoginFault> {
        let options =
            SendOptions { content_type: self.content_type.clone(), headers: self.headers.clone() };
        let mut delivered = 0;
        for _ in 0..self.count {
            delivered += client.send(&self.to, body, &options)?;
            // Messages to this login are dropped.
            while client.next(Duration::ZERO)?.is_some() {}
        }
        Ok(delivered)
    }

    fn is_to_queue(&self) -> bool {
        self.to.starts_with("/queue/")
    }

    /// Whether the message may have expired before it came, of which the broker does not tell.
    fn may_expire(&self) -> bool {
        self.headers.iter().any(|(name, _)| name == "expires" || name == "expiration")
    }

    fn report(&self, body: &[u8], delivered: u64) -> String {
        let to = Printable(self.to.as_bytes());
        let bytes = match body.len() {
            1 => "1 byte".to_owned(),
            count => format!("{count} bytes"),
        };
        let often = match self.count {
            1 => String::new(),
            count => format!("{count} times "),
        };
        let who = match (self.is_to_queue(), delivered) {
            (true, 0) if self.may_expire() && self.count > 1 => {
                "they wait for a consumer, or had expired".to_owned()
            }
            (true, 0) if self.may_expire() => "it waits for a consumer, or had expired".to_owned(),
            (true, 0) if self.count > 1 => "they wait for a consumer".to_owned(),
            (true, 0) => "it waits for a consumer".to_owned(),
            (true, _) if self.count > 1 => format!("{delivered} went to consumers at once"),
            (true, _) => "a consumer got it".to_owned(),
            (false, _) if self.count > 1 => format!("{delivered} deliveries"),
            (false, 1) => "1 client got it".to_owned(),
            (false, _) => format!("{delivered} clients got it"),
        };
        format!("sent {often}{bytes} to {to}: {who}\n")
    }
}

fn parse_destination(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("use an address such as /agent/ana, a topic or a queue".to_owned());
    }
    Ok(text.to_owned())
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
        for wrong in ["0", "-1", "x"] {
            let fault = parse(&["hello", "--count", wrong]).unwrap_err().to_string();
            assert!(fault.contains("use a whole number above zero"), "{fault}");
        }
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
    fn the_report_is_one_line_and_says_how_many_got_it() {
        let report = |more: &[&str], delivered| parse(more).unwrap().report(b"x", delivered);
        assert_eq!(report(&["x"], 1), "sent 1 byte to /agent/ana: 1 client got it\n");
        assert_eq!(report(&["x"], 2), "sent 1 byte to /agent/ana: 2 clients got it\n");
        let often = ["x", "--count", "3"];
        assert_eq!(report(&often, 6), "sent 3 times 1 byte to /agent/ana: 6 deliveries\n");
        let mut queued = parse(&["x"]).unwrap();
        queued.to = "/queue/a".to_owned();
        assert_eq!(queued.report(b"xy", 0), "sent 2 bytes to /queue/a: it waits for a consumer\n");
        assert_eq!(queued.report(b"xy", 1), "sent 2 bytes to /queue/a: a consumer got it\n");
        let mut expiring = parse(&["x", "--header", "expires:1"]).unwrap();
        expiring.to = "/queue/a".to_owned();
        let report = expiring.report(b"xy", 0);
        assert_eq!(report, "sent 2 bytes to /queue/a: it waits for a consumer, or had expired\n");
        queued.count = 3;
        let often = "sent 3 times 2 bytes to /queue/a: they wait for a consumer\n";
        assert_eq!(queued.report(b"xy", 0), often);
    }

    #[test]
    fn bad_arguments_are_explained() {
        for (arguments, told) in [
            (["--count", "5x"], "use a whole number above zero, such as 5"),
            (["--login", ""], "a login id is a name, such as bob"),
            (["--to", " "], "use an address such as /agent/ana"),
            (["--cuont", "5"], "a similar argument exists: '--count'"),
            (["--profile", "agnet"], "a similar value exists: 'agent'"),
        ] {
            let all = ["send", "x"].iter().chain(&arguments);
            let fault = Arguments::try_parse_from(all).unwrap_err().to_string();
            assert!(fault.contains(told), "{fault}");
        }
    }
}
