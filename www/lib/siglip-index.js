// SiglipIndex: search over many pictures. A module of its own; siglip-web.js loads nothing of it.
import { SiglipError, aborted, siglipError } from "./error.js";
import { badInput, checkAborted, checkFunction, checkOptions, checkWord, show, tagOf } from "./client/arguments.js";
import { Adding } from "./index/adding.js";
import { Keeper } from "./index/keeper.js";
import { checkId, picturesOf } from "./index/pictures.js";
import { addTo, parse, searchOptions, termsOf, unit } from "./index/query.js";
import { read, write } from "./index/safetensors.js";

/** @typedef {import("./siglip-index.d.ts").IndexInfo} IndexInfo */
/** @typedef {import("./siglip-index.d.ts").AddOptions} AddOptions */
/** @typedef {import("./siglip-index.d.ts").OpenOptions} OpenOptions */
/** @typedef {import("./siglip-index.d.ts").SearchOptions} SearchOptions */
/** @typedef {import("./siglip-index.d.ts").KeptIndex} KeptIndex */
/** @typedef {import("./siglip-web.d.ts").SiglipClassifier} SiglipClassifier */

/** @typedef {typeof import("./siglip-index.d.ts")} Declared */
/** @typedef {import("./ports.d.ts").Implements<Declared["SiglipIndex"], typeof SiglipIndex>} IndexAsDeclared */
/** @typedef {import("./ports.d.ts").NothingMore<import("./ports.d.ts").Undeclared<Declared["SiglipIndex"], typeof SiglipIndex>>} IndexNothingMore */

/** Raised whenever the same picture would get another embedding: how it is decoded, scaled or run through the model. */
const PIPELINE = 1;
/** Embeddings of words that are remembered: those that are typed again. */
const REMEMBERED = 256;
/** Rows that an import takes at a time. */
const ROWS = 1024;
/** `new SiglipIndex()` would be one without a model. */
const INSIDE = Symbol("open");

export class SiglipIndex {
  #classifier;
  #keeper;
  #info;
  /** The one `add` after the other. @type {Promise<unknown>} */
  #last = Promise.resolve();
  /** Ends what runs. */
  #closing = new AbortController();
  #gate = new Gate();
  /** @type {Map<string, Float32Array>} */
  #words = new Map();
  /** @type {(() => void) | null} */
  onchange = null;

  /** @param {symbol} inside @param {SiglipClassifier} classifier @param {Keeper} keeper @param {IndexInfo} info */
  constructor(inside, classifier, keeper, info) {
    if (inside !== INSIDE) throw badInput("An index needs a model: use await SiglipIndex.open(classifier, …).");
    this.#classifier = classifier;
    this.#keeper = keeper;
    this.#info = info;
  }

  /**
   * @param {SiglipClassifier} classifier
   * @param {OpenOptions} [options]
   * @returns {Promise<SiglipIndex>}
   */
  static async open(classifier, options = {}) {
    const { name = "pictures", memory = false, again = false, signal } = checkOptions(options, ["name", "memory", "again", "signal"]);
    if (typeof classifier?.embedImage !== "function" || !classifier.info) throw badInput(`The classifier is ${show(classifier)}; it must be what SiglipClassifier.load gave.`);
    checkId("the index", name);
    checkWord("memory", memory, [true, false]);
    checkWord("again", again, [true, false]);
    checkAborted(signal);
    const { name: model, dtype, fingerprint, embeddingSize } = classifier.info;
    return new SiglipIndex(INSIDE, classifier, new Keeper(), {
      name, model, dtype, fingerprint, pipeline: PIPELINE, embeddingSize, kept: false, keptReason: "The index isn't kept, as it was asked.", damaged: 0,
    });
  }

  /** @returns {Promise<KeptIndex[]>} */
  static async list() {
    return [];
  }

  /** @param {string} [name] @returns {Promise<number>} */
  static async delete(name) {
    if (name !== undefined) checkId("the index", name);
    return 0;
  }

  /** @param {string} text */
  static parse(text) {
    return parse(text);
  }

  get info() {
    return this.#info;
  }

  get size() {
    return this.#keeper.size;
  }

  /**
   * @param {import("./siglip-index.d.ts").IndexSource} source
   * @param {AddOptions} [options]
   * @returns {Promise<import("./siglip-index.d.ts").Added>}
   */
  async add(source, options = {}) {
    this.#checkOpen();
    const { onProgress, signal, gone } = checkOptions(options, ["onProgress", "signal", "gone"]);
    checkFunction("onProgress", onProgress);
    if (gone !== undefined) checkWord("gone", gone, ["drop", "keep"]);
    checkAborted(signal);
    const stop = AbortSignal.any([this.#closing.signal, ...(signal ? [signal] : [])]);
    // Now: what was dropped is gone when the event is over.
    const pictures = picturesOf(source, stop);
    return this.#inTurn(stop, () => new Adding(this.#classifier, this.#keeper, pictures, { stop, gate: this.#gate, onProgress, gone, changed: () => this.#changed() }).run());
  }

  pause() {
    this.#gate.shut();
  }

  resume() {
    this.#gate.open();
  }

  get paused() {
    return this.#gate.isShut;
  }

  /**
   * @param {import("./siglip-index.d.ts").Query} query
   * @param {SearchOptions} [options]
   * @returns {Promise<import("./siglip-index.d.ts").Hit[]>}
   */
  async search(query, options = {}) {
    this.#checkOpen();
    const { signal, ...given } = checkOptions(options, ["limit", "minScore", "template", "signal"]);
    const { limit, minScore, template } = searchOptions(given);
    const terms = termsOf(query);
    checkAborted(signal);
    const vectors = await Promise.all(terms.map((term) => this.#vectorOf(term, template, signal)));
    checkAborted(signal);
    const { logitScale, logitBias, embeddingSize } = this.#classifier.info;
    const words = terms.flatMap((term, i) => (term.kind === "text" ? [i] : []));
    const pictures = terms.length > words.length ? new Float32Array(embeddingSize) : undefined;
    terms.forEach(({ kind, minus }, i) => {
      if (kind !== "text" && pictures) addTo(pictures, /** @type {Float32Array} */ (vectors[i]), minus ? -1 : 1);
    });
    return this.#keeper.search({
      words: words.map((i) => /** @type {Float32Array} */ (vectors[i])), minus: words.map((i) => /** @type {boolean} */ (terms[i]?.minus)),
      pictures: pictures && unit(pictures), scale: Math.exp(logitScale), bias: logitBias, limit, minScore,
    });
  }

  async entries() {
    this.#checkOpen();
    return this.#keeper.entries();
  }

  async unreadable() {
    this.#checkOpen();
    return this.#keeper.unreadable();
  }

  /** @param {readonly string[]} ids */
  async embeddings(ids) {
    this.#checkOpen();
    return this.#keeper.vectors([...ids]);
  }

  /** @param {Iterable<string>} ids */
  async remove(ids) {
    this.#checkOpen();
    if (typeof ids === "string" || typeof ids?.[Symbol.iterator] !== "function") throw badInput(`The ids are ${show(ids)}; they must be an array of texts.`);
    const count = await this.#keeper.remove([...ids]);
    if (count > 0) this.#changed();
    return count;
  }

  async clear() {
    this.#checkOpen();
    await this.#keeper.clear();
    this.#changed();
  }

  async export() {
    this.#checkOpen();
    const { model, dtype, fingerprint, pipeline, embeddingSize } = this.#info;
    const entries = await this.#keeper.entries();
    const vectors = await this.#keeper.vectors(entries.map(({ id }) => id));
    return write(entries, /** @type {BlobPart[]} */ (vectors), embeddingSize, { model, dtype, fingerprint, pipeline: String(pipeline) });
  }

  /**
   * @param {Blob | ArrayBuffer | Uint8Array} file
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<number>}
   */
  async import(file, options = {}) {
    this.#checkOpen();
    const { signal } = checkOptions(options, ["signal"]);
    checkAborted(signal);
    const blob = tagOf(file) === "Blob" || tagOf(file) === "File" ? /** @type {Blob} */ (file) : ArrayBuffer.isView(file) || tagOf(file) === "ArrayBuffer" ? new Blob([/** @type {BlobPart} */ (file)]) : undefined;
    if (!blob) throw badInput(`The file to import is ${show(file)}; it must be a Blob, or the bytes of what export gave.`);
    const { metadata, size, entries, rows } = await read(blob);
    this.#checkModel(metadata);
    if (size !== this.#info.embeddingSize) throw badInput(`The file's embeddings have ${size} numbers; those of ${this.#info.model} have ${this.#info.embeddingSize}. Index the pictures again with this model.`);
    const stop = AbortSignal.any([this.#closing.signal, ...(signal ? [signal] : [])]);
    return this.#inTurn(stop, async () => {
      for (let first = 0; first < entries.length; first += ROWS) {
        if (stop.aborted) throw this.#closing.signal.aborted ? closed() : aborted(signal);
        const some = entries.slice(first, first + ROWS);
        const vectors = await rows(first, some.length);
        await this.#keeper.put(some.map(({ id, size: bytes, modified }, i) => {
          checkId(`entry ${first + i + 1} of the file`, id);
          return { id, size: bytes, modified, vector: vectors.slice(i * size, (i + 1) * size) };
        }));
        this.#changed();
      }
      return entries.length;
    });
  }

  async close() {
    this.#closing.abort(closed());
    this.#gate.open();
    await this.#last.catch(() => {});
  }

  #checkOpen() {
    if (this.#closing.signal.aborted) throw closed();
  }

  /** @param {Record<string, string>} of a file */
  #checkModel({ model, dtype, fingerprint, pipeline }) {
    const { info } = this;
    if (fingerprint === info.fingerprint && dtype === info.dtype && pipeline === String(info.pipeline)) return;
    const other = fingerprint === info.fingerprint && dtype === info.dtype ? `by another version of the library (pipeline ${pipeline}, this is ${info.pipeline})` : `by ${model} (${dtype}), and this index is of ${info.model} (${info.dtype})`;
    throw badInput(`The file was made ${other}: their embeddings don't compare. Load that model, or index the pictures again with this one.`);
  }

  /** @template T @param {AbortSignal} stop @param {() => Promise<T>} work @returns {Promise<T>} */
  #inTurn(stop, work) {
    const turn = this.#last.catch(() => {}).then(() => {
      if (this.#closing.signal.aborted) throw closed();
      if (stop.aborted) throw aborted(stop);
      return work();
    });
    this.#last = turn.catch(() => {});
    return turn.catch((error) => { throw this.#closing.signal.aborted ? closed() : siglipError(error); });
  }

  /**
   * @param {import("./index/query.js").Term} term @param {string | readonly string[] | undefined} template @param {AbortSignal | undefined} signal
   * @returns {Promise<Float32Array>}
   */
  async #vectorOf({ kind, value }, template, signal) {
    if (kind === "image") return this.#classifier.embedImage(value, { signal });
    if (kind === "id") {
      const [vector] = await this.#keeper.vectors([value]);
      if (!vector) throw badInput(`There is no picture ${show(value)} in the index. It may have been removed: search by another one.`);
      return vector;
    }
    const key = JSON.stringify([value, template]);
    const known = this.#words.get(key);
    const vector = known ?? (await this.#classifier.embedLabels([value], { template, signal })).embeddings;
    // The one that was asked last is the last to go.
    this.#words.delete(key);
    this.#words.set(key, vector);
    if (this.#words.size > REMEMBERED) this.#words.delete(/** @type {string} */ (this.#words.keys().next().value));
    return vector;
  }

  #changed() {
    try {
      this.onchange?.();
    } catch (error) {
      reportError(error);
    }
  }
}

/** Lets work through, or holds it. */
class Gate {
  /** @type {Promise<void> | undefined} */
  #wait;
  #release = () => {};

  get isShut() {
    return this.#wait !== undefined;
  }

  /** Settled when work may go on. */
  get passed() {
    return this.#wait ?? Promise.resolve();
  }

  shut() {
    this.#wait ??= new Promise((resolve) => { this.#release = resolve; });
  }

  open() {
    this.#wait = undefined;
    this.#release();
  }
}

function closed() {
  return new SiglipError("disposed", "The index was closed. Open it again to go on.");
}
