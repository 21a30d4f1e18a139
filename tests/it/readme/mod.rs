//! README.md and the pages beside it: commands are run as written, the examples of the Rust client are
//! compiled, and figures agree with their sources.

#[path = "../../../clients/rust/examples/classic.rs"]
#[expect(dead_code, unreachable_pub, reason = "a program with a `main` of its own")]
mod classic;
#[path = "../../../clients/rust/examples/standard.rs"]
#[expect(dead_code, unreachable_pub, reason = "a program with a `main` of its own")]
mod standard;

use com_broker_client::Options;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::support::server::{BINARY, Server, Setup, forget_environment};

/// A page of the repository.
fn page(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The text between two others, each of which has to occur.
fn between<'a>(text: &'a str, before: &str, behind: &str) -> &'a str {
    let (_, rest) = text.split_once(before).expect(before);
    rest.split_once(behind).expect(behind).0
}

#[test]
fn the_examples_of_the_rust_client_run() {
    let server = Setup::new().without_keys().start();
    let options = |login: &str, profile_key: &str| {
        Options::new(format!("tcp://{}", server.address()))
            .login(login)
            .keys("my_app_secret_key", profile_key)
    };
    let heard = classic::say_hello(&options("rosa", "my_agent_secret_key")).unwrap();
    assert_eq!(heard, "hello, me");
    let heard = standard::publish(&options("billing", "my_service_secret_key")).unwrap();
    assert_eq!(heard, "1: paid");
}

#[test]
fn the_examples_of_the_rust_client_are_those_of_its_readme() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/rust");
    let readme = fs::read_to_string(format!("{root}/README.md")).unwrap();
    let blocks: Vec<_> = readme.split("```rust,no_run\n").skip(1).collect();
    assert_eq!(blocks.len(), 2);
    for (block, name) in blocks.into_iter().zip(["classic", "standard"]) {
        let (block, _) = block.split_once("```").unwrap();
        let program = fs::read_to_string(format!("{root}/examples/{name}.rs")).unwrap();
        assert_eq!(program.split_once("\n\n").unwrap().1, block, "{name}");
    }
}

#[test]
fn the_readme_is_short() {
    assert!(page("README.md").lines().count() <= 150);
}

#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    let server = Setup::new().without_keys().start();
    fs::create_dir_all(server.path("target/release")).unwrap();
    symlink(BINARY, server.path("target/release/com-broker")).unwrap();
    let readme = page("README.md");
    let section = between(&readme, "## The command line\n", "\n## ");
    let commands: Vec<_> =
        section.split("```sh\n").skip(1).map(|rest| rest.split_once("\n```").unwrap().0).collect();
    let [ana, sue, send, send_securely, eve] = commands[..] else { panic!("{commands:?}") };

    let mut ana = Shown::run(&server, ana);
    ana.expect("logged in as ana, agent, at /agent/ana");
    let mut sue = Shown::run(&server, sue);
    sue.expect("watching /agent/a.*, who is there and who comes later");
    for (send, text) in [(send, "hello"), (send_securely, "hello again")] {
        Shown::run(&server, send).expect("to /agent/ana: 2 clients got it");
        for watcher in [&mut ana, &mut sue] {
            watcher.expect(&format!("    {text}"));
        }
    }
    let mut eve = Shown::run(&server, eve);
    eve.expect("ana is logged in, /agent/ana");
    drop(sue);
    eve.expect("sue logged out, /agent/sue");
}

/// A running command of a page, and its output. It is ended with the test.
struct Shown {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Shown {
    /// Runs a command as written, except for the port, in the directory of the server's certificates.
    fn run(server: &Server, command: &str) -> Self {
        let port = server.address().port().to_string();
        let command = if command.contains("--url ") {
            command.replace("6661", &port)
        } else {
            command.replace(" --login ", &format!(" --url tcp://127.0.0.1:{port} --login "))
        };
        assert!(command.contains(&port), "{command}");
        let mut shell = Command::new("sh");
        forget_environment(&mut shell);
        shell.args(["-c", &format!("exec {command}")]).current_dir(server.path(""));
        let mut child = shell.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Waits for a line that ends with this text or has a comma behind it.
    fn expect(&mut self, text: &str) {
        let mut shown = String::new();
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "{text} is missing: {shown}");
            let line = line.trim_end();
            if line.ends_with(text) || line.starts_with(&format!("{text},")) {
                return;
            }
            shown.push_str(line);
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_bars_of_the_readme_are_measured_ones() {
    let (begin, end) = ("<!-- scripts/compare-peers writes from here -->", "<!-- to here -->");
    let (readme, performance) = (page("README.md"), page("docs/performance.md"));
    let measured: Vec<Vec<_>> =
        between(&performance, begin, end).lines().map(|line| line.split(" | ").collect()).collect();
    let rows: Vec<Vec<_>> =
        between(between(&readme, begin, end), "|---|---:|---:|---:|---:|---|\n", "\n\n")
            .lines()
            .map(|line| line.split(" | ").collect())
            .collect();
    assert_eq!(rows.len(), 8);
    for row in rows {
        // All but the spread of rounds.
        let is_the_same =
            |found: &&Vec<_>| found.len() == 7 && found[..4] == row[..4] && found[5..] == row[4..];
        assert!(measured.iter().any(|found| is_the_same(&found)), "{row:?}");
    }
}

#[test]
fn the_counted_instructions_are_documented() {
    let counted = page("bench/instructions.txt");
    let counted = counted.lines().find_map(|line| line.strip_prefix("sent ")).unwrap();
    let performance = page("docs/performance.md").replace(',', "");
    for (before, behind) in [
        ("parsed dispatched encoded and queued takes\n", " instructions"),
        ("| instructions for a SEND with one receiver (bench/instructions) | ", " |"),
        ("- **1000 instructions**: ", " now"),
    ] {
        assert_eq!(between(&performance, before, behind), counted, "{before}");
    }
}

#[test]
fn the_links_of_the_pages_have_targets() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages: Vec<_> = ["README", "ARCHITECTURE", "CONTRIBUTING", "CHANGELOG", "SECURITY"]
        .map(|name| root.join(name).with_extension("md"))
        .into_iter()
        .chain(
            ["bench", "clients/javascript", "clients/python"]
                .map(|at| root.join(at).join("README.md")),
        )
        .chain(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")))
        .collect();
    let mut broken = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for (_, rest) in text.match_indices("](").map(|(at, _)| text.split_at(at + 2)) {
            let link = rest.split(')').next().unwrap();
            if link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let leads = if heading.is_empty() {
                target.exists()
            } else {
                fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&text).any(|one| one == heading))
            };
            if !leads {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The anchors of a page's headings.
fn anchors(page: &str) -> impl Iterator<Item = String> {
    page.lines().filter(|line| line.starts_with('#')).map(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|&one| one.is_alphanumeric() || " -_".contains(one));
        kept.collect::<String>().replace(' ', "-")
    })
}
