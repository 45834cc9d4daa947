// Stands in for pkg/siglip_web_{cpu,webgpu}.js where a test needs an engine that fails on command: it lets the
// library meet a lost device, a trap or a call that never ends, which the real engine does not do on demand.
// What to do is said by the model's config.json ({"webgpu": CODE} or {"cpu": CODE}: loading fails so; {"weights": true}: the
// weights are read and kept as the real engine does it, without computing anything) and by labels.
const backend = /webgpu/.test(import.meta.url) ? "webgpu" : "cpu";

export function create() {
  let exports;

  async function init({ module_or_path }) {
    exports = (await WebAssembly.instantiate(module_or_path)).exports;
    return exports;
  }

  function fail(code, message = `the mock was told to fail with ${code}`) {
    throw Object.assign(new Error(message), { name: "SiglipError", code });
  }

  /** A trap as wasm-bindgen's futures meet it: uncaught, and the promise never settles. */
  function trap() {
    Promise.resolve().then(() => exports.trap());
    return new Promise(() => {});
  }

  /** Until the message that sets the flag has come through the event loop. */
  async function untilCancelled(cancel) {
    const { port1, port2 } = new MessageChannel();
    while (!cancel.aborted) {
      await new Promise((resolve) => {
        port1.onmessage = resolve;
        port2.postMessage(0);
      });
    }
    port1.close();
    fail("aborted", "stopped");
  }

  /** @param {ArrayBuffer | Uint8Array} bytes */
  async function sum(bytes) {
    return [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /** Reads a safetensors file, or what is kept of it, tensor by tensor. */
  async function readWeights(source, store = { get() {}, put() {}, manifest() {}, commit() {} }, dtype, progress) {
    const FILE = "model.safetensors";
    const text = (bytes) => new TextDecoder().decode(bytes);
    const kept = async (key) => {
      const bytes = await store.get(key);
      return bytes && (await sum(bytes.subarray(64))) === text(bytes.subarray(0, 64)) ? bytes.subarray(64) : undefined;
    };
    const tensors = new Map();
    const manifest = await store.manifest();
    const missing = [];
    let reader;
    for (const name of manifest ? JSON.parse(manifest).tensors : []) {
      tensors.set(name, await kept(name));
      if (tensors.get(name)) progress("download", FILE, tensors.size, 0, true);
    }
    if (tensors.size === 0 || [...tensors.values()].includes(undefined)) {
      reader = await source.open(FILE);
      if (!reader) fail("bad-model", `${FILE} is missing`);
      const length = Number(new DataView((await reader.readAt(0, 8)).slice().buffer).getBigUint64(0, true));
      const { __metadata__, ...header } = JSON.parse(text(await reader.readAt(8, length)));
      for (const [name, { data_offsets: [start, end] }] of Object.entries(header).sort(([, a], [, b]) => a.data_offsets[0] - b.data_offsets[0])) {
        const bytes = tensors.get(name) ?? (await kept(name));
        tensors.set(name, bytes);
        if (!bytes) missing.push({ name, start: 8 + length + start, length: end - start });
      }
      reader.plan(new Float64Array(missing.flatMap(({ start, length }) => [start, length])));
      let put = 0;
      for (const { name, start, length } of missing) {
        const bytes = (await reader.readAt(start, length)).slice();
        if (bytes.length < length) fail("bad-model", `${FILE} ends in ${name}`);
        tensors.set(name, bytes);
        const entry = new Uint8Array(64 + length);
        entry.set(new TextEncoder().encode(await sum(bytes)));
        entry.set(bytes, 64);
        await store.put(name, entry);
        progress("download", FILE, start + length, reader.size ?? 0, false);
        progress("load", undefined, ++put, missing.length);
      }
      await store.commit(JSON.stringify({ dtype, tensors: [...tensors.keys()] }));
    }
    const all = await new Blob([...tensors.values()]).arrayBuffer();
    return { reader, weights: { digest: await sum(all), fetched: missing.length, tensors: tensors.size, size: reader?.size, sha256: reader?.sha256, ranges: reader?.ranges } };
  }

  class Engine {
    #calls = 0;
    #stopped = 0;
    #reader;

    static async load(source, store, options, _pipelines, _tokenizers, progress, cancel) {
      const json = (await source.readAll("config.json", 1e6)) ?? (await source.readAll("open_clip_config.json", 1e6));
      if (!json) fail("bad-model", "config.json is missing");
      const config = JSON.parse(new TextDecoder().decode(json));
      const order = config[backend];
      if (order === "trap") return trap();
      if (order === "never") return untilCancelled(cancel);
      if (order) fail(order);
      const engine = new Engine();
      progress("load", "model.safetensors", 5, 10);
      progress("warmup", undefined, 0, 1);
      if (config.also) await source.readAll(config.also, 1e6);
      await source.keep();
      const { reader, weights } = config.weights ? await readWeights(source, store, options.dtype, progress) : {};
      engine.#reader = reader;
      engine.info = { ...options, weights, unused: config.unused ?? [], task: "zero-shot-image-classification", scores: "sigmoid", imageSize: 224, resample: 3, patchSize: 16, naflex: false, maxPatches: 196, embeddingSize: 2, contextLength: 64, parameters: 1, logitScale: 1, logitBias: 0, bytes: 10 };
      return engine;
    }

    async classify(image, labels, options, _progress, cancel) {
      this.#calls++;
      if (labels[0] === "trap") return trap();
      if (labels[0] === "throw a trap") exports.trap();
      if (labels[0] === "never ends") {
        return untilCancelled(cancel).finally(() => this.#stopped++);
      }
      if (labels[0] === "reject") fail(labels[1]);
      return labels.map((label, i) => ({ label, score: 0.9 / (i + 1), logit: this.#calls }));
    }

    /** A text "offset length" gives these bytes of the file, as rows of the token table are read. */
    async embedText(texts) {
      const reads = texts.map((text) => text.split(" ").map(Number));
      this.#reader.plan(new Float64Array(reads.flat()));
      const rows = [];
      for (const [offset, length] of reads) rows.push(Float32Array.from(await this.#reader.readAt(offset, length)));
      return rows;
    }

    get stats() {
      return { imageRuns: this.#calls, textRuns: this.#stopped };
    }

    dispose() {}
    free() {}
  }

  return Object.assign(init, { Engine });
}
