//! Writing the frames that clients of standard STOMP get.

use super::Version;

/// Begins a frame with its command.
pub fn begin(out: &mut Vec<u8>, command: &str) {
    out.extend_from_slice(command.as_bytes());
    out.push(b'\n');
}

/// Adds a header line, escaped as the version does. Says whether the versions write it differently.
#[inline]
pub fn header(out: &mut Vec<u8>, version: Version, name: &[u8], value: &[u8]) -> bool {
    let name_differs = version.escape(name, out);
    out.push(b':');
    let value_differs = version.escape(value, out);
    out.push(b'\n');
    name_differs | value_differs
}

/// Adds a header line as it is: STOMP 1.2, "Value Encoding", leaves CONNECTED unescaped.
pub fn plain_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Ends the header, adds the body, the NUL, and a line end.
///
/// STOMP 1.2, "STOMP Frames": EOLs may follow a frame. PHP's `stomp` takes two octets for the end of
/// a body that has a length; without the line end it loses the first octet of the next frame.
pub fn finish(out: &mut Vec<u8>, body: &[u8]) {
    out.push(b'\n');
    out.extend_from_slice(body);
    out.extend_from_slice(b"\0\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_escaped_as_the_version_does() {
        let write = |version| {
            let mut out = Vec::new();
            begin(&mut out, "MESSAGE");
            let differs = header(&mut out, version, b"k:", b"a:b\\c");
            finish(&mut out, b"body");
            (out, differs)
        };
        assert_eq!(write(Version::V1_0).0, b"MESSAGE\nk::a:b\\c\n\nbody\0\n");
        assert_eq!(write(Version::V1_2).0, b"MESSAGE\nk\\c:a\\cb\\\\c\n\nbody\0\n");
        assert!(write(Version::V1_0).1);
    }
}
