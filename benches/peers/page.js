// Runs in the page: contestants that take turns, each call with an input it has not seen.
// Every function of `window.bench` is called by bench.mjs and answers with plain numbers.

/** A picture of the model's own size: no side resizes it, so all see the same pixels. */
async function picture(seed, side) {
  const canvas = new OffscreenCanvas(side, side);
  const pixels = new ImageData(side, side);
  let state = seed * 2654435761 + 1;
  const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const waves = Array.from({ length: 9 }, () => (random() - 0.5) * 0.3);
  for (let y = 0, i = 0; y < side; y++) {
    for (let x = 0; x < side; x++, i += 4) {
      for (let c = 0; c < 3; c++) {
        pixels.data[i + c] = 128 + 80 * Math.sin(waves[3 * c] * x + waves[3 * c + 1] * y + 20 * waves[3 * c + 2]) + 40 * (random() - 0.5);
      }
      pixels.data[i + 3] = 255;
    }
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

// Without capitals and punctuation, whose treatment differs between tokenizers.
const text = (seed) => `this is a photo of ${seed} red houses`;

const unit = (values) => {
  const length = Math.hypot(...values);
  return Array.from(values, (value) => value / length);
};

/** siglip-web's own classifier. @param {{model?: string, dtype: string, backend?: string, worker?: boolean}} settings */
async function ours({ model = "/model/", dtype, backend = "cpu", worker = true }) {
  const { SiglipClassifier } = await import("/www/lib/siglip-web.js");
  return SiglipClassifier.load(new URL(model, location.href).href, { backend, dtype, worker, cache: false });
}

/** @param {"image"|"text"} tower */
const ourTower = (classifier, tower) => ({
  note: classifier.info.backendReason,
  logitScale: classifier.info.logitScale,
  embed: tower === "image" ? (input) => classifier.embedImage(input) : async (input) => (await classifier.embedText([input]))[0],
  close: () => classifier.dispose(),
});

/** Every contestant: load({tower, dtype, backend, threads}) → {embed(input) → embedding, prepare?(input), close()}. */
const contestants = {
  /** It takes as many threads as the page may have. */
  async "siglip-web"({ tower, dtype, backend, threads = 1 }) {
    const classifier = await ours({ dtype, backend });
    if (threads > 1 && !classifier.info.adapter.endsWith(`, ${threads} threads`)) throw new Error(`it runs on ${classifier.info.adapter}`);
    return ourTower(classifier, tower);
  },

  /** The module for browsers without relaxed SIMD; asked on this thread, where the library can be told that this is one. */
  async "siglip-web without relaxed SIMD"({ tower, dtype }) {
    const validate = WebAssembly.validate;
    WebAssembly.validate = () => false;
    try {
      const classifier = await ours({ dtype, worker: false });
      if (classifier.info.adapter !== "WebAssembly SIMD") throw new Error(`it runs on ${classifier.info.adapter}`);
      return ourTower(classifier, tower);
    } finally {
      WebAssembly.validate = validate;
    }
  },

  async "Transformers.js"({ tower, dtype, backend, threads }) {
    const peer = await transformers(threads);
    const prepare = await preparation(tower, threads);
    const Model = tower === "image" ? peer.SiglipVisionModel : peer.SiglipTextModel;
    const model = await Model.from_pretrained("onnx", { dtype: dtype === "f32" ? "fp32" : dtype, device: backend === "webgpu" ? "webgpu" : "wasm" });
    return {
      embed: async (input) => unit((await model(await prepare(input))).pooler_output.data),
      close: () => model.dispose(),
    };
  },

  async "onnxruntime-web"({ tower, dtype, backend, threads = 1 }) {
    const ort = await import(backend === "webgpu" ? "onnxruntime-web/webgpu" : "onnxruntime-web/wasm");
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = "/npm/onnxruntime-web/dist/";
    const prepare = await preparation(tower, threads);
    const file = `${tower === "image" ? "vision" : "text"}_model${dtype === "f32" ? "" : "_quantized"}`;
    const bytes = new Uint8Array(await (await fetch(`/onnx/onnx/${file}.onnx`)).arrayBuffer());
    const session = await ort.InferenceSession.create(bytes, { executionProviders: [backend === "webgpu" ? "webgpu" : "wasm"] });
    return {
      // the tower alone: preprocessing is done before the clock starts
      prepare: async (input) => {
        const [[name, { type, data, dims }]] = Object.entries(await prepare(input));
        return { [name]: new ort.Tensor(type, data, dims) };
      },
      embed: async (feeds) => unit((await session.run(feeds, ["pooler_output"])).pooler_output.data),
      close: () => session.release(),
    };
  },

  async "LiteRT.js"({ tower, dtype, threads = 1 }) {
    const { Tensor, loadAndCompile, loadLiteRt } = await import("@litertjs/core");
    await loadLiteRt("/npm/@litertjs/core/wasm/", { threads: threads > 1 });
    const prepare = await preparation(tower, threads);
    const file = `${tower === "image" ? "vision" : "text"}_model${dtype === "f32" ? "" : "_quantized"}`;
    const model = await loadAndCompile(`/litert/${file}.tflite`, { accelerator: "wasm", cpuOptions: { numThreads: threads } });
    return {
      prepare: async (input) => plain(await prepare(input)), // the tower alone, as above
      embed: async ({ values, dims }) => {
        const input = new Tensor(values, dims);
        const [output] = await model.run(input);
        const embedding = unit(await output.data());
        input.delete();
        output.delete();
        return embedding;
      },
      close: () => model.delete(),
    };
  },

  /** It has no 8 bits. */
  async "jax-js"({ tower, backend, threads = 1 }) {
    // It takes as many threads as there are processors.
    if (threads > 1) Object.defineProperty(navigator, "hardwareConcurrency", { value: threads });
    const { loadTower } = await import("/jax.js");
    const prepare = await preparation(tower, threads);
    const model = await loadTower({ folder: "/model/", tower, device: backend === "webgpu" ? "webgpu" : "wasm" });
    return {
      prepare: async (input) => plain(await prepare(input)), // the tower alone, as above
      embed: async ({ values, dims }) => unit(await model.embed(values, dims)),
      close: () => model.close(),
    };
  },
};

async function transformers(threads = 1) {
  const peer = await import("@huggingface/transformers");
  peer.env.allowRemoteModels = false;
  peer.env.allowLocalModels = true;
  peer.env.localModelPath = "/";
  peer.env.useBrowserCache = false;
  peer.env.backends.onnx.wasm.wasmPaths = "/npm/onnxruntime-web/dist/";
  peer.env.backends.onnx.wasm.numThreads = threads;
  return peer;
}

/** Transformers.js's way from a picture or a label to the tower's input. */
async function preparation(tower, threads) {
  const peer = await transformers(threads);
  if (tower === "image") {
    const processor = await peer.AutoProcessor.from_pretrained("onnx");
    return async (blob) => {
      const { pixel_values } = await processor(await peer.RawImage.fromBlob(blob));
      return { pixel_values };
    };
  }
  const tokenizer = await peer.AutoTokenizer.from_pretrained("onnx");
  return async (label) => {
    const { input_ids } = tokenizer([label], { padding: "max_length", truncation: true });
    return { input_ids };
  };
}

/** The one input of a tower in numbers of 32 bits: {values, dims}. */
const plain = (inputs) => {
  const [{ data, dims }] = Object.values(inputs);
  return { values: data instanceof Float32Array ? data : Int32Array.from(data, Number), dims };
};

const inputOf = (tower, round, side) => (tower === "image" ? picture(round + 1, side) : text(round + 11));

async function timed(work) {
  const began = performance.now();
  const result = await work();
  return [performance.now() - began, result];
}

/** Numbers in an embedding of a ViT-B. */
const SIZE = 768;
/** Different embeddings; more than that are these again, each scaled a little. */
const DIFFERENT = 20_000;

/** Embeddings of unit length, as many as asked for, the same at every call: [row → Float32Array]. */
function embeddings() {
  let state = 1;
  const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const base = Array.from({ length: DIFFERENT }, () => {
    const vector = Float32Array.from({ length: SIZE }, () => random() + random() + random() - 1.5);
    const length = Math.hypot(...vector);
    return vector.map((value) => value / length);
  });
  return { base, row: (/** @type {number} */ row) => (row < DIFFERENT ? base[row] : base[row % DIFFERENT].map((value) => value * (1 - 1e-3 * Math.floor(row / DIFFERENT)))), query: () => base[Math.floor(random() * DIFFERENT)].map((value) => value + 0.05 * (random() - 0.5)) };
}

const BEST = 100;

/** Those that search: make({count, row}) → query → the rows of the best. */
const searchers = {
  /** What the index's worker does for one query. */
  async "siglip-web"({ count, row }) {
    const glue = (await import("/www/lib/pkg/siglip_web_cpu_relaxed.js")).create();
    await glue({ module_or_path: await WebAssembly.compileStreaming(fetch("/www/lib/pkg/siglip_web_cpu_relaxed_bg.wasm")) });
    const search = new glue.Search(SIZE);
    search.resize(count);
    for (let i = 0; i < count; i++) search.set(i, row(i));
    return (query) => {
      const rows = search.ask(new Float32Array(), new Uint8Array(), query, 117, -13, BEST);
      const embeddings = new Float32Array(rows.length * SIZE);
      rows.forEach((number, i) => embeddings.set(row(number), i * SIZE));
      return Array.from(search.answer(embeddings).filter((_, i) => i % 4 === 0).subarray(0, BEST));
    };
  },

  async "Float32Array in JavaScript"({ count, row }) {
    const all = new Float32Array(count * SIZE);
    for (let i = 0; i < count; i++) all.set(row(i), i * SIZE);
    const cosines = new Float32Array(count);
    return (query) => {
      for (let i = 0, at = 0; i < count; i++) {
        let [a, b, c, d] = [0, 0, 0, 0];
        for (let j = 0; j < SIZE; j += 4, at += 4) {
          a += query[j] * all[at];
          b += query[j + 1] * all[at + 1];
          c += query[j + 2] * all[at + 2];
          d += query[j + 3] * all[at + 3];
        }
        cosines[i] = a + b + c + d;
      }
      // The least of the best decides: a sort of all would take longer than the products.
      const least = cosines.toSorted()[count - BEST];
      const best = [];
      cosines.forEach((cosine, i) => { if (cosine >= least) best.push(i); });
      return best.sort((a, b) => cosines[b] - cosines[a] || a - b).slice(0, BEST);
    };
  },

  async "hnswlib-wasm"({ count, row }) {
    const { loadHnswlib } = await import("/npm/hnswlib-wasm/dist/hnswlib.js");
    const library = await loadHnswlib();
    const index = new library.BruteforceSearch("ip", SIZE);
    index.initIndex(count);
    for (let i = 0; i < count; i++) index.addPoint(row(i), i);
    return (query) => index.searchKnn(query, BEST, undefined).neighbors;
  },
};

window.bench = {
  /** @returns the times of each, and what the first query found */
  async search({ names, count, rounds }) {
    const { row, query } = embeddings();
    const results = {};
    for (const name of names) {
      console.log(`search: ${name} takes ${count}`);
      results[name] = { find: await searchers[name]({ count, row }), times: [], hits: undefined };
    }
    for (let round = 0; round < rounds + 2; round++) {
      const asked = query();
      for (const name of names) {
        const [time, hits] = await timed(async () => results[name].find(asked));
        // Two to warm up.
        if (round >= 2) results[name].times.push(time);
        results[name].hits ??= hits;
      }
    }
    return Object.fromEntries(names.map((name) => [name, { times: results[name].times, hits: results[name].hits }]));
  },

  /** The index as pages use it, with a model that costs nothing. */
  async index({ count, files, rounds }) {
    const { SiglipIndex } = await import("/www/lib/siglip-index.js");
    const { row, query } = embeddings();
    let number = 0;
    const info = { name: "none", dtype: "f32", fingerprint: "0", embeddingSize: SIZE, logitScale: 4.7, logitBias: -13, backend: "cpu" };
    const model = { info, embedImage: async () => row(number++ % DIFFERENT), embedLabels: async () => ({ embeddings: query() }) };
    const about = { format: "siglip-web index 1", model: "none", dtype: "f32", fingerprint: "0", pipeline: "1" };
    const entries = new TextEncoder().encode(JSON.stringify(Array.from({ length: count }, (_, i) => ({ id: `Pictures/2024/summer/IMG_${i}.jpg`, size: 4_000_000 + i, modified: 1_700_000_000_000 + i }))));
    const bytes = 4 * SIZE * count;
    const header = new TextEncoder().encode(JSON.stringify({
      __metadata__: about,
      embeddings: { dtype: "F32", shape: [count, SIZE], data_offsets: [0, bytes] },
      entries: { dtype: "U8", shape: [entries.length], data_offsets: [bytes, bytes + entries.length] },
    }));
    const parts = [];
    for (let first = 0; first < count; first += 1000) {
      const part = new Float32Array(1000 * SIZE);
      for (let i = 0; i < 1000; i++) part.set(row(first + i), i * SIZE);
      parts.push(new Blob([part]));
    }
    const made = await SiglipIndex.open(model, { name: "bench" });
    console.log("index: imports");
    await made.import(new Blob([new BigUint64Array([BigInt(header.length)]), header, ...parts, entries]));
    await made.close();
    const [opens, searches, again] = [[], [], []];
    for (let round = 0; round < rounds; round++) {
      const [time, index] = await timed(() => SiglipIndex.open(model, { name: "bench" }));
      opens.push(time);
      await index.search("words");
      for (let i = 0; i < 3; i++) searches.push((await timed(() => index.search("words")))[0]);
      await index.close();
    }
    await SiglipIndex.delete("bench");
    console.log("index: makes files");
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("files", { create: true });
    const make = async (/** @type {number} */ i) => {
      const inner = await folder.getDirectoryHandle(`${i % 100}`, { create: true });
      const writable = await (await inner.getFileHandle(`${i}.jpg`, { create: true })).createWritable();
      await writable.write(`${i}`);
      await writable.close();
    };
    for (let first = 0; first < files; first += 100) await Promise.all(Array.from({ length: 100 }, (_, i) => make(first + i)));
    const index = await SiglipIndex.open(model, { name: "files" });
    const [first] = await timed(() => index.add(folder));
    for (let round = 0; round < rounds; round++) again.push((await timed(() => index.add(folder)))[0]);
    const { unchanged } = await index.add(folder);
    if (unchanged !== files || index.size !== files) throw new Error(`${unchanged} of ${files} files are unchanged, ${index.size} in the index`);
    await index.close();
    await SiglipIndex.delete("files");
    return { count, files, opens, searches, first, again };
  },

  /** One tower, the contestants in turns. → {contestant: {load, first, times, embeddings, note, logitScale?}} */
  async towers({ tower, names, rounds, side, dtype, threads }) {
    const results = {};
    const running = [];
    const run = async (name, contestant, round) => {
      const input = await inputOf(tower, round, side);
      const prepared = contestant.prepare ? await contestant.prepare(input) : input;
      const [time, embedding] = await timed(() => contestant.embed(prepared));
      results[name].embeddings.push(Array.from(embedding));
      console.log(`${tower} ${dtype} ${round}/${rounds}: ${name} ${time.toFixed(0)} ms`);
      return time;
    };
    for (const name of names) {
      console.log(`${tower} ${dtype}: loading ${name}`);
      const [load, contestant] = await timed(() => contestants[name]({ tower, dtype, threads }));
      results[name] = { load, times: [], embeddings: [], note: contestant.note, logitScale: contestant.logitScale };
      running.push([name, contestant]);
      // Before the next one's code is compiled beside it. It is no measure of the others.
      results[name].first = await run(name, contestant, 0);
    }
    for (let round = 1; round <= rounds; round++) {
      for (const [name, contestant] of running) results[name].times.push(await run(name, contestant, round));
    }
    for (const [, contestant] of running) await contestant.close();
    return results;
  },

  /** What labels and batches cost. → {image, cached, added: {count: [ms]}, batches: {count: [ms]}} */
  async labels({ rounds, side, dtype }) {
    const classifier = await ours({ dtype });
    let pictures = 0;
    let texts = 0;
    const fresh = () => picture(++pictures + 100, side);
    const labels = (count) => Array.from({ length: count }, () => text(++texts + 100));
    const known = labels(10);
    await classifier.classify(await fresh(), known);
    const result = { image: [], cached: [], added: {}, batches: {} };
    for (let round = 0; round < rounds; round++) {
      const [one, two] = [await fresh(), await fresh()];
      result.image.push((await timed(() => classifier.embedImage(one)))[0]);
      result.cached.push((await timed(() => classifier.classify(two, known)))[0]);
      for (const count of [1, 2, 4, 8, 16]) (result.added[count] ??= []).push((await timed(() => classifier.embedText(labels(count))))[0]);
      for (const count of [1, 2, 4, 8]) {
        const images = await Promise.all(Array.from({ length: count }, fresh));
        (result.batches[count] ??= []).push((await timed(() => classifier.embedImages(images)))[0]);
      }
      console.log(`labels and batches ${dtype} ${round + 1}/${rounds}`);
    }
    await classifier.dispose();
    return result;
  },

  /** One image tower of another size. → [ms] */
  async size({ model, rounds, side, dtype }) {
    const classifier = await ours({ model, dtype });
    const times = [];
    for (let round = 0; round <= rounds; round++) {
      const input = await picture(round + 1, side);
      const [time] = await timed(() => classifier.embedImage(input));
      if (round > 0) times.push(time);
      console.log(`${model} ${dtype} ${round}/${rounds}: ${time.toFixed(0)} ms`);
    }
    await classifier.dispose();
    return times;
  },

  /** What WebGPU offers here: a name, and whether a program imitates it. */
  async adapter() {
    const info = (await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" }))?.info;
    return { name: info ? [info.vendor, info.architecture, info.description].filter(Boolean).join(" ") : "none", real: info?.isFallbackAdapter === false };
  },

  /** One tower on the GPU: a first call after load, then warm ones. → {load, times, embedding} */
  async gpu({ name, tower = "image", side, rounds, dtype }) {
    console.log(`WebGPU: loading ${name}`);
    const [load, contestant] = await timed(() => contestants[name]({ tower, dtype, backend: "webgpu" }));
    const times = [];
    let embedding;
    for (let round = 0; round < rounds; round++) {
      const input = await inputOf(tower, round, side);
      const prepared = contestant.prepare ? await contestant.prepare(input) : input;
      const [time, result] = await timed(() => contestant.embed(prepared));
      times.push(time);
      embedding ??= Array.from(result);
      console.log(`WebGPU: ${name} ${time.toFixed(0)} ms`);
    }
    await contestant.close();
    return { load, times, embedding };
  },
};
window.ready = true;
