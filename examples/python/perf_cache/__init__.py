# SPDX-License-Identifier: MIT
"""libperf's cache for Python: ctypes only, no compiler, no dependency.

    import perf_cache

    cache = perf_cache.Cache(durable_path="/var/cache/app.db")

    @cache.cached(ttl=300, namespace="courses")
    def get_course(course_id, lang="en"):
        return database.load(course_id, lang)

    get_course(42)                  # runs
    get_course(42)                  # from memory; after a restart, from disk
    get_course.forget(42)           # the next call runs again

Threads: everything may be called from any thread. A function that many threads
ask at once for the same arguments runs once (single flight), in one of them.
fork: a child opens its own Cache. Times are seconds, as Python has them.
"""
import atexit
import ctypes
import functools
import inspect
import itertools
import threading
import weakref

from . import _native
from ._codec import encode_key, serializer as _serializer, shorten
from ._native import lib

__all__ = ["Cache", "CacheError", "LoadError", "FOREVER", "cached", "set_default", "get_default",
           "encode_key", "version"]

FOREVER = float("inf")


class CacheError(Exception):
    """A call of the library failed. code is the PERF_E constant."""

    def __init__(self, code, detail=None):
        self.code = code
        super().__init__(detail or lib.perf_strerror(code).decode())


class LoadError(CacheError):
    """The load that this call waited for failed on another thread, or failed before."""


def version():
    """The version of the loaded library, such as "1.0.0"."""
    return lib.perf_version().decode()


def _fail(code):
    detail = lib.perf_last_error().decode("utf-8", "replace")
    raise (LoadError if code == _native.ELOAD else CacheError)(code, detail)


def _check(code):
    if code != _native.OK:
        _fail(code)


def _found(code):
    if code == _native.MISS:
        return False
    _check(code)
    return True


def _ms(seconds):
    """Seconds to milliseconds; None means the namespace's default."""
    if seconds is None:
        return _native.TTL_DEFAULT
    if seconds == FOREVER:
        return _native.TTL_FOREVER
    if not seconds > 0:
        raise ValueError("a time to live is a positive number of seconds, None or FOREVER")
    return max(1, round(seconds * 1000))


def _name(text):
    """A namespace, user, tag or pattern for C, which would stop at a NUL."""
    if text is None:
        return None
    data = text.encode() if isinstance(text, str) else bytes(text)
    if b"\0" in data:
        raise ValueError("a name must not contain a NUL character")
    return data


def _key(key):
    return key.encode() if isinstance(key, str) else bytes(key)


def _take(handle):
    """The bytes of a perf_value, which is let go."""
    try:
        return ctypes.string_at(lib.perf_value_data(handle), lib.perf_value_size(handle))
    finally:
        lib.perf_value_release(handle)


# A load under way. C knows it by a number: a context that C copies for the background (a
# refresh, or a load with a time limit) is one more number for the same load, so nothing is
# freed while C may use it, and the caller finds what was raised wherever it ran.

class _Load:
    __slots__ = ("make", "error")

    def __init__(self, make):
        self.make = make      # returns the bytes to store, or None for "no such thing"
        self.error = None     # what make raised


_loads = {}
_numbers = itertools.count(1)


@_native.LOAD_FN
def _run_load(load, number):
    current = _loads[number]
    try:
        data = current.make()
        if data is None:
            return _native.MISS
        return lib.perf_load_set(load, data, len(data))
    except BaseException as error:  # no exception may cross C; the caller gets it back
        current.error = error
        return _native.ELOAD


@_native.CLONE_FN
def _clone_load(number):
    copy = next(_numbers)
    _loads[copy] = _loads[number]
    return copy


@_native.FREE_FN
def _free_load(number):
    _loads.pop(number, None)


_open_caches = weakref.WeakSet()


@atexit.register
def _close_all():
    """Background threads must not call into an interpreter that is going away."""
    for cache in list(_open_caches):
        cache.close()


class Cache:
    """A cache: memory, and below it a durable file if durable_path is given.

    memory_max_bytes, durable_max_bytes: bounds (64 MiB, 1 GiB by default).
    workers: most background threads (2). serializer: "json" (default, safe to
    read), "bytes", "pickle" (any object, but only for stores that nobody else
    can write: reading a pickle can run code), or an object with dumps and loads.
    """

    def __init__(self, durable_path=None, *, memory_max_bytes=0, memory_max_entries=0,
                 durable_max_bytes=0, workers=0, serializer="json"):
        self._handle = None
        self._codec = _serializer(serializer)
        options = _native.CacheOptions(
            memory_max_bytes=memory_max_bytes, memory_max_entries=memory_max_entries,
            durable_max_bytes=durable_max_bytes, workers=workers,
            durable_path=None if durable_path is None else _name(str(durable_path)))
        handle = ctypes.c_void_p()
        _check(lib.perf_cache_open(ctypes.byref(options), ctypes.byref(handle)))
        self._handle = handle.value
        self._using = 0
        self._idle = threading.Condition()
        _open_caches.add(self)

    # Open and close. The C handle must not be closed under a call, so calls are counted.

    def close(self):
        """Writes what is pending and lets go; waits for calls on other threads. Idempotent."""
        with self._idle:
            handle, self._handle = self._handle, None
            while handle is not None and self._using:
                self._idle.wait()
        _open_caches.discard(self)
        if handle is not None:
            _check(lib.perf_cache_close(handle))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def __del__(self):
        if getattr(self, "_handle", None) is not None:
            lib.perf_cache_close(self._handle)

    def _call(self, function, *arguments):
        with self._idle:
            if self._handle is None:
                raise ValueError("the cache is closed")
            handle = self._handle
            self._using += 1
        try:
            return function(handle, *arguments)
        finally:
            with self._idle:
                self._using -= 1
                if not self._using and self._handle is None:
                    self._idle.notify_all()

    # Set and get.

    def set(self, namespace, key, value, ttl=None, *, user=None, stale=None, tags=(),
            if_absent=False):
        """Stores value. ttl, stale: seconds. Returns False if if_absent and it was there."""
        key, data = _key(key), self._codec.dumps(value)
        options, keep = self._set_options(ttl, stale, tags)
        options.mode = _native.IF_ABSENT if if_absent else 0
        code = self._call(lib.perf_cache_put, _name(namespace), _name(user), key, len(key), data,
                          len(data), ctypes.byref(options), None)
        del keep
        if if_absent and code == _native.EEXISTS:
            return False
        _check(code)
        return True

    def get(self, namespace, key, default=None, *, user=None):
        """The value, or default on a miss."""
        key, value = _key(key), ctypes.c_void_p()
        code = self._call(lib.perf_cache_get, _name(namespace), _name(user), key, len(key),
                          ctypes.byref(value))
        return self._codec.loads(_take(value)) if _found(code) else default

    def get_many(self, namespace, keys, *, user=None):
        """A dict of those keys that were found: one call of the library for all."""
        keys = list(keys)
        raw = [_key(key) for key in keys]
        items = (_native.Lookup * len(raw))()
        for item, key in zip(items, raw):
            item.key, item.key_len = key, len(key)
        _check(self._call(lib.perf_cache_get_many, _name(namespace), _name(user), items,
                          len(raw), None))
        taken = [_take(item.value) if item.status == _native.OK else None for item in items]
        for item in items:
            _found(item.status)
        return {key: self._codec.loads(data) for key, data in zip(keys, taken)
                if data is not None}

    def delete(self, namespace, key, *, user=None):
        """Forgets one key. False if memory did not have it."""
        key = _key(key)
        return _found(self._call(lib.perf_cache_delete, _name(namespace), _name(user), key,
                                 len(key)))

    def incr(self, namespace, key, delta=1, *, initial=0, ttl=None, user=None):
        """Adds to a counter and returns the sum."""
        key, total = _key(key), ctypes.c_int64()
        _check(self._call(lib.perf_cache_incr, _name(namespace), _name(user), key, len(key),
                          delta, initial, _ms(ttl), ctypes.byref(total)))
        return total.value

    def get_or_load(self, namespace, key, make, ttl=None, *, user=None, stale=None, tags=(),
                    wait=0):
        """The value, made by make() on a miss: once for all threads that ask for the key.

        What make raises is raised here, in the thread that ran it; the others get LoadError.
        With a stale window make may run again later on a background thread.
        """
        codec = self._codec
        return codec.loads(self._load(namespace, key, lambda: codec.dumps(make()), ttl, user,
                                      stale, tags, wait))

    def _load(self, namespace, key, make, ttl, user, stale, tags, wait):
        key, value = _key(key), ctypes.c_void_p()
        options, keep = self._set_options(ttl, stale, tags)
        current, number = _Load(make), next(_numbers)
        loader = _native.Loader(load=_run_load, ctx=number, ctx_clone=_clone_load,
                                ctx_free=_free_load, wait_ms=round(wait * 1000),
                                set=ctypes.pointer(options))
        _loads[number] = current
        try:
            code = self._call(lib.perf_cache_get_or_load, _name(namespace), _name(user), key,
                              len(key), ctypes.byref(loader), ctypes.byref(value))
            del keep
            if code == _native.OK:
                return _take(value)
            if current.error is not None:
                raise current.error
            _fail(code)
        finally:
            _loads.pop(number, None)
            current.error = None  # no cycle of traceback, frame and load

    @staticmethod
    def _set_options(ttl, stale, tags):
        """The C options, and what has to live as long as they do."""
        names = [_name(tag) for tag in tags]
        array = (ctypes.c_char_p * len(names))(*names)
        options = _native.SetOptions(ttl_ms=_ms(ttl),
                                     stale_ms=round(stale * 1000) if stale else 0)
        if names:
            options.tags = ctypes.cast(array, ctypes.POINTER(ctypes.c_char_p))
            options.tag_count = len(names)
        return options, array

    # Invalidation: each is one mark, however many entries it kills.

    def invalidate_namespace(self, namespace):
        _check(self._call(lib.perf_cache_invalidate_namespace, _name(namespace)))

    def invalidate_user(self, user):
        _check(self._call(lib.perf_cache_invalidate_user, _name(user)))

    def invalidate_tag(self, tag):
        _check(self._call(lib.perf_cache_invalidate_tag, _name(tag)))

    def invalidate_pattern(self, namespace, pattern):
        """Glob over keys; namespace None means all namespaces."""
        _check(self._call(lib.perf_cache_invalidate_pattern, _name(namespace), _name(pattern)))

    def clear(self):
        _check(self._call(lib.perf_cache_clear))

    # Policy, statistics, upkeep.

    def configure(self, namespace, **policy):
        """Sets a namespace's policy: the fields of perf_namespace_options, in its units."""
        known = {name for name, _ in _native.NamespaceOptions._fields_} - {"struct_size"}
        unknown = set(policy) - known
        if unknown:
            raise TypeError("unknown policy: %s (known: %s)" % (
                ", ".join(sorted(unknown)), ", ".join(sorted(known))))
        options = _native.NamespaceOptions(**policy)
        _check(self._call(lib.perf_cache_configure_namespace, _name(namespace),
                          ctypes.byref(options)))

    def stats(self, namespace=None):
        """A dict of counters, of one namespace or of all; {} for an unknown namespace."""
        stats = _native.CacheStats()
        if not _found(self._call(lib.perf_cache_get_stats, _name(namespace),
                                 ctypes.byref(stats))):
            return {}
        return {name: getattr(stats, name) for name in _native.STATS}

    def flush(self):
        """Returns when everything set so far is durable."""
        _check(self._call(lib.perf_cache_flush))

    def cached(self, function=None, **options):
        """@cache.cached(...): as perf_cache.cached, in this cache."""
        return cached(function, cache=self, **options)


_default = None


def set_default(cache):
    """Names the cache of functions that are decorated without one. Returns the one before."""
    global _default
    before, _default = _default, cache
    return before


def get_default():
    return _default


def cached(function=None, *, ttl=None, namespace=None, key=None, stale=None, tags=(), user=None,
           wait=0, serializer=None, cache=None):
    """Makes a function remember its results.

    ttl: seconds of life, None (the namespace's), or FOREVER.
    stale: seconds after that in which the old result is served while one call, in
        the background, makes the new one.
    namespace: default: the function's module and name.
    key: key(*args, **kwargs) -> str or bytes. By default the arguments make the key:
        None, bool, int, float, str, bytes, and lists, tuples, sets, dicts of these;
        other types raise TypeError. Methods need a key, for self is such a type.
    tags: names to invalidate by. user: user(*args, **kwargs) -> str or None.
    wait: longest that a call waits for another's load, seconds; 0: as long as it takes.
    serializer: as for Cache, for this function alone. Every caller gets what was
        stored, decoded anew: with "json" a tuple comes back as a list, for the first
        caller too.
    cache: default: the one of set_default(); with none, the function simply runs.

    The function gets .forget(*args, **kwargs), which forgets one result, .forget_all(),
    and .__wrapped__, the original. Results and exceptions pass through unchanged;
    exceptions are not remembered (see configure(error_ttl_ms=...)).
    """
    if function is None:
        return functools.partial(cached, ttl=ttl, namespace=namespace, key=key, stale=stale,
                                 tags=tags, user=user, wait=wait, serializer=serializer,
                                 cache=cache)
    if inspect.iscoroutinefunction(function):
        raise TypeError("@cached is for plain functions; call a cached one by "
                        "asyncio.to_thread, or use get and set around your await")
    name = "%s.%s" % (function.__module__, function.__qualname__)
    space = name if namespace is None else namespace
    if len(_name(space)) > 255:
        raise ValueError("the namespace %r is longer than 255 bytes: give one" % space)
    signature = inspect.signature(function)
    own = None if serializer is None else _serializer(serializer)
    _ms(ttl)

    def make_key(args, kwargs):
        if key is not None:
            return shorten(_key(key(*args, **kwargs)))
        if kwargs:  # f(1, lang="en") and f(1, "en") are one call
            bound = signature.bind(*args, **kwargs)
            args, kwargs = bound.args, bound.kwargs
        return encode_key(name, args, kwargs)

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        where = cache if cache is not None else _default
        if where is None:
            return function(*args, **kwargs)
        codec = own or where._codec
        who = user(*args, **kwargs) if user else None
        return codec.loads(where._load(
            space, make_key(args, kwargs), lambda: codec.dumps(function(*args, **kwargs)), ttl,
            who, stale, tags, wait))

    def forget(*args, **kwargs):
        where = cache if cache is not None else _default
        who = user(*args, **kwargs) if user else None
        return where is not None and where.delete(space, make_key(args, kwargs), user=who)

    def forget_all():
        where = cache if cache is not None else _default
        if where is None:
            return
        if key is None:  # the keys begin with the function's name
            quoted = "".join("\\" + c if c in "\\*?[]" else c
                             for c in encode_key(name).decode())
            where.invalidate_pattern(space, quoted + "*")
        else:
            where.invalidate_namespace(space)

    wrapper.forget = forget
    wrapper.forget_all = forget_all
    return wrapper
