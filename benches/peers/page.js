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

const inputOf = (tower, round, side) => (tower === "image" ? picture(round + 1, side) : text(round + 11));

async function timed(work) {
  const began = performance.now();
  const result = await work();
  return [performance.now() - began, result];
}

window.bench = {
  /** One tower, the contestants in turns. → {contestant: {load, first, times, embeddings, note}} */
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
      results[name] = { load, times: [], embeddings: [], note: contestant.note };
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
