//! The head of an HTTP/1 request, parsed according to RFC 9110 and RFC 9112.
//!
//! It does not know the answers.

use httparse::{EMPTY_HEADER, Error, Header, Status};

/// Header lines that a request may have.
pub(super) const HEADER_LINES_MAX: usize = 100;

/// Room for the header lines of a request.
pub(super) type HeaderLines<'a> = [Header<'a>; HEADER_LINES_MAX];

/// Room for header lines before a request is parsed.
pub(super) const NO_LINES: HeaderLines<'static> = [EMPTY_HEADER; HEADER_LINES_MAX];

/// A request line and the header lines after it.
#[derive(Debug)]
pub(super) struct RequestHead<'a> {
    method: &'a str,
    target: &'a str,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    minor_version: u8,
    lines: &'a [Header<'a>],
}

/// A request without an upgrade, which has to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainRequest {
    /// The method.
    pub method: Method,
    /// The path of the target; `*` in an OPTIONS request for the broker as a whole.
    pub path: String,
    /// Whether `Accept` names HTML, as that of browsers does.
    pub accepts_html: bool,
    /// Whether it asks for a WebSocket in HTTP/1.0, which has none.
    pub is_too_old: bool,
}

/// The methods that are distinguished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: as GET, but without the body of the answer.
    Head,
    /// OPTIONS.
    Options,
    /// Any other.
    Other,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadFault {
    /// It is malformed.
    Malformed(&'static str),
    /// It has more header lines than are allowed.
    TooManyLines,
    /// Its version of HTTP is not supported.
    Version,
}

impl<'a> RequestHead<'a> {
    /// Parses a head that has arrived up to its empty line.
    ///
    /// # Errors
    /// It is malformed by RFC 9112, which includes folded lines, blanks before a colon and stray
    /// carriage returns.
    pub(super) fn parse(
        bytes: &'a [u8],
        lines: &'a mut HeaderLines<'a>,
    ) -> Result<Self, HeadFault> {
        let mut request = httparse::Request::new(lines);
        match request.parse(bytes) {
            Ok(Status::Complete(_)) => {}
            Err(Error::TooManyHeaders) => return Err(HeadFault::TooManyLines),
            Err(Error::Version) if names_version(bytes) => return Err(HeadFault::Version),
            Err(Error::HeaderName | Error::HeaderValue) => {
                return Err(HeadFault::Malformed("A header line is malformed"));
            }
            Ok(Status::Partial) | Err(_) => {
                return Err(HeadFault::Malformed("This is no HTTP/1.1 request"));
            }
        }
        let head = Self {
            method: request.method.unwrap_or_default(),
            target: request.path.unwrap_or_default(),
            minor_version: request.version.unwrap_or_default(),
            lines: request.headers,
        };
        head.check_host()?;
        Ok(head)
    }

    /// The request, if it is taken as a plain one.
    ///
    /// # Errors
    /// The form of the target does not fit the method.
    pub(super) fn plain(&self) -> Result<PlainRequest, HeadFault> {
        let method = match self.method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        };
        let path = match (path_of(self.target), method, self.target) {
            (Some(path), ..) => path,
            (None, Method::Options, "*") => "*",
            // RFC 9112, 3.2.3: the target of CONNECT is an authority.
            (None, Method::Other, _) => "",
            (None, ..) => return Err(HeadFault::Malformed("The request target is no path")),
        };
        let accepts_html = self.list("accept").any(|range| {
            let media_type = range.split(|byte| *byte == b';').next().unwrap_or_default();
            media_type.trim_ascii().eq_ignore_ascii_case(b"text/html")
        });
        let is_too_old = self.minor_version == 0 && self.lists("upgrade", b"websocket");
        Ok(PlainRequest { method, path: path.to_owned(), accepts_html, is_too_old })
    }

    /// Whether it asks for a WebSocket. RFC 9110, 7.8: a server ignores other upgrades, and all
    /// upgrades in HTTP/1.0; RFC 6455, 4.1: the method is GET.
    pub(super) fn asks_for_websocket(&self) -> bool {
        self.method == "GET" && self.minor_version > 0 && self.lists("upgrade", b"websocket")
    }

    /// Whether the request has a body.
    pub(super) fn has_body(&self) -> bool {
        let has_length = self.values("content-length").any(|length| length != b"0");
        has_length || self.values("transfer-encoding").next().is_some()
    }

    /// The value of a header that may occur once; `None` if it occurs more often.
    pub(super) fn only(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.values(name);
        let first = values.next()?;
        values.next().is_none().then_some(first)
    }

    /// Whether a list has that element, regardless of case.
    pub(super) fn lists(&self, name: &str, element: &[u8]) -> bool {
        self.list(name).any(|one| one.eq_ignore_ascii_case(element))
    }

    /// The elements of a list. RFC 9110, 5.3 and 5.6.1: a list may span several lines and have blanks
    /// around elements and empty elements.
    pub(super) fn list(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let elements = self.values(name).flat_map(|value| value.split(|byte| *byte == b','));
        elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.lines.iter().filter(move |line| line.name.eq_ignore_ascii_case(name));
        lines.map(|line| line.value.trim_ascii())
    }

    /// RFC 9112, 3.2: a request is refused if it has several Host lines or an invalid one, or if it is
    /// HTTP/1.1 and has none.
    fn check_host(&self) -> Result<(), HeadFault> {
        match (self.values("host").count(), self.only("host")) {
            (0, _) if self.minor_version == 0 => Ok(()),
            (0, _) => Err(HeadFault::Malformed("The Host header is missing")),
            (1, Some(host)) if is_host(host) => Ok(()),
            (1, _) => Err(HeadFault::Malformed("The Host header is invalid")),
            _ => Err(HeadFault::Malformed("There is more than one Host header")),
        }
    }
}

/// Whether the request line has its three parts, and the last one is a version of HTTP.
fn names_version(bytes: &[u8]) -> bool {
    let line = bytes.trim_ascii_start().split(|byte| matches!(byte, b'\n' | b'\r')).next();
    let mut words = line.unwrap_or_default().split(|byte| *byte == b' ').skip(2);
    let version = words.next().and_then(|word| word.strip_prefix(b"HTTP/"));
    let is_number = |version: &[u8]| {
        let mut numbers = version.splitn(2, |byte| *byte == b'.');
        numbers.all(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
    };
    version.is_some_and(is_number) && words.next().is_none()
}

/// The path of a target in origin form or, RFC 9112, 3.2.2, absolute form.
fn path_of(target: &str) -> Option<&str> {
    let path = if target.starts_with('/') {
        target
    } else {
        let (scheme, rest) = target.split_once("://")?;
        // RFC 3986, 3.1.
        let is_of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            || !scheme.bytes().all(is_of_scheme)
        {
            return None;
        }
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        &rest[authority_end..]
    };
    let path_end = path.find(['?', '#']).unwrap_or(path.len());
    Some(if path_end == 0 { "/" } else { &path[..path_end] })
}

/// RFC 9110, 7.2: a host, which may be empty, and optionally a port.
fn is_host(value: &[u8]) -> bool {
    let name_end = match value.iter().position(|byte| *byte == b']') {
        Some(end) if value[0] == b'[' => end + 1,
        Some(_) => return false,
        None => value.iter().position(|byte| *byte == b':').unwrap_or(value.len()),
    };
    let (name, port) = value.split_at(name_end);
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(byte);
    let is_name = match name {
        [b'[', address @ .., b']'] => address.iter().all(|byte| is_of_name(byte) || *byte == b':'),
        _ => name.iter().all(is_of_name),
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_name && is_port
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(text: &str, look: impl FnOnce(&RequestHead<'_>) -> T) -> Result<T, HeadFault> {
        let mut lines = NO_LINES;
        RequestHead::parse(text.as_bytes(), &mut lines).map(|head| look(&head))
    }

    fn is_malformed(text: &str) -> bool {
        let plain = read(text, |head| head.plain());
        matches!(plain, Err(HeadFault::Malformed(_)) | Ok(Err(HeadFault::Malformed(_))))
    }

    #[test]
    fn rfc_9112_3_2_there_is_one_valid_host() {
        for (lines, is_good) in [
            ("Host: a\r\n", true),
            ("Host:\r\n", true),
            ("hOsT:   broker.example:61613  \r\n", true),
            ("Host: [::1]:80\r\n", true),
            ("Host: 127.0.0.1\r\n", true),
            ("", false),
            ("Host: a\r\nHost: a\r\n", false),
            ("Host: a, b\r\n", false),
            ("Host: a b\r\n", false),
            ("Host: user@a\r\n", false),
            ("Host: a/b\r\n", false),
            ("Host: a:b\r\n", false),
            ("Host: []x\r\n", false),
            ("Host: ]\r\n", false),
        ] {
            let request = format!("GET / HTTP/1.1\r\n{lines}\r\n");
            assert_eq!(is_malformed(&request), !is_good, "{lines:?}");
            let old = format!("GET / HTTP/1.0\r\n{lines}\r\n");
            assert_eq!(is_malformed(&old), !is_good && !lines.is_empty(), "{lines:?} in HTTP/1.0");
        }
    }

    #[test]
    fn rfc_9112_5_lines_are_neither_folded_nor_padded() {
        for line in ["X: a\r\n b\r\n", "X : a\r\n", " X: a\r\n", "X\r\n", ": a\r\n", "X: a\rb\r\n"]
        {
            let first = format!("GET / HTTP/1.1\r\n{line}Host: a\r\n\r\n");
            let last = format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n");
            assert!(is_malformed(&first) && is_malformed(&last), "{line:?}");
        }
        // RFC 9112, 2.2: a line feed alone may end a line.
        assert!(!is_malformed("GET / HTTP/1.1\nHost: a\n\n"));
    }

    #[test]
    fn rfc_9112_3_2_targets_have_four_forms() {
        for (method, target, path) in [
            ("GET", "/", Some("/")),
            ("GET", "/a/b?c=/d#e", Some("/a/b")),
            ("HEAD", "http://broker.example/health?x", Some("/health")),
            ("GET", "HTTPS://broker.example", Some("/")),
            ("GET", "ws://broker.example?x=/y", Some("/")),
            ("GET", "svn+ssh.x-1://broker.example/a", Some("/a")),
            ("GET", "1http://broker.example/a", None),
            ("GET", "+http://broker.example/a", None),
            ("GET", "ht_tp://broker.example/a", None),
            ("OPTIONS", "*", Some("*")),
            ("OPTIONS", "/health", Some("/health")),
            ("CONNECT", "broker.example:80", Some("")),
            ("GET", "*", None),
            ("GET", "health", None),
            ("GET", "broker.example:80", None),
            ("OPTIONS", "**", None),
        ] {
            let request = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let found = read(&request, |head| head.plain()).unwrap().ok().map(|plain| plain.path);
            assert_eq!(found.as_deref(), path, "{method} {target}");
        }
    }

    #[test]
    fn rfc_9110_5_3_a_list_may_span_several_lines() {
        let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: , keep-alive ,\r\n\
            CONNECTION: \tUpgrade\t\r\nConnection:\r\n\r\n";
        let elements = |head: &RequestHead<'_>| {
            let text = head.list("connection").map(|one| String::from_utf8_lossy(one).into_owned());
            text.collect::<Vec<_>>()
        };
        assert_eq!(read(request, elements).unwrap(), ["keep-alive", "Upgrade"]);
        assert!(read(request, |head| head.lists("connection", b"upgrade")).unwrap());
        assert!(!read(request, |head| head.lists("connection", b"up")).unwrap());
    }

    #[test]
    fn html_is_accepted_only_where_it_is_named() {
        let accepts = |accept: &str| {
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n");
            read(&request, |head| head.plain()).unwrap().unwrap().accepts_html
        };
        assert!(accepts("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(accepts("application/json, Text/HTML;q=0.9"));
        assert!(!accepts("*/*") && !accepts("text/plain") && !accepts(""));
    }

    #[test]
    fn reasons_for_a_refusal_are_distinguished() {
        let lines = "X: a\r\n".repeat(HEADER_LINES_MAX);
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        assert_eq!(read(&many, |_| ()), Err(HeadFault::TooManyLines));
        for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "HTTP/3"] {
            let request = format!("GET / {version}\r\nHost: a\r\n\r\n");
            assert_eq!(read(&request, |_| ()), Err(HeadFault::Version), "{version}");
        }
        for line in [
            "GET /",
            "GET \u{1} HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET /a b HTTP/1.1",
            "GET / HTTP/2.0 x",
            "GET  / HTTP/2.0",
            "GET / http/1.1",
            "GET / HTTP/",
            "GET / HTTP/1.",
            "GET / HTTP/a.b",
            "GET / STOMP/1.2",
        ] {
            let request = format!("{line}\r\nHost: a\r\n\r\n");
            assert!(is_malformed(&request), "{line:?}");
        }
    }
}
