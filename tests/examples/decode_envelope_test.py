# SPDX-License-Identifier: MIT
"""examples/python/decode_envelope.py against records that the library wrote."""
import json
import os
import re
import sqlite3
import subprocess
import sys
import tempfile

import decode_envelope
import perf_cache

# The example of the manual.
with open(sys.argv[1]) as page:
    lines = re.findall(r"^[0-9a-f]{2}(?: {1,2}[0-9a-f]{2})*$", page.read(), re.M)
manual = bytes.fromhex("".join(lines))
assert len(manual) == 69, len(manual)
record = decode_envelope.decode(manual)
assert record == {"kind": 0, "stamp_ms": 1, "fresh_until_ms": 2, "dead_at_ms": 3, "load_ms": 4,
                  "namespace": b"n", "user": b"", "key": b"k", "tags": [b"t"],
                  "value": b"v"}, record
program = subprocess.run([sys.executable, decode_envelope.__file__], input=manual,
                         capture_output=True, check=True)
assert b"namespace       b'n'" in program.stdout, program.stdout

# Nothing that is damaged is believed.
for at in range(len(manual)):
    for damaged in (manual[:at], manual[:at] + bytes([manual[at] ^ 1]) + manual[at + 1:]):
        try:
            decode_envelope.decode(damaged)
        except ValueError:
            continue
        raise AssertionError("byte %d" % at)

# What a tier keeps.
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "records.db")
    values = {"k%d" % i: "x" * i for i in range(40)}
    with perf_cache.Cache(durable_path=path) as cache:
        for key, value in values.items():
            cache.set("courses", key, value, 60, user="ann", tags=("red", "green"))
    db = sqlite3.connect(path)
    found = [decode_envelope.decode(row[0]) for row in db.execute("SELECT record FROM records")]
    db.close()
assert len(found) == len(values)
for record in found:
    assert record["namespace"] == b"courses" and record["user"] == b"ann"
    assert record["tags"] == [b"red", b"green"] and record["kind"] == 0
    assert 59000 <= record["fresh_until_ms"] - record["stamp_ms"] <= 61000
    assert json.loads(record["value"]) == values[record["key"].decode()], record
print("ok decode_envelope")
