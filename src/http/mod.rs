//! Answers to plain HTTP requests.
//!
//! It does not know sockets or sessions.

mod sample;

use crate::transport::request::{Method, PlainRequest};
use crate::transport::upgrade::{TEXT, response};

/// What a listener serves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    /// Whether plain requests are served at all.
    pub http: bool,
    /// Whether the sample page is served.
    pub sample: bool,
}

/// The whole response to a request, after which the connection closes.
pub(crate) fn answer(request: &PlainRequest, served: Served) -> Vec<u8> {
    let Answer { status, content_type, lines, body } = find(request, served);
    // RFC 9110, 9.3.2: the answer to HEAD is that to GET, with its length but without the body.
    response(status, content_type, lines, body, request.method == Method::Head)
}

/// The whole response to a request if HTTP is not served.
pub(crate) fn refusal(request: &PlainRequest, why: &str) -> Vec<u8> {
    let body = format!("{why}\n");
    response("403 Forbidden", TEXT, "", body.as_bytes(), request.method == Method::Head)
}

/// An answer, in parts.
struct Answer {
    status: &'static str,
    content_type: &'static str,
    /// Further header lines, each with its end.
    lines: &'static str,
    body: &'static [u8],
}

impl Answer {
    fn text(status: &'static str, body: &'static [u8]) -> Self {
        Self { status, content_type: TEXT, lines: "", body }
    }
}

fn find(request: &PlainRequest, served: Served) -> Answer {
    match request.method {
        Method::Get | Method::Head => find_content(request, served),
        // RFC 9110, 9.3.7 and 15.5.6: both answers have Allow.
        Method::Options => Answer { lines: ALLOWED, ..Answer::text("200 OK", b"") },
        Method::Other => {
            let text = b"Only GET, HEAD and OPTIONS are served here\n";
            Answer { lines: ALLOWED, ..Answer::text("405 Method Not Allowed", text) }
        }
    }
}

fn find_content(request: &PlainRequest, served: Served) -> Answer {
    let path = &request.path[..];
    let no_upgrade = if request.is_too_old { TOO_OLD } else { NO_UPGRADE };
    let asset = if served.http && served.sample { sample::find(path) } else { None };
    match (asset, path) {
        (Some(asset), _) => asset,
        (None, "/health") if served.http => Answer::text("200 OK", b"ok\n"),
        (None, "/") if request.accepts_html => Answer {
            status: "426 Upgrade Required",
            content_type: "text/html; charset=utf-8",
            lines: BROWSER_LINES,
            body: include_bytes!("browser.html"),
        },
        (None, "/") => {
            Answer { lines: "Vary: Accept\r\n", ..Answer::text("400 Bad Request", no_upgrade) }
        }
        // If only WebSocket is served, the request can only have been meant as an upgrade.
        (None, _) if !served.http || request.is_too_old => {
            Answer::text("400 Bad Request", no_upgrade)
        }
        (None, _) => Answer::text("404 Not Found", b"There is nothing at this path\n"),
    }
}

const ALLOWED: &str = "Allow: GET, HEAD, OPTIONS\r\n";

const NO_UPGRADE: &[u8] = b"The WebSocket handshake Connection field is missing\n";

const TOO_OLD: &[u8] = b"A WebSocket cannot be opened in HTTP/1.0; \
    nginx in between needs proxy_http_version 1.1\n";

/// RFC 9110, 15.5.22: a 426 has Upgrade. The page loads nothing.
const BROWSER_LINES: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nVary: Accept\r\n\
    Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n\
    X-Content-Type-Options: nosniff\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Served = Served { http: true, sample: false };
    const SAMPLE: Served = Served { http: true, sample: true };
    const NOTHING: Served = Served { http: false, sample: true };

    fn get(path: &str, served: Served) -> String {
        ask(Method::Get, path, false, served)
    }

    fn ask(method: Method, path: &str, accepts_html: bool, served: Served) -> String {
        let request = PlainRequest { method, path: path.into(), accepts_html, is_too_old: false };
        String::from_utf8(answer(&request, served)).unwrap()
    }

    #[test]
    fn health_is_reported_if_http_is_served() {
        assert!(get("/health", PLAIN).starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(get("/health", SAMPLE).starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(get("/health", NOTHING).starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn other_paths_are_not_found() {
        for path in ["/nothing", "/sample.js", "/dist/com-broker.js", "/health/"] {
            assert!(get(path, PLAIN).starts_with("HTTP/1.1 404 "), "{path}");
            assert!(get(path, NOTHING).starts_with("HTTP/1.1 400 "), "{path}");
        }
        for path in ["/nothing", "//", "/../", "/index.html"] {
            assert!(get(path, SAMPLE).starts_with("HTTP/1.1 404 "), "{path}");
        }
        assert!(get("/", PLAIN).starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn the_sample_page_and_all_its_references_are_served() {
        let page = get("/", SAMPLE);
        assert!(page.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"));
        assert!(page.contains("\r\nContent-Security-Policy: default-src 'none'; "), "{page}");
        assert!(page.contains("\r\nX-Content-Type-Options: nosniff\r\n"), "{page}");
        let references =
            page.split(['"']).filter(|text| text.ends_with(".js") || text.ends_with(".css"));
        let references: Vec<_> = references.map(|text| text.trim_start_matches("..")).collect();
        assert_eq!(references, ["sample.css", "/dist/com-broker.js", "sample.js"]);
        for reference in references {
            let path = format!("/{}", reference.trim_start_matches('/'));
            let found = get(&path, SAMPLE);
            let kind = if path.ends_with("css") { "text/css" } else { "text/javascript" };
            let start = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\n");
            assert!(found.starts_with(&start), "{path}");
        }
        assert!(!page.contains("https:"), "the page needs nothing from elsewhere");
    }

    #[test]
    fn head_is_answered_without_the_body() {
        for (path, served) in [("/", SAMPLE), ("/health", PLAIN), ("/nothing", PLAIN)] {
            let head = ask(Method::Head, path, false, served);
            assert!(head.ends_with("\r\n\r\n"), "{head}");
            assert!(get(path, served).starts_with(&head));
        }
    }

    #[test]
    fn a_browser_gets_a_page_at_the_root_and_programs_a_sentence() {
        let page = ask(Method::Get, "/", true, PLAIN);
        assert!(page.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{page}");
        for line in ["Content-Type: text/html; charset=utf-8", "Upgrade: websocket", "Vary: Accept"]
        {
            assert!(page.contains(&format!("\r\n{line}\r\n")), "{line}: {page}");
        }
        assert!(page.contains("passes messages between programs"), "{page}");
        assert_eq!(ask(Method::Get, "/", true, NOTHING), page, "where only WebSocket is, too");
        assert!(ask(Method::Get, "/nothing", true, PLAIN).contains("text/plain"));
        assert!(ask(Method::Get, "/", true, SAMPLE).starts_with("HTTP/1.1 200 "));
        assert!(get("/", PLAIN).contains("\r\nContent-Type: text/plain"));
    }

    #[test]
    fn a_websocket_in_http_1_0_is_answered_with_what_it_needs() {
        for (path, served) in [("/", PLAIN), ("/any", PLAIN), ("/", NOTHING), ("/any", NOTHING)] {
            let path = path.to_owned();
            let (method, accepts_html, is_too_old) = (Method::Get, false, true);
            let request = PlainRequest { method, path, accepts_html, is_too_old };
            let answer = String::from_utf8(answer(&request, served)).unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            assert!(answer.ends_with("needs proxy_http_version 1.1\n"), "{answer}");
        }
    }

    #[test]
    fn other_methods_are_answered_with_the_allowed_ones() {
        for served in [PLAIN, SAMPLE, NOTHING] {
            let options = ask(Method::Options, "*", false, served);
            assert!(options.starts_with("HTTP/1.1 200 OK\r\n"), "{options}");
            assert!(options.contains("\r\nContent-Length: 0\r\n"), "{options}");
            let post = ask(Method::Other, "/health", false, served);
            assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
            for answer in [options, post] {
                assert!(answer.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), "{answer}");
            }
        }
    }

    #[test]
    fn every_body_ends_in_a_line_end() {
        for served in [PLAIN, SAMPLE, NOTHING] {
            for path in ["/", "/health", "/nothing", "/sample.js", "/sample.css"] {
                for accepts_html in [false, true] {
                    let answer = ask(Method::Get, path, accepts_html, served);
                    assert!(answer.ends_with('\n') && !answer.ends_with("\r\n\r\n"), "{path}");
                }
            }
        }
    }
}
