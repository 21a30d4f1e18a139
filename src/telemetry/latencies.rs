//! The latency histograms.
//!
//! Recording never allocates: the bounds are fixed, and values outside them are counted at the nearest
//! bound.

use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

/// A stage whose duration is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// From the poll that reported a frame until the kernel has taken the last byte of a delivery.
    Delivery,
    /// Receiving and dispatching the frames of a turn. Measured in one turn of
    /// [`DISPATCH_EVERY`](Self::DISPATCH_EVERY), since it needs another reading of the clock.
    Dispatch,
    /// A turn without the poll.
    Turn,
    /// The poll with its sleep.
    Poll,
}

impl Stage {
    /// Every stage, in the order of the tables and files.
    pub const ALL: [Self; 4] = [Self::Delivery, Self::Dispatch, Self::Turn, Self::Poll];

    /// Interval of turns whose dispatch is measured.
    pub const DISPATCH_EVERY: u64 = 8;

    /// The name in tables, file names and log tags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::Dispatch => "dispatch",
            Self::Turn => "turn",
            Self::Poll => "poll",
        }
    }
}

/// One histogram of nanoseconds per stage (delivery, dispatch, turn, poll).
#[derive(Debug)]
pub struct Latencies {
    /// Wall-clock time at which recording began.
    started_at: SystemTime,
    /// Values that are still to be entered in the histograms. Noting one touches one cache line, a
    /// histogram has three, and the kernel has evicted them since the last turn.
    noted: Vec<Noted>,
    /// Values since the last snapshot, except those in `noted`.
    interval: Histograms,
    /// When the interval began, as monotonic time since `started_at`.
    interval_start: Duration,
    /// Values before the interval; absent in the first one, to save its memory.
    total: Option<Histograms>,
}

/// A duration of a stage, and how often it occurred.
#[derive(Clone, Copy, Debug)]
struct Noted {
    elapsed_ns: u64,
    count: u32,
    stage: Stage,
}

/// Number of values that are noted before they are entered.
const NOTED_MAX: usize = 128;

impl Latencies {
    /// Histograms without a value.
    pub fn new(started_at: SystemTime) -> Self {
        Self {
            started_at,
            noted: Vec::with_capacity(NOTED_MAX),
            interval: Histograms::new(),
            interval_start: Duration::ZERO,
            total: None,
        }
    }

    /// Records that `stage` took `elapsed_ns` once.
    #[inline]
    pub fn record(&mut self, stage: Stage, elapsed_ns: u64) {
        self.record_many(stage, elapsed_ns, 1);
    }

    /// Records that `stage` took `elapsed_ns` `count` times.
    #[inline]
    pub fn record_many(&mut self, stage: Stage, elapsed_ns: u64, count: u32) {
        if self.noted.len() == NOTED_MAX {
            self.enter();
        }
        self.noted.push(Noted { elapsed_ns, count, stage });
    }

    #[cold] // once for `NOTED_MAX` values
    fn enter(&mut self) {
        // With a count of zero, a histogram would still take the value for its maximum.
        for noted in self.noted.drain(..).filter(|noted| noted.count > 0) {
            let histogram = self.interval.of_mut(noted.stage);
            histogram.saturating_record_n(noted.elapsed_ns, noted.count.into());
        }
    }

    /// Ends the interval `elapsed` after the start, adds it to the total, begins the next one, and
    /// returns a copy of both.
    pub fn take_snapshot(&mut self, elapsed: Duration) -> Snapshot {
        self.enter();
        let interval = self.interval.clone();
        let total = self.total.get_or_insert_with(Histograms::new);
        total.add(&interval);
        self.interval.reset();
        let interval_start = self.interval_start;
        self.interval_start = elapsed.max(interval_start);
        Snapshot {
            started_at: self.started_at,
            interval_start,
            interval_length: self.interval_start - interval_start,
            interval,
            total: total.clone(),
        }
    }
}

/// A copy of the histograms, for another thread.
#[derive(Clone, Debug)]
pub struct Snapshot {
    started_at: SystemTime,
    interval_start: Duration,
    interval_length: Duration,
    interval: Histograms,
    total: Histograms,
}

impl Snapshot {
    /// When recording began.
    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// When the snapshot was taken.
    pub fn taken_at(&self) -> SystemTime {
        self.started_at + self.interval_start + self.interval_length
    }

    /// Time from the start of recording to the previous snapshot.
    pub fn interval_start(&self) -> Duration {
        self.interval_start
    }

    /// Time from the previous snapshot, or from the start of recording, to this one.
    pub fn interval_length(&self) -> Duration {
        self.interval_length
    }

    /// Values since the previous snapshot.
    pub fn interval(&self, stage: Stage) -> &Histogram<u64> {
        self.interval.of(stage)
    }

    /// Values since the start.
    pub fn total(&self, stage: Stage) -> &Histogram<u64> {
        self.total.of(stage)
    }
}

/// A histogram for each stage, in the order of [`Stage::ALL`].
#[derive(Clone, Debug)]
struct Histograms([Histogram<u64>; 4]);

impl Histograms {
    fn new() -> Self {
        /// A minute. Longer durations are recorded as this.
        const ELAPSED_NS_MAX: u64 = 60_000_000_000;
        /// Two digits need 30 KiB; three would need 216 KiB, which does not stay in the cache.
        const SIGNIFICANT_DIGITS: u8 = 2;
        Self(Stage::ALL.map(|_| {
            Histogram::new_with_bounds(1, ELAPSED_NS_MAX, SIGNIFICANT_DIGITS)
                .expect("1 is a lower bound, less than half the upper one, and 2 digits are few")
        }))
    }

    #[inline]
    fn of_mut(&mut self, stage: Stage) -> &mut Histogram<u64> {
        &mut self.0[stage as usize]
    }

    fn of(&self, stage: Stage) -> &Histogram<u64> {
        &self.0[stage as usize]
    }

    fn add(&mut self, other: &Self) {
        for (mine, others) in self.0.iter_mut().zip(&other.0) {
            mine.add(others).expect("both have the same bounds");
        }
    }

    fn reset(&mut self) {
        for histogram in &mut self.0 {
            histogram.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies() -> Latencies {
        Latencies::new(SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn stages_are_indexed_in_the_order_of_all() {
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, index, "{}", stage.name());
        }
    }

    #[test]
    fn each_stage_has_its_own_histogram() {
        let mut latencies = latencies();
        latencies.record(Stage::Delivery, 1_000);
        latencies.record_many(Stage::Poll, 5_000, 7);
        let snapshot = latencies.take_snapshot(Duration::from_secs(1));
        assert_eq!(Stage::ALL.map(|stage| snapshot.total(stage).len()), [1, 0, 0, 7]);
        assert_eq!(snapshot.total(Stage::Delivery).min(), 1_000);
    }

    #[test]
    fn values_out_of_bounds_are_counted_at_the_bound() {
        let mut latencies = latencies();
        for elapsed_ns in [0, 60_000_000_000, 60_000_000_001, u64::MAX] {
            latencies.record(Stage::Turn, elapsed_ns);
            latencies.record_many(Stage::Turn, elapsed_ns, 2);
        }
        let snapshot = latencies.take_snapshot(Duration::ZERO);
        let total = snapshot.total(Stage::Turn);
        assert_eq!(total.len(), 12);
        assert_eq!(total.min(), 0);
        assert!(total.max() >= 60_000_000_000 && total.max() < 61_000_000_000, "{}", total.max());
        assert_eq!(total.distinct_values(), snapshot.total(Stage::Poll).distinct_values());
    }

    #[test]
    fn recording_nothing_leaves_no_maximum() {
        let mut latencies = latencies();
        latencies.record_many(Stage::Delivery, 1_000_000, 0);
        let snapshot = latencies.take_snapshot(Duration::ZERO);
        assert!(snapshot.total(Stage::Delivery).is_empty());
        assert_eq!(snapshot.total(Stage::Delivery).max(), 0);
    }

    #[test]
    fn intervals_follow_each_other_and_add_up_to_the_total() {
        let mut latencies = latencies();
        latencies.record(Stage::Delivery, 40);
        let first = latencies.take_snapshot(Duration::from_secs(10));
        latencies.record(Stage::Delivery, 20);
        latencies.record(Stage::Delivery, 90);
        let second = latencies.take_snapshot(Duration::from_secs(25));

        assert_eq!(
            (first.interval(Stage::Delivery).len(), first.total(Stage::Delivery).len()),
            (1, 1)
        );
        let (interval, total) = (second.interval(Stage::Delivery), second.total(Stage::Delivery));
        assert_eq!((interval.len(), interval.min(), interval.max()), (2, 20, 90));
        assert_eq!((total.len(), total.min(), total.max()), (3, 20, 90));
        assert_eq!(first.interval_start(), Duration::ZERO);
        assert_eq!(first.interval_length(), Duration::from_secs(10));
        assert_eq!(second.interval_start(), Duration::from_secs(10));
        assert_eq!(second.interval_length(), Duration::from_secs(15));
        assert_eq!(second.taken_at(), SystemTime::UNIX_EPOCH + Duration::from_secs(25));
    }

    #[test]
    fn a_clock_that_goes_back_makes_an_empty_interval() {
        let mut latencies = latencies();
        latencies.take_snapshot(Duration::from_secs(10));
        let snapshot = latencies.take_snapshot(Duration::from_secs(5));
        assert_eq!(snapshot.interval_start(), Duration::from_secs(10));
        assert_eq!(snapshot.interval_length(), Duration::ZERO);
    }
}
