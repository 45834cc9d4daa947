// SiglipIndex: search over many pictures. A module of its own; siglip-web.js loads nothing of it.
import { SiglipError, aborted, siglipError } from "./error.js";
import { badInput, checkAborted, checkFunction, checkOptions, checkWord, show, tagOf } from "./client/arguments.js";
import { openLink } from "./client/link.js";
import { Adding } from "./index/adding.js";
import { Decoders } from "./index/decoders.js";
import { listIndexes, removeIndex } from "./index/disk.js";
import { checkId } from "./index/pictures.js";
import { addTo, parse, searchOptions, termsOf, unit } from "./index/query.js";
import { Remote } from "./index/remote.js";
import { read } from "./index/safetensors.js";
import { tell } from "./platform.js";
import { BUSY, lock } from "./store/stored.js";

/** @typedef {import("./siglip-index.d.ts").IndexInfo} IndexInfo */
/** @typedef {import("./siglip-index.d.ts").AddOptions} AddOptions */
/** @typedef {import("./siglip-index.d.ts").OpenOptions} OpenOptions */
/** @typedef {import("./siglip-index.d.ts").SearchOptions} SearchOptions */
/** @typedef {import("./siglip-index.d.ts").KeptIndex} KeptIndex */
/** @typedef {import("./siglip-web.d.ts").SiglipClassifier} SiglipClassifier */

/** @typedef {typeof import("./siglip-index.d.ts")} Declared */
/** @typedef {import("./ports.d.ts").Implements<Declared["SiglipIndex"], typeof SiglipIndex>} IndexAsDeclared */
/** @typedef {import("./ports.d.ts").NothingMore<import("./ports.d.ts").Undeclared<Declared["SiglipIndex"], typeof SiglipIndex>>} IndexNothingMore */

/** Embeddings of words that are remembered: those that are typed again. */
const REMEMBERED = 256;
/** Rows that an import takes at a time. */
const ROWS = 1024;
/** @type {import("./client/link.js").Place} */
const KEEPER = {
  start: () => new Worker(new URL("./index/worker.js", import.meta.url), { type: "module", name: "siglip-web index" }),
  here: async () => (await import("./index/host.js")).Host,
};
/** The name of the lock of an index, and of the channel by which pages tell each other of changes. @param {string} id */
const lockOf = (id) => `index ${id}`;
/** `new SiglipIndex()` would be one without a model. */
const INSIDE = Symbol("open");

export class SiglipIndex {
  #classifier;
  #keeper;
  #about;
  #id;
  #decoders;
  /** @type {BroadcastChannel | undefined} */
  #channel;
  /** The one `add` after the other. @type {Promise<unknown>} */
  #last = Promise.resolve();
  /** Whether one of them is at it. */
  #holding = false;
  /** Short ones, which wait for that. @type {Set<() => unknown>} */
  #changes = new Set();
  /** Ends what runs. */
  #closing = new AbortController();
  #gate = new Gate();
  /** @type {Map<string, Float32Array>} */
  #words = new Map();
  /** @type {(() => void) | null} */
  onchange = null;

  /**
   * @param {symbol} inside @param {SiglipClassifier} classifier @param {Remote} keeper @param {Omit<IndexInfo, "kept" | "keptReason" | "damaged">} about
   * @param {string} id of what is kept; empty where nothing is
   */
  constructor(inside, classifier, keeper, about, id) {
    if (inside !== INSIDE) throw badInput("An index needs a model: use await SiglipIndex.open(classifier, …).");
    this.#classifier = classifier;
    this.#keeper = keeper;
    this.#about = about;
    this.#id = id;
    this.#decoders = new Decoders(classifier.info, KEEPER);
    if (id === "" || typeof BroadcastChannel === "undefined") return;
    this.#channel = new BroadcastChannel(`siglip-web ${lockOf(id)}`);
    this.#channel.onmessage = () => void keeper.ask("refresh").then(() => this.#tell(), () => {});
  }

  /**
   * @param {SiglipClassifier} classifier
   * @param {OpenOptions} [options]
   * @returns {Promise<SiglipIndex>}
   */
  static async open(classifier, options = {}) {
    const { name = "pictures", memory = false, again = false, signal } = checkOptions(options, ["name", "memory", "again", "signal"]);
    if (typeof classifier?.embedImage !== "function" || !classifier.info) throw badInput(`The classifier is ${show(classifier)}; it must be what SiglipClassifier.load gave.`);
    if (classifier.info.task === "image-classification") throw new SiglipError("unsupported", `${classifier.info.name} was fine-tuned for labels of its own and gives no embeddings, so it can't search. Load a SigLIP checkpoint with both towers.`);
    checkId("the index", name);
    checkWord("memory", memory, [true, false]);
    checkWord("again", again, [true, false]);
    checkAborted(signal);
    const { name: model, dtype, fingerprint, embeddingSize } = classifier.info;
    return openLink(true, async (link) => {
      const keeper = new Remote(link);
      const stop = () => keeper.close(aborted(signal));
      signal?.addEventListener("abort", stop);
      try {
        await keeper.ask("start", embeddingSize);
        const { id, pipeline } = await keeper.ask("open", { name, model, dtype, fingerprint, embeddingSize, memory, again });
        checkAborted(signal);
        return new SiglipIndex(INSIDE, classifier, keeper, { name, model, dtype, fingerprint, pipeline, embeddingSize }, id);
      } catch (error) {
        keeper.close(siglipError(error));
        throw error;
      } finally {
        signal?.removeEventListener("abort", stop);
      }
    }, KEEPER);
  }

  /** @returns {Promise<KeptIndex[]>} */
  static async list() {
    return (await listIndexes()).map(({ id: _id, ...index }) => index);
  }

  /** @param {string} [name] @returns {Promise<number>} */
  static async delete(name) {
    if (name !== undefined) checkId("the index", name);
    let freed = 0;
    for (const index of (await listIndexes()).filter((one) => name === undefined || one.name === name)) {
      const release = await lock(lockOf(index.id), AbortSignal.timeout(BUSY), () => {}).catch(() => { throw busy(`The index ${show(index.name)} could not be removed`); });
      try {
        await removeIndex(index.id);
        freed += index.bytes;
      } catch (error) {
        throw new SiglipError("network", `The index ${show(index.name)} could not be removed (${error.message}). Close other tabs that have it open, and try again.`, { cause: error });
      } finally {
        release();
      }
    }
    return freed;
  }

  /** @param {string} text */
  static parse(text) {
    return parse(text);
  }

  get info() {
    const { kept, keptReason, damaged } = this.#keeper.status;
    return { ...this.#about, kept, keptReason, damaged };
  }

  get size() {
    return this.#keeper.status.size;
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
    const adding = new Adding(this.#classifier, this.#keeper, source, { stop, decoders: this.#decoders, gate: this.#gate, onProgress, gone, changed: () => this.#changed() });
    return this.#inTurn(stop, () => adding.run(), () => adding.waits("Another tab is changing this index. This one goes on when that is done."));
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
    const all = new Float32Array(words.length * embeddingSize);
    words.forEach((term, i) => all.set(/** @type {Float32Array} */ (vectors[term]), i * embeddingSize));
    const asked = this.#keeper.ask("search", {
      words: all, minus: Uint8Array.from(words, (i) => Number(terms[i]?.minus)),
      pictures: pictures && unit(pictures), scale: Math.exp(logitScale), bias: logitBias, limit, minScore,
    });
    return unlessStopped(asked, signal);
  }

  async entries() {
    this.#checkOpen();
    return this.#keeper.ask("entries");
  }

  async unreadable() {
    this.#checkOpen();
    return this.#keeper.ask("unreadable");
  }

  /** @param {readonly string[]} ids */
  async embeddings(ids) {
    this.#checkOpen();
    return this.#keeper.ask("vectors", [...ids]);
  }

  /** @param {Iterable<string>} ids */
  async remove(ids) {
    this.#checkOpen();
    if (typeof ids === "string" || typeof ids?.[Symbol.iterator] !== "function") throw badInput(`The ids are ${show(ids)}; they must be an array of texts.`);
    const given = [...ids];
    return this.#soon(async () => {
      const count = await this.#keeper.ask("remove", given);
      if (count > 0) this.#changed();
      return count;
    });
  }

  async clear() {
    this.#checkOpen();
    return this.#soon(async () => {
      await this.#keeper.ask("clear");
      this.#changed();
    });
  }

  async export() {
    this.#checkOpen();
    const { model, dtype, fingerprint, pipeline } = this.#about;
    return this.#keeper.ask("export", { model, dtype, fingerprint, pipeline: String(pipeline) });
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
    const stop = AbortSignal.any([this.#closing.signal, ...(signal ? [signal] : [])]);
    const { metadata, size, entries, rows } = await unlessStopped(read(blob), stop).catch((error) => { throw this.#told(error); });
    this.#checkModel(metadata);
    if (size !== this.#about.embeddingSize) throw badInput(`The file's embeddings have ${size} numbers; those of ${this.#about.model} have ${this.#about.embeddingSize}. Index the pictures again with this model.`);
    return this.#inTurn(stop, async () => {
      for (let first = 0; first < entries.length; first += ROWS) {
        if (stop.aborted) throw this.#closing.signal.aborted ? closed() : aborted(signal);
        const some = entries.slice(first, first + ROWS);
        const vectors = await rows(first, some.length);
        await this.#keeper.ask("put", some.map(({ id, size: bytes, modified }, i) => {
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
    this.#channel?.close();
    await this.#keeper.ask("end").catch(() => {});
    this.#keeper.close(closed());
  }

  #checkOpen() {
    if (this.#closing.signal.aborted) throw closed();
  }

  /** What ended a change, as its caller is told. @param {any} error */
  #told(error) {
    return this.#closing.signal.aborted ? closed() : siglipError(error);
  }

  /** @param {Record<string, string>} of a file */
  #checkModel({ model, dtype, fingerprint, pipeline }) {
    const { info } = this;
    if (fingerprint === info.fingerprint && dtype === info.dtype && pipeline === String(info.pipeline)) return;
    const other = fingerprint === info.fingerprint && dtype === info.dtype ? `by another version of the library (pipeline ${pipeline}, this is ${info.pipeline})` : `by ${model} (${dtype}), and this index is of ${info.model} (${info.dtype})`;
    throw badInput(`The file was made ${other}: their embeddings don't compare. Load that model, or index the pictures again with this one.`);
  }

  /**
   * One change at a time, in all tabs.
   * @template T @param {AbortSignal} stop @param {() => Promise<T>} work @param {() => void} [wait] told when another tab is at it
   * @returns {Promise<T>}
   */
  #inTurn(stop, work, wait = () => {}) {
    const before = this.#last;
    const turn = unlessStopped(before, stop).then(async () => {
      this.#checkOpen();
      checkAborted(stop);
      const release = this.#id ? await lock(lockOf(this.#id), stop, wait) : () => {};
      try {
        await this.#keeper.ask("hold");
        this.#holding = true;
        for (const change of this.#changes) change();
        return await work();
      } finally {
        this.#holding = false;
        await this.#keeper.ask("leave").catch(() => {});
        release();
      }
    });
    // Who gave up waiting lets nobody pass.
    this.#last = Promise.allSettled([before, turn]);
    return turn.catch((error) => { throw this.#told(error); });
  }

  /**
   * A short change: between two groups of an `add` that is at it here, or else in its turn, which it waits for only so long.
   * @template T @param {() => Promise<T>} work @returns {Promise<T>}
   */
  #soon(work) {
    if (this.#holding) return work();
    const late = AbortSignal.timeout(BUSY);
    return new Promise((resolve, reject) => {
      /** @type {Promise<T> | undefined} */
      let made;
      const change = () => {
        made ??= work();
        made.then(resolve, reject);
        return made;
      };
      this.#changes.add(change);
      this.#inTurn(AbortSignal.any([this.#closing.signal, late]), change)
        .catch((error) => reject(late.aborted && error.code === "aborted" ? busy(`The index ${show(this.#about.name)} was not changed`) : error))
        .finally(() => this.#changes.delete(change));
    });
  }

  /**
   * @param {import("./index/query.js").Term} term @param {string | readonly string[] | undefined} template @param {AbortSignal | undefined} signal
   * @returns {Promise<Float32Array>}
   */
  async #vectorOf({ kind, value }, template, signal) {
    if (kind === "image") return this.#classifier.embedImage(value, { signal });
    if (kind === "id") {
      const [vector] = await this.#keeper.ask("vectors", [value]);
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
    this.#channel?.postMessage("changed");
    this.#tell();
  }

  #tell() {
    tell(() => this.onchange?.());
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

/** What comes of `work`, or at once that nobody waits for it any more. @template T @param {Promise<T>} work @param {AbortSignal} [signal] @returns {Promise<T>} */
function unlessStopped(work, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => reject(aborted(signal));
    signal?.addEventListener("abort", stop);
    work.then(resolve, reject).finally(() => signal?.removeEventListener("abort", stop));
    if (signal?.aborted) stop();
  });
}

/** @param {string} what */
function busy(what) {
  return new SiglipError("network", `${what}: pictures are being added to it, here or in another tab. Wait until that is done, or stop it, and try again.`);
}

function closed() {
  return new SiglipError("disposed", "The index was closed. Open it again to go on.");
}
