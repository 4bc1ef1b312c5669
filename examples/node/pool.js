// SPDX-License-Identifier: MIT
//
// libperf's pool for Node.js: connections of any kind, borrowed and given back.
//
//     const { Pool } = require('libperf-cache/pool.js');
//     const pool = new Pool({ open: () => new DatabaseSync(file), close: (db) => db.close(),
//         maxSize: 8 });
//     pool.use((db) => db.prepare('SELECT ...').get());
//     await pool.use(async (db) => { ... });
//
// The pool is opened with no_threads: open and the others are called on the JavaScript thread,
// within the call that needs them, so they must be synchronous. For the same reason acquire
// does not wait for a connection to come back: nothing could come back while it waits.
//
// What the library's thread would do in time (old and idle connections, keep-alive) is done
// now and then by acquire; a process that is idle for long may call maintain(). Times are
// milliseconds.
//
'use strict';

const native = require('./native.js');
const { CacheError } = require('./index.js');

const { calls, constant, koffi } = native;
const OK = constant('PERF_OK');
const EIO = constant('PERF_EIO');
const EBUSY = constant('PERF_EBUSY');
const ETIMEDOUT = constant('PERF_ETIMEDOUT');
const EUNAVAILABLE = constant('PERF_EUNAVAILABLE');

const UPKEEP = 1000;

const OPTIONS = {
    maxSize: 'max_size', minIdle: 'min_idle', openTimeoutMs: 'open_timeout_ms',
    maxLifetimeMs: 'max_lifetime_ms', idleTimeoutMs: 'idle_timeout_ms',
    validateAfterMs: 'validate_after_ms', validateTimeoutMs: 'validate_timeout_ms',
    keepAliveMs: 'keep_alive_ms', leakMs: 'leak_ms', maxKeys: 'max_keys', maxTotal: 'max_total',
};

class Pool {
    #handle = null;
    #connections = new Map(); // C knows a connection by its number
    #numbers = new Map();     // and back, of those that are out
    #last = 0;
    #perKey = new Map();      // key: how many are out
    #maxSize;
    #resets;
    #raised;
    #registered = [];
    #upkeepAt = Date.now() + UPKEEP;

    /**
     *   open      (key, timeout) => connection, an object; throws if there is none
     *   close     (connection) => ends it
     *   validate  (connection, timeout) => false, or throws, if it is no good
     *   reset     (connection) => the same, before it goes back
     *   fd        (connection) => its descriptor, or -1
     *   maxSize, minIdle, openTimeoutMs, maxLifetimeMs, idleTimeoutMs, validateAfterMs,
     *   validateTimeoutMs, keepAliveMs, leakMs, maxKeys, maxTotal: as in perf_pool_options
     */
    constructor({ open, close, validate, reset, fd, ...rest }) {
        if (typeof open !== 'function' || typeof close !== 'function')
            throw new TypeError('a pool needs the functions open and close');
        const options = { struct_size: native.poolOptionsSize, no_threads: 1 };
        for (const field of ['start', 'max_opening', 'open_interval_ms', 'max_waiting',
            'adaptive', 'socket_trust_ms', ...Object.values(OPTIONS)])
            options[field] = 0;
        for (const [name, value] of Object.entries(rest)) {
            if (!OPTIONS[name]) throw new TypeError(`unknown option ${name}`);
            options[OPTIONS[name]] = value;
        }
        this.#maxSize = rest.maxSize || 10;
        this.#resets = Boolean(reset);

        const good = (answer) => (answer === undefined || answer ? OK : EIO);
        const find = (number) => this.#connections.get(Number(number));
        const functions = {
            open: (_, key, timeout, out) => this.#guard(() => {
                const connection = open(key, Number(timeout));
                if (connection === null || typeof connection !== 'object')
                    throw new TypeError('open returns an object');
                const number = ++this.#last;
                this.#connections.set(number, connection);
                koffi.encode(out, 'uintptr_t', number);
                return OK;
            }, EUNAVAILABLE),
            close: (_, number) => {
                const connection = find(number);
                this.#connections.delete(Number(number));
                this.#guard(() => close(connection));
            },
            validate: validate && ((_, number, timeout) =>
                this.#guard(() => good(validate(find(number), Number(timeout))))),
            reset: reset && ((_, number) => this.#guard(() => good(reset(find(number))))),
            fd: fd && ((_, number) => this.#guard(() => fd(find(number)) ?? -1, -1)),
        };
        const vtable = { struct_size: native.connectionVtableSize };
        for (const [name, proto] of Object.entries(native.callbacks)) {
            vtable[name] = functions[name]
                ? koffi.register(functions[name], koffi.pointer(proto)) : null;
            if (vtable[name]) this.#registered.push(vtable[name]);
        }
        options.vtable = vtable;
        options.ctx = options.host = null;
        const out = [null];
        try {
            this.#check(calls.poolOpen(options, out));
        } catch (error) {
            this.#unregister();
            throw error;
        }
        this.#handle = out[0];
    }

    #unregister() {
        for (const pointer of this.#registered.splice(0)) koffi.unregister(pointer);
    }

    /** Nothing that is thrown may cross C; it becomes the cause of what the call throws. */
    #guard(body, status = EIO) {
        try {
            return body();
        } catch (error) {
            this.#raised = error;
            return status;
        }
    }

    #check(status) {
        const cause = this.#raised;
        this.#raised = undefined;
        if (status === OK) return;
        const error = new CacheError(status, calls.lastError());
        if (cause !== undefined) error.cause = cause;
        throw error;
    }

    get #open() {
        if (this.#handle === null) throw new Error('the pool is closed');
        return this.#handle;
    }

    // Borrowing.

    /** A connection, to be given back by release or discard. PERF_EBUSY: all are out. */
    acquire({ key, timeout = 1000 } = {}) {
        const handle = this.#open;
        if (Date.now() >= this.#upkeepAt) this.maintain();
        const place = key ?? '';
        const out = this.#perKey.get(place) ?? 0;
        const number = [0];
        // With all out, C is asked not to wait: it also knows whether the pool is being closed.
        const wait = out >= this.#maxSize ? 0 : timeout;
        const status = key === undefined ? calls.poolAcquire(handle, wait, number)
            : calls.poolAcquireKey(handle, key, null, wait, number);
        if (status === ETIMEDOUT && wait === 0)
            throw new CacheError(EBUSY, `all ${this.#maxSize} connections are out`);
        this.#check(status);
        const connection = this.#connections.get(Number(number[0]));
        this.#numbers.set(connection, { number: number[0], place });
        this.#perKey.set(place, out + 1);
        return connection;
    }

    #end(call, connection) {
        const handle = this.#open;
        const borrowed = this.#numbers.get(connection);
        if (!borrowed) throw new Error('this connection is not borrowed from this pool');
        this.#numbers.delete(connection);
        this.#perKey.set(borrowed.place, this.#perKey.get(borrowed.place) - 1);
        this.#check(call(handle, borrowed.number));
        if (call === calls.poolDiscard || this.#resets)
            this.maintain(); // what is not to be kept is closed now: nobody else does
    }

    /** Gives it back. */
    release(connection) {
        this.#end(calls.poolRelease, connection);
    }

    /** It is broken: it is closed. */
    discard(connection) {
        this.#end(calls.poolDiscard, connection);
    }

    /**
     * fn with a connection, which goes back when fn, or the promise that it returns, is done.
     * When it throws, the connection is closed: nobody knows in what state it is.
     */
    use(fn, options) {
        const connection = this.acquire(options);
        const failed = (error) => {
            this.discard(connection);
            throw error;
        };
        let result;
        try {
            result = fn(connection);
        } catch (error) {
            return failed(error);
        }
        if (typeof result?.then === 'function')
            return result.then((value) => {
                this.release(connection);
                return value;
            }, failed);
        this.release(connection);
        return result;
    }

    // Control and figures.

    /** Closes what is too old, idle for too long or broken; validates; refills to minIdle. */
    maintain() {
        this.#upkeepAt = Date.now() + UPKEEP;
        this.#check(calls.poolMaintain(this.#open));
    }

    /** Every connection open now is closed: idle ones at once, others when they come back. */
    evictAll() {
        this.#check(calls.poolEvictAll(this.#open));
    }

    /** The fields of perf_pool_stats. */
    stats() {
        const stats = { struct_size: native.poolStatsSize };
        for (const field of native.POOL_STATS) stats[field] = 0;
        this.#check(calls.poolStats(this.#open, stats));
        delete stats.struct_size;
        return stats;
    }

    /** Closes all. PERF_EBUSY while some are out, and then it may be called again. Idempotent. */
    close() {
        if (this.#handle === null) return;
        this.#check(calls.poolClose(this.#handle));
        this.#handle = null;
        this.#unregister();
    }
}

module.exports = { Pool };
