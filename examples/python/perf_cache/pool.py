# SPDX-License-Identifier: MIT
"""libperf's pool for Python: connections of any kind, borrowed and given back.

    from perf_cache.pool import Pool

    pool = Pool(open=lambda key, timeout: psycopg2.connect(dsn), close=lambda c: c.close(),
                fd=lambda c: c.fileno(), max_size=8)

    with pool.acquire(timeout=0.05) as connection:
        connection.cursor().execute("...")

A connection is any object. The with block gives it back at its end; when an
exception leaves the block, the connection is closed instead, for nobody knows
in what state it is (discard_on_error=False: it goes back all the same).

Threads: everything may be called from any thread. The pool is opened with
no_threads, so open, close and the others run in the thread that acquires or
releases, and what they raise is raised there. What the library's thread would
do in time (idle and old connections, keep-alive) is done now and then by
acquire; a process that is idle for long may call maintain(). Times are seconds.
fork: a child opens its own Pool.
"""
import ctypes
import itertools
import threading
import time

from . import CacheError, _name, _native
from ._native import lib

__all__ = ["Pool", "PoolError", "Busy"]


class PoolError(CacheError):
    """A call of the pool failed. code is the PERF_E constant."""


class Busy(PoolError):
    """No connection came free in time, or too many wait already."""


def _fail(code):
    detail = lib.perf_last_error().decode("utf-8", "replace")
    raise (Busy if code in (_native.ETIMEDOUT, _native.EBUSY) else PoolError)(code, detail)


def _check(code):
    if code != _native.OK:
        _fail(code)


def _ms(seconds):
    """Seconds to milliseconds; None: for ever."""
    if seconds is None:
        return -1
    if seconds < 0:
        raise ValueError("a timeout is a number of seconds of 0 or more, or None")
    return round(seconds * 1000)


class Borrowed:
    """A connection that is out. As a context manager it is the connection itself."""
    __slots__ = ("_pool", "_number", "connection")

    def __init__(self, pool, number, connection):
        self._pool, self._number, self.connection = pool, number, connection

    def _end(self, function):
        number, self._number = self._number, None
        if number is None:
            raise ValueError("this connection was given back already")
        self.connection = None
        self._pool._end(function, number)

    def release(self):
        """Gives it back."""
        self._end(lib.perf_pool_release)

    def discard(self):
        """It is broken: it is closed."""
        self._end(lib.perf_pool_discard)

    def detach(self):
        """Takes it out of the pool for good and returns it; the caller closes it."""
        connection = self.connection
        number = self._number
        self._end(lib.perf_pool_detach)
        self._pool._connections.pop(number, None)
        return connection

    def __enter__(self):
        return self.connection

    def __exit__(self, kind, error, trace):
        if self._number is None:
            return  # given back inside the block
        if kind is not None and self._pool._discard_on_error:
            self.discard()
        else:
            self.release()


class Pool:
    """open(key, timeout) returns a connection or raises; key is "" without one.

    close(connection) ends it; default: its own close(). validate(connection, timeout) and
    reset(connection) return a false value or raise if it is no good; None counts as good.
    fd(connection) returns its socket, or -1. Further options are the fields of
    perf_pool_options, in its units: max_size=8, min_idle=2, max_lifetime_ms=60000.
    """
    UPKEEP = 1.0  # seconds from one upkeep to the next

    def __init__(self, open, close=None, *, validate=None, reset=None, fd=None,
                 discard_on_error=True, **options):
        self._handle = None
        self._discard_on_error = discard_on_error
        self._open, self._close = open, close or (lambda connection: connection.close())
        self._validate, self._reset, self._fd = validate, reset, fd
        self._connections = {}            # C knows a connection by its number
        self._numbers = itertools.count(1)
        self._names = {}                  # who: C keeps the pointer
        self._raised = threading.local()  # what a callback raised in this thread
        self._upkeep_at = time.monotonic() + self.UPKEEP
        known = {name for name, _ in _native.PoolOptions._fields_} - {
            "struct_size", "vtable", "ctx", "host", "no_threads"}
        unknown = set(options) - known
        if unknown:
            raise TypeError("unknown option: %s (known: %s)" % (
                ", ".join(sorted(unknown)), ", ".join(sorted(known))))
        # Kept as long as the pool: C has their addresses.
        self._vtable = _native.ConnectionVtable(
            open=_native.CONN_OPEN_FN(self._on_open), close=_native.CONN_CLOSE_FN(self._on_close))
        if validate:
            self._vtable.validate = _native.CONN_VALIDATE_FN(self._on_validate)
        if reset:
            self._vtable.reset = _native.CONN_RESET_FN(self._on_reset)
        if fd:
            self._vtable.fd = _native.CONN_RESET_FN(self._on_fd)
        raw = _native.PoolOptions(vtable=ctypes.pointer(self._vtable), no_threads=1, **options)
        handle = ctypes.c_void_p()
        self._call(lib.perf_pool_open, ctypes.byref(raw), ctypes.byref(handle))
        self._handle = handle.value

    # What C calls, in the thread that called C. No exception may cross it.

    def _guard(self, function, *arguments):
        try:
            return function(*arguments)
        except BaseException as error:
            self._raised.error = error
            return _native.EIO

    def _on_open(self, _, key, timeout_ms, out):
        def make():
            connection = self._open(key.decode("utf-8", "surrogateescape"), timeout_ms / 1000)
            number = next(self._numbers)
            self._connections[number] = connection
            out[0] = number
            return _native.OK
        code = self._guard(make)
        return _native.EUNAVAILABLE if code == _native.EIO else code

    def _on_close(self, _, number):
        self._guard(self._close, self._connections.pop(number))

    def _on_validate(self, _, number, timeout_ms):
        return self._guard(lambda: self._answer(
            self._validate(self._connections[number], timeout_ms / 1000)))

    def _on_reset(self, _, number):
        return self._guard(lambda: self._answer(self._reset(self._connections[number])))

    def _on_fd(self, _, number):
        descriptor = self._guard(lambda: self._fd(self._connections[number]))
        return descriptor if descriptor is not None and descriptor >= 0 else -1

    @staticmethod
    def _answer(good):
        return _native.OK if good is None or good else _native.EIO

    def _call(self, function, *arguments):
        self._raised.error = None
        code = function(*arguments)
        error, self._raised.error = self._raised.error, None
        if code == _native.OK:
            return
        try:
            _fail(code)
        except PoolError as failure:
            raise failure from error

    def _usable(self):
        if self._handle is None:
            raise ValueError("the pool is closed")
        return self._handle

    # Borrowing.

    def acquire(self, timeout=None, *, key=None, who=None):
        """A Borrowed, to be used by with; Busy when none came in timeout seconds.

        A timeout of 0 takes an idle connection or none. who names the borrower in holders().
        """
        handle, out = self._usable(), ctypes.c_void_p()
        if time.monotonic() >= self._upkeep_at:
            self.maintain()
        if who is not None:
            who = self._names.setdefault(who, _name(who))
        if key is None:
            self._call(lib.perf_pool_acquire_as, handle, who, _ms(timeout), ctypes.byref(out))
        else:
            self._call(lib.perf_pool_acquire_key, handle, _name(key), who, _ms(timeout),
                       ctypes.byref(out))
        return Borrowed(self, out.value, self._connections[out.value])

    def _end(self, function, number):
        self._call(function, self._usable(), number)
        if function is lib.perf_pool_discard or self._reset:
            self.maintain()  # what is not to be kept is closed now: nobody else does

    # Control and figures.

    def maintain(self):
        """Closes what is too old, idle for too long or broken; validates; refills to min_idle."""
        self._upkeep_at = time.monotonic() + self.UPKEEP
        self._call(lib.perf_pool_maintain, self._usable())

    def evict_all(self):
        """Every connection open now is closed: idle ones at once, others when they come back."""
        self._call(lib.perf_pool_evict_all, self._usable())

    def resize(self, min_idle, max_size):
        self._call(lib.perf_pool_resize, self._usable(), min_idle, max_size)

    def stats(self):
        """A dict of the fields of perf_pool_stats."""
        stats = _native.PoolStats()
        _check(lib.perf_pool_get_stats(self._usable(), ctypes.byref(stats)))
        return {name: getattr(stats, name) for name in _native.POOL_STATS}

    def holders(self):
        """A list of (who, key, seconds) of the connections that are out."""
        found, holder = [], _native.PoolHolder()
        while lib.perf_pool_get_holder(self._usable(), len(found),
                                       ctypes.byref(holder)) == _native.OK:
            found.append((holder.who and holder.who.decode(), holder.key.decode(),
                          holder.held_ms / 1000))
        return found

    def close(self):
        """Closes all connections. Busy while some are out, and then it may be called again.
        No other call may be under way. Idempotent."""
        if self._handle is not None:
            self._call(lib.perf_pool_close, self._handle)
            self._handle = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
