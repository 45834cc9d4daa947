// siglip-web: SigLIP zero-shot image classification inside a web page.
// This file is what a page imports. It checks what it is given, keeps calls in order, and leaves the work to a worker.
import { SiglipError, aborted, siglipError } from "./error.js";
import { badInput, checkAborted, checkEmbedding, checkFunction, checkLabels, checkOptions, checkTemplate, checkTexts, checkWord, show } from "./client/arguments.js";
import { prepare } from "./client/image.js";
import { LabelSet, readLabelSet } from "./client/label-set.js";
import { locate } from "./client/locate.js";
import { watch } from "./client/live.js";
import { groups, iterate, ofPicture } from "./client/many.js";
import { Model } from "./client/model.js";
import { sigmoid } from "./client/scores.js";
import { tell } from "./platform.js";
import { clearCaches, listCaches } from "./store/stored.js";
// Each is a part of one of those. Named here, all are asked for at once: browsers would learn of them level by level, and wait for the server each time.
import "./client/avif.js";
import "./client/link.js";
import "./client/threads.js";
import "./data-address.js";
import "./files/node.js";
import "./files/pins.js";
import "./files/watch.js";
import "./hash.js";
import "./store/disks.js";
import "./store/packs.js";
import "./trusted.js";
import "./worker/spawn.js";

export { LabelSet, SiglipError };

/** @typedef {import("./siglip-web.d.ts").ModelSource} ModelSource */
/** @typedef {import("./siglip-web.d.ts").LoadOptions} LoadOptions */
/** @typedef {import("./siglip-web.d.ts").ClassifyOptions} ClassifyOptions */
/** @typedef {import("./siglip-web.d.ts").ImageInput} ImageInput */
/** @typedef {import("./siglip-web.d.ts").LabelScore} LabelScore */
/** @typedef {import("./siglip-web.d.ts").ModelInfo} ModelInfo */
/** @typedef {import("./siglip-web.d.ts").CallProgress} CallProgress */
/** @typedef {import("./siglip-web.d.ts").Images} Images */
/** @typedef {import("./siglip-web.d.ts").LabelSetJSON} LabelSetJSON */
/** @typedef {import("./siglip-web.d.ts").WatchLabels} WatchLabels */
/** @typedef {import("./siglip-web.d.ts").WatchOptions} WatchOptions */
/** @typedef {import("./client/image.js").Prepared} Prepared */
/** @typedef {import("./ports.d.ts").Request} Request */

/** @typedef {typeof import("./siglip-web.d.ts")} Declared */
/** @typedef {import("./ports.d.ts").Implements<Declared["SiglipClassifier"], typeof SiglipClassifier>} ClassifierAsDeclared */
/** @typedef {import("./ports.d.ts").NothingMore<import("./ports.d.ts").Undeclared<Declared["SiglipClassifier"], typeof SiglipClassifier>>} ClassifierNothingMore */
/** @typedef {import("./ports.d.ts").Implements<Declared["LabelSet"], typeof LabelSet>} LabelSetAsDeclared */
/** @typedef {import("./ports.d.ts").NothingMore<import("./ports.d.ts").Undeclared<Declared["LabelSet"], typeof LabelSet>>} LabelSetNothingMore */
/** @typedef {import("./ports.d.ts").Implements<Declared["SiglipError"], typeof SiglipError>} ErrorAsDeclared */
/** @typedef {import("./ports.d.ts").NothingMore<import("./ports.d.ts").Undeclared<Declared["SiglipError"], typeof SiglipError>>} ErrorNothingMore */

/** @typedef {{over: boolean, cancel: () => void, stop: (error: SiglipError) => void}} Call a call that waits or runs */

/** Tests pass a retry policy of their own, so that none of them waits. */
const RETRY_POLICY = Symbol.for("siglip-web.retryPolicy");
/** Labels of a model that a message names. */
const NAMED = 10;
const LOAD_OPTIONS = ["backend", "dtype", "maxPatches", "onProgress", "signal", "cache", "keepLabels", "wholeTable", "worker", "timeout"];
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
    if (inside !== INSIDE) throw badInput("A classifier needs a model: use await SiglipClassifier.load(…).");
    this.#model = model;
    this.#stall = stall;
  }

  /**
   * @param {ModelSource} source
   * @param {LoadOptions} [options]
   * @returns {Promise<SiglipClassifier>}
   */
  static async load(source, options = {}) {
    const { backend = "auto", dtype = "auto", maxPatches, onProgress, signal, cache = true, keepLabels = true, wholeTable = false, worker = true, timeout, [RETRY_POLICY]: retryPolicy } = checkOptions(options, LOAD_OPTIONS);
    checkWord("backend", backend, ["auto", "webgpu", "cpu"]);
    checkWord("dtype", dtype, ["auto", "f32", "f16", "q8", "q4"]);
    checkWord("cache", cache, [true, false]);
    checkWord("keepLabels", keepLabels, [true, false]);
    checkWord("wholeTable", wholeTable, [true, false]);
    checkWord("worker", worker, [true, false]);
    checkFunction("onProgress", onProgress);
    if (maxPatches !== undefined && !(Number.isSafeInteger(maxPatches) && maxPatches >= 1)) throw badInput(`maxPatches is ${show(maxPatches)}; it must be a whole number from 1 to 1024.`);
    if (timeout !== undefined && !(typeof timeout === "number" && timeout > 0)) throw badInput(`timeout is ${show(timeout)}; it must be a number of milliseconds, or be left out for no limit.`);
    const { place, name, cure } = locate(source);
    const model = await Model.load({ method: "load", place, name, cure, backend, dtype, maxPatches, cache, keepLabels, wholeTable, retryPolicy }, { worker, timeout, signal, onProgress: (progress) => tell(onProgress, progress) });
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
    return clearCaches(name, name && folderOf(name)).catch((error) => { throw siglipError(error, "network"); });
  }

  get info() {
    return this.#model.info;
  }

  /**
   * @param {ImageInput} image
   * @param {readonly string[] | LabelSet | LabelSetJSON | null} [labels]
   * @param {ClassifyOptions} [options]
   * @returns {Promise<LabelScore[]>}
   */
  async classify(image, labels, options = {}) {
    this.#checkUsable();
    const { signal, onProgress, settings } = classifyOptions(options);
    const message = { method: "classify", labels: this.#labels(labels, settings.template), options: settings };
    return this.#withImage(image, message, signal, onProgress);
  }

  /**
   * @param {Images} images
   * @param {readonly string[] | LabelSet | LabelSetJSON | null} [labels]
   * @param {ClassifyOptions} [options]
   * @returns {AsyncGenerator<{index: number, results: LabelScore[]} | {index: number, error: SiglipError}, void>}
   */
  async *classifyMany(images, labels, options = {}) {
    this.#checkUsable();
    const { signal, onProgress, settings: { template, ...settings } } = classifyOptions(options);
    const pictures = iterate(images);
    const given = this.#labels(labels, template);
    // Once for all pictures, and what is wrong with the labels is said before any of them.
    const set = Array.isArray(given) ? await this.embedLabels(given, { template, signal, onProgress }) : given;
    const message = { labels: set && { ...set }, options: settings };
    for await (const { index, error, result } of this.#many(images, pictures, { method: "classifyImages", one: "classify", message }, signal, onProgress)) {
      yield error ? { index, error } : { index, results: result };
    }
  }

  /**
   * @param {ImageInput} image
   * @param {string} label
   * @param {{template?: string | readonly string[], signal?: AbortSignal}} [options]
   * @returns {Promise<import("./siglip-web.d.ts").HeatMap>}
   */
  async explain(image, label, options = {}) {
    this.#checkUsable();
    const { template, signal } = checkOptions(options, ["template", "signal"]);
    checkLabels([label]);
    if (template !== undefined) checkTemplate(template);
    return this.#withImage(image, { method: "explain", label, options: { template: listed(template) } }, signal);
  }

  /**
   * @param {HTMLVideoElement} video
   * @param {WatchLabels} labels
   * @param {WatchOptions} options
   * @returns {Promise<void>}
   */
  async watch(video, labels, options) {
    this.#checkUsable();
    return watch(this, video, labels, options, tell);
  }

  /**
   * @param {ImageInput} image
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<Float32Array>}
   */
  async embedImage(image, options = {}) {
    this.#checkUsable();
    this.#checkZeroShot();
    const { signal } = checkOptions(options, ["signal"]);
    return this.#withImage(image, { method: "embedImage" }, signal);
  }

  /**
   * @param {Images} images
   * @param {{signal?: AbortSignal, onProgress?: (event: CallProgress) => void}} [options]
   * @returns {AsyncGenerator<{index: number, embedding: Float32Array} | {index: number, error: SiglipError}, void>}
   */
  async *embedMany(images, options = {}) {
    this.#checkUsable();
    this.#checkZeroShot();
    const { signal, onProgress } = checkOptions(options, ["signal", "onProgress"]);
    checkFunction("onProgress", onProgress);
    const pictures = iterate(images);
    for await (const { index, error, result } of this.#many(images, pictures, { method: "embedImages", one: "embedImage", message: {} }, signal, onProgress)) {
      yield error ? { index, error } : { index, embedding: result };
    }
  }

  /**
   * @param {Images} images
   * @param {{signal?: AbortSignal, onProgress?: (event: CallProgress) => void}} [options]
   * @returns {Promise<Float32Array[]>}
   */
  async embedImages(images, options = {}) {
    const embeddings = [];
    for await (const item of this.embedMany(images, options)) {
      if ("error" in item) throw about(item.index, item.error);
      embeddings.push(item.embedding);
    }
    return embeddings;
  }

  /**
   * @param {readonly string[]} labels
   * @param {{template?: string | readonly string[], signal?: AbortSignal, onProgress?: (event: CallProgress) => void}} [options]
   * @returns {Promise<LabelSet>}
   */
  async embedLabels(labels, options = {}) {
    this.#checkUsable();
    this.#checkZeroShot();
    const { template, signal, onProgress } = checkOptions(options, ["template", "signal", "onProgress"]);
    checkLabels(labels);
    if (template !== undefined) checkTemplate(template);
    checkFunction("onProgress", onProgress);
    const message = { method: "embedLabels", labels: [...labels], options: { template: listed(template) } };
    return new LabelSet(await this.#enqueue(signal, (call) => this.#send(call, message, onProgress)));
  }

  /**
   * @param {Float32Array} a
   * @param {Float32Array} b
   */
  similarity(a, b) {
    this.#checkZeroShot();
    const { embeddingSize, logitScale, logitBias } = this.info;
    checkEmbedding("a", a, embeddingSize);
    checkEmbedding("b", b, embeddingSize);
    const cosine = a.reduce((sum, value, i) => sum + value * /** @type {number} */ (b[i]), 0);
    const logit = Math.exp(logitScale) * cosine + logitBias;
    return { cosine, logit, score: sigmoid(logit) };
  }

  /**
   * @param {readonly string[]} texts
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<Float32Array[]>}
   */
  async embedText(texts, options = {}) {
    this.#checkUsable();
    this.#checkZeroShot();
    const { signal } = checkOptions(options, ["signal"]);
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

  /** A fine-tuned model knows its own labels, and nothing else can be asked of it. */
  #checkZeroShot() {
    const { task, name, labels = [] } = this.info;
    if (task !== "image-classification") return;
    const some = labels.slice(0, NAMED).join(", ") + (labels.length > NAMED ? ` and ${labels.length - NAMED} more` : "");
    throw new SiglipError("unsupported", `The model ${name} was fine-tuned for labels of its own (${some}): it scores these for a picture, takes no others and has no embeddings. Call classify(image) without labels, or load a model with both towers, such as google/siglip2-base-patch16-224.`);
  }

  /**
   * Labels as the engine takes them: words, the parts of a set, or nothing for the model's own.
   * @param {any} labels @param {string | string[] | undefined} template
   */
  #labels(labels, template) {
    if ((labels === undefined || labels === null) && this.info.labels) {
      if (template !== undefined) throw badInput("These are the model's own labels, which are put into no other sentence. Leave the template out.");
      return undefined;
    }
    this.#checkZeroShot();
    if (labels === null || typeof labels !== "object" || Array.isArray(labels)) {
      checkLabels(labels);
      return [...labels];
    }
    const set = readLabelSet(labels, this.info);
    if (template !== undefined) throw badInput(`The labels of the LabelSet were put into ${show(set.templates.join(", "))} already. Leave the template out.`);
    return set;
  }

  /**
   * @param {ImageInput} image @param {object} message
   * @param {AbortSignal | undefined} signal @param {((event: CallProgress) => void) | undefined} [onProgress]
   */
  #withImage(image, message, signal, onProgress) {
    checkAborted(signal);
    const fetching = new AbortController();
    // Now, not when its turn comes: a canvas or a frame may show something else by then.
    const preparing = prepare(image, { signal: fetching.signal, stall: this.#stall });
    return this.#enqueue(signal, async (call) => {
      const prepared = await preparing;
      if (call.over) return undefined;
      return this.#sendImage(call, message, prepared, onProgress);
    }, preparing, fetching);
  }

  /**
   * What comes of each of many pictures, group by group; each group is a call of its own in the queue.
   * @param {Images} images @param {AsyncIterator<any> | Iterator<any>} pictures
   * @param {{method: string, one: string, message: object}} ask the engine's methods for a group and for one picture
   * @param {AbortSignal | undefined} signal @param {((event: CallProgress) => void) | undefined} onProgress
   * @returns {AsyncGenerator<{index: number, error?: SiglipError, result?: any}, void>}
   */
  async *#many(images, pictures, ask, signal, onProgress) {
    checkAborted(signal);
    const fetching = new AbortController();
    const stop = () => fetching.abort();
    signal?.addEventListener("abort", stop);
    const total = Array.isArray(images) ? images.length : 0;
    let loaded = 0;
    try {
      for await (const group of groups(pictures, { signal: fetching.signal, stall: this.#stall })) {
        const readable = group.flatMap((item) => ("prepared" in item ? [item.prepared] : []));
        const outcomes = readable.length === 0 ? [] : await this.#enqueue(signal, (call) => this.#sendSome(call, ask, readable));
        for (const item of group) {
          tell(onProgress, { stage: "images", loaded: ++loaded, total });
          yield "error" in item ? item : { index: item.index, ...outcomes.shift() };
        }
        checkAborted(signal);
        this.#checkUsable();
      }
    } catch (error) {
      checkAborted(signal);
      throw error;
    } finally {
      signal?.removeEventListener("abort", stop);
      fetching.abort();
    }
  }

  /**
   * Some pictures together or, where one of them can't be read as it is, each by itself.
   * @param {Call} call @param {{method: string, one: string, message: object}} ask @param {Prepared[]} prepared
   * @returns {Promise<{error?: SiglipError, result?: any}[]>}
   */
  async #sendSome(call, { method, one, message }, prepared) {
    try {
      // Copied, not moved: they may be needed again.
      const results = await this.#send(call, { method, ...message, images: prepared.map(({ picture }) => picture) });
      return results.map((/** @type {any} */ result) => ({ result }));
    } catch (error) {
      ofPicture(error);
    }
    const outcomes = [];
    for (const picture of prepared) {
      if (call.over) break;
      outcomes.push(await this.#sendImage(call, { method: one, ...message }, picture).then((result) => ({ result }), (error) => ({ error: ofPicture(error) })));
    }
    return outcomes;
  }

  /**
   * One picture, decoded by the browser where the engine can't.
   * @param {Call} call @param {object} message @param {Prepared} prepared @param {((event: CallProgress) => void) | undefined} [onProgress]
   */
  async #sendImage(call, message, { picture, decode }, onProgress) {
    try {
      return await this.#send(call, { ...message, image: picture }, onProgress);
    } catch (error) {
      if (!["unsupported", "bad-image"].includes(error.code) || !decode || call.over) throw error;
      const decoded = await decode(error);
      if (call.over) return undefined;
      return this.#send(call, { ...message, image: decoded }, onProgress);
    }
  }

  /** @param {Call} call @param {any} message @param {((event: CallProgress) => void) | undefined} [onProgress] */
  #send(call, message, onProgress) {
    const transfer = message.image?.rgba ? [message.image.rgba.buffer] : [];
    const request = this.#model.request(message, transfer, (progress) => { if (!call.over) tell(onProgress, progress); });
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

/** @param {ClassifyOptions} options */
function classifyOptions(options) {
  const { template, scores, topK, signal, onProgress } = checkOptions(options, ["template", "scores", "topK", "signal", "onProgress"]);
  if (template !== undefined) checkTemplate(template);
  if (scores !== undefined) checkWord("scores", scores, ["sigmoid", "softmax"]);
  if (topK !== undefined && !(Number.isSafeInteger(topK) && topK >= 1)) throw badInput(`topK is ${show(topK)}; it must be a whole number of 1 or more.`);
  checkFunction("onProgress", onProgress);
  return { signal, onProgress, settings: { template: listed(template), scores, topK } };
}

/** Templates as they are now: the caller's array may change. @param {string | readonly string[] | undefined} template */
function listed(template) {
  return template === undefined || typeof template === "string" ? template : [...template];
}

/** The address of the folder that a model of this name comes from, if it is anything that `load` takes. @param {string} name */
function folderOf(name) {
  try {
    const { place } = locate(name);
    return place.kind === "url" ? place.base : undefined;
  } catch {
    return undefined;
  }
}

/** An error that says which of several pictures it is about. @param {number} i @param {any} error */
function about(i, error) {
  const { code, message } = siglipError(error);
  return new SiglipError(code, ["aborted", "disposed"].includes(code) ? message : `images[${i}]: ${message}`, { cause: error });
}
