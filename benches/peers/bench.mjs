// Times siglip-web and its peers in headless Chromium, in turns, on one CPU thread each unless it says otherwise; prints markdown,
// progress goes to stderr.
//   node bench.mjs --model DIR --onnx DIR --litert DIR --sizes DIR --npm DIR [--rounds 7] [--sections f32,q8,threads,labels,sizes,webgpu,search] [--www DIR]
// The browser is CHROME_BIN, or Debian's chromium.
import { createReadStream } from "node:fs";
import { mkdtemp, readFile, readdir, rm, stat } from "node:fs/promises";
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
    litert: { type: "string" },
    sizes: { type: "string" },
    npm: { type: "string" },
    rounds: { type: "string", default: "7" },
    sections: { type: "string", default: "f32,q8,threads,labels,sizes,webgpu,search" },
  },
});
const needed = options.sections === "search" ? ["npm"] : ["model", "onnx", "litert", "sizes", "npm"];
for (const name of needed) {
  if (!options[name]) throw new Error(`--${name} DIR is missing: ./build.sh bench gives it`);
}
for (const name of ["www", ...needed]) options[name] = path.resolve(options[name]);
const { chromium } = await import(pathToFileURL(path.join(root, "tests/browser/node_modules/playwright-core/index.mjs")).href);

const MIME = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json" };
const PAGE = `<!doctype html><meta charset="utf-8"><title>bench</title><link rel="icon" href="data:,">
<script type="importmap">${JSON.stringify({
  imports: {
    "@huggingface/transformers": "/npm/@huggingface/transformers/dist/transformers.web.min.js",
    "onnxruntime-web/webgpu": "/npm/onnxruntime-web/dist/ort.webgpu.bundle.min.mjs",
    "onnxruntime-web/wasm": "/npm/onnxruntime-web/dist/ort.wasm.bundle.min.mjs",
    "onnxruntime-common": "/npm/onnxruntime-common/dist/esm/index.js",
    "@jax-js/jax": "/npm/@jax-js/jax/dist/index.js",
    "@litertjs/core": "/npm/@litertjs/core/dist/index.js",
    "@litertjs/wasm-utils": "/npm/@litertjs/wasm-utils/dist/index.js",
  },
})}</script><script type="module" src="/page.js"></script>`;

const served = new Set();
/** Only pages with these headers can share memory between threads; without them everybody has one. */
const ISOLATED = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };
const answer = (headers) => async (request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  if (pathname === "/") return response.writeHead(200, { ...headers, "content-type": "text/html" }).end(PAGE);
  const [, first, ...rest] = pathname.split("/").map(decodeURIComponent);
  const folder = { www: options.www, model: options.model, onnx: options.onnx, litert: options.litert, sizes: options.sizes, npm: options.npm }[first];
  const file = ["page.js", "jax.js"].includes(first) ? path.join(here, first) : folder && path.join(folder, ...rest);
  const found = file && !rest.includes("..") && (await stat(file).catch(() => undefined));
  if (!found?.isFile()) return response.writeHead(404).end();
  served.add(file);
  response.writeHead(200, { ...headers, "content-type": MIME[path.extname(file)] ?? "application/octet-stream", "content-length": found.size, "cache-control": "no-store" });
  if (request.method === "HEAD") return response.end();
  createReadStream(file).on("error", () => response.destroy()).pipe(response);
};
const servers = [{}, ISOLATED].map((headers) => http.createServer(answer(headers)));
const [origin, isolatedOrigin] = await Promise.all(servers.map(async (server) => {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${server.address().port}`;
}));

const sideOf = async (folder) => JSON.parse(await readFile(path.join(folder, "preprocessor_config.json"))).size.height;
const side = options.model && (await sideOf(options.model));
const rounds = Number(options.rounds);

/** What tells Chromium which GPU to offer to WebGPU. */
const GPU_FLAGS = {
  none: [],
  real: ["--enable-unsafe-webgpu", "--ignore-gpu-blocklist", "--enable-features=Vulkan", "--use-vulkan=native", "--use-angle=vulkan",
    "--use-webgpu-adapter=default", "--disable-vulkan-surface"],
  swiftshader: ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"],
};
/** Calls a function of page.js in a fresh browser: engines leave memory behind. @param {string} name @param {object} settings */
async function inPage(name, settings, { gpu = "none", limit = 0, isolated = false } = {}) {
  const profile = await mkdtemp(path.join(os.tmpdir(), "siglip-web-bench-"));
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROME_BIN ?? "/usr/bin/chromium",
    headless: true,
    args: ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
      ...GPU_FLAGS[gpu]],
  });
  let timer;
  try {
    version ??= browser.browser()?.version();
    const page = await browser.newPage();
    page.on("console", (message) => process.stderr.write(`${message.text()}\n`));
    page.on("pageerror", (error) => process.stderr.write(`${error}\n`));
    await page.goto(isolated ? isolatedOrigin : origin);
    await page.waitForFunction("window.ready");
    version ??= await page.evaluate("navigator.userAgent.match(/Chrome.([0-9.]+)/)[1]");
    const result = page.evaluate(([name, settings]) => window.bench[name](settings), [name, settings]);
    if (!limit) return await result;
    const ended = new Promise((resolve) => { timer = setTimeout(resolve, limit); });
    return await Promise.race([result.catch(() => undefined), ended]);
  } finally {
    clearTimeout(timer);
    await browser.close();
    await rm(profile, { recursive: true, force: true });
  }
}

let version;
const median = (values) => {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
const least = (times) => Math.min(...times);
/** Minimum (median). */
const both = (times, digits = 0) => `${least(times).toFixed(digits)} (${median(times).toFixed(digits)})`;
const difference = (a, b) => Math.max(...a.flatMap((row, i) => row.map((value, j) => Math.abs(value - b[i][j]))));
const npmVersion = async (name) => JSON.parse(await readFile(path.join(options.npm, name, "package.json"))).version;
const TITLES = {
  "Transformers.js": `Transformers.js ${await npmVersion("@huggingface/transformers")}`,
  "onnxruntime-web": `onnxruntime-web ${await npmVersion("onnxruntime-web")}, the tower alone`,
  "LiteRT.js": `LiteRT.js ${await npmVersion("@litertjs/core")}, the tower alone`,
  "jax-js": `jax-js ${await npmVersion("@jax-js/jax")}, the tower alone`,
};
/** A plot of one line: a bar of up to thirty blocks. */
const bar = (value, largest) => "█".repeat(Math.max(1, Math.round((30 * value) / largest)));
const row = (...cells) => console.log(`| ${cells.join(" | ")} |`);
const heading = (...cells) => (row(...cells), row(...cells.map(() => "---")));

async function runtime(name) {
  const belongs = {
    "siglip-web": (file) => file.startsWith(options.www) && !file.endsWith(".json") && !/webgpu|threads?\b|_cpu(_bg)?\./.test(file),
    "Transformers.js": (file) => /transformers\.web|onnxruntime-common|ort\.webgpu|asyncify/.test(file),
    "onnxruntime-web": (file) => /ort\.wasm\.|ort-wasm-simd-threaded\.(wasm|mjs)$/.test(file),
    "LiteRT.js": (file) => /@litertjs/.test(file) && !/threaded/.test(file),
    "jax-js": (file) => /@jax-js/.test(file),
  }[name];
  if (!belongs) return "";
  let packed = 0;
  for (const file of [...served].filter((file) => /\.(wasm|m?js)$/.test(file) && belongs(file))) packed += gzipSync(await readFile(file), { level: 9 }).length;
  return `${(packed / 1e6).toFixed(1)} MB`;
}

let wrong = false;
/** siglip-web's embeddings in f32, by tower, where that section ran: what the error of other forms is told by. */
const exact = {};
/** Of a component, the root of the mean square. */
const rms = (a, b) => {
  const squares = a.flatMap((row, i) => row.map((value, j) => (value - b[i][j]) ** 2));
  return Math.sqrt(squares.reduce((sum, square) => sum + square, 0) / squares.length);
};

/** Those that run a tower on the CPU: jax-js has no 8 bits. */
const peers = (dtype) => ["Transformers.js", "onnxruntime-web", "LiteRT.js", ...(dtype === "f32" ? ["jax-js"] : [])];

async function towers(dtype) {
  const names = ["siglip-web", "siglip-web without relaxed SIMD", ...peers(dtype)];
  const [ours, plain] = names;
  const results = {};
  // Both towers of all engines don't fit in one tab.
  for (const tower of ["image", "text"]) results[tower] = await inPage("towers", { tower, names, rounds, side, dtype });
  const ratio = (mine, tower, name) => (least(results[tower][mine].times) / least(results[tower][name].times)).toFixed(2);
  console.log(`\nBoth towers, ${dtype}: ${rounds} calls each in turns, minimum (median) in ms. The ratios are those of siglip-web's time, with and without relaxed SIMD, to the line's.\n`);
  heading("", "image", "ratio", "one label", "ratio", "first image, label", "loads in s", "wasm and script, gzip");
  for (const name of names) {
    const cells = ["image", "text"].flatMap((tower) => {
      const { times } = results[tower][name];
      const ratios = [ours, plain].includes(name) ? "" : `${ratio(ours, tower, name)}, ${ratio(plain, tower, name)}`;
      return [both(times), ratios];
    });
    const first = ["image", "text"].map((tower) => results[tower][name].first.toFixed(0)).join(", ");
    const loads = ["image", "text"].map((tower) => (results[tower][name].load / 1000).toFixed(1)).join(", ");
    row(TITLES[name] ?? name, ...cells, first, loads, await runtime(name));
  }
  console.log("");
  for (const name of names.slice(1)) {
    const parts = ["image", "text"].map((tower) => difference(results[tower][ours].embeddings, results[tower][name].embeddings));
    console.log(`Largest difference of an embedding's component, ${ours} to ${name}: image ${parts[0].toExponential(1)}, text ${parts[1].toExponential(1)}.`);
    wrong ||= !parts.every((part) => part < (dtype === "f32" ? 1e-4 : 0.1)); // NaN is below nothing
  }
  for (const tower of ["image", "text"]) {
    const error = (name) => `${name} ${rms(results[tower][name].embeddings, exact[tower]).toExponential(1)}`;
    if (dtype === "f32") exact[tower] = results[tower][ours].embeddings;
    else if (exact[tower]) console.log(`Error of an embedding's component against f32, ${tower}, root of the mean square: ${names.map(error).join(", ")}.`);
  }
  if (dtype === "f32" || !exact.image) return;
  const scale = Math.exp(results.image[ours].logitScale);
  const logits = (images, texts) => images.map((image) => texts.map((text) => scale * image.reduce((sum, value, i) => sum + value * text[i], 0)));
  const right = logits(exact.image, exact.text);
  const errors = names.map((name) => {
    const got = logits(results.image[name].embeddings, results.text[name].embeddings);
    return `${name} ${difference(got, right).toFixed(2)} (${rms(got, right).toFixed(2)})`;
  });
  console.log(`Largest error of a logit against f32, and the root of the mean square, all pictures × all labels: ${errors.join(", ")}.`);
}

async function threads() {
  const [mine, ...others] = ["siglip-web", ...peers("f32")];
  const count = Math.min(os.cpus().length, 8);
  console.log(`\nThe image tower with ${count} threads on a page that is cross-origin isolated, and with one: minimum (median) of ${rounds} calls in turns, in ms.\n`);
  heading("", ...["f32", "q8"].flatMap((dtype) => [`${dtype}, one`, `${count} threads`, "gain", "siglip-web / it"]));
  const results = [];
  for (const dtype of ["f32", "q8"]) {
    for (const isolated of [false, true]) {
      const settings = { tower: "image", names: [mine, ...peers(dtype)], rounds, side, dtype, threads: isolated ? count : 1 };
      results.push(await inPage("towers", settings, { isolated }));
    }
  }
  for (const name of [mine, ...others]) {
    const cells = [results.slice(0, 2), results.slice(2)].flatMap(([one, many]) => {
      if (!one[name]) return ["", "", "", ""];
      const [alone, together] = [one[name].times, many[name].times];
      const ratio = name === mine ? "" : (least(many[mine].times) / least(together)).toFixed(2);
      return [both(alone), both(together), (least(alone) / least(together)).toFixed(2), ratio];
    });
    row(TITLES[name] ?? name, ...cells);
  }
  const apart = difference(results[0][mine].embeddings, results[1][mine].embeddings);
  console.log(`\nLargest difference of an embedding's component, one thread of ${mine} to ${count}: ${apart}. What native threads gain: cargo bench --bench kernels -- FOLDER`);
  wrong ||= apart > 0;
}

async function labels() {
  for (const dtype of ["f32", "q8"]) {
    const { image, cached, added, batches } = await inPage("labels", { rounds, side, dtype });
    console.log(`\nLabels and batches, ${dtype}, medians of ${rounds}. Ten labels again: ${(median(cached) - median(image)).toFixed(1)} ms beyond the image's ${median(image).toFixed(0)} ms.\n`);
    heading("new labels", "ms", "ms per label", "");
    const perLabel = Object.entries(added).map(([count, times]) => [count, median(times), median(times) / count]);
    for (const [count, total, one] of perLabel) row(count, total.toFixed(0), one.toFixed(0), bar(one, Math.max(...perLabel.map(([, , one]) => one))));
    console.log("");
    heading("pictures at once (`embedImages`)", "ms", "pictures per second", "");
    const perSecond = Object.entries(batches).map(([count, times]) => [count, median(times), (1000 * count) / median(times)]);
    for (const [count, total, rate] of perSecond) row(count, total.toFixed(0), rate.toFixed(2), bar(rate, Math.max(...perSecond.map(([, , rate]) => rate))));
  }
}

async function sizes() {
  const lines = [];
  for (const folder of (await readdir(options.sizes)).filter((name) => !name.startsWith(".")).toSorted()) {
    const side = await sideOf(path.join(options.sizes, folder));
    const times = [];
    for (const dtype of ["f32", "q8"]) times.push(median(await inPage("size", { model: `/sizes/${folder}/`, rounds: Math.min(rounds, 3), side, dtype })));
    lines.push([folder.replace("-", "/"), ...times]);
  }
  console.log(`\nImage towers of other sizes, medians of ${Math.min(rounds, 3)} in ms.\n`);
  heading("", "f32", "q8", "");
  for (const [name, f32, q8] of lines) row(name, f32.toFixed(0), q8.toFixed(0), bar(q8, Math.max(...lines.map(([, , q8]) => q8))));
}

async function webgpu() {
  // Where there is no driver, the browser doesn't answer.
  const adapter = await inPage("adapter", {}, { gpu: "real", limit: 10_000 });
  return adapter?.real ? realGpu(adapter.name) : swiftshader();
}

async function realGpu(adapter) {
  console.log(`\nWebGPU on ${adapter}, f32, minimum (median) of ${rounds} calls in ms.\n`);
  heading("", "image", "first", "loads in s", "one label", "first", "loads in s", "ratio of images", "of labels");
  let ours;
  for (const name of ["siglip-web", "Transformers.js", "onnxruntime-web", "jax-js"]) {
    const towers = [];
    for (const tower of ["image", "text"]) {
      const { load, times: [first, ...warm], embedding } = await inPage("gpu", { name, tower, side, rounds: rounds + 1, dtype: "f32" }, { gpu: "real" });
      towers.push({ load, first, warm, embedding });
    }
    const cells = towers.flatMap(({ load, first, warm }) => [both(warm, 1), first.toFixed(0), (load / 1000).toFixed(1)]);
    const ratios = towers.map(({ warm }, i) => (ours ? (least(ours[i].warm) / least(warm)).toFixed(2) : ""));
    row(TITLES[name] ?? name, ...cells, ...ratios);
    ours ??= towers;
    wrong ||= towers.some(({ embedding }, i) => difference([embedding], [ours[i].embedding]) > 1e-4);
  }
}

async function swiftshader() {
  const mine = await inPage("gpu", { name: "siglip-web", side, rounds: 3, dtype: "f32" }, { gpu: "swiftshader" });
  const best = least(mine.times.slice(1));
  console.log("\nWebGPU on SwiftShader, a program that imitates a GPU, f32, one image in s.\n");
  heading("", "load", "first", "warm", "siglip-web / it");
  const seconds = (time) => (time / 1000).toFixed(1);
  row("siglip-web", seconds(mine.load), seconds(mine.times[0]), seconds(best), "");
  // A peer may take minutes: whether it needs more than 1/0.15 of our time is all that is asked.
  const limit = Math.max(60_000, best / 0.15) + 60_000;
  for (const [name, rounds] of [["onnxruntime-web", 1], ["jax-js", 3]]) {
    const peer = await inPage("gpu", { name, side, rounds, dtype: "f32" }, { gpu: "swiftshader", limit });
    if (!peer) {
      row(TITLES[name], "", `not done after ${(limit / 1000).toFixed(0)}`, "", `< ${(best / (limit - 60_000)).toFixed(2)}`);
      continue;
    }
    const [first, ...warm] = peer.times;
    const fastest = least(warm.length ? warm : [first]);
    row(TITLES[name], seconds(peer.load), seconds(first), warm.length ? seconds(fastest) : "", (best / fastest).toFixed(2));
    wrong ||= !(difference([mine.embedding], [peer.embedding]) < 1e-4);
  }
}

async function search() {
  const names = ["siglip-web", "Float32Array in JavaScript", "hnswlib-wasm"];
  const titles = { "hnswlib-wasm": `hnswlib-wasm ${await npmVersion("hnswlib-wasm")}, BruteforceSearch` };
  console.log(`\nThe 100 best of many embeddings of 768 numbers, all compared, one thread: minimum (median) of ${rounds} queries in turns, in ms.\n`);
  heading("", "100 000", "siglip-web / it", "1 000 000", "same hits");
  const small = await inPage("search", { names, count: 100_000, rounds });
  const large = await inPage("search", { names: names.slice(0, 1), count: 1_000_000, rounds });
  for (const name of names) {
    const ratio = name === names[0] ? "" : (least(small[names[0]].times) / least(small[name].times)).toFixed(2);
    const same = small[name].hits.every((hit, i) => hit === small[names[0]].hits[i]);
    row(titles[name] ?? name, both(small[name].times, 1), ratio, large[name] ? both(large[name].times, 1) : "", same ? "yes" : "no");
    wrong ||= !same;
  }
  const { searches, opens, first, again, files, count } = await inPage("index", { count: 100_000, files: 10_000, rounds });
  console.log(`\nSiglipIndex kept in the browser: ${count} embeddings open in ${both(opens)} ms; a search of words that were asked before, the way to the worker and the files included, takes ${both(searches, 1)} ms. ` +
    `A folder of ${files} files with a model that costs nothing: the first time ${(first / 1000).toFixed(1)} s, unchanged ${both(again)} ms.`);
}

const sections = { f32: () => towers("f32"), q8: () => towers("q8"), threads, labels, sizes, webgpu, search };
console.log(`${os.cpus()[0].model.trim()}, ${os.cpus().length} cores, one thread each; load average ${os.loadavg()[0].toFixed(1)}.`);
try {
  for (const name of options.sections.split(",")) {
    if (!sections[name]) throw new Error(`--sections: ${name} is none of ${Object.keys(sections).join(", ")}`);
    await sections[name]();
  }
  console.log(`\nChromium ${version}; load average in the end ${os.loadavg()[0].toFixed(1)}.`);
} finally {
  for (const server of servers) server.close();
}
if (wrong) {
  console.error("the embeddings differ by more than 1e-4 (0.1 in 8 bits), or the hits: the contestants did not compute the same thing");
  process.exitCode = 1;
}
