//! What is counted against a bound on memory is about what the process holds, whatever shape the messages have.

use std::io::{Read, Write};

use crate::support::client::{Client, Profile, Stream, Transport, connect, tls_config};
use crate::support::server::{APPLICATION_KEY, Server, Setup};

const COUNTED: u64 = 32 << 20;

/// Memory that a broker in use has besides: buffers, and what the allocator keeps.
const SLACK: u64 = 3 << 20;

/// Memory that a broker has at rest and that is used first.
const FREE: u64 = 1 << 20;

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

/// Sessions of the standard dialect, with so many subscriptions each.
struct Subscribers<'s> {
    server: &'s Server,
    subscriptions: usize,
    id_bytes: usize,
    /// The topic of a session's subscription.
    topic: fn(usize, usize) -> String,
}

impl Subscribers<'_> {
    /// Logs a session in, which may take over from itself and then keep its subscriptions.
    fn log_in(&self, session: usize, resumes: bool) -> Stream {
        let mut stream = Stream::connect(self.server.address());
        let key = Profile::Agent.key();
        let connect = format!(
            "CONNECT\naccept-version:1.2\nhost:h\nlogin:holder-{session}\npasscode:{key}\n\
             secret-key:{APPLICATION_KEY}\nresume:{resumes}\n\n\0"
        );
        stream.write_all(connect.as_bytes()).unwrap();
        read_until(&mut stream, "CONNECTED\n");
        stream
    }

    /// Subscribes, and waits until all of it is done.
    fn subscribe(&self, session: usize, stream: &mut Stream) {
        let topic = self.topic;
        let width = self.id_bytes;
        let frames = (0..self.subscriptions).map(|number| {
            let topic = topic(session, number);
            format!("SUBSCRIBE\nid:{number:0width$}\ndestination:{topic}\n\n\0")
        });
        stream.write_all(frames.collect::<String>().as_bytes()).unwrap();
        self.wait(stream);
    }

    /// Waits until the broker is through with what was sent.
    fn wait(&self, stream: &mut Stream) {
        stream.write_all(b"SEND\ndestination:/topic/nobody\nreceipt:r\n\n\0").unwrap();
        read_until(stream, "RECEIPT\n");
    }
}

#[test]
fn what_tls_holds_for_receivers_that_do_not_read_is_counted() {
    const TOTAL: u32 = 4 << 20;
    let server = Setup::new()
        .limits(&format!(
            "body_bytes_max = \"124 KiB\"\nheader_bytes_max = \"4 KiB\"\noutbound_total_bytes_max = {TOTAL}"
        ))
        .outbound(TOTAL, TOTAL, 600_000)
        .performance("socket_send_buffer_bytes = 4096")
        .start();
    let versions = [&rustls::version::TLS13];
    let mut deaf: Vec<_> = (0..100)
        .map(|number| {
            let socket = connect(server.address(), Some(4096));
            let config = tls_config(&server.authority(), &versions);
            let mut stream = Stream::secure(socket, config).unwrap();
            let key = Profile::Agent.key();
            let frames = format!(
                "CONNECT\naccept-version:1.2\nhost:h\nlogin:deaf-{number}\npasscode:{key}\n\
                 secret-key:{APPLICATION_KEY}\n\n\0\
                 SUBSCRIBE\nid:0\ndestination:/topic/t\nreceipt:r\n\n\0"
            );
            stream.write_all(frames.as_bytes()).unwrap();
            read_until(&mut stream, "RECEIPT\n");
            stream
        })
        .collect();
    // What they have queued is theirs together, and far less than the limit.
    let mut sender = Client::log_in(&server, Transport::Tcp, Profile::Admin, "sender");
    for _ in 0..8 {
        sender.send("/topic/t", &[b'x'; 96 * 1024]);
    }
    sender.expect_nothing();
    let line = server.log.wait_for_line(&["closed", "login=\"deaf-"]);
    assert!(line.contains("outbound_total_bytes_max"), "{line}");
    // No more of them than is needed. The others get all of it.
    let is_whole = |stream: &mut Stream| {
        let mut left = 8 * 96 * 1024_usize;
        let mut buffer = [0; 16 * 1024];
        while left > 0 {
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => left = left.saturating_sub(count),
                _ => return false,
            }
        }
        true
    };
    let whole = deaf.iter_mut().map(is_whole).filter(|is_whole| *is_whole).count();
    assert!((20..90).contains(&whole), "{whole} of 100 are left");
}

/// Reads up to the NUL of a frame with this command.
fn read_until(stream: &mut Stream, command: &str) {
    let (mut heard, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&heard);
        if text.find(command).is_some_and(|at| text[at..].contains('\0')) {
            return;
        }
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the broker closed: {text}");
        heard.extend_from_slice(&buffer[..count]);
    }
}

/// Has sessions subscribe, each taken over by itself so often with and without its subscriptions in turn, and compares
/// what the process has grown by with what is counted.
fn assert_subscriptions(
    (sessions, takeovers): (usize, usize),
    (subscriptions, id_bytes): (usize, usize),
    topic: fn(usize, usize) -> String,
) {
    let server = Setup::new().limits("wildcards_max = 100_000").start();
    let crowd = Subscribers { server: &server, subscriptions, id_bytes, topic };
    let mut streams: Vec<_> = (0..sessions).map(|session| crowd.log_in(session, false)).collect();
    let before = server.resident_bytes();
    let subscribe_all = |streams: &mut Vec<Stream>| {
        for (session, stream) in streams.iter_mut().enumerate() {
            crowd.subscribe(session, stream);
        }
    };
    subscribe_all(&mut streams);
    for number in 0..takeovers {
        let resumes = number % 2 == 0;
        for (session, stream) in streams.iter_mut().enumerate() {
            *stream = crowd.log_in(session, resumes);
        }
        if !resumes {
            subscribe_all(&mut streams);
        }
    }
    let grown = server.resident_bytes().saturating_sub(before);
    server.signal("USR1");
    let line = server.log.wait_for_line(&[" memory counted "]);
    let count = |name: &str| -> u64 {
        let (_, rest) = line.split_once(&format!(" {name}_bytes=")).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    let counted = count("subscriptions") + count("destinations") + count("patterns");
    let shape = format!(
        "{sessions} sessions, {takeovers} takeovers of each, {subscriptions} times {}",
        topic(1, 2)
    );
    println!("{shape}: {grown} bytes, {counted} counted");
    assert!(grown < counted + counted / 3 + SLACK, "{shape}: {grown} bytes, {counted} counted");
    assert!(grown + FREE > counted - counted / 3, "{shape}: {grown} bytes, {counted} counted");
}

#[test]
fn subscriptions_to_topics_of_their_own_are_counted_as_they_are_held() {
    let topic = |session, number| format!("/topic/own/{session}/{number}");
    assert_subscriptions((60, 0), (1_000, 1), topic);
}

#[test]
fn subscriptions_of_many_sessions_to_the_same_topics_are_counted_as_they_are_held() {
    assert_subscriptions((100, 0), (999, 1), |_, number| format!("/topic/same/{number}"));
}

#[test]
fn subscriptions_to_one_topic_are_counted_as_they_are_held() {
    assert_subscriptions((100, 0), (1_000, 1), |_, _| "/topic/same".to_owned());
}

#[test]
fn a_few_subscriptions_of_each_session_are_counted_as_they_are_held() {
    assert_subscriptions((400, 0), (8, 1), |_, number| format!("/topic/same/{number}"));
    assert_subscriptions((400, 0), (9, 1), |_, number| format!("/topic/same/{number}"));
}

#[test]
fn subscriptions_with_long_ids_are_counted_as_they_are_held() {
    assert_subscriptions((40, 0), (1_000, 256), |_, number| format!("/topic/same/{number}"));
}

#[test]
fn subscriptions_with_wildcards_are_counted_as_they_are_held() {
    assert_subscriptions((100, 0), (200, 1), |session, number| {
        format!("/topic/own/{session}/{number}/*")
    });
    assert_subscriptions((100, 0), (240, 1), |_, number| format!("/topic/same/{number}/*"));
}

#[test]
fn subscriptions_that_are_taken_over_are_counted_as_they_are_held() {
    assert_subscriptions((100, 4), (999, 1), |_, number| format!("/topic/same/{number}"));
}
