#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs bench-task-redis: durable tasks in Redis, ours and the peers, interleaved, on one server.

A process for each run, the server emptied before it. Exit status: 0; 1 when ours could not be
measured.
"""

import argparse
import json
import pathlib
import socket
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
OURS = "libperf"
ENGINE = "libperf-8t"  # through perf_tasks, one by one by as many threads as asynq's
WORKERS = 2
AT_ONCE = 64
# RQ is so much slower that its share of tasks is smaller; the figures are tasks a second.
SHARE = {"RQ": 20}
AIMS = {"asynq": 1.5, "BullMQ": 3, "RQ": 3}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


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
    missing = [p for p in program if isinstance(p, pathlib.Path) and not p.exists()]
    if missing:
        raise RuntimeError("it was not built")
    return program, more


def run(directory, server, name, tasks):
    program, more = command(directory, name)
    server.say("FLUSHALL")
    arguments = [str(server.port), str(WORKERS), str(tasks // SHARE.get(name, 1)), *more]
    if name == ENGINE:
        arguments = ["redis", f"redis://127.0.0.1:{server.port}", "8", str(tasks)]
    done = subprocess.run([*map(str, program), *arguments], capture_output=True, text=True,
                          timeout=300, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=20000)
    options = parser.parse_args()
    options.dir = options.dir.resolve()
    names = [OURS, ENGINE, "libperf-single", *(AIMS if options.peers else [])]
    rows, missing = {}, {}
    server = Server()
    try:
        for number in range(options.rounds):
            turn = number % len(names)  # nobody always runs after the same one
            for name in names[turn:] + names[:turn]:
                if name in missing:
                    continue
                try:
                    rows.setdefault(name, []).append(run(options.dir, server, name, options.tasks))
                except (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired) as why:
                    missing[name] = str(why)
                    rows.pop(name, None)
    finally:
        server.stop()
    print(f"\ndurable empty tasks in one Redis server, {WORKERS} workers: tasks a second from the "
          "first submission to the last end")
    print(f"  {'subject':<16}{'per s':>10}{'min':>10}{'max':>10}")
    medians = {}
    for name in [n for n in names if n in rows]:
        values = [a["per_s"] for a in rows[name]]
        medians[name] = statistics.median(values)
        with open(options.dir / "results.jsonl", "a", encoding="utf-8") as out:
            print(json.dumps({"bench": "task-redis", "case": "empty", "subject": name,
                              "unit": "per s", "median": medians[name], "min": min(values),
                              "max": max(values), "runs": len(values)}), file=out)
        print(f"  {name:<16}{medians[name]:>10.0f}{min(values):>10.0f}{max(values):>10.0f}")
    for name, why in missing.items():
        print(f"  {name:<16}not measured: {why}")
    if OURS not in rows:
        return 1
    for name, aim in AIMS.items():
        if name in medians:
            ratio = medians[OURS] / medians[name]
            print(f"  {'ok   ' if ratio >= aim else 'SHORT'} against {name}: {ratio:.2f} "
                  f"(aim {aim})")
    if ENGINE in medians and "asynq" in medians:
        ratio = medians[ENGINE] / medians["asynq"]
        print(f"  {'ok   ' if ratio >= AIMS['asynq'] else 'SHORT'} one by one, against asynq: "
              f"{ratio:.2f} (aim {AIMS['asynq']})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
