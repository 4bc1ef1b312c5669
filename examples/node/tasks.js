// SPDX-License-Identifier: MIT
//
// libperf's durable tasks for Node.js: background work that survives the process.
//
//     const { Tasks } = require('libperf-cache/tasks.js');
//     const tasks = new Tasks('tasks.db');
//     tasks.task('resize', async (run, payload) => shrink(payload));    // a Buffer in and out
//     tasks.start();                             // leave out where nothing shall run
//     const task = await tasks.submit('resize', picture);
//     const { result } = await task.done();      // throws TaskFailed if it did not succeed
//     await tasks.close();
//
// Whoever opens the same file may submit and look: another Node.js, a C program, Python.
// At least once: a function may run again although it has done its work. What it throws is the
// task's failure, which is tried again up to maxAttempts; Permanent ends it at once.
//
// C never calls back. One loop asks for tasks (perf_tasks_claim) and one waits for all whose
// done() was asked for, each in short calls on a thread of Node's pool; functions run on the
// JavaScript thread, as many at once as start() says. Times are milliseconds.
//
'use strict';

const { promisify } = require('node:util');
const native = require('./native.js');
const { CacheError } = require('./index.js');

const { constant, koffi, lib } = native;
const OK = constant('PERF_OK');
const MISS = constant('PERF_MISS');
const EINVAL = constant('PERF_EINVAL');
const EEXISTS = constant('PERF_EEXISTS');
const ECONFLICT = constant('PERF_ECONFLICT');
const ETIMEDOUT = constant('PERF_ETIMEDOUT');
const ELOAD = constant('PERF_ELOAD');
const STATES = Object.fromEntries(['waiting', 'queued', 'running', 'retrying', 'succeeded',
    'failed', 'cancelled', 'dead'].map((state) =>
    [constant(`PERF_TASK_${state.toUpperCase()}`), state]));

const CLAIM = 100; // how long one call asks for a task: close() may have to wait so long
const WATCH = 20;  // and how long one waits for the end of one

koffi.opaque('perf_tasks');
koffi.opaque('perf_run');
koffi.struct('perf_bytes', { data: 'void *', len: 'size_t' });
koffi.struct('perf_task_id', { text: koffi.array('char', 72, 'String') });

const OPTIONS = ['lease_ms', 'poll_ms', 'keep_ms', 'sync', 'max_payload', 'max_result'];
const TasksOptions = koffi.struct('perf_tasks_options', {
    struct_size: 'size_t', backend: 'const char *', location: 'const char *', vtable: 'void *',
    queue_ctx: 'void *', workers: 'uint64_t', queues: 'const char *', lease_ms: 'int64_t',
    poll_ms: 'int64_t', keep_ms: 'int64_t', sync: 'int64_t', max_payload: 'uint64_t',
    max_result: 'uint64_t', worker: 'const char *', host: 'void *',
});
const TEXTS = { user: 'user', queue: 'queue', id: 'id', uniqueKey: 'unique_key',
    limitKey: 'limit_key', after: 'after', batch: 'batch' };
const NUMBERS = { priority: 'priority', delay: 'delay_ms', at: 'at_ms',
    maxAttempts: 'max_attempts', timeout: 'timeout_ms', deadline: 'deadline_ms', keep: 'keep_ms',
    version: 'version', unique: 'unique_ms', limit: 'limit', afterAnyEnd: 'after_any_end' };
const SubmitOptions = koffi.struct('perf_submit_options', {
    struct_size: 'size_t', user: 'const char *', queue: 'const char *', id: 'const char *',
    priority: 'int64_t', delay_ms: 'int64_t', at_ms: 'int64_t', max_attempts: 'int64_t',
    timeout_ms: 'int64_t', deadline_ms: 'int64_t', keep_ms: 'int64_t', version: 'int64_t',
    unique_key: 'const char *', unique_ms: 'int64_t', limit_key: 'const char *',
    limit: 'int64_t', after: 'const char *', after_any_end: 'int64_t', batch: 'const char *',
    transaction: 'void *',
});
koffi.struct('perf_task_record', {
    struct_size: 'size_t', id: 'const char *', kind: 'const char *', user: 'const char *',
    queue: 'const char *', batch: 'const char *', state: 'int64_t', priority: 'int64_t',
    attempts: 'int64_t', max_attempts: 'int64_t', version: 'int64_t', created_ms: 'int64_t',
    due_ms: 'int64_t', started_ms: 'int64_t', ended_ms: 'int64_t', lease_ms: 'int64_t',
    worker: 'const char *', fraction: 'double', done: 'uint64_t', total: 'uint64_t',
    text: 'const char *', status: 'int64_t', error: 'const char *', payload: 'perf_bytes',
    result: 'perf_bytes', history: 'const char *',
});

const calls = {
    open: lib.func('int perf_tasks_open(const perf_tasks_options *o, _Out_ perf_tasks **tasks)'),
    close: lib.func('int perf_tasks_close(perf_tasks *tasks, int64_t drain_ms)'),
    submit: lib.func('int perf_tasks_submit(perf_tasks *tasks, const char *kind, ' +
        'const uint8_t *payload, size_t len, const perf_submit_options *o, ' +
        '_Out_ perf_task_id *id)'),
    get: lib.func('int perf_tasks_get(perf_tasks *tasks, const char *id, _Out_ void **record)'),
    wait: lib.func('int perf_tasks_wait(perf_tasks *tasks, const char *id, int64_t timeout_ms, ' +
        '_Out_ void **record)'),
    free: lib.func('void perf_task_record_free(void *record)'),
    cancel: lib.func('int perf_tasks_cancel(perf_tasks *tasks, const char *id)'),
    claim: lib.func('int perf_tasks_claim(perf_tasks *tasks, const char *kind, ' +
        'int64_t timeout_ms, _Out_ perf_run **run)'),
    end: lib.func('int perf_run_end(perf_run *run, int status)'),
    payload: lib.func('int perf_run_payload(perf_run *run, _Out_ perf_bytes *payload)'),
    id: lib.func('const char *perf_run_id(perf_run *run)'),
    user: lib.func('const char *perf_run_user(perf_run *run)'),
    attempt: lib.func('int64_t perf_run_attempt(perf_run *run)'),
    cancelled: lib.func('int perf_run_cancelled(perf_run *run)'),
    progress: lib.func('int perf_run_progress(perf_run *run, double fraction, const char *text)'),
    result: lib.func('int perf_run_result(perf_run *run, const uint8_t *data, size_t len)'),
    fail: lib.func('int perf_run_fail(perf_run *run, int status, const char *why)'),
    snooze: lib.func('int perf_run_snooze(perf_run *run, int64_t delay_ms)'),
};
/** The same on a thread of Node's pool. */
const away = Object.fromEntries(['close', 'submit', 'get', 'wait', 'cancel', 'claim', 'end'].map(
    (name) => [name, promisify(calls[name].async)]));

/** A task whose done() was asked for ended otherwise than by success. record says how. */
class TaskFailed extends Error {
    constructor(record) {
        super(`${record.id} ${record.state}: ${record.error}`);
        this.name = 'TaskFailed';
        this.record = record;
    }
}

/** To be thrown by a function: trying again would not help. */
class Permanent extends Error {}

/** What ends a run by a status, and is no failure. */
class Ended extends Error {
    constructor(status) {
        super('the run has ended');
        this.status = status;
    }
}

function check(status, detail = '') {
    if (status !== OK) throw new CacheError(status, detail);
}

function text(value) {
    if (value === undefined || value === null) return null;
    if (typeof value !== 'string' || value.includes('\0'))
        throw new TypeError('a name is a string without a NUL character');
    return value;
}

function toBytes(data) {
    if (data === undefined || data === null) return Buffer.alloc(0);
    return Buffer.from(data); // a string, or bytes, copied
}

function fromBytes({ data, len }) {
    return Number(len) ? Buffer.from(koffi.decode(data, 'uint8_t', Number(len))) : Buffer.alloc(0);
}

/** The fields of perf_task_record, bytes as Buffers and the state by its name. It is freed. */
function takeRecord(pointer) {
    try {
        const record = koffi.decode(pointer, 'perf_task_record');
        delete record.struct_size;
        record.state = STATES[record.state];
        record.payload = fromBytes(record.payload);
        record.result = fromBytes(record.result);
        return record;
    } finally {
        calls.free(pointer);
    }
}

/** One run of a task, as its function sees it. Not to be kept. */
class Run {
    #handle;

    constructor(handle) {
        this.#handle = handle;
        this.id = calls.id(handle);
        this.user = calls.user(handle);
        this.attempt = Number(calls.attempt(handle));
    }

    progress(fraction, what) {
        check(calls.progress(this.#handle, fraction, text(what)));
    }

    get cancelled() {
        return calls.cancelled(this.#handle) !== OK;
    }

    /** Throws when the function should stop. */
    check() {
        const status = calls.cancelled(this.#handle);
        if (status !== OK) throw new Ended(status);
    }

    /** Ends this run; the task runs again after delay, and this attempt is not counted. */
    snooze(delay) {
        throw new Ended(calls.snooze(this.#handle, delay));
    }
}

/** A task that was submitted. */
class Task {
    #tasks;

    constructor(tasks, id, added) {
        this.#tasks = tasks;
        this.id = id;
        this.added = added; // false: the id or uniqueKey was there already
    }

    /** Its record, once it has succeeded. TaskFailed: it has ended otherwise. */
    async done() {
        const record = await this.#tasks.ended(this.id);
        if (record.state !== 'succeeded') throw new TaskFailed(record);
        return record;
    }

    cancel() {
        return this.#tasks.cancel(this.id);
    }
}

class Tasks {
    #handle = null;
    #functions = new Map();
    #pending = new Set();  // calls on other threads
    #working = null;       // the loop that asks for tasks
    #running = new Set();  // functions under way
    #stopping = false;
    #watched = new Map();  // id: what done() was asked for
    #watching = null;

    /** location: a file. options: backend, and lease_ms and its kin of perf_tasks_options. */
    constructor(location, { backend, ...rest } = {}) {
        const options = { struct_size: koffi.sizeof(TasksOptions), backend: text(backend),
            location: text(location), vtable: null, queue_ctx: null, workers: 0, queues: null,
            worker: null, host: null };
        for (const name of OPTIONS) options[name] = 0;
        for (const [name, value] of Object.entries(rest)) {
            if (!OPTIONS.includes(name)) throw new TypeError(`unknown option ${name}`);
            options[name] = value;
        }
        const out = [null];
        const status = calls.open(options, out);
        check(status, status === OK ? '' : native.calls.lastError());
        this.#handle = out[0];
    }

    get #open() {
        if (this.#handle === null) throw new Error('the queue is closed');
        return this.#handle;
    }

    async #away(promise) {
        this.#pending.add(promise);
        try {
            return await promise;
        } finally {
            this.#pending.delete(promise);
        }
    }

    // Functions, and the loop that runs them.

    /** Tasks of kind are run by fn(run, payload), async or not. Before start(). */
    task(kind, fn, { maxAttempts = 0 } = {}) {
        if (this.#functions.has(kind)) throw new Error(`kind ${kind} has a function already`);
        this.#functions.set(kind, { fn, maxAttempts });
    }

    /** Begins to work: up to concurrency functions are under way at once. */
    start({ concurrency = 4 } = {}) {
        if (this.#working) throw new Error('it works already');
        this.#stopping = false;
        this.#working = this.#work(concurrency);
    }

    /** Asks for no more, and waits for what runs. */
    async stop() {
        this.#stopping = true;
        await this.#working;
        await Promise.all(this.#running);
        this.#working = null;
    }

    async #work(concurrency) {
        const kinds = [...this.#functions.keys()];
        const wait = Math.max(1, Math.round(CLAIM / kinds.length));
        for (let idle = 0; !this.#stopping && kinds.length;) {
            if (this.#running.size >= concurrency) await Promise.race(this.#running);
            const kind = kinds.shift(); // each has its turn, and waits only when all had none
            kinds.push(kind);
            let some = false;
            try {
                some = await this.#claim(kind, idle >= kinds.length ? wait : 0);
            } catch { // the queue is away
                await new Promise((resolve) => setTimeout(resolve, 1000));
            }
            idle = some ? 0 : idle + 1;
        }
    }

    async #claim(kind, timeout) {
        const out = [null];
        const status = await this.#away(away.claim(this.#open, text(kind), timeout, out));
        if (status === MISS) return false;
        check(status);
        const run = this.#run(out[0], this.#functions.get(kind).fn).catch(() => {})
            .finally(() => this.#running.delete(run));
        this.#running.add(run);
        return true;
    }

    /** Runs one task of kind here: for a loop of your own. False: there was none. */
    async runOne(kind, fn, timeout = 0) {
        const out = [null];
        const status = await this.#away(away.claim(this.#open, text(kind), timeout, out));
        if (status === MISS) return false;
        check(status);
        await this.#run(out[0], fn);
        return true;
    }

    async #run(handle, fn) {
        let status;
        try {
            const payload = {};
            calls.payload(handle, payload);
            const result = await fn(new Run(handle), fromBytes(payload));
            const data = toBytes(result);
            status = data.length ? calls.result(handle, data, data.length) : OK;
        } catch (error) {
            status = error instanceof Ended ? error.status
                : calls.fail(handle, error instanceof Permanent ? EINVAL : ELOAD,
                    String(error?.message ?? error).replaceAll('\0', '?'));
        }
        const end = await this.#away(away.end(handle, status));
        if (end !== ECONFLICT) check(end); // lost: somebody else has it, and nothing is to be done
    }

    // Submit and look.

    /** A Task. options: user, queue, id, priority, delay, maxAttempts, uniqueKey, after, ... */
    async submit(kind, payload, options = {}) {
        const raw = { struct_size: koffi.sizeof(SubmitOptions), transaction: null };
        for (const field of Object.values(TEXTS)) raw[field] = null;
        for (const field of Object.values(NUMBERS)) raw[field] = 0;
        raw.max_attempts = this.#functions.get(kind)?.maxAttempts ?? 0;
        for (const [name, value] of Object.entries(options)) {
            if (TEXTS[name]) raw[TEXTS[name]] = text(value);
            else if (NUMBERS[name]) raw[NUMBERS[name]] = Number(value);
            else throw new TypeError(`unknown option ${name}`);
        }
        const data = toBytes(payload);
        const id = {};
        const status = await this.#away(
            away.submit(this.#open, text(kind), data, data.length, raw, id));
        if (status !== EEXISTS) check(status);
        return new Task(this, id.text, status === OK);
    }

    /** The record of a task; undefined when there is none. */
    async get(id) {
        const out = [null];
        const status = await this.#away(away.get(this.#open, text(id), out));
        if (status === MISS) return undefined;
        check(status);
        return takeRecord(out[0]);
    }

    /** False: there is none, or it has ended. */
    async cancel(id) {
        const status = await this.#away(away.cancel(this.#open, text(id)));
        if (status !== MISS) check(status);
        return status === OK;
    }

    /** The record of a task once it has ended, however. */
    ended(id) {
        const made = this.#watched.get(id) ?? {};
        if (!made.promise) {
            if (this.#handle === null) return Promise.reject(new Error('the queue is closed'));
            made.promise = new Promise((resolve, reject) =>
                Object.assign(made, { resolve, reject }));
            this.#watched.set(id, made);
            this.#watching ??= this.#watch();
        }
        return made.promise;
    }

    /** Waits for the first a little, then looks at the others, until all have ended. */
    async #watch() {
        while (this.#watched.size && this.#handle !== null) {
            let timeout = WATCH;
            for (const [id, made] of [...this.#watched]) {
                if (this.#handle === null) break;
                const out = [null];
                try {
                    const status = await this.#away(away.wait(this.#handle, id, timeout, out));
                    timeout = 0;
                    if (status === ETIMEDOUT) continue;
                    check(status);
                    made.resolve(takeRecord(out[0]));
                } catch (error) {
                    made.reject(error);
                }
                this.#watched.delete(id);
            }
        }
        this.#watching = null;
    }

    /** Waits for what runs, and lets go. What done() was asked for is rejected. Idempotent. */
    async close(drain = 10000) {
        if (this.#handle === null) return;
        await this.stop();
        const handle = this.#handle;
        if (handle === null) return;
        this.#handle = null;
        for (const { reject } of this.#watched.values())
            reject(new Error('the queue was closed'));
        this.#watched.clear();
        await Promise.allSettled([...this.#pending, this.#watching]);
        check(await away.close(handle, drain));
    }
}

module.exports = { Tasks, Task, Run, TaskFailed, Permanent };
