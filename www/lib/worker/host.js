// Runs beside the computation: in the worker, or on the main thread with `worker: false`.
// Chooses the backend, fetches the WebAssembly it needs, opens the checkpoint and what is kept of it, and answers messages:
//   in   {id, method: "load" | "classify" | "embedImage" | "embedImages" | "embedText" | "stats" | "dispose", …}   {cancel: id}
//   out  {id, progress}   {id, result}   {id, error: {code, message}}   {watch: port of a thread, see threads.js}
import { Download, PATIENCE } from "../files/download.js";
import { SiglipError, aborted, siglipError } from "../error.js";
import { openSource } from "../files/server.js";
import { pipelines } from "./pipelines.js";
import { Stored, openStore } from "../store/stored.js";
import { THREADS, Threads } from "./threads.js";

/** @typedef {{aborted: boolean}} Cancel */
/** @typedef {{cancel: Cancel, stop: AbortController, done?: Promise<any>}} Running */
/** @typedef {import("../files/server.js").Place} Place */
/** @typedef {import("../files/server.js").Progress} Progress */
/** @typedef {import("../files/download.js").Context} Context */
/** @typedef {{backend: "webgpu"|"cpu", glue: any, memory: WebAssembly.Memory | undefined, threads?: Threads, note?: string, crashed?: SiglipError}} Wasm */
/** @typedef {{progress: (progress: Progress) => void, watch: (port: MessagePort) => void}} Report what a load tells the page meanwhile */

/** One model and the calls to it, one at a time: the client keeps the queue. */
export class Host {
  #send;
  /** @type {Wasm} */
  #wasm;
  /** @type {any} the wasm Engine */
  #engine;
  /** @type {Context | undefined} of downloads: those of a load, and of rows that calls need later */
  #context;
  /** @type {Map<number, Running>} */
  #running = new Map();
  /** @type {SiglipError | undefined} */
  #broken;

  /** @param {(message: object, transfer?: Transferable[]) => void} send */
  constructor(send) {
    this.#send = send;
  }

  /** @param {any} message */
  async receive(message) {
    if ("cancel" in message) {
      const call = this.#running.get(message.cancel);
      if (call) call.cancel.aborted = true;
      call?.stop.abort();
      return;
    }
    const { id, method } = message;
    /** @type {Running} */
    const call = { cancel: { aborted: false }, stop: new AbortController() };
    this.#running.set(id, call);
    try {
      if (this.#broken && method !== "dispose") throw this.#broken;
      const answer = this.#answer(method, message, call);
      if (method !== "dispose") call.done = answer;
      const result = await answer;
      this.#send({ id, result });
    } catch (error) {
      if (error instanceof Crash) this.#broken = error.reason;
      const { code, message } = call.cancel.aborted ? aborted() : siglipError(error instanceof Crash ? error.reason : error);
      this.#send({ id, error: { code, message } });
    } finally {
      this.#running.delete(id);
    }
  }

  async #answer(method, message, { cancel, stop }) {
    // One call at a time: what it downloads ends with it.
    if (this.#context && method !== "dispose") this.#context.signal = stop.signal;
    switch (method) {
      case "load": {
        const report = {
          progress: (progress) => this.#send({ id: message.id, progress }),
          watch: (port) => this.#send({ watch: port }, [port]),
        };
        const { wasm, engine, context, info } = await load(message, report, cancel, stop.signal);
        if (cancel.aborted) {
          // Too late to have stopped: nobody waits for it any more.
          engine.dispose();
          engine.free();
          throw aborted();
        }
        this.#wasm = wasm;
        this.#engine = engine;
        this.#context = context;
        return info;
      }
      case "classify":
        return guard(this.#wasm, () => this.#engine.classify(message.image, message.labels, message.options, cancel));
      case "embedImage":
        return guard(this.#wasm, () => this.#engine.embedImage(message.image, cancel));
      case "embedImages":
        return guard(this.#wasm, () => this.#engine.embedImages(message.images, cancel));
      case "embedText":
        return guard(this.#wasm, () => this.#engine.embedText(message.texts, cancel));
      case "stats": {
        const { imageRuns, textRuns } = this.#engine.stats;
        return { imageRuns, textRuns, memory: this.#wasm.memory?.buffer.byteLength };
      }
      case "dispose": {
        await Promise.allSettled([...this.#running.values()].map((call) => call.done));
        const engine = this.#engine;
        this.#engine = undefined;
        if (!this.#broken) {
          engine?.dispose();
          engine?.free();
        }
        return undefined;
      }
    }
  }
}

// ---------------------------------------------------------------------------------------------------------
// Backend and WebAssembly

/**
 * @param {{place: Place, name: string, backend: "auto"|"webgpu"|"cpu", dtype: string, cache: boolean, wholeTable: boolean, patience?: Partial<import("../files/download.js").Patience>}} request
 * @param {Report} report
 * @param {Cancel} cancel
 * @param {AbortSignal} signal
 */
async function load({ place, name, backend, dtype, cache, wholeTable, patience }, report, cancel, signal) {
  const choice = await chooseBackend(backend);
  if (signal.aborted) throw aborted();
  const wait = (waiting) => report.progress({ stage: "download", loaded: 0, total: 0, waiting });
  /** @type {Context} */
  const context = { signal, name, hub: place.kind === "url" && place.hub !== undefined, patience: { ...PATIENCE, ...patience }, caching: "default", wait };
  const attempt = async ({ backend, reason, adapter }, again = false) => {
    const wasm = await instantiate(backend, report, context);
    const stored = await openStored(place, { name, dtype: dtype === "auto" ? `auto-${backend}` : dtype }, cache, context);
    try {
      const source = openSource(place, context, stored, report.progress);
      const options = { backend, backendReason: [reason, wasm.note].filter(Boolean).join(" "), adapter: adapterOf(wasm) ?? adapter, dtype, wholeTable, name };
      // "ready" is reported by the client.
      const progress = (stage, file, loaded, total, fromCache) => {
        if (stage === "download" && file) source.loaded(file, loaded, total, fromCache);
        else if (stage !== "ready") report.progress({ stage, ...(file && { file }), loaded, total });
      };
      const engine = await guard(wasm, () => wasm.glue.Engine.load(source, stored.problem ? undefined : stored, options, pipelines, progress, cancel));
      return { wasm, engine, context, info: { ...engine.info, cached: stored.complete, cacheReason: stored.reason } };
    } catch (error) {
      // Parts of two versions of the model would have come together. The older ones are gone now.
      if (!stored.stale || again || signal.aborted) throw error;
      stored.release();
      return attempt({ backend, reason, adapter }, true);
    } finally {
      stored.release();
    }
  };
  try {
    return await attempt(choice);
  } catch (thrown) {
    const error = thrown instanceof Crash ? thrown.reason : siglipError(thrown);
    const gpuFailed = backend === "auto" && choice.backend === "webgpu" && !cancel.aborted;
    if (!gpuFailed || !["device-lost", "unsupported", "out-of-memory"].includes(error.code)) throw thrown;
    return await attempt({ ...CPU, reason: `The CPU is used because WebGPU on ${choice.adapter} failed: ${error.message}` });
  }
}

/**
 * What is kept of the model, or a stand-in that keeps nothing.
 * @param {Place} place @param {{name: string, dtype: string}} model @param {boolean} cache @param {Context} context
 */
async function openStored(place, { name, dtype }, cache, context) {
  const source = place.kind === "url" ? place.base : "";
  const none = (why) => new Stored(undefined, { format: 0, name, source, dtype, files: {}, weights: {} }, why);
  if (place.kind !== "url") return none("The model's files are on this device already");
  // The demo is a part of the library.
  if (place.base === new URL("../models/demo/", import.meta.url).href) return none("The demo model comes with the page");
  if (!cache) {
    context.caching = "no-store";
    return none("The model isn't kept, as it was asked");
  }
  const stored = await openStore({ name, source, dtype }, context.signal, context.wait);
  // One copy is enough.
  context.caching = stored.problem ? "default" : "no-store";
  return stored;
}

/** Whether this browser has relaxed SIMD: a module of one instruction of it, i8x16.relaxed_swizzle. */
const RELAXED = WebAssembly.validate(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11));

const CPU = /** @type {const} */ ({ backend: "cpu" });

/** @param {Wasm} wasm */
function adapterOf({ backend, threads }) {
  if (backend !== "cpu") return undefined;
  return `WebAssembly${RELAXED ? " relaxed" : ""} SIMD${threads ? `, ${THREADS} threads` : ""}`;
}

/** Renderers that are programs, not devices: slower than our own CPU path. */
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|basic render|\bwarp\b|software/i;

/** @param {"auto"|"webgpu"|"cpu"} wish */
async function chooseBackend(wish) {
  if (wish === "cpu") return { ...CPU, reason: "The CPU is used because it was asked for." };
  const { adapter, software, missing } = await probe();
  if (wish === "auto" && missing) return { ...CPU, reason: `The CPU is used because ${missing}.` };
  if (wish === "auto" && software) {
    return { ...CPU, reason: `The CPU is used because the only graphics adapter, ${adapter}, is a program that imitates a GPU and would be slower.` };
  }
  if (missing) throw new SiglipError("unsupported", `WebGPU was asked for, but ${missing}. Use backend "auto" or "cpu", or a browser and device with WebGPU.`);
  const asked = wish === "webgpu" ? " because it was asked for" : "";
  const slow = software ? ", a program that imitates a GPU" : "";
  return { backend: /** @type {const} */ ("webgpu"), adapter, reason: `WebGPU is used${asked} on ${adapter}${slow}.` };
}

async function probe() {
  const { gpu } = /** @type {any} */ (navigator);
  if (!gpu) return { missing: self.isSecureContext ? "this browser offers no WebGPU" : "WebGPU needs a secure page (https: or localhost)" };
  let adapter;
  try {
    adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  } catch (error) {
    return { missing: `this browser's WebGPU failed (${error.message})` };
  }
  if (!adapter) return { missing: "this browser found no graphics adapter that WebGPU can use" };
  const info = adapter.info ?? {};
  const words = [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(" ");
  const software = Boolean(info.isFallbackAdapter ?? adapter.isFallbackAdapter) || SOFTWARE.test(words);
  return { adapter: info.description || words || "an unnamed GPU", software };
}

/** The modules of this thread that run. A worker has one; pages with `worker: false` share theirs. @type {{webgpu?: Wasm, cpu?: Wasm}} */
const modules = {};
/** How often a module was given up: a trapped instance can't be used again, and the same script under another query is a fresh one. */
const crashes = { webgpu: 0, cpu: 0 };
/** One instantiation at a time: a second one would overwrite the first one's instance. @type {Record<string, Promise<any>>} */
const starting = {};

/**
 * @param {"webgpu"|"cpu"} backend
 * @param {Report} report
 * @param {Context} context
 * @returns {Promise<Wasm>}
 */
function instantiate(backend, report, context) {
  const before = starting[backend] ?? Promise.resolve();
  const turn = before.catch(() => {}).then(async () => (modules[backend] ??= await start(backend, report, context)));
  starting[backend] = turn;
  return turn;
}

/** The best module that starts here. @param {"webgpu"|"cpu"} backend @param {Report} report @param {Context} context */
async function start(backend, report, context) {
  if (backend === "webgpu") return startModule("siglip_web_webgpu", backend, report, context);
  if (RELAXED && THREADS > 1) {
    try {
      return await startModule("siglip_web_cpu_threads", backend, report, context);
    } catch (error) {
      // Shared memory must be reserved whole, and more scripts be served with the right headers: one thread needs neither.
      if (context.signal.aborted) throw error;
      const wasm = await startModule("siglip_web_cpu_relaxed", backend, report, context);
      return { ...wasm, note: `One thread is used because more could not be started: ${error.message}` };
    }
  }
  return startModule(RELAXED ? "siglip_web_cpu_relaxed" : "siglip_web_cpu", backend, report, context);
}

/** Written out, so that bundlers see the files. */
const MODULES = {
  siglip_web_webgpu: { glue: () => import("../pkg/siglip_web_webgpu.js"), wasm: () => new URL("../pkg/siglip_web_webgpu_bg.wasm", import.meta.url) },
  siglip_web_cpu: { glue: () => import("../pkg/siglip_web_cpu.js"), wasm: () => new URL("../pkg/siglip_web_cpu_bg.wasm", import.meta.url) },
  siglip_web_cpu_relaxed: { glue: () => import("../pkg/siglip_web_cpu_relaxed.js"), wasm: () => new URL("../pkg/siglip_web_cpu_relaxed_bg.wasm", import.meta.url) },
  siglip_web_cpu_threads: { glue: () => import("../pkg/siglip_web_cpu_threads.js"), wasm: () => new URL("../pkg/siglip_web_cpu_threads_bg.wasm", import.meta.url) },
};

/**
 * @param {keyof typeof MODULES} name @param {"webgpu"|"cpu"} backend @param {Report} report @param {Context} context
 * @returns {Promise<Wasm>}
 */
async function startModule(name, backend, report, context) {
  const { signal } = context;
  if (signal.aborted) throw aborted();
  const threads = name === "siglip_web_cpu_threads" ? new Threads(report.watch) : undefined;
  try {
    const glue = await importGlue(name, crashes[backend]);
    const module = await compile(name, report, context);
    const exports = await glue.default({ module_or_path: module });
    await threads?.share(module, exports.memory, glue, signal);
    return { backend, glue, memory: exports?.memory, threads };
  } catch (error) {
    threads?.end();
    if (signal.aborted) throw aborted();
    if (error instanceof WebAssembly.CompileError || error instanceof WebAssembly.LinkError) {
      throw new SiglipError("unsupported", `This page can't run the library's WebAssembly (${error.message}). It takes a browser with WebAssembly SIMD and, under a Content-Security-Policy that limits scripts, 'wasm-unsafe-eval'.`, { cause: error });
    }
    throw siglipError(error, "network");
  }
}

/** @param {keyof typeof MODULES} name @param {number} crashes @returns {Promise<any>} */
async function importGlue(name, crashes) {
  try {
    return await (crashes ? import(/* @vite-ignore */ `../pkg/${name}.js?${crashes}`) : MODULES[name].glue());
  } catch (error) {
    throw new SiglipError("network", `The library's file pkg/${name}.js could not be loaded (${error.message}). Serve the whole folder that siglip-web.js is in.`, { cause: error });
  }
}

/** @param {keyof typeof MODULES} name @param {Report} report @param {Context} context */
async function compile(name, report, context) {
  const address = MODULES[name].wasm();
  const file = `${name}_bg.wasm`;
  const response = await new Download({ ...context, name: "the library", hub: false }, address.href, file).first();
  if (!response) throw new SiglipError("network", `The library's file ${address.href} is not there. Serve the whole folder that siglip-web.js is in.`);
  // Under its own media type: some servers don't know application/wasm, and compiling while loading insists on it.
  const body = counted(response, file, report.progress);
  return WebAssembly.compileStreaming(new Response(body, { headers: { "content-type": "application/wasm" } }));
}

/** The body with its bytes reported as they arrive. @param {Response} response @param {string} file @param {(progress: Progress) => void} report */
function counted(response, file, report) {
  const total = Number(response.headers.get("content-length")) || 0;
  let loaded = 0;
  let reported = -Infinity;
  const tell = (last) => {
    const now = performance.now();
    if (!last && now - reported < 50) return;
    reported = now;
    report({ stage: "download", file, loaded, total: last ? loaded : Math.max(total, loaded) });
  };
  tell(false);
  return (response.body ?? new Blob([]).stream()).pipeThrough(new TransformStream({
    transform(bytes, controller) {
      loaded += bytes.length;
      tell(false);
      controller.enqueue(bytes);
    },
    flush() {
      tell(true);
    },
  }));
}

/** A trap: the module's memory can't be trusted any more. */
class Crash extends Error {
  /** @param {SiglipError} reason */
  constructor(reason) {
    super(reason.message);
    this.reason = reason;
  }
}

/**
 * Runs a call into WebAssembly so that it always ends. A trap inside an asynchronous call never settles its
 * promise: it surfaces as an uncaught error of this thread, and is caught there.
 * @param {Wasm} wasm
 * @param {() => any} call
 * @returns {Promise<any>}
 */
function guard(wasm, call) {
  const crash = (error) => {
    abandon(wasm);
    const memory = /memory|alloc/i.test(error.message) || !canGrow(wasm.memory);
    wasm.crashed = memory
      ? new SiglipError("out-of-memory", "The model ran out of memory and had to stop. Close other tabs or take a smaller model or picture, and load the model again.", { cause: error })
      : new SiglipError("device-lost", `The computation crashed (${error.message}) and had to stop. Load the model again; if it happens again, try backend "cpu".`, { cause: error });
    return new Crash(wasm.crashed);
  };
  const failure = (error) => {
    if (trapped(error)) return crash(error);
    // The module remembers a lost GPU; only a fresh one asks for it again.
    if (error?.code === "device-lost") abandon(wasm);
    return error;
  };
  if (wasm.crashed) return Promise.reject(new Crash(wasm.crashed));
  return new Promise((resolve, reject) => {
    /** @param {any} event */
    const uncaught = (event) => {
      const error = event.error ?? event.reason;
      if (!trapped(error) || strange(error, wasm)) return;
      event.preventDefault();
      end(reject, crash(error));
    };
    const end = (settle, value) => {
      self.removeEventListener("error", uncaught);
      self.removeEventListener("unhandledrejection", uncaught);
      settle(value);
    };
    self.addEventListener("error", uncaught);
    self.addEventListener("unhandledrejection", uncaught);
    Promise.resolve().then(call).then(
      (value) => end(resolve, value),
      (error) => end(reject, failure(error)),
    );
  });
}

/** The next load takes a fresh module. @param {Wasm} wasm */
function abandon(wasm) {
  if (modules[wasm.backend] !== wasm) return;
  wasm.threads?.end();
  delete modules[wasm.backend];
  crashes[wasm.backend] += 1;
}

/** A failed allocation is a trap like any other; but where memory can't grow by half a GiB, it was one. @param {WebAssembly.Memory} [memory] */
function canGrow(memory) {
  try {
    memory?.grow(2 ** 13);
    return true;
  } catch {
    return false;
  }
}

/** Whether a trap is one of the other backend's module, given up earlier. @param {Error} error @param {Wasm} wasm */
function strange(error, { backend }) {
  const name = (word) => String(error.stack).includes(`siglip_web_${word}`);
  return !name(backend) && name(backend === "cpu" ? "webgpu" : "cpu");
}

/** @param {any} error */
function trapped(error) {
  return error instanceof WebAssembly.RuntimeError || (error instanceof RangeError && /call stack/i.test(error.message));
}
