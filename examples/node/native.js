// SPDX-License-Identifier: MIT
//
// native.js - finds libperf and describes its C interface to koffi. Private: use index.js.
//
// The cache has only calls that go in and come out, no callbacks: libperf may call one from
// another thread, which has to wait for the JavaScript thread, which may be waiting for
// libperf. So loads and their single flight are done in JavaScript (index.js). The pool calls
// back within a call, on the thread that made it, since it is opened with no_threads (pool.js).
//
'use strict';

const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const koffi = require('koffi');

const SONAME = 'libperf.so.1';
const MAJOR = 1;

/** Where the library may be, best first: named, beside this tree, installed. */
function* candidates() {
    if (process.env.PERF_LIBRARY) {
        yield process.env.PERF_LIBRARY; // and nothing else: a wrong name must not be papered over
        return;
    }
    const beside = path.join(__dirname, '..', '..', 'lib', SONAME);
    if (fs.existsSync(beside)) yield beside;
    try {
        const libdir = execFileSync('pkg-config', ['--variable=libdir', 'libperf'],
            { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
        if (libdir) yield path.join(libdir, SONAME);
    } catch {
        // no pkg-config, or it does not know libperf
    }
    yield SONAME; // the loader's own search: LD_LIBRARY_PATH, ldconfig
}

function load() {
    const problems = [];
    for (const name of candidates()) {
        try {
            const found = koffi.load(name);
            const version = found.func('int perf_version_number()')();
            if (Math.trunc(version / 1000000) !== MAJOR)
                throw new Error('it is another major version');
            return found;
        } catch (error) {
            problems.push(`${name}: ${error.message}`);
        }
    }
    throw new Error('libperf was not found; build or install it, or set PERF_LIBRARY to the path ' +
        `of ${SONAME} (tried ${problems.join('; ')})`);
}

const STATS = ['hits', 'memory_hits', 'misses', 'stale_hits', 'negative_hits', 'loads',
    'load_failures', 'load_ns', 'loads_suppressed', 'loads_discarded', 'refreshes', 'sets',
    'deletes', 'evictions', 'expirations', 'invalidations', 'rejections', 'collisions', 'damaged',
    'entries', 'bytes', 'max_bytes'];

koffi.opaque('perf_cache');
koffi.opaque('perf_value');
const CacheOptions = koffi.struct('perf_cache_options', {
    struct_size: 'size_t', memory_max_bytes: 'uint64_t', memory_max_entries: 'uint64_t',
    memory_max_weight: 'uint64_t', memory_shards: 'uint64_t', durable_path: 'const char *',
    durable_max_bytes: 'uint64_t', tiers: 'void *', tier_count: 'size_t', workers: 'uint64_t',
    max_namespaces: 'uint64_t', host: 'void *',
});
const SetOptions = koffi.struct('perf_set_options', {
    struct_size: 'size_t', ttl_ms: 'int64_t', stale_ms: 'int64_t', mode: 'int64_t',
    version: 'uint64_t', weight: 'uint64_t', tags: 'const char **', tag_count: 'size_t',
});
koffi.struct('perf_lookup', {
    key: 'const uint8_t *', key_len: 'size_t', buf: 'void *', cap: 'size_t', len: 'size_t',
    value: 'void *', status: 'int64_t',
});
const CacheStats = koffi.struct('perf_cache_stats', {
    struct_size: 'size_t', ...Object.fromEntries(STATS.map((name) => [name, 'uint64_t'])),
});

const POOL_STATS = ['max_size', 'size', 'idle', 'in_use', 'opening', 'waiting', 'peak_in_use', 'keys', 'acquires',
    'reused', 'waits', 'timeouts', 'rejected', 'opened', 'open_failures', 'validations',
    'closed_idle', 'closed_lifetime', 'closed_by_peer', 'closed_invalid', 'closed_discarded',
    'closed_evicted', 'detached', 'leaks', 'wait_mean_ns', 'wait_p50_ns', 'wait_p90_ns',
    'wait_p99_ns', 'wait_p999_ns', 'wait_max_ns', 'open_mean_ns', 'open_p99_ns'];

// A connection is a number here: uintptr_t where C has void *, which goes by the same registers.
koffi.opaque('perf_pool');
const callbacks = {
    open: koffi.proto('int perf_conn_open(void *ctx, const char *key, int64_t timeout_ms, ' +
        'void *conn)'),
    close: koffi.proto('void perf_conn_close(void *ctx, uintptr_t conn)'),
    validate: koffi.proto('int perf_conn_validate(void *ctx, uintptr_t conn, int64_t timeout_ms)'),
    reset: koffi.proto('int perf_conn_reset(void *ctx, uintptr_t conn)'),
    fd: koffi.proto('int perf_conn_fd(void *ctx, uintptr_t conn)'),
};
const ConnectionVtable = koffi.struct('perf_connection_vtable', {
    struct_size: 'size_t', ...Object.fromEntries(Object.entries(callbacks).map(
        ([name, proto]) => [name, koffi.pointer(proto)])),
});
const PoolOptions = koffi.struct('perf_pool_options', {
    struct_size: 'size_t', vtable: 'perf_connection_vtable *', ctx: 'void *', max_size: 'uint64_t',
    min_idle: 'uint64_t', start: 'int64_t', open_timeout_ms: 'int64_t', max_opening: 'uint64_t',
    open_interval_ms: 'int64_t', max_lifetime_ms: 'int64_t', idle_timeout_ms: 'int64_t',
    validate_after_ms: 'int64_t', validate_timeout_ms: 'int64_t', keep_alive_ms: 'int64_t',
    max_waiting: 'uint64_t', leak_ms: 'int64_t', max_keys: 'uint64_t', max_total: 'uint64_t',
    adaptive: 'int64_t', socket_trust_ms: 'int64_t', no_threads: 'int64_t', host: 'void *',
});
const PoolStats = koffi.struct('perf_pool_stats', {
    struct_size: 'size_t', ...Object.fromEntries(POOL_STATS.map((name) => [name, 'uint64_t'])),
});

const lib = load();
const where = 'perf_cache *cache, const char *ns, const char *user';
const keyed = `${where}, const uint8_t *key, size_t key_len`;

const calls = {
    strerror: lib.func('const char *perf_strerror(int status)'),
    strstatus: lib.func('const char *perf_strstatus(int status)'),
    lastError: lib.func('const char *perf_last_error()'),
    version: lib.func('const char *perf_version()'),
    constant: lib.func('int perf_constant(const char *name, _Out_ int64_t *value)'),
    open: lib.func('int perf_cache_open(const perf_cache_options *o, _Out_ perf_cache **cache)'),
    close: lib.func('int perf_cache_close(perf_cache *cache)'),
    getCopy: lib.func(`int perf_cache_get_copy(${keyed}, void *buf, size_t cap, ` +
        '_Out_ size_t *len)'),
    put: lib.func(`int perf_cache_put(${keyed}, const uint8_t *data, size_t len, ` +
        'const perf_set_options *options, void *version)'),
    remove: lib.func(`int perf_cache_delete(${keyed})`),
    getMany: lib.func(`int perf_cache_get_many(${where}, _Inout_ perf_lookup *items, ` +
        'size_t count, void *hits)'),
    valueData: lib.func('void *perf_value_data(void *value)'),
    valueSize: lib.func('size_t perf_value_size(void *value)'),
    valueRelease: lib.func('void perf_value_release(void *value)'),
    invalidateNamespace: lib.func('int perf_cache_invalidate_namespace(perf_cache *c, ' +
        'const char *ns)'),
    invalidateUser: lib.func('int perf_cache_invalidate_user(perf_cache *c, const char *user)'),
    invalidateTag: lib.func('int perf_cache_invalidate_tag(perf_cache *c, const char *tag)'),
    invalidatePattern: lib.func('int perf_cache_invalidate_pattern(perf_cache *c, ' +
        'const char *ns, const char *pattern)'),
    clear: lib.func('int perf_cache_clear(perf_cache *cache)'),
    stats: lib.func('int perf_cache_get_stats(perf_cache *c, const char *ns, ' +
        '_Inout_ perf_cache_stats *stats)'),
    flush: lib.func('int perf_cache_flush(perf_cache *cache)'),
    poolOpen: lib.func('int perf_pool_open(const perf_pool_options *o, _Out_ perf_pool **pool)'),
    poolClose: lib.func('int perf_pool_close(perf_pool *pool)'),
    poolAcquire: lib.func('int perf_pool_acquire(perf_pool *pool, int64_t timeout_ms, ' +
        '_Out_ uintptr_t *conn)'),
    poolAcquireKey: lib.func('int perf_pool_acquire_key(perf_pool *pool, const char *key, ' +
        'const char *who, int64_t timeout_ms, _Out_ uintptr_t *conn)'),
    poolRelease: lib.func('int perf_pool_release(perf_pool *pool, uintptr_t conn)'),
    poolDiscard: lib.func('int perf_pool_discard(perf_pool *pool, uintptr_t conn)'),
    poolEvictAll: lib.func('int perf_pool_evict_all(perf_pool *pool)'),
    poolMaintain: lib.func('int perf_pool_maintain(perf_pool *pool)'),
    poolStats: lib.func('int perf_pool_get_stats(perf_pool *pool, _Inout_ perf_pool_stats *stats)'),
};

/** A public constant of the C headers, asked from the library itself. */
function constant(name) {
    const value = [0];
    if (calls.constant(name, value) !== 0) throw new Error(`this libperf has no constant ${name}`);
    return value[0];
}

module.exports = {
    koffi, lib, calls, constant, callbacks, STATS, POOL_STATS,
    connectionVtableSize: koffi.sizeof(ConnectionVtable),
    poolOptionsSize: koffi.sizeof(PoolOptions),
    poolStatsSize: koffi.sizeof(PoolStats),
    cacheOptionsSize: koffi.sizeof(CacheOptions),
    setOptionsSize: koffi.sizeof(SetOptions),
    cacheStatsSize: koffi.sizeof(CacheStats),
};
