# SPDX-License-Identifier: MIT
"""What the drivers of the benchmarks share: their options, rounds in which every subject has its
turn, and figures: lines of results.jsonl and of the tables.

A subject's run gives a dict of figures, or raises one of FAILURES, which say why it is not
measured. README.md describes the protocol.
"""

import argparse
import json
import pathlib
import socket
import statistics
import subprocess

FAILURES = (RuntimeError, OSError, ValueError, subprocess.TimeoutExpired)


def arguments(rounds):
    """The options that all have; the driver adds its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--peers", type=int, default=1)
    return parser


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def built(program):
    if not program.exists():
        raise RuntimeError("it was not built")
    return program


def answer(command, seconds=120):
    """The figures that a program prints, which measures one run and ends."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          timeout=seconds, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return json.loads(done.stdout)


def interleaved(names, rounds, run):
    """All runs, {name: [figures]} in the order of names, and {name: why it is not measured}."""
    rows, missing = {}, {}
    for number in range(rounds):
        turn = number % len(names)  # nobody always runs after the same one
        for name in names[turn:] + names[:turn]:
            if name in missing:
                continue
            try:
                rows.setdefault(name, []).append(run(name))
            except FAILURES as why:
                missing[name] = str(why)
                rows.pop(name, None)
    return {n: rows[n] for n in names if n in rows}, missing


def record(directory, bench, case, subject, unit, values):
    """Appends a line to the results; the median."""
    median = statistics.median(values)
    line = {"bench": bench, "case": case, "subject": subject, "unit": unit, "median": median,
            "min": min(values), "max": max(values), "runs": len(values)}
    with open(directory / "results.jsonl", "a", encoding="utf-8") as out:
        print(json.dumps(line), file=out)
    return median


def not_measured(missing, width):
    """The last rows of a table whose first column is so wide."""
    for name, why in missing.items():
        print(f"  {name:<{width}}not measured: {why}")


def verdict(text, value, good, aim):
    print(f"  {'ok   ' if good else 'SHORT'} {text}: {value:.2f} (aim {aim})")
