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
fn with_own_keys_there_is_no_sample_page() {
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
fn the_sample_page_disappears_once_there_are_own_keys() {
    let mut server = Setup::new().without_keys().start();
    assert!(request(&server, false, "GET", "/").starts_with("HTTP/1.1 200 "));
    server.rewrite_key(1, Profile::Agent.key());
    server.signal("HUP");
    server.log.wait_for_line(&["reloaded"]);
    assert!(request(&server, false, "GET", "/").starts_with("HTTP/1.1 400 "));
    assert!(request(&server, false, "GET", "/sample.js").starts_with("HTTP/1.1 404 "));
}

/// Requests of load balancers, proxies, browsers and ordinary HTTP clients.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn requests_are_parsed_according_to_rfc_9110_and_rfc_9112() {
    let server = Server::start();
    let long_body = "x".repeat(100_000);
    for (request, status, body) in [
        // HAProxy's httpchk, and nginx by default.
        ("GET /health HTTP/1.0\r\n\r\n", "200 OK", "ok\n"),
        ("GET /health HTTP/1.0\r\nHost: x\r\nConnection: close\r\n\r\n", "200 OK", "ok\n"),
        // Java's HttpClient, and curl --http2.
        (
            "GET /health HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nHost: x\r\n\
             HTTP2-Settings: AAMAAABkAAQAAP__\r\nUpgrade: h2c\r\n\r\n",
            "200 OK",
            "ok\n",
        ),
        // A proxy.
        ("GET http://x/health HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "ok\n"),
        ("GET /health HTTP/1.1\nHost: x\n\n", "200 OK", "ok\n"),
        ("HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", ""),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", ""),
        (
            &format!(
                "GET /health HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\
                 Content-Length: {}\r\n\r\n{long_body}",
                long_body.len()
            ),
            "200 OK",
            "ok\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "400 Bad Request",
            "The WebSocket handshake Connection field is missing\n",
        ),
        ("GET /health HTTP/1.1\r\n\r\n", "400 Bad Request", "The Host header is missing\n"),
        (
            "GET /health HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
            "400 Bad Request",
            "There is more than one Host header\n",
        ),
        (
            "GET /health HTTP/1.1\r\nHost : x\r\n\r\n",
            "400 Bad Request",
            "A header line is malformed\n",
        ),
        (
            "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
            "405 Method Not Allowed",
            "Only GET, HEAD and OPTIONS are served here\n",
        ),
        (
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "505 HTTP Version Not Supported",
            "HTTP/1.1 and HTTP/1.0 are spoken here\n",
        ),
    ] {
        for secure in [false, true] {
            let answer = exchange(&server, secure, request.as_bytes());
            let shown = &request[..request.len().min(200)];
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{shown}{answer}");
            assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{shown}{answer}");
            assert!(answer.contains("\r\nConnection: close\r\n"), "{shown}{answer}");
        }
    }
}

#[test]
fn a_browser_gets_a_page_that_explains_the_broker() {
    let server = Server::start();
    let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
    let page = exchange(&server, false, request.as_bytes());
    assert!(page.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{page}");
    assert!(page.contains("\r\nContent-Type: text/html; charset=utf-8\r\n"), "{page}");
    assert!(page.contains("<h1>This is a Communication Broker</h1>"), "{page}");
    assert!(page.ends_with("</html>\n"), "{page}");
}

fn request(server: &Server, secure: bool, method: &str, path: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    exchange(server, secure, request.as_bytes())
}

fn exchange(server: &Server, secure: bool, request: &[u8]) -> String {
    let mut stream = if secure {
        Stream::connect_securely(server.address(), &server.authority())
    } else {
        Stream::connect(server.address())
    };
    stream.write_all(request).unwrap();
    String::from_utf8(stream.read_to_end()).unwrap()
}
