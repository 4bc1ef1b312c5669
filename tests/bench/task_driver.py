#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs bench-task: empty tasks on executors, ours and the peers, interleaved, a process for each
run; then durable tasks by our own queues.

Exit status: 0; 1 when ours could not be measured.
"""

import statistics
import sys
import tempfile

from session import answer, arguments, built, interleaved, not_measured, record, verdict

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
    return answer([built(directory / PEERS.get(name, "task-libperf")), name, WORKERS, tasks])


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
                answers.append(answer([options.dir / "task-durable", backend,
                                       f"{directory}/tasks.db", threads, tasks]))
        rates = [a["per_s"] for a in answers]
        waits = [a["submit_us"] for a in answers]
        medians[name] = record(options.dir, "task", f"durable-{name}", OURS, "1/s", rates)
        wait = record(options.dir, "task", f"durable-{name}-submit", OURS, "us", waits)
        print(f"  {name:<14}{medians[name]:>10.0f}{min(rates):>10.0f}{max(rates):>10.0f}"
              f"{wait:>12.1f}")
    best = max(medians["sqlite-8t"], medians["sqlite-32t"])
    verdict("SQLite, tasks a second", best, best >= AIM_DURABLE, f"at least {AIM_DURABLE}")


def main():
    parser = arguments(rounds=7)
    parser.add_argument("--tasks", type=int, default=300000)
    options = parser.parse_args()
    names = [OURS, "libperf-task", *(PEERS if options.peers else [])]
    rows, missing = interleaved(names, options.rounds,
                                lambda name: run(options.dir, name, options.tasks))
    print(f"\nempty tasks, one producer, {WORKERS} workers: time a task from the first submission to "
          "the last end, the producer's part of it, and from submission to beginning when the "
          "workers sleep")
    print(f"  {'subject':<14}{'ns':>10}{'min':>10}{'max':>10}{'submit ns':>12}{'wake us':>10}")
    medians = {}
    for name, answers in rows.items():
        for field, unit in FIELDS.items():
            medians[name, field] = record(options.dir, "task", f"empty-{field.split('_')[0]}", name,
                                          unit, [a[field] for a in answers])
        ns = [a["ns"] for a in answers]
        print(f"  {name:<14}{medians[name, 'ns']:>10.0f}{min(ns):>10.0f}{max(ns):>10.0f}"
              f"{medians[name, 'submit_ns']:>12.0f}{medians[name, 'wake_us']:>10.1f}")
    not_measured(missing, 14)
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
