// Runs in the page: one tower at a time, the contestants in turns, each call with an input it has not seen.
// `window.bench(tower, settings)` resolves to {contestant: {load, times, embeddings}} for bench.mjs.

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

/** Every contestant: load(tower) → embed(input) → embedding. `inputs` lets onnxruntime-web share the peer's preprocessing. */
const contestants = {
  async "siglip-web"({ tower, dtype }) {
    const { SiglipClassifier } = await import("/www/siglip-web.js");
    const classifier = await SiglipClassifier.load(new URL("/model/", location.href).href, { backend: "cpu", dtype, cache: false });
    return {
      note: classifier.info.backendReason,
      embed: tower === "image" ? (input) => classifier.embedImage(input) : async (input) => (await classifier.embedText([input]))[0],
      close: () => classifier.dispose(),
    };
  },

  async "Transformers.js"({ tower }) {
    const peer = await transformers();
    const prepare = await preparation(tower);
    const Model = tower === "image" ? peer.SiglipVisionModel : peer.SiglipTextModel;
    const model = await Model.from_pretrained("onnx", { dtype: "fp32", device: "wasm" });
    return {
      embed: async (input) => unit((await model(await prepare(input))).pooler_output.data),
      close: () => model.dispose(),
    };
  },

  async "onnxruntime-web"({ tower }) {
    const ort = await import("onnxruntime-web/wasm");
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = "/npm/onnxruntime-web/dist/";
    const prepare = await preparation(tower);
    const file = tower === "image" ? "vision" : "text";
    const bytes = new Uint8Array(await (await fetch(`/onnx/onnx/${file}_model.onnx`)).arrayBuffer());
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
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

async function transformers() {
  const peer = await import("@huggingface/transformers");
  peer.env.allowRemoteModels = false;
  peer.env.allowLocalModels = true;
  peer.env.localModelPath = "/";
  peer.env.useBrowserCache = false;
  peer.env.backends.onnx.wasm.wasmPaths = "/npm/onnxruntime-web/dist/";
  peer.env.backends.onnx.wasm.numThreads = 1;
  return peer;
}

/** Transformers.js's way from a picture or a label to the tower's input. */
async function preparation(tower) {
  const peer = await transformers();
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

window.bench = async (tower, { names, rounds, side, dtype }) => {
  const results = {};
  const running = [];
  for (const name of names) {
    console.log(`${tower}: loading ${name}`);
    const began = performance.now();
    const contestant = await contestants[name]({ tower, dtype });
    results[name] = { load: performance.now() - began, times: [], embeddings: [], note: contestant.note };
    running.push([name, contestant]);
  }
  for (let round = 0; round <= rounds; round++) {
    const input = tower === "image" ? await picture(round + 1, side) : text(round + 11);
    for (const [name, contestant] of running) {
      const prepared = contestant.prepare ? await contestant.prepare(input) : input;
      const began = performance.now();
      const embedding = await contestant.embed(prepared);
      const time = performance.now() - began;
      // the first call compiles, and is no measure of the others
      if (round > 0) results[name].times.push(time);
      else results[name].first = time;
      results[name].embeddings.push(Array.from(embedding));
      console.log(`${tower} ${round}/${rounds}: ${name} ${time.toFixed(0)} ms`);
    }
  }
  for (const [, contestant] of running) await contestant.close();
  return results;
};
window.ready = true;
