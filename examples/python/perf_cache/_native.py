# SPDX-License-Identifier: MIT
"""Finds libperf and describes its C interface to ctypes. Private: use perf_cache.

Every call of the library here releases the GIL while it runs, and a callback
takes it again, on whatever thread it comes.
"""
import ctypes
import ctypes.util
import os
import subprocess
from ctypes import (CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_size_t, c_uint64,
                    c_void_p)

SONAME = "libperf.so.1"
MAJOR = 1


def _candidates():
    """Where the library may be, best first: named, beside this tree, installed."""
    named = os.environ.get("PERF_LIBRARY")
    if named:
        yield named  # and nothing else: a wrong name should not be papered over
        return
    tree = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(
        os.path.abspath(__file__)))))
    beside = os.path.join(tree, "lib", SONAME)
    if os.path.exists(beside):
        yield beside
    try:
        libdir = subprocess.run(["pkg-config", "--variable=libdir", "libperf"],
                                capture_output=True, text=True, check=True).stdout.strip()
        if libdir:
            yield os.path.join(libdir, SONAME)
    except (OSError, subprocess.CalledProcessError):
        pass
    yield SONAME  # the loader's own search: LD_LIBRARY_PATH, ldconfig


def _load():
    problems = []
    for name in _candidates():
        try:
            found = ctypes.CDLL(name)
            found.perf_version_number.restype = c_int
            found.perf_version_number.argtypes = []
            if found.perf_version_number() // 1000000 != MAJOR:
                raise OSError("it is another major version")
            return found
        except (OSError, AttributeError) as problem:
            problems.append("%s: %s" % (name, problem))
    raise ImportError("libperf was not found; build or install it, or set PERF_LIBRARY to the "
                      "path of %s (tried %s)" % (SONAME, "; ".join(problems)))


class Sized(Structure):
    """An options struct: its first field is its own size."""

    def __init__(self, **fields):
        super().__init__(struct_size=ctypes.sizeof(self), **fields)


class CacheOptions(Sized):
    _fields_ = [("struct_size", c_size_t), ("memory_max_bytes", c_uint64),
                ("memory_max_entries", c_uint64), ("memory_max_weight", c_uint64),
                ("memory_shards", c_uint64), ("durable_path", c_char_p),
                ("durable_max_bytes", c_uint64), ("tiers", c_void_p), ("tier_count", c_size_t),
                ("workers", c_uint64), ("max_namespaces", c_uint64), ("host", c_void_p)]


class SetOptions(Sized):
    _fields_ = [("struct_size", c_size_t), ("ttl_ms", c_int64), ("stale_ms", c_int64),
                ("mode", c_int64), ("version", c_uint64), ("weight", c_uint64),
                ("tags", POINTER(c_char_p)), ("tag_count", c_size_t)]


class NamespaceOptions(Sized):
    _fields_ = [("struct_size", c_size_t)] + [(name, c_int64) for name in (
        "ttl_ms", "jitter_percent", "stale_ms", "negative_ttl_ms", "error_ttl_ms")] + [
        ("max_value_bytes", c_uint64), ("tiers", c_uint64)] + [(name, c_int64) for name in (
            "soft_timeout_ms", "hard_timeout_ms", "early_refresh_permille",
            "refresh_ahead_percent")]


LOAD_FN = CFUNCTYPE(c_int, c_void_p, c_void_p)
# A callback of ctypes cannot return a c_void_p as an int object, so: an unsigned of its size.
CLONE_FN = CFUNCTYPE(c_size_t, c_void_p)
FREE_FN = CFUNCTYPE(None, c_void_p)


class Loader(Sized):
    _fields_ = [("struct_size", c_size_t), ("load", LOAD_FN), ("load_many", c_void_p),
                ("ctx", c_void_p), ("ctx_clone", CLONE_FN), ("ctx_free", FREE_FN),
                ("ctx_is_static", c_int64), ("wait_ms", c_int64), ("set", POINTER(SetOptions))]


class Lookup(Structure):
    _fields_ = [("key", c_char_p), ("key_len", c_size_t), ("buf", c_void_p), ("cap", c_size_t),
                ("len", c_size_t), ("value", c_void_p), ("status", c_int64)]


STATS = ("hits", "memory_hits", "misses", "stale_hits", "negative_hits", "loads",
         "load_failures", "load_ns", "loads_suppressed", "loads_discarded", "refreshes", "sets",
         "deletes", "evictions", "expirations", "invalidations", "rejections", "collisions",
         "damaged", "entries", "bytes", "max_bytes")


class CacheStats(Sized):
    _fields_ = [("struct_size", c_size_t)] + [(name, c_uint64) for name in STATS]


CONN_OPEN_FN = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int64, POINTER(c_void_p))
CONN_CLOSE_FN = CFUNCTYPE(None, c_void_p, c_void_p)
CONN_VALIDATE_FN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int64)
CONN_RESET_FN = CFUNCTYPE(c_int, c_void_p, c_void_p)


class ConnectionVtable(Sized):
    _fields_ = [("struct_size", c_size_t), ("open", CONN_OPEN_FN), ("close", CONN_CLOSE_FN),
                ("validate", CONN_VALIDATE_FN), ("reset", CONN_RESET_FN), ("fd", CONN_RESET_FN)]


class PoolOptions(Sized):
    _fields_ = [("struct_size", c_size_t), ("vtable", POINTER(ConnectionVtable)),
                ("ctx", c_void_p), ("max_size", c_uint64), ("min_idle", c_uint64),
                ("start", c_int64), ("open_timeout_ms", c_int64), ("max_opening", c_uint64),
                ("open_interval_ms", c_int64), ("max_lifetime_ms", c_int64),
                ("idle_timeout_ms", c_int64), ("validate_after_ms", c_int64),
                ("validate_timeout_ms", c_int64), ("keep_alive_ms", c_int64),
                ("max_waiting", c_uint64), ("leak_ms", c_int64), ("max_keys", c_uint64),
                ("max_total", c_uint64), ("adaptive", c_int64), ("socket_trust_ms", c_int64),
                ("no_threads", c_int64), ("host", c_void_p)]


POOL_STATS = ("max_size", "size", "idle", "in_use", "opening", "waiting", "peak_in_use", "keys", "acquires",
              "reused", "waits", "timeouts", "rejected", "opened", "open_failures", "validations",
              "closed_idle", "closed_lifetime", "closed_by_peer", "closed_invalid",
              "closed_discarded", "closed_evicted", "detached", "leaks", "wait_mean_ns",
              "wait_p50_ns", "wait_p90_ns", "wait_p99_ns", "wait_p999_ns", "wait_max_ns",
              "open_mean_ns", "open_p99_ns")


class PoolStats(Sized):
    _fields_ = [("struct_size", c_size_t)] + [(name, c_uint64) for name in POOL_STATS]


class PoolHolder(Sized):
    _fields_ = [("struct_size", c_size_t), ("who", c_char_p), ("key", c_char_p),
                ("thread", c_int64), ("held_ms", c_int64), ("is_leak", c_int64),
                ("conn", c_void_p)]


lib = _load()
_WHERE = [c_void_p, c_char_p, c_char_p]      # cache, namespace, user
_KEY = _WHERE + [c_char_p, c_size_t]
_CALLS = {
    "perf_strerror": (c_char_p, [c_int]),
    "perf_last_error": (c_char_p, []),
    "perf_version": (c_char_p, []),
    "perf_constant": (c_int, [c_char_p, POINTER(c_int64)]),
    "perf_cache_open": (c_int, [POINTER(CacheOptions), POINTER(c_void_p)]),
    "perf_cache_close": (c_int, [c_void_p]),
    "perf_cache_set": (c_int, _KEY + [c_char_p, c_size_t, c_int64]),
    "perf_cache_put": (c_int, _KEY + [c_char_p, c_size_t, POINTER(SetOptions),
                                      POINTER(c_uint64)]),
    "perf_cache_get": (c_int, _KEY + [POINTER(c_void_p)]),
    "perf_cache_delete": (c_int, _KEY),
    "perf_cache_incr": (c_int, _KEY + [c_int64, c_int64, c_int64, POINTER(c_int64)]),
    "perf_cache_get_or_load": (c_int, _KEY + [POINTER(Loader), POINTER(c_void_p)]),
    "perf_cache_get_many": (c_int, _WHERE + [POINTER(Lookup), c_size_t, POINTER(c_size_t)]),
    "perf_value_data": (c_void_p, [c_void_p]),
    "perf_value_size": (c_size_t, [c_void_p]),
    "perf_value_release": (None, [c_void_p]),
    "perf_load_set": (c_int, [c_void_p, c_char_p, c_size_t]),
    "perf_cache_invalidate_namespace": (c_int, [c_void_p, c_char_p]),
    "perf_cache_invalidate_user": (c_int, [c_void_p, c_char_p]),
    "perf_cache_invalidate_tag": (c_int, [c_void_p, c_char_p]),
    "perf_cache_invalidate_pattern": (c_int, [c_void_p, c_char_p, c_char_p]),
    "perf_cache_clear": (c_int, [c_void_p]),
    "perf_cache_configure_namespace": (c_int, [c_void_p, c_char_p, POINTER(NamespaceOptions)]),
    "perf_cache_get_stats": (c_int, [c_void_p, c_char_p, POINTER(CacheStats)]),
    "perf_cache_flush": (c_int, [c_void_p]),
    "perf_pool_open": (c_int, [POINTER(PoolOptions), POINTER(c_void_p)]),
    "perf_pool_close": (c_int, [c_void_p]),
    "perf_pool_acquire_as": (c_int, [c_void_p, c_char_p, c_int64, POINTER(c_void_p)]),
    "perf_pool_acquire_key": (c_int, [c_void_p, c_char_p, c_char_p, c_int64, POINTER(c_void_p)]),
    "perf_pool_release": (c_int, [c_void_p, c_void_p]),
    "perf_pool_discard": (c_int, [c_void_p, c_void_p]),
    "perf_pool_detach": (c_int, [c_void_p, c_void_p]),
    "perf_pool_evict_all": (c_int, [c_void_p]),
    "perf_pool_resize": (c_int, [c_void_p, c_uint64, c_uint64]),
    "perf_pool_maintain": (c_int, [c_void_p]),
    "perf_pool_get_stats": (c_int, [c_void_p, POINTER(PoolStats)]),
    "perf_pool_get_holder": (c_int, [c_void_p, c_size_t, POINTER(PoolHolder)]),
}
for _name, (_result, _arguments) in _CALLS.items():
    _function = getattr(lib, _name)
    _function.restype = _result
    _function.argtypes = _arguments


def constant(name):
    """A public constant of the C headers, asked from the library itself."""
    value = c_int64()
    if lib.perf_constant(name.encode(), ctypes.byref(value)) != 0:
        raise ImportError("this libperf has no constant " + name)
    return value.value


OK, MISS, ELOAD = constant("PERF_OK"), constant("PERF_MISS"), constant("PERF_ELOAD")
EEXISTS = constant("PERF_EEXISTS")
EIO, EBUSY = constant("PERF_EIO"), constant("PERF_EBUSY")
ETIMEDOUT, EUNAVAILABLE = constant("PERF_ETIMEDOUT"), constant("PERF_EUNAVAILABLE")
IF_ABSENT = constant("PERF_SET_IF_ABSENT")
TTL_DEFAULT, TTL_FOREVER = constant("PERF_TTL_DEFAULT"), constant("PERF_TTL_FOREVER")
