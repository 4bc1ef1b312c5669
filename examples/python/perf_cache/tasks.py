# SPDX-License-Identifier: MIT
"""Background work that survives the process, for Python and asyncio.

    from perf_cache.tasks import Tasks

    tasks = Tasks("tasks.db")

    @tasks.task("resize", max_attempts=5)
    def resize(run, payload):              # bytes in, bytes (or str, or None) out
        run.progress(0.5, "half of it")
        return shrink(payload)

    tasks.start()                          # leave out where nothing shall run
    record = await tasks.submit("resize", picture)       # or tasks.submit(...).wait(5)
    record.result                          # bytes; record.state == "succeeded"

Whoever opens the same file may submit and look: another Python, a C program, Node.

At least once: a function may run again although it has done its work. What it
raises is the task's failure and is tried again, up to max_attempts; Permanent
ends it at once. Durations are seconds.

Threads: functions run in threads of Python's own, which take tasks by
perf_tasks_claim; C never calls into Python. An async function runs by
asyncio.run in such a thread. Everything may be called from any thread. An await
waits in one thread of this module for all, and not in the event loop.
fork: a child opens its own Tasks.
"""
import asyncio
import concurrent.futures
import ctypes
import inspect
import threading
from ctypes import c_char, c_char_p, c_double, c_int, c_int64, c_size_t, c_uint64, c_void_p

from . import CacheError, _name, _native
from ._native import Sized, constant, lib

__all__ = ["Tasks", "TasksError", "Task", "Record", "Run", "Cancelled", "Permanent", "TaskFailed"]

_STATES = {constant("PERF_TASK_" + name.upper()): name for name in (
    "waiting", "queued", "running", "retrying", "succeeded", "failed", "cancelled", "dead")}
_ENDS = ("succeeded", "failed", "cancelled", "dead")
_EINVAL, _ECANCELED, _ELOAD = (constant("PERF_" + name) for name in (
    "EINVAL", "ECANCELED", "ELOAD"))
_ECONFLICT = constant("PERF_ECONFLICT")


class _Bytes(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("len", c_size_t)]


class _Options(Sized):
    _fields_ = [("struct_size", c_size_t), ("backend", c_char_p), ("location", c_char_p),
                ("vtable", c_void_p), ("queue_ctx", c_void_p), ("workers", c_uint64),
                ("queues", c_char_p), ("lease_ms", c_int64), ("poll_ms", c_int64),
                ("keep_ms", c_int64), ("sync", c_int64), ("max_payload", c_uint64),
                ("max_result", c_uint64), ("worker", c_char_p), ("host", c_void_p)]


class _Submit(Sized):
    _fields_ = [("struct_size", c_size_t), ("user", c_char_p), ("queue", c_char_p),
                ("id", c_char_p), ("priority", c_int64), ("delay_ms", c_int64),
                ("at_ms", c_int64), ("max_attempts", c_int64), ("timeout_ms", c_int64),
                ("deadline_ms", c_int64), ("keep_ms", c_int64), ("version", c_int64),
                ("unique_key", c_char_p), ("unique_ms", c_int64), ("limit_key", c_char_p),
                ("limit", c_int64), ("after", c_char_p), ("after_any_end", c_int64),
                ("batch", c_char_p), ("transaction", c_void_p)]


class _Id(ctypes.Structure):
    _fields_ = [("text", c_char * 72)]


class _Record(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t)] + [(name, c_char_p) for name in (
        "id", "kind", "user", "queue", "batch")] + [(name, c_int64) for name in (
            "state", "priority", "attempts", "max_attempts", "version", "created_ms", "due_ms",
            "started_ms", "ended_ms", "lease_ms")] + [
                ("worker", c_char_p), ("fraction", c_double), ("done", c_uint64),
                ("total", c_uint64), ("text", c_char_p), ("status", c_int64),
                ("error", c_char_p), ("payload", _Bytes), ("result", _Bytes),
                ("history", c_char_p)]


def _declare(name, result, *arguments):
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments


_RECORD = ctypes.POINTER(ctypes.POINTER(_Record))
_declare("perf_tasks_open", c_int, ctypes.POINTER(_Options), ctypes.POINTER(c_void_p))
_declare("perf_tasks_close", c_int, c_void_p, c_int64)
_declare("perf_tasks_submit", c_int, c_void_p, c_char_p, c_char_p, c_size_t,
         ctypes.POINTER(_Submit), ctypes.POINTER(_Id))
_declare("perf_tasks_get", c_int, c_void_p, c_char_p, _RECORD)
_declare("perf_tasks_wait", c_int, c_void_p, c_char_p, c_int64, _RECORD)
_declare("perf_task_record_free", None, ctypes.POINTER(_Record))
_declare("perf_tasks_cancel", c_int, c_void_p, c_char_p)
_declare("perf_tasks_redrive", c_int, c_void_p, c_char_p)
_declare("perf_tasks_claim", c_int, c_void_p, c_char_p, c_int64, ctypes.POINTER(c_void_p))
_declare("perf_run_end", c_int, c_void_p, c_int)
_declare("perf_run_payload", c_int, c_void_p, ctypes.POINTER(_Bytes))
_declare("perf_run_id", c_char_p, c_void_p)
_declare("perf_run_user", c_char_p, c_void_p)
_declare("perf_run_attempt", c_int64, c_void_p)
_declare("perf_run_cancelled", c_int, c_void_p)
_declare("perf_run_progress", c_int, c_void_p, c_double, c_char_p)
_declare("perf_run_result", c_int, c_void_p, c_char_p, c_size_t)
_declare("perf_run_fail", c_int, c_void_p, c_int, c_char_p)
_declare("perf_run_snooze", c_int, c_void_p, c_int64)


class TasksError(CacheError):
    """A call of the library failed. code is the PERF_E constant."""


class TaskFailed(Exception):
    """A task that was awaited ended otherwise than by success. record says how."""

    def __init__(self, record):
        self.record = record
        super().__init__("%s %s: %s" % (record.id, record.state, record.error))


class Cancelled(Exception):
    """Raised by Run.check when the function should stop."""


class Permanent(Exception):
    """To be raised by a function: trying again would not help."""


class _Snooze(Exception):
    pass


def _check(code):
    if code != _native.OK:
        raise TasksError(code, lib.perf_last_error().decode("utf-8", "replace"))


def _bytes(data):
    return ctypes.string_at(data.data, data.len) if data.len else b""


def _ms(seconds):
    return -1 if seconds is None else round(seconds * 1000)


class Record:
    """A task as its queue has it: id, kind, user, state ("succeeded", ...), attempts, fraction,
    text, error, payload, result, history and the rest of perf_task_record."""

    def __init__(self, raw):
        for name, kind in _Record._fields_[1:]:
            value = getattr(raw, name)
            if kind is c_char_p:
                value = (value or b"").decode("utf-8", "replace")
            setattr(self, name, _bytes(value) if kind is _Bytes else value)
        self.state = _STATES[raw.state]

    @property
    def ended(self):
        return self.state in _ENDS

    def __repr__(self):
        return "<Record %s %s %s>" % (self.kind, self.id, self.state)


class Run:
    """One run of a task, as its function sees it. Not to be kept."""

    def __init__(self, handle):
        self._handle = handle
        self.id = lib.perf_run_id(handle).decode()
        self.user = lib.perf_run_user(handle).decode()
        self.attempt = lib.perf_run_attempt(handle)

    def progress(self, fraction, text=None):
        _check(lib.perf_run_progress(self._handle, fraction,
                                     None if text is None else _name(text)))

    @property
    def cancelled(self):
        return lib.perf_run_cancelled(self._handle) != _native.OK

    def check(self):
        """Raises Cancelled when the function should stop."""
        if self.cancelled:
            raise Cancelled()

    def snooze(self, seconds):
        """Ends this run; the task runs again later, and this attempt is not counted."""
        code = lib.perf_run_snooze(self._handle, round(seconds * 1000))
        raise _Snooze(code)


class Task:
    """A task that was submitted. await it for its record, or wait()."""
    __slots__ = ("_tasks", "id", "added")

    def __init__(self, tasks, id, added):
        self._tasks, self.id = tasks, id
        self.added = added  # False: the id or unique_key was there already

    def wait(self, timeout=None):
        """Its record, once it has succeeded; otherwise TaskFailed. TasksError: timed out."""
        return self._success(self._tasks.wait(self.id, timeout))

    def __await__(self):
        return self._wait().__await__()

    async def _wait(self):
        return self._success(await asyncio.wrap_future(self._tasks._future(self.id)))

    @staticmethod
    def _success(record):
        if record.state != "succeeded":
            raise TaskFailed(record)
        return record

    def cancel(self):
        return self._tasks.cancel(self.id)


class Tasks:
    """A queue of tasks in a SQLite file, or as backend and options say (perf_tasks_options)."""
    CLAIM = 0.2  # seconds; how long a stop may take to be noticed
    WATCH = 0.02  # from one look at what is awaited to the next

    def __init__(self, location=None, *, backend=None, workers=2, **options):
        self._handle = None
        known = {name for name, kind in _Options._fields_ if kind in (c_int64, c_uint64)}
        unknown = set(options) - known
        if unknown:
            raise TypeError("unknown option: %s" % ", ".join(sorted(unknown)))
        raw = _Options(location=None if location is None else _name(str(location)),
                       backend=None if backend is None else _name(backend), **options)
        handle = c_void_p()
        _check(lib.perf_tasks_open(ctypes.byref(raw), ctypes.byref(handle)))
        self._handle = handle.value
        self._workers = workers
        self._functions = {}
        self._stop = threading.Event()
        self._threads = []
        self._awaited = {}  # id: futures
        self._changed = threading.Condition()
        self._watcher = None

    def _usable(self):
        if self._handle is None:
            raise ValueError("the queue is closed")
        return self._handle

    # Functions, and the threads that run them.

    def task(self, kind, *, max_attempts=0):
        """A decorator: tasks of kind are run by the function (run, payload)."""
        def register(function):
            if kind in self._functions:
                raise ValueError("kind %s has a function already" % kind)
            self._functions[kind] = (function, max_attempts)
            return function
        return register

    def start(self):
        """Begins to work, each kind in threads of its own, workers of them."""
        if self._threads:
            raise ValueError("it works already")
        self._stop.clear()
        for kind, (function, _) in self._functions.items():
            for _ in range(self._workers):
                thread = threading.Thread(target=self._work, args=(kind, function), daemon=True,
                                          name="perf-" + kind)
                self._threads.append(thread)
                thread.start()

    def stop(self):
        """Claims no more, and waits for what runs. Not from inside a function of a task."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _work(self, kind, function):
        while not self._stop.is_set():
            try:
                self.run_one(kind, function, self.CLAIM)
            except TasksError:  # the queue is away
                self._stop.wait(1)

    def run_one(self, kind, function=None, timeout=0):
        """Runs one task of kind in this thread: for a loop of your own. False: there was none."""
        function = function or self._functions[kind][0]
        out = c_void_p()
        code = lib.perf_tasks_claim(self._usable(), _name(kind), _ms(timeout), ctypes.byref(out))
        if code == _native.MISS:
            return False
        _check(code)
        try:
            status = self._run(out, function)
        except BaseException:  # the program is being ended: it is somebody else's turn
            lib.perf_run_end(out, _ELOAD)
            raise
        code = lib.perf_run_end(out, status)
        if code != _ECONFLICT:  # somebody else has it; nothing is to be done
            _check(code)
        return True

    @staticmethod
    def _run(handle, function):
        """The status of the run. Whatever is raised is the task's failure."""
        try:
            payload = _Bytes()
            lib.perf_run_payload(handle, ctypes.byref(payload))
            result = function(Run(handle), _bytes(payload))
            if inspect.iscoroutine(result):
                result = asyncio.run(result)
            if result is not None:
                data = result.encode() if isinstance(result, str) else bytes(result)
                return lib.perf_run_result(handle, data, len(data))
            return _native.OK
        except _Snooze as snooze:
            return snooze.args[0]
        except Cancelled:
            return lib.perf_run_cancelled(handle) or _ECANCELED
        except Exception as error:
            why = ("%s: %s" % (type(error).__name__, error)).encode("utf-8", "replace")
            return lib.perf_run_fail(handle, _EINVAL if isinstance(error, Permanent) else _ELOAD,
                                     why.replace(b"\0", b"?"))

    # Submit and look.

    def submit(self, kind, payload=b"", *, delay=None, **options):
        """A Task. options: user, queue, id, priority, max_attempts, unique_key, after and the
        rest of perf_submit_options. With an id or unique_key that is there, the first one's."""
        data = payload.encode() if isinstance(payload, str) else bytes(payload)
        if delay is not None:
            options["delay_ms"] = round(delay * 1000)
        if kind in self._functions:
            options.setdefault("max_attempts", self._functions[kind][1])
        fields = dict(_Submit._fields_)
        for name, value in options.items():
            if name in ("struct_size", "transaction") or name not in fields:
                raise TypeError("unknown option: " + name)
            if fields[name] is c_char_p:
                options[name] = _name(value)
        raw, out = _Submit(**options), _Id()
        code = lib.perf_tasks_submit(self._usable(), _name(kind), data, len(data),
                                     ctypes.byref(raw), ctypes.byref(out))
        if code != _native.EEXISTS:
            _check(code)
        return Task(self, out.text.decode(), code == _native.OK)

    def _record(self, code, out):
        if code == _native.MISS:
            return None
        _check(code)
        try:
            return Record(out.contents)
        finally:
            lib.perf_task_record_free(out)

    def get(self, id):
        """The Record, or None when there is none any more."""
        out = ctypes.POINTER(_Record)()
        return self._record(lib.perf_tasks_get(self._usable(), _name(id), ctypes.byref(out)), out)

    def wait(self, id, timeout=None):
        """The Record once the task has ended, however; None: there is none. TasksError."""
        out = ctypes.POINTER(_Record)()
        return self._record(lib.perf_tasks_wait(self._usable(), _name(id), _ms(timeout),
                                                ctypes.byref(out)), out)

    def cancel(self, id):
        """False: there is none, or it has ended."""
        code = lib.perf_tasks_cancel(self._usable(), _name(id))
        if code == _native.MISS:
            return False
        _check(code)
        return True

    # What is awaited: one thread waits for the oldest a little, then looks at the others.

    def _future(self, id):
        future = concurrent.futures.Future()
        with self._changed:
            self._usable()
            self._awaited.setdefault(id, []).append(future)
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._watch, daemon=True,
                                                 name="perf-await")
                self._watcher.start()
            self._changed.notify()
        return future

    def _watch(self):
        while True:
            with self._changed:
                while not self._awaited and self._handle is not None:
                    self._changed.wait()
                if self._handle is None:
                    return
                ids = list(self._awaited)
            try:
                for place, id in enumerate(ids):
                    self._look(id, self.WATCH if place == 0 else 0)
            except ValueError:  # closed meanwhile
                return

    def _look(self, id, timeout):
        record = error = None
        try:
            record = self.wait(id, timeout)
            if record is None:
                error = TasksError(_native.MISS, "there is no task %s any more" % id)
        except TasksError as problem:
            if problem.code == _native.ETIMEDOUT:
                with self._changed:  # who gave up need not be waited for
                    left = [f for f in self._awaited.get(id, ()) if not f.cancelled()]
                    if left:
                        self._awaited[id] = left
                    else:
                        self._awaited.pop(id, None)
                return
            error = problem
        with self._changed:
            futures = self._awaited.pop(id, ())
        for future in futures:
            if future.set_running_or_notify_cancel():
                if error is None:
                    future.set_result(record)
                else:
                    future.set_exception(error)

    def close(self, drain=10):
        """Waits for what runs, and lets go. What is awaited ends with an error. Idempotent."""
        if self._handle is None:
            return
        self.stop()
        with self._changed:
            handle, self._handle = self._handle, None
            left, self._awaited = self._awaited, {}
            watcher = self._watcher
            self._changed.notify_all()
        for futures in left.values():
            for future in futures:
                if future.set_running_or_notify_cancel():
                    future.set_exception(ValueError("the queue was closed"))
        if watcher is not None:
            watcher.join()
        _check(lib.perf_tasks_close(handle, _ms(drain)))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
