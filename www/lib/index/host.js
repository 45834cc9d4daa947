// Beside the search, in the index's worker: answers messages, one after the other.
//   in   {id, method, given: […]}: of the keeper, or `start`, which makes it, or `shrink`, which takes none
//   out  {id, result: {value, status}}   {id, error: {code, message}}
import { SiglipError, siglipError } from "../error.js";
import { RETRY_POLICY } from "../files/download.js";
import { Crash, guard, startAlone } from "../worker/module.js";
import { Keeper } from "./keeper.js";

/** @typedef {import("../worker/module.js").Wasm} Wasm */

export class Host {
  #send;
  /** @type {Wasm | undefined} */
  #wasm;
  /** @type {any} */
  #keeper;
  /** @type {Promise<unknown>} */
  #last = Promise.resolve();
  /** Ends what comes of the module, once nobody asks any more. */
  #stop = new AbortController();

  /** @param {(message: object, transfer?: Transferable[]) => void} send */
  constructor(send) {
    this.#send = send;
  }

  /** @param {{id: number, method: string, given: any[]}} message */
  receive({ id, method, given }) {
    if (method === "dispose") this.#stop.abort();
    if (method === undefined || method === "dispose") return;
    this.#last = this.#last.then(async () => {
      try {
        const value = await this.#answer(method, given);
        this.#send({ id, result: { value, status: this.#keeper?.status } });
      } catch (thrown) {
        const { code, message } = siglipError(thrown instanceof Crash ? thrown.reason : thrown, "network");
        this.#send({ id, error: { code, message } });
      }
    });
  }

  /** @param {string} method @param {any[]} given */
  async #answer(method, given) {
    this.#wasm ??= await startAlone(this.#stop.signal, RETRY_POLICY);
    const wasm = this.#wasm;
    if (method === "start") {
      const [size] = given;
      if (!("Search" in wasm.glue)) throw new SiglipError("network", "The library's WebAssembly in pkg/ is of an earlier build, which can't search. Serve the files of one build: ./build.sh makes them.");
      this.#keeper = new Keeper(/** @type {any} */ (wasm.glue), /** @type {WebAssembly.Memory} */ (wasm.memory), size);
      return undefined;
    }
    // Of a worker that decodes alone: see decoders.js.
    if (method === "shrink") return guard(wasm, () => /** @type {any} */ (wasm.glue).shrink(...given));
    return guard(wasm, () => this.#keeper[method](...given));
  }
}
