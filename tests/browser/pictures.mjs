// How long large pictures take in the browser, and how much memory: from the file's bytes to a tiny model's embedding, on one thread.
//   node pictures.mjs [LIBRARY…]     LIBRARY: a folder with siglip-web.js, built; www/lib unless given. Several are measured in turns.
// Prints a row of a table per picture and library: seconds (the least of three), MB of WebAssembly memory afterwards and of the renderer process at its
// highest (Linux).
import { fileURLToPath } from "node:url";
import { resolve } from "node:path";
import { serve } from "../../tools/serve.mjs";
import { highest, importLibrary, launch } from "./harness.mjs";
import { photographs } from "./photographs.mjs";

const SIZES = { 12: [4000, 3000], 24: [6000, 4000], 50: [8192, 6144] };
const TYPES = ["image/jpeg", "image/png"];
const libraries = process.argv.slice(2).length ? process.argv.slice(2).map((path) => resolve(path)) : [fileURLToPath(new URL("../../www/lib", import.meta.url))];
const model = await serve(fileURLToPath(new URL("../fixtures/model/tiny", import.meta.url)));
const pictures = await photographs(SIZES, TYPES);
console.log("| megapixels | format | MB | library | s | wasm | process, highest |\n|---|---|---|---|---|---|---|");
for (const { megapixels, type, bytes } of pictures) {
  for (const library of libraries) {
    const { seconds, memory, process } = await measure(library, bytes, type);
    console.log(`| ${[megapixels, type.slice(6), (bytes.length / 1e6).toFixed(1), library.split("/").slice(-3).join("/"), seconds.toFixed(2), Math.round(memory / 1e6), Math.round(process / 1e6)].join(" | ")} |`);
  }
}
await model.close();

/** A browser of its own for each, so that its memory is of this picture alone. */
async function measure(library, bytes, type) {
  const site = await serve(library, {
    handle(request, response) {
      const file = { "/blank.html": ["text/html", "<!doctype html>"], "/picture": [type, bytes] }[request.url];
      if (!file) return false;
      response.writeHead(200, { "Content-Type": file[0] }).end(file[1]);
      return true;
    },
  });
  const browser = await launch();
  const page = await browser.newPage();
  page.setDefaultTimeout(0);
  await page.goto(`${site.url}blank.html`);
  await importLibrary(page, `${site.url}siglip-web.js`);
  const result = await page.evaluate(async (model) => {
    const classifier = await SiglipClassifier.load(model, { backend: "cpu", cache: false });
    const bytes = new Uint8Array(await (await fetch("/picture")).arrayBuffer());
    let seconds = Infinity;
    for (let run = 0; run < 3; run++) {
      // What follows the end of a picture is not read, but makes it another one to the cache.
      const other = new Blob([bytes, Uint8Array.of(run)]);
      const start = performance.now();
      await classifier.embedImage(other);
      seconds = Math.min(seconds, (performance.now() - start) / 1000);
    }
    return { seconds, memory: (await classifier[Symbol.for("siglip-web.stats")]()).memory };
  }, model.url);
  const process = await highest(browser.context);
  await browser.close();
  await site.close();
  return { ...result, process };
}
