#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs bench-task: empty tasks on executors, ours and the peers, interleaved, a process for each
run; then durable tasks by our own queues.

Exit status: 0; 1 when ours could not be measured.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

OURS = "libperf"
PEERS = {"oneTBB": "peer-task-cc", "libuv": "peer-task-cc", "tokio": "peer-task-rust",
         "rayon": "peer-task-rust"}
FIELDS = {"ns": "ns", "submit_ns": "ns", "wake_us": "us"}
AIM_NS = 150
WORKERS = 2
# name: backend, submitting threads, tasks
DURABLE = {"memory-8t": ("memory", 8, 200000), "sqlite-1t": ("sqlite", 1, 10000),
           "sqlite-8t": ("sqlite", 8, 40000), "sqlite-32t": ("sqlite", 32, 40000)}
AIM_DURABLE = 20000


def run(directory, name, tasks):
    program = directory / PEERS.get(name, "task-libperf")
    if not program.exists():
        raise RuntimeError("it was not built")
    done = subprocess.run([str(program), name, str(WORKERS), str(tasks)], capture_output=True,
                          text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return json.loads(done.stdout)


def verdict(text, value, good, aim):
    print(f"  {'ok   ' if good else 'SHORT'} {text}: {value:.2f} (aim {aim})")


def write(options, case, subject, unit, values):
    with open(options.dir / "results.jsonl", "a", encoding="utf-8") as out:
        print(json.dumps({"bench": "task", "case": case, "subject": subject, "unit": unit,
                          "median": statistics.median(values), "min": min(values),
                          "max": max(values), "runs": len(values)}), file=out)


def durable(options):
    """Submitted, run and recorded, each submission acknowledged before its thread goes on."""
    print("\ndurable empty tasks, submitted one by one by so many threads, run by the workers of the "
          "same process; until the last end is recorded")
    print(f"  {'queue':<14}{'tasks/s':>10}{'min':>10}{'max':>10}{'submit us':>12}")
    medians = {}
    for name, (backend, threads, tasks) in DURABLE.items():
        answers = []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as directory:
                done = subprocess.run(
                    [str(options.dir / "task-durable"), backend, f"{directory}/tasks.db",
                     str(threads), str(tasks)], capture_output=True, text=True, timeout=120,
                    check=True)
            answers.append(json.loads(done.stdout))
        rates = [a["per_s"] for a in answers]
        waits = [a["submit_us"] for a in answers]
        medians[name] = statistics.median(rates)
        write(options, f"durable-{name}", OURS, "1/s", rates)
        write(options, f"durable-{name}-submit", OURS, "us", waits)
        print(f"  {name:<14}{medians[name]:>10.0f}{min(rates):>10.0f}{max(rates):>10.0f}"
              f"{statistics.median(waits):>12.1f}")
    best = max(medians["sqlite-8t"], medians["sqlite-32t"])
    verdict("SQLite, tasks a second", best, best >= AIM_DURABLE, f"at least {AIM_DURABLE}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=300000)
    options = parser.parse_args()
    names = [OURS, "libperf-task", *(PEERS if options.peers else [])]
    rows, missing = {}, {}
    for number in range(options.rounds):
        turn = number % len(names)  # nobody always runs after the same one
        for name in names[turn:] + names[:turn]:
            if name in missing:
                continue
            try:
                rows.setdefault(name, []).append(run(options.dir, name, options.tasks))
            except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as why:
                missing[name] = str(why)
                rows.pop(name, None)
    print(f"\nempty tasks, one producer, {WORKERS} workers: time a task from the first submission to "
          "the last end, the producer's part of it, and from submission to beginning when the "
          "workers sleep")
    print(f"  {'subject':<14}{'ns':>10}{'min':>10}{'max':>10}{'submit ns':>12}{'wake us':>10}")
    medians = {}
    for name in [n for n in names if n in rows]:
        for field, unit in FIELDS.items():
            values = [a[field] for a in rows[name]]
            medians[name, field] = statistics.median(values)
            write(options, f"empty-{field.split('_')[0]}", name, unit, values)
        ns = [a["ns"] for a in rows[name]]
        print(f"  {name:<14}{medians[name, 'ns']:>10.0f}{min(ns):>10.0f}{max(ns):>10.0f}"
              f"{medians[name, 'submit_ns']:>12.0f}{medians[name, 'wake_us']:>10.1f}")
    for name, why in missing.items():
        print(f"  {name:<14}not measured: {why}")
    if OURS not in rows:
        return 1
    ours = medians[OURS, "ns"]
    verdict("a posted task, ns", ours, ours <= AIM_NS, f"at most {AIM_NS}")
    for name in PEERS:
        if (name, "ns") in medians:
            ratio = medians[name, "ns"] / ours
            verdict(f"against {name}", ratio, ratio > 1, "ahead")
    durable(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
