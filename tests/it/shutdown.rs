//! Signals, reload and shutdown.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::PATIENCE;
use crate::support::client::{
    Client, Profile, Stream, Transport, connect, connect_frame, encode, envelope, tls_config,
};
use crate::support::server::{BINARY, Server, Setup, make_certificates, wait_for};

#[test]
fn a_drain_notifies_every_client_and_ends_with_success() {
    for signal in ["TERM", "INT"] {
        let mut server = Setup::new().limits("drain_ms_max = 600_000").start();
        let mut clients: Vec<_> = Transport::ALL
            .into_iter()
            .zip(["a", "b", "c", "d"])
            .map(|(transport, login)| {
                (transport, Client::log_in(&server, transport, Profile::Agent, login))
            })
            .collect();
        // None of these delays it: a silent client, one within a frame, one that is not logged in.
        let mut silent = Stream::connect(server.address());
        let mut half = Stream::connect(server.address());
        half.write_all(b"GET / HT").unwrap();
        let mut stranger = Client::open(&server, Transport::Ws);
        server.log.wait_for("all connections", |log| log.contains("accepted connection=7 "));
        server.signal(signal);
        for (transport, client) in &mut clients {
            let error = client.receive_error("DRAINING");
            assert_eq!(error.header("retry"), "now");
            let code = client.receive_end();
            assert_eq!(code, transport.is_websocket().then_some(1001));
        }
        assert_eq!(silent.read_to_end(), b"");
        assert_eq!(half.read_to_end(), b"");
        stranger.receive_error("DRAINING");
        stranger.receive_end();
        drop((clients, silent, half, stranger));
        assert_eq!(server.wait_for_exit().code(), Some(0));
        server.log.wait_for_line(&[" INFO  drained connections=7"]);
        let totals = server.totals();
        assert_eq!(totals.count("connections_closed"), totals.count("connections_accepted"));
        assert_refused(&server);
    }
}

/// Checks that new connections are refused, once the listener is closed.
fn assert_refused(server: &Server) {
    let error = wait_for("a refusal", PATIENCE, || TcpStream::connect(server.address()).err());
    assert!(matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset));
}

const BODY_BYTES: usize = 64 * 1024;

/// A client with this many queued messages, more than the kernel takes.
fn behind(server: &Server, count: usize) -> Client {
    let late = Client::log_in_narrow(server, Profile::Service, "late");
    let mut publisher = Client::log_in(server, Transport::Tcp, Profile::Admin, "publisher");
    for _ in 0..count {
        publisher.send("/service/late", &[b'x'; BODY_BYTES]);
    }
    publisher.expect_nothing();
    late
}

#[test]
fn a_drain_flushes_what_is_queued() {
    const COUNT: usize = 200;
    let limits = "drain_ms_max = 600_000\nclose_flush_ms_max = 600_000";
    let mut server = Setup::new().limits(limits).outbound(64 << 20, 64 << 20, 600_000).start();
    let mut late = behind(&server, COUNT);
    server.signal("TERM");
    server.log.wait_for_line(&["draining"]);
    assert_refused(&server);
    for _ in 0..COUNT {
        assert_eq!(late.receive_message().body.len(), BODY_BYTES);
    }
    late.receive_error("DRAINING");
    late.receive_end();
    drop(late);
    assert_eq!(server.wait_for_exit().code(), Some(0));
}

#[test]
fn a_client_that_does_not_read_delays_a_drain_up_to_its_bound() {
    const DRAIN_MS: u64 = 300;
    let limits = format!("drain_ms_max = {DRAIN_MS}\nclose_flush_ms_max = 600_000");
    let mut server = Setup::new().limits(&limits).outbound(64 << 20, 64 << 20, 600_000).start();
    let _late = behind(&server, 200);
    let started = Instant::now();
    server.signal("TERM");
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(started.elapsed() >= Duration::from_millis(DRAIN_MS));
    server.log.wait_for_line(&[" WARN  drained in part connections=", " connections_cut=1"]);
    server.log.wait_for_line(&["closed", "login=\"late\"", "reason=DRAINING"]);
}

#[test]
fn a_second_signal_ends_at_once() {
    let limits = "drain_ms_max = 600_000\nclose_flush_ms_max = 600_000";
    let mut server = Setup::new().limits(limits).outbound(64 << 20, 64 << 20, 600_000).start();
    let _late = behind(&server, 200);
    server.signal("TERM");
    server.log.wait_for_line(&["draining"]);
    server.signal("TERM");
    assert_eq!(server.wait_for_exit().code(), Some(1));
    server.log.wait_for_line(&["at once"]);
}

/// The answer to a login with this key.
fn answer_to(server: &Server, agent_key: &str) -> String {
    let mut client = Client::open(server, Transport::Tcp);
    let headers = [
        ("login", "somebody"),
        ("passcode", agent_key),
        ("secret-key", crate::support::server::APPLICATION_KEY),
    ];
    client.send_frame("CONNECT", &headers, b"");
    let answer = client.receive();
    format!("{}{}", answer.command, answer.header("error-code"))
}

#[test]
fn a_reload_replaces_all_keys_or_none() {
    const NEW_KEY: &str = "it-agent-new-33d0";
    let mut server = Server::start();
    let old_key = Profile::Agent.key();
    let mut ana = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    server.rewrite_key(1, NEW_KEY);
    assert_eq!(answer_to(&server, old_key), "CONNECTED", "nothing changes by itself");
    server.signal("HUP");
    server.log.wait_for_line(&["reloaded keys and certificates"]);
    assert_eq!(answer_to(&server, old_key), "ERRORINVALID_PROFILE_KEY");
    assert_eq!(answer_to(&server, NEW_KEY), "CONNECTED");
    ana.expect_nothing();
    server.break_config();
    server.signal("HUP");
    server.log.wait_for_line(&["ERROR", "not reloaded, nothing changed", "broker.toml:2: keys"]);
    assert_eq!(answer_to(&server, NEW_KEY), "CONNECTED");
    // The key of another profile is refused like a malformed file.
    server.rewrite_key(1, Profile::Admin.key());
    server.signal("HUP");
    server.log.wait_for("a second refusal", |log| log.matches("not reloaded").count() == 2);
    assert_eq!(answer_to(&server, NEW_KEY), "CONNECTED");
    ana.expect_nothing();
    crate::support::server::assert_shows_no_key(&server.log.text(), &[NEW_KEY]);
}

#[test]
fn a_reload_replaces_certificate_and_key_or_neither() {
    let server = Setup::new().own_certificate().start();
    let mut ana = Client::log_in(&server, Transport::Tls, Profile::Agent, "ana");
    let old = server.path("old.pem");
    fs::copy(server.authority(), &old).unwrap();
    make_certificates(&server.path("certs"));
    assert!(is_trusted(&server, &old), "nothing changes by itself");
    server.signal("HUP");
    server.log.wait_for_line(&["reloaded keys and certificates"]);
    assert!(!is_trusted(&server, &old));
    assert!(is_trusted(&server, &server.authority()));
    ana.expect_nothing();
    // The key of another certificate.
    make_certificates(&server.path("other"));
    fs::copy(server.path("other/server.key"), server.path("certs/server.key")).unwrap();
    server.signal("HUP");
    server.log.wait_for_line(&["ERROR", "not reloaded, nothing changed", "server.key"]);
    assert!(is_trusted(&server, &server.authority()));
    ana.expect_nothing();
}

#[test]
fn an_emptied_or_missing_file_does_not_bring_back_well_known_keys() {
    let server = Server::start();
    let own_key = Profile::Agent.key();
    let path = server.path("broker.toml");
    let text = fs::read_to_string(&path).unwrap();
    let refuse = |count: usize, parts: &[&str]| {
        server.signal("HUP");
        server.log.wait_for("a refusal", |log| log.matches("not reloaded").count() == count);
        server.log.wait_for_line(&[&["ERROR", "not reloaded, nothing changed"], parts].concat());
        assert_eq!(answer_to(&server, own_key), "CONNECTED");
        assert_eq!(answer_to(&server, "my_agent_secret_key"), "ERRORINVALID_PROFILE_KEY");
    };
    fs::write(&path, "").unwrap();
    refuse(1, &["broker.toml: keys: these would be the development keys", "start it again"]);
    fs::remove_file(&path).unwrap();
    refuse(2, &["broker.toml: No such file"]);
    // A pipe is refused without waiting for its writer.
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    refuse(3, &["broker.toml: a pipe (FIFO), and not a regular file"]);
    fs::remove_file(&path).unwrap();
    fs::write(&path, text.replace(crate::support::server::APPLICATION_KEY, own_key)).unwrap();
    refuse(4, &["keys.agent: the application key and the agent key are equal"]);
    crate::support::server::assert_shows_no_key(&server.log.text(), &[own_key]);
}

fn is_trusted(server: &Server, authority: &std::path::Path) -> bool {
    let config = tls_config(authority, &[&rustls::version::TLS13]);
    match Stream::secure(connect(server.address(), None), config) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
            false
        }
    }
}

#[test]
fn an_address_in_use_is_named_and_nothing_is_left_running() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = (taken.local_addr().unwrap(), taken);
    let mut command = Command::new(BINARY);
    let directory = crate::support::Directory::new();
    command.current_dir(directory.path());
    command.args(["--listen", "127.0.0.1:0", "--listen", &taken.0.to_string()]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains(&format!("cannot listen on {}: ", taken.0)), "{told}");
    assert!(told.contains("is another broker running?"), "{told}");
    assert!(!told.contains("listening address="), "nothing was started: {told}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "nothing is said to listen");
    assert!(!directory.path().join("certs").exists(), "nothing was made");
}

/// The log would drop some of thousands of lines.
#[test]
fn the_summary_of_a_drain_of_thousands_is_exact() {
    const COUNT: usize = 3_000;
    // Both deadlines are the same: unsent bytes are reported whichever comes first.
    let limits = "drain_ms_max = 2500\nclose_flush_ms_max = 2500\nlinger_ms_max = 100";
    let setup = Setup::new().limits(limits).outbound(64 << 20, 64 << 20, 600_000);
    let mut server = setup.argument("--log-level").argument("info").start();
    let mut clients: Vec<_> = (0..COUNT).map(|_| Stream::connect(server.address())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let connect = connect_frame(Profile::Agent, &format!("many-{number}"));
        client.write_all(&envelope(&connect)).unwrap();
    }
    for client in &mut clients {
        client.read_exact(&mut [0; 1]).unwrap();
    }
    let late = behind(&server, 200);
    server.signal("TERM");
    assert_eq!(server.wait_for_exit().code(), Some(0));
    drop((clients, late));
    let text = server.log.text();
    let count_of = |beginning: &str| -> usize {
        let line = text.lines().rfind(|line| line.contains(beginning)).unwrap();
        let (_, rest) = line.split_once(" connections=").unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(count_of(" WARN  cut before all was sent to them reason=DRAINING "), 1);
    assert_eq!(count_of(" INFO  closed in the drain reason=DRAINING "), COUNT);
    // The publisher disconnected before the drain or during it.
    let drained = count_of(" WARN  drained in part ");
    assert!(drained == COUNT || drained == COUNT + 1, "{text}");
    assert!(text.contains(&format!(" connections={drained} connections_cut=1\n")), "{text}");
    assert!(!text.contains("log lines dropped"), "{text}");
    assert!(text.lines().count() < 60, "{text}");
}

#[test]
fn thousands_that_disconnect_at_once_are_all_counted_in_the_log() {
    const COUNT: u64 = 2_000;
    let server = Setup::new().argument("--log-level").argument("info").start();
    let streams: Vec<_> = (0..COUNT).map(|_| Stream::connect(server.address())).collect();
    // Once the last one is answered, all are accepted.
    Client::log_in(&server, Transport::Tcp, Profile::Agent, "last").expect_nothing();
    drop(streams);
    let told = |log: &str| -> u64 {
        let sums = log.split(" closed without a line for each reason=closed connections=").skip(1);
        let sums = sums.map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap());
        let single = log.matches(" closed connection=").count() as u64;
        single + sums.sum::<u64>()
    };
    server.log.wait_for("all ends", |log| told(log) == COUNT + 1);
    let text = server.log.text();
    assert!(text.contains(" closed without a line for each "), "{text}");
    assert!(!text.contains("log lines dropped"), "{text}");
}

/// Lines of accepted connections are not dropped.
#[test]
fn every_connection_has_one_line_in_the_log() {
    let server = Server::start();
    let mut ana = Client::log_in(&server, Transport::Wss, Profile::Agent, "ana \"the first\"");
    ana.send_frame("DISCONNECT", &[], b"");
    assert_eq!(ana.receive().command, "RECEIPT");
    ana.receive_end();
    drop(ana);
    let mut stream = Stream::connect(server.address());
    stream.write_all(&encode("CONNECT", &[], b"")).unwrap();
    stream.wait_for_any_end();
    drop(stream);
    let log = server.log.clone();
    server.stop();
    let text = log.text();
    let lines: Vec<_> = text.lines().filter(|line| line.contains(" closed connection=")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    let said =
        "transport=wss login=\"ana \\\"the first\\\"\" profile=agent reason=logout duration_ms=";
    assert!(lines[0].contains(said), "{}", lines[0]);
    // One that never logged in has none.
    assert!(lines[1].contains(" login=\"\" reason="), "{}", lines[1]);
    assert!(lines[0].contains("frames_in=2 frames_out=2 "), "{}", lines[0]);
    assert!(lines[0].ends_with(" unsent_bytes=0"), "{}", lines[0]);
}

/// The broker does not wait for a log that is not read.
#[test]
fn a_log_that_is_not_read_does_not_block_the_broker() {
    let directory = crate::support::Directory::new();
    let mut command = Command::new(BINARY);
    command.current_dir(directory.path()).args(["--listen", "127.0.0.1:0", "--log-level", "debug"]);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut text = String::new();
    let address = wait_for("a listener", PATIENCE, || {
        let mut bytes = [0; 256];
        let count = stderr.read(&mut bytes).unwrap();
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        let (_, rest) = text.split_once("listening address=")?;
        rest.split_once('\n').map(|(address, _)| address.to_owned())
    });
    let mut ana = Client::over(Stream::connect(address.parse().unwrap()));
    let login = String::from_utf8(connect_frame(Profile::Agent, "ana")).unwrap();
    let login = login.replace(crate::support::server::APPLICATION_KEY, "my_app_secret_key");
    ana.send_bytes(login.replace(Profile::Agent.key(), "my_agent_secret_key").as_bytes());
    ana.receive_connected();
    // Far more lines than a pipe and the channel before it hold.
    for _ in 0..3_000 {
        drop(TcpStream::connect(&address).unwrap());
    }
    ana.expect_nothing();
    child.kill().unwrap();
    child.wait().unwrap();
}
