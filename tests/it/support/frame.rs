//! A frame of either dialect as received, without unescaping or trimming.

use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) command: String,
    /// Header lines, in order of arrival.
    pub(crate) lines: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether it came as a binary WebSocket message.
    pub(crate) is_binary: bool,
}

impl Frame {
    /// Takes a frame of the standard dialect from the beginning of a stream; `None` while it is torn.
    pub(crate) fn take_standard(bytes: &mut Vec<u8>) -> Option<Self> {
        let (frame, end) = Self::read_standard(bytes)?;
        // Needed by PHP's extension.
        assert_eq!(*bytes.get(end)?, b'\n', "a line end follows: {frame}");
        bytes.drain(..=end);
        Some(frame)
    }

    /// Parses a WebSocket message as a frame of the standard dialect.
    pub(crate) fn read_message(bytes: &[u8]) -> Self {
        let (frame, end) = Self::read_standard(bytes).expect("a whole frame");
        assert_eq!(end, bytes.len(), "nothing follows the NUL in a message: {frame}");
        frame
    }

    /// A frame of the standard dialect and its end.
    fn read_standard(bytes: &[u8]) -> Option<(Self, usize)> {
        let head_end = bytes.windows(2).position(|pair| pair == b"\n\n")? + 2;
        assert!(str::from_utf8(&bytes[..head_end]).is_ok(), "a header is UTF-8");
        let mut frame = Self::read_head(&bytes[..head_end]);
        let end = match frame.get("content-length") {
            Some(length) => head_end + length.parse::<usize>().unwrap(),
            None => head_end + bytes[head_end..].iter().position(|byte| *byte == 0)?,
        };
        assert_eq!(*bytes.get(end)?, 0, "a frame ends in NUL: {frame}");
        frame.body = bytes[head_end..end].to_vec();
        Some((frame, end + 1))
    }

    /// Parses `bytes` as a frame of the classic dialect.
    pub(crate) fn read_classic(bytes: &[u8]) -> Self {
        let [bytes @ .., 0] = bytes else { panic!("no NUL ends {}", bytes.escape_ascii()) };
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").expect("a blank line") + 2;
        let body = &bytes[end..];
        Self { body: body.to_vec(), ..Self::read_head(&bytes[..end]) }
    }

    fn read_head(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.trim_end_matches('\n').split('\n');
        let command = lines.next().unwrap().to_owned();
        let lines = lines
            .map(|line| line.split_once(':').unwrap_or_else(|| panic!("no colon in {line:?}")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { command, lines, body: Vec::new(), is_binary: false }
    }

    /// The value of the first line of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The value of the first line of that name; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// The values of all lines of that name.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.lines.iter().filter(move |line| line.0 == name).map(|line| &*line.1)
    }

    /// The names of all lines.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.lines.iter().map(|line| &*line.0).collect()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    /// Checks a header line.
    #[track_caller]
    pub(crate) fn has(&self, name: &str, value: &str) -> &Self {
        assert_eq!(self.get(name), Some(value), "{name} in {self}");
        self
    }

    /// Checks that there is no such header line.
    #[track_caller]
    pub(crate) fn lacks(&self, name: &str) -> &Self {
        assert_eq!(self.get(name), None, "{name} in {self}");
        self
    }

    /// Checks the body.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert_eq!(String::from_utf8_lossy(&self.body), text, "the body of {self}");
        self
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "[{}", self.command)?;
        for (name, value) in &self.lines {
            write!(out, "⏎{name}:{value}")?;
        }
        let shown = &self.body[..self.body.len().min(200)];
        write!(out, "⏎⏎{}]", String::from_utf8_lossy(shown))
    }
}
