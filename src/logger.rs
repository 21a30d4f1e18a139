//! The log: one line per event on standard error, plain or JSON, written by a thread of its own.
//!
//! Whoever logs never waits: the channel to the thread is bounded, and what does not fit is counted
//! and reported later.

mod line;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde::Deserialize;

use line::Line;

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The form of a line.
    pub format: LogFormat,
    /// The least important lines that are written.
    pub level: LevelFilter,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Time, level, text: for people.
    #[default]
    Plain,
    /// One JSON object: for programs.
    Json,
}

impl LogFormat {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Json => "json",
        }
    }
}

/// The least important lines that are written, as the configuration names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What needs somebody.
    Error,
    /// What may need somebody.
    Warn,
    /// Connections that end, and what the broker itself does.
    #[default]
    Info,
    /// Everything.
    Debug,
}

impl LogLevel {
    /// As the `log` crate names it.
    pub fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::Off,
            Self::Error => LevelFilter::Error,
            Self::Warn => LevelFilter::Warn,
            Self::Info => LevelFilter::Info,
            Self::Debug => LevelFilter::Debug,
        }
    }
}

/// How the targets of our own lines begin.
const OUR_TARGET: &str = "com_broker";

/// Lines that may wait for the thread.
const LINES_MAX: usize = 1024;

/// Length of a message; the rest is cut off.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// Bytes that are gathered for one write.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// How long a flush waits for room in the channel, and again for its answer, when nobody reads
/// standard error.
const FLUSH_MS_MAX: u64 = 1_000;

/// The sending end, installed as the logger of the process.
pub struct Logger {
    level: LevelFilter,
    dropped: Arc<AtomicU64>,
    events: SyncSender<Event>,
}

impl Logger {
    /// Makes this the logger of the process, writing to standard error until the guard is dropped.
    ///
    /// # Errors
    /// When the thread cannot be started, or when there is a logger already.
    pub fn install(options: LogOptions) -> io::Result<LoggerGuard> {
        let (logger, guard) = Self::start(options, io::stderr())?;
        // A logger lives as long as the process.
        log::set_logger(Box::leak(Box::new(logger))).map_err(|_| io::ErrorKind::AlreadyExists)?;
        log::set_max_level(options.level);
        Ok(guard)
    }

    fn start(
        options: LogOptions,
        out: impl Write + Send + 'static,
    ) -> io::Result<(Self, LoggerGuard)> {
        let (events, arriving) = sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer =
            Writer { format: options.format, dropped: dropped.clone(), batch: String::new(), out };
        thread::Builder::new().name("log".into()).spawn(move || writer.run(&arriving))?;
        let guard = LoggerGuard { events: events.clone() };
        Ok((Self { level: options.level, dropped, events }, guard))
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What libraries tell in detail may quote what clients sent.
        let is_ours = metadata.target().starts_with(OUR_TARGET);
        metadata.level() <= self.level && (is_ours || metadata.level() <= Level::Warn)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut message = record.args().to_string();
        cut(&mut message);
        let event = Event::Message(record.level(), message);
        if let Err(TrySendError::Full(_)) = self.events.try_send(event) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {
        flush(&self.events, Event::Flush);
    }
}

fn cut(message: &mut String) {
    if message.len() > MESSAGE_BYTES_MAX {
        let boundary = (0..=MESSAGE_BYTES_MAX).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(boundary.unwrap_or_default());
    }
}

/// Writes what is still waiting when it is dropped. What is logged afterwards is lost.
pub struct LoggerGuard {
    events: SyncSender<Event>,
}

impl Drop for LoggerGuard {
    fn drop(&mut self) {
        flush(&self.events, Event::Finish);
    }
}

enum Event {
    Message(Level, String),
    /// Write everything, then answer.
    Flush(SyncSender<()>),
    /// The same, and then end.
    Finish(SyncSender<()>),
}

/// Waits until everything sent so far is written, but not for ever.
fn flush(events: &SyncSender<Event>, event: impl Fn(SyncSender<()>) -> Event) {
    const PAUSE_MS: u64 = 10;
    let (answer, answered) = sync_channel(1);
    for _ in 0..FLUSH_MS_MAX / PAUSE_MS {
        match events.try_send(event(answer.clone())) {
            // The channel is full; nobody can answer yet, so this only waits.
            Err(TrySendError::Full(_)) => {
                let _ = answered.recv_timeout(Duration::from_millis(PAUSE_MS));
            }
            Err(TrySendError::Disconnected(_)) => return,
            Ok(()) => break,
        }
    }
    let _ = answered.recv_timeout(Duration::from_millis(FLUSH_MS_MAX));
}

/// The thread's end.
struct Writer<W> {
    format: LogFormat,
    dropped: Arc<AtomicU64>,
    batch: String,
    out: W,
}

impl<W: Write> Writer<W> {
    fn run(mut self, arriving: &Receiver<Event>) {
        while let Ok(first) = arriving.recv() {
            let mut next = Some(first);
            while let Some(event) = next {
                match event {
                    Event::Message(level, message) => self.format(level, &message),
                    Event::Flush(answer) => {
                        self.write();
                        let _ = answer.try_send(());
                    }
                    Event::Finish(answer) => {
                        self.write();
                        let _ = answer.try_send(());
                        return;
                    }
                }
                let has_room = self.batch.len() < BATCH_BYTES_MAX;
                next = if has_room { arriving.try_recv().ok() } else { None };
            }
            self.write();
        }
    }

    fn format(&mut self, level: Level, message: &str) {
        let line = Line { at: since_epoch(), level, message };
        match self.format {
            LogFormat::Plain => line.push_plain(&mut self.batch),
            LogFormat::Json => line.push_json(&mut self.batch),
        }
    }

    /// Writes the batch. A standard error that is gone is no reason to stop serving.
    fn write(&mut self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            self.format(Level::Warn, &format!("log lines dropped count={dropped}"));
        }
        let _ = self.out.write_all(self.batch.as_bytes()).and_then(|()| self.out.flush());
        self.batch.clear();
    }
}

#[expect(clippy::disallowed_methods, reason = "a log line tells the time of day, off the loop")]
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use super::*;

    /// Collects what is written; waits before each write for the gate to open, if there is one.
    struct Sink {
        text: Arc<Mutex<String>>,
        gate: Option<Receiver<()>>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(gate) = &self.gate {
                let _ = gate.recv();
            }
            self.text.lock().unwrap().push_str(str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(
        level: LevelFilter,
        gate: Option<Receiver<()>>,
    ) -> (Logger, LoggerGuard, Arc<Mutex<String>>) {
        let text = Arc::new(Mutex::new(String::new()));
        let sink = Sink { text: text.clone(), gate };
        let options = LogOptions { format: LogFormat::Plain, level };
        let (logger, guard) = Logger::start(options, sink).unwrap();
        (logger, guard, text)
    }

    fn log(logger: &Logger, level: Level, message: &str) {
        log_as(logger, "com_broker::server", level, message);
    }

    fn log_as(logger: &Logger, target: &str, level: Level, message: &str) {
        let mut record = Record::builder();
        logger.log(&record.target(target).level(level).args(format_args!("{message}")).build());
    }

    #[test]
    fn libraries_are_heard_only_when_they_warn() {
        let (logger, guard, text) = start(LevelFilter::Debug, None);
        log_as(&logger, "tungstenite::protocol", Level::Debug, "secret");
        log_as(&logger, "tungstenite::protocol", Level::Warn, "trouble");
        log(&logger, Level::Debug, "ours");
        drop(guard);
        let text = text.lock().unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn what_was_logged_is_written_when_the_guard_goes() {
        let (logger, guard, text) = start(LevelFilter::Info, None);
        log(&logger, Level::Info, "one");
        log(&logger, Level::Debug, "two");
        logger.flush();
        assert!(text.lock().unwrap().ends_with(" INFO  one\n"));
        log(&logger, Level::Error, "three");
        drop(guard);
        log(&logger, Level::Error, "four");
        let text = text.lock().unwrap();
        assert!(text.ends_with(" ERROR three\n"), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn a_full_channel_drops_lines_and_says_how_many() {
        let (open, gate) = channel();
        let (logger, guard, text) = start(LevelFilter::Info, Some(gate));
        // The thread takes at least the first line and then stands at the gate.
        for number in 0..5 * LINES_MAX {
            log(&logger, Level::Info, &format!("line {number}"));
        }
        drop(open);
        drop(guard);
        let text = text.lock().unwrap();
        let written = text.lines().filter(|line| line.contains(" INFO  line ")).count();
        let reported: usize = text
            .lines()
            .filter_map(|line| line.split_once("log lines dropped count="))
            .map(|(_, count)| count.parse::<usize>().unwrap())
            .sum();
        assert_eq!(written + reported, 5 * LINES_MAX);
        assert!(reported > 0);
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let (logger, guard, text) = start(LevelFilter::Info, None);
        log(&logger, Level::Info, &format!("x{}", "é".repeat(MESSAGE_BYTES_MAX)));
        drop(guard);
        let text = text.lock().unwrap();
        assert!(text.ends_with("é\n") && text.len() < MESSAGE_BYTES_MAX + 64);
    }
}
