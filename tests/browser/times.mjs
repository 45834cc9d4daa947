// How long a model takes in each browser: to come over HTTP and to answer first, the same from the browser's storage, a picture, a label:
//   node times.mjs [FOLDER [DTYPE]]     FOLDER: a checkpoint (the demo's unless given); after ./build.sh
// Prints a row of a table for each browser, with one thread and with all that the machine has (where the browser shares memory between threads).
import { fileURLToPath } from "node:url";
import { BROWSERS, LACKS, importLibrary, openSite } from "./harness.mjs";
import { serve } from "../../tools/serve.mjs";

const DEMO = fileURLToPath(new URL("../../www/lib/models/demo", import.meta.url));
const [folder = DEMO, dtype = "auto"] = process.argv.slice(2);
const CALLS = 7;

const files = await serve(folder);
console.log("| browser | threads | from the network, s | from storage, s | picture, ms | label, ms |\n|---|---|---|---|---|---|");
for (const browser of BROWSERS) {
  for (const isolated of LACKS[browser].sharedMemory ? [false] : [false, true]) {
    const close = [];
    const site = await openSite({ after: (hook) => close.push(hook) }, { browser, isolated });
    const page = await importLibrary(await site.page(), site.library);
    page.setDefaultTimeout(0);
    const { threads, network, storage, pictures, labels } = await page.evaluate(measure, [files.url, dtype, CALLS]);
    const seconds = [network, storage].map((time) => time?.toFixed(2) ?? "not kept");
    console.log(`| ${[browser, threads, ...seconds, least(pictures), least(labels)].join(" | ")} |`);
    for (const hook of close) await hook();
  }
}
await files.close();

/** @param {number[]} times the minimum and, in brackets, the median */
function least(times) {
  const [first, middle] = [0, Math.floor(times.length / 2)].map((index) => times.toSorted((a, b) => a - b)[index].toFixed(0));
  return `${first} (${middle})`;
}

/** Runs in the page. No picture and no label is the same as one before, so that none is answered from what is remembered. */
async function measure([address, dtype, calls]) {
  const picture = (seed) => {
    const image = new ImageData(384, 384);
    for (let i = 0; i < image.data.length; i++) image.data[i] = i % 4 === 3 ? 255 : Math.imul(i + seed, 2654435761) >>> 24;
    return image;
  };
  const timed = async (work) => {
    const start = performance.now();
    await work();
    return performance.now() - start;
  };
  const load = async (seed) => {
    let classifier;
    const time = await timed(async () => {
      classifier = await SiglipClassifier.load(address, { backend: "cpu", dtype });
      await classifier.classify(picture(seed), ["a cat", "a dog"]);
    });
    return [classifier, time / 1000];
  };
  const [first, network] = await load(1);
  await first.dispose();
  const [classifier, storage] = await load(2);
  const [pictures, labels] = [[], []];
  for (let turn = 0; turn < calls; turn++) {
    pictures.push(await timed(() => classifier.embedImage(picture(10 + turn))));
    labels.push(await timed(() => classifier.embedText([`a drawing of ${turn} things`])));
  }
  const { adapter, cached } = classifier.info;
  await classifier.dispose();
  return { threads: Number(/(\d+) threads/.exec(adapter)?.[1] ?? 1), network, storage: cached ? storage : undefined, pictures, labels };
}
