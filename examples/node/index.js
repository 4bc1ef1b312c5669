// SPDX-License-Identifier: MIT
//
// libperf's cache for Node.js.
//
//     const { Cache } = require('libperf-cache');
//     const cache = new Cache({ durablePath: '/var/cache/app.db' });
//     const getCourse = cache.cached(loadCourse, { namespace: 'courses', ttl: 300000 });
//     await getCourse(42);      // runs loadCourse(42)
//     await getCourse(42);      // from memory; after a restart, from disk
//
// get, set and the rest are synchronous: they take around a microsecond from memory. With a
// durable tier a miss in memory reads the disk; getAsync and setAsync do that on a thread of
// Node's pool. cached() reads synchronously and writes a durable cache asynchronously.
//
// Single flight is per Cache object: while a promise for some arguments is pending, all
// callers share it. An invalidation through the same object, arriving during the load, stops
// the result from being stored; one by another process or another Cache object does not.
//
// Times are milliseconds.
//
'use strict';

const { promisify } = require('node:util');
const native = require('./native.js');
const { serializer, encodeKey, toKey } = require('./codec.js');

const { calls, constant } = native;
const OK = constant('PERF_OK');
const MISS = constant('PERF_MISS');
const ETOOSMALL = constant('PERF_ETOOSMALL');
const EEXISTS = constant('PERF_EEXISTS');
const IF_ABSENT = constant('PERF_SET_IF_ABSENT');
const TTL_DEFAULT = constant('PERF_TTL_DEFAULT');
const TTL_FOREVER = constant('PERF_TTL_FOREVER');

const getCopyAsync = promisify(calls.getCopy.async);
const putAsync = promisify(calls.put.async);
const flushAsync = promisify(calls.flush.async);
const closeAsync = promisify(calls.close.async);

/** A call of the library failed. code is the name ("PERF_EINVAL"), status the number. */
class CacheError extends Error {
    constructor(status, detail) {
        super(detail || calls.strerror(status));
        this.name = 'CacheError';
        this.status = status;
        this.code = calls.strstatus(status);
    }
}

/** detail: false for calls on another thread, whose details this thread cannot ask for. */
function check(status, detail = true) {
    if (status !== OK) throw new CacheError(status, detail ? calls.lastError() : '');
}

function found(status, detail = true) {
    if (status === MISS) return false;
    check(status, detail);
    return true;
}

/** A namespace, user, tag or pattern for C, which would stop at a NUL. */
function name(text) {
    if (text === undefined || text === null) return null;
    if (typeof text !== 'string' || text.includes('\0'))
        throw new TypeError('a name is a string without a NUL character');
    return text;
}

function lifetime(ttl) {
    if (ttl === undefined || ttl === null) return TTL_DEFAULT;
    if (ttl === Infinity) return TTL_FOREVER;
    if (!(ttl > 0)) throw new RangeError('ttl: a positive number of milliseconds, or Infinity');
    return Math.max(1, Math.round(ttl));
}

function setOptions({ ttl, stale = 0, tags = [], ifAbsent = false }) {
    return {
        struct_size: native.setOptionsSize, ttl_ms: lifetime(ttl), stale_ms: Math.round(stale),
        mode: ifAbsent ? IF_ABSENT : 0, version: 0, weight: 0,
        tags: tags.length ? tags.map(name) : null, tag_count: tags.length,
    };
}

class Cache {
    #handle = null;
    #codec;
    #durable;
    #scratch = Buffer.allocUnsafeSlow(16384); // one synchronous get at a time, so one is enough
    #pending = new Set(); // promises of calls on other threads
    #flights = new Map(); // loads under way, by where their result will be

    /**
     * durablePath: file of the durable tier, if any. memoryMaxBytes, durableMaxBytes: bounds
     * (64 MiB, 1 GiB). serializer: "json", "bytes", or an object with encode and decode.
     */
    constructor({ durablePath, memoryMaxBytes = 0, memoryMaxEntries = 0, durableMaxBytes = 0,
        serializer: which = 'json' } = {}) {
        this.#codec = serializer(which);
        this.#durable = durablePath !== undefined;
        const out = [null];
        check(calls.open({
            struct_size: native.cacheOptionsSize, memory_max_bytes: memoryMaxBytes,
            memory_max_entries: memoryMaxEntries, memory_max_weight: 0, memory_shards: 0,
            durable_path: name(durablePath), durable_max_bytes: durableMaxBytes, tiers: null,
            tier_count: 0, workers: 0, max_namespaces: 0, host: null,
        }, out));
        this.#handle = out[0];
    }

    /** Waits for calls on other threads, writes what is pending and lets go. Idempotent. */
    async close() {
        const handle = this.#handle;
        if (handle === null) return;
        this.#handle = null;
        await Promise.allSettled(this.#pending);
        check(await closeAsync(handle), false);
    }

    get #open() {
        if (this.#handle === null) throw new Error('the cache is closed');
        return this.#handle;
    }

    /** Keeps count of a call on another thread, under which close() must not close. */
    async #away(promise) {
        this.#pending.add(promise);
        try {
            return await promise;
        } finally {
            this.#pending.delete(promise);
        }
    }

    // Set and get.

    /** Stores value. options: ttl, stale, user, tags, ifAbsent. False if ifAbsent lost. */
    set(namespace, key, value, options = {}) {
        const data = this.#codec.encode(value);
        return this.#written(this.#put(calls.put, namespace, toKey(key), data, options), options);
    }

    /** The same on another thread: for a durable cache in a busy event loop. */
    async setAsync(namespace, key, value, options = {}) {
        const data = this.#codec.encode(value);
        return this.#written(await this.#away(
            this.#put(putAsync, namespace, toKey(key), data, options)), options, false);
    }

    #put(call, namespace, key, data, options) {
        return call(this.#open, name(namespace), name(options.user), key, key.length, data,
            data.length, setOptions(options), null);
    }

    #written(status, { ifAbsent }, detail = true) {
        if (ifAbsent && status === EEXISTS) return false;
        check(status, detail);
        return true;
    }

    /** The value, or undefined on a miss. */
    get(namespace, key, { user } = {}) {
        const data = this.#getBytes(namespace, toKey(key), user);
        return data === undefined ? undefined : this.#codec.decode(data);
    }

    #getBytes(namespace, key, user) {
        const len = [0];
        for (;;) {
            const buf = this.#scratch;
            const status = calls.getCopy(this.#open, name(namespace), name(user), key,
                key.length, buf, buf.length, len);
            if (status !== ETOOSMALL)
                return found(status) ? Buffer.from(buf.subarray(0, len[0])) : undefined;
            this.#scratch = Buffer.allocUnsafeSlow(Math.max(len[0], buf.length * 2));
        }
    }

    /** The same on another thread: for a durable cache in a busy event loop. */
    async getAsync(namespace, key, { user } = {}) {
        const where = toKey(key);
        const len = [0];
        for (let cap = 4096; ; cap = Math.max(len[0], cap * 2)) {
            const buf = Buffer.allocUnsafeSlow(cap);
            const status = await this.#away(getCopyAsync(this.#open, name(namespace), name(user),
                where, where.length, buf, cap, len));
            if (status !== ETOOSMALL)
                return found(status, false) ? this.#codec.decode(buf.subarray(0, len[0]))
                    : undefined;
        }
    }

    /** A Map of those keys that were found: one call of the library for all. */
    getMany(namespace, keys, { user } = {}) {
        const list = [...keys];
        const raw = list.map(toKey);
        const items = raw.map((key) => ({
            key, key_len: key.length, buf: null, cap: 0, len: 0, value: null, status: 0,
        }));
        const results = new Map();
        if (!list.length) return results;
        check(calls.getMany(this.#open, name(namespace), name(user), items, items.length, null));
        const taken = items.map((item) => (item.status === OK ? take(item.value) : undefined));
        items.forEach((item, i) => {
            if (found(item.status, false)) results.set(list[i], this.#codec.decode(taken[i]));
        });
        return results;
    }

    /** Forgets one key. False if memory did not have it. */
    delete(namespace, key, { user } = {}) {
        const where = toKey(key);
        const id = flightId(namespace, user, where);
        this.#ground((flight) => flight.id === id);
        return found(calls.remove(this.#open, name(namespace), name(user), where, where.length));
    }

    // Invalidation: each is one mark, however many entries it kills.

    invalidateNamespace(namespace) {
        this.#ground((flight) => flight.namespace === namespace);
        check(calls.invalidateNamespace(this.#open, name(namespace)));
    }

    invalidateUser(user) {
        this.#ground((flight) => flight.user === user);
        check(calls.invalidateUser(this.#open, name(user)));
    }

    invalidateTag(tag) {
        this.#ground((flight) => flight.tags.includes(tag));
        check(calls.invalidateTag(this.#open, name(tag)));
    }

    /** Glob over the keys of a namespace, or of all with null. */
    invalidatePattern(namespace, pattern) {
        this.#ground((flight) => namespace === null || flight.namespace === namespace);
        check(calls.invalidatePattern(this.#open, name(namespace), name(pattern)));
    }

    clear() {
        this.#ground(() => true);
        check(calls.clear(this.#open));
    }

    /** What these loads bring is not stored, and later callers load anew. */
    #ground(concerns) {
        for (const [id, flight] of this.#flights) {
            if (concerns(flight)) {
                flight.grounded = true;
                this.#flights.delete(id);
            }
        }
    }

    // Statistics, upkeep.

    /** Counters of one namespace, or of all; undefined for an unknown namespace. */
    stats(namespace) {
        const stats = { struct_size: native.cacheStatsSize };
        for (const field of native.STATS) stats[field] = 0;
        if (!found(calls.stats(this.#open, name(namespace), stats))) return undefined;
        delete stats.struct_size;
        return stats;
    }

    /** Resolves when everything set so far is durable. */
    async flush() {
        check(await this.#away(flushAsync(this.#open)), false);
    }

    // Loading.

    /**
     * Makes a function, async or not, remember its results. The new one is async.
     *   namespace  default: the function's name
     *   ttl        milliseconds, Infinity, or nothing for the namespace's
     *   key        (...args) => string or bytes; default: made of the arguments (undefined,
     *              null, booleans, numbers, bigints, strings, bytes, dates, and arrays and
     *              plain objects of these)
     *   user       (...args) => string, to invalidate by user
     *   tags       names to invalidate by
     *   serializer as for the constructor, for this function alone
     * Every caller gets the stored form decoded anew. What the function throws reaches all
     * who waited, and is not remembered. .forget(...args) forgets one result.
     */
    cached(fn, { namespace = fn.name, ttl, key, user, tags = [], serializer: which } = {}) {
        if (!namespace) throw new TypeError('cached: give a function without a name a namespace');
        const codec = which === undefined ? this.#codec : serializer(which);
        lifetime(ttl);
        const locate = (args) => {
            const where = key ? toKey(key(...args)) : encodeKey(fn.name, args);
            const who = user?.(...args);
            return { where, who, id: flightId(namespace, who, where) };
        };

        const cached = async (...args) => {
            const { where, who, id } = locate(args);
            let flight = this.#flights.get(id);
            if (!flight) {
                const data = this.#getBytes(namespace, where, who);
                if (data !== undefined) return codec.decode(data);
                flight = { id, namespace, user: who, tags, grounded: false };
                this.#flights.set(id, flight); // before fn runs: it may invalidate itself
                flight.bytes = this.#fly(flight, where, async () => codec.encode(await fn(...args)),
                    { ttl, tags, user: who });
            }
            return codec.decode(await flight.bytes);
        };
        Object.defineProperty(cached, 'name', { value: fn.name });
        cached.forget = (...args) => {
            const { where, who } = locate(args);
            return this.delete(namespace, where, { user: who });
        };
        return cached;
    }

    async #fly(flight, where, make, options) {
        try {
            const data = await make();
            if (!flight.grounded && this.#handle !== null) {
                const put = this.#durable ? putAsync : calls.put;
                // Its status is left alone: a result that could not be stored is still a result.
                await this.#away(
                    Promise.resolve(this.#put(put, flight.namespace, where, data, options)));
                // Invalidated while the write was on its way: it may have come after the mark.
                if (flight.grounded && this.#handle !== null)
                    calls.remove(this.#handle, name(flight.namespace), name(flight.user), where,
                        where.length);
            }
            return data;
        } finally {
            if (this.#flights.get(flight.id) === flight) this.#flights.delete(flight.id);
        }
    }
}

function flightId(namespace, user, key) {
    return JSON.stringify([namespace, user ?? null, key.toString('latin1')]);
}

/** The bytes of a perf_value, which is let go. */
function take(value) {
    try {
        const size = calls.valueSize(value);
        if (!size) return Buffer.alloc(0);
        return Buffer.from(native.koffi.decode(calls.valueData(value), 'uint8_t', size));
    } finally {
        calls.valueRelease(value);
    }
}

module.exports = { Cache, CacheError, encodeKey, version: () => calls.version() };
