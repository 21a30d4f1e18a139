//! Telling by its first bytes what a connection speaks. The table is the first one of
//! `docs/protocol.md`.

/// What the first bytes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detected {
    /// Not settled yet.
    Partial,
    /// A length-prefixed envelope of the classic dialect.
    Prefix,
    /// A frame of standard STOMP, or the line ends that may stand before one.
    Stomp,
    /// An HTTP request.
    Http,
}

/// The first byte of a TLS record that carries a handshake.
pub(crate) const TLS_HANDSHAKE: u8 = 0x16;

/// After how many bytes everything is settled: the longest HTTP method and the blank after it.
pub(crate) const LONGEST: usize = 8;

/// Looks at the first bytes, at least one, of what is not TLS.
pub(crate) fn detect(bytes: &[u8]) -> Detected {
    match bytes.first() {
        None => Detected::Partial,
        Some(b'\n' | b'\r' | b'A'..=b'Z' | b'a'..=b'z') => http_or_stomp(bytes),
        // The flag of an envelope is 0 for a little-endian length, and any other byte that begins
        // nothing else for a big-endian one: the original broker took them all.
        Some(_) => Detected::Prefix,
    }
}

fn http_or_stomp(bytes: &[u8]) -> Detected {
    // PRI begins HTTP/2, which is told so in HTTP/1.
    const METHODS: [&[u8]; 10] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"OPTIONS ",
        b"PATCH ",
        b"TRACE ",
        b"CONNECT ",
        b"PRI ",
    ];
    let mut partial = false;
    for method in METHODS {
        if bytes.starts_with(method) {
            return Detected::Http;
        }
        partial |= method.starts_with(bytes);
    }
    if partial { Detected::Partial } else { Detected::Stomp }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_protocols_apart() {
        let cases: [(&[u8], Detected); 17] = [
            (b"\0", Detected::Prefix),
            (b"\x01", Detected::Prefix),
            (b"\x02", Detected::Prefix),
            (b"\xff", Detected::Prefix),
            (b"\n", Detected::Stomp),
            (b"\r\n", Detected::Stomp),
            (b"", Detected::Partial),
            (b"C", Detected::Partial),
            (b"CONNECT", Detected::Partial),
            (b"CONNECT\n", Detected::Stomp),
            (b"CONNECT\r", Detected::Stomp),
            (b"CONNECT x", Detected::Http),
            (b"STOMP", Detected::Stomp),
            (b"SEND", Detected::Stomp),
            (b"GE", Detected::Partial),
            (b"GET /", Detected::Http),
            (b"GETX", Detected::Stomp),
        ];
        for (bytes, expected) in cases {
            assert_eq!(detect(bytes), expected, "{}", bytes.escape_ascii());
        }
    }
}
