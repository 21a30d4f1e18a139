#!/usr/bin/env python3
"""Open the broker's latency files with HdrHistogram's own Python package.

usage: latency_files.py DIRECTORY [DELIVERIES_MIN]

Reads every .hlog in DIRECTORY with `hdrh.log.HistogramLogReader` and every .hgrm the way the
HdrHistogram plotter does, and holds them against each other: the interval logs of a run must add up
to the distributions. DELIVERIES_MIN is how many deliveries the last export of each run must have
counted. Prints a line per export; on the first mismatch says what it is and exits 1.

Needs the package `hdrhistogram` from PyPI.
"""

import itertools
import re
import sys
import zlib
from pathlib import Path

from hdrh.codec import HdrCookieException, HdrHistogramSettingsException, HdrLengthException
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

STAGES = ("delivery", "dispatch", "turn", "poll")
LOWEST_NS, HIGHEST_NS, DIGITS = 1, 60_000_000_000, 2
STAMP = re.compile(r"com-broker-latency-(\d{8}T\d{6}\.\d{3}Z)-(\d+)-(\d+)\.hlog")
HEADINGS = ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
FOOTER = re.compile(
    r"#\[Mean    = +([\d.]+), StdDeviation   = +([\d.]+)\]\n"
    r"#\[Max     = +([\d.]+), Total count    = +(\d+)\]\n"
    r"#\[Buckets = +(\d+), SubBuckets     = +(\d+)\]\n"
)
# The files give microseconds with two decimals, the logs milliseconds and seconds with three.
HUNDREDTH_OF_US, THOUSANDTH = 0.0051, 0.00051


class Mismatch(Exception):
    """What is wrong with which file."""


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    deliveries_min = int(sys.argv[2]) if len(sys.argv) == 3 else 0
    try:
        check_directory(Path(sys.argv[1]), deliveries_min)
    except Mismatch as mismatch:
        print(f"latency_files: {mismatch}", file=sys.stderr)
        sys.exit(1)


def check_directory(directory, deliveries_min):
    runs = exports_by_run(directory)
    distributions = set(directory.glob("*.hgrm"))
    for run in runs:
        sums = {stage: new_histogram() for stage in STAGES}
        interval_end = None
        for log in run:
            interval_end = check_log(log, sums, interval_end)
            for stage in STAGES:
                distribution = distribution_of(log, stage)
                check_distribution(distribution, sums[stage])
                distributions.discard(distribution)
            counts = " ".join(f"{stage}={sums[stage].get_total_count()}" for stage in STAGES)
            print(f"{log.name}: {counts}")
        deliveries = sums["delivery"].get_total_count()
        expect(run[-1], deliveries >= deliveries_min,
               f"{deliveries} deliveries where at least {deliveries_min} were made")
    for distribution in sorted(distributions):
        raise Mismatch(f"{distribution.name}: no interval log of the same stamp")


def exports_by_run(directory):
    """The interval logs of each run, in the order of their exports."""
    runs = {}
    for log in directory.glob("*.hlog"):
        stamp = STAMP.fullmatch(log.name)
        expect(log, stamp, "not named com-broker-latency-<time>-<process id>-<sequence>.hlog")
        runs.setdefault((stamp[2], start_time(log)), []).append((int(stamp[3]), log))
    expect(directory, runs, "no interval log")
    for run in runs.values():
        run.sort()
        sequence = [number for number, _ in run]
        expect(run[0][1], sequence == list(range(1, len(run) + 1)), f"exports {sequence}")
    return [[log for _, log in run] for run in runs.values()]


def start_time(log):
    starts = re.findall(r"^#\[StartTime: ([\d.]+) \(seconds since epoch\)\]$", log.read_text(),
                        re.MULTILINE)
    expect(log, len(starts) == 1, f"{len(starts)} start times")
    return starts[0]


def check_log(log, sums, interval_end):
    """Adds the intervals of `log` to `sums` and gives the time at which they end."""
    text = log.read_text()
    expect(log, text.startswith("#[Histogram log format version 1.3]\n"), "no format version 1.3")
    lines = [line.split(",") for line in text.splitlines() if line.startswith("Tag=")]
    reader = HistogramLogReader(str(log), new_histogram())
    ends = set()
    for index, stage in enumerate(STAGES):
        interval = next_interval(log, reader)
        expect(log, interval, f"no interval of {stage}")
        expect(log, interval.get_tag() == stage, f"tag {interval.get_tag()} in place of {stage}")
        _, start, length, max_ms, _ = lines[index]
        expect(log, near(interval.get_max_value() / 1e6, float(max_ms), THOUSANDTH),
               f"{stage}: maximum {max_ms} ms in the line, {interval.get_max_value()} ns recorded")
        expect(log, near(float(start), interval_end or 0.0, 2 * THOUSANDTH),
               f"{stage}: begins at {start} s, the interval before ended at {interval_end} s")
        ends.add(float(start) + float(length))
        sums[stage].add(interval)
    expect(log, next_interval(log, reader) is None, "more than one interval per stage")
    reader.close()
    expect(log, len(ends) == 1, f"intervals end at {sorted(ends)}")
    return ends.pop()


def next_interval(log, reader):
    try:
        return reader.get_next_interval_histogram()
    except (HdrCookieException, HdrHistogramSettingsException, HdrLengthException,
            ValueError, IndexError, zlib.error) as error:
        raise Mismatch(f"{log.name}: not a histogram: {error!r}") from error


def distribution_of(log, stage):
    stamp = log.name.removeprefix("com-broker-latency-").removesuffix(".hlog")
    return log.with_name(f"com-broker-latency-{stage}-{stamp}.hgrm")


def check_distribution(path, histogram):
    """Holds a percentile distribution against the histogram that it should be of."""
    expect(path, path.is_file(), "missing")
    text = path.read_text()
    lines = text.split("\n")
    expect(path, lines[0].split() == HEADINGS and lines[1] == "", f"heading {lines[:2]}")
    rows = [[float(cell) for cell in line.split()]
            for line in lines if line.strip() and not line.startswith("#") and line != lines[0]]
    check_footer(path, text, histogram)
    check_rows(path, rows, histogram)


def check_footer(path, text, histogram):
    footer = FOOTER.search(text)
    expect(path, footer and text.endswith(footer[0]), "no footer at the end")
    total = histogram.get_total_count()
    max_us = histogram.get_highest_equivalent_value(histogram.get_max_value()) / 1e3 if total else 0
    expect(path, int(footer[4]) == total, f"total count {footer[4]}, logged {total}")
    expect(path, near(float(footer[3]), max_us, HUNDREDTH_OF_US),
           f"maximum {footer[3]} µs, logged {max_us} µs")
    mean_us = histogram.get_mean_value() / 1e3 if total else 0.0
    expect(path, near(float(footer[1]), mean_us, HUNDREDTH_OF_US + mean_us * 1e-9),
           f"mean {footer[1]} µs, logged {mean_us} µs")
    buckets = [histogram.bucket_count, histogram.sub_bucket_count]
    expect(path, [int(footer[5]), int(footer[6])] == buckets, f"buckets are {buckets}")


def check_rows(path, rows, histogram):
    total = histogram.get_total_count()
    if not total:
        expect(path, not rows, "rows of an empty histogram")
        return
    expect(path, rows and all(len(row) == 4 for row in rows[:-1]), "a row without four columns")
    expect(path, len(rows[-1]) == 3 and rows[-1][1:] == [1.0, total], f"last row {rows[-1]}")
    expect(path, rows[0][1] == 0.0, f"first row {rows[0]}")
    values_us = values_by_running_count(histogram)
    before = [0.0, -1.0, 0.0]
    for row, level in zip(rows, [*itertools.islice(levels(), len(rows) - 1), 1.0]):
        value_us, percentile, count = row[:3]
        expect(path, near(percentile, level, 1e-12), f"row {row} in place of the one for {level}")
        expect(path, percentile > before[1] and value_us >= before[0] and count >= before[2],
               f"row {row} does not ascend")
        expect(path, count in values_us and near(value_us, values_us[count], HUNDREDTH_OF_US),
               f"row {row}: logged {values_us.get(count)} µs")
        expect(path, percentile <= count / total + 1e-12, f"row {row}: only {count} of {total}")
        if len(row) == 4:
            inverse = 1 / (1 - percentile)
            expect(path, near(row[3], inverse, 0.0051 + inverse * inverse * 1e-12),
                   f"row {row}: fourth column should be {inverse}")
        before = row


def levels():
    """Five steps to each half of what remains to 100 %."""
    ticks = remaining = 10
    while True:
        yield 1 - remaining / ticks
        remaining -= 1
        if remaining == 5:
            ticks, remaining = 2 * ticks, 10


def values_by_running_count(histogram):
    """For each value, how many are not above it: what the rows must say."""
    values_us = {}
    for step in histogram.get_recorded_iterator():
        values_us[step.total_count_to_this_value] = (
            histogram.get_highest_equivalent_value(step.value_iterated_to) / 1e3)
    return values_us


def new_histogram():
    return HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)


def near(left, right, tolerance):
    return abs(left - right) <= tolerance


def expect(path, truth, offence):
    if not truth:
        raise Mismatch(f"{path.name}: {offence}")


if __name__ == "__main__":
    main()
