# SPDX-License-Identifier: MIT
"""A worker in Python for tasks that others submit: C programs, or any process that opens the file.

    python3 worker.py tasks.db      works until nothing has come for a second
    python3 worker.py               the same, with a process beside it that submits some

From C, that is:

    perf_tasks_submit(tasks, "count-words", text, len, NULL, NULL);
"""
import os
import subprocess
import sys
import tempfile

from perf_cache.tasks import Tasks

IDLE = 1.0  # seconds


def work(path):
    with Tasks(path) as tasks:

        @tasks.task("count-words")
        def count_words(run, payload):
            count = len(payload.split())
            print("%s: %d words" % (run.id, count))
            return str(count)

        done = 0
        while tasks.run_one("count-words", timeout=IDLE):
            done += 1
    print("%d tasks" % done)
    return done


def submit(path):
    with Tasks(path) as tasks:
        for i in range(3):
            tasks.submit("count-words", "word " * i)


if len(sys.argv) == 3:
    submit(sys.argv[2])
elif len(sys.argv) == 2:
    work(sys.argv[1])
else:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tasks.db")
        subprocess.run([sys.executable, __file__, "--submit", path], check=True)
        sys.exit(work(path) != 3)
