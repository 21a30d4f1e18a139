//! The log: one line per event on standard error, plain or JSON, written by a thread of its own.
//!
//! Logging never blocks: the channel to the thread is bounded, and lines that do not fit are counted and
//! reported later.
//!
//! The thread ends after a while without lines, and the next line starts another: in a process with a
//! single thread, system calls are cheaper.

mod line;

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde::Deserialize;

use line::Line;

use crate::calendar::Timestamp;
use crate::cores::Cores;

/// The options of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogOptions {
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
    /// Events that require an operator.
    Error,
    /// Events that may require an operator.
    Warn,
    /// Connections that end, and events of the broker itself.
    #[default]
    Info,
    /// Everything.
    Debug,
}

impl LogLevel {
    /// The level in the `log` crate.
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

/// The prefix of the targets of the broker's own lines.
const OUR_TARGET: &str = "com_broker";

/// Capacity of the channel to the thread, in lines.
const LINES_MAX: usize = 1024;

/// Bytes after which no further line is added to one write.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// Time that a flush waits for room in the channel, and again for its answer, if standard error is not
/// read.
const FLUSH_MS_MAX: u64 = 1_000;

/// Time that the thread waits for a line before it ends.
const LINGER: Duration = Duration::from_millis(50);

/// The logger of the process, which sends lines to the thread.
pub(crate) struct Logger {
    level: LevelFilter,
    dropped: Arc<AtomicU64>,
    sender: Sender,
}

impl Logger {
    /// Makes this the logger of the process, writing to standard error until the guard is dropped.
    ///
    /// # Errors
    /// The process has a logger already.
    pub(crate) fn install(options: LogOptions) -> io::Result<LoggerGuard> {
        let (logger, guard) = Self::new(options, LINGER, io::stderr());
        // A logger lives as long as the process.
        log::set_logger(Box::leak(Box::new(logger))).map_err(|_| io::ErrorKind::AlreadyExists)?;
        log::set_max_level(options.level);
        Ok(guard)
    }

    fn new(
        options: LogOptions,
        linger: Duration,
        out: impl Write + Send + 'static,
    ) -> (Self, LoggerGuard) {
        let (events, arriving) = sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            format: options.format,
            dropped: dropped.clone(),
            arriving,
            linger,
            cores: Cores::of_this_thread(),
            batch: String::new(),
            out: Box::new(out),
        };
        let idle = Idle { writer: Some(writer), is_running: false };
        let sender = Sender { events, idle: Arc::new(Mutex::new(idle)) };
        let guard = LoggerGuard { sender: sender.clone() };
        (Self { level: options.level, dropped, sender }, guard)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Detailed lines of libraries may quote data of clients.
        let is_ours = metadata.target().starts_with(OUR_TARGET);
        metadata.level() <= self.level && (is_ours || metadata.level() <= Level::Warn)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let event = Event::Line(Box::new(Line::of(record)));
        if let Err(TrySendError::Full(_)) = self.sender.try_send(event) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {
        self.sender.flush(Event::Flush);
    }
}

/// Writes the waiting lines when it is dropped. Lines that are logged later are lost.
pub(crate) struct LoggerGuard {
    sender: Sender,
}

impl Drop for LoggerGuard {
    fn drop(&mut self) {
        self.sender.flush(Event::Finish);
    }
}

/// A message to the thread.
enum Event {
    Line(Box<Line>),
    /// Write all lines before, then answer.
    Flush(SyncSender<()>),
    /// As `Flush`; then end.
    Finish(SyncSender<()>),
}

/// The sending end of the channel. It starts the thread if there is none.
#[derive(Clone)]
struct Sender {
    events: SyncSender<Event>,
    idle: Arc<Mutex<Idle>>,
}

impl Sender {
    fn try_send(&self, event: Event) -> Result<(), TrySendError<Event>> {
        let sent = self.events.try_send(event);
        self.start_thread();
        sent
    }

    /// Starts a thread, if there is none. If the system refuses, the next event tries again.
    fn start_thread(&self) {
        let mut idle = lock(&self.idle);
        if idle.is_running {
            return;
        }
        let shared = Arc::clone(&self.idle);
        let spawned = thread::Builder::new().name("log".into()).spawn(move || {
            let writer = lock(&shared).writer.take();
            writer.into_iter().for_each(|writer| writer.run(&shared));
        });
        idle.is_running = spawned.is_ok();
    }

    /// Waits until all events so far are handled, for a limited time.
    fn flush(&self, event: impl Fn(SyncSender<()>) -> Event) {
        const PAUSE_MS: u64 = 10;
        let (answer, answered) = sync_channel(1);
        for _ in 0..FLUSH_MS_MAX / PAUSE_MS {
            match self.try_send(event(answer.clone())) {
                // The channel is full: without an event there is no answer, so this only waits.
                Err(TrySendError::Full(_)) => {
                    let _ = answered.recv_timeout(Duration::from_millis(PAUSE_MS));
                }
                Err(TrySendError::Disconnected(_)) => return,
                Ok(()) => break,
            }
        }
        let _ = answered.recv_timeout(Duration::from_millis(FLUSH_MS_MAX));
    }
}

/// The place of the writer while no thread runs it.
struct Idle {
    writer: Option<Writer>,
    is_running: bool,
}

/// Locks also after a panic, since none can leave the value inconsistent.
fn lock(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The receiving end of the channel, which the thread runs.
struct Writer {
    format: LogFormat,
    dropped: Arc<AtomicU64>,
    arriving: Receiver<Event>,
    linger: Duration,
    /// The cores that the process may run on: the loop, which starts the thread, may be pinned to one.
    cores: Option<Cores>,
    batch: String,
    out: Box<dyn Write + Send>,
}

impl Writer {
    /// Writes lines until none arrives for a while, then puts itself into `idle`.
    fn run(mut self, idle: &Mutex<Idle>) {
        if let Some(cores) = &self.cores {
            // If the system refuses, the thread runs on the loop's core.
            let _ = cores.pin_this_thread();
        }
        loop {
            let first = match self.arriving.recv_timeout(self.linger) {
                Ok(first) => first,
                Err(_) => {
                    // A sender looks for a thread after it has sent, so an event that is not here yet
                    // starts another thread.
                    let mut idle = lock(idle);
                    let Ok(first) = self.arriving.try_recv() else {
                        *idle = Idle { writer: Some(self), is_running: false };
                        return;
                    };
                    first
                }
            };
            let mut next = Some(first);
            while let Some(event) = next {
                match event {
                    Event::Line(line) => self.push(&line),
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
                next = if has_room { self.arriving.try_recv().ok() } else { None };
            }
            self.write();
        }
    }

    fn push(&mut self, line: &Line) {
        match self.format {
            LogFormat::Plain => line.push_plain(now(), &mut self.batch),
            LogFormat::Json => line.push_json(now(), &mut self.batch),
        }
    }

    /// Writes the batch. The broker goes on without standard error: lines that it did not take are dropped
    /// and counted.
    fn write(&mut self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let events_end = self.batch.len();
        if dropped > 0 {
            let count = ("count", dropped);
            let mut record = Record::builder();
            record.level(Level::Warn).key_values(&count);
            self.push(&Line::of(&record.args(format_args!("log lines dropped")).build()));
        }
        let batch = self.batch.as_bytes();
        let taken = write_patiently(&mut self.out, batch);
        let mut is_torn = false;
        if taken < batch.len() {
            // A line end at the beginning is that of a line which was torn before.
            let lost_from = taken.max(usize::from(batch.starts_with(b"\n"))).min(events_end);
            let lost = memchr::memchr_iter(b'\n', &batch[lost_from..events_end]).count() as u64;
            // The line with the number of dropped lines is lost as well.
            self.dropped.fetch_add(lost + dropped, Ordering::Relaxed);
            is_torn = match taken {
                0 => batch.starts_with(b"\n"),
                _ => batch[taken - 1] != b'\n',
            };
        }
        self.batch.clear();
        if is_torn {
            self.batch.push('\n');
        }
    }
}

/// Writes all bytes, or as many as are taken before an error. Returns their number. Standard error is shared
/// with the parent process and may be non-blocking: then this waits.
fn write_patiently(out: &mut impl Write, bytes: &[u8]) -> usize {
    const PAUSE: Duration = Duration::from_millis(5);
    let mut taken = 0;
    while taken < bytes.len() {
        match out.write(&bytes[taken..]) {
            Ok(0) => break,
            Ok(count) => taken += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(PAUSE),
            Err(_) => break,
        }
    }
    // Standard error has no buffer of its own.
    let _ = out.flush();
    taken
}

#[expect(clippy::disallowed_methods, reason = "log lines have the time of day, off the loop")]
fn now() -> Timestamp {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use super::*;

    /// Collects written text; waits before each write for the gate, if there is one.
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
        let (logger, guard) = Logger::new(options, Duration::from_millis(1), sink);
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
    fn lines_of_libraries_are_written_from_warnings_on() {
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
    fn waiting_lines_are_written_when_the_guard_is_dropped() {
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
    fn a_full_channel_drops_lines_and_reports_their_number() {
        let (open, gate) = channel();
        let (logger, guard, text) = start(LevelFilter::Info, Some(gate));
        // The thread takes at least the first line and then waits for the gate.
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

    /// Takes a given number of bytes, then returns a given error.
    struct Faulty {
        text: Arc<Mutex<String>>,
        faults: Vec<(usize, io::ErrorKind)>,
    }

    impl Write for Faulty {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = match self.faults.last_mut() {
                None => bytes.len(),
                Some((0, _)) => return Err(self.faults.pop().unwrap().1.into()),
                Some((left, _)) => {
                    let count = bytes.len().min(*left);
                    *left -= count;
                    count
                }
            };
            self.text.lock().unwrap().push_str(str::from_utf8(&bytes[..count]).unwrap());
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_standard_error_does_not_take_are_counted() {
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::WouldBlock] {
            let text = Arc::new(Mutex::new(String::new()));
            let faults = vec![(100, kind), (30, kind)];
            let out = Faulty { text: Arc::clone(&text), faults };
            let options = LogOptions { format: LogFormat::Plain, level: LevelFilter::Info };
            let (logger, guard) = Logger::new(options, Duration::from_millis(1), out);
            for number in 0..20 {
                log(&logger, Level::Info, &format!("line {number}"));
                logger.flush();
            }
            drop(guard);
            let text = text.lock().unwrap();
            let is_whole = |number: &i32| {
                let wanted = format!(" INFO  line {number}");
                let begin = "2026-11-28T22:00:00.000Z".len();
                text.lines().any(|line| line.get(begin..) == Some(wanted.as_str()))
            };
            let whole = (0..20).filter(is_whole).count();
            let told = text.split("log lines dropped count=").skip(1);
            let told: usize =
                told.map(|rest| rest.split('\n').next().unwrap().parse::<usize>().unwrap()).sum();
            assert_eq!(whole + told, 20, "{kind:?}: {text}");
            assert_eq!(told > 0, kind == io::ErrorKind::BrokenPipe, "{text}");
        }
    }

    #[test]
    fn the_thread_ends_and_starts_again_without_losing_a_line() {
        let (logger, guard, text) = start(LevelFilter::Info, None);
        assert!(!lock(&logger.sender.idle).is_running, "it ran before there was a line");
        for number in 0..20 {
            log(&logger, Level::Info, &format!("line {number}"));
            // After each second line, wait until the thread has ended.
            while number % 2 == 0 && lock(&logger.sender.idle).is_running {
                thread::yield_now();
            }
        }
        drop(guard);
        let text = text.lock().unwrap();
        let numbers: Vec<_> = text.lines().filter_map(|line| line.split("line ").nth(1)).collect();
        let expected: Vec<_> = (0..20).map(|number: u32| number.to_string()).collect();
        assert_eq!(numbers, expected);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_thread_may_run_on_all_cores_of_the_process_even_if_the_loop_is_pinned() {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

        /// Collects the affinity of the thread that writes.
        struct Place(Arc<Mutex<Option<CpuSet>>>);

        impl Write for Place {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                *self.0.lock().unwrap() = sched_getaffinity(None).ok();
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let place = Arc::new(Mutex::new(None));
        let options = LogOptions { format: LogFormat::Plain, level: LevelFilter::Info };
        let (logger, guard) = Logger::new(options, LINGER, Place(place.clone()));
        let all = sched_getaffinity(None).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut one = CpuSet::new();
                one.set((0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)).unwrap());
                sched_setaffinity(None, &one).unwrap();
                log(&logger, Level::Info, "line");
                logger.flush();
            });
        });
        drop(guard);
        assert_eq!(place.lock().unwrap().unwrap(), all);
    }
}
