// SPDX-License-Identifier: MIT
//
// node_test.js - the Node.js module against the built library. Run by node.sh, which
// names the installed module in PERF_MODULE.
//
'use strict';

const assert = require('node:assert/strict');
const { execFileSync, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { test } = require('node:test');
const { Cache, CacheError, encodeKey, version } = require(process.env.PERF_MODULE);
const { Pool } = require(path.join(path.dirname(process.env.PERF_MODULE), 'pool.js'));
const { Client, AwsError } = require(path.join(path.dirname(process.env.PERF_MODULE), 'aws.js'));
const { Tasks, TaskFailed, Permanent } = require(
    path.join(path.dirname(process.env.PERF_MODULE), 'tasks.js'));

function withCache(body, options) {
    return async () => {
        const cache = new Cache(options);
        try {
            await body(cache);
        } finally {
            await cache.close();
        }
    };
}

/** A promise, and the functions that settle it. */
function gate() {
    const made = {};
    made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
    return made;
}

test('version', () => assert.match(version(), /^1\.\d+\.\d+$/));

test('set and get', withCache((cache) => {
    cache.set('ns', 'key', { a: [1, 2.5, null, 'ü'] });
    assert.deepEqual(cache.get('ns', 'key'), { a: [1, 2.5, null, 'ü'] });
    assert.equal(cache.get('ns', 'other'), undefined);
    assert.equal(cache.get('other', 'key'), undefined);
    cache.set('ns', 'null', null);
    assert.equal(cache.get('ns', 'null'), null);
}));

test('users are apart', withCache((cache) => {
    cache.set('ns', 'key', 1, { user: 'anna' });
    cache.set('ns', 'key', 2);
    assert.equal(cache.get('ns', 'key', { user: 'anna' }), 1);
    cache.invalidateUser('anna');
    assert.equal(cache.get('ns', 'key', { user: 'anna' }), undefined);
    assert.equal(cache.get('ns', 'key'), 2);
}));

test('bytes of all sizes', withCache((cache) => {
    for (const size of [0, 1, 16383, 16384, 16385, 300000]) {
        const data = Buffer.alloc(size, size % 251);
        cache.set('ns', Buffer.from([0, size % 256, 0]), data);
        assert.deepEqual(cache.get('ns', Buffer.from([0, size % 256, 0])), data);
    }
    // What was returned is the caller's own, not a window onto a buffer that is used again.
    cache.set('ns', 'a', Buffer.from('first'));
    cache.set('ns', 'b', Buffer.from('other'));
    const first = cache.get('ns', 'a');
    cache.get('ns', 'b');
    assert.equal(first.toString(), 'first');
    assert.throws(() => cache.set('ns', 'c', 'text'), TypeError);
}, { serializer: 'bytes' }));

test('delete and ifAbsent', withCache((cache) => {
    assert.equal(cache.set('ns', 'k', 1, { ifAbsent: true }), true);
    assert.equal(cache.set('ns', 'k', 2, { ifAbsent: true }), false);
    assert.equal(cache.get('ns', 'k'), 1);
    assert.equal(cache.delete('ns', 'k'), true);
    assert.equal(cache.delete('ns', 'k'), false);
    assert.equal(cache.get('ns', 'k'), undefined);
}));

test('getMany', withCache((cache) => {
    for (let i = 0; i < 100; i++) cache.set('ns', `k${i}`, i);
    const keys = Array.from({ length: 20 }, (_, i) => `k${i + 90}`);
    const found = cache.getMany('ns', keys);
    assert.deepEqual([...found], Array.from({ length: 10 }, (_, i) => [`k${i + 90}`, i + 90]));
    assert.equal(cache.getMany('ns', []).size, 0);
}));

test('getAsync and setAsync', withCache(async (cache) => {
    const long = 'x'.repeat(100000);
    await Promise.all([cache.setAsync('ns', 'a', 1), cache.setAsync('ns', 'b', long)]);
    assert.deepEqual(await Promise.all([cache.getAsync('ns', 'a'), cache.getAsync('ns', 'b'),
        cache.getAsync('ns', 'c')]), [1, long, undefined]);
}));

test('invalidation', withCache((cache) => {
    cache.set('a', 'x:1', 1, { tags: ['red'] });
    cache.set('a', 'y:1', 2, { tags: ['blue', 'green'] });
    cache.set('b', 'x:1', 3, { tags: ['red'] });
    cache.invalidateTag('red');
    assert.deepEqual([cache.get('a', 'x:1'), cache.get('a', 'y:1'), cache.get('b', 'x:1')],
        [undefined, 2, undefined]);
    cache.invalidatePattern('a', 'y:*');
    assert.equal(cache.get('a', 'y:1'), undefined);
    cache.set('a', 'k', 1);
    cache.set('b', 'k', 2);
    cache.invalidateNamespace('a');
    assert.deepEqual([cache.get('a', 'k'), cache.get('b', 'k')], [undefined, 2]);
    cache.clear();
    assert.equal(cache.get('b', 'k'), undefined);
}));

test('stats', withCache((cache) => {
    cache.set('ns', 'k', 1);
    cache.get('ns', 'k');
    cache.get('ns', 'no');
    const { hits, misses, sets } = cache.stats('ns');
    assert.deepEqual({ hits, misses, sets }, { hits: 1, misses: 1, sets: 1 });
    assert.equal(cache.stats().max_bytes, 64 * 1024 * 1024);
    assert.equal(cache.stats('never used'), undefined);
}));

test('errors have a code and say what', withCache((cache) => {
    assert.throws(() => cache.set('n'.repeat(300), 'k', 1),
        (error) => error instanceof CacheError && error.code === 'PERF_EINVAL' &&
            error.message.length > 0);
    assert.throws(() => cache.set('a\0b', 'k', 1), TypeError);
    assert.throws(() => cache.set('ns', 'k', 1, { ttl: -1 }), RangeError);
    assert.throws(() => cache.set('ns', 7, 1), TypeError);
    assert.throws(() => new Cache({ durablePath: '/no/such/folder/at/all/cache.db' }), CacheError);
}));

test('closed', async () => {
    const cache = new Cache();
    const pending = cache.setAsync('ns', 'k', 1);
    await cache.close();
    await cache.close();
    assert.equal(await pending, true);
    assert.throws(() => cache.get('ns', 'k'), /closed/);
});

test('survives a restart', async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'perf-node-'));
    try {
        const durablePath = path.join(folder, 'cache.db');
        let runs = 0;
        for (let i = 0; i < 2; i++) {
            const cache = new Cache({ durablePath });
            const fn = cache.cached(async (x) => { runs++; return [x]; }, { namespace: 'ns' });
            assert.deepEqual(await fn(5), [5]);
            await cache.flush();
            await cache.close();
        }
        assert.equal(runs, 1);
    } finally {
        fs.rmSync(folder, { recursive: true });
    }
});

test('cached runs once for each arguments', withCache(async (cache) => {
    const calls = [];
    async function add(a, b) { calls.push([a, b]); return { sum: a + b }; }
    const cached = cache.cached(add, { ttl: 60000 });
    assert.equal(cached.name, 'add');
    const [first, second] = [await cached(1, 2), await cached(1, 2)];
    assert.deepEqual([first, second], [{ sum: 3 }, { sum: 3 }]);
    assert.notEqual(first, second); // each caller may change its own
    await cached('1', 2);
    assert.equal(calls.length, 2);
    assert.equal(cached.forget(1, 2), true);
    await cached(1, 2);
    assert.equal(calls.length, 3);
}));

test('undefined is a result', withCache(async (cache) => {
    let runs = 0;
    const cached = cache.cached(() => { runs++; }, { namespace: 'ns' });
    assert.deepEqual([await cached(), await cached(), runs], [undefined, undefined, 1]);
}));

test('keys tell values apart', () => {
    const values = [1, '1', true, 1n, null, undefined, [1], [[1]], [1, []], {}, { a: 1 }, 0, -0,
        NaN, '', [], new Uint8Array([1]), new Date(1), 'x'.repeat(50000), 'y'.repeat(50000)];
    const keys = new Set(values.map((value) => encodeKey(value).toString('latin1')));
    assert.equal(keys.size, values.length);
    assert.ok([...keys].every((key) => key.length <= 32767));
    assert.deepEqual(encodeKey({ a: 1, b: 2 }), encodeKey({ b: 2, a: 1 }));
    assert.notDeepEqual(encodeKey('ab', 'c'), encodeKey('a', 'bc'));
    assert.throws(() => encodeKey(new Map()), /key function/);
    assert.throws(() => encodeKey(() => 1), /key function/);
});

test('single flight, and errors reach all but are not kept', withCache(async (cache) => {
    let runs = 0;
    let door = gate();
    const cached = cache.cached(() => { runs++; return door.promise; }, { namespace: 'ns' });
    const failing = Array.from({ length: 8 }, () => cached('a'));
    door.reject(new Error('down'));
    for (const result of await Promise.allSettled(failing))
        assert.equal(result.reason.message, 'down');
    assert.equal(runs, 1);
    door = gate();
    const working = Array.from({ length: 8 }, () => cached('a'));
    door.resolve('value');
    assert.deepEqual(await Promise.all(working), Array(8).fill('value'));
    assert.equal(await cached('a'), 'value');
    assert.equal(runs, 2);
}));

const ways = {
    'a key': (cache, cached) => cached.forget('a'),
    'a namespace': (cache) => cache.invalidateNamespace('ns'),
    'a user': (cache) => cache.invalidateUser('anna'),
    'a tag': (cache) => cache.invalidateTag('red'),
    'a pattern': (cache) => cache.invalidatePattern('ns', '*'),
    all: (cache) => cache.clear(),
};
for (const [what, invalidate] of Object.entries(ways)) {
    test(`a load does not outlive the invalidation of ${what}`, withCache(async (cache) => {
        const doors = [gate(), gate()];
        let runs = 0;
        const cached = cache.cached(() => doors[runs++].promise,
            { namespace: 'ns', tags: ['red'], user: () => 'anna' });
        const old = cached('a');
        invalidate(cache, cached);
        const young = cached('a'); // does not join the old load
        doors[1].resolve('new');
        doors[0].resolve('old');
        assert.deepEqual(await Promise.all([old, young]), ['old', 'new']);
        assert.equal(await cached('a'), 'new');
        assert.equal(runs, 2);
    }));
}

test('an unrelated invalidation leaves a load alone', withCache(async (cache) => {
    const door = gate();
    let runs = 0;
    const cached = cache.cached(() => { runs++; return door.promise; }, { namespace: 'ns' });
    const first = cached('a');
    cache.invalidateNamespace('other');
    cache.invalidateTag('blue');
    cached.forget('b');
    door.resolve(1);
    assert.deepEqual([await first, await cached('a'), runs], [1, 1, 1]);
}));

test('the process ends by itself', () => {
    const text = 'const { Cache } = require(process.env.PERF_MODULE);' +
        'const c = new Cache(); c.set("ns", "k", 1); console.log(c.get("ns", "k"));';
    assert.equal(execFileSync(process.execPath, ['-e', text], { encoding: 'utf8' }), '1\n');
});

test('a missing library says what to do', () => {
    const done = spawnSync(process.execPath, ['-e', 'require(process.env.PERF_MODULE)'],
        { encoding: 'utf8', env: { ...process.env, PERF_LIBRARY: '/no/such/lib.so' } });
    assert.notEqual(done.status, 0);
    assert.match(done.stderr, /PERF_LIBRARY/);
});

/** Connections are open files; a pool of them, and what was opened and closed. */
function withPool(body, options) {
    return () => {
        const seen = { opened: [], closed: [], good: true };
        const pool = new Pool({
            open: (key, timeout) => {
                assert.ok(timeout > 0);
                const file = fs.openSync('/dev/null', 'r+');
                seen.opened.push(key);
                return { file, key };
            },
            close: (connection) => {
                fs.closeSync(connection.file);
                seen.closed.push(connection);
            },
            fd: (connection) => connection.file,
            ...(typeof options === 'function' ? options(seen) : options),
        });
        try {
            body(pool, seen);
        } finally {
            pool.close();
        }
        assert.equal(seen.closed.length, seen.opened.length);
    };
}

test('pool: connections are reused', withPool((pool, seen) => {
    for (let i = 0; i < 100; i++)
        assert.equal(pool.use((connection) => fs.writeSync(connection.file, 'x')), 1);
    const { opened, acquires, reused, in_use: inUse } = pool.stats();
    assert.deepEqual({ opened, acquires, reused, inUse },
        { opened: 1, acquires: 100, reused: 99, inUse: 0 });
    assert.deepEqual(seen.opened, ['']);
}, { maxSize: 4 }));

test('pool: all are out', withPool((pool) => {
    const first = pool.acquire();
    const second = pool.acquire();
    assert.notEqual(first, second);
    const begun = Date.now();
    assert.throws(() => pool.acquire(), (error) => error.code === 'PERF_EBUSY');
    assert.ok(Date.now() - begun < 500); // nobody could give one back meanwhile
    assert.throws(() => pool.close(), (error) => error.code === 'PERF_EBUSY');
    pool.release(first);
    assert.throws(() => pool.release(first), /not borrowed/);
    pool.release(second);
    assert.throws(() => pool.acquire(), (error) => error.code === 'PERF_ECLOSED');
}, { maxSize: 2 }));

test('pool: use awaits, and an error closes the connection', async () => {
    let closed = 0;
    const pool = new Pool({ open: () => ({}), close: () => { closed++; } });
    assert.equal(await pool.use(async (connection) => {
        await new Promise((resolve) => setImmediate(resolve));
        assert.equal(pool.stats().in_use, 1);
        return typeof connection;
    }), 'object');
    assert.equal(pool.stats().in_use, 0);
    await assert.rejects(pool.use(async () => { throw new Error('in the middle'); }), /middle/);
    assert.equal(closed, 1);
    assert.throws(() => pool.use(() => { throw new Error('at once'); }), /at once/);
    assert.equal(closed, 2);
    assert.equal(pool.stats().closed_discarded, 2);
    pool.close();
    pool.close();
});

test('pool: reset and validate say no', withPool((pool, seen) => {
    pool.use(() => {});
    seen.good = false;
    pool.use(() => {}); // reset says no
    assert.equal(pool.stats().closed_invalid, 1);
    seen.good = true;
    pool.use(() => {});
    seen.good = false;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    pool.maintain();
    assert.equal(pool.stats().closed_invalid, 2);
    assert.equal(pool.stats().size, 0);
}, (seen) => ({ maxSize: 1, validate: () => seen.good, reset: () => seen.good, keepAliveMs: 1,
    fd: undefined }) /* what is readable, as /dev/null always is, is validated each time */));

test('pool: what open throws is the cause', () => {
    const pool = new Pool({ open: () => { throw new Error('nobody there'); }, close: () => {} });
    assert.throws(() => pool.acquire({ timeout: 50 }), (error) =>
        error.code === 'PERF_EUNAVAILABLE' && error.cause.message === 'nobody there');
    pool.close();
});

test('pool: keys, options', withPool((pool, seen) => {
    const held = ['a', 'b'].map((key) => pool.acquire({ key }));
    assert.deepEqual(held.map((connection) => connection.key), ['a', 'b']);
    held.forEach((connection) => pool.release(connection));
    pool.evictAll();
    assert.equal(seen.closed.length, 2);
    pool.maintain();
    assert.equal(pool.stats().max_size, 3);
    assert.equal(pool.stats().idle, 2 * 3); // of the pool itself, and of two keys
    assert.throws(() => new Pool({ open() {}, close() {}, maxSize: 5000 }), /max_size/);
    assert.throws(() => new Pool({ open() {}, close() {}, noSuchOption: 1 }), /noSuchOption/);
    assert.throws(() => new Pool({}), TypeError);
}, { maxSize: 3, minIdle: 2 }));

Object.assign(process.env, { AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE', AWS_REGION: 'us-east-1',
    AWS_SECRET_ACCESS_KEY: 'SECRETEXAMPLE', AWS_EC2_METADATA_DISABLED: 'true' });

/** A server that answers with the next of answers ([status, body], or null: never). */
function withService(service, body, options) {
    return async () => {
        const answers = [];
        const asked = [];
        const server = http.createServer((request, response) => {
            const chunks = [];
            request.on('data', (chunk) => chunks.push(chunk)).on('end', () => {
                asked.push({ url: request.url, method: request.method, headers: request.headers,
                    body: Buffer.concat(chunks) });
                const answer = answers.length > 1 ? answers.shift() : answers[0];
                if (!answer) return;
                response.writeHead(answer[0], { 'x-amzn-RequestId': 'id-1' });
                response.end(answer[1]);
            });
        });
        await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
        const client = new Client(service, {
            endpointUrl: `http://127.0.0.1:${server.address().port}`, ...options });
        try {
            await body(client, answers, asked);
        } finally {
            await client.close();
            server.closeAllConnections?.();
            server.close();
        }
    };
}

test('aws: JSON, and an attempt that fails', withService('dynamodb', async (client, answers, asked) => {
    answers.push([500, ''], [200, '{"Item":{"n":{"N":"42"}}}']);
    assert.equal(client.region, 'us-east-1');
    assert.deepEqual(await client.call('GetItem', { TableName: 'ü' }, { timeout: 10000 }),
        { Item: { n: { N: '42' } } });
    assert.deepEqual(JSON.parse(asked[1].body), { TableName: 'ü' });
    assert.equal(asked[1].headers['x-amz-target'], 'DynamoDB_20120810.GetItem');
    assert.match(asked[1].headers.authorization, /Credential=AKIDEXAMPLE\//);
}));

test('aws: many at once', withService('dynamodb', async (client, answers, asked) => {
    answers.push([200, '{"a":1}']);
    const big = 'x'.repeat(50000); // many buffers, to be kept while they are sent
    const all = await Promise.all(Array.from({ length: 100 }, (_, i) =>
        client.call('PutItem', { i, big }, { timeout: 30000 })));
    assert.equal(all.length, 100);
    assert.deepEqual(asked.map(({ body }) => JSON.parse(body)).map(({ i, big: b }) => b === big && i)
        .sort((a, b) => a - b), Array.from({ length: 100 }, (_, i) => i));
}));

test('aws: query', withService('sts', async (client, answers, asked) => {
    answers.push([200, '<a/>']);
    assert.equal(`${await client.call('AssumeRole', { RoleArn: 'a:b/c d' })}`, '<a/>');
    assert.equal(`${asked[0].body}`, 'Action=AssumeRole&Version=2011-06-15&RoleArn=a%3Ab%2Fc+d');
}));

test('aws: REST', withService('s3', async (client, answers, asked) => {
    answers.push([200, 'bytes']);
    const reply = await client.request('PutObject', { method: 'PUT', path: '/b/k%20', query: 'x=1',
        headers: { 'x-amz-meta-a': 1 }, body: Buffer.from([0, 255]), keep: ['x-amzn-requestid', 'no'] });
    assert.deepEqual([reply.status, `${reply.body}`, reply.requestId, reply.attempts],
        [200, 'bytes', 'id-1', 1]);
    assert.deepEqual(reply.headers, { 'x-amzn-requestid': 'id-1', no: null });
    assert.deepEqual([asked[0].method, asked[0].url, asked[0].headers['x-amz-meta-a']],
        ['PUT', '/b/k%20?x=1', '1']);
    assert.deepEqual(asked[0].body, Buffer.from([0, 255]));
}));

test('aws: errors', withService('dynamodb', async (client, answers) => {
    answers.push([400, '{"__type":"a#ResourceNotFoundException","message":"m"}']);
    await assert.rejects(client.call('GetItem'), (error) => {
        assert.ok(error instanceof AwsError);
        assert.deepEqual([error.code, error.awsCode, error.httpStatus, error.requestId],
            ['PERF_EREMOTE', 'ResourceNotFoundException', 400, 'id-1']);
        return !error.message.includes('SECRETEXAMPLE');
    });
    assert.throws(() => new Client('dynamodb', { endpointUrl: 'ftp://x' }),
        (error) => error.code === 'PERF_EINVAL' && error.awsCode === '');
    await client.close();
    await assert.rejects(client.call('GetItem'), /closed/);
}));

test('aws: cancelled, timed out, closed', withService('dynamodb', async (client, answers) => {
    answers.push(null);
    const controller = new AbortController();
    const first = client.call('GetItem', {}, { signal: controller.signal });
    const second = client.call('GetItem', {}, { timeout: 100 });
    const third = client.call('GetItem');
    const checks = [assert.rejects(first, { code: 'PERF_ECANCELED' }),
        assert.rejects(second, { code: 'PERF_ETIMEDOUT' }),
        assert.rejects(third, { code: 'PERF_ECANCELED' })];
    controller.abort();
    await Promise.all(checks.slice(0, 2));
    await client.close();
    await checks[2];
}));

/** A queue in a file of its own. */
function withTasks(body) {
    return async () => {
        const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'perf-node-'));
        const file = path.join(folder, 'tasks.db');
        const tasks = new Tasks(file);
        try {
            await body(tasks, file);
        } finally {
            await tasks.close();
            fs.rmSync(folder, { recursive: true });
        }
    };
}

test('tasks: submitted, done, looked at', withTasks(async (tasks) => {
    tasks.task('reverse', (run, payload) => {
        run.progress(0.5, 'half');
        assert.deepEqual([run.user, run.attempt, run.cancelled], ['anna', 1, false]);
        return Buffer.from(payload).reverse();
    });
    tasks.task('shout', async (run, payload) => {
        await new Promise((resolve) => setTimeout(resolve, 1));
        return `${payload}`.toUpperCase();
    });
    tasks.start();
    const task = await tasks.submit('reverse', Buffer.from([1, 0, 2]), { user: 'anna' });
    const record = await task.done();
    assert.deepEqual([record.id, record.state, record.kind, record.attempts, record.fraction],
        [task.id, 'succeeded', 'reverse', 1, 1]);
    assert.deepEqual(record.result, Buffer.from([2, 0, 1]));
    assert.deepEqual(record.payload, Buffer.from([1, 0, 2]));
    const all = await Promise.all(Array.from({ length: 30 }, async (_, i) =>
        `${(await (await tasks.submit('shout', `t${i}`)).done()).result}`));
    assert.deepEqual(all, Array.from({ length: 30 }, (_, i) => `T${i}`));
    assert.equal((await task.done()).result.length, 3); // again
    assert.equal(await tasks.get('none'), undefined);
    await assert.rejects(tasks.ended('none'), { code: 'PERF_MISS' });
}));

test('tasks: failures', withTasks(async (tasks) => {
    let runs = 0;
    tasks.task('fails', (run, payload) => {
        runs++;
        if (`${payload}` === 'never') throw new Permanent('no way');
        if (`${payload}` === 'later' && runs === 1) run.snooze(0);
        if (`${payload}` === 'later') return `${run.attempt}`;
        if (run.attempt === 1) throw new Error('not now');
        return undefined;
    }, { maxAttempts: 2 });
    tasks.start({ concurrency: 1 });
    await assert.rejects((await tasks.submit('fails', 'never')).done(), (error) =>
        error instanceof TaskFailed && error.record.state === 'failed' &&
        error.record.error === 'no way');
    runs = 0;
    assert.equal(`${(await (await tasks.submit('fails', 'later')).done()).result}`, '1');
    await assert.rejects((await tasks.submit('fails', 'x', { maxAttempts: 1 })).done(), (error) =>
        error.record.state === 'dead' && error.record.error === 'not now');
    assert.equal((await (await tasks.submit('fails', 'x')).done()).attempts, 2);
}));

test('tasks: cancelled', withTasks(async (tasks) => {
    const began = gate();
    tasks.task('long', async (run) => {
        began.resolve();
        for (;;) {
            await new Promise((resolve) => setTimeout(resolve, 5));
            run.check();
        }
    });
    const waiting = await tasks.submit('nobody', 'x');
    const failed = assert.rejects(waiting.done(), (error) => error.record.state === 'cancelled');
    assert.equal(await waiting.cancel(), true);
    assert.equal(await waiting.cancel(), false);
    await failed;
    tasks.start();
    const task = await tasks.submit('long');
    await began.promise;
    assert.equal((await tasks.get(task.id)).state, 'running');
    assert.equal(await task.cancel(), true);
    await assert.rejects(task.done(), (error) => error.record.state === 'cancelled');
}));

test('tasks: options, closed, and there again', withTasks(async (tasks, file) => {
    assert.equal((await tasks.submit('k', 'x', { id: 'mine' })).added, true);
    const again = await tasks.submit('k', 'x', { id: 'mine' });
    assert.deepEqual([again.id, again.added], ['mine', false]);
    await assert.rejects(tasks.submit('k', '', { noSuch: 1 }), TypeError);
    await assert.rejects(tasks.submit('bad kind'), { code: 'PERF_EINVAL' });
    assert.throws(() => new Tasks(file, { noSuch: 1 }), TypeError);
    assert.throws(() => new Tasks(null, { backend: 'none' }), { code: 'PERF_EINVAL' });
    const done = assert.rejects(again.done(), /closed/);
    await tasks.close();
    await tasks.close();
    await done;
    await assert.rejects(tasks.submit('k'), /closed/);
    const other = new Tasks(file);
    assert.equal(await other.runOne('k', (run) => { assert.equal(run.id, 'mine'); }), true);
    assert.equal(await other.runOne('k', () => {}), false);
    assert.equal((await other.get('mine')).state, 'succeeded');
    await other.close();
}));
