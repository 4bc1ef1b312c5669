// SPDX-License-Identifier: MIT
// BullMQ for bench-task-redis: N empty tasks, submitted by addBulk, worked off at the same time.
'use strict';
const { Queue, Worker } = require('bullmq');

const [port, workers, tasks] = process.argv.slice(2).map(Number);
const connection = { host: '127.0.0.1', port, maxRetriesPerRequest: null };
const AT_ONCE = 500;

(async () => {
  const queue = new Queue('q', { connection });
  let done = 0;
  let end;
  const ended = new Promise((resolve) => { end = resolve; });
  const worker = new Worker('q', async () => { if (++done === tasks) end(); },
    { connection, concurrency: workers });
  await Promise.all([queue.waitUntilReady(), worker.waitUntilReady()]);
  const begin = process.hrtime.bigint();
  for (let i = 0; i < tasks; i += AT_ONCE) {
    const jobs = [];
    for (let j = i; j < Math.min(tasks, i + AT_ONCE); j++) jobs.push({ name: 'empty', data: {} });
    await queue.addBulk(jobs);
  }
  const submitted = Number(process.hrtime.bigint() - begin) / 1e9;
  await ended;
  const total = Number(process.hrtime.bigint() - begin) / 1e9;
  console.log(JSON.stringify({ per_s: tasks / total, submit_per_s: tasks / submitted }));
  process.exit(0);
})().catch((e) => { console.error(e.message); process.exit(1); });
