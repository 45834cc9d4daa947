// One `add`: pictures are compared with what is known of them, the new ones embedded and kept a few at a time.
import { AT_ONCE, ofPicture } from "../client/many.js";
import { aborted, siglipError } from "../error.js";
import { tell } from "../platform.js";
import { imageOf, picturesOf } from "./pictures.js";

/** @typedef {import("./remote.js").Remote} Remote */
/** @typedef {import("./pictures.js").Found} Found */
/** @typedef {import("./pictures.js").Pictures} Pictures */
/** @typedef {import("../error.js").SiglipError} SiglipError */
/** @typedef {import("../siglip-index.d.ts").Added} Added */
/** @typedef {import("../siglip-index.d.ts").IndexProgress} IndexProgress */
/** @typedef {import("../siglip-web.d.ts").SiglipClassifier} SiglipClassifier */
/** @typedef {{passed: Promise<void>, isShut: boolean}} Gate */
/** @typedef {import("./decoders.js").Decoders} Decoders */
/** @typedef {{stop: AbortSignal, decoders: Decoders, gate: Gate, gone?: "drop" | "keep", onProgress?: (event: IndexProgress) => void, changed: () => void}} How */

/** Pictures that are compared at a time. */
const COMPARED = 256;
/** Of a source that makes pictures on the way: it is asked for no more than these ahead. */
const AHEAD = 2 * AT_ONCE;
/** Pictures that are worth starting workers for. */
const MANY = 2 * AT_ONCE;
/** Pictures that the speed is an average over. */
const RECENT = 32;
/** Faults that would be the same again: they are remembered until the file changes. */
const LASTING = ["bad-image", "unsupported"];
/** Faults of a computation. One picture may be the cause of one, and then it is passed over; two at once end the work. */
const CRASHES = ["device-lost", "out-of-memory"];

export class Adding {
  #classifier;
  #keeper;
  #pictures;
  #how;
  /** New ones that were found and wait. @type {Found[]} */
  #waiting = [];
  /** Those that are read and decoded. @type {{picture: Found, image: Promise<any>}[]} */
  #started = [];
  #found = 0;
  #counted = false;
  #done = 0;
  /** @type {string | undefined} */
  #id;
  /** When the last ones were embedded. @type {number[]} */
  #times = [];
  /** @type {Added} */
  #result = { added: 0, unchanged: 0, removed: 0, skipped: 0, unreadable: [] };
  /** Tells that something was found, or that there is room. */
  #bell = new Bell();
  /** @type {any} */
  #failure;
  /** Ends the search for pictures when all else has ended. */
  #over = new AbortController();
  #stop;

  /** @param {SiglipClassifier} classifier @param {Remote} keeper @param {any} source @param {How} how */
  constructor(classifier, keeper, source, how) {
    this.#classifier = classifier;
    this.#keeper = keeper;
    this.#how = how;
    this.#stop = AbortSignal.any([how.stop, this.#over.signal]);
    // Now: what was dropped is gone when the event is over.
    this.#pictures = picturesOf(source, this.#stop);
  }

  /** @returns {Promise<Added>} */
  async run() {
    const { gone } = this.#how;
    const ring = () => this.#bell.ring();
    this.#stop.addEventListener("abort", ring);
    try {
      await this.#keeper.ask("begin");
      // Folders are walked while the first pictures are embedded.
      const finding = this.#find().catch((error) => { this.#failure = error; }).finally(() => {
        this.#counted = true;
        ring();
      });
      await this.#embedAll();
      await finding;
      this.#check();
      const { skipped, closed } = this.#pictures.count;
      const folders = gone === "drop" && this.#pictures.folders.length === 0 ? undefined : this.#pictures.folders;
      if (gone !== "keep" && (!folders || folders.length > 0)) this.#result.removed = await this.#keeper.ask("dropUnseen", folders, closed);
      this.#result.skipped = skipped;
      if (this.#result.removed > 0) this.#how.changed();
      this.#tell();
      return this.#result;
    } finally {
      this.#over.abort();
      this.#how.decoders.end(aborted());
    }
  }

  /** @param {string} waiting why */
  waits(waiting) {
    this.#tell({ waiting });
  }

  #check() {
    if (this.#how.stop.aborted) throw aborted(this.#how.stop);
    if (this.#failure) throw this.#failure;
  }

  /** Compares all pictures with what is known. */
  async #find() {
    const { items, lazy } = this.#pictures;
    /** @type {Found[]} */
    let some = [];
    const compare = async (/** @type {Found[]} */ some) => {
      // What is seen from now on is of the next `add`.
      if (this.#stop.aborted) return;
      const states = await this.#keeper.ask("compare", some.map(({ id, size, modified }) => ({ id, size, modified })));
      some.forEach((picture, i) => {
        const state = /** @type {typeof states[number]} */ (states[i]);
        this.#found += 1;
        if (state === "new") return this.#waiting.push(picture);
        this.#count(picture.id);
        if (state === "same") this.#result.unchanged += 1;
        else this.#result.unreadable.push({ id: state.id, code: state.code, message: state.message });
      });
      this.#bell.ring();
      this.#tell();
    };
    /** Those before, while the next are found. */
    let comparing = Promise.resolve();
    const begin = async () => {
      await comparing;
      comparing = compare(some);
      comparing.catch(() => {});
      some = [];
      if (lazy) await comparing;
    };
    for await (const picture of items) {
      some.push(picture);
      if (some.length >= (lazy ? 1 : COMPARED)) await begin();
      while (lazy && this.#waiting.length >= AHEAD && !this.#stop.aborted) await this.#bell.heard;
      if (this.#stop.aborted) return;
    }
    await begin();
    await comparing;
  }

  async #embedAll() {
    /** @type {Promise<unknown>} */
    let keeping = Promise.resolve();
    for (;;) {
      this.#check();
      if (this.#how.gate.isShut) {
        this.#tell();
        await Promise.race([this.#how.gate.passed, this.#bell.heard]);
        continue;
      }
      this.#start();
      const group = this.#started.splice(0, AT_ONCE);
      if (group.length === 0) {
        if (this.#counted) break;
        await this.#bell.heard;
        continue;
      }
      this.#bell.ring();
      this.#start();
      const outcomes = await this.#embed(group.map(({ image }) => image));
      await keeping;
      // What is done is kept while the next are embedded.
      keeping = this.#keep(group.map(({ picture }) => picture), outcomes);
      keeping.catch(() => {});
    }
    await keeping;
  }

  /** Has the next ones read and decoded, while others are embedded. */
  #start() {
    if (this.#waiting.length >= MANY) this.#how.decoders.start();
    for (const picture of this.#waiting.splice(0, AHEAD - this.#started.length)) {
      const image = imageOf(picture).then((given) => this.#how.decoders.decode(given));
      image.catch(() => {});
      this.#started.push({ picture, image });
    }
  }

  /** What comes of each picture. @param {Promise<any>[]} images @returns {Promise<(Float32Array | SiglipError)[]>} */
  async #embed(images) {
    /** @type {(Float32Array | SiglipError)[]} */
    const outcomes = [];
    // A GPU takes several at once; a CPU gains nothing, and a search that comes meanwhile would wait longer.
    if (this.#classifier.info.backend === "webgpu") {
      try {
        for await (const { embedding, error } of this.#classifier.embedMany(/** @type {any} */ (images), { signal: this.#how.stop })) outcomes.push(embedding ?? /** @type {SiglipError} */ (error));
      } catch (error) {
        // Which one it was shows when they come one by one.
        if (!CRASHES.includes(siglipError(error).code)) throw error;
      }
    }
    let crashed = false;
    for (const image of images.slice(outcomes.length)) {
      try {
        outcomes.push(await this.#classifier.embedImage(await image, { signal: this.#how.stop }));
        crashed = false;
      } catch (thrown) {
        const error = siglipError(thrown);
        if (crashed || !CRASHES.includes(error.code)) ofPicture(error);
        else crashed = true;
        outcomes.push(error);
      }
    }
    return outcomes;
  }

  /** @param {Found[]} group @param {(Float32Array | SiglipError)[]} outcomes */
  async #keep(group, outcomes) {
    const known = (/** @type {Found} */ { id, size, modified }) => ({ id, size, modified });
    const [put, failed] = [[], []].map((list) => /** @type {any[]} */ (list));
    group.forEach((picture, i) => {
      const outcome = /** @type {Float32Array | SiglipError} */ (outcomes[i]);
      this.#count(picture.id);
      if (outcome instanceof Float32Array) {
        put?.push({ ...known(picture), vector: outcome });
        this.#result.added += 1;
        this.#times.push(performance.now());
        if (this.#times.length > RECENT) this.#times.shift();
        return;
      }
      const { code, message } = outcome;
      this.#result.unreadable.push({ id: picture.id, code, message });
      if (LASTING.includes(code)) failed?.push({ ...known(picture), code, message });
    });
    if (put?.length) await this.#keeper.ask("put", put);
    if (failed?.length) await this.#keeper.ask("fail", failed);
    this.#how.changed();
    this.#tell();
  }

  /** @param {string} id */
  #count(id) {
    this.#done += 1;
    this.#id = id;
  }

  /** @param {{waiting?: string}} [more] */
  #tell(more) {
    if (this.#over.signal.aborted) return;
    const [first = 0, last = 0] = [this.#times[0], this.#times.at(-1)];
    const perSecond = last > first ? (1000 * (this.#times.length - 1)) / (last - first) : 0;
    const left = this.#found - this.#done;
    tell(this.#how.onProgress, {
      done: this.#done, total: this.#pictures.lazy && !this.#counted ? 0 : this.#found, counted: this.#counted,
      added: this.#result.added, unchanged: this.#result.unchanged, unreadable: this.#result.unreadable.length,
      perSecond, ...(this.#counted && perSecond > 0 && { secondsLeft: left / perSecond }), id: this.#id, paused: this.#how.gate.isShut, ...more,
    });
  }
}

/** Wakes whoever waits for it. */
class Bell {
  /** @type {Promise<void>} */
  heard;
  #ring = () => {};

  constructor() {
    this.heard = new Promise((resolve) => { this.#ring = resolve; });
  }

  ring() {
    this.#ring();
    this.heard = new Promise((resolve) => { this.#ring = resolve; });
  }
}
