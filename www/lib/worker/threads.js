// More threads for the CPU: workers that run the same WebAssembly in the same memory. Browsers share memory only on pages that are
// cross-origin isolated (served with COOP and COEP headers).
import { SiglipError, aborted } from "../error.js";
import { processors, sharesMemory } from "../platform.js";

/** Threads beyond these add little: they wait for memory. */
const MOST = 8;
/** How long threads may take to start before the engine goes on without them. Milliseconds. */
const START_LIMIT = 20_000;

/** How many threads the CPU has for us, the calling one among them. The main thread may not wait for others. */
export const THREADS = sharesMemory() ? Math.min(processors(), MOST) : 1;

/** What the caller's thread is asked for: see client/threads.js. @typedef {(wish: {startThreads: {group: number, ports: MessagePort[]}} | {endThreads: number}, transfer?: Transferable[]) => void} Ask */

let groups = 0;

/** The threads of one instance of the module, beside the one that calls it. */
export class Threads {
  #group = ++groups;
  #ask;
  /** @type {MessagePort[]} */
  #ports = [];
  /** @type {Promise<unknown>} */
  #ready;

  /** Has the workers started, so that their scripts load while the module does. @param {Ask} ask */
  constructor(ask) {
    this.#ask = ask;
    const theirs = [];
    for (let i = 1; i < THREADS; i++) {
      const { port1, port2 } = new MessageChannel();
      this.#ports.push(port1);
      theirs.push(port2);
    }
    this.#ready = Promise.all(this.#ports.map(answered));
    // Nobody asks if the module itself does not come.
    this.#ready.catch(() => {});
    ask({ startThreads: { group: this.#group, ports: theirs } }, theirs);
  }

  /**
   * Shares the kernels' work among all threads.
   * @param {import("./glue.js").ModuleName} name @param {WebAssembly.Module} module @param {WebAssembly.Memory} memory @param {any} glue @param {AbortSignal} signal
   */
  async share(name, module, memory, glue, signal) {
    for (const port of this.#ports) port.postMessage({ name, module, memory });
    const stopped = new Promise((_, reject) => signal.addEventListener("abort", () => reject(aborted()), { once: true }));
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(notStarted(`nothing was heard of it for ${START_LIMIT / 1000} seconds`)), START_LIMIT);
    });
    try {
      await Promise.race([this.#ready, stopped, late]);
    } finally {
      clearTimeout(timer);
    }
    glue.startThreads(this.#ports.length);
    for (const port of this.#ports) port.postMessage("run");
  }

  end() {
    for (const port of this.#ports) port.close();
    this.#ask({ endThreads: this.#group });
  }
}

/** That a thread runs the module, or why not. @param {MessagePort} port */
function answered(port) {
  return new Promise((resolve, reject) => {
    port.onmessage = ({ data }) => (data === "ready" ? resolve(undefined) : reject(notStarted(data)));
  });
}

/** @param {string} reason */
function notStarted(reason) {
  return new SiglipError("unsupported", `A thread of the library could not be started (${reason}).`);
}
