//! Detection of a connection's protocol by its first bytes, as the first table of `docs/protocol.md`
//! has it.

/// The protocol that the first bytes belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detected {
    /// Undecided until more bytes arrive.
    Partial,
    /// A length-prefixed envelope of the classic dialect.
    Prefix,
    /// A frame of standard STOMP, or line ends before one.
    Stomp,
    /// An HTTP request.
    Http,
}

/// First byte of a TLS handshake record.
pub(crate) const TLS_HANDSHAKE: u8 = 0x16;

/// Bytes that suffice for a decision: the longest HTTP method and the blank behind it.
pub(crate) const LONGEST: usize = 8;

/// Detects the protocol of a connection that does not begin with TLS.
pub(crate) fn detect(bytes: &[u8]) -> Detected {
    match bytes.first() {
        None => Detected::Partial,
        Some(b'\n' | b'\r' | b'A'..=b'Z' | b'a'..=b'z') => http_or_stomp(bytes),
        // An envelope's flag is 0 for a little-endian length. Every other byte stands for a
        // big-endian one, as in the original broker.
        Some(_) => Detected::Prefix,
    }
}

fn http_or_stomp(bytes: &[u8]) -> Detected {
    // PRI begins HTTP/2, which is refused in HTTP/1.
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
