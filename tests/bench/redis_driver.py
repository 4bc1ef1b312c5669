#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs bench-redis: our client, hiredis, the peers and redis-benchmark, interleaved, all against one
local server that keeps nothing on disk.

Exit status: 0; 1 when ours could not be measured or gave a wrong answer.
"""

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from session import arguments, built, free_port, not_measured, record

# name: the program, and what it is
SUBJECTS = {
    "libperf": ("redis-libperf", "threads that wait, one connection"),
    "libperf-callbacks": ("redis-callbacks", "chains of callbacks, one connection"),
    "hiredis": ("redis-hiredis", "threads that wait, a connection each"),
    "rueidis": ("peer-redis-go", "goroutines that wait, one connection"),
    "fred": ("peer-redis-rust", "tasks that wait, one connection"),
}
CEILING = "redis-benchmark"
CASES = {"one-1": 1, "many-32": 32}


def start_server(directory, port):
    server = subprocess.Popen(["redis-server", "--port", str(port), "--save", "", "--dir", directory,
                               "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL)
    for _ in range(200):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return server
        time.sleep(0.05)
    server.kill()
    raise RuntimeError("redis-server did not start")


def run(options, name, port, threads):
    if name == CEILING:
        return ceiling(port, threads)
    program = built(options.dir / SUBJECTS[name][0])
    done = subprocess.run([str(program), str(port), str(threads), str(options.ms)],
                          capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:  # wrong answers are counted in what it printed
        raise RuntimeError((done.stderr.strip() or done.stdout.strip() or "no reason given")[-300:])
    return json.loads(done.stdout)


def ceiling(port, threads):
    """As many connections, 16 commands on the way on each; the mean of SET and GET."""
    done = subprocess.run(["redis-benchmark", "-p", str(port), "-P", "1" if threads == 1 else "16",
                           "-c", str(threads), "-n", "30000" if threads == 1 else "400000", "-d",
                           "64", "-r", "10000", "-t", "set,get", "--csv"],
                          capture_output=True, text=True, timeout=120, check=True)
    rates = [float(line.split(",")[1].strip('"')) for line in done.stdout.splitlines()[1:]]
    return {"ops_s": 2 / sum(1 / r for r in rates), "p50_us": 0, "p99_us": 0, "cpu_us": 0,
            "wrong": 0}


def report(options, case, rows, missing):
    print(f"\n{case}: half GETs, half SETs of 64 B, {CASES[case]} at once")
    print(f"  {'subject':<20}{'ops/s':>10}{'min':>10}{'max':>10}{'p50 us':>10}{'p99 us':>10}"
          f"{'cpu us':>10}")
    medians = {}
    for name, answers in rows.items():
        rates = [a["ops_s"] for a in answers]
        medians[name] = record(options.dir, "redis", case, name, "ops/s", rates)
        line = f"  {name:<20}{medians[name]:>10.0f}{min(rates):>10.0f}{max(rates):>10.0f}"
        for field in ["p50_us", "p99_us", "cpu_us"]:
            value = statistics.median(a[field] for a in answers)
            line += f"{value:>10.1f}" if value else f"{'-':>10}"
        print(line)
    not_measured(missing, 20)
    ours = medians.get("libperf")
    if not ours:
        return False
    for name, rate in medians.items():
        if not name.startswith("libperf"):
            print(f"  libperf / {name}: {ours / rate:.2f}   callbacks / {name}: "
                  f"{medians.get('libperf-callbacks', 0) / rate:.2f}")
    wrong = {name: sum(a["wrong"] for a in answers) for name, answers in rows.items()}
    for name, count in wrong.items():
        if count:
            print(f"  WRONG ANSWERS: {name}: {count}")
    return not wrong["libperf"]


def main():
    parser = arguments(rounds=5)
    parser.add_argument("--ms", type=int, default=1000)
    parser.add_argument("cases", nargs="*", default=list(CASES))
    options = parser.parse_args()
    names = [n for n in SUBJECTS if options.peers or n not in ("rueidis", "fred")] + [CEILING]
    good = True
    with tempfile.TemporaryDirectory() as directory:
        port = free_port()
        server = start_server(directory, port)
        try:
            for case in options.cases:
                rows, missing = {}, {}
                for _ in range(options.rounds):
                    for name in names:
                        if name in missing:
                            continue
                        try:
                            rows.setdefault(name, []).append(run(options, name, port, CASES[case]))
                        except (RuntimeError, OSError, subprocess.SubprocessError) as why:
                            rows.pop(name, None)
                            missing[name] = str(why)
                good = report(options, case, rows, missing) and good
        finally:
            server.kill()
            server.wait()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
