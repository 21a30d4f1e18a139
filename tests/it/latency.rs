//! The export of latency histograms: at SIGUSR1 and at the end.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::client::{Client, Profile, Transport};
use crate::support::server::{Server, Setup};

const STAGES: [&str; 4] = ["delivery", "dispatch", "turn", "poll"];

fn exchange(server: &Server, count: usize) {
    let mut ana = Client::log_in(server, Transport::Ws, Profile::Agent, "ana");
    for _ in 0..count {
        ana.send("/agent/ana", b"x");
        ana.receive_message();
    }
}

fn files(server: &Server, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(server.path("latency")).unwrap();
    let mut paths: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(ending))
        .collect();
    paths.sort();
    paths
}

/// The count in the last table of the log.
fn count_in_table(server: &Server, stage: &str) -> u64 {
    let log = server.log.text();
    let row = log.lines().rev().find(|line| line.contains(&format!(" latency {stage} "))).unwrap();
    let mut words = row.split_whitespace().skip_while(|word| *word != stage);
    words.nth(1).unwrap().parse().unwrap()
}

#[test]
fn sigusr1_and_the_end_export_table_and_files() {
    let mut server = Setup::new().latency_files().start();
    exchange(&server, 10);
    server.signal("USR1");
    server.log.wait_for_line(&["latency files=5 "]);
    assert_eq!(files(&server, ".hlog").len(), 1);
    assert_eq!(count_in_table(&server, "delivery"), 10);
    for stage in STAGES {
        assert_eq!(files(&server, ".hgrm").iter().filter(|path| is_of(path, stage)).count(), 1);
    }
    exchange(&server, 5);
    server.signal("TERM");
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert_eq!(count_in_table(&server, "delivery"), 15, "the table tells totals");
    let logs = files(&server, ".hlog");
    assert_eq!(logs.len(), 2);
    for path in logs {
        let text = fs::read_to_string(path).unwrap();
        for stage in STAGES {
            assert!(text.contains(&format!("Tag={stage},")), "{text}");
        }
    }
    let last = files(&server, ".hgrm").into_iter().rfind(|path| is_of(path, "delivery")).unwrap();
    let text = fs::read_to_string(last).unwrap();
    assert!(text.contains("Total count    =           15"), "{text}");
    assert!(count_in_table(&server, "turn") >= 15);
    // No drafts are left.
    assert_eq!(files(&server, "").len(), 10);
}

#[test]
fn sigusr1_logs_the_memory_that_is_counted() {
    let server = Server::start();
    let mut ana = Client::log_in(&server, Transport::Ws, Profile::Agent, "ana");
    ana.send("/queue/kept", &[b'x'; 100_000]);
    let mut boss = Client::log_in(&server, Transport::Tcp, Profile::SuperAgent, "boss");
    boss.subscribe("1", "/agent/a.*");
    exchange(&server, 1);
    server.signal("USR1");
    let line = server.log.wait_for_line(&[" memory counted "]);
    let count = |name: &str| -> u64 {
        let (_, rest) = line.split_once(&format!(" {name}=")).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!((100_000..110_000).contains(&count("queues_bytes")), "{line}");
    assert!((1..10_000).contains(&count("destinations_bytes")), "{line}");
    assert_eq!((count("inbound_bytes"), count("transactions_bytes")), (0, 0), "{line}");
    assert!((1_000..10_000).contains(&count("connections_bytes")), "{line}");
    assert!((1..10_000).contains(&count("patterns_bytes")), "{line}");
    assert!((100_000..150_000).contains(&count("total_bytes")), "{line}");
}

fn is_of(path: &Path, stage: &str) -> bool {
    path.file_name().unwrap().to_str().unwrap().starts_with(&format!("com-broker-latency-{stage}-"))
}

#[test]
fn without_a_directory_the_table_is_still_logged() {
    let mut server = Server::start();
    exchange(&server, 3);
    server.signal("TERM");
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert_eq!(count_in_table(&server, "delivery"), 3);
    assert!(!server.path("latency").exists());
}
