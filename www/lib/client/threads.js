// The engine's threads, started here on the caller's thread. An engine that started them itself, workers within a worker, would now and then
// wait for ever in Firefox, where `new Worker()` inside a worker may never return.
import { spawn } from "../worker/spawn.js";

/** What a thread's script says when it runs and listens. */
const HERE = "here";

export class Threads {
  /** What ends each group of threads, by its number. @type {Map<number, (() => void)[]>} */
  #groups = new Map();
  #crashed;

  /** @param {(reason: string) => void} crashed whoever shares its work with a thread that crashes would wait for it for ever */
  constructor(crashed) {
    this.#crashed = crashed;
  }

  /** Starts one thread for each port, which is the engine's way to it. @param {{group: number, ports: MessagePort[]}} wish */
  start({ group, ports }) {
    this.#groups.set(group, ports.map((port) => this.#start(port)));
  }

  /** @param {number} group */
  end(group) {
    for (const end of this.#groups.get(group) ?? []) end();
    this.#groups.delete(group);
  }

  endAll() {
    for (const group of [...this.#groups.keys()]) this.end(group);
  }

  /** The engine hears on its port of a thread that doesn't start. @param {MessagePort} port @returns {() => void} ends the thread */
  #start(port) {
    try {
      const { worker, end } = spawn(() => new Worker(new URL("../worker/thread.js", import.meta.url), { type: "module", name: "siglip-web thread" }));
      let here = false;
      worker.onmessage = ({ data }) => {
        if (data !== HERE) return this.#crashed(data);
        here = true;
        worker.postMessage(port, [port]);
      };
      worker.onerror = (event) => {
        event.preventDefault();
        const reason = event.message ?? "its script did not load";
        if (here) this.#crashed(reason);
        else port.postMessage(reason);
      };
      return end;
    } catch (error) {
      port.postMessage(error.message);
      return () => {};
    }
  }
}
