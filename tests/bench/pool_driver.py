#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs bench-pool: our pool, the floor and the peers, interleaved, a process for each run.

Exit status: 0; 1 when ours could not be measured.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

OURS = "libperf"
PEERS = {"hikaricp": "java", "puddle": "go", "r2d2": "rust", "deadpool": "rust",
         "fast_pool": "rust"}
# name: threads, connections, hold in us (0: none), subjects beside ours and the peers
CASES = {
    "alone-1t-16c": (1, 16, 0, ["floor", "floor-mutex"]),
    "enough-2t-16c": (2, 16, 0, ["floor", "floor-mutex"]),
    "short-2t-1c": (2, 1, 0, ["floor-mutex"]),
    "enough-16t-32c": (16, 32, 0, ["floor", "floor-mutex"]),
    "short-16t-4c": (16, 4, 0, ["floor-mutex"]),
    "wait-4t-2c-1ms": (4, 2, 1000, ["floor-mutex"]),
    "wait-16t-4c-1ms": (16, 4, 1000, ["floor-mutex"]),
}


def command(directory, name):
    kind = PEERS.get(name)
    if kind is None:
        return [str(directory / ("pool-libperf" if name == OURS else "pool-floor")), name]
    if kind == "java":
        target = directory / "peer-pool-java"
        if not target.exists() or shutil.which("java") is None:
            return None
        return ["java", "-Xms512m", "-Xmx512m", "-cp", f"{target}:{target}/jars/*", "PoolPeer",
                name]
    program = directory / f"peer-pool-{kind}"
    return [str(program), name] if program.exists() else None


def run(directory, name, threads, connections, ms, hold_us):
    start = command(directory, name)
    if start is None:
        raise RuntimeError("it was not built")
    done = subprocess.run([*start, str(threads), str(connections), str(ms), str(hold_us)],
                          capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return json.loads(done.stdout)


def verdict(text, value, good, aim):
    print(f"  {'ok   ' if good else 'SHORT'} {text}: {value:.2f} (aim {aim})")


def report(options, case, rows, missing):
    threads, connections, hold_us, _ = CASES[case]
    fields = ["ns"] if not hold_us else ["mean", "p50", "p99", "p999", "max"]
    unit = "ns" if not hold_us else "holds"
    print(f"\n{case}: {threads} threads, {connections} connections, "
          + ("nothing in between; time a borrowing, all threads together" if not hold_us else
             f"held for {hold_us} us; waits in holds"))
    print("  " + f"{'subject':<14}" + "".join(f"{f:>10}" for f in fields)
          + ("" if hold_us else f"{'M/s':>10}{'min':>10}{'max':>10}"))
    medians = {}
    for name, answers in rows.items():
        line = f"  {name:<14}"
        for field in fields:
            values = [a[field] / (1000.0 * hold_us if hold_us else 1) for a in answers]
            medians[name, field] = statistics.median(values)
            label = case if not hold_us else f"{case}-{field}"
            with open(options.dir / "results.jsonl", "a", encoding="utf-8") as out:
                print(json.dumps({"bench": "pool", "case": label, "subject": name, "unit": unit,
                                  "median": statistics.median(values), "min": min(values),
                                  "max": max(values), "runs": len(values)}), file=out)
            line += f"{medians[name, field]:>10.2f}"
        if not hold_us:
            ns = [a["ns"] for a in answers]
            line += f"{1000.0 / medians[name, 'ns']:>10.2f}{min(ns):>10.2f}{max(ns):>10.2f}"
        print(line)
    for name, why in missing.items():
        print(f"  {name:<14}not measured: {why}")
    if OURS not in rows:
        return False
    if hold_us:
        value = medians[OURS, "p999"]
        verdict("p99.9 of the waits, in holds", value, value <= 5, "at most 5")
        return True
    ours = medians[OURS, "ns"]
    if threads == 1:
        verdict("alone, ns", ours, ours <= 10, "at most 10")
        return True
    for name in PEERS:
        if (name, "ns") in medians:
            ratio = medians[name, "ns"] / ours
            verdict(f"throughput against {name}", ratio, ratio >= 2, "at least 2")
    return True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", type=int, default=1)
    parser.add_argument("--ms", type=int, default=400)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    options = parser.parse_args()
    good = True
    for case in options.cases or CASES:
        threads, connections, hold_us, floors = CASES[case]
        names = [OURS, *floors, *(PEERS if options.peers else [])]
        rows, missing = {}, {}
        for number in range(options.rounds):
            turn = number % len(names)  # nobody always runs after the same one
            for name in names[turn:] + names[:turn]:
                if name in missing:
                    continue
                try:
                    ms = options.ms * 4 if hold_us else options.ms
                    rows.setdefault(name, []).append(
                        run(options.dir, name, threads, connections, ms, hold_us))
                except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as why:
                    missing[name] = str(why)
                    rows.pop(name, None)
        ordered = {n: rows[n] for n in names if n in rows}
        good = report(options, case, ordered, missing) and good
        sys.stdout.flush()
    return 0 if good else 1


if __name__ == "__main__":
    os.environ.pop("JAVA_TOOL_OPTIONS", None)
    sys.exit(main())
