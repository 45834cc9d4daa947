// The WebAssembly of a backend: fetched and started once for a thread, and given up when it crashes.
import { SiglipError, aborted, siglipError } from "../error.js";
import { Download, teller } from "../files/download.js";
import { RELAXED } from "./backend.js";
import { baseAddress, isFile, node, onUncaught } from "../platform.js";
import { GLUE, WASM } from "./glue.js";
import { THREADS, Threads } from "./threads.js";

/** @typedef {import("../ports.d.ts").Backend} Backend */
/** @typedef {import("../ports.d.ts").Context} Context */
/** @typedef {import("../ports.d.ts").Glue} Glue */
/** @typedef {import("../ports.d.ts").Progress} Progress */
/** @typedef {import("./glue.js").ModuleName} ModuleName */
/** @typedef {{backend: Backend, glue: Glue, memory: WebAssembly.Memory | undefined, relaxed?: boolean, threads?: Threads, note?: string, crashed?: SiglipError}} Wasm */
/** @typedef {{progress: (progress: Progress) => void, ask: import("./threads.js").Ask}} Report what a load tells the page meanwhile */

/** The modules of this thread that run. A worker has one; pages with `worker: false` share theirs. @type {{webgpu?: Wasm, cpu?: Wasm}} */
const modules = {};
/** One instantiation at a time: a second one would overwrite the first one's instance. @type {Record<string, Promise<any>>} */
const starting = {};

/**
 * @param {Backend} backend
 * @param {Report} report
 * @param {Context} context
 * @returns {Promise<Wasm>}
 */
export function instantiate(backend, report, context) {
  const before = starting[backend] ?? Promise.resolve();
  const turn = before.catch(() => {}).then(async () => (modules[backend] ??= await start(backend, report, context)));
  starting[backend] = turn;
  return turn;
}

/** The CPU's modules, the fastest first. @type {{name: ModuleName, relaxed: boolean, threads: boolean}[]} */
const CPU_MODULES = [
  { name: "siglip_web_cpu_relaxed_threads", relaxed: true, threads: true },
  { name: "siglip_web_cpu_threads", relaxed: false, threads: true },
  { name: "siglip_web_cpu_relaxed", relaxed: true, threads: false },
  { name: "siglip_web_cpu", relaxed: false, threads: false },
];

/** The best module that starts here. @param {Backend} backend @param {Report} report @param {Context} context @returns {Promise<Wasm>} */
async function start(backend, report, context) {
  if (backend === "webgpu") return startModule("siglip_web_webgpu", backend, report, context);
  return startFirst(CPU_MODULES.filter(({ relaxed, threads }) => (RELAXED || !relaxed) && (THREADS > 1 || !threads)), report, context);
}

/** An instance of its own, of the CPU's and on one thread: for what needs no model. @param {AbortSignal} signal @param {import("../ports.d.ts").RetryPolicy} retryPolicy @returns {Promise<Wasm>} */
export function startAlone(signal, retryPolicy) {
  const nobody = { progress: () => {}, ask: () => {} };
  const context = { signal, name: "the library", hub: false, retryPolicy, caching: /** @type {const} */ ("default"), wait: () => {}, readable: new Set() };
  return startFirst(CPU_MODULES.filter(({ relaxed, threads }) => (RELAXED || !relaxed) && !threads), nobody, context);
}

/** The first of these modules of the CPU's that starts here. @param {typeof CPU_MODULES} fit @param {Report} report @param {Context} context @returns {Promise<Wasm>} */
async function startFirst(fit, report, context) {
  let note;
  for (;;) {
    const [{ name, relaxed, threads }] = /** @type {[typeof CPU_MODULES[number]]} */ (fit);
    try {
      return { ...(await startModule(name, "cpu", report, context)), relaxed, note };
    } catch (error) {
      if (context.signal.aborted) throw error;
      if (threads) {
        // Shared memory must be reserved whole, and more scripts be served with the right headers: one thread needs neither.
        note = `One thread is used because more could not be started: ${error.message}`;
        fit = fit.filter((module) => !module.threads);
      } else if (relaxed && error.cause instanceof WebAssembly.CompileError) {
        // What a browser says of relaxed SIMD and what it compiles can be two things.
        note = `Relaxed SIMD is not used because its module did not compile: ${error.cause.message}`;
        fit = fit.filter((module) => !module.relaxed);
      } else {
        throw error;
      }
    }
  }
}

/**
 * @param {ModuleName} name @param {Backend} backend @param {Report} report @param {Context} context
 * @returns {Promise<Wasm>}
 */
async function startModule(name, backend, report, context) {
  const { signal } = context;
  if (signal.aborted) throw aborted();
  const threads = name.endsWith("_threads") ? new Threads(report.ask) : undefined;
  try {
    const compiling = compile(name, report, context);
    compiling.catch(() => {}); // told below
    /** @type {Glue} */
    const glue = await importGlue(name);
    const module = await compiling;
    const exports = await glue({ module_or_path: module });
    await threads?.share(name, module, exports.memory, glue, signal);
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

/** What stands between JavaScript and one instance: each instance has its own, and a trapped one can't be used again. @param {ModuleName} name */
export async function importGlue(name) {
  try {
    return (await GLUE[name]()).create();
  } catch (error) {
    throw new SiglipError("network", `The library's file pkg/${name}.js could not be loaded (${error.message}). Serve the whole folder that siglip-web.js is in.`, { cause: error });
  }
}

/** @param {ModuleName} name @param {Report} report @param {Context} context */
export async function compile(name, report, context) {
  // Turbopack's URLs may be relative.
  const address = new URL(WASM[name]().href, baseAddress());
  const file = `${name}_bg.wasm`;
  if (isFile(address)) return WebAssembly.compile(await node?.files.readFile(address));
  const download = new Download({ ...context, name: "the library", hub: false }, address.href, file);
  download.mayBePage = true; // some servers give their first page for whatever is missing
  const response = await download.first();
  if (!response) throw new SiglipError("network", `The library's file ${address.href} is not there${download.page ? ": its server answers with a web page (HTML)" : ""}. Serve the whole folder that siglip-web.js is in.`);
  const arriving = new Arriving(download, response, report.progress);
  try {
    // Under its own media type: some servers don't know application/wasm, and compiling while loading insists on it.
    return await WebAssembly.compileStreaming(new Response(arriving.stream, { headers: { "content-type": "application/wasm" } }));
  } catch (error) {
    if (arriving.failure) throw arriving.failure;
    // No browser compiles that: another module would only hide it.
    if (arriving.isWasm === false) throw new SiglipError("unsupported", `This page can't run the library's WebAssembly: ${file} is something else, such as a web page (${error.message}). Serve the whole folder that siglip-web.js is in.`);
    throw error;
  }
}

/** A module's bytes, however often its connection breaks, reported as they arrive. */
class Arriving {
  /** Why no more of them came: browsers tell errors of their own. @type {any} */
  failure;
  /** Whether they begin as WebAssembly does. @type {boolean | undefined} */
  isWasm;

  /** @param {Download} download @param {Response} response to its first request @param {(progress: Progress) => void} progress */
  constructor(download, response, progress) {
    const total = Number(response.headers.get("content-length")) || 0;
    const tell = teller(download.file, progress);
    let loaded = 0;
    tell(loaded, total);
    const parts = download.bytes(0, Infinity, { response, whole: true });
    this.stream = new ReadableStream({
      pull: async (controller) => {
        try {
          const { done, value } = await parts.next();
          this.isWasm ??= !done && value[0] === 0 && value[1] === 0x61; // "\0a", of "\0asm"
          if (done) {
            tell(loaded, loaded);
            controller.close();
          } else {
            tell((loaded += value.length), total);
            controller.enqueue(value);
          }
        } catch (error) {
          this.failure = error;
          controller.error(error);
        }
      },
      cancel: () => void parts.return(),
    });
  }
}

/** A trap: the module's memory can't be trusted any more. */
export class Crash extends Error {
  /** @param {SiglipError} reason @param {boolean} [ran] whether the call that is told was running */
  constructor(reason, ran = true) {
    super(reason.message);
    this.reason = reason;
    this.ran = ran;
  }
}

/**
 * Runs a call into WebAssembly so that it always ends. A trap inside an asynchronous call never settles its
 * promise: it surfaces as an uncaught error of this thread, and is caught there.
 * @param {Wasm} wasm
 * @param {() => any} call
 * @returns {Promise<any>}
 */
export function guard(wasm, call) {
  const crash = (/** @type {Error} */ error) => {
    abandon(wasm);
    const memory = /memory|alloc/i.test(error.message) || noRoom(error) || !canGrow(wasm.memory);
    wasm.crashed = memory
      ? new SiglipError("out-of-memory", "The model ran out of memory and had to stop. Close other tabs, or take a smaller model or picture.", { cause: error })
      : new SiglipError("device-lost", `The computation crashed (${error.message}) and had to stop.`, { cause: error });
    return new Crash(wasm.crashed);
  };
  const failure = (/** @type {any} */ error) => {
    if (trapped(error)) return crash(error);
    // The module remembers a lost GPU; only a fresh one asks for it again.
    if (error?.code === "device-lost") abandon(wasm);
    return error;
  };
  if (wasm.crashed) return Promise.reject(new Crash(wasm.crashed, false));
  return new Promise((resolve, reject) => {
    const off = onUncaught((error) => {
      if (!trapped(error) || strange(error, wasm)) return false;
      end(reject, crash(error));
      return true;
    });
    const end = (/** @type {(value: any) => void} */ settle, /** @type {any} */ value) => {
      off();
      settle(value);
    };
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
  const name = (/** @type {Backend} */ word) => String(error.stack).includes(`siglip_web_${word}`);
  return !name(backend) && name(backend === "cpu" ? "webgpu" : "cpu");
}

/** Whether WebAssembly stopped. @param {any} error */
export function trapped(error) {
  return error instanceof WebAssembly.RuntimeError || (error instanceof RangeError && /call stack/i.test(error.message)) || noRoom(error);
}

/** Whether what stands between it and JavaScript found no room for what the two exchange. @param {any} error */
function noRoom(error) {
  return error instanceof RangeError && siglipError(error).code === "out-of-memory" && /siglip_web_/.test(String(error.stack));
}
