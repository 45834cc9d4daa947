// A loaded model, wherever it runs: started afresh by itself when it crashes or its GPU is lost.
import { SiglipError, aborted } from "../error.js";
import { checkAborted } from "./arguments.js";
import { Lost, openLink } from "./link.js";

/** @typedef {import("../ports.d.ts").LoadRequest} LoadRequest */
/** @typedef {import("../ports.d.ts").Progress} Progress */
/** @typedef {import("../ports.d.ts").Request} Request */
/** @typedef {import("../siglip-web.d.ts").ModelInfo} ModelInfo */
/** @typedef {import("./link.js").Link} Link */
/** @typedef {{worker: boolean, timeout?: number, signal?: AbortSignal, onProgress?: (progress: Progress) => void}} How */

/** A GPU that was lost so often isn't asked for again; the CPU goes on. */
const GPU_LOSSES = 2;
/** Crashes on the CPU, with no answer in between, after which the model isn't started any more. */
const CPU_CRASHES = 2;
/** The longest delay that timers have. Milliseconds. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** A model behind a link. */
export class Model {
  #request;
  #how;
  #link;
  #info;
  /** @type {Lost | undefined} why it has to be started afresh */
  #lost;
  /** @type {Promise<void> | undefined} */
  #starting;
  #gpuLosses = 0;
  #cpuCrashes = 0;
  /** Ends a fresh start that nobody waits for any more. */
  #stop = new AbortController();
  /** @type {SiglipError | undefined} why nothing can be asked any more */
  failure;

  /** @param {LoadRequest} request @param {How} how @param {{link: Link, info: ModelInfo}} started */
  constructor(request, how, { link, info }) {
    this.#request = request;
    this.#how = how;
    this.#link = link;
    this.#info = Object.freeze(info);
  }

  /** @param {LoadRequest} request @param {How} how */
  static async load(request, how) {
    return new Model(request, how, await start(request, how));
  }

  /** As it runs now: on the CPU, if its GPU was lost. */
  get info() {
    return this.#info;
  }

  /**
   * @param {Exclude<Request, LoadRequest>} request @param {Transferable[]} [transfer] @param {(progress: any) => void} [onProgress]
   * @returns {{reply: Promise<any>, cancel: () => void}}
   */
  request(request, transfer = [], onProgress = undefined) {
    let over = false;
    let cancel = () => { over = true; };
    const ask = async () => {
      await this.#ready();
      if (over) throw aborted();
      const asked = this.#link.request(request, onProgress, transfer);
      cancel = asked.cancel;
      return asked.reply;
    };
    const reply = (async () => {
      try {
        // What was lost before the call reached it is no fault of the call.
        const answer = await ask().catch((error) => (this.#lose(error) && !error.ran ? ask() : Promise.reject(error)));
        this.#cpuCrashes = 0;
        return answer;
      } catch (error) {
        if (!this.#lose(error)) throw error;
        // The next call needn't wait so long.
        this.#ready().catch(() => {});
        throw this.failure ?? new SiglipError(error.code, `${error.message} The model starts afresh for the next call.`, { cause: error });
      }
    })();
    return { reply, cancel: () => cancel() };
  }

  /** Whether an error says that the model is gone; takes note of it. @param {any} error @returns {error is Lost} */
  #lose(error) {
    if (!(error instanceof Lost)) return false;
    if (this.#lost || this.failure) return true;
    this.#lost = error;
    if (this.#info.backend === "webgpu") this.#gpuLosses += 1;
    else if (error.ran && ++this.#cpuCrashes >= CPU_CRASHES) {
      this.close(new SiglipError(error.code, `${error.message} It did so again after a fresh start: load the model again, or a smaller one.`, { cause: error }));
    }
    return true;
  }

  async #ready() {
    if (this.failure) throw this.failure;
    if (!this.#lost) return;
    this.#starting ??= this.#start(this.#lost).finally(() => { this.#starting = undefined; });
    await this.#starting.catch((error) => { throw this.failure ?? error; });
  }

  /** Once more from what is kept, or where it came from. @param {Lost} lost */
  async #start(lost) {
    this.#link.close(lost);
    const { adapter } = this.#info;
    const onCpu = (/** @type {string} */ why) => start({ ...this.#request, backend: "cpu", reason: `The CPU is used because WebGPU on ${adapter} was lost: ${why}` }, this.#again);
    const started = this.#gpuLosses >= GPU_LOSSES
      ? await onCpu(lost.message)
      : await start(this.#request, this.#again).catch((error) => {
        const gpuGone = this.#gpuLosses > 0 && ["device-lost", "unsupported", "out-of-memory"].includes(error.code);
        return gpuGone ? onCpu(error.message) : Promise.reject(error);
      });
    // It was closed when the start had ended, and before this was told.
    if (this.failure) {
      started.link.close(this.failure);
      throw this.failure;
    }
    this.#link = started.link;
    this.#info = Object.freeze(started.info);
    this.#lost = undefined;
  }

  /** The load's own signal and listener are over. */
  get #again() {
    const { worker, timeout } = this.#how;
    return { worker, timeout, signal: this.#stop.signal };
  }

  /** Asks for all memory back, and waits a little for that. */
  async free() {
    if (!this.#lost) await this.#link.free();
  }

  /** @param {SiglipError} error what all requests are answered with from now on */
  close(error) {
    this.failure ??= error;
    this.#stop.abort();
    this.#link.close(error);
  }
}

/**
 * A link with the model loaded behind it.
 * @param {LoadRequest} request @param {How} how
 * @returns {Promise<{link: Link, info: ModelInfo}>}
 */
async function start(request, how) {
  checkAborted(how.signal);
  return openLink(how.worker, (link, note) => load(link, { ...request, note }, how));
}

/**
 * @param {Link} link @param {LoadRequest} request @param {How} how
 * @returns {Promise<{link: Link, info: ModelInfo}>}
 */
async function load(link, request, { timeout, signal, onProgress }) {
  let waiting = "";
  const loading = link.request(request, (progress) => {
    waiting = progress.waiting ?? "";
    onProgress?.(progress);
  });
  const stop = (/** @type {SiglipError} */ error) => {
    loading.cancel();
    link.close(error);
  };
  const onAbort = () => stop(aborted(signal));
  const late = () => stop(new SiglipError("network", `${request.name} was not loaded within ${Number(timeout) / 1000} seconds, the limit that load was given. ${waiting ? `${waiting} ` : ""}Load again: what has been kept needn't come again.`));
  const timer = timeout === undefined ? undefined : setTimeout(late, Math.min(timeout, LONGEST_TIMER));
  signal?.addEventListener("abort", onAbort);
  try {
    checkAborted(signal);
    return { link, info: await loading.reply };
  } catch (error) {
    link.close(error);
    throw error instanceof Lost ? new SiglipError(error.code, `${error.message} Load the model again; if it happens again, try backend "cpu".`, { cause: error }) : error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}
