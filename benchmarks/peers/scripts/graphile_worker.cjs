// graphile-worker: `node graphile_worker.cjs setup|enqueue|drain|latency COUNT`,
// or `work COUNT SLOTS MILLISECONDS`.
//
// Settings: those of https://worker.graphile.org/docs/performance, with which its author measures:
// 24 jobs at a time (`work`: as many as there are slots), a pool of 25, a local queue of 500,
// completions and failures written in batches at once. Finished jobs are deleted, which is all that
// it can do.

"use strict";

const { makeWorkerUtils, run, Logger } = require("graphile-worker");
const { Pool } = require("pg");

const quiet = new Logger(() => () => {});
const pool = new Pool({ max: 25 }); // reads PGHOST and its like
const preset = {
  worker: {
    concurrentJobs: process.argv[2] === "work" ? Number(process.argv[4]) : 24,
    maxPoolSize: 25,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
};
const now = () => performance.now();
let expected = 1;
let ran = 0;
let first;
let entered = () => {};
const taskList = {
  noop: async () => {
    ran += 1;
    if (ran >= expected) entered(now());
  },
  sleep: async () => {
    first ??= now();
    await new Promise((resolve) => setTimeout(resolve, Number(process.argv[5])));
    ran += 1;
    if (ran >= expected) entered(now());
  },
};

const start = () => run({ preset, pgPool: pool, taskList, logger: quiet, noHandleSignals: true });
const utils = () => makeWorkerUtils({ pgPool: pool, logger: quiet });

async function fill(identifier, count) {
  const { addJobs } = await utils();
  for (let first = 0; first < count; first += 1000) {
    const jobs = [];
    for (let n = first; n < Math.min(first + 1000, count); n++) {
      jobs.push({ identifier, payload: { n } });
    }
    await addJobs(jobs);
  }
}

const actions = {
  async setup() {
    await (await utils()).migrate();
    return {};
  },

  async enqueue(count) {
    const { addJob } = await utils();
    await addJob("noop", { n: 0 });
    const began = now();
    for (let n = 0; n < count; n++) await addJob("noop", { n });
    return { seconds: (now() - began) / 1e3 };
  },

  async drain(count) {
    await fill("noop", count);
    expected = count;
    const last = new Promise((resolve) => (entered = resolve));
    const began = now();
    const runner = await start();
    const ended = await last;
    await runner.stop();
    return { seconds: (ended - began) / 1e3 };
  },

  async work(count) {
    await fill("sleep", count);
    expected = count;
    const last = new Promise((resolve) => (entered = resolve));
    const runner = await start();
    const ended = await last;
    await runner.stop();
    return { seconds: (ended - first) / 1e3 };
  },

  async latency(count) {
    const { addJob } = await utils();
    const runner = await start();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const milliseconds = [];
    for (let n = 0; n < count; n++) {
      ran = 0;
      const body = new Promise((resolve) => (entered = resolve));
      await new Promise((resolve) => setTimeout(resolve, 10));
      const began = now();
      await addJob("noop", { n });
      milliseconds.push((await body) - began);
    }
    await runner.stop();
    return { milliseconds };
  },
};

actions[process.argv[2]](Number(process.argv[3])).then(
  (found) => {
    console.log(JSON.stringify(found));
    process.exit(0);
  },
  (error) => {
    console.error(`${error}`.split("\n").pop());
    process.exit(1);
  },
);
