//! What the commands that log in as a client share: arguments, keys and faults.
//!
//! Keys come from the environment or from files, never from the command line, which every user of
//! the machine can read.

use std::env::VarError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use com_broker_client::{
    BrokerUrl, ClientError, Options, Printable, Retry, ServerError, StandardClient,
};

use crate::config::{
    ConfigFault, DEVELOPMENT_APPLICATION_KEY, DEVELOPMENT_PROFILE_KEYS, KEY_FILE_BYTES_MAX,
    check_key_variables,
};
use crate::input;
use crate::profile::Profile;

/// Where to log in, and as whom.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Login")]
pub struct LoginArguments {
    /// Where the broker is: tcp://, tls://, ws:// or wss://, host, port, and a path for the last two
    #[arg(long, default_value = "tcp://127.0.0.1:6662")]
    pub url: String,
    /// Login id; with the profile it makes the address, such as /agent/bob
    #[arg(long, value_parser = parse_login)]
    pub login: String,
    /// Profile to log in with
    #[arg(long, value_enum, default_value_t = LoginProfile::Agent)]
    pub profile: LoginProfile,
    /// File that holds the application key, in place of COM_BROKER_KEY_APPLICATION
    #[arg(long, value_name = "FILE")]
    pub application_key_file: Option<PathBuf>,
    /// File that holds the profile's key, in place of COM_BROKER_KEY_AGENT (_SUPER_AGENT, _SERVICE,
    /// _ADMIN)
    #[arg(long, value_name = "FILE")]
    pub profile_key_file: Option<PathBuf>,
    /// PEM file with the CA to trust, for tls:// and wss://; the system's without it
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Trust any certificate: whoever is in between can read the keys and all messages
    #[arg(long, conflicts_with = "ca")]
    pub insecure: bool,
    /// How long the broker may take to let us in, and for each answer: 5s, 500ms, 2m
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_time)]
    pub timeout: Duration,
}

/// The part of help texts about keys.
pub(super) const KEYS_HELP: &str = "\
Keys:
  COM_BROKER_KEY_APPLICATION and, by profile, COM_BROKER_KEY_AGENT, COM_BROKER_KEY_SUPER_AGENT,
  COM_BROKER_KEY_SERVICE or COM_BROKER_KEY_ADMIN hold the keys, or the files given do. They are
  never arguments. Without any, the development keys are used if the broker is on this machine.";

impl LoginArguments {
    /// Logs in, and checks that the key opened the profile that was asked for.
    ///
    /// # Errors
    /// A key is missing or cannot be read, there is no connection, the broker refuses the login, or the
    /// key is that of another profile.
    pub fn connect(&self) -> Result<StandardClient, LoginFault> {
        check_key_variables(super::variable_names()).map_err(LoginFault::Variable)?;
        let client = StandardClient::connect(&self.options(|name| std::env::var(name))?)?;
        let asked = self.profile.profile();
        let given = client.session().profile_description.clone();
        if given == asked.description() {
            return Ok(client);
        }
        let address = client.session().destination.clone();
        // The fault is reported, even if the logout fails as well.
        let _ = client.disconnect();
        Err(LoginFault::OtherProfile { asked, given, address })
    }

    fn options(
        &self,
        variable: impl Fn(&str) -> Result<String, VarError>,
    ) -> Result<Options, LoginFault> {
        let url = BrokerUrl::parse(&self.url).map_err(ClientError::Url)?;
        let profile = self.profile.profile();
        let application = find_key(
            self.application_key_file.as_deref(),
            &key_variable("application"),
            &variable,
        )?;
        let of_profile = find_key(
            self.profile_key_file.as_deref(),
            &key_variable(profile.key_name()),
            &variable,
        )?;
        let (application, of_profile) = match (application, of_profile) {
            (Some(application), Some(of_profile)) => (application, of_profile),
            (None, None) if url.is_loopback() => {
                eprintln!("note: the broker is on this machine, the development keys are used");
                (
                    DEVELOPMENT_APPLICATION_KEY.to_owned(),
                    DEVELOPMENT_PROFILE_KEYS[profile].to_owned(),
                )
            }
            (application, of_profile) => {
                return Err(LoginFault::NoKeys {
                    application: application.is_none(),
                    profile: of_profile.is_none().then_some(profile),
                });
            }
        };
        let options = Options::new(&self.url)
            .login(&self.login)
            .keys(application, of_profile)
            .connect_timeout(self.timeout)
            .answer_timeout(self.timeout);
        Ok(match &self.ca {
            _ if self.insecure => options.insecure(),
            Some(path) => options.ca(path),
            None => options,
        })
    }
}

/// A profile on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoginProfile {
    /// Address /agent/LOGIN; may watch nobody
    Agent,
    /// Address /agent/LOGIN; may watch agents
    SuperAgent,
    /// Address /service/LOGIN; may watch agents and super agents
    Service,
    /// Address /admin/LOGIN; may watch nobody
    Admin,
}

impl LoginProfile {
    fn profile(self) -> Profile {
        match self {
            Self::Agent => Profile::Agent,
            Self::SuperAgent => Profile::SuperAgent,
            Self::Service => Profile::Service,
            Self::Admin => Profile::Admin,
        }
    }
}

/// Why a command that talks to the broker failed.
#[derive(Debug)]
pub enum LoginFault {
    /// Only some keys were given, or none for a broker that is not on this machine.
    NoKeys {
        /// Whether the application key is missing.
        application: bool,
        /// The profile, if its key is missing.
        profile: Option<Profile>,
    },
    /// The key is not that of the profile that was asked for.
    OtherProfile {
        /// The profile that was asked for.
        asked: Profile,
        /// The broker's name of the profile that the key opens.
        given: String,
        /// The address of the login, which has been undone.
        address: String,
    },
    /// A message had no receiver.
    NoReceiver {
        /// Its destination.
        destination: String,
        /// Whether the message had a time at which it expires.
        may_expire: bool,
    },
    /// A variable with the prefix of keys names none.
    Variable(ConfigFault),
    /// The key in this variable is not text.
    KeyNotText(String),
    /// The key in this variable or file is empty.
    EmptyKey(String),
    /// A file cannot be read.
    Input {
        /// The file, or `standard input`.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Standard output cannot be written to.
    Output(io::Error),
    /// Ctrl-C could not be caught.
    Signals(io::Error),
    /// The client failed, or the broker refused something.
    Client(ClientError),
}

impl LoginFault {
    /// 2 if the user has to change the arguments or the environment, 3 if a message had no receiver,
    /// 1 if the broker or the network failed.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoReceiver { .. } => ExitCode::from(3),
            Self::Client(ClientError::Refused(error))
                if error.code.as_deref() == Some("NO_SUCH_DESTINATION") =>
            {
                ExitCode::from(3)
            }
            Self::NoKeys { .. }
            | Self::OtherProfile { .. }
            | Self::Variable(_)
            | Self::KeyNotText(_)
            | Self::EmptyKey(_)
            | Self::Input { .. } => ExitCode::from(2),
            Self::Client(
                ClientError::Url(_)
                | ClientError::Missing(_)
                | ClientError::Zero(_)
                | ClientError::Trust(_)
                | ClientError::Unsendable(_),
            ) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for LoginFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKeys { application, profile } => fmt_missing_keys(out, *application, *profile),
            Self::Variable(fault) => fault.fmt(out),
            Self::OtherProfile { asked, given, address } => write!(
                out,
                "the key is not that of the profile {}, it opens the profile {} and logs in as {}: \
                 give the key of the profile, or say --profile {}; nothing was done",
                asked.description(),
                Printable(given.as_bytes()),
                Printable(address.as_bytes()),
                Printable(given.replace(' ', "-").as_bytes())
            ),
            Self::NoReceiver { destination, may_expire } => {
                let destination = Printable(destination.as_bytes());
                write!(out, "nobody got it: nobody listens at {destination}")?;
                if *may_expire { out.write_str(", or it had expired") } else { Ok(()) }
            }
            Self::KeyNotText(variable) => write!(out, "{variable} is not UTF-8 text"),
            Self::EmptyKey(place) => write!(out, "{place}: the key is empty"),
            Self::Input { path, source } => write!(out, "{}: {source}", path.display()),
            Self::Output(source) => write!(out, "standard output: {source}"),
            Self::Signals(source) => write!(out, "signals cannot be caught: {source}"),
            Self::Client(ClientError::Refused(error)) => {
                if error.code.as_deref() == Some("DRAINING") {
                    out.write_str("the broker ended the connection: it is shutting down")?;
                } else {
                    error.fmt(out)?;
                }
                match advice(error) {
                    Some(advice) => write!(out, "\n  {advice}"),
                    None => Ok(()),
                }
            }
            // It may quote the broker.
            Self::Client(fault) => Printable(fault.to_string().as_bytes()).fmt(out),
        }
    }
}

impl std::error::Error for LoginFault {}

impl From<ClientError> for LoginFault {
    fn from(fault: ClientError) -> Self {
        Self::Client(fault)
    }
}

fn key_variable(name: &str) -> String {
    format!("COM_BROKER_KEY_{}", name.to_ascii_uppercase())
}

/// The key from the file if one is named on the command line, otherwise from the environment.
fn find_key(
    file: Option<&Path>,
    name: &str,
    variable: impl Fn(&str) -> Result<String, VarError>,
) -> Result<Option<String>, LoginFault> {
    if let Some(path) = file {
        let key = input::read_text_waiting(path, KEY_FILE_BYTES_MAX)
            .map_err(|source| LoginFault::Input { path: path.to_owned(), source })?;
        // Editors end a file with a line break, which no key can hold.
        return match key.trim_end_matches(['\r', '\n']) {
            "" => Err(LoginFault::EmptyKey(path.display().to_string())),
            key => Ok(Some(key.to_owned())),
        };
    }
    match variable(name) {
        Ok(key) if key.is_empty() => Err(LoginFault::EmptyKey(name.to_owned())),
        Ok(key) => Ok(Some(key)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(LoginFault::KeyNotText(name.to_owned())),
    }
}

fn fmt_missing_keys(
    out: &mut fmt::Formatter<'_>,
    application: bool,
    profile: Option<Profile>,
) -> fmt::Result {
    match (application, profile) {
        (true, None) => out.write_str("no application key to log in with: set ")?,
        (false, Some(profile)) => {
            write!(out, "no key for the profile {} to log in with: set ", profile.description())?;
        }
        _ => out.write_str("no keys to log in with: set ")?,
    }
    if application {
        write!(out, "{} (or --application-key-file)", key_variable("application"))?;
    }
    if let Some(profile) = profile {
        let and = if application { " and " } else { "" };
        write!(out, "{and}{} (or --profile-key-file)", key_variable(profile.key_name()))?;
    }
    Ok(())
}

/// Advice for the user on a refusal.
fn advice(error: &ServerError) -> Option<&'static str> {
    Some(match (error.code.as_deref().unwrap_or_default(), error.retry) {
        ("INVALID_APP_KEY", _) => {
            "give the broker's application key: COM_BROKER_KEY_APPLICATION or \
             --application-key-file"
        }
        ("INVALID_PROFILE_KEY", _) => {
            "give the broker's key for the profile: COM_BROKER_KEY_AGENT (_SUPER_AGENT, _SERVICE, \
             _ADMIN) or --profile-key-file"
        }
        ("WRONG_PROFILE_REGISTERED" | "LOGIN_ID_ALREADY_LOGGED", _) => {
            "somebody is logged in under this login id: choose another --login"
        }
        ("NEW_CONNECTION_LOGGED", _) => {
            "somebody logged in under the same login id and took over: choose another --login"
        }
        ("NO_SUCH_DESTINATION", _) if !error.description.starts_with("there is no destination") => {
            return None;
        }
        ("NO_SUCH_DESTINATION", _) => {
            "addresses look like /agent/ana, topics like /topic/news, queues like /queue/jobs"
        }
        ("NO_DESTINATION_SUB", _) if error.description.starts_with("there is no destination") => {
            "addresses look like /agent/ana, /service/reports; --topic and --queue are for the others"
        }
        ("NO_DESTINATION_SUB", _) => "--pattern also watches those that log in later",
        ("PROF_NO_RIGHTS", _) if may_not_send_or_subscribe(&error.description) => {
            "[rights] in the broker's configuration says which profile may: try another --profile"
        }
        ("PROF_NO_RIGHTS", _) => {
            "super agents may watch agents, services also super agents and presence: try \
             --profile service"
        }
        ("INVALID_REGEX", _) => {
            "the pattern must be a regular expression for the whole address, such as '/agent/.*'"
        }
        ("PROTOCOL_NOT_SERVED", _) => {
            "give another --url: tls:// or wss:// where only TLS is served, ws:// or wss:// where \
             STOMP is served over WebSocket only, or another port"
        }
        ("SLOW_CONSUMER", _) => "read faster, or watch fewer clients",
        (_, Some(Retry::Later)) => "try again later",
        (_, Some(Retry::Now)) => "try again",
        (_, Some(Retry::Never) | None) => return None,
    })
}

/// Whether the refusal follows from `[rights]`, rather than being about watching clients or presence.
fn may_not_send_or_subscribe(description: &str) -> bool {
    ["may not send to /", "may not subscribe to /"].iter().any(|words| description.contains(words))
}

fn parse_login(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("a login id is a name, such as bob".to_owned());
    }
    Ok(text.to_owned())
}

/// A positive number.
pub(super) fn parse_count(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("use a whole number above zero, such as 5".to_owned()),
        Ok(count) => Ok(count),
    }
}

/// A number and a unit; seconds without one.
fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        _ => return Err("use a unit of ms, s or m, such as 5s".to_owned()),
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis)) {
        Some(0) | None => Err("use a number above zero and a unit, such as 5s".to_owned()),
        Some(millis) => Ok(Duration::from_millis(millis)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        login: LoginArguments,
    }

    fn arguments(more: &[&str]) -> LoginArguments {
        let arguments = ["x", "--login", "bob"].iter().chain(more);
        Arguments::try_parse_from(arguments).unwrap().login
    }

    fn options(more: &[&str], environment: &[(&str, &str)]) -> Result<Options, LoginFault> {
        arguments(more).options(|name| {
            let found = environment.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned()).ok_or(VarError::NotPresent)
        })
    }

    #[test]
    fn development_keys_are_for_this_machine_only() {
        assert!(options(&[], &[]).is_ok());
        assert!(options(&["--url", "ws://[::1]:80/x"], &[]).is_ok());
        let fault = options(&["--url", "tcp://10.0.0.1"], &[]).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "no keys to log in with: set COM_BROKER_KEY_APPLICATION (or --application-key-file) \
             and COM_BROKER_KEY_AGENT (or --profile-key-file)"
        );
    }

    #[test]
    fn keys_in_part_are_not_completed_with_development_keys() {
        let fault = options(&["--profile", "super-agent"], &[("COM_BROKER_KEY_APPLICATION", "a")])
            .unwrap_err();
        assert_eq!(
            fault.to_string(),
            "no key for the profile super agent to log in with: set COM_BROKER_KEY_SUPER_AGENT \
             (or --profile-key-file)"
        );
        let fault = options(&[], &[("COM_BROKER_KEY_AGENT", "a")]).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "no application key to log in with: set COM_BROKER_KEY_APPLICATION (or \
             --application-key-file)"
        );
    }

    #[test]
    fn an_empty_key_is_not_taken_for_an_absent_one() {
        let fault = options(&[], &[("COM_BROKER_KEY_AGENT", "")]).unwrap_err();
        assert_eq!(fault.to_string(), "COM_BROKER_KEY_AGENT: the key is empty");
        let fault = options(&["--profile-key-file", "/dev/null"], &[]).unwrap_err();
        assert_eq!(fault.to_string(), "/dev/null: the key is empty");
    }

    #[test]
    fn keys_come_from_the_environment_by_profile() {
        for (profile, variable) in [
            ("agent", "COM_BROKER_KEY_AGENT"),
            ("super-agent", "COM_BROKER_KEY_SUPER_AGENT"),
            ("service", "COM_BROKER_KEY_SERVICE"),
            ("admin", "COM_BROKER_KEY_ADMIN"),
        ] {
            let environment = [("COM_BROKER_KEY_APPLICATION", "hush"), (variable, "hush")];
            let more = ["--profile", profile, "--url", "tls://broker.example"];
            let options = options(&more, &environment).unwrap();
            assert!(!format!("{options:?}").contains("hush"));
        }
    }

    #[test]
    fn a_key_file_that_cannot_be_read_is_named() {
        let fault = options(&["--application-key-file", "/nowhere/key"], &[]).unwrap_err();
        assert!(fault.to_string().starts_with("/nowhere/key: "), "{fault}");
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(parse_time("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_time("7"), Ok(Duration::from_secs(7)));
        for wrong in ["", "s", "0s", "5h", "-1s", "1.5s", "99999999999999999999s"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_refusal_comes_with_advice() {
        let refusal = |code: &str, retry| {
            let error = ServerError {
                description: "no".to_owned(),
                code: Some(code.to_owned()),
                retry,
                transaction: None,
            };
            LoginFault::Client(ClientError::Refused(Box::new(error))).to_string()
        };
        assert_eq!(
            refusal("DRAINING", Some(Retry::Later)),
            "the broker ended the connection: it is shutting down\n  try again later"
        );
        assert_eq!(refusal("ODD", None), "the broker refused: no (ODD)");
    }

    #[test]
    fn advice_depends_on_the_description() {
        for (code, description, advised) in [
            ("PROF_NO_RIGHTS", "your profile may not subscribe to /queue/a", "[rights]"),
            ("PROF_NO_RIGHTS", "your profile may not send to /topic/a", "[rights]"),
            ("PROF_NO_RIGHTS", "your profile may not watch clients", "--profile service"),
            ("PROF_NO_RIGHTS", "only services may subscribe to presence", "--profile service"),
            ("NO_SUCH_DESTINATION", "there is no destination ana: names begin", "/agent/ana"),
            ("NO_DESTINATION_SUB", "there is no destination ana: names begin", "/agent/ana"),
            ("NO_DESTINATION_SUB", "nobody is logged in at /agent/ana", "--pattern"),
        ] {
            let error = ServerError {
                description: description.to_owned(),
                code: Some(code.to_owned()),
                retry: None,
                transaction: None,
            };
            assert!(advice(&error).is_some_and(|text| text.contains(advised)), "{description}");
        }
        let error = ServerError {
            description: "/topic/* has wildcards, which stand for topics in SUBSCRIBE only"
                .to_owned(),
            code: Some("NO_SUCH_DESTINATION".to_owned()),
            retry: None,
            transaction: None,
        };
        assert_eq!(advice(&error), None);
    }
}
