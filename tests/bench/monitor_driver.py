#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs bench-monitor: our metrics and the peers, interleaved, a process for each run.

Exit status: 0; 1 when ours could not be measured.
"""

import statistics
import sys

from session import answer, arguments, built, interleaved, not_measured, record, verdict

OURS = "libperf"
PROGRAMS = {OURS: "monitor-libperf", "prometheus-cpp": "peer-monitor-cc"}
# name: case of the subjects, threads, unit, aim of ours
CASES = {
    "counter-1t": ("counter", 1, "ns", 5),
    "counter-2t": ("counter", 2, "ns", 5),
    "histogram-1t": ("histogram", 1, "ns", 10),
    "histogram-2t": ("histogram", 2, "ns", 10),
    "scraped-1t": ("scraped", 1, "ns", 10),
    "clocks-1t": ("clocks", 1, "ns", 120),
    "tracked-1t": ("tracked", 1, "ns", 120),
    "tracked-2t": ("tracked", 2, "ns", 120),
    "scrape-10k": ("scrape", 1, "ms", 20),
}


def run(directory, name, case, ms):
    kind, threads, _, _ = CASES[case]
    return answer([built(directory / PROGRAMS[name]), kind, threads, ms])


def report(options, case, rows, missing):
    _, threads, unit, aim = CASES[case]
    print(f"\n{case}: {threads} thread{'s' if threads > 1 else ''}, {unit} of processor time")
    print(f"  {'subject':<16}{'median':>10}{'min':>10}{'max':>10}")
    for name, answers in rows.items():
        values = [a[unit] for a in answers]
        median = record(options.dir, "monitor", case, name, unit, values)
        print(f"  {name:<16}{median:>10.2f}{min(values):>10.2f}{max(values):>10.2f}")
    not_measured(missing, 16)
    if OURS not in rows:
        return False
    value = statistics.median(a[unit] for a in rows[OURS])
    verdict(unit, value, value <= aim, f"at most {aim}")
    return True


def main():
    parser = arguments(rounds=7)
    parser.add_argument("--ms", type=int, default=300)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    options = parser.parse_args()
    good = True
    names = list(PROGRAMS) if options.peers else [OURS]
    for case in options.cases or CASES:
        rows, missing = interleaved(
            names, options.rounds, lambda name: run(options.dir, name, case, options.ms))
        good = report(options, case, rows, missing) and good
        sys.stdout.flush()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
