//! Answers to plain HTTP requests.
//!
//! It knows the path that was asked for, and nothing of sockets or sessions.

use crate::transport::upgrade::response;

/// The whole response to a GET, after which the connection closes.
pub fn answer(path: &str, is_served: bool) -> Vec<u8> {
    match path {
        "/health" if is_served => response("200 OK", TEXT, b"ok\n"),
        _ => response(
            "400 Bad Request",
            TEXT,
            b"The WebSocket handshake Connection field is missing",
        ),
    }
}

/// The whole response to any request where HTTP is not served.
pub fn refusal(why: &str) -> Vec<u8> {
    response("403 Forbidden", TEXT, why.as_bytes())
}

const TEXT: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_told_where_http_is_served() {
        assert!(answer("/health", true).starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(answer("/health", false).starts_with(b"HTTP/1.1 400 "));
        assert!(answer("/", true).starts_with(b"HTTP/1.1 400 "));
    }
}
