// Times siglip-web and its peers in one page of one headless Chromium, in turns, on one CPU thread each.
//   node bench.mjs --www DIR --model DIR --onnx DIR --npm DIR [--rounds 7] [--only NAME,NAME] [--dtype f32]
// Prints markdown; progress goes to stderr. The browser is CHROME_BIN, or Debian's chromium.
import { createReadStream } from "node:fs";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";

const here = import.meta.dirname;
const root = path.resolve(here, "../..");
const { values: options } = parseArgs({
  options: {
    www: { type: "string", default: path.join(root, "www") },
    model: { type: "string" },
    onnx: { type: "string" },
    npm: { type: "string" },
    rounds: { type: "string", default: "7" },
    only: { type: "string", default: "siglip-web,Transformers.js,onnxruntime-web" },
    dtype: { type: "string", default: "f32" },
  },
});
for (const name of ["model", "onnx", "npm"]) {
  if (!options[name]) throw new Error(`--${name} DIR is missing: ./build.sh bench gives it`);
}
for (const name of ["www", "model", "onnx", "npm"]) options[name] = path.resolve(options[name]);
const { chromium } = await import(pathToFileURL(path.join(root, "tests/browser/node_modules/playwright-core/index.mjs")).href);

const MIME = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json" };
const PAGE = `<!doctype html><meta charset="utf-8"><title>bench</title><link rel="icon" href="data:,">
<script type="importmap">${JSON.stringify({
  imports: {
    "@huggingface/transformers": "/npm/@huggingface/transformers/dist/transformers.web.min.js",
    "onnxruntime-web/webgpu": "/npm/onnxruntime-web/dist/ort.webgpu.bundle.min.mjs",
    "onnxruntime-web/wasm": "/npm/onnxruntime-web/dist/ort.wasm.bundle.min.mjs",
    "onnxruntime-common": "/npm/onnxruntime-common/dist/esm/index.js",
  },
})}</script><script type="module" src="/page.js"></script>`;

const served = new Set();
const server = http.createServer(async (request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  if (pathname === "/") return response.writeHead(200, { "content-type": "text/html" }).end(PAGE);
  const [, first, ...rest] = pathname.split("/").map(decodeURIComponent);
  const folder = { www: options.www, model: options.model, onnx: options.onnx, npm: options.npm }[first];
  const file = first === "page.js" ? path.join(here, first) : folder && path.join(folder, ...rest);
  const found = file && !rest.includes("..") && (await stat(file).catch(() => undefined));
  if (!found?.isFile()) return response.writeHead(404).end();
  served.add(file);
  // No COOP and COEP headers: no shared memory, so one thread for everybody.
  response.writeHead(200, { "content-type": MIME[path.extname(file)] ?? "application/octet-stream", "content-length": found.size, "cache-control": "no-store" });
  if (request.method === "HEAD") return response.end();
  createReadStream(file).on("error", () => response.destroy()).pipe(response);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const origin = `http://127.0.0.1:${server.address().port}`;

const side = JSON.parse(await readFile(path.join(options.model, "preprocessor_config.json"))).size.height;
const settings = { names: options.only.split(","), rounds: Number(options.rounds), side, dtype: options.dtype };
const profile = await mkdtemp(path.join(os.tmpdir(), "siglip-web-bench-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROME_BIN ?? "/usr/bin/chromium",
  headless: true,
  args: ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const results = {};
let version;
try {
  version = browser.browser()?.version();
  for (const tower of ["image", "text"]) {
    const page = await browser.newPage(); // fresh for each tower: both f32 towers of three engines don't fit in one
    page.on("console", (message) => process.stderr.write(`${message.text()}\n`));
    page.on("pageerror", (error) => process.stderr.write(`${error}\n`));
    await page.goto(origin);
    await page.waitForFunction("window.ready");
    version ??= await page.evaluate("navigator.userAgent.match(/Chrome.([0-9.]+)/)[1]");
    results[tower] = await page.evaluate(([tower, settings]) => window.bench(tower, settings), [tower, settings]);
    await page.close();
  }
} finally {
  await browser.close();
  server.close();
  await rm(profile, { recursive: true, force: true });
}

const median = (values) => {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
const difference = (a, b) => Math.max(...a.flatMap((row, i) => row.map((value, j) => Math.abs(value - b[i][j]))));
const npmVersion = async (name) => JSON.parse(await readFile(path.join(options.npm, name, "package.json"))).version;
const ours = settings.names[0];

async function runtime(name) {
  const belongs = {
    "siglip-web": (file) => file.startsWith(options.www) && !file.endsWith(".json"),
    "Transformers.js": (file) => /transformers\.web|onnxruntime-common|ort\.webgpu|asyncify/.test(file),
    "onnxruntime-web": (file) => /ort\.wasm\.|ort-wasm-simd-threaded\.(wasm|mjs)$/.test(file),
  }[name];
  let wasm = 0;
  let packed = 0;
  for (const file of [...served].filter((file) => /\.(wasm|m?js)$/.test(file) && belongs(file))) {
    const bytes = await readFile(file);
    if (file.endsWith(".wasm")) wasm += bytes.length;
    packed += gzipSync(bytes, { level: 9 }).length;
  }
  return [wasm, packed].map((bytes) => `${(bytes / 1e6).toFixed(1)} MB`);
}

const load = os.loadavg()[0].toFixed(1);
console.log(`Chromium ${version}, ${os.cpus()[0].model.trim()}, one thread each, f32 peers, ours ${settings.dtype}; ` +
  `${settings.rounds} calls each in turns, minimum (median) in ms; load average ${load}.\n`);
console.log(`| | image | ${ours} / it | one label | ${ours} / it | first image, label | loads in s | wasm | wasm and script, gzip |\n|---|---|---|---|---|---|---|---|---|`);
for (const name of settings.names) {
  const title = { "Transformers.js": `Transformers.js ${await npmVersion("@huggingface/transformers")}`, "onnxruntime-web": `onnxruntime-web ${await npmVersion("onnxruntime-web")}, tower alone` }[name] ?? name;
  const cells = ["image", "text"].flatMap((tower) => {
    const { times } = results[tower][name];
    const ratio = Math.min(...results[tower][ours].times) / Math.min(...times);
    return [`${Math.min(...times).toFixed(0)} (${median(times).toFixed(0)})`, name === ours ? "" : ratio.toFixed(2)];
  });
  const first = ["image", "text"].map((tower) => results[tower][name].first.toFixed(0)).join(", ");
  const loads = ["image", "text"].map((tower) => (results[tower][name].load / 1000).toFixed(1)).join(", ");
  console.log(`| ${title} | ${cells.join(" | ")} | ${first} | ${loads} | ${(await runtime(name)).join(" | ")} |`);
}
let wrong = false;
for (const name of settings.names.slice(1)) {
  const parts = ["image", "text"].map((tower) => difference(results[tower][ours].embeddings, results[tower][name].embeddings));
  console.log(`${name === settings.names[1] ? "\n" : ""}Largest difference of an embedding's component, ${ours} to ${name}: image ${parts[0].toExponential(1)}, text ${parts[1].toExponential(1)}.`);
  wrong ||= settings.dtype === "f32" && !parts.every((part) => part < 1e-4);
}
if (results.image[ours].note) console.log(`\n${results.image[ours].note}`);
if (wrong) {
  console.error("the embeddings differ by more than 1e-4: the contestants did not compute the same thing");
  process.exitCode = 1;
}
