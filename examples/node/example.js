// SPDX-License-Identifier: MIT
//
// example.js - cached() from Node.js: from memory, and after a restart from disk. And a pool.
//
//     npm ci && node example.js
//
'use strict';

const fs = require('node:fs/promises');
const { openSync, writeSync, closeSync } = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { Cache } = require('./index.js');
const { Pool } = require('./pool.js');

let runs = 0;

async function loadCourse(id, lang = 'en') {
    runs++; // a slow database, in real life
    await new Promise((resolve) => setTimeout(resolve, 20));
    if (id < 0) throw new Error(`no course ${id}`);
    return { id, title: `${lang === 'de' ? 'Kurs' : 'course'} ${id}` };
}

async function show(text, promise) {
    const before = runs;
    const result = await promise();
    console.log(`  ${text.padEnd(28)} ${JSON.stringify(result).padEnd(32)} ` +
        (runs > before ? 'ran' : 'cached'));
}

async function main() {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'perf-example-'));
    const durablePath = path.join(folder, 'cache.db');
    const options = { namespace: 'courses', ttl: 300000, tags: ['school'] };
    try {
        let cache = new Cache({ durablePath });
        let getCourse = cache.cached(loadCourse, options);
        console.log('first process:');
        await show('getCourse(42)', () => getCourse(42));
        await show('getCourse(42)', () => getCourse(42));
        await show("getCourse(42, 'de')", () => getCourse(42, 'de'));
        getCourse.forget(42);
        await show('after forget(42)', () => getCourse(42));
        await getCourse(-1).catch((error) =>
            console.log(`  errors pass through:         ${error.message}`));
        await cache.close();

        cache = new Cache({ durablePath });
        getCourse = cache.cached(loadCourse, options);
        console.log('after a restart:');
        await show('getCourse(42)', () => getCourse(42));
        cache.invalidateTag('school');
        await show('after invalidateTag', () => getCourse(42));

        const before = runs;
        await Promise.all(Array.from({ length: 8 }, () => getCourse(7)));
        console.log(`  8 callers of getCourse(7):   the function ran ${runs - before} time(s)`);

        cache.set('greetings', 'morning', 'hello', { ttl: 60000, user: 'anna' });
        cache.set('greetings', 'evening', 'good night', { ttl: 60000, user: 'anna' });
        console.log('  getMany:                    ',
            cache.getMany('greetings', ['morning', 'noon', 'evening'], { user: 'anna' }));
        const { hits, misses } = cache.stats('greetings');
        console.log(`  of greetings:                ${hits} hits, ${misses} misses`);
        await cache.close();

        const pool = new Pool({
            open: () => ({ file: openSync(path.join(folder, 'log'), 'a') }),
            close: (log) => closeSync(log.file),
            maxSize: 4,
        });
        for (let i = 0; i < 1000; i++) pool.use((log) => writeSync(log.file, `${i}\n`));
        const { opened, reused } = pool.stats();
        console.log(`a pool, 1000 times borrowed:   ${opened} opened, ${reused} reused`);
        pool.close();
    } finally {
        await fs.rm(folder, { recursive: true });
    }
}

main();
