#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the benchmark: our subject, the floor and the peers, interleaved in one session.

Machines are noisy, so figures are only comparable when they were taken side by side. For each
case every subject is started once and builds its data; then rounds go over all of them, one
measured run each, and the table shows medians. README.md describes cases and protocol.

Exit status: 0; 1 when a subject gave wrong answers or ours could not be measured.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading

from session import not_measured, record

OURS = "libperf"
FLOOR = "floor"
PEERS = {
    "tbb": "peer-tbb",
    "quick_cache": "peer-rust",
    "moka": "peer-rust",
    "caffeine": "peer-java",
    "otter": "peer-go",
    "theine": "peer-go",
}
CACHES = [p for p in PEERS if p != "tbb"]  # tbb has no eviction
MILLION = 1_000_000
ANSWER_SECONDS = 300  # a subject that says nothing for so long is stuck

# name: stream (KEYS, LENGTH, SET_PERCENT), kind, keys, ops, capacity, threads, others, aims.
# Resident cases give every cache twice the room, so that none evicts.
# An aim is (what, subject or None for the best peer, "max" or "min", value): ours relative to it.
CASES = {
    "get-10k": dict(
        title="get: 16 B keys, 64 B values, 10 k keys, all resident, Zipf 0.99",
        stream=(10_000, 1 << 20, 0), kind="get", keys=10_000, ops=2 * MILLION, capacity=20_000,
        threads=(1, 2), others=["floor", "floor-inline", "floor-4k", *PEERS],
        aims=[("time", FLOOR, "max", 1.5), ("throughput", None, "min", 1.5)]),
    "get-1m": dict(
        title="get: 16 B keys, 64 B values, 1 M keys, all resident, Zipf 0.99",
        stream=(MILLION, 1 << 22, 0), kind="get", keys=MILLION, ops=MILLION, capacity=2 * MILLION,
        threads=(1, 2), others=["floor", "floor-inline", "floor-4k", *PEERS],
        aims=[("time", FLOOR, "max", 1.5), ("throughput", None, "min", 1.5)]),
    "batch64-1m": dict(
        title="batch get of 64 keys, 1 M keys, all resident, time per key (who has no batch: loop)",
        stream=(MILLION, 1 << 22, 0), kind="batch", keys=MILLION, ops=MILLION // 64 * 64,
        capacity=2 * MILLION, threads=(1,),
        others=["floor", "floor-single", "floor-prefetch", *PEERS],
        aims=[("time", "floor-single", "max", 0.5), ("time", FLOOR, "max", 0.5)]),
    "mixed-90-10": dict(
        title="90 % get, 10 % set, room for 100 k of 1 M keys, Zipf 0.99, nothing set on a miss",
        stream=(MILLION, 1 << 22, 10), kind="mixed", keys=MILLION, ops=MILLION // 2,
        capacity=100_000, threads=(1, 2), others=CACHES, aims=[("throughput", None, "min", 1.5)]),
    "mixed-50-50": dict(
        title="50 % get, 50 % set, room for 100 k of 1 M keys, Zipf 0.99, nothing set on a miss",
        stream=(MILLION, 1 << 22, 50), kind="mixed", keys=MILLION, ops=MILLION // 2,
        capacity=100_000, threads=(1, 2), others=CACHES, aims=[("throughput", None, "min", 1.5)]),
    "overhead": dict(
        title="resident memory an entry beyond its 80 bytes, 1 M entries (caffeine: live heap)",
        stream=None, kind="overhead", keys=MILLION, ops=1, capacity=MILLION + MILLION // 4,
        threads=(1,), others=list(PEERS), unit="bytes", rounds=1,
        aims=[("absolute", None, "max", 56)]),
    "churn-uniform": dict(
        title="10 M operations of 64 B to 64 KiB: peak resident memory above 1.05 x 256 MiB",
        alone=["case-churn", "uniform", "256", str(10 * MILLION)], field="above_mib", unit="MiB",
        rounds=1, aims=[("absolute", None, "max", 16)]),
    "churn-drift": dict(
        title="the same with the range of sizes moving in five phases",
        alone=["case-churn", "drift", "256", str(10 * MILLION)], field="above_mib", unit="MiB",
        rounds=1, aims=[("absolute", None, "max", 16)]),
    "single-flight": dict(
        title="64 threads, one cold key: how often the loader ran",
        alone=["case-single-flight"], field="loads", unit="loads",
        aims=[("absolute", None, "max", 1)]),
    "sqlite": dict(
        title="read from the SQLite tier, 100 k records, against a bare prepared statement",
        sqlite=(100_000, 50_000), others=["floor"], aims=[("throughput", FLOOR, "min", 0.8)]),
}


class NotMeasured(Exception):
    pass


class Subject:
    """One program that holds its data and measures a run each time it is told to."""

    def __init__(self, name, command, env=None):
        self.name = name
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors, env=env, text=True)

    def answer(self):
        watchdog = threading.Timer(ANSWER_SECONDS, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline()
        watchdog.cancel()
        try:
            return json.loads(line)
        except ValueError:
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.errors.seek(0)
            said = self.errors.read().decode(errors="replace").strip().splitlines()
            raise NotMeasured(f"ended with status {self.process.returncode}: "
                              + (said[-1] if said else "it said nothing")) from None

    def run(self, threads):
        try:
            print("run", threads, file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass
        return self.answer()

    def close(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


class Bench:
    def __init__(self, options):
        self.options = options
        self.dir = pathlib.Path(options.dir)
        self.data = self.dir / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        self.bad = False

    # ------------------------------------------------------------------ starting subjects

    def program(self, name):
        path = self.dir / name
        if not path.exists():
            raise NotMeasured(f"{path} was not built")
        return str(path)

    def command(self, name):
        """How to start a subject of the generic cases, and with which environment."""
        env = dict(os.environ)
        if name == OURS:
            return [self.program("subject-libperf"), name], env
        if name.startswith(FLOOR):
            return [self.program("subject-floor"), name], env
        path = self.program(PEERS[name])
        # Huge pages for the peers too, where their runtime can have them.
        env["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        if name == "caffeine":
            if shutil.which("java") is None:
                raise NotMeasured("java is not installed")
            return ["java", "-Xms2g", "-Xmx2g", "-XX:+UseTransparentHugePages", "-cp",
                    f"{path}:{path}/jars/*", "Peer", name], env
        return [path, name], env

    def stream(self, spec):
        if spec is None:
            return "-"
        keys, length, sets = spec
        path = self.data / f"zipf-{keys}-{length}-{sets}.u32"
        if not path.exists():
            part = path.with_suffix(".part")
            subprocess.run([self.program("gen-stream"), part, str(keys), str(length), "0.99",
                            str(sets)], check=True)
            part.rename(path)
        return str(path)

    def start(self, name, case):
        if "alone" in case:
            program, *arguments = case["alone"]
            return Subject(name, [self.program(program), *arguments])
        if "sqlite" in case:
            keys, ops = case["sqlite"]
            path = self.data / f"sqlite-{name}.db"
            for old in self.data.glob(f"sqlite-{name}.db*"):
                old.unlink()
            command = [self.program("case-sqlite"), name, str(path), str(keys), str(ops)]
            return Subject(name, command)
        command, env = self.command(name)
        # floor-single is the plain floor asked one key at a time: the measure for batches.
        kind = "get" if name == "floor-single" else case["kind"]
        return Subject(name, [*command, kind, self.stream(case["stream"]), str(case["keys"]),
                              str(case["ops"]), str(case["capacity"])], env)

    # -------------------------------------------------------------------------- measuring

    def measure(self, case_name):
        """All runs of one case: {threads: {subject: [answers]}} and {subject: why not}."""
        case = CASES[case_name]
        others = case.get("others", [])
        wanted = [OURS] + [s for s in others if self.options.peers or s not in PEERS]
        subjects, missing = {}, {}
        try:
            for name in wanted:
                try:
                    subjects[name] = self.start(name, case)
                except NotMeasured as why:
                    missing[name] = str(why)
            threads = case.get("threads", (1,))
            rounds = case.get("rounds", self.options.rounds)
            warm_up = 1 if rounds > 1 else 0
            runs = {t: {} for t in threads}
            self.each(subjects, missing, Subject.answer)
            for number in range(-warm_up, rounds):
                progress(f"{case_name}: round {number + 1} of {rounds}")
                turn = number % max(1, len(subjects))  # nobody always runs after the same one
                order = list(subjects)[turn:] + list(subjects)[:turn]
                for t in threads:
                    answers = self.each(subjects, missing, lambda s: s.run(t), order)
                    self.check(case, answers)
                    if number >= 0:
                        for name, answer in answers.items():
                            runs[t].setdefault(name, []).append(answer)
        finally:
            for subject in subjects.values():
                subject.close()
            progress("")
        for t in threads:
            for name in missing:
                runs[t].pop(name, None)
        return runs, missing

    def each(self, subjects, missing, ask, order=None):
        answers = {}
        for name in [n for n in order or list(subjects) if n in subjects]:
            try:
                answers[name] = ask(subjects[name])
            except NotMeasured as why:
                missing[name] = str(why)
                subjects.pop(name).close()
        return answers

    def check(self, case, answers):
        """Every subject replays the same accesses, so resident cases have one right checksum."""
        resident = case.get("kind") in ("get", "batch") or "sqlite" in case
        sums = {a["checksum"] for a in answers.values()} if resident else set()
        for name, a in answers.items():
            if a.get("wrong") or (resident and a["hits"] != a["gets"]) or len(sums) > 1 \
                    or a.get("failures") or a.get("answers", 64) != 64:
                self.bad = True
                print(f"bench: WRONG ANSWERS: {name}: {a}", flush=True)

    # -------------------------------------------------------------------------- reporting

    def report(self, case_name, runs, missing):
        case = CASES[case_name]
        unit = case.get("unit", "ns")
        field = case.get("field", "bytes" if unit == "bytes" else "ns")
        ours = {}
        for t, by_subject in runs.items():
            label = f"{case_name}-{t}t" if len(runs) > 1 else case_name
            print(f"\n{label}: {case['title']}" + (f"; threads: {t}" if len(runs) > 1 else ""))
            medians = {name: statistics.median(a[field] for a in rows)
                       for name, rows in by_subject.items()}
            ours[t] = medians.get(OURS)
            mops = unit == "ns"
            print(f"  {'subject':<16}{unit + ' (median)':>14}{'min':>10}{'max':>10}"
                  + (f"{'M/s':>9}" if mops else "")
                  + (f"{'/ floor':>9}" if FLOOR in medians else "")
                  + (f"{'hit ratio':>11}" if case.get("kind") == "mixed" else ""))
            for name, rows in by_subject.items():
                values = [a[field] for a in rows]
                record(self.dir, "cache", label, name, unit, values)
                text = f"  {name:<16}{medians[name]:>14.1f}{min(values):>10.1f}{max(values):>10.1f}"
                if mops:
                    text += f"{1000.0 * t / medians[name]:>9.2f}"
                if FLOOR in medians:
                    text += f"{medians[name] / medians[FLOOR]:>9.2f}"
                if case.get("kind") == "mixed":
                    ratios = [a["hits"] / a["gets"] for a in rows]
                    text += f"{record(self.dir, 'cache', label, name, 'ratio', ratios):>11.4f}"
                print(text)
            not_measured(missing, 16)
            self.judge(case, medians)
        if case.get("kind") == "get" and ours[1] and ours[2]:
            verdict("two threads / one thread, throughput", 2 * ours[1] / ours[2], "min", 1.8)
        if OURS in missing:
            self.bad = True
        sys.stdout.flush()

    def judge(self, case, medians):
        if OURS not in medians:
            return
        for what, than, direction, aim in case["aims"]:
            if what == "absolute":
                verdict(f"{OURS}", medians[OURS], direction, aim)
                continue
            if than is None:
                peers = [p for p in PEERS if p in medians]
                if not peers:
                    continue
                than = min(peers, key=medians.get)
                label = f"best peer ({than})"
            else:
                label = than
            if than in medians:
                ratio = medians[OURS] / medians[than]
                verdict(f"{OURS} / {label}, {what}", ratio if what == "time" else 1 / ratio,
                        direction, aim)

    # -------------------------------------------------------------------------- hit ratios

    def hit_ratio(self):
        """Every trace through the real tier and through the reference policies."""
        traces = sorted(pathlib.Path(self.options.traces).glob("*.csv.xz"))
        if not traces:
            print(f"\nhit-ratio: not measured: no *.csv.xz in {self.options.traces}")
            return
        import lzma  # here, since some builds of Python lack it and only the traces need it

        ratios = ["0.001", "0.01", "0.1"]
        for packed in traces:
            name = packed.name.removesuffix(".csv.xz")
            plain = self.data / f"{name}.csv"
            if not plain.exists():
                part = plain.with_suffix(".part")
                with lzma.open(packed) as source, open(part, "wb") as target:
                    shutil.copyfileobj(source, target)
                part.rename(plain)
            progress(f"hit-ratio: {name}")
            rows = {}
            self.collect(rows, name, ["hit-ratio", plain, *ratios], OURS)
            with open(plain, encoding="ascii") as source:
                sized = "," in source.readline()
            if sized:
                self.collect(rows, name, ["hit-ratio", "--bytes", plain, *ratios],
                             OURS + " (bytes)")
            self.collect(rows, name, ["policy-table", plain, *ratios], None)
            progress("")
            self.print_ratios(name, rows, ratios)

    def collect(self, rows, trace, command, subject):
        """Reads "FILE RATIO [POLICY] HIT_RATIO" lines."""
        try:
            command[0] = self.program(command[0])
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True,
                                  check=False)
            if done.returncode != 0:
                raise NotMeasured(done.stderr.strip()[-200:] or f"status {done.returncode}")
        except NotMeasured as why:
            print(f"hit-ratio: {trace}: {subject or 'the reference policies'} not measured: {why}")
            self.bad = self.bad or subject == OURS
            return
        for line in done.stdout.splitlines():
            _, ratio, *policy, hit = line.split()
            name = subject or policy[0]
            if name == OURS and subject is None:
                name = "libperf-model"  # the policy without the tier around it
            rows.setdefault(name, {})[ratio] = float(hit)

    def print_ratios(self, trace, rows, ratios):
        print(f"\nhit-ratio: {trace}, room for a share of the distinct keys")
        print(f"  {'policy':<18}" + "".join(f"{r:>10}" for r in ratios) + f"{'mean':>10}")
        means = {}
        for name, by_ratio in rows.items():
            values = [by_ratio.get(r) for r in ratios]
            if None in values:
                continue
            means[name] = sum(values) / len(values)
            print(f"  {name:<18}" + "".join(f"{v:>10.4f}" for v in (*values, means[name])))
            for ratio, value in zip(ratios, values):
                record(self.dir, "hit-ratio", f"{trace}@{ratio}", name, "ratio", [value])
        rivals = [n for n in means if not n.startswith(OURS) and n != "belady"]
        if OURS in means and rivals:
            best = max(rivals, key=means.get)
            verdict(f"mean, {OURS} - best policy ({best})", means[OURS] - means[best], "min", 0.0)
            envelope = sum(max(rows[n][r] for n in rivals) for r in ratios) / len(ratios)
            print(f"     mean, {OURS} - the best policy of each size: {means[OURS] - envelope:.3f}")
        sys.stdout.flush()


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def verdict(text, value, direction, aim):
    good = value <= aim if direction == "max" else value >= aim
    bound = "at most" if direction == "max" else "at least"
    print(f"  -> {text}: {value:.3f} (aim: {bound} {aim}) {'ok' if good else 'SHORT'}")


def exit_status(bench):
    print(f"\nresults: {bench.dir / 'results.jsonl'}"
          + ("; SOMETHING WAS WRONG OR MISSING, see above" if bench.bad else ""))
    return 1 if bench.bad else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("cases", nargs="*", default=["all"],
                        help=f"cache (all but hit-ratio), hit-ratio, all, or: {' '.join(CASES)}")
    parser.add_argument("--dir", default="build/bench", help="where the programs and results are")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", type=int, default=1, help="0 leaves the peers out")
    parser.add_argument("--traces", default="../shared/traces", help="folder of *.csv.xz")
    options = parser.parse_args()
    names = []
    for name in options.cases:
        names += {"all": [*CASES, "hit-ratio"], "cache": list(CASES)}.get(name, [name])
    unknown = [n for n in names if n not in CASES and n != "hit-ratio"]
    if unknown:
        parser.error(f"no case {unknown[0]}; there are: {' '.join(CASES)} hit-ratio")
    bench = Bench(options)
    for name in names:
        if name == "hit-ratio":
            bench.hit_ratio()
        else:
            bench.report(name, *bench.measure(name))
    return exit_status(bench)


if __name__ == "__main__":
    sys.exit(main())
