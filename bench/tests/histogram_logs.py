#!/usr/bin/env python3
"""Measures the floor relay briefly, and holds the histogram log of that run, opened with
HdrHistogram's own Python package, against what the same run says as JSON."""

import json
import pathlib
import subprocess
import sys
import tempfile

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LOWEST_NS, HIGHEST_NS, DIGITS = 1, 60_000_000_000, 3


def main():
    program = build()
    with tempfile.TemporaryDirectory() as directory:
        log, lines = pathlib.Path(directory, "run.hlog"), pathlib.Path(directory, "run.json")
        floor = subprocess.Popen([program, "floor", "--listen", "127.0.0.1:0"],
                                 stdout=subprocess.PIPE, text=True)
        try:
            url = floor.stdout.readline().strip()
            subprocess.run(
                [program, "fan-out", "--receivers", "20", url, "--duration", "300ms",
                 "--core", "none", "--quiet", "--sleep", "--hdr", log, "--json", lines],
                check=True, stdout=subprocess.DEVNULL)
        finally:
            floor.kill()
            floor.wait()
        told = json.loads(lines.read_text())["latency_ns"]
        found = read(log)
    if set(found) != {"delivery", "last-delivery"}:
        return fail(f"the log has intervals of {sorted(found)}")
    for name, histogram in found.items():
        expected = told[name.replace("-", "_")]
        if histogram.get_total_count() != expected["count"]:
            return fail(f"{name}: {histogram.get_total_count()} values, not {expected['count']}")
        for key, percentile in (("p50", 50), ("p99", 99), ("max", 100)):
            value = histogram.get_value_at_percentile(percentile)
            # The package names the lower end of a bin, or the upper: one of a thousand apart.
            if abs(value - expected[key]) > expected[key] * 0.002 + 1:
                return fail(f"{name}: {key} is {value}, not {expected[key]}")
        print(f"{name}: {expected['count']} values, p50 and p99 and maximum as told")
    return 0


def build():
    command = ["cargo", "build", "--quiet", "--package", "com-broker-bench",
               "--message-format", "json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    messages = map(json.loads, done.stdout.splitlines())
    programs = [one["executable"] for one in messages if one.get("executable")]
    return programs[-1]


def read(path):
    """The histograms of a log, by what their tags end in."""
    reader = HistogramLogReader(str(path), HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS))
    found = {}
    while (histogram := reader.get_next_interval_histogram()) is not None:
        found[histogram.get_tag().rsplit("/", 1)[-1]] = histogram
    reader.close()
    return found


def fail(text):
    print(f"bench/tests/histogram_logs.py: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
