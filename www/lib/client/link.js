// The line to the engine: a worker's messages, or plain calls on this thread.
import { SiglipError, siglipError } from "../error.js";
import { node } from "../platform.js";
import { isForeign, spawn } from "../worker/spawn.js";
import { Threads } from "./threads.js";

/** @typedef {import("../ports.d.ts").Progress} Progress */
/** @typedef {import("../ports.d.ts").Request} Request */
/** @typedef {(Request & {id: number}) | {cancel: number}} Message */

/** How long a worker may take until its scripts run: Firefox doesn't always tell that one is missing. Milliseconds. */
const START_LIMIT = 60_000;
/** How long a worker may take to give its memory back before it is ended all the same. Milliseconds. */
const DISPOSE_LIMIT = 2000;

/** A model that can't be asked any more: it crashed, or its GPU was lost. */
export class Lost extends SiglipError {
  /** @param {import("../siglip-web.d.ts").SiglipErrorCode} code @param {string} message @param {boolean} ran whether it was at the call that is told */
  constructor(code, message, ran = true) {
    super(code, message);
    this.ran = ran;
  }
}

/** @param {string} reason */
function crashed(reason) {
  return new Lost("device-lost", `The computation crashed (${reason}) and had to stop.`);
}

/** Requests and their answers, over a worker's messages or plain calls. */
export class Link {
  #post;
  #end;
  /** @type {Map<number, {resolve: (value: any) => void, reject: (error: SiglipError) => void, onProgress?: (progress: Progress) => void}>} */
  #pending = new Map();
  #count = 0;
  /** @type {any} */
  #held;
  #threads;
  /** @type {SiglipError | undefined} why nothing can be asked any more */
  failure;
  /** Whether that is because there never was a worker. */
  unstarted = false;

  /** @param {(message: Message, transfer: Transferable[]) => void} post @param {() => void} end @param {Threads} [threads] that stay when it ends */
  constructor(post, end, threads) {
    this.#post = post;
    this.#threads = threads ?? new Threads((reason) => this.close(crashed(reason)));
    this.#end = () => {
      if (!threads) this.#threads.endAll();
      end();
    };
  }

  /**
   * @param {Request} message
   * @param {(progress: Progress) => void} [onProgress]
   * @param {Transferable[]} [transfer]
   */
  request(message, onProgress, transfer = []) {
    const id = ++this.#count;
    /** @type {Promise<any>} */
    const reply = new Promise((resolve, reject) => {
      if (this.failure) throw this.failure;
      this.#pending.set(id, { resolve, reject, onProgress });
      this.#hold();
      this.#post({ ...message, id }, transfer);
    });
    return { reply, cancel: () => { if (this.#pending.has(id)) this.#post({ cancel: id }, []); } };
  }

  /** @param {any} message */
  receive({ id, progress, error, result, startThreads, endThreads }) {
    if (startThreads) return this.failure ? undefined : this.#threads.start(startThreads);
    if (endThreads) return this.#threads.end(endThreads);
    const waiting = this.#pending.get(id);
    if (!waiting) return;
    if (progress) return waiting.onProgress?.(progress);
    this.#pending.delete(id);
    this.#hold();
    if (error) waiting.reject(error.lost ? new Lost(error.code, error.message, error.ran) : siglipError(error));
    else waiting.resolve(result);
  }

  /** A process of Node.js doesn't end while somebody waits for an answer. */
  #hold() {
    if (!node) return;
    if (this.#pending.size > 0) this.#held ??= setInterval(() => {}, 2 ** 30);
    else this.#held = clearInterval(this.#held);
  }

  /** Asks for all memory back, and waits a little for that. */
  async free() {
    let timer;
    const late = new Promise((resolve) => { timer = setTimeout(resolve, DISPOSE_LIMIT); });
    await Promise.race([this.request({ method: "dispose" }).reply.catch(() => {}), late]);
    clearTimeout(timer);
  }

  /** There is no worker to ask. @param {SiglipError} error */
  fail(error) {
    this.unstarted = true;
    this.close(error);
    return this;
  }

  /** Nothing hangs: what waits is rejected with `error`, and so is what comes later. @param {SiglipError} error */
  close(error) {
    if (this.failure) return;
    this.failure = error;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    this.#hold();
    this.#end();
  }
}

/**
 * Who answers: `start` makes its worker, in words that bundlers know, and `here` gives it to this thread.
 * @typedef {{start: () => Worker, here: () => Promise<new (send: (message: any) => void) => {receive: (message: any) => unknown}>}} Place
 */
/** @type {Place} */
const ENGINE = {
  start: () => new Worker(new URL("../worker/worker.js", import.meta.url), { type: "module", name: "siglip-web" }),
  here: async () => (await import("../worker/host.js")).Host,
};

/**
 * Opens a line for `use`, to an engine unless `place` is another's: in a worker or, where it is asked for or no worker can be, on this thread.
 * @template T
 * @param {boolean} worker
 * @param {(link: Link, note?: string) => Promise<T>} use `note`: why it is not as it was asked for
 * @param {Place} [place]
 * @returns {Promise<T>}
 */
export async function openLink(worker, use, place = ENGINE) {
  const { ServiceWorkerGlobalScope } = /** @type {any} */ (globalThis);
  if (ServiceWorkerGlobalScope && globalThis instanceof ServiceWorkerGlobalScope) {
    throw new SiglipError("unsupported", "A service worker can't load the library's modules, which takes import(), nor start workers. Load the model in a page, and send it messages.");
  }
  if (!worker) return use(await localLink(place));
  if (!node && typeof Worker === "undefined") {
    return use(await localLink(place), "The calling thread computes, because it can't start workers.");
  }
  const link = workerLink(place);
  try {
    return await use(link);
  } catch (error) {
    if (!link.unstarted || globalThis.origin !== "null") throw error;
    return use(await localLink(place), "The calling thread computes, because a page without an origin of its own (a sandboxed frame) may not start workers here.");
  }
}

/** @param {Place} place */
function workerLink({ start }) {
  let spawned;
  try {
    spawned = spawn(start);
  } catch (error) {
    const failed = new Link(() => {}, () => {});
    return failed.fail(notStarted(error.address, error.message));
  }
  const { worker, address, end } = spawned;
  let started = false;
  const late = setTimeout(() => link.fail(notStarted(address, `nothing came of it in ${START_LIMIT / 1000} seconds`)), START_LIMIT);
  const link = new Link((message, transfer) => worker.postMessage(message, transfer), () => {
    clearTimeout(late);
    end();
  });
  worker.onmessage = ({ data }) => {
    started = true;
    clearTimeout(late);
    link.receive(data);
  };
  // Once it runs, the worker itself tells of every failure of a call; what is left are errors that concern none. In Node.js they end it.
  worker.onerror = (event) => {
    if (started && node) link.close(crashed(event.message));
    if (started) return;
    event.preventDefault();
    link.fail(notStarted(address, event.message));
  };
  return link;
}

/** @param {URL} address @param {string} detail */
function notStarted(address, detail) {
  const foreign = isForeign(address);
  if (/TrustedScriptURL/.test(detail)) return new SiglipError("network", `The library's worker ${address.href} could not be started: this page demands Trusted Types. Allow the policy siglip-web in its Content-Security-Policy (trusted-types siglip-web), or load with worker: false.`);
  return new SiglipError("network", `The library's worker ${address.href} could not be started${detail ? ` (${detail})` : ""}. Serve the whole folder that siglip-web.js is in (a bundler may leave it behind: see Bundlers in the package's README)${foreign ? ", let other sites read it (CORS)," : ""} and allow it in the page's Content-Security-Policy (worker-src ${foreign ? "blob:" : "'self'"}); or load with worker: false.`);
}

/** Lines to this thread. @type {Set<Link>} */
const local = new Set();
/** Of the engine's modules, which all lines to this thread share and which stay when these end. */
const threads = new Threads((reason) => { for (const link of local) link.close(crashed(reason)); });

/** @param {Place} place */
async function localLink({ here }) {
  const Host = await here();
  const host = new Host((message) => link.receive(message));
  const end = () => {
    local.delete(link);
    host.receive({ id: 0, method: "dispose" }); // its memory can be used again
  };
  const link = new Link((message) => void host.receive(message), end, threads);
  local.add(link);
  return link;
}
