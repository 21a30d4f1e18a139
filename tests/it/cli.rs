//! The command line: output and exit codes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::support::Directory;
use crate::support::client::{Client, Profile, Stream, Transport, connect_frame};
use crate::support::server::{
    APPLICATION_KEY, BINARY, Server, Setup, assert_shows_no_key, forget_environment,
    make_certificates,
};

/// The outcome of a command.
struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Runs the program in a directory until it ends, and checks that no secret is shown.
fn run(directory: &Directory, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(BINARY);
    forget_environment(&mut command);
    let output = command.current_dir(directory.path()).args(arguments).output().unwrap();
    let outcome = Outcome {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert_shows_no_key(&outcome.stdout, &["s3cret"]);
    assert_shows_no_key(&outcome.stderr, &["s3cret"]);
    outcome
}

const KEYS: &str = "[keys]\napplication = \"s3cret-0\"\nagent = \"s3cret-1\"\n\
    super_agent = \"s3cret-2\"\nservice = \"s3cret-3\"\nadmin = \"s3cret-4\"\n";

#[test]
fn the_version_is_that_of_the_package() {
    let outcome = run(&Directory::new(), &["--version"]);
    assert_eq!(outcome.code, 0);
    assert_eq!(outcome.stdout, format!("com-broker {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn check_prints_the_effective_configuration_with_the_keys_masked() {
    let directory = Directory::new();
    let listeners = "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:7001\"\ntls = \"off\"\n\
        protocols = [\"ws\"]\n[limits]\nbody_bytes_max = \"1 MiB\"\n";
    let path = directory.path().join("broker.toml");
    fs::write(&path, format!("{listeners}{KEYS}")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let outcome = run(&directory, &["check", "--config", "broker.toml"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    for part in [
        "name = \"web\"",
        "address = \"127.0.0.1:7001\"",
        "protocols = [\"ws\"]",
        "application = \"********\"",
        "super_agent = \"********\"",
        "body_bytes_max = 1048576",
        "connect_ms_max = 5000",
    ] {
        assert!(outcome.stdout.contains(part), "{part} is missing:\n{}", outcome.stdout);
    }
    // Arguments override the file.
    let outcome = run(
        &directory,
        &["check", "--config", "broker.toml", "--listen", "127.0.0.1:7002", "--log-format", "json"],
    );
    assert!(outcome.stdout.contains("127.0.0.1:7002"), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains("127.0.0.1:7001"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("format = \"json\""), "{}", outcome.stdout);
    assert!(!directory.path().join("certs").exists(), "a check makes nothing");
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn a_bad_configuration_is_named_and_exits_with_2() {
    let directory = Directory::new();
    fs::write(directory.path().join("empty.pem"), "").unwrap();
    let mkfifo = Command::new("mkfifo").arg(directory.path().join("pipe")).status();
    assert!(mkfifo.unwrap().success());
    for (text, told) in [
        ("[limits]\nnothing = 1\n", "broker.toml:2: limits.nothing: "),
        ("[limits]\nbody_bytes_max = 0\n", "broker.toml:2: limits.body_bytes_max: "),
        (
            "[limits]\nbody_bytes_max = \"2 GiB\"\n",
            "limits.body_bytes_max: 2147483648 is more than",
        ),
        (
            "[[listener]]\naddress = \"here\"\n",
            "broker.toml:2: listener[0].address: not an address",
        ),
        ("\n[[listener]]\nname = \"x\"\n", "broker.toml:2: listener[0].address: missing: "),
        ("[listener]\naddress = \"127.0.0.1:1\"\n", "broker.toml:1: listener: a table where"),
        ("listener = []\n", "there is no listener"),
        ("[keys]\napplication = s3cret\n", "broker.toml:2: keys"),
        ("[keys]\nagent = \"s3cret\"\n", "not application, super_agent, service, admin"),
        (&KEYS.replace("s3cret-4", "s3cret-1"), "broker.toml:6: keys.admin: "),
        (&KEYS.replace("s3cret-4", "s3cret:4"), "broker.toml:6: keys.admin: "),
        ("[tls]\ncertificate = \"a.pem\"\n", "the certificate and its key belong together"),
        ("[tls]\ncertificate = \"a.pem\"\nkey = \"b.key\"\n", "a.pem: No such file"),
        ("[tls]\ncertificate = \"empty.pem\"\nkey = \"empty.pem\"\n", "empty.pem: not a PEM file"),
        (
            "[performance]\ncore = 99_999\n",
            "broker.toml:2: performance.core: there is no core 99999",
        ),
        (
            "[performance]\nsocket_send_buffer_bytes = 1\n",
            "broker.toml:2: performance.socket_send_buffer_bytes: 1 is less than 4096",
        ),
        ("[", "broker.toml:1: "),
        (
            &KEYS.replace("s3cret-0", "s3cret-3"),
            "broker.toml:5: keys.service: the application key and the service key are equal",
        ),
        (
            "[keys]\nagent_file = \"pipe\"\n",
            "broker.toml:2: keys.agent_file: pipe: a pipe (FIFO), and not a regular file",
        ),
        (
            "[tls]\ncertificate = \"pipe\"\nkey = \"pipe\"\n",
            "broker.toml:2: tls.certificate: pipe: a pipe (FIFO), and not a regular file",
        ),
    ] {
        fs::write(directory.path().join("broker.toml"), text).unwrap();
        for command in ["check", "serve"] {
            let outcome = run(&directory, &[command, "--config", "broker.toml"]);
            assert_eq!(outcome.code, 2, "{command}: {text}\n{}", outcome.stderr);
            assert!(outcome.stderr.contains(told), "{command}: {text}\n{}", outcome.stderr);
            assert_eq!(outcome.stderr.lines().filter(|line| line.contains(told)).count(), 1);
        }
    }
    let outcome = run(&directory, &["check", "--config", "nowhere.toml"]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("nowhere.toml: No such file"), "{}", outcome.stderr);
}

#[test]
fn a_secret_that_others_can_read_is_reported_and_a_misspelt_variable_refused() {
    let directory = Directory::new();
    let path = directory.path().join("broker.toml");
    fs::write(&path, KEYS).unwrap();
    let check = || run(&directory, &["check", "--config", "broker.toml"]);
    for (mode, is_told) in [(0o644, true), (0o600, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let outcome = check();
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        assert_eq!(outcome.stderr.starts_with("warning: broker.toml: holds a secret"), is_told);
    }
    for arguments in [&["check"][..], &["send", "--login", "a", "--to", "/agent/b", "x"]] {
        let mut command = Command::new(BINARY);
        forget_environment(&mut command);
        command.env("COM_BROKER_KEY_AGNET", "s3cret").args(arguments);
        let output = command.current_dir(directory.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("COM_BROKER_KEY_AGNET: no key is set by this variable"), "{told}");
        assert!(told.contains("did you mean COM_BROKER_KEY_AGENT?"), "{told}");
        assert_shows_no_key(&told, &["s3cret"]);
    }
}

/// As `serve` warns.
#[test]
fn check_warns_where_the_system_allows_too_few_descriptors() {
    let directory = Directory::new();
    let check = |connections: u32| {
        let limits = format!("[limits]\nconnections_max = {connections}\nrefusals_max = 6\n");
        fs::write(directory.path().join("broker.toml"), limits).unwrap();
        let mut command = Command::new("sh");
        forget_environment(&mut command);
        command.current_dir(directory.path()).arg("-c");
        command.arg("ulimit -n 256; exec \"$0\" check --config broker.toml").arg(BINARY);
        let output = command.output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(check(186), "");
    assert_eq!(
        check(187),
        "warning: the system allows fewer descriptors than connections_max needs, ulimit -n or LimitNOFILE raises \
         that allowed=256 needed=257 connections_max=187\n"
    );
}

#[test]
fn an_unusable_latency_directory_is_reported_before_anything_starts() {
    let directory = Directory::new();
    fs::write(directory.path().join("file"), "").unwrap();
    for (command, place) in
        [("serve", "file"), ("serve", "file/below"), ("check", "file"), ("check", "file/below")]
    {
        let arguments = [command, "--listen", "127.0.0.1:0", "--latency-directory", place];
        let outcome = run(&directory, &arguments);
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        let told = format!("--latency-directory: {place}: ");
        assert!(outcome.stderr.contains(&told), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("listening address="), "{}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
    }
    let file = directory.path().join("l.toml");
    fs::write(&file, "[latency]\ndirectory = \"file/below\"\n").unwrap();
    let outcome = run(&directory, &["check", "--config", "l.toml"]);
    assert!(outcome.stderr.contains("l.toml:2: latency.directory: "), "{}", outcome.stderr);
    // One that can be used is not left behind by the check.
    fs::write(&file, "[latency]\ndirectory = \"one/two\"\n").unwrap();
    let outcome = run(&directory, &["check", "--config", "l.toml"]);
    assert_eq!((outcome.code, directory.path().join("one").exists()), (0, false));
}

#[test]
fn wrong_arguments_exit_with_2() {
    let directory = Directory::new();
    for arguments in [
        &["--nothing"][..],
        &["nothing"],
        &["config"],
        &["serve", "--log-level", "loud"],
        &["certs", "--days", "0"],
        &["check", "--agent-key=x"],
    ] {
        let outcome = run(&directory, arguments);
        assert_eq!(outcome.code, 2, "{arguments:?}");
        assert!(outcome.stderr.starts_with("error: "), "{}", outcome.stderr);
    }
}

#[test]
fn the_printed_default_configuration_is_equivalent_to_none() {
    let directory = Directory::new();
    let document = run(&directory, &["config", "--default"]);
    assert_eq!(document.code, 0);
    fs::write(directory.path().join("broker.toml"), &document.stdout).unwrap();
    let with = run(&directory, &["check", "--config", "broker.toml"]);
    let without = run(&directory, &["check"]);
    assert_eq!((with.code, without.code), (0, 0), "{}", with.stderr);
    assert_eq!(with.stdout, without.stdout);
}

#[test]
fn certificates_are_made_kept_and_renewed() {
    let directory = Directory::new();
    let names = ["ca.pem", "ca.key", "server.pem", "server.key"];
    let read = || names.map(|name| fs::read(directory.path().join("certs").join(name)).unwrap());
    let made = run(&directory, &["certs", "--name", "broker.example", "--days", "30"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert_eq!(made.stdout.matches("made  ").count(), 4, "{}", made.stdout);
    let first = read();
    for name in ["ca.key", "server.key"] {
        let path = directory.path().join("certs").join(name);
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} is for its owner only: {mode:o}");
    }
    let kept = run(&directory, &["certs"]);
    assert_eq!(kept.stdout.matches("kept  ").count(), 4, "{}", kept.stdout);
    assert!(read() == first);
    let forced = run(&directory, &["certs", "--force"]);
    assert_eq!(forced.stdout.matches("made  ").count(), 4, "{}", forced.stdout);
    assert!(read().iter().zip(&first).all(|(new, old)| new != old));
    let arguments = ["--tls-certificate", "certs/server.pem", "--tls-key", "certs/ca.key"];
    let outcome = run(&directory, &[&["check"][..], &arguments].concat());
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("not the private key"), "{}", outcome.stderr);
}

#[test]
fn completion_scripts_are_printed() {
    let directory = Directory::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let outcome = run(&directory, &["completion", shell]);
        assert_eq!(outcome.code, 0);
        assert!(outcome.stdout.contains("tls-certificate"), "{shell}");
    }
    assert_eq!(run(&directory, &["completion", "tcsh"]).code, 2);
}

#[test]
fn well_known_secrets_are_refused_on_listeners_that_others_can_reach() {
    let directory = Directory::new();
    for arguments in [
        &["--listen", "0.0.0.0:0"][..],
        &["--listen", "[::]:0"],
        &["--dev", "--listen", "0.0.0.0:0"],
    ] {
        let outcome = run(&directory, arguments);
        assert_eq!(outcome.code, 2, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("loopback"), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("listening"), "{}", outcome.stderr);
    }
    // Also if they were copied into an otherwise valid configuration.
    let text = KEYS.replace("s3cret-3", "my_service_secret_key");
    fs::write(directory.path().join("broker.toml"), text).unwrap();
    let config = ["check", "--config", "broker.toml", "--listen"];
    let outcome = run(&directory, &[&config[..], &["0.0.0.0:0"]].concat());
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("broker.toml:5: keys.service: "), "{}", outcome.stderr);
    let outcome = run(&directory, &[&config[..], &["127.0.0.1:0"]].concat());
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    // A development certificate is not shown to other machines either.
    fs::write(directory.path().join("broker.toml"), KEYS).unwrap();
    let outcome = run(&directory, &[&config[..], &["0.0.0.0:0"]].concat());
    assert_eq!(outcome.code, 2);
    assert!(outcome.stderr.contains("no certificate is set"), "{}", outcome.stderr);
}

#[test]
fn without_a_configuration_it_serves_in_development_mode_with_a_banner() {
    let server = Setup::new().argument("--dev").start_unconfigured();
    let mut ana = Client::open(&server, Transport::Wss);
    let headers = [
        ("login", "ana"),
        ("passcode", "my_agent_secret_key"),
        ("secret-key", "my_app_secret_key"),
    ];
    ana.send_frame("CONNECT", &headers, b"");
    ana.receive_connected();
    ana.expect_nothing();
    server.log.wait_for("the banner", |log| log.contains("in DEVELOPMENT mode"));
    let text = server.log.text();
    // Also with a port that the system chose.
    let step = format!("com-broker watch --url tcp://{} --login ana", server.address());
    assert!(text.contains(&step), "{text}");
    assert!(text.contains(server.path("certs/ca.pem").file_name().unwrap().to_str().unwrap()));
    assert_shows_no_key(&text, &["my_agent_secret_key", "my_app_secret_key"]);
}

#[test]
fn with_own_keys_and_an_own_certificate_there_is_no_banner() {
    let server = Setup::new().own_certificate().start();
    Client::log_in(&server, Transport::Tls, Profile::Agent, "ana").expect_nothing();
    assert!(!server.log.text().contains("DEVELOPMENT"), "{}", server.log.text());
}

#[test]
fn keys_of_the_environment_override_those_of_the_file() {
    const KEY: &str = "it-from-environment-77";
    let server = Setup::new().variable("COM_BROKER_KEY_AGENT", KEY).start();
    let connect = String::from_utf8(connect_frame(Profile::Agent, "ana")).unwrap();
    let mut old = Client::open(&server, Transport::Tcp);
    old.send_bytes(connect.as_bytes());
    old.receive_error("INVALID_PROFILE_KEY");
    let mut new = Client::open(&server, Transport::Tcp);
    new.send_bytes(connect.replace(Profile::Agent.key(), KEY).as_bytes());
    new.receive_connected();
    assert_shows_no_key(&server.log.text(), &[KEY]);
}

#[test]
fn a_log_for_programs_is_json_line_by_line() {
    let mut server = Setup::new().argument("--log-format").argument("json").start();
    let mut ana = Client::log_in(&server, Transport::Ws, Profile::Agent, "ana \"a\" \\ b=c");
    ana.send_frame("DISCONNECT", &[], b"");
    assert_eq!(ana.receive().command, "RECEIPT");
    ana.receive_end();
    let mut plain = Stream::connect(server.address());
    std::io::Write::write_all(&mut plain, b"\x16\x03\x01\x00\x04\xff\x00\x00\x00").unwrap();
    plain.wait_for_any_end();
    drop((ana, plain));
    server.signal("TERM");
    assert_eq!(server.wait_for_exit().code(), Some(0));
    let text = server.log.text();
    let lines: Vec<Value> = text
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let closed: Vec<_> = lines.iter().filter(|line| line["message"] == "closed").collect();
    assert_eq!(closed.len(), 2, "{text}");
    let [ana, stranger] = [1, 2].map(|number| {
        closed.iter().find(|line| line["connection"] == number).expect("a line for each")
    });
    assert_eq!(ana["login"], "ana \"a\" \\ b=c");
    assert_eq!(ana["reason"], "logout");
    assert!(stranger["reason"].as_str().unwrap().starts_with("transport:"), "{text}");
    assert!(stranger["duration_ms"].is_u64(), "{text}");
    assert_shows_no_key(&text, &[APPLICATION_KEY]);
}

#[test]
fn a_name_that_looks_like_fields_stays_in_its_own() {
    const NAME: &str = "ana\" reason=x level=error connection=99 \\\"b=\"c";
    for (format, shown) in [
        (
            "plain",
            r#" login="ana\" reason=x level=error connection=99 \\\"b=\"c" profile=agent reason=logout duration_ms="#,
        ),
        (
            "json",
            r#","login":"ana\" reason=x level=error connection=99 \\\"b=\"c","profile":"agent","reason":"logout","#,
        ),
    ] {
        let server = Setup::new().argument("--log-format").argument(format).start();
        let mut ana = Client::log_in(&server, Transport::Tcp, Profile::Agent, NAME);
        ana.send_frame("DISCONNECT", &[], b"");
        assert_eq!(ana.receive().command, "RECEIPT");
        ana.receive_end();
        drop(ana);
        server.log.wait_for_line(&["closed", "connection", shown]);
    }
}

/// The log of a run with many kinds of events: the text of each line, and its keys.
fn told(format: &str) -> BTreeSet<(String, Vec<String>)> {
    let mut server = Setup::new()
        .listener("name = \"the web\"")
        .listener("tls = \"required\"")
        .latency_files()
        .argument("--log-format")
        .argument(format)
        .start();
    let mut ana = Client::log_in(&server, Transport::Wss, Profile::Agent, "ana a=b");
    let mut stranger = Client::open(&server, Transport::Tcp);
    let connect = String::from_utf8(connect_frame(Profile::Agent, "eve")).unwrap();
    stranger.send_bytes(connect.replace(Profile::Agent.key(), "wrong").as_bytes());
    stranger.receive_error("INVALID_PROFILE_KEY");
    stranger.receive_end();
    let mut garbage = Stream::connect(server.address());
    std::io::Write::write_all(&mut garbage, b"\x16\x03\x01\x00\x04\xff\x00\x00\x00").unwrap();
    garbage.wait_for_any_end();
    let mut plain = Client::over(Stream::connect(server.addresses()[1]));
    plain.send_bytes(connect.as_bytes());
    plain.receive_error("PROTOCOL_NOT_SERVED");
    server.break_config();
    server.signal("HUP");
    server.log.wait_for_line(&["not reloaded"]);
    server.rewrite_key(1, "it-new-agent");
    server.signal("HUP");
    server.log.wait_for_line(&["reloaded keys"]);
    server.signal("USR1");
    server.log.wait_for_line(&["latency", "stamp"]);
    ana.expect_nothing();
    drop((stranger, garbage, plain));
    server.log.wait_for("three ends", |log| log.matches("unsent_bytes").count() == 3);
    server.signal("TERM");
    ana.receive_error("DRAINING");
    ana.receive_end();
    drop(ana);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    let text = server.log.text();
    let lines = text.lines().filter(|line| line.starts_with("20") || line.starts_with('{'));
    match format {
        "json" => lines.map(in_json).collect(),
        _ => lines.filter(|line| !line.contains(" INFO  latency ")).map(in_plain).collect(),
    }
}

fn in_json(line: &str) -> (String, Vec<String>) {
    let line: Value = serde_json::from_str(line).unwrap();
    let keys = line.as_object().unwrap().keys().cloned();
    let keys = keys.filter(|key| !["time", "level", "message"].contains(&key.as_str()));
    (line["message"].as_str().unwrap().to_owned(), keys.collect())
}

/// A plain line: words, then pairs whose values are quoted if they hold blanks.
fn in_plain(line: &str) -> (String, Vec<String>) {
    let message = line["2026-11-28T22:00:00.000Z INFO  ".len()..].trim_end();
    let mut pieces = Vec::new();
    let mut is_quoted = false;
    let mut is_escaped = false;
    for piece in message.split_inclusive(|c: char| {
        is_quoted ^= c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        c == ' ' && !is_quoted
    }) {
        pieces.push(piece.trim());
    }
    let is_pair = |piece: &&&str| piece.contains('=') && !piece.starts_with('"');
    let words: Vec<_> = pieces.iter().take_while(|piece| !is_pair(piece)).copied().collect();
    let pairs = pieces[words.len()..].iter();
    let keys = pairs.map(|pair| pair.split_once('=').expect("a pair").0.to_owned()).collect();
    (words.join(" "), keys)
}

#[test]
fn the_json_log_has_the_keys_of_the_plain_one() {
    let sorted = |told: BTreeSet<(String, Vec<String>)>| -> BTreeSet<(String, Vec<String>)> {
        let sort = |(message, mut keys): (String, Vec<String>)| {
            keys.sort();
            (message, keys)
        };
        told.into_iter().map(sort).collect()
    };
    let (plain, json) = (sorted(told("plain")), sorted(told("json")));
    let latency = |one: &&(String, Vec<String>)| one.0 == "latency";
    let percentiles: Vec<_> = json.iter().filter(latency).collect();
    assert!(percentiles.iter().any(|(_, keys)| keys.contains(&"p99_ns".to_owned())), "{json:?}");
    let json: BTreeSet<_> = json.into_iter().filter(|one| !latency(&one)).collect();
    assert_eq!(plain, json);
    assert!(plain.len() > 8, "{plain:?}");
    let of = |message: &str| plain.iter().find(|one| one.0 == message).expect("a line").1.clone();
    assert!(of("accepted").contains(&"listener".to_owned()));
    assert!(of("closed").contains(&"unsent_bytes".to_owned()));
}

#[test]
fn lines_about_a_listener_and_a_refused_login_name_them() {
    let server = Setup::new().listener("name = \"the web\"").listener("").start();
    let connect = |login: &str, key: &str| {
        let mut client = Client::open(&server, Transport::Tcp);
        let connect = String::from_utf8(connect_frame(Profile::Agent, login)).unwrap();
        client.send_bytes(connect.replace(Profile::Agent.key(), key).as_bytes());
        client.receive_error("INVALID_PROFILE_KEY");
        client.receive_end();
    };
    let long = "x".repeat(1_000);
    // Also for a client that mixes up the headers and sends keys as its login id.
    for (login, key) in [("eve", "wrong"), (&long, "wrong"), ("old-1.old-2", "old-1")] {
        connect(login, key);
    }
    connect(&format!("x{APPLICATION_KEY}.y"), "wrong");
    server.log.wait_for("four ends", |log| log.matches(" closed connection=").count() == 4);
    let of = |parts: &[&str]| server.log.wait_for_line(&[&[" closed connection="], parts].concat());
    of(&["connection=1 listener=\"the web\" ", " login=\"eve\" reason=INVALID_PROFILE_KEY "]);
    of(&["connection=2 ", &format!(" login=\"{}…\" ", "x".repeat(256))]);
    of(&["connection=3 ", " login=\"\" "]);
    of(&["connection=4 ", " login=\"\" "]);
    drop(Stream::connect(server.addresses()[1]));
    of(&[&format!("connection=5 listener=\"{}\" ", server.addresses()[1])]);
    let line = server.log.wait_for_line(&["listening address=", "listener=\"the web\""]);
    assert!(line.contains(&server.address().to_string()), "{line}");
    server.log.wait_for_line(&["accepted connection=1 listener=\"the web\" peer=127.0.0.1:"]);
}

/// Runs a command that logs in as an agent, with this profile key.
fn run_client(server: &Server, arguments: &[&str], profile_key: &str) -> Outcome {
    let mut command = client_command(server, arguments, profile_key);
    let output = command.output().unwrap();
    let outcome = Outcome {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert_shows_no_key(&outcome.stderr, &[profile_key, APPLICATION_KEY]);
    outcome
}

fn client_command(server: &Server, arguments: &[&str], profile_key: &str) -> Command {
    let mut command = Command::new(BINARY);
    forget_environment(&mut command);
    let url = format!("tcp://{}", server.address());
    command.args(&arguments[..1]);
    if !arguments.contains(&"--url") {
        command.args(["--url", &url]);
    }
    command.args(&arguments[1..]).env("COM_BROKER_KEY_APPLICATION", APPLICATION_KEY);
    for profile in ["AGENT", "SUPER_AGENT", "SERVICE", "ADMIN"] {
        command.env(format!("COM_BROKER_KEY_{profile}"), profile_key);
    }
    command
}

#[test]
fn send_reports_deliveries_and_a_wrong_profile() {
    let server = Server::start();
    let key = Profile::Agent.key();
    let mut ana = Client::log_in(&server, Transport::Ws, Profile::Agent, "ana");
    let send = |more: &[&str]| {
        run_client(&server, &[&["send", "--login", "bob", "hi"], more].concat(), key)
    };
    let sent = send(&["--to", "/agent/ana"]);
    assert_eq!((sent.code, sent.stderr.as_str()), (0, ""));
    assert_eq!(sent.stdout, "sent 2 bytes to /agent/ana: 1 client got it\n");
    assert_eq!(ana.receive_message().body, b"hi");
    for nobody in ["/agent/eve", "/topic/empty"] {
        let sent = send(&["--to", nobody]);
        assert_eq!((sent.code, sent.stdout.as_str()), (3, ""), "{}", sent.stderr);
        assert!(sent.stderr.contains(&format!("nobody listens at {nobody}")), "{}", sent.stderr);
    }
    let queued = send(&["--to", "/queue/jobs", "--count", "2"]);
    assert_eq!(queued.code, 0, "{}", queued.stderr);
    // With the key of another profile, nothing is sent.
    let other = send(&["--to", "/agent/ana", "--profile", "service"]);
    assert_eq!((other.code, other.stdout.as_str()), (2, ""));
    let told =
        "not that of the profile service, it opens the profile agent and logs in as /agent/bob";
    assert!(other.stderr.contains(told), "{}", other.stderr);
    ana.expect_nothing();
}

#[test]
fn watch_shows_topics_queues_and_the_receiver_of_a_copy() {
    let server = Server::start();
    let mut ana = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    let mut bob = Client::log_in(&server, Transport::Tcp, Profile::Agent, "bob");
    bob.send("/queue/jobs", b"job");
    let arguments = [
        "watch",
        "--login",
        "wat",
        "--profile",
        "service",
        "--topic",
        "news",
        "--topic",
        "a/>",
        "--queue",
        "jobs",
        "--pattern",
        "/agent/.*",
        "--client",
        "/agent/ana",
        "--count",
        "6",
    ];
    let mut command = client_command(&server, &arguments, Profile::Service.key());
    let watcher = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut watcher = BufReader::new(WatchedChild(watcher));
    let mut text = String::new();
    while !text.contains("    job\n") || !text.contains("taking messages from /queue/jobs\n") {
        assert!(watcher.read_line(&mut text).unwrap() > 0, "{text}");
    }
    bob.send("/topic/news", b"new");
    bob.send("/topic/a/b/c", b"deep");
    bob.send("/agent/ana", b"secret");
    bob.send("/service/wat", b"direct");
    assert_eq!(ana.receive_message().body, b"secret");
    watcher.read_to_string(&mut text).unwrap();
    for line in [
        "logged in as wat, service, at /service/wat\n",
        "/agent/bob at /queue/jobs\n    job\n",
        "/agent/bob at /topic/news\n    new\n",
        "/agent/bob at /topic/a/b/c\n    deep\n",
        "/agent/bob to /agent/ana\n    secret\n",
        "/agent/bob\n    direct\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    assert_eq!(watcher.into_inner().0.wait().unwrap().code(), Some(0));
}

/// A process that is ended with the test.
struct WatchedChild(std::process::Child);

impl Read for WatchedChild {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.stdout.as_mut().unwrap().read(buffer)
    }
}

impl Drop for WatchedChild {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_url_that_does_not_fit_the_port_is_explained() {
    let server = Setup::new()
        .listener("tls = \"required\"")
        .listener("tls = \"off\"")
        .listener("protocols = [\"classic\", \"stomp\"]")
        .start();
    let [secure, plain, no_websocket] = [0, 1, 2].map(|index| server.addresses()[index]);
    make_certificates(&server.path("other"));
    let (other, authority) = (server.path("other/ca.pem"), server.authority());
    let (other, authority) = (other.to_str().unwrap(), authority.to_str().unwrap());
    for (url, ca, told) in [
        (format!("tcp://{secure}"), None, "only TLS is served on this port"),
        (format!("ws://{secure}/"), None, "only TLS is served on this port"),
        (format!("tls://{plain}"), Some(authority), "does this port speak TLS?"),
        (format!("wss://{plain}/"), Some(authority), "does this port speak TLS?"),
        (format!("tls://{secure}"), Some(other), "not trusted: pass the CA that signed it"),
        (format!("ws://{no_websocket}/"), None, "403 Forbidden: this listener does not serve"),
    ] {
        let ca = ca.map_or_else(Vec::new, |ca| vec!["--ca", ca]);
        let arguments = ["send", "--login", "bob", "--to", "/agent/ana", "x", "--url", &url];
        let arguments = [&arguments[..], &ca].concat();
        let outcome = run_client(&server, &arguments, Profile::Agent.key());
        assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{url}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(told), "{url}: {}", outcome.stderr);
    }
}
