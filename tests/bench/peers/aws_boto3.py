# SPDX-License-Identifier: MIT
"""The peer boto3: GetItem through its client, one thread. Same protocol as aws_subject.h.

usage: aws_boto3.py URL
"""

import json
import resource
import sys
import time

import boto3

VALUE = "".join(chr(ord("a") + i % 26) for i in range(1000))


def cpu_us():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1e6


def main():
    client = boto3.client("dynamodb", region_name="us-east-1", endpoint_url=sys.argv[1])
    print('{"ready":true}', flush=True)
    for line in sys.stdin:
        words = line.split()
        if len(words) != 3 or words[:2] != ["run", "one"]:
            return
        calls, wrong = int(words[2]), 0
        cpu, start = cpu_us(), time.monotonic()
        for _ in range(calls):
            item = client.get_item(TableName="bench", Key={"k": {"S": "a"}})["Item"]
            wrong += item["v"]["S"] != VALUE
        seconds = time.monotonic() - start
        print(json.dumps({"calls": calls, "cpu_us": (cpu_us() - cpu) / calls,
                          "per_s": calls / seconds, "wrong": wrong}), flush=True)


main()
