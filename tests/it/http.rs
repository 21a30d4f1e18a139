//! Plain HTTP requests, over TCP and TLS.

use std::io::Write;

use crate::support::client::{Profile, Stream};
use crate::support::server::{Server, Setup};

#[test]
fn health_is_answered_and_unknown_paths_are_not_found() {
    let server = Server::start();
    for (path, status, body) in [
        ("/health", "200 OK", "ok\n"),
        ("/nothing", "404 Not Found", "There is nothing at this path\n"),
        ("/", "400 Bad Request", "The WebSocket handshake Connection field is missing\n"),
    ] {
        for secure in [false, true] {
            let answer = request(&server, secure, "GET", path);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
            assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
        }
    }
    server.log.wait_for_line(&["closed", "transport=https", "reason=answered"]);
}

#[test]
fn with_keys_of_ones_own_there_is_no_sample_page() {
    let server = Server::start();
    for path in ["/sample.js", "/sample.css", "/dist/com-broker.js"] {
        let answer = request(&server, false, "GET", path);
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
    assert!(request(&server, false, "GET", "/").starts_with("HTTP/1.1 400 "));
}

#[test]
fn with_development_keys_the_sample_page_is_served_whole() {
    let server = Setup::new().without_keys().start();
    for (path, start, end) in [
        ("/", "<!doctype html>\n", "</html>\n"),
        ("/sample.css", "/* ", "}\n"),
        ("/sample.js", "/** ", "\n"),
        ("/dist/com-broker.js", "/*! com-broker ", "\n"),
    ] {
        for secure in [false, true] {
            let answer = request(&server, secure, "GET", path);
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(head.contains("\r\nContent-Security-Policy: default-src 'none'"), "{head}");
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
            assert!(body.starts_with(start) && body.ends_with(end), "{path}");
            let only_head = request(&server, secure, "HEAD", path);
            assert_eq!(only_head, format!("{head}\r\n\r\n"));
        }
    }
    assert!(request(&server, false, "GET", "/nothing").starts_with("HTTP/1.1 404 "));
    let refused = request(&server, false, "POST", "/");
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
    assert!(refused.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), "{refused}");
}

#[test]
fn the_sample_page_is_gone_as_soon_as_there_are_keys() {
    let mut server = Setup::new().without_keys().start();
    assert!(request(&server, false, "GET", "/").starts_with("HTTP/1.1 200 "));
    server.rewrite_key(1, Profile::Agent.key());
    server.signal("HUP");
    server.log.wait_for_line(&["reloaded"]);
    assert!(request(&server, false, "GET", "/").starts_with("HTTP/1.1 400 "));
    assert!(request(&server, false, "GET", "/sample.js").starts_with("HTTP/1.1 404 "));
}

fn request(server: &Server, secure: bool, method: &str, path: &str) -> String {
    let mut stream = if secure {
        Stream::connect_securely(server.address(), &server.authority())
    } else {
        Stream::connect(server.address())
    };
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    String::from_utf8(stream.read_to_end()).unwrap()
}
