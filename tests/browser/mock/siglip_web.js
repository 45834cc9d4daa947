// Stands in for pkg/siglip_web_{cpu,webgpu}.js where a test needs an engine that fails on command: it lets the
// library meet a lost device, a trap or a call that never ends, which the real engine does not do on demand.
// What to do is said by the model's config.json ({"webgpu": CODE} or {"cpu": CODE}: loading fails so) and by labels.
const backend = /webgpu/.test(import.meta.url) ? "webgpu" : "cpu";
let exports;

export default async function init({ module_or_path }) {
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

export class Engine {
  #calls = 0;
  #stopped = 0;

  static async load(source, store, options, progress, cancel) {
    const config = JSON.parse(new TextDecoder().decode(await source.readAll("config.json")));
    const order = config[backend];
    if (order === "trap") return trap();
    if (order === "never") return untilCancelled(cancel);
    if (order) fail(order);
    const engine = new Engine();
    progress("load", "model.safetensors", 5, 10);
    progress("warmup", undefined, 0, 1);
    engine.info = { ...options, imageSize: 224, patchSize: 16, embeddingSize: 2, contextLength: 64, parameters: 1, logitScale: 1, logitBias: 0, bytes: 10 };
    return engine;
  }

  async classify(image, labels, options, cancel) {
    this.#calls++;
    if (labels[0] === "trap") return trap();
    if (labels[0] === "throw a trap") exports.trap();
    if (labels[0] === "never ends") {
      return untilCancelled(cancel).finally(() => this.#stopped++);
    }
    if (labels[0] === "reject") fail(labels[1]);
    return labels.map((label, i) => ({ label, score: 0.9 / (i + 1), logit: this.#calls }));
  }

  get stats() {
    return { imageRuns: this.#calls, textRuns: this.#stopped };
  }

  dispose() {}
  free() {}
}
