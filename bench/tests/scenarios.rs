//! Every scenario, for a fraction of a second, against the broker and the floor relay. No time is
//! asserted, only that each run ends without loss.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

const BENCH: &str = env!("CARGO_BIN_EXE_com-broker-bench");

/// Long enough to measure something, and short enough for a test.
const SHORT: [&str; 8] =
    ["--duration", "150ms", "--warmup", "50ms", "--core", "none", "--quiet", "--sleep"];

const SCENARIOS: [&str; 10] = [
    "round-trip",
    "rate --rate 2000 --pairs 3",
    "fan-out --receivers 20",
    "fan-out --receivers 20 --deliveries 5000 --body 16",
    "pairs --pairs 4 --body 65536",
    "pairs --pairs 8 --window 1",
    "destinations --destinations 500 --receivers 5",
    "logins --concurrency 8",
    "idle --connections 50",
    "stopped-reader --receivers 5 --deliveries 5000",
];

#[test]
fn every_scenario_runs_against_the_classic_dialect() {
    run_all("classic+tcp");
}

#[test]
fn every_scenario_runs_against_standard_stomp() {
    run_all("stomp+tcp");
}

#[test]
fn every_scenario_runs_against_the_floor() {
    let floor = Server::floor();
    for scenario in SCENARIOS {
        assert_clean(&bench(scenario, &floor.url("floor"), &[]), scenario);
    }
}

#[test]
fn every_transport_is_spoken() {
    let broker = Server::broker("transports");
    for scheme in ["classic+tls", "classic+ws", "classic+wss", "stomp+tls", "stomp+ws", "stomp+wss"]
    {
        for scenario in ["round-trip", "fan-out --receivers 10 --body 20000", "pairs --pairs 2"] {
            assert_clean(&bench(scenario, &broker.url(scheme), &[]), scheme);
        }
    }
}

#[test]
fn a_certificate_is_checked_against_a_given_authority() {
    let broker = Server::broker("authority");
    let authority = broker.directory.join("certs/ca.pem");
    let authority = authority.to_str().unwrap();
    let url = broker.url("classic+tls");
    assert_clean(&bench("round-trip", &url, &["--tls-ca", authority]), "its own");
    let other = Server::broker("other-authority");
    let output = bench("round-trip", &other.url("classic+tls"), &["--tls-ca", authority]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn reports_are_written_and_bounds_are_kept() {
    let broker = Server::broker("reports");
    let path = |name: &str| broker.directory.join(name).to_str().unwrap().to_owned();
    let (json, hdr, html) = (path("run.json"), path("run.hlog"), path("run.html"));
    let pid = broker.process.id().to_string();
    let reports = ["--json", &json, "--hdr", &hdr, "--html", &html, "--server-pid", &pid];
    let output = bench("fan-out --receivers 3", &broker.url("classic+tcp"), &reports);
    assert_clean(&output, "reports");
    let line: serde_json::Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert!(line["count"].as_u64().unwrap() > 0, "{line}");
    assert!(line["latency_ns"]["last_delivery"]["p99"].as_u64().unwrap() > 0, "{line}");
    assert!(line["cpu_per_unit_ns"].as_f64().unwrap() > 0.0, "{line}");
    assert!(fs::read_to_string(hdr).unwrap().contains("HISTFAAA"));
    assert!(fs::read_to_string(html).unwrap().contains("<polyline"));

    let bounds = ["--fail-if", "p50>1h", "--fail-if", "p50>1ns"];
    let output = bench("round-trip", &broker.url("classic+tcp"), &bounds);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = bench("round-trip", &broker.url("classic+tcp"), &bounds[2..]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
fn a_scenario_can_run_beside_its_own_floor() {
    let broker = Server::broker("with-floor");
    let arguments = ["--repeat", "1", "--with-floor"];
    let output = bench("pairs --pairs 2", &broker.url("stomp+tcp"), &arguments);
    assert_clean(&output, "with floor");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("| floor | ") && text.contains("| server | "), "{text}");
}

#[test]
fn a_matrix_is_run_as_its_file_says() {
    let broker = Server::broker("matrix");
    let floor = Server::floor();
    let config = broker.directory.join("matrix.toml");
    let text = format!(
        "repeat = 2\n[[target]]\nname = \"floor\"\nurl = \"{}\"\n[[target]]\nname = \"ours\"\n\
         url = \"{}\"\npid = {}\n[[case]]\nname = \"pairs\"\nrun = \"pairs --pairs 2 --duration \
         100ms --warmup 10ms\"\n[[case]]\nname = \"one\"\nrun = \"round-trip --duration 100ms\"\n\
         targets = [\"ours\"]\n",
        floor.url("floor"),
        broker.url("classic+tcp"),
        broker.process.id(),
    );
    fs::write(&config, text).unwrap();
    let json = broker.directory.join("matrix.json");
    let output = Command::new(BENCH)
        .args(["compare", "--core", "none", "--config"])
        .arg(&config)
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    assert_clean(&output, "matrix");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("### pairs") && text.contains("### one"), "{text}");
    assert_eq!(fs::read_to_string(json).unwrap().lines().count(), 6);
}

#[test]
fn bars_are_judged_by_the_results_of_a_matrix() {
    let (broker, floor) = (Server::broker("bars"), Server::floor());
    let config = broker.directory.join("matrix.toml");
    let bar = |name: &str, bound: &str| {
        format!(
            "[[bar]]\nname = \"{name}\"\ncase = \"one\"\ntarget = \"ours\"\nmetric = \"p50\"\n\
             against = [\"floor\"]\n{bound}\n"
        )
    };
    let text = format!(
        "repeat = 1\n[[target]]\nname = \"floor\"\nurl = \"{}\"\n[[target]]\nname = \"ours\"\n\
         url = \"{}\"\n[[case]]\nname = \"one\"\nrun = \"round-trip --duration 100ms --warmup \
         10ms\"\n[[case]]\nname = \"two\"\nrun = \"pairs --duration 100ms\"\n{}",
        floor.url("floor"),
        broker.url("classic+tcp"),
        bar("easy", "at_most = 1e9"),
    );
    let compare = |text: &str, arguments: &[&str]| {
        fs::write(&config, text).unwrap();
        let mut command = Command::new(BENCH);
        command.args(["compare", "--core", "none", "--only", "o*", "--fail-if-missed"]);
        command.args(arguments).arg("--config").arg(&config).output().unwrap()
    };
    let output = compare(&text, &[]);
    assert_clean(&output, "easy");
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("| easy | ") && told.contains("| met |"), "{told}");
    assert!(told.contains("### one") && !told.contains("### two"), "{told}");

    let output = compare(&format!("{text}{}", bar("hard", "at_most = 1e-9")), &[]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("| missed |"));
    // Without the floor there is no ratio, and so no bar.
    let output = compare(&text, &["--targets", "ours"]);
    assert_clean(&output, "without the floor");
    assert!(!String::from_utf8(output.stdout).unwrap().contains("easy"));
}

#[test]
fn the_floor_takes_tls_too() {
    let broker = Server::broker("floor-tls");
    let path = |name: &str| broker.directory.join("certs").join(name);
    let mut command = Command::new(BENCH);
    command.args(["floor", "--listen", "127.0.0.1:0", "--tls-cert"]).arg(path("server.pem"));
    command.arg("--tls-key").arg(path("server.key"));
    let floor = Server::start(command, env!("CARGO_TARGET_TMPDIR").into(), "floor+tls://");
    for scenario in ["logins --concurrency 4", "pairs --pairs 2 --body 65536", "fan-out"] {
        assert_clean(&bench(scenario, &floor.url("floor+tls"), &[]), scenario);
    }
}

#[test]
fn the_process_that_listens_is_found() {
    let broker = Server::broker("auto");
    let output = bench("round-trip", &broker.url("stomp+tcp"), &["--server-pid", "auto"]);
    assert_clean(&output, "auto");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("server CPU per delivery"), "{text}");
}

#[test]
fn a_missing_server_is_named() {
    let output = bench("round-trip", "stomp+tcp://127.0.0.1:9", &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("connecting: "));
}

fn run_all(scheme: &str) {
    let broker = Server::broker(scheme);
    let pid = broker.process.id().to_string();
    for scenario in SCENARIOS {
        let output = bench(scenario, &broker.url(scheme), &["--server-pid", &pid]);
        assert_clean(&output, scenario);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("server CPU per "), "{text}");
    }
}

fn bench(scenario: &str, url: &str, arguments: &[&str]) -> Output {
    Command::new(BENCH)
        .args(scenario.split(' '))
        .arg(url)
        .args(SHORT)
        .args(arguments)
        .output()
        .unwrap()
}

fn assert_clean(output: &Output, what: &str) {
    assert!(output.status.success(), "{what}: {output:?}");
}

/// A server that ends with this value.
struct Server {
    process: Child,
    address: String,
    directory: PathBuf,
}

impl Server {
    fn broker(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // What an earlier run left there would be added to.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new(broker_program());
        command.args(["--listen", "127.0.0.1:0"]);
        Self::start(command, directory, "listening address=")
    }

    fn floor() -> Self {
        let mut command = Command::new(BENCH);
        command.args(["floor", "--listen", "127.0.0.1:0"]);
        Self::start(command, env!("CARGO_TARGET_TMPDIR").into(), "floor://")
    }

    fn start(mut command: Command, directory: PathBuf, mark: &str) -> Self {
        // The address follows a mark, on one output or the other; nobody reads what comes later.
        let (reader, writer) = std::io::pipe().unwrap();
        command.stdout(writer.try_clone().unwrap()).stderr(writer).stdin(Stdio::null());
        let process = command.current_dir(&directory).spawn().unwrap();
        drop(command);
        let mut lines = BufReader::new(reader).lines();
        let line = lines.find(|line| line.as_ref().unwrap().contains(mark)).unwrap().unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        let address = line.rsplit([' ', '/', '=']).next().unwrap().to_owned();
        Self { process, address, directory }
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The broker's program, built where ours was. A package's tests are not given the programs of
/// another, so it is asked for.
fn broker_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let directory = Path::new(BENCH).parent().unwrap();
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "com-broker", "--bin", "com-broker"])
            .arg("--target-dir")
            .arg(directory.parent().unwrap())
            .args(if directory.ends_with("release") { &["--release"][..] } else { &[] })
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(status.success(), "the broker does not build");
        directory.join("com-broker")
    })
}
