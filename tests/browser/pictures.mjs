// How long large pictures take in the browser, and how much memory: from the file's bytes to a tiny model's embedding, on one thread.
//   node pictures.mjs [LIBRARY…]     LIBRARY: a folder with siglip-web.js, built; www/lib unless given. Several are measured in turns.
// Prints a row of a table per picture and library: seconds (the least of three), MB of WebAssembly memory afterwards and of the renderer process at its
// highest (Linux).
import { fileURLToPath } from "node:url";
import { resolve } from "node:path";
import { serve } from "../../tools/serve.mjs";
import { highest, importLibrary, launch, openSite } from "./harness.mjs";

const SIZES = { 12: [4000, 3000], 24: [6000, 4000], 50: [8192, 6144] };
const libraries = process.argv.slice(2).length ? process.argv.slice(2).map((path) => resolve(path)) : [fileURLToPath(new URL("../../www/lib", import.meta.url))];
const model = await serve(fileURLToPath(new URL("../fixtures/model/tiny", import.meta.url)));
const pictures = await draw();
console.log("| megapixels | format | MB | library | s | wasm | process, highest |\n|---|---|---|---|---|---|---|");
for (const { megapixels, type, bytes } of pictures) {
  for (const library of libraries) {
    const { seconds, memory, process } = await measure(library, bytes, type);
    console.log(`| ${[megapixels, type.slice(6), (bytes.length / 1e6).toFixed(1), library.split("/").slice(-3).join("/"), seconds.toFixed(2), Math.round(memory / 1e6), Math.round(process / 1e6)].join(" | ")} |`);
  }
}
await model.close();

/** Pictures with the detail of a photograph: a drawing of the page with noise at several scales, as a camera's JPEG (quality 0.92, 4:2:0) and as PNG. */
async function draw() {
  let close;
  const site = await openSite({ after: (hook) => { close = hook; } });
  const page = await site.page();
  page.setDefaultTimeout(0);
  const list = [];
  for (const [megapixels, [width, height]] of Object.entries(SIZES)) {
    for (const type of ["image/jpeg", "image/png"]) {
      const text = await page.evaluate(async ([width, height, type]) => {
        const canvas = new OffscreenCanvas(width, height);
        const context = canvas.getContext("2d");
        const sample = await createImageBitmap(await (await fetch("/samples/ladybug.png")).blob());
        context.drawImage(sample, 0, 0, width, height);
        let state = 1;
        const random = () => (state = (state * 48271) % 0x7fffffff) / 0x7fffffff;
        for (const [side, alpha] of [[64, 0.5], [512, 0.25], [2048, 0.1]]) {
          const noise = new ImageData(side, side);
          for (let i = 0; i < noise.data.length; i++) noise.data[i] = i % 4 === 3 ? 255 : 256 * random();
          context.globalAlpha = alpha;
          context.drawImage(await createImageBitmap(noise), 0, 0, width, height);
        }
        const blob = await canvas.convertToBlob({ type, quality: 0.92 });
        const bytes = new Uint8Array(await blob.arrayBuffer());
        let text = "";
        for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
        return btoa(text);
      }, [width, height, type]);
      list.push({ megapixels, type, bytes: Buffer.from(text, "base64") });
    }
  }
  await close();
  return list;
}

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
