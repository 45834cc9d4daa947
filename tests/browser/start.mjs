// How long a returning visitor waits: from the call of `load` to the model, and to the first answer, with the model in the browser's storage.
//   node start.mjs [--rounds N] [--threads] FOLDER [DTYPE…] [-- WWW…]    FOLDER: a checkpoint; after ./build.sh
// WWW: other builds' www/ folders, which take turns with this one in the same browser. BROWSER=firefox for another browser.
// Prints a row of a table per dtype and build: minimum (median) in ms, and the ratio of the first build's minimum to each.
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { importLibrary, launch, leastAndMedian, www } from "./harness.mjs";
import { serve } from "../../tools/serve.mjs";

const split = process.argv.indexOf("--");
const others = split < 0 ? [] : process.argv.slice(split + 1);
const { values: { rounds: wanted, threads }, positionals: [folder, ...dtypes] } = parseArgs({
  args: process.argv.slice(2, split < 0 ? undefined : split),
  options: { rounds: { type: "string", default: "7" }, threads: { type: "boolean", default: false } },
  allowPositionals: true,
});
const rounds = Number(wanted);
if (!folder || !(rounds > 0)) {
  console.error("usage: node start.mjs [--rounds N] [--threads] FOLDER [DTYPE…] [-- WWW…]");
  process.exit(2);
}

/** One visit: a page of its own. → {load, answer} in ms */
async function visit(browser, { url }, source, dtype) {
  const page = await browser.newPage();
  page.setDefaultTimeout(0);
  await page.goto(`${url}blank.html`);
  await importLibrary(page, `${url}lib/siglip-web.js`);
  const { value, message } = await page.evaluate(([source, dtype]) => outcome(async () => {
    const began = performance.now();
    const classifier = await SiglipClassifier.load(source, { backend: "cpu", dtype });
    const load = performance.now() - began;
    await classifier.classify(new ImageData(224, 224), ["a cat"]); // which the first visit asked about
    const answer = performance.now() - began;
    const { cached, cacheReason } = classifier.info;
    await classifier.dispose();
    return { load, answer, cached, cacheReason };
  }), [source, dtype]);
  await page.close();
  if (!value) throw new Error(message);
  if (!value.cached) throw new Error(value.cacheReason);
  return value;
}

const blank = (request, response) => request.url === "/blank.html" && Boolean(response.writeHead(200, { "Content-Type": "text/html" }).end("<!doctype html><title>blank</title>"));
const sites = await Promise.all([www, ...others].map((root) => serve(resolve(root), { handle: blank, isolated: threads })));
const files = await serve(folder);
console.log("| dtype | build | load, ms | first answer, ms | ratios |\n|---|---|---|---|---|");
for (const dtype of dtypes.length ? dtypes : ["q8"]) {
  const browser = await launch();
  const times = sites.map(() => ({ load: [], answer: [] }));
  for (const site of sites) await visit(browser, site, files.url, dtype); // from the network
  for (let round = 0; round < rounds; round++) {
    for (const [i, site] of sites.entries()) {
      const { load, answer } = await visit(browser, site, files.url, dtype);
      times[i].load.push(load);
      times[i].answer.push(answer);
    }
  }
  for (const [i, { load, answer }] of times.entries()) {
    const ratio = (name) => (Math.min(...times[0][name]) / Math.min(...times[i][name])).toFixed(2);
    console.log(`| ${dtype} | ${i === 0 ? "this" : others[i - 1]} | ${leastAndMedian(load)} | ${leastAndMedian(answer)} | ${i === 0 ? "" : `${ratio("load")}, ${ratio("answer")}`} |`);
  }
  await browser.close();
}
for (const server of [...sites, files]) await server.close();
