//! The latency files, in the formats of the HdrHistogram tools: an interval log of all stages and a
//! percentile distribution of each.
//!
//! The log holds the interval since the last snapshot, so that the logs of one run add up to its totals.
//! The distributions hold the totals.

use std::fmt::{self, Write as _};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::latencies::{Snapshot, Stage};
use crate::calendar::Timestamp;

/// Writes the files of `snapshot` to `directory`, which is made if it does not exist, and returns
/// their paths: `com-broker-latency-<stamp>.hlog` and, for each stage,
/// `com-broker-latency-<stage>-<stamp>.hgrm`.
///
/// Each file appears whole or not at all.
///
/// # Errors
/// Names the path that could not be written. `AlreadyExists` if there is a file with this stamp,
/// which is not changed.
pub(super) fn write_files(
    snapshot: &Snapshot,
    directory: &Path,
    stamp: FileStamp,
) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(directory).map_err(|error| at_path(directory, &error))?;
    let mut paths = Vec::with_capacity(1 + Stage::ALL.len());
    let name = format!("com-broker-latency-{stamp}.hlog");
    paths.push(write_whole(directory, &name, &interval_log(snapshot)?)?);
    for stage in Stage::ALL {
        let name = format!("com-broker-latency-{}-{stamp}.hgrm", stage.name());
        let text = percentile_distribution(snapshot.total(stage));
        paths.push(write_whole(directory, &name, text.as_bytes())?);
    }
    Ok(paths)
}

/// Checks whether files can be written to `directory`, which is made if it does not exist.
///
/// # Errors
/// Those of the system.
pub(crate) fn try_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    try_file(directory)
}

/// Checks the same, and leaves nothing behind.
///
/// # Errors
/// Those of the system.
pub(crate) fn probe_directory(directory: &Path) -> io::Result<()> {
    let is_missing = |path: &&Path| matches!(path.try_exists(), Ok(false));
    let missing = directory.ancestors().filter(|path| *path != Path::new(""));
    let missing: Vec<_> = missing.take_while(is_missing).collect();
    let made = fs::create_dir_all(directory).and_then(|()| try_file(directory));
    for path in missing {
        // One that something was put into meanwhile, or that could not be made, is left.
        let _ = fs::remove_dir(path);
    }
    made
}

fn try_file(directory: &Path) -> io::Result<()> {
    let probe = directory.join(format!(".com-broker-{}", std::process::id()));
    OpenOptions::new().write(true).create(true).truncate(true).open(&probe)?;
    fs::remove_file(probe)
}

/// Unique part of the names of one export's files. It sorts by time and is written
/// `<date>T<time>Z-<process id>-<sequence>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStamp {
    taken_at: SystemTime,
    process_id: u32,
    /// Number of the export in the process.
    sequence: u32,
}

impl FileStamp {
    /// The stamp of the `sequence`th export of a process.
    pub(super) fn new(taken_at: SystemTime, process_id: u32, sequence: u32) -> Self {
        Self { taken_at, process_id, sequence }
    }
}

impl fmt::Display for FileStamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Timestamp::from(self.taken_at).parts();
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second, ms) = at.as_hms_milli();
        let month = u8::from(month);
        write!(
            out,
            "{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{ms:03}Z-{}-{}",
            self.process_id, self.sequence,
        )
    }
}

/// An HDR histogram log, version 1.3: the interval of each stage, tagged with its name.
fn interval_log(snapshot: &Snapshot) -> io::Result<Vec<u8>> {
    const LEGEND: &[u8] =
        b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";
    /// The divisor of the Java and Python log writers.
    const NANOSECONDS_PER_MILLISECOND: f64 = 1e6;

    let mut log = Vec::new();
    // The Java and Python log readers accept only the deflated form.
    let mut serializer = V2DeflateSerializer::new();
    // With both times given, readers take times of intervals as relative to the base time, and do
    // not guess whether they are absolute.
    IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment("[com-broker latencies: values in nanoseconds, Interval_Max in milliseconds]")
        .with_start_time(snapshot.started_at())
        .with_base_time(snapshot.started_at())
        .begin_log_with(&mut log, &mut serializer)?;
    log.extend_from_slice(LEGEND);
    let mut builder = IntervalLogWriterBuilder::new();
    builder.with_max_value_divisor(NANOSECONDS_PER_MILLISECOND);
    let mut writer = builder.begin_log_with(&mut log, &mut serializer)?;
    for stage in Stage::ALL {
        let (start, length) = (snapshot.interval_start(), snapshot.interval_length());
        writer
            .write_histogram(snapshot.interval(stage), start, length, Tag::new(stage.name()))
            .map_err(io::Error::other)?;
    }
    Ok(log)
}

/// The format of HdrHistogram's `outputPercentileDistribution`, with values in microseconds. It has no
/// comments that could name the unit.
fn percentile_distribution(histogram: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    push_steps(&mut text, histogram);
    write!(
        text,
        "#[Mean    = {:12.2}, StdDeviation   = {:12.2}]\n\
         #[Max     = {:>12}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]\n",
        histogram.mean() / 1e3,
        histogram.stdev() / 1e3,
        microseconds(histogram.max()),
        histogram.len(),
        histogram.buckets(),
        sub_buckets(histogram),
    )
    .expect(STRING_GROWS);
    text
}

/// Writes a line for each level that the running count reaches, of which the last value has only one, and
/// a line for all values, without the fourth column, which would be infinite.
fn push_steps(text: &mut String, histogram: &Histogram<u64>) {
    let (mut level, mut total_count) = (Level::ZERO, 0_u64);
    for bin in histogram.iter_recorded() {
        total_count = total_count.saturating_add(bin.count_at_value());
        let value = microseconds(bin.value_iterated_to());
        while level.is_reached(total_count, histogram.len()) {
            let (percentile, inverse) = (level.percentile(), level.inverse());
            writeln!(text, "{value:>12} {percentile} {total_count:>10} {inverse:14.2}")
                .expect(STRING_GROWS);
            level = level.next();
            if total_count == histogram.len() {
                break;
            }
        }
        if total_count == histogram.len() {
            writeln!(text, "{value:>12} {:.12} {total_count:>10}", 1.0).expect(STRING_GROWS);
        }
    }
}

const STRING_GROWS: &str = "a string takes whatever is written to it";

/// A level of the distribution, in integers: in floating point, steps of a tenth add up to slightly more
/// than a half, and skip a value that is exactly there.
///
/// `Level::TICKS_PER_HALF < remaining ≤ 2 × Level::TICKS_PER_HALF ≤ ticks`
#[derive(Clone, Copy)]
struct Level {
    /// Number of steps of the current width in the whole distribution.
    ticks: u64,
    /// Number of steps that are left.
    remaining: u64,
}

impl Level {
    /// Steps after which the width of steps is halved.
    const TICKS_PER_HALF: u64 = 5;
    const ZERO: Self =
        Self { ticks: 2 * Self::TICKS_PER_HALF, remaining: 2 * Self::TICKS_PER_HALF };

    fn next(self) -> Self {
        let remaining = self.remaining - 1;
        if remaining > Self::TICKS_PER_HALF {
            Self { remaining, ..self }
        } else {
            Self { ticks: 2 * self.ticks, remaining: 2 * remaining }
        }
    }

    /// Whether `count` of `total` values are at least this fraction.
    fn is_reached(self, count: u64, total: u64) -> bool {
        let missing = u128::from(total - count) * u128::from(self.ticks);
        missing <= u128::from(total) * u128::from(self.remaining)
    }

    /// The fraction with twelve decimals, with halves rounded up as in Java.
    fn percentile(self) -> String {
        const ONE: u128 = 1_000_000_000_000;
        let (ticks, gone) = (u128::from(self.ticks), u128::from(self.ticks - self.remaining));
        let rounded = (2 * gone * ONE + ticks) / (2 * ticks);
        format!("{}.{:012}", rounded / ONE, rounded % ONE)
    }

    /// The inverse of the remaining fraction.
    fn inverse(self) -> f64 {
        self.ticks as f64 / self.remaining as f64
    }
}

/// Formats microseconds with as many decimals as the histograms have digits. Halves are rounded up as in
/// Java, for which binary fractions are too inexact.
fn microseconds(elapsed_ns: u64) -> String {
    let hundredths = elapsed_ns.saturating_add(5) / 10;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// The number of linear steps in a histogram's first bucket: a power of two that resolves twice the
/// largest number with its digits.
fn sub_buckets(histogram: &Histogram<u64>) -> u64 {
    (2 * 10_u64.pow(u32::from(histogram.sigfig()))).next_power_of_two()
}

/// Writes `contents` to `directory/name` atomically, and never replaces a file.
fn write_whole(directory: &Path, name: &str, contents: &[u8]) -> io::Result<PathBuf> {
    let path = directory.join(name);
    let draft = directory.join(format!(".{name}.tmp"));
    // A rename would replace the file. So only the process that has made the draft checks for the
    // file and renames; another one with the same stamp finds the draft or the file.
    let made = OpenOptions::new().write(true).create_new(true).open(&draft);
    let mut file = made.map_err(|error| at_path(&draft, &error))?;
    let written = if path.exists() {
        Err(io::ErrorKind::AlreadyExists.into())
    } else {
        file.write_all(contents).and_then(|()| fs::rename(&draft, &path))
    };
    if let Err(error) = written {
        // The first error is reported; a draft that is left does no harm.
        let _ = fs::remove_file(&draft);
        return Err(at_path(&path, &error));
    }
    Ok(path)
}

fn at_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::time::Duration;

    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::super::latencies::Latencies;
    use super::*;

    /// A directory that is removed after the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let name = format!("com-broker-files-{}-{test}", std::process::id());
            let directory = env::temp_dir().join(name);
            fs::create_dir_all(&directory).unwrap();
            Self(directory)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn stamp() -> FileStamp {
        FileStamp::new(SystemTime::UNIX_EPOCH + Duration::from_millis(951_782_400_250), 4711, 2)
    }

    fn snapshot(record: impl FnOnce(&mut Latencies)) -> Snapshot {
        let mut latencies = Latencies::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
        record(&mut latencies);
        latencies.take_snapshot(Duration::from_millis(2_500))
    }

    #[test]
    fn a_stamp_is_the_time_the_process_and_the_sequence() {
        assert_eq!(stamp().to_string(), "20000229T000000.250Z-4711-2");
    }

    #[test]
    fn a_snapshot_becomes_a_log_and_a_distribution_per_stage() {
        let scratch = Scratch::new("five");
        let directory = scratch.0.join("made/on/demand");
        let written = write_files(&snapshot(|_| {}), &directory, stamp()).unwrap();
        let names: Vec<_> = written.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(
            names,
            [
                "com-broker-latency-20000229T000000.250Z-4711-2.hlog",
                "com-broker-latency-delivery-20000229T000000.250Z-4711-2.hgrm",
                "com-broker-latency-dispatch-20000229T000000.250Z-4711-2.hgrm",
                "com-broker-latency-turn-20000229T000000.250Z-4711-2.hgrm",
                "com-broker-latency-poll-20000229T000000.250Z-4711-2.hgrm",
            ]
        );
        assert!(written.iter().all(|path| path.is_file()));
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 5, "no draft is left");
    }

    #[test]
    fn existing_files_are_not_changed() {
        let scratch = Scratch::new("there");
        let first = write_files(&snapshot(|_| {}), &scratch.0, stamp()).unwrap();
        let before = fs::read(&first[0]).unwrap();
        let later = snapshot(|latencies| latencies.record(Stage::Turn, 5));
        let error = write_files(&later, &scratch.0, stamp()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().contains(first[0].to_str().unwrap()), "{error}");
        assert_eq!(fs::read(&first[0]).unwrap(), before);
        assert_eq!(scratch.names().len(), 5, "no draft is left");
    }

    #[test]
    fn a_draft_of_another_process_is_not_changed() {
        let scratch = Scratch::new("draft");
        let draft = scratch.0.join(format!(".com-broker-latency-{}.hlog.tmp", stamp()));
        fs::write(&draft, "another's").unwrap();
        let error = write_files(&snapshot(|_| {}), &scratch.0, stamp()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&draft).unwrap(), b"another's");
        assert_eq!(scratch.names().len(), 1);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let scratch = Scratch::new("file");
        let file = scratch.0.join("file");
        fs::write(&file, "").unwrap();
        let error = write_files(&snapshot(|_| {}), &file, stamp()).unwrap_err();
        assert!(error.to_string().starts_with(file.to_str().unwrap()), "{error}");
    }

    #[test]
    fn the_log_has_the_interval_of_each_stage() {
        let mut latencies = Latencies::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000));
        latencies.record(Stage::Delivery, 9_000_000);
        latencies.take_snapshot(Duration::from_millis(2_500));
        latencies.record_many(Stage::Delivery, 2_000_000, 3);
        let log = interval_log(&latencies.take_snapshot(Duration::from_millis(4_000))).unwrap();
        let text = String::from_utf8(log).unwrap();
        assert!(text.starts_with("#[Histogram log format version 1.3]\n"), "{text}");
        assert!(text.contains("\n#[StartTime: 1000.000 (seconds since epoch)]\n"), "{text}");
        assert!(text.contains("\n#[BaseTime: 1000.000 (seconds since epoch)]\n"), "{text}");
        assert!(text.contains("\nTag=delivery,2.500,1.500,2.007,HISTFAAA"), "{text}");

        let mut tags = Vec::new();
        let lines = text.lines().filter(|line| !line.starts_with('"'));
        let without_legend = lines.map(|line| format!("{line}\n")).collect::<String>();
        for entry in IntervalLogIterator::new(without_legend.as_bytes()) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                assert_eq!(interval.start_timestamp(), Duration::from_millis(2_500));
                assert_eq!(interval.duration(), Duration::from_millis(1_500));
                tags.push(interval.tag().unwrap().as_str().to_owned());
            }
        }
        assert_eq!(tags, Stage::ALL.map(Stage::name));
    }

    #[test]
    fn a_distribution_has_the_form_of_the_java_library() {
        let snapshot = snapshot(|latencies| {
            latencies.record(Stage::Delivery, 1_000);
            latencies.record(Stage::Delivery, 3_005);
            latencies.record_many(Stage::Delivery, 250_000, 2);
        });
        let text = percentile_distribution(snapshot.total(Stage::Delivery));
        let expected = "       Value     Percentile TotalCount 1/(1-Percentile)

        1.00 0.000000000000          1           1.00
        1.00 0.100000000000          1           1.11
        1.00 0.200000000000          1           1.25
        3.01 0.300000000000          2           1.43
        3.01 0.400000000000          2           1.67
        3.01 0.500000000000          2           2.00
      250.88 0.550000000000          4           2.22
      250.88 1.000000000000          4
#[Mean    =       126.18, StdDeviation   =       124.19]
#[Max     =       250.88, Total count    =            4]
#[Buckets =           29, SubBuckets     =          256]
";
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn an_empty_distribution_has_a_header_and_a_footer() {
        let text = percentile_distribution(snapshot(|_| {}).total(Stage::Poll));
        let expected = "       Value     Percentile TotalCount 1/(1-Percentile)

#[Mean    =         0.00, StdDeviation   =         0.00]
#[Max     =         0.00, Total count    =            0]
#[Buckets =           29, SubBuckets     =          256]
";
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn there_are_five_levels_in_each_half_of_the_remaining_fraction() {
        let levels = std::iter::successors(Some(Level::ZERO), |level| Some(level.next()));
        let percentiles: Vec<String> = levels.map(Level::percentile).take(13).collect();
        let expected = [
            "0.0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.55", "0.6", "0.65", "0.7", "0.75",
            "0.775", "0.8",
        ];
        assert_eq!(percentiles, expected.map(|percentile| format!("{percentile:0<14}")));
    }

    #[test]
    fn a_thirteenth_decimal_of_five_is_rounded_up() {
        let level = Level { ticks: 40_960, remaining: 9 };
        assert_eq!(level.percentile(), "0.999780273438");
        assert_eq!(format!("{:.2}", level.inverse()), "4551.11");
    }

    #[test]
    fn halves_of_a_hundredth_are_rounded_up() {
        for (elapsed_ns, text) in [
            (0, "0.00"),
            (4, "0.00"),
            (5, "0.01"),
            (1_005, "1.01"),
            (60_000_000_000, "60000000.00"),
        ] {
            assert_eq!(microseconds(elapsed_ns), text);
        }
    }
}
