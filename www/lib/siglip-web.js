// siglip-web: SigLIP zero-shot image classification inside a web page.
// This file is what a page imports. It checks what it is given, keeps calls in order, and leaves the work to a worker.
import { SiglipError, aborted, siglipError } from "./error.js";
import { prepare } from "./client/image.js";
import { isForeign, spawn } from "./worker/spawn.js";
import { clearCaches, listCaches } from "./store/stored.js";

export { SiglipError };

/** @typedef {import("./siglip-web.d.ts").ModelSource} ModelSource */
/** @typedef {import("./siglip-web.d.ts").LoadOptions} LoadOptions */
/** @typedef {import("./siglip-web.d.ts").ClassifyOptions} ClassifyOptions */
/** @typedef {import("./siglip-web.d.ts").ImageInput} ImageInput */
/** @typedef {import("./siglip-web.d.ts").LabelScore} LabelScore */
/** @typedef {import("./siglip-web.d.ts").ModelInfo} ModelInfo */
/** @typedef {{over: boolean, cancel: () => void, stop: (error: SiglipError) => void}} Call a call that waits or runs */

/** Longer labels are a mistake: a text tower reads at most a few hundred characters of them. */
const LONGEST_LABEL = 1000;
/** Pictures of one message: enough for any device, few enough that others can be heard in between. */
const IMAGES_AT_ONCE = 8;
/** Tests pass their own patience with a bad connection, so that none of them waits. */
const PATIENCE = Symbol.for("siglip-web.patience");
/** `new SiglipClassifier()` would be one without a model. */
const INSIDE = Symbol("load");

export class SiglipClassifier {
  /** @type {Link} */
  #link;
  /** @type {ModelInfo} */
  #info;
  /** @type {Promise<unknown>} the end of the queue: calls run one at a time, in the order they were made */
  #last = Promise.resolve();
  /** @type {Set<Call>} */
  #calls = new Set();
  /** @type {Promise<void> | undefined} */
  #disposed;

  /** @param {symbol} inside @param {Link} link @param {ModelInfo} info */
  constructor(inside, link, info) {
    if (inside !== INSIDE) throw new TypeError("A classifier needs a model: use await SiglipClassifier.load(…).");
    this.#link = link;
    this.#info = Object.freeze(info);
  }

  /**
   * @param {ModelSource} source
   * @param {LoadOptions} [options]
   * @returns {Promise<SiglipClassifier>}
   */
  static async load(source, options = {}) {
    const { backend = "auto", dtype = "auto", onProgress, signal, cache = true, wholeTable = false, worker = true } = checkOptions(options);
    checkWord("backend", backend, ["auto", "webgpu", "cpu"]);
    checkWord("dtype", dtype, ["auto", "f32", "f16", "q8", "q4"]);
    checkWord("cache", cache, [true, false]);
    checkWord("wholeTable", wholeTable, [true, false]);
    checkWord("worker", worker, [true, false]);
    if (onProgress !== undefined && typeof onProgress !== "function") throw badInput(`onProgress is ${show(onProgress)}; it must be a function.`);
    const { place, name } = locate(source);
    checkAborted(signal);

    const link = worker ? workerLink() : await localLink();
    const request = link.request({ method: "load", place, name, backend, dtype, cache, wholeTable, patience: options[PATIENCE] }, (progress) => tell(onProgress, progress));
    const onAbort = () => {
      request.cancel();
      link.close(aborted(signal));
    };
    signal?.addEventListener("abort", onAbort);
    try {
      checkAborted(signal);
      const info = await request.reply;
      tell(onProgress, { stage: "ready", loaded: info.bytes, total: info.bytes });
      return new SiglipClassifier(INSIDE, link, info);
    } catch (error) {
      link.close(error);
      throw error;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
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
    return this.#info;
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
    const preparing = Promise.all([...images].map((image, i) => prepare(image, fetching.signal).catch((error) => { throw about(i, error); })));
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
      await this.#link.free();
      this.#link.close(error);
    })();
    return this.#disposed;
  }

  /** For tests: how often each tower really ran, and the WebAssembly memory in bytes. */
  [Symbol.for("siglip-web.stats")]() {
    return this.#link.request({ method: "stats" }).reply;
  }

  #checkUsable() {
    if (this.#disposed) throw new SiglipError("disposed", "The classifier was disposed of. Load the model again to go on.");
    if (this.#link.failure) throw this.#link.failure;
  }

  /** @param {ImageInput} image @param {object} message @param {AbortSignal | undefined} signal */
  #withImage(image, message, signal) {
    checkAborted(signal);
    const fetching = new AbortController();
    // Now, not when its turn comes: a canvas or a frame may show something else by then.
    const preparing = prepare(image, fetching.signal);
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
      if (error.code !== "unsupported" || !decode || call.over) throw error;
      const decoded = await decode();
      if (call.over) return undefined;
      return this.#send(call, { ...message, image: decoded });
    }
  }

  /** @param {Call} call @param {any} message */
  #send(call, message) {
    const transfer = message.image?.rgba ? [message.image.rgba.buffer] : [];
    const request = this.#link.request(message, undefined, transfer);
    call.cancel = request.cancel;
    return request.reply;
  }

  /**
   * Runs `work` when its turn has come. The promise given back is rejected at once when the caller aborts, when
   * `early` fails or when the classifier is disposed of; the turn itself ends when the work has really stopped.
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
      early?.catch((error) => call.stop(siglipError(error)));
      this.#last = this.#last.then(async () => {
        if (call.over) return;
        try {
          const result = await work(call);
          if (call.over) return;
          finish();
          resolve(result);
        } catch (error) {
          call.stop(siglipError(error));
        }
      });
    });
  }
}

// ---------------------------------------------------------------------------------------------------------
// The line to the engine

/** Requests and their answers, over a worker's messages or plain calls. */
class Link {
  #post;
  #end;
  /** @type {Map<number, {resolve: (value: any) => void, reject: (error: SiglipError) => void, onProgress?: (progress: any) => void}>} */
  #pending = new Map();
  #count = 0;
  /** @type {SiglipError | undefined} why nothing can be asked any more */
  failure;

  /** @param {(message: object, transfer: Transferable[]) => void} post @param {() => void} end */
  constructor(post, end) {
    this.#post = post;
    this.#end = end;
  }

  /**
   * @param {object} message
   * @param {(progress: any) => void} [onProgress]
   * @param {Transferable[]} [transfer]
   */
  request(message, onProgress, transfer = []) {
    const id = ++this.#count;
    /** @type {Promise<any>} */
    const reply = new Promise((resolve, reject) => {
      if (this.failure) throw this.failure;
      this.#pending.set(id, { resolve, reject, onProgress });
      this.#post({ ...message, id }, transfer);
    });
    return { reply, cancel: () => { if (this.#pending.has(id)) this.#post({ cancel: id }, []); } };
  }

  /** @param {any} message */
  receive({ id, progress, error, result, watch }) {
    if (watch) return this.#watch(watch);
    const waiting = this.#pending.get(id);
    if (!waiting) return;
    if (progress) return waiting.onProgress?.(progress);
    this.#pending.delete(id);
    if (error) waiting.reject(siglipError(error));
    else waiting.resolve(result);
  }

  /** A thread of the worker that crashes leaves it waiting for ever. @param {MessagePort} port */
  #watch(port) {
    port.onmessage = ({ data }) => this.close(new SiglipError("device-lost", `The computation crashed (${data}) and had to stop. Load the model again.`));
  }

  /** Asks for all memory back, and waits a little for that. */
  async free() {
    let timer;
    const patience = new Promise((resolve) => { timer = setTimeout(resolve, 2000); });
    await Promise.race([this.request({ method: "dispose" }).reply.catch(() => {}), patience]);
    clearTimeout(timer);
  }

  /** Nothing hangs: what waits is rejected with `error`, and so is what comes later. @param {SiglipError} error */
  close(error) {
    if (this.failure) return;
    this.failure = error;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    this.#end();
  }
}

function workerLink() {
  if (typeof Worker === "undefined") throw new SiglipError("unsupported", "There are no web workers here. siglip-web runs in a browser; there, worker: false does without them.");
  const url = new URL("./worker/worker.js", import.meta.url);
  const foreign = isForeign(url);
  const failed = (detail) => new SiglipError("network", `The library's worker ${url.href} could not be started${detail ? ` (${detail})` : ""}. Serve the whole folder that siglip-web.js is in${foreign ? ", let other sites read it (CORS)," : ""} and allow it in the page's Content-Security-Policy (worker-src ${foreign ? "blob:" : "'self'"}); or load with worker: false.`);
  let spawned;
  try {
    spawned = spawn(url, () => new Worker(new URL("./worker/worker.js", import.meta.url), { type: "module", name: "siglip-web" }), "siglip-web");
  } catch (error) {
    throw failed(error.message);
  }
  const { worker, end } = spawned;
  let started = false;
  const link = new Link((message, transfer) => worker.postMessage(message, transfer), end);
  worker.onmessage = ({ data }) => {
    started = true;
    link.receive(data);
  };
  // Once it runs, the worker itself tells of every failure of a call; what is left are errors that concern none.
  worker.onerror = (event) => {
    if (started) return;
    event.preventDefault();
    link.close(failed(event.message));
  };
  return link;
}

async function localLink() {
  const { Host } = await import("./worker/host.js");
  const host = new Host((message) => link.receive(message));
  const link = new Link((message) => host.receive(message), () => {});
  return link;
}

// ---------------------------------------------------------------------------------------------------------
// What the caller gives

/** An error that says which of several pictures it is about. @param {number} i @param {any} error */
function about(i, error) {
  const { code, message } = siglipError(error);
  return new SiglipError(code, ["aborted", "disposed"].includes(code) ? message : `images[${i}]: ${message}`, { cause: error });
}

/**
 * @param {any} source
 * @returns {{place: import("./worker/host.js").Place, name: string}}
 */
function locate(source) {
  if (typeof source === "string") return locateText(source.trim());
  const tag = tagOf(source);
  if (tag === "FileSystemDirectoryHandle") return { place: { kind: "directory", handle: source }, name: source.name };
  if (Array.isArray(source) || tag === "FileList") return locateFiles([...source]);
  throw badInput(`The model is ${show(source)}. It must be "demo", "owner/name" of the Hugging Face Hub, the address of a folder, the files of a checkpoint, or a directory handle.`);
}

/** @param {string} text */
function locateText(text) {
  if (text === "demo") return { place: /** @type {const} */ ({ kind: "url", base: new URL("./models/demo/", import.meta.url).href }), name: "demo" };
  if (/^([a-z][a-z\d+.-]*:|\.{0,2}\/)/i.test(text)) return locateAddress(text);
  const [, owner, name, revision = "main"] = /^([a-z\d][\w.-]{0,95})\/([a-z\d][\w.-]{0,95})(?:@([\w.-]+(?:\/[\w.-]+)*))?$/i.exec(text) ?? [];
  if (!owner || revision.split("/").some((part) => /^\.+$/.test(part))) {
    throw badInput(`The model ${show(text)} is not known. Write "demo", "owner/name" or "owner/name@revision" for one of the Hugging Face Hub, or the address of a folder that starts with https://, / or ./.`);
  }
  const hub = { origin: "https://huggingface.co", model: `${owner}/${name}`, revision };
  const base = `${hub.origin}/${hub.model}/resolve/${encodeURIComponent(revision)}/`;
  return { place: /** @type {const} */ ({ kind: "url", base, hub }), name: text };
}

/** @param {string} text */
function locateAddress(text) {
  let url;
  try {
    url = new URL(text, globalThis.document?.baseURI ?? self.location.href);
  } catch (error) {
    throw badInput(`The model's address ${show(text)} is not one (${error.message}). Give the address of the folder that holds config.json.`);
  }
  if (!["http:", "https:", self.location.protocol].includes(url.protocol)) {
    throw badInput(`The model's address ${show(text)} starts with ${url.protocol}, which can't be a folder. Give one that starts with https://, / or ./, or the files themselves.`);
  }
  // The Hub's page of a model is what people copy.
  const [, model, revision] = /^\/([^/]+\/[^/]+)(?:\/(?:tree|resolve)\/(.+?))?\/?$/.exec(url.pathname) ?? [];
  if (/^(www\.)?(huggingface\.co|hf\.co)$/.test(url.hostname) && model) return locateText(revision ? `${model}@${decodeURIComponent(revision)}` : model);
  if (/\.(json|safetensors)$/i.test(url.pathname)) throw badInput(`The model's address ${show(text)} is that of one file. Give the folder that it is in.`);
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  url.hash = "";
  // Mirrors of the Hub have its addresses.
  const mirror = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/$/.exec(url.pathname);
  if (mirror) {
    const hub = { origin: url.origin, model: mirror[1], revision: decodeURIComponent(mirror[2]) };
    return { place: /** @type {const} */ ({ kind: "url", base: url.href, hub }), name: hub.revision === "main" ? hub.model : `${hub.model}@${hub.revision}` };
  }
  const name = decodeURIComponent(url.pathname.split("/").at(-2) || url.host);
  return { place: /** @type {const} */ ({ kind: "url", base: url.href }), name };
}

/** @param {any[]} list */
function locateFiles(list) {
  list.forEach((file, index) => {
    if (tagOf(file) !== "File") throw badInput(`Of the model's files, number ${index + 1} is ${show(file)}; all must be File objects.`);
  });
  const paths = list.map((file) => file.webkitRelativePath || file.name);
  const config = paths.filter((path) => /(^|\/)config\.json$/.test(path)).sort((a, b) => a.split("/").length - b.split("/").length)[0];
  if (config === undefined) {
    throw new SiglipError("bad-model", list.length === 0
      ? "No model files were given. Choose all files of the model's folder: config.json, preprocessor_config.json, tokenizer.json and model.safetensors."
      : `config.json is missing among the ${list.length} files given. Choose all files of the model's folder: config.json, preprocessor_config.json, tokenizer.json and model.safetensors.`);
  }
  const folder = config.slice(0, -"config.json".length);
  const files = new Map();
  paths.forEach((path, index) => {
    if (path.startsWith(folder)) files.set(path.slice(folder.length), list[index]);
  });
  return { place: /** @type {const} */ ({ kind: "files", files }), name: folder.split("/").at(-2) || "local files" };
}

/** @param {any} options */
function checkOptions(options) {
  if (options === null || typeof options !== "object") throw badInput(`The options are ${show(options)}; they must be an object such as {topK: 3}.`);
  const { signal } = options;
  if (signal !== undefined && (typeof signal?.aborted !== "boolean" || typeof signal.addEventListener !== "function")) {
    throw badInput(`signal is ${show(signal)}; it must be an AbortSignal, such as new AbortController().signal.`);
  }
  return options;
}

/** @param {AbortSignal} [signal] */
function checkAborted(signal) {
  if (signal?.aborted) throw aborted(signal);
}

/** @param {string} option @param {unknown} value @param {unknown[]} words */
function checkWord(option, value, words) {
  if (!words.includes(value)) throw badInput(`${option} is ${show(value)}; it must be ${words.map((word) => JSON.stringify(word)).join(" or ")}.`);
}

/** @param {any} texts @param {string} many @param {string} one */
function checkTexts(texts, many, one) {
  if (!Array.isArray(texts)) throw badInput(`${many} is ${show(texts)}; it must be an array of strings, such as ["a cat", "a dog"].`);
  if (texts.length === 0) throw badInput(`${many} is empty; give at least one ${one}.`);
  for (let i = 0; i < texts.length; i++) {
    if (typeof texts[i] !== "string") throw badInput(`${one} ${i + 1} of ${texts.length} is ${show(texts[i])}; every ${one} must be a string.`);
  }
}

/** @param {string} what @param {string} text */
function checkLength(what, text) {
  const length = text.length <= LONGEST_LABEL ? text.length : [...text].length;
  if (length > LONGEST_LABEL) throw badInput(`${what} (${show(text)}) has ${length} characters; ${LONGEST_LABEL} are allowed, and a model reads only the first few dozen words. Shorten it.`);
}

/** @param {any} labels */
function checkLabels(labels) {
  checkTexts(labels, "labels", "label");
  const seen = new Map();
  labels.forEach((label, i) => {
    const text = label.trim();
    if (text === "") throw badInput(`label ${i + 1} of ${labels.length} is blank. Write what it stands for, or leave it out.`);
    checkLength(`label ${i + 1} of ${labels.length}`, label);
    if (seen.has(text)) throw badInput(`labels ${seen.get(text) + 1} and ${i + 1} are the same (${show(text)}). Leave one out.`);
    seen.set(text, i);
  });
}

/** @param {any} template */
function checkTemplate(template) {
  const templates = Array.isArray(template) ? template : [template];
  if (templates.length === 0) throw badInput("template is an empty array; give at least one template, or leave the option out.");
  for (const text of templates) {
    if (typeof text !== "string") throw badInput(`template is ${show(text)}; it must be a string with {} where the label goes, or an array of them.`);
    checkLength("the template", text);
    const places = text.split("{}").length - 1;
    if (places !== 1) throw badInput(`The template ${show(text)} has ${places === 0 ? "no {}" : `${places} times {}`}; it must have {} once, where the label goes.`);
  }
}

/** @param {unknown} value */
function tagOf(value) {
  return Object.prototype.toString.call(value).slice(8, -1);
}

/** A value as a message shows it. @param {unknown} value */
function show(value) {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}…` : value);
  if (value === null || ["undefined", "number", "bigint", "boolean"].includes(typeof value)) return String(value);
  return typeof value === "object" ? `of type ${tagOf(value)}` : `a ${typeof value}`;
}

/** @param {string} message */
function badInput(message) {
  return new SiglipError("bad-input", message);
}

/** The listener's own mistakes are reported as such, and stop nothing. @param {((event: any) => void) | undefined} onProgress @param {object} progress */
function tell(onProgress, progress) {
  try {
    onProgress?.(progress);
  } catch (error) {
    self.reportError?.(error);
  }
}
