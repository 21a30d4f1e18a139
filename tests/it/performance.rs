//! The settings that lower latency: busy polling, the core of the loop, the kernel's buffers.

use crate::support::PATIENCE;
use crate::support::client::{Client, Profile, Transport};
use crate::support::server::{Setup, wait_for};

fn exchange(client: &mut Client, count: usize) {
    for _ in 0..count {
        client.send("/agent/ana", b"x");
        client.receive_message();
    }
}

/// The count of a stage in the last table of the log.
fn count_in_table(log: &str, stage: &str) -> u64 {
    let row = log.lines().rev().find(|line| line.contains(&format!(" latency {stage} "))).unwrap();
    let mut words = row.split_whitespace().skip_while(|word| *word != stage);
    words.nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_busy_polling_loop_serves_and_drains() {
    const COUNT: usize = 20;
    let mut server = Setup::new().performance("busy_poll = true").start();
    let mut clients = Vec::new();
    for (transport, login) in Transport::ALL.into_iter().zip(["a", "b", "c", "d"]) {
        clients.push(Client::log_in(&server, transport, Profile::Agent, login));
    }
    let mut ana = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
    exchange(&mut ana, COUNT);
    // It does not sleep without clients either.
    let ticks = server.cpu_ticks();
    wait_for("CPU time to pass", PATIENCE, || (server.cpu_ticks() > ticks + 2).then_some(()));
    exchange(&mut ana, 1);
    server.signal("TERM");
    for client in clients.iter_mut().chain([&mut ana]) {
        client.receive_error("DRAINING");
        client.receive_end();
    }
    drop((clients, ana));
    assert_eq!(server.wait_for_exit().code(), Some(0));
    let log = server.log.text();
    assert!(log.contains(" drained connections="), "{log}");
    assert_eq!(count_in_table(&log, "delivery"), COUNT as u64 + 1);
    // Empty polls are not counted as turns.
    let (turns, polls) = (server.totals().count("turns"), count_in_table(&log, "poll"));
    assert_eq!(count_in_table(&log, "turn"), polls);
    assert!(turns >= COUNT as u64 && turns < 10_000, "{turns}");
}

#[test]
fn a_busy_polling_loop_keeps_deadlines() {
    let server =
        Setup::new().performance("busy_poll = true").limits("connect_ms_max = 300").start();
    let mut silent = Client::open(&server, Transport::Ws);
    let error = silent.receive();
    assert_eq!(error.command, "ERROR");
    silent.receive_end();
    drop(silent);
    server.stop();
}

#[cfg(target_os = "linux")]
#[test]
fn the_loop_is_pinned_to_its_core() {
    let all = rustix::thread::sched_getaffinity(None).unwrap();
    for core in (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| all.is_set(*core)) {
        let server = Setup::new().performance(&format!("core = {core}")).start();
        assert_eq!(server.cores(), core.to_string());
        let mut ana = Client::log_in(&server, Transport::Tcp, Profile::Agent, "ana");
        exchange(&mut ana, 1);
        drop(ana);
        server.stop();
    }
}

#[test]
fn buffers_that_the_kernel_refuses_are_logged() {
    let lines = "socket_send_buffer_bytes = \"1 GiB\"\nsocket_receive_buffer_bytes = \"64 KiB\"";
    let server = Setup::new().performance(lines).listener("").listener("").start();
    server
        .log
        .wait_for_line(&["WARN", " setting=socket_send_buffer_bytes wanted=1073741824 allowed="]);
    let mut ana = Client::log_in(&server, Transport::Tls, Profile::Agent, "ana");
    exchange(&mut ana, 3);
    drop(ana);
    let log = server.log.text();
    assert_eq!(
        log.matches("setting=socket_send_buffer_bytes").count(),
        1,
        "once, not for each listener"
    );
    assert!(!log.contains("setting=socket_receive_buffer_bytes"), "{log}");
    server.stop();
}
