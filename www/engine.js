// Runs beside the computation: in the worker, or on the main thread with `worker: false`.
// Chooses the backend, fetches the WebAssembly it needs, reads the checkpoint's files, and answers messages:
//   in   {id, method: "load" | "classify" | "embedImage" | "embedText" | "stats" | "dispose", …}   {cancel: id}
//   out  {id, progress}   {id, result}   {id, error: {code, message}}
import { SiglipError, aborted, siglipError } from "./error.js";

/** @typedef {{aborted: boolean}} Cancel */
/** @typedef {{cancel: Cancel, stop: AbortController, done?: Promise<any>}} Running */
/** @typedef {{stage: string, file?: string, loaded: number, total: number}} Progress */
/** @typedef {{backend: "webgpu"|"cpu", glue: any, memory: WebAssembly.Memory | undefined, crashed?: SiglipError}} Wasm */
/** @typedef {{kind: "url", base: string, hub: boolean} | {kind: "files", files: Map<string, File>} | {kind: "directory", handle: FileSystemDirectoryHandle}} Place */

/** One model and the calls to it, one at a time: the client keeps the queue. */
export class Host {
  #send;
  /** @type {Wasm} */
  #wasm;
  /** @type {any} the wasm Engine */
  #engine;
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
    switch (method) {
      case "load": {
        const report = (progress) => this.#send({ id: message.id, progress });
        const { wasm, engine } = await load(message, report, cancel, stop.signal);
        if (cancel.aborted) {
          // Too late to have stopped: nobody waits for it any more.
          engine.dispose();
          engine.free();
          throw aborted();
        }
        this.#wasm = wasm;
        this.#engine = engine;
        return engine.info;
      }
      case "classify":
        return guard(this.#wasm, () => this.#engine.classify(message.image, message.labels, message.options, cancel));
      case "embedImage":
        return guard(this.#wasm, () => this.#engine.embedImage(message.image, cancel));
      case "embedText":
        return guard(this.#wasm, () => this.#engine.embedText(message.texts, cancel));
      case "stats": {
        const { imageRuns, textRuns } = this.#engine.stats;
        return { imageRuns, textRuns };
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
 * @param {{place: Place, name: string, backend: "auto"|"webgpu"|"cpu", dtype: string}} request
 * @param {(progress: Progress) => void} report
 * @param {Cancel} cancel
 * @param {AbortSignal} signal
 */
async function load({ place, name, backend, dtype }, report, cancel, signal) {
  const choice = await chooseBackend(backend);
  if (signal.aborted) throw aborted();
  const attempt = async ({ backend, reason, adapter }) => {
    const wasm = await instantiate(backend, report, signal);
    const source = openSource(place, name, report, signal);
    const options = { backend, backendReason: reason, adapter, dtype, name };
    // Downloads are reported where they arrive, in the source, and "ready" by the client.
    const progress = (stage, file, loaded, total) => {
      if (stage !== "ready" && !(stage === "download" && place.kind === "url")) report({ stage, ...(file && { file }), loaded, total });
    };
    const engine = await guard(wasm, () => wasm.glue.Engine.load(source, undefined, options, progress, cancel));
    return { wasm, engine };
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

const CPU = /** @type {const} */ ({ backend: "cpu", adapter: "WebAssembly SIMD" });

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
 * @param {(progress: Progress) => void} report
 * @param {AbortSignal} signal
 * @returns {Promise<Wasm>}
 */
function instantiate(backend, report, signal) {
  const before = starting[backend] ?? Promise.resolve();
  const turn = before.catch(() => {}).then(async () => (modules[backend] ??= await start(backend, report, signal)));
  starting[backend] = turn;
  return turn;
}

async function start(backend, report, signal) {
  if (signal.aborted) throw aborted();
  let glue;
  try {
    // Written out, so that bundlers see the files.
    if (crashes[backend]) glue = await import(/* @vite-ignore */ `./pkg/siglip_web_${backend}.js?${crashes[backend]}`);
    else if (backend === "webgpu") glue = await import("./pkg/siglip_web_webgpu.js");
    else glue = await import("./pkg/siglip_web_cpu.js");
  } catch (error) {
    throw new SiglipError("network", `The library's file pkg/siglip_web_${backend}.js could not be loaded (${error.message}). Serve the whole folder that siglip-web.js is in.`, { cause: error });
  }
  const address = backend === "webgpu" ? new URL("./pkg/siglip_web_webgpu_bg.wasm", import.meta.url) : new URL("./pkg/siglip_web_cpu_bg.wasm", import.meta.url);
  const response = await get(address, signal);
  if (!response) throw new SiglipError("network", `The library's file ${address.href} is not there. Serve the whole folder that siglip-web.js is in.`);
  try {
    // Under its own media type: some servers don't know application/wasm, and compiling while loading insists on it.
    const body = counted(response, `siglip_web_${backend}_bg.wasm`, report);
    const module = await WebAssembly.compileStreaming(new Response(body, { headers: { "content-type": "application/wasm" } }));
    const exports = await glue.default({ module_or_path: module });
    return { backend, glue, memory: exports?.memory };
  } catch (error) {
    if (signal.aborted) throw aborted();
    if (error instanceof WebAssembly.CompileError || error instanceof WebAssembly.LinkError) {
      throw new SiglipError("unsupported", `This page can't run the library's WebAssembly (${error.message}). It takes a browser with WebAssembly SIMD and, under a Content-Security-Policy that limits scripts, 'wasm-unsafe-eval'.`, { cause: error });
    }
    throw siglipError(error, "network");
  }
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

// ---------------------------------------------------------------------------------------------------------
// The checkpoint's files: what the engine calls Source

/**
 * @param {Place} place
 * @param {string} name how messages call the model
 * @param {(progress: Progress) => void} report
 * @param {AbortSignal} signal
 */
function openSource(place, name, report, signal) {
  /** @type {(file: string) => Promise<Response | File | undefined>} */
  const find = async (file) => {
    if (!file.split("/").every((part) => /^[\w.-]+$/.test(part) && !/^\.+$/.test(part))) {
      throw new SiglipError("bad-model", `${name} names a file ${JSON.stringify(file)}, which is not a name inside its folder.`);
    }
    if (place.kind === "files") return place.files.get(file);
    if (place.kind === "directory") return fromDirectory(place.handle, file);
    const address = new URL(file.split("/").map(encodeURIComponent).join("/"), place.base);
    address.search = new URL(place.base).search;
    const response = await get(address, signal, place.hub ? name : undefined);
    if (response && /^text\/html\b/i.test(response.headers.get("content-type") ?? "")) {
      throw new SiglipError("bad-model", `${address.href} is a web page (HTML), not the model's ${file}. Give the address of the folder that holds the files themselves.`);
    }
    return response;
  };
  return {
    async readAll(file) {
      const found = await find(file);
      if (!found) return undefined;
      if (found instanceof Blob) return read(found, file, name);
      return new Uint8Array(await new Response(counted(found, file, report)).arrayBuffer().catch((error) => { throw interrupted(error, found.url, signal); }));
    },
    async open(file) {
      const found = await find(file);
      if (!found) return undefined;
      return found instanceof Blob ? slices(found, file, name) : stream(found, file, report, signal);
    },
  };
}

/** @param {FileSystemDirectoryHandle} directory @param {string} file */
async function fromDirectory(directory, file) {
  const parts = file.split("/");
  try {
    for (const part of parts.slice(0, -1)) directory = await directory.getDirectoryHandle(part);
    return await (await directory.getFileHandle(parts[parts.length - 1])).getFile();
  } catch (error) {
    if (error.name === "NotFoundError" || error.name === "TypeMismatchError") return undefined;
    throw new SiglipError("network", `${file} in the folder ${directory.name} could not be read (${error.message}). Choose the folder again and allow reading.`, { cause: error });
  }
}

/** @param {Blob} blob @param {string} file @param {string} name */
async function read(blob, file, name) {
  try {
    return new Uint8Array(await blob.arrayBuffer());
  } catch (error) {
    if (error instanceof RangeError) throw siglipError(error);
    throw new SiglipError("network", `${file} of ${name} could not be read (${error.message}). It may have been moved or changed since it was chosen: choose it again.`, { cause: error });
  }
}

/** @param {File} blob @param {string} file @param {string} name */
function slices(blob, file, name) {
  return {
    size: blob.size,
    ranges: true,
    sha256: undefined,
    plan() {},
    readAt(offset, length) {
      return read(blob.slice(offset, offset + length), file, name);
    },
    close() {},
  };
}

/**
 * One download, read in order; only what was asked for is held.
 * @param {Response} response @param {string} file @param {(progress: Progress) => void} report @param {AbortSignal} signal
 */
function stream(response, file, report, signal) {
  const reader = counted(response, file, report).getReader();
  let chunk = new Uint8Array(0);
  let position = 0;
  const take = async (length) => {
    const out = new Uint8Array(length);
    let filled = 0;
    while (filled < length) {
      if (chunk.length === 0) {
        const next = await reader.read().catch((error) => { throw interrupted(error, response.url, signal); });
        if (next.done) break;
        chunk = next.value;
      }
      const part = chunk.subarray(0, length - filled);
      out.set(part, filled);
      filled += part.length;
      chunk = chunk.subarray(part.length);
    }
    position += filled;
    return out.subarray(0, filled);
  };
  return {
    size: exactSize(response),
    ranges: false,
    sha256: undefined,
    plan() {},
    async readAt(offset, length) {
      while (position < offset) {
        const skipped = await take(Math.min(offset - position, 2 ** 20));
        if (skipped.length === 0) return skipped;
      }
      return take(length);
    },
    close() {
      reader.cancel().catch(() => {});
    },
  };
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

/** The file's size, where the answer's length is certain to be that: a compressed answer has another, and another site's answer hides whether it is. @param {Response} response */
function exactSize(response) {
  const length = response.headers.get("content-length");
  const plain = response.type === "basic" && !response.headers.get("content-encoding");
  return plain && length !== null ? Number(length) : undefined;
}

/** @param {any} error @param {string} address @param {AbortSignal} signal */
function interrupted(error, address, signal) {
  if (signal.aborted) return aborted();
  if (error instanceof RangeError) return siglipError(error);
  return new SiglipError("network", `The download of ${address} broke off (${error.message}). Check the connection and load again.`, { cause: error });
}

/**
 * @param {URL} address @param {AbortSignal} signal @param {string} [hub] the model's name, where it is one of the Hugging Face Hub
 * @returns {Promise<Response | undefined>} undefined: there is no such file
 */
async function get(address, signal, hub) {
  let response;
  try {
    response = await fetch(address, { signal });
  } catch (error) {
    if (signal.aborted) throw aborted();
    throw new SiglipError("network", `${address.href} could not be fetched (${error.message}). Check the connection and the address; a file of another site must allow this page to read it (CORS), and this page's Content-Security-Policy must allow the connection.`, { cause: error });
  }
  if (response.ok) return response;
  const { status } = response;
  response.body?.cancel().catch(() => {});
  const said = response.headers.get("x-error-code");
  if (hub && said === "RevisionNotFound") throw new SiglipError("network", `The Hugging Face Hub has no such revision of ${hub}. Check what follows the @.`);
  if (hub && (status === 401 || status === 403 || said === "RepoNotFound" || said === "GatedRepo")) {
    throw new SiglipError("network", `The Hugging Face Hub doesn't give out ${hub} (HTTP ${status}): there is no such model, or it is private or asks for terms to be accepted. Check the name; a gated model can be downloaded by hand and loaded from its files.`);
  }
  if (status === 404 || status === 410) return undefined;
  if (status === 401 || status === 403) throw new SiglipError("network", `The server refused ${address.href} (HTTP ${status}): it is private or needs a sign-in.`);
  throw new SiglipError("network", `The server answered ${address.href} with HTTP ${status}. Try again later, or check the address.`);
}
