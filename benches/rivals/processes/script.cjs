// The pool `workerpool` of node, with child processes: told a job a line, answers with a line, both JSON.
//
// usage: script.cjs workerpool WORKERS; without arguments it is a worker.
"use strict";

const square = (x) => x * x;

function say(answer) {
  process.stdout.write(JSON.stringify(answer) + "\n");
}

function find() {
  try {
    return require("workerpool");
  } catch (error) {
    return null;
  }
}

const percentile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];

async function oneByOne(pool, { n, idle_us }) {
  const times = [];
  let check = 0n;
  const start = process.hrtime.bigint();
  for (let x = 0; x < n; x++) {
    if (idle_us) await new Promise((resolve) => setTimeout(resolve, idle_us / 1e3));
    const began = process.hrtime.bigint();
    const result = await pool.exec("square", [x]);
    times.push(Number(process.hrtime.bigint() - began) / 1e3);
    check += BigInt(result);
  }
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  times.sort((a, b) => a - b);
  const figures = { p50: percentile(times, 0.5), p99: percentile(times, 0.99), min: times[0] };
  return { sample: { seconds, figures, check: Number(check) } };
}

async function main(workers) {
  const workerpool = find();
  if (!workerpool) return say({ failed: "node has no module workerpool" });
  say("done");
  let pool = null;
  const options = { minWorkers: workers, maxWorkers: workers, workerType: "process" };
  for await (const line of require("readline").createInterface({ input: process.stdin })) {
    const job = JSON.parse(line);
    try {
      if (job.job === "open") {
        pool = workerpool.pool(__filename, options);
        for (let x = 0; x < 300; x++) await pool.exec("square", [x]);
        say("done");
      } else if (job.job === "close") {
        if (pool) await pool.terminate(true);
        pool = null;
        say("done");
      } else if (job.job === "one_by_one") {
        say(await oneByOne(pool, job));
      } else {
        say({ failed: `no such job: ${job.job}` });
      }
    } catch (error) {
      say({ failed: String(error) });
    }
  }
  if (pool) await pool.terminate(true);
}

if (process.argv.length >= 4) {
  main(Number(process.argv[3]));
} else {
  find().worker({ square });
}
