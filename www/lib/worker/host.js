// Beside the computation, in the worker or on the main thread with `worker: false`: loads a model and answers messages.
//   in   {id, method: "load" | "stats" | "dispose" | one of METHODS, …}   {cancel: id}
//   out  {id, progress}   {id, result}   {id, error: {code, message, beyondRepair?, lost?, ran?}}   {startThreads} {endThreads}: see threads.js
import { aborted, siglipError } from "../error.js";
import { load } from "./load.js";
import { METHODS } from "./methods.js";
import { Crash, guard } from "./module.js";

/** @typedef {import("../error.js").SiglipError} SiglipError */
/** @typedef {import("../ports.d.ts").Cancel} Cancel */
/** @typedef {import("../ports.d.ts").Request} Request */
/** @typedef {import("../siglip-web.d.ts").CallProgress} CallProgress */
/** @typedef {import("./load.js").Loaded} Loaded */
/** @typedef {{cancel: Cancel, stop: AbortController, done?: Promise<any>}} Running */

/** One model and the calls to it, one at a time: the client keeps the queue. */
export class Host {
  #send;
  /** @type {Loaded | undefined} */
  #loaded;
  /** @type {Map<number, Running>} */
  #running = new Map();
  /** @type {SiglipError | undefined} */
  #broken;

  /** @param {(message: object, transfer?: Transferable[]) => void} send */
  constructor(send) {
    this.#send = send;
  }

  /** @param {(Request & {id: number}) | {cancel: number}} message */
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
      if (this.#broken && method !== "dispose") throw new Crash(this.#broken, false);
      const answer = this.#answer(id, message, call);
      if (method !== "dispose") call.done = answer;
      const result = await answer;
      this.#send({ id, result });
    } catch (error) {
      if (error instanceof Crash) this.#broken = error.reason;
      const told = call.cancel.aborted ? aborted() : siglipError(error instanceof Crash ? error.reason : error);
      const { code, message } = told;
      // Also where a call that was given up crashed: the next one must not meet what is left.
      const lost = error instanceof Crash || code === "device-lost";
      this.#send({ id, error: { code, message, ...("beyondRepair" in told && { beyondRepair: true }), ...(lost && { lost, ran: error instanceof Crash ? error.ran : true }) } });
    } finally {
      this.#running.delete(id);
    }
  }

  /** @param {number} id @param {Request} request @param {Running} call @returns {Promise<any>} */
  async #answer(id, request, { cancel, stop }) {
    if (request.method === "load") {
      const loaded = await load(request, {
        progress: (progress) => this.#send({ id, progress }),
        ask: (wish, transfer) => this.#send(wish, transfer),
      }, cancel, stop.signal);
      if (cancel.aborted) {
        // Too late to have stopped: nobody waits for it any more.
        loaded.engine.dispose();
        loaded.engine.free();
        throw aborted();
      }
      this.#loaded = loaded;
      return loaded.info;
    }
    if (request.method === "dispose") return this.#dispose();
    if (!this.#loaded) throw new Error(`${request.method} before load`);
    const { wasm, engine, context } = this.#loaded;
    if (request.method === "stats") {
      const { imageRuns, textRuns } = engine.stats;
      return { imageRuns, textRuns, memory: wasm.memory?.buffer.byteLength };
    }
    // One call at a time: what it downloads ends with it.
    context.signal = stop.signal;
    const given = METHODS[request.method].map((name) => /** @type {Record<string, any>} */ (request)[name]);
    const progress = (/** @type {CallProgress["stage"]} */ stage, /** @type {number} */ loaded, /** @type {number} */ total) => this.#send({ id, progress: { stage, loaded, total } });
    return guard(wasm, () => /** @type {(...given: any[]) => Promise<any>} */ (engine[request.method]).call(engine, ...given, progress, cancel));
  }

  async #dispose() {
    await Promise.allSettled([...this.#running.values()].map((call) => call.done));
    const engine = this.#loaded?.engine;
    this.#loaded = undefined;
    if (this.#broken) return;
    engine?.dispose();
    engine?.free();
  }
}
