//! Answers to plain HTTP requests.
//!
//! It knows what was asked for, and nothing of sockets or sessions.

mod sample;

use crate::transport::upgrade::{PlainRequest, TEXT, head, response};

/// What there is to be served.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// Whether the listener serves plain requests at all.
    pub http: bool,
    /// Whether the sample page is among what is served.
    pub sample: bool,
}

/// The whole response to a request, after which the connection closes.
pub fn answer(request: &PlainRequest, served: Served) -> Vec<u8> {
    let answer = find(&request.path, served);
    let mut out = head(answer.status, answer.content_type, answer.lines, answer.body.len());
    // RFC 9110, 9.3.2: the answer to HEAD is that to GET, length and all, without the body.
    if !request.is_head {
        out.extend_from_slice(answer.body);
    }
    out
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

/// The whole response to any request where HTTP is not served.
pub fn refusal(why: &str) -> Vec<u8> {
    response("403 Forbidden", TEXT, why.as_bytes())
}

fn find(path: &str, served: Served) -> Answer {
    let asset = if served.http && served.sample { sample::find(path) } else { None };
    match (asset, path) {
        (Some(asset), _) => asset,
        (None, "/health") if served.http => Answer::text("200 OK", b"ok\n"),
        // Where nothing but WebSocket is, the request can only have been meant to become one.
        (None, "/") => Answer::text("400 Bad Request", NO_UPGRADE),
        (None, _) if !served.http => Answer::text("400 Bad Request", NO_UPGRADE),
        (None, _) => Answer::text("404 Not Found", b"There is nothing at this path\n"),
    }
}

const NO_UPGRADE: &[u8] = b"The WebSocket handshake Connection field is missing";

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Served = Served { http: true, sample: false };
    const SAMPLE: Served = Served { http: true, sample: true };
    const NOTHING: Served = Served { http: false, sample: true };

    fn get(path: &str, served: Served) -> String {
        let request = PlainRequest { path: path.into(), is_head: false };
        String::from_utf8(answer(&request, served)).unwrap()
    }

    #[test]
    fn health_is_told_where_http_is_served() {
        assert!(get("/health", PLAIN).starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(get("/health", SAMPLE).starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(get("/health", NOTHING).starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn what_is_not_there_is_not_found() {
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
    fn the_sample_page_has_all_that_it_refers_to() {
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
            let request = PlainRequest { path: path.into(), is_head: true };
            let head = String::from_utf8(answer(&request, served)).unwrap();
            assert!(head.ends_with("\r\n\r\n"), "{head}");
            assert!(get(path, served).starts_with(&head));
        }
    }
}
