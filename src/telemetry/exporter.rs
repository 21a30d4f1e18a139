//! Exports of latencies, each on a short-lived thread, so that the loop does not stop.

use std::path::{Path, PathBuf};
use std::process;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::files::{FileStamp, write_files};
use super::latencies::{Latencies, Snapshot};
use super::table::{log_percentiles, percentile_table};

/// Exports latencies: the percentile table to the log and, if there is a directory, the files.
/// Failures are only logged.
#[derive(Debug)]
pub(crate) struct Exporter {
    /// Directory for the files, if they are wanted.
    directory: Option<PathBuf>,
    /// Whether programs read the log, for which it has pairs instead of a table.
    is_for_programs: bool,
    /// Exports begun so far.
    sequence: u32,
    /// The last export. At most one runs at a time.
    running: Option<JoinHandle<()>>,
}

impl Exporter {
    /// An exporter to the log, which is read by people or by programs, and to `directory`.
    pub(crate) fn new(directory: Option<PathBuf>, is_for_programs: bool) -> Self {
        Self { directory, is_for_programs, sequence: 0, running: None }
    }

    /// Begins an export of the latencies recorded until `elapsed` after the start, without waiting for
    /// its end. While the last export is running, this only logs a warning: the interval continues
    /// and will be part of the next export.
    pub(crate) fn begin_export(&mut self, latencies: &mut Latencies, elapsed: Duration) {
        if self.running.as_ref().is_some_and(|thread| !thread.is_finished()) {
            log::warn!("latency export ignored, the one before is still running");
            return;
        }
        self.join();
        let snapshot = latencies.take_snapshot(elapsed);
        self.sequence += 1;
        let stamp = FileStamp::new(snapshot.taken_at(), process::id(), self.sequence);
        let (directory, is_for_programs) = (self.directory.clone(), self.is_for_programs);
        let spawned = thread::Builder::new()
            .name("latency-export".to_owned())
            .spawn(move || export(&snapshot, is_for_programs, directory.as_deref(), stamp));
        match spawned {
            Ok(thread) => self.running = Some(thread),
            Err(error) => {
                let error = error.to_string();
                log::error!(error; "latency export lost, there is no thread for it");
            }
        }
    }

    /// Exports after the end of the loop, and waits until the files are written and the thread has
    /// ended.
    pub(crate) fn finish(mut self, latencies: &mut Latencies, elapsed: Duration) {
        self.join();
        self.begin_export(latencies, elapsed);
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.running.take()
            && thread.join().is_err()
        {
            log::error!("latency export lost, its thread panicked");
        }
    }
}

fn export(snapshot: &Snapshot, is_for_programs: bool, directory: Option<&Path>, stamp: FileStamp) {
    if is_for_programs {
        log_percentiles(snapshot);
    } else {
        for row in percentile_table(snapshot).lines() {
            log::info!("latency {row}");
        }
    }
    let Some(directory) = directory else { return };
    match write_files(snapshot, directory, stamp) {
        Ok(paths) => {
            let directory = directory.to_string_lossy();
            log::info!(files = paths.len(), stamp:%, directory; "latency");
        }
        Err(error) => {
            let (directory, error) = (directory.to_string_lossy(), error.to_string());
            log::error!(directory, error; "latency files not written");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;
    use std::{env, fs};

    use super::super::latencies::Stage;
    use super::*;

    #[test]
    fn every_export_has_files_of_its_own() {
        let directory = env::temp_dir().join(format!("com-broker-exporter-{}", process::id()));
        let mut latencies = Latencies::new(SystemTime::UNIX_EPOCH);
        let mut exporter = Exporter::new(Some(directory.clone()), false);
        latencies.record(Stage::Turn, 1_000);
        exporter.begin_export(&mut latencies, Duration::from_secs(1));
        exporter.join();
        // The same time again: the sequence number distinguishes the two.
        exporter.finish(&mut latencies, Duration::from_secs(1));
        let count = fs::read_dir(&directory).unwrap().count();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(count, 10);
    }

    #[test]
    fn an_export_during_another_does_not_end_the_interval() {
        let mut latencies = Latencies::new(SystemTime::UNIX_EPOCH);
        let mut exporter = Exporter::new(None, true);
        let (release, held) = std::sync::mpsc::channel::<()>();
        exporter.running = Some(thread::spawn(move || {
            let _ = held.recv();
        }));
        latencies.record(Stage::Turn, 1_000);
        exporter.begin_export(&mut latencies, Duration::from_secs(1));
        drop(release);
        exporter.join();
        let snapshot = latencies.take_snapshot(Duration::from_secs(2));
        assert_eq!(snapshot.interval(Stage::Turn).len(), 1);
        assert_eq!(snapshot.interval_length(), Duration::from_secs(2));
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_not_fatal() {
        let mut latencies = Latencies::new(SystemTime::UNIX_EPOCH);
        let exporter = Exporter::new(Some(PathBuf::from("/dev/null/latencies")), false);
        exporter.finish(&mut latencies, Duration::from_secs(1));
    }
}
