// The pictures of an index: what is known of each, and its embedding.
import { sigmoid } from "../client/scores.js";

/** @typedef {import("../siglip-index.d.ts").Hit} Hit */
/** @typedef {import("../siglip-index.d.ts").IndexEntry} IndexEntry */
/** @typedef {import("../siglip-index.d.ts").Unreadable} Unreadable */
/** @typedef {{id: string, size?: number, modified?: number}} Known */
/** @typedef {Known & {vector: Float32Array}} Put */
/** @typedef {Known & Pick<Unreadable, "code" | "message">} Failed */
/** `words`: one unit vector after the other. @typedef {{words: Float32Array[], minus: boolean[], pictures?: Float32Array, scale: number, bias: number, limit: number, minScore: number}} Question */

export class Keeper {
  /** @type {Map<string, Put>} */
  #records = new Map();
  /** @type {Map<string, Failed>} */
  #failed = new Map();
  /** @type {Set<string>} ids that were given since `begin` */
  #seen = new Set();

  get size() {
    return this.#records.size;
  }

  begin() {
    this.#seen.clear();
  }

  /** What is known of pictures: whether they are here as they are, or why they can't be. @param {Known[]} pictures @returns {("new" | "same" | Failed)[]} */
  compare(pictures) {
    return pictures.map((picture) => {
      this.#seen.add(picture.id);
      const same = (/** @type {Known | undefined} */ known) => known && known.size === picture.size && known.modified === picture.modified;
      if (same(this.#records.get(picture.id))) return "same";
      const failed = this.#failed.get(picture.id);
      return failed && same(failed) ? failed : "new";
    });
  }

  /** @param {Put[]} records */
  put(records) {
    for (const record of records) {
      this.#records.set(record.id, record);
      this.#failed.delete(record.id);
    }
  }

  /** @param {Failed[]} records */
  fail(records) {
    for (const record of records) {
      this.#records.delete(record.id);
      this.#failed.set(record.id, record);
    }
  }

  /** Drops what wasn't given since `begin`. @param {string[] | undefined} folders of these alone @returns {number} */
  dropUnseen(folders) {
    const gone = [...this.#records.keys(), ...this.#failed.keys()].filter((id) => !this.#seen.has(id) && (!folders || folders.some((folder) => id.startsWith(folder))));
    return this.remove(gone);
  }

  /** @param {string[]} ids @returns {number} */
  remove(ids) {
    let count = 0;
    for (const id of ids) {
      this.#failed.delete(id);
      if (this.#records.delete(id)) count += 1;
    }
    return count;
  }

  clear() {
    this.#records.clear();
    this.#failed.clear();
  }

  /** @returns {IndexEntry[]} */
  entries() {
    return [...this.#records.values()].map(({ id, size, modified }) => ({ id, size, modified }));
  }

  /** @returns {Unreadable[]} */
  unreadable() {
    return [...this.#failed.values()].map(({ id, code, message }) => ({ id, code, message }));
  }

  /** @param {string[]} ids */
  vectors(ids) {
    return ids.map((id) => this.#records.get(id)?.vector.slice());
  }

  /** @param {Question} question @returns {Hit[]} */
  search({ words, minus, pictures, scale, bias, limit, minScore }) {
    const logits = (/** @type {number} */ cosine) => scale * cosine + bias;
    const rows = [...this.#records.values()].map(({ id, size, modified, vector }) => {
      const cosines = words.map((word) => dot(word, vector));
      const likeness = pictures ? dot(pictures, vector) : 0;
      const chance = cosines.reduce((sum, cosine, i) => sum + logSigmoid(minus[i] ? -logits(cosine) : logits(cosine)), 0);
      const plus = cosines.filter((_, i) => !minus[i]);
      const cosine = pictures ? likeness : plus.reduce((sum, value) => sum + value, 0) / (plus.length || 1);
      const alone = words.length === 0 ? logits(likeness) : words.length === 1 && !minus[0] ? logits(/** @type {number} */ (cosines[0])) : chance - Math.log(-Math.expm1(chance));
      return { id, size, modified, cosine, logit: alone, score: words.length === 0 ? Math.max(0, likeness) : words.length === 1 ? sigmoid(alone) : Math.exp(chance), chance, likeness };
    });
    const [ofChance, ofLikeness] = [standard(rows.map(({ chance }) => chance)), standard(rows.map(({ likeness }) => likeness))];
    const order = (/** @type {typeof rows[number]} */ row) => (words.length === 0 ? row.likeness : !pictures ? row.chance : ofChance(row.chance) + ofLikeness(row.likeness));
    return rows.filter(({ score }) => score >= minScore).sort((a, b) => order(b) - order(a)).slice(0, limit)
      .map(({ id, size, modified, cosine, logit, score }) => ({ id, score, logit, cosine, ...(modified !== undefined && { modified }), ...(size !== undefined && { size }) }));
  }
}

/** @param {Float32Array} a @param {Float32Array} b */
function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += /** @type {number} */ (a[i]) * /** @type {number} */ (b[i]);
  return sum;
}

/** @param {number} logit */
function logSigmoid(logit) {
  return Math.min(0, logit) - Math.log1p(Math.exp(-Math.abs(logit)));
}

/** How many standard deviations a value is above the mean. @param {number[]} values */
function standard(values) {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length) || 1;
  return (/** @type {number} */ value) => (value - mean) / deviation;
}
