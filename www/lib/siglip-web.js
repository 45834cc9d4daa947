// siglip-web: SigLIP zero-shot image classification inside a web page.
// This file is what a page imports. It checks what it is given, keeps calls in order, and leaves the work to a worker.
import { SiglipError, aborted, siglipError } from "./error.js";
import { badInput, checkAborted, checkLabels, checkOptions, checkTemplate, checkTexts, checkWord, show } from "./client/arguments.js";
import { prepare } from "./client/image.js";
import { locate } from "./client/locate.js";
import { Model } from "./client/model.js";
import { clearCaches, listCaches } from "./store/stored.js";

export { SiglipError };

/** @typedef {import("./siglip-web.d.ts").ModelSource} ModelSource */
/** @typedef {import("./siglip-web.d.ts").LoadOptions} LoadOptions */
/** @typedef {import("./siglip-web.d.ts").ClassifyOptions} ClassifyOptions */
/** @typedef {import("./siglip-web.d.ts").ImageInput} ImageInput */
/** @typedef {import("./siglip-web.d.ts").LabelScore} LabelScore */
/** @typedef {import("./siglip-web.d.ts").ModelInfo} ModelInfo */
/** @typedef {import("./ports.d.ts").Request} Request */

/** @typedef {typeof import("./siglip-web.d.ts")} Declared */
/** @typedef {import("./ports.d.ts").Implements<Declared["SiglipClassifier"], typeof SiglipClassifier>} ClassifierAsDeclared */
/** @typedef {import("./ports.d.ts").NothingMore<import("./ports.d.ts").Undeclared<Declared["SiglipClassifier"], typeof SiglipClassifier>>} ClassifierNothingMore */
/** @typedef {import("./ports.d.ts").Implements<Declared["SiglipError"], typeof SiglipError>} ErrorAsDeclared */
/** @typedef {import("./ports.d.ts").NothingMore<import("./ports.d.ts").Undeclared<Declared["SiglipError"], typeof SiglipError>>} ErrorNothingMore */

/** @typedef {{over: boolean, cancel: () => void, stop: (error: SiglipError) => void}} Call a call that waits or runs */

/** Pictures of one message: enough for any device, few enough that others can be heard in between. */
const IMAGES_AT_ONCE = 8;
/** Tests pass a retry policy of their own, so that none of them waits. */
const RETRY_POLICY = Symbol.for("siglip-web.retryPolicy");
/** `new SiglipClassifier()` would be one without a model. */
const INSIDE = Symbol("load");

export class SiglipClassifier {
  /** @type {Model} */
  #model;
  /** @type {number | undefined} how long a picture's server may give nothing, in milliseconds */
  #stall;
  /** @type {Promise<unknown>} the end of the queue: calls run one at a time, in the order they were made */
  #last = Promise.resolve();
  /** @type {Set<Call>} */
  #calls = new Set();
  /** @type {Promise<void> | undefined} */
  #disposed;

  /** @param {symbol} inside @param {Model} model @param {number} [stall] */
  constructor(inside, model, stall) {
    if (inside !== INSIDE) throw new TypeError("A classifier needs a model: use await SiglipClassifier.load(…).");
    this.#model = model;
    this.#stall = stall;
  }

  /**
   * @param {ModelSource} source
   * @param {LoadOptions} [options]
   * @returns {Promise<SiglipClassifier>}
   */
  static async load(source, options = {}) {
    const { backend = "auto", dtype = "auto", onProgress, signal, cache = true, wholeTable = false, worker = true, timeout, [RETRY_POLICY]: retryPolicy } = checkOptions(options);
    checkWord("backend", backend, ["auto", "webgpu", "cpu"]);
    checkWord("dtype", dtype, ["auto", "f32", "f16", "q8", "q4"]);
    checkWord("cache", cache, [true, false]);
    checkWord("wholeTable", wholeTable, [true, false]);
    checkWord("worker", worker, [true, false]);
    if (onProgress !== undefined && typeof onProgress !== "function") throw badInput(`onProgress is ${show(onProgress)}; it must be a function.`);
    if (timeout !== undefined && !(typeof timeout === "number" && timeout > 0)) throw badInput(`timeout is ${show(timeout)}; it must be a number of milliseconds, or be left out for no limit.`);
    const { place, name, cure } = locate(source);
    const model = await Model.load({ method: "load", place, name, backend, dtype, cache, wholeTable, retryPolicy }, { worker, timeout, signal, onProgress: (progress) => tell(onProgress, progress) }).catch((error) => {
      throw cure && ["network", "bad-model"].includes(error.code) ? new SiglipError(error.code, `${error.message} ${cure}`, { cause: error }) : error;
    });
    tell(onProgress, { stage: "ready", loaded: model.info.bytes, total: model.info.bytes });
    return new SiglipClassifier(INSIDE, model, retryPolicy?.stall);
  }

  /** @returns {Promise<import("./siglip-web.d.ts").CachedModel[]>} */
  static async caches() {
    return listCaches().catch((error) => { throw siglipError(error, "network"); });
  }

  /**
   * @param {string} [name]
   * @returns {Promise<number>}
   */
  static async clearCache(name) {
    if (name !== undefined && typeof name !== "string") throw badInput(`The model is ${show(name)}; it must be a name that caches() lists, or be left out to clear them all.`);
    return clearCaches(name).catch((error) => { throw siglipError(error, "network"); });
  }

  get info() {
    return this.#model.info;
  }

  /**
   * @param {ImageInput} image
   * @param {string[]} labels
   * @param {ClassifyOptions} [options]
   * @returns {Promise<LabelScore[]>}
   */
  async classify(image, labels, options = {}) {
    this.#checkUsable();
    const { template, scores, topK, signal } = checkOptions(options);
    checkLabels(labels);
    if (template !== undefined) checkTemplate(template);
    if (scores !== undefined) checkWord("scores", scores, ["sigmoid", "softmax"]);
    if (topK !== undefined && !(Number.isSafeInteger(topK) && topK >= 1)) throw badInput(`topK is ${show(topK)}; it must be a whole number of 1 or more.`);
    const settings = { template: Array.isArray(template) ? [...template] : template, scores, topK };
    return this.#withImage(image, { method: "classify", labels: [...labels], options: settings }, signal);
  }

  /**
   * @param {ImageInput} image
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<Float32Array>}
   */
  async embedImage(image, options = {}) {
    this.#checkUsable();
    const { signal } = checkOptions(options);
    return this.#withImage(image, { method: "embedImage" }, signal);
  }

  /**
   * @param {ImageInput[]} images
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<Float32Array[]>}
   */
  async embedImages(images, options = {}) {
    this.#checkUsable();
    const { signal } = checkOptions(options);
    if (!Array.isArray(images)) throw badInput(`images is ${show(images)}; it must be an array of pictures.`);
    checkAborted(signal);
    const fetching = new AbortController();
    const preparing = Promise.all([...images].map((image, i) => prepare(image, { signal: fetching.signal, stall: this.#stall }).catch((error) => { throw about(i, error); })));
    return this.#enqueue(signal, async (call) => {
      const prepared = await preparing;
      const embeddings = [];
      for (let first = 0; first < prepared.length && !call.over; first += IMAGES_AT_ONCE) {
        embeddings.push(...await this.#embedSome(call, prepared.slice(first, first + IMAGES_AT_ONCE), first));
      }
      return embeddings;
    }, preparing, fetching);
  }

  /**
   * @param {string[]} texts
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<Float32Array[]>}
   */
  async embedText(texts, options = {}) {
    this.#checkUsable();
    const { signal } = checkOptions(options);
    checkTexts(texts, "texts", "text");
    const message = { method: "embedText", texts: [...texts] };
    return this.#enqueue(signal, (call) => this.#send(call, message));
  }

  /** @returns {Promise<void>} */
  dispose() {
    this.#disposed ??= (async () => {
      const error = new SiglipError("disposed", "The classifier was disposed of. Load the model again to go on.");
      for (const call of [...this.#calls]) call.stop(error);
      // What runs stops at its next layer; then memory is given back. A worker that doesn't get there is ended all the same.
      await this.#model.free();
      this.#model.close(error);
    })();
    return this.#disposed;
  }

  /** For tests: how often each tower really ran, and the WebAssembly memory in bytes. */
  [Symbol.for("siglip-web.stats")]() {
    return this.#model.request({ method: "stats" }).reply;
  }

  #checkUsable() {
    if (this.#disposed) throw new SiglipError("disposed", "The classifier was disposed of. Load the model again to go on.");
    if (this.#model.failure) throw this.#model.failure;
  }

  /** @param {ImageInput} image @param {object} message @param {AbortSignal | undefined} signal */
  #withImage(image, message, signal) {
    checkAborted(signal);
    const fetching = new AbortController();
    // Now, not when its turn comes: a canvas or a frame may show something else by then.
    const preparing = prepare(image, { signal: fetching.signal, stall: this.#stall });
    return this.#enqueue(signal, async (call) => {
      const prepared = await preparing;
      if (call.over) return undefined;
      return this.#sendImage(call, message, prepared);
    }, preparing, fetching);
  }

  /**
   * Some pictures together or, where one of them can't be read as it is, each by itself.
   * @param {Call} call @param {Awaited<ReturnType<typeof prepare>>[]} prepared @param {number} first
   * @returns {Promise<Float32Array[]>}
   */
  async #embedSome(call, prepared, first) {
    try {
      // Copied, not moved: they may be needed again.
      return await this.#send(call, { method: "embedImages", images: prepared.map(({ picture }) => picture) });
    } catch (error) {
      if (!["unsupported", "bad-image"].includes(error.code) || call.over) throw error;
    }
    const embeddings = [];
    for (const [i, one] of prepared.entries()) {
      if (call.over) break;
      embeddings.push(await this.#sendImage(call, { method: "embedImage" }, one).catch((error) => { throw about(first + i, error); }));
    }
    return embeddings;
  }

  /**
   * One picture, decoded by the browser where the engine can't.
   * @param {Call} call @param {object} message @param {Awaited<ReturnType<typeof prepare>>} prepared
   */
  async #sendImage(call, message, { picture, decode }) {
    try {
      return await this.#send(call, { ...message, image: picture });
    } catch (error) {
      if (!["unsupported", "bad-image"].includes(error.code) || !decode || call.over) throw error;
      const decoded = await decode(error);
      if (call.over) return undefined;
      return this.#send(call, { ...message, image: decoded });
    }
  }

  /** @param {Call} call @param {any} message */
  #send(call, message) {
    const transfer = message.image?.rgba ? [message.image.rgba.buffer] : [];
    const request = this.#model.request(message, transfer);
    call.cancel = request.cancel;
    return request.reply;
  }

  /**
   * Runs `work` when its turn has come. The promise given back is rejected at once when the caller aborts, when
   * `early` fails or when the classifier is disposed of; the turn itself ends when the work has really stopped. It
   * stands in line once `early` is there: a picture that is waited for holds nobody up.
   * @param {AbortSignal | undefined} signal
   * @param {(call: Call) => Promise<any>} work
   * @param {Promise<unknown>} [early]
   * @param {AbortController} [fetching]
   * @returns {Promise<any>}
   */
  #enqueue(signal, work, early, fetching) {
    checkAborted(signal);
    return new Promise((resolve, reject) => {
      /** @type {Call} */
      const call = {
        over: false,
        cancel: () => {},
        stop: (error) => {
          if (call.over) return;
          finish();
          fetching?.abort();
          call.cancel();
          reject(error);
        },
      };
      const onAbort = () => call.stop(aborted(signal));
      const finish = () => {
        call.over = true;
        signal?.removeEventListener("abort", onAbort);
        this.#calls.delete(call);
      };
      signal?.addEventListener("abort", onAbort);
      this.#calls.add(call);
      const turn = async () => {
        if (call.over) return;
        try {
          const result = await work(call);
          if (call.over) return;
          finish();
          resolve(result);
        } catch (error) {
          call.stop(siglipError(error));
        }
      };
      const lineUp = () => {
        this.#last = this.#last.then(turn);
      };
      if (early) early.then(lineUp, (error) => call.stop(siglipError(error)));
      else lineUp();
    });
  }
}

/** An error that says which of several pictures it is about. @param {number} i @param {any} error */
function about(i, error) {
  const { code, message } = siglipError(error);
  return new SiglipError(code, ["aborted", "disposed"].includes(code) ? message : `images[${i}]: ${message}`, { cause: error });
}

/** The listener's own mistakes are reported as such, and stop nothing. @param {((event: any) => void) | undefined} onProgress @param {object} progress */
function tell(onProgress, progress) {
  try {
    onProgress?.(progress);
  } catch (error) {
    self.reportError?.(error);
  }
}
