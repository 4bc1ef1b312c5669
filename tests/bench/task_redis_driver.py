#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs bench-task-redis: durable tasks in Redis, ours and the peers, interleaved, on one server.

A process for each run, the server emptied before it. Exit status: 0; 1 when ours could not be
measured.
"""

import pathlib
import subprocess
import sys
import time

from session import (answer, arguments, built, free_port, interleaved, not_measured, record,
                     verdict)

HERE = pathlib.Path(__file__).parent
OURS = "libperf"
ENGINE = "libperf-8t"  # through perf_tasks, one by one by as many threads as asynq's
WORKERS = 2
AT_ONCE = 64
# RQ is so much slower that its share of tasks is smaller; the figures are tasks a second.
SHARE = {"RQ": 20}
AIMS = {"asynq": 1.5, "BullMQ": 3, "RQ": 3}


class Server:
    """A redis-server in memory only, as every subject has it."""

    def __init__(self):
        self.port = free_port()
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "no"], stdout=subprocess.DEVNULL)
        for _ in range(100):
            if self.say("PING") == "PONG":
                return
            time.sleep(0.05)
        raise RuntimeError("redis-server does not answer")

    def say(self, *words):
        return subprocess.run(["redis-cli", "-p", str(self.port), *words], capture_output=True,
                              text=True, check=False).stdout.strip()

    def stop(self):
        self.process.terminate()
        self.process.wait()


def command(directory, name):
    programs = {
        OURS: ([directory / "tasks-redis-libperf"], [str(AT_ONCE)]),
        ENGINE: ([directory / "task-durable"], []),
        "libperf-single": ([directory / "tasks-redis-libperf"], ["1"]),
        "asynq": ([directory / "peer-tasks-go"], []),
        "BullMQ": (["node", directory / "peer-tasks-node" / "main.js"], []),
        "RQ": ([directory / "peer-tasks-rq" / "bin" / "python", HERE / "peers" / "tasks_rq.py"],
               []),
    }
    program, more = programs[name]
    for path in program:
        if isinstance(path, pathlib.Path):
            built(path)
    return program, more


def run(directory, server, name, tasks):
    program, more = command(directory, name)
    server.say("FLUSHALL")
    load = [server.port, WORKERS, tasks // SHARE.get(name, 1), *more]
    if name == ENGINE:
        load = ["redis", f"redis://127.0.0.1:{server.port}", 8, tasks]
    return answer([*program, *load], seconds=300)


def main():
    parser = arguments(rounds=5)
    parser.add_argument("--tasks", type=int, default=20000)
    options = parser.parse_args()
    options.dir = options.dir.resolve()
    names = [OURS, ENGINE, "libperf-single", *(AIMS if options.peers else [])]
    server = Server()
    try:
        rows, missing = interleaved(
            names, options.rounds, lambda name: run(options.dir, server, name, options.tasks))
    finally:
        server.stop()
    print(f"\ndurable empty tasks in one Redis server, {WORKERS} workers: tasks a second from the "
          "first submission to the last end")
    print(f"  {'subject':<16}{'per s':>10}{'min':>10}{'max':>10}")
    medians = {}
    for name, answers in rows.items():
        values = [a["per_s"] for a in answers]
        medians[name] = record(options.dir, "task-redis", "empty", name, "per s", values)
        print(f"  {name:<16}{medians[name]:>10.0f}{min(values):>10.0f}{max(values):>10.0f}")
    not_measured(missing, 16)
    if OURS not in rows:
        return 1
    for name, aim in AIMS.items():
        if name in medians:
            ratio = medians[OURS] / medians[name]
            verdict(f"against {name}", ratio, ratio >= aim, aim)
    if ENGINE in medians and "asynq" in medians:
        ratio = medians[ENGINE] / medians["asynq"]
        aim = AIMS["asynq"]
        verdict("one by one, against asynq", ratio, ratio >= aim, aim)
    return 0


if __name__ == "__main__":
    sys.exit(main())
