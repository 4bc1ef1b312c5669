#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs bench-pool: our pool, the floor and the peers, interleaved, a process for each run.

Exit status: 0; 1 when ours could not be measured.
"""

import os
import shutil
import sys

from session import answer, arguments, built, interleaved, not_measured, record, verdict

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
        return [directory / ("pool-libperf" if name == OURS else "pool-floor"), name]
    if kind == "java":
        target = built(directory / "peer-pool-java")
        if shutil.which("java") is None:
            raise RuntimeError("it was not built")
        return ["java", "-Xms512m", "-Xmx512m", "-cp", f"{target}:{target}/jars/*", "PoolPeer",
                name]
    return [built(directory / f"peer-pool-{kind}"), name]


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
            label = case if not hold_us else f"{case}-{field}"
            medians[name, field] = record(options.dir, "pool", label, name, unit, values)
            line += f"{medians[name, field]:>10.2f}"
        if not hold_us:
            ns = [a["ns"] for a in answers]
            line += f"{1000.0 / medians[name, 'ns']:>10.2f}{min(ns):>10.2f}{max(ns):>10.2f}"
        print(line)
    not_measured(missing, 14)
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
    parser = arguments(rounds=7)
    parser.add_argument("--ms", type=int, default=400)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    options = parser.parse_args()
    good = True
    for case in options.cases or CASES:
        threads, connections, hold_us, floors = CASES[case]
        names = [OURS, *floors, *(PEERS if options.peers else [])]
        load = [threads, connections, options.ms * 4 if hold_us else options.ms, hold_us]
        rows, missing = interleaved(names, options.rounds,
                                    lambda name: answer([*command(options.dir, name), *load]))
        good = report(options, case, rows, missing) and good
        sys.stdout.flush()
    return 0 if good else 1


if __name__ == "__main__":
    os.environ.pop("JAVA_TOOL_OPTIONS", None)
    sys.exit(main())
