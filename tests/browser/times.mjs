// How long a model takes in each browser: to come over HTTP and to answer first, the same from the browser's storage, a picture, a label:
//   node times.mjs [FOLDER [DTYPE]]     FOLDER: a checkpoint (the demo's unless given); after ./build.sh
// Prints a row of a table for each browser, with one thread and with all that the machine has (where the browser shares memory between threads).
import { fileURLToPath } from "node:url";
import { BROWSERS, LACKS, leastAndMedian, measureIn } from "./harness.mjs";
import { serve } from "../../tools/serve.mjs";

const DEMO = fileURLToPath(new URL("../../www/lib/models/demo", import.meta.url));
const [folder = DEMO, dtype = "auto"] = process.argv.slice(2);
const CALLS = 7;

const files = await serve(folder);
console.log("| browser | threads | from the network, s | from storage, s | picture, ms | label, ms |\n|---|---|---|---|---|---|");
for (const browser of BROWSERS) {
  for (const isolated of LACKS[browser].sharedMemory ? [false] : [false, true]) {
    const times = await measureIn({ browser, isolated }, (page) => page.evaluate(timed, [files.url, dtype, CALLS]));
    const { threads, network, storage, pictures, labels } = times;
    const seconds = [network, storage].map((time) => time?.toFixed(2) ?? "not kept");
    console.log(`| ${[browser, threads, ...seconds, leastAndMedian(pictures), leastAndMedian(labels)].join(" | ")} |`);
  }
}
await files.close();

/** Runs in the page: from the network, and from the browser's storage. */
async function timed([address, dtype, calls]) {
  const { measure } = await import("/page/speed/measure.js");
  const load = () => SiglipClassifier.load(address, { backend: "cpu", dtype });
  const first = await measure(load, 1);
  const second = await measure(load, calls);
  const { adapter, cached } = second.info;
  return {
    threads: Number(/(\d+) threads/.exec(adapter)?.[1] ?? 1),
    network: first.ready / 1000,
    storage: cached ? second.ready / 1000 : undefined,
    pictures: second.pictures,
    labels: second.labels,
  };
}
