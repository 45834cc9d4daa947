// More threads for the CPU: workers within the worker, which run the same WebAssembly in the same memory. Browsers share
// memory only on pages that are cross-origin isolated (served with COOP and COEP headers).
import { SiglipError, aborted } from "../error.js";
import { spawn } from "./spawn.js";

/** Threads beyond these add little: they wait for memory. */
const MOST = 8;

/** How many threads the CPU has for us, the calling one among them. The main thread may not wait for others. */
export const THREADS = self.crossOriginIsolated && typeof Window === "undefined" ? Math.min(navigator.hardwareConcurrency || 1, MOST) : 1;

/** The threads of one instance of the module, beside the one that calls it. */
export class Threads {
  /** @type {{worker: Worker, end: () => void, ready: Promise<unknown>}[]} */
  #spawned = [];
  #watch;

  /**
   * Starts the workers, so that their scripts load while the module does.
   * @param {(port: MessagePort) => void} watch gets a port to each thread for somebody who isn't blocked when a thread crashes:
   *   whoever shares its work would wait for it for ever. It tells of nothing else.
   */
  constructor(watch) {
    this.#watch = watch;
    const url = new URL("./thread.js", import.meta.url);
    const start = () => new Worker(new URL("./thread.js", import.meta.url), { type: "module", name: "siglip-web thread" });
    for (let i = 1; i < THREADS; i++) {
      const spawned = spawn(url, start, "siglip-web thread");
      this.#spawned.push({ ...spawned, ready: answered(spawned.worker) });
    }
  }

  /**
   * Shares the kernels' work among all threads.
   * @param {WebAssembly.Module} module @param {WebAssembly.Memory} memory @param {any} glue @param {AbortSignal} signal
   */
  async share(module, memory, glue, signal) {
    for (const { worker } of this.#spawned) {
      const { port1, port2 } = new MessageChannel();
      this.#watch(port1);
      worker.postMessage({ module, memory, watcher: port2 }, [port2]);
    }
    const stopped = new Promise((_, reject) => signal.addEventListener("abort", () => reject(aborted()), { once: true }));
    await Promise.race([Promise.all(this.#spawned.map(({ ready }) => ready)), stopped]);
    glue.startThreads(this.#spawned.length);
    for (const { worker } of this.#spawned) worker.postMessage("run");
  }

  end() {
    for (const { end } of this.#spawned) end();
  }
}

/** That a thread runs the module, or why not. Listens at once: a script that isn't there is told before the module has come. @param {Worker} worker */
function answered(worker) {
  const answer = new Promise((resolve, reject) => {
    const fail = (/** @type {string} */ message) => reject(new SiglipError("unsupported", `A thread of the library could not be started (${message}).`));
    worker.onmessage = ({ data }) => (data === "ready" ? resolve(undefined) : fail(data));
    worker.onerror = (event) => {
      event.preventDefault();
      fail(event.message ?? "its script did not load");
    };
  });
  // Whoever asks gets it; nobody asks if the module itself does not come.
  answer.catch(() => {});
  return answer;
}
