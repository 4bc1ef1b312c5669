#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs bench-monitor: our metrics and the peers, interleaved, a process for each run.

Exit status: 0; 1 when ours could not be measured.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

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
    program = directory / PROGRAMS[name]
    if not program.exists():
        raise RuntimeError("it was not built")
    done = subprocess.run([str(program), kind, str(threads), str(ms)], capture_output=True,
                          text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return json.loads(done.stdout)


def report(options, case, rows, missing):
    _, threads, unit, aim = CASES[case]
    print(f"\n{case}: {threads} thread{'s' if threads > 1 else ''}, {unit} of processor time")
    print(f"  {'subject':<16}{'median':>10}{'min':>10}{'max':>10}")
    for name, answers in rows.items():
        values = [a[unit] for a in answers]
        median = statistics.median(values)
        with open(options.dir / "results.jsonl", "a", encoding="utf-8") as out:
            print(json.dumps({"bench": "monitor", "case": case, "subject": name, "unit": unit,
                              "median": median, "min": min(values), "max": max(values),
                              "runs": len(values)}), file=out)
        print(f"  {name:<16}{median:>10.2f}{min(values):>10.2f}{max(values):>10.2f}")
    for name, why in missing.items():
        print(f"  {name:<16}not measured: {why}")
    if OURS not in rows:
        return False
    value = statistics.median(a[unit] for a in rows[OURS])
    print(f"  {'ok   ' if value <= aim else 'SHORT'} {unit}: {value:.2f} (aim at most {aim})")
    return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", type=int, default=1)
    parser.add_argument("--ms", type=int, default=300)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    options = parser.parse_args()
    good = True
    names = list(PROGRAMS) if options.peers else [OURS]
    for case in options.cases or CASES:
        rows, missing = {}, {}
        for number in range(options.rounds):
            turn = number % len(names)  # nobody always runs after the same one
            for name in names[turn:] + names[:turn]:
                if name in missing:
                    continue
                try:
                    rows.setdefault(name, []).append(run(options.dir, name, case, options.ms))
                except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as why:
                    missing[name] = str(why)
                    rows.pop(name, None)
        good = report(options, case, {n: rows[n] for n in names if n in rows}, missing) and good
        sys.stdout.flush()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
