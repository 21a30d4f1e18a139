//! What is counted against a bound on memory is about what the process holds, whatever shape the messages have.

use crate::support::client::{Client, Profile, Transport};
use crate::support::server::Setup;

const COUNTED: u64 = 32 << 20;

/// Memory that a broker in use has besides: buffers, and what the allocator keeps.
const SLACK: u64 = 3 << 20;

/// Fills queues with messages until their sender has used up its share, and compares what the process has grown by
/// with what was counted.
fn assert_counted(login: &str, lines: usize, name_bytes: usize, body_bytes: usize) {
    let server = Setup::new()
        .limits(&format!("queues_bytes_max = {COUNTED}\nqueue_messages_max = 1_000_000"))
        .sections(&format!("[limits.queue_share_bytes_max]\nadmin = {COUNTED}"))
        .start();
    let mut sender = Client::log_in(&server, Transport::Tcp, Profile::Admin, login);
    let queue = format!("/queue/{}", "q".repeat(name_bytes));
    let mut headers = vec![("destination", &*queue)];
    headers.resize(1 + lines, ("a", "b"));
    let body = vec![b'x'; body_bytes];
    let before = server.resident_bytes();
    while !sender.has_news() {
        for _ in 0..64 {
            sender.send_frame("SEND", &headers, &body);
        }
    }
    let error = sender.receive_error("LIMIT_EXCEEDED");
    assert!(error.header("error-desc").contains("queue_share_bytes_max"), "{error:?}");
    assert_eq!(error.header("retry"), "later");
    let grown = server.resident_bytes().saturating_sub(before);
    let shape = format!("{lines} lines, {name_bytes} bytes of name, {body_bytes} of body");
    println!("{shape}: {grown} of {COUNTED} bytes");
    assert!(grown < COUNTED + COUNTED / 3 + SLACK, "{shape}: {grown} bytes more");
    assert!(grown > COUNTED / 2, "{shape}: only {grown} bytes more");
}

/// The allocator then maps each large piece by itself, and none waits for another to be given back.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn the_allocator_is_told_how_to_give_large_pieces_back() {
    let server = Setup::new().start();
    let environment = server.environment();
    assert!(environment.contains("glibc.malloc.mmap_threshold=131072"), "{environment:?}");
    assert_eq!(environment.matches("glibc.malloc.mmap_threshold").count(), 1);
}

#[test]
fn messages_of_few_bytes_are_counted_as_they_are_held() {
    assert_counted("ana", 0, 1, 1);
}

#[test]
fn messages_of_many_lines_are_counted_as_they_are_held() {
    assert_counted("ana", 60, 1, 1);
}

#[test]
fn messages_of_a_sender_with_a_long_name_are_counted_as_they_are_held() {
    assert_counted(&"n".repeat(2_000), 0, 1, 1);
}

#[test]
fn messages_of_long_bodies_are_counted_as_they_are_held() {
    assert_counted("ana", 3, 4_000, 40_000);
}
