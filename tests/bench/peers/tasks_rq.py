# SPDX-License-Identifier: MIT
"""RQ for bench-task-redis: N empty tasks, submitted in batches, worked off by SimpleWorker processes.

SimpleWorker runs tasks in its own process: the default one forks for each, which is far slower.
"""

import json
import multiprocessing
import operator
import sys
import time

import redis
import rq

AT_ONCE = 500


def work(port):
    connection = redis.Redis(port=port)
    worker = rq.SimpleWorker(["q"], connection=connection)
    worker.log.disabled = True
    worker.work(logging_level="CRITICAL")


def main():
    port, workers, tasks = map(int, sys.argv[1:4])
    connection = redis.Redis(port=port)
    queue = rq.Queue("q", connection=connection)
    processes = [multiprocessing.Process(target=work, args=(port,), daemon=True)
                 for _ in range(workers)]
    for process in processes:
        process.start()
    while len(rq.Worker.all(connection=connection)) < workers:
        time.sleep(0.01)
    begin = time.monotonic()
    for i in range(0, tasks, AT_ONCE):
        queue.enqueue_many([rq.Queue.prepare_data(operator.truth, (1,))
                            for _ in range(min(AT_ONCE, tasks - i))])
    submitted = time.monotonic() - begin
    while queue.finished_job_registry.get_job_count(cleanup=False) < tasks:
        time.sleep(0.01)
    total = time.monotonic() - begin
    print(json.dumps({"per_s": tasks / total, "submit_per_s": tasks / submitted}))
    for process in processes:
        process.terminate()


if __name__ == "__main__":
    main()
