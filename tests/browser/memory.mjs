// How much memory a model takes in the browser, and how long it takes to come, first over HTTP and then from the browser's storage:
//   node memory.mjs FOLDER [DTYPE…]              FOLDER: a checkpoint; after ./build.sh
//   node memory.mjs --peer NPM FOLDER [DTYPE…]   Transformers.js from NPM (a node_modules, as ./build.sh bench makes it) with an
//                                                export of the checkpoint (benches/peers/export.py)
// Prints a row of a table per load: MB of weights (of the peer, its files), of WebAssembly memory after loading and after two pictures
// and four texts (of the peer a picture and two), of the renderer process at its highest (Linux), and the requests.
import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { highest, html, launch, measureIn } from "./harness.mjs";
import { sendFile, serve } from "../../tools/serve.mjs";

const words = process.argv.slice(2);
const npm = words[0] === "--peer" ? words.splice(0, 2)[1] : undefined;
const [folder, ...wanted] = words;
if (!folder) {
  console.error("usage: node memory.mjs [--peer NPM] FOLDER [DTYPE…]");
  process.exit(2);
}
const dtypes = wanted.length ? wanted : ["f32", "f16", "q8", "q4"].filter((dtype) => !npm || dtype !== "f16");
console.log("| dtype | from | load, s | weights | wasm, loaded | wasm, after use | process, highest | requests |\n|---|---|---|---|---|---|---|---|");
for (const dtype of dtypes) await (npm ? peer : ours)(dtype);

function row(dtype, from, { seconds, weights, loaded, used }, process, requests) {
  const sizes = [weights, loaded, used, process].map((bytes) => Math.round(bytes / 1e6));
  console.log(`| ${[dtype, from, seconds.toFixed(1), ...sizes, requests].join(" | ")} |`);
}

async function ours(dtype) {
  const files = await serve(folder);
  await measureIn({}, async (page, site) => {
    for (const from of ["network", "storage"]) {
      files.requests.length = 0;
      const { value, ...error } = await page.evaluate(([address, dtype]) => outcome(async () => {
        const start = performance.now();
        const classifier = window.kept = await SiglipClassifier.load(address, { backend: "cpu", dtype });
        const seconds = (performance.now() - start) / 1000;
        const memory = async () => (await classifier[Symbol.for("siglip-web.stats")]()).memory;
        const loaded = await memory();
        // Weights are laid out at their second product.
        for (const [i, labels] of [["a cat", "a dog"], ["a house", "a tree"]].entries()) {
          const picture = new ImageData(384, 384);
          picture.data.fill(100 * i);
          await classifier.classify(picture, labels);
        }
        return { seconds, weights: classifier.info.bytes, loaded, used: await memory() };
      }), [files.url, dtype]);
      if (!value) throw new Error(error.message);
      row(dtype, from, value, await highest(site.context), files.requests.length);
      await page.evaluate(() => window.kept.dispose());
    }
  });
  await files.close();
}

async function peer(dtype) {
  const imports = {
    "@huggingface/transformers": "/npm/@huggingface/transformers/dist/transformers.web.min.js",
    "onnxruntime-web/webgpu": "/npm/onnxruntime-web/dist/ort.webgpu.bundle.min.mjs",
    "onnxruntime-common": "/npm/onnxruntime-common/dist/esm/index.js",
  };
  const start = html(`<!doctype html><title>peer</title><script type="importmap">${JSON.stringify({ imports })}</script>`);
  const files = await serve(folder, {
    handle(request, response) {
      if (request.url === "/") return response.writeHead(200, start.headers).end(start.body);
      const [, first] = request.url.split("/");
      if (first !== "npm" && first !== "model") return false;
      request.url = request.url.slice(first.length + 1);
      sendFile(resolve(first === "npm" ? npm : folder), request, response);
      return true;
    },
  });
  const browser = await launch();
  const page = await browser.context.newPage();
  page.setDefaultTimeout(0);
  await page.addInitScript(() => {
    // Every memory that a module makes or is given.
    const memories = new Set();
    window.wasmMemory = () => [...memories].reduce((sum, memory) => sum + memory.buffer.byteLength, 0);
    WebAssembly.Memory = new Proxy(WebAssembly.Memory, {
      construct(Memory, [descriptor]) {
        const memory = new Memory(descriptor);
        memories.add(memory);
        return memory;
      },
    });
    for (const name of ["instantiate", "instantiateStreaming"]) {
      const original = WebAssembly[name];
      WebAssembly[name] = async (...given) => {
        const result = await original.apply(WebAssembly, given);
        for (const value of Object.values((result.instance ?? result).exports)) {
          if (Object.prototype.toString.call(value) === "[object WebAssembly.Memory]") memories.add(value);
        }
        return result;
      };
    }
  });
  await page.goto(files.url);
  files.requests.length = 0;
  const value = await page.evaluate(async (dtype) => {
    const peer = await import("@huggingface/transformers");
    Object.assign(peer.env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: "/", useBrowserCache: false });
    Object.assign(peer.env.backends.onnx.wasm, { wasmPaths: "/npm/onnxruntime-web/dist/", numThreads: 1 });
    const start = performance.now();
    const options = { dtype: { f32: "fp32" }[dtype] ?? dtype, device: "wasm" };
    const processor = await peer.AutoProcessor.from_pretrained("model");
    const tokenizer = await peer.AutoTokenizer.from_pretrained("model");
    const vision = await peer.SiglipVisionModel.from_pretrained("model", options);
    const text = await peer.SiglipTextModel.from_pretrained("model", options);
    const seconds = (performance.now() - start) / 1000;
    const loaded = window.wasmMemory();
    const picture = new peer.RawImage(new Uint8ClampedArray(4 * 384 * 384), 384, 384, 4);
    await vision({ pixel_values: (await processor(picture)).pixel_values });
    await text({ input_ids: tokenizer(["a cat", "a dog"], { padding: "max_length", truncation: true }).input_ids });
    return { seconds, loaded, used: window.wasmMemory() };
  }, dtype);
  const suffix = { f32: "", q8: "_quantized", q4: "_q4" }[dtype];
  const sizes = await Promise.all(["vision", "text"].map((tower) => stat(join(folder, `onnx/${tower}_model${suffix}.onnx`))));
  const weights = sizes.reduce((sum, { size }) => sum + size, 0);
  row(dtype, "network", { ...value, weights }, await highest(browser.context), files.requests.length);
  await browser.close();
  await files.close();
}
