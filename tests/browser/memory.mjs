// How much memory a model takes in the browser, and how long it takes to come, first over HTTP and then from the browser's storage:
//   node memory.mjs FOLDER [DTYPE…]     FOLDER: a checkpoint; after ./build.sh
// Prints a row of a table per load: MB of weights, of WebAssembly memory after loading and after a picture and two texts,
// of the renderer process at its highest (Linux), and the requests.
import { readFile } from "node:fs/promises";
import { importLibrary, openSite } from "./harness.mjs";
import { serve } from "./server.mjs";

const [folder, ...dtypes] = process.argv.slice(2);
if (!folder) {
  console.error("usage: node memory.mjs FOLDER [DTYPE…]");
  process.exit(2);
}

const files = await serve(folder);
console.log("| dtype | from | load, s | weights | wasm, loaded | wasm, after use | process, highest | requests |\n|---|---|---|---|---|---|---|---|");
for (const dtype of dtypes.length ? dtypes : ["f32", "f16", "q8", "q4"]) {
  let close;
  const site = await openSite({ after: (hook) => { close = hook; } });
  const page = await importLibrary(await site.page(), site.library);
  page.setDefaultTimeout(0);
  const session = await site.context.browser().newBrowserCDPSession();
  const highest = async () => {
    const { processInfo } = await session.send("SystemInfo.getProcessInfo");
    const renderers = processInfo.filter(({ type }) => type === "renderer");
    const statuses = await Promise.all(renderers.map(({ id }) => readFile(`/proc/${id}/status`, "utf8").catch(() => "")));
    return Math.max(0, ...statuses.map((status) => 1024 * Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0)));
  };
  for (const from of ["network", "storage"]) {
    files.requests.length = 0;
    const { value, ...error } = await page.evaluate(([address, dtype]) => outcome(async () => {
      const start = performance.now();
      const classifier = window.kept = await SiglipClassifier.load(address, { backend: "cpu", dtype });
      const seconds = (performance.now() - start) / 1000;
      const memory = async () => (await classifier[Symbol.for("siglip-web.stats")]()).memory;
      const loaded = await memory();
      await classifier.classify(new ImageData(384, 384), ["a cat", "a dog"]);
      return { seconds, weights: classifier.info.bytes, loaded, used: await memory() };
    }), [files.url, dtype]);
    if (!value) throw new Error(error.message);
    const { seconds, weights, loaded, used } = value;
    const row = [dtype, from, seconds.toFixed(1), ...[weights, loaded, used, await highest()].map((bytes) => Math.round(bytes / 1e6)), files.requests.length];
    console.log(`| ${row.join(" | ")} |`);
    await page.evaluate(() => window.kept.dispose());
  }
  await close();
}
await files.close();
