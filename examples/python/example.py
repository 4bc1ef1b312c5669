# SPDX-License-Identifier: MIT
"""@cached from Python: from memory, and after a restart from disk. And a pool of connections.

    python3 example.py
"""
import os
import socket
import tempfile
import threading

import perf_cache
from perf_cache.pool import Busy, Pool

runs = 0


@perf_cache.cached(ttl=300, namespace="courses", tags=["school"])
def get_course(course_id, lang="en"):
    global runs
    runs += 1  # a slow database, in real life
    if course_id < 0:
        raise LookupError("no course %d" % course_id)
    return {"id": course_id, "title": "%s %d" % ("Kurs" if lang == "de" else "course", course_id)}


def show(text, *args, **kwargs):
    before = runs
    result = get_course(*args, **kwargs)
    print("  %-28s %-34s %s" % (text, result, "ran" if runs > before else "cached"))


with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "cache.db")

    with perf_cache.Cache(path) as cache:
        perf_cache.set_default(cache)
        print("first process:")
        show("get_course(42)", 42)
        show("get_course(42)", 42)
        show("get_course(42, lang='de')", 42, lang="de")
        show("get_course(42, 'de')", 42, "de")
        get_course.forget(42)
        show("after forget(42)", 42)
        try:
            get_course(-1)
        except LookupError as error:
            print("  exceptions pass through:     %s" % error)

    with perf_cache.Cache(path) as cache:
        perf_cache.set_default(cache)
        print("after a restart:")
        show("get_course(42)", 42)
        cache.invalidate_tag("school")
        show("after invalidate_tag", 42)

        before = runs
        threads = [threading.Thread(target=get_course, args=(7,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print("  8 threads, get_course(7):    the body ran %d time(s)" % (runs - before))

        cache.set("greetings", "morning", "hello", ttl=60, user="anna")
        cache.set("greetings", "evening", "good night", ttl=60, user="anna")
        print("  get_many:                    %s" % cache.get_many(
            "greetings", ["morning", "noon", "evening"], user="anna"))
        stats = cache.stats("greetings")
        print("  of greetings:                %(hits)d hits, %(misses)d misses" % stats)
    perf_cache.set_default(None)

# Connections: one end of a socketpair each; the other end is their server.
servers = []


def serve(server):
    while server.recv(1):
        server.send(b"!")


def connect(key, timeout):
    ours, theirs = socket.socketpair()
    servers.append(theirs)
    threading.Thread(target=serve, args=(theirs,), daemon=True).start()
    return ours


def ask(connection):
    connection.send(b"?")
    return connection.recv(1)


print("a pool:")
with Pool(connect, fd=lambda connection: connection.fileno(), max_size=2) as pool:
    for _ in range(1000):
        with pool.acquire(timeout=0.05) as connection:
            ask(connection)
    print("  1000 times borrowed:         %(opened)d opened, %(reused)d reused" % pool.stats())
    servers[0].shutdown(socket.SHUT_RDWR)
    with pool.acquire(timeout=0.05) as connection:
        ask(connection)
    print("  its server hung up:          %(closed_by_peer)d replaced, before it was lent"
          % pool.stats())
    with pool.acquire(who="one"), pool.acquire(who="two"):
        try:
            pool.acquire(timeout=0.01)
        except Busy:
            print("  all are out:                 to %s" % " and ".join(
                who for who, key, seconds in pool.holders()))
for server in servers:
    server.close()
