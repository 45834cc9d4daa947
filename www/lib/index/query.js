// Query → unit vectors to compare with.
import { badInput, checkTemplate, show, tagOf } from "../client/arguments.js";

/** @typedef {import("../siglip-index.d.ts").Query} Query */
/** @typedef {import("../siglip-index.d.ts").QueryTerm} QueryTerm */
/** @typedef {import("../siglip-web.d.ts").ImageInput} ImageInput */
/** @typedef {{kind: "text" | "image" | "id", value: any, minus: boolean}} Term */

/** Terms of a query: each costs a pass over the index. */
const MOST = 32;

/** @param {any} query @returns {Term[]} */
export function termsOf(query) {
  const list = Array.isArray(query) ? query : [query];
  if (list.length === 0) throw badInput("The query is empty. Give words, a picture, or {id} of a picture in the index.");
  if (list.length > MOST) throw badInput(`The query has ${list.length} terms; at most ${MOST} are asked together.`);
  return list.map((one, i) => termOf(one, list.length === 1 ? "the query" : `term ${i + 1} of the query`));
}

/** @param {any} one @param {string} what @returns {Term} */
function termOf(one, what) {
  if (typeof one === "string") return text(one, what, false);
  if (tagOf(one) !== "Object") return { kind: "image", value: one, minus: false };
  for (const name of Object.keys(one)) {
    if (!["text", "image", "id", "minus"].includes(name)) throw badInput(`${what} has ${show(name)}. Known are text, image, id and minus.`);
  }
  const given = /** @type {const} */ (["text", "image", "id"]).filter((kind) => one[kind] !== undefined);
  const [kind] = given;
  if (given.length !== 1 || kind === undefined) throw badInput(`${what} must have one of text, image and id${given.length ? `, and has ${given.join(" and ")}: write several terms` : ""}.`);
  const { minus = false } = one;
  if (typeof minus !== "boolean") throw badInput(`minus of ${what} is ${show(minus)}; it must be true or false.`);
  if (kind === "text") return text(one.text, what, minus);
  if (kind === "id" && typeof one.id !== "string") throw badInput(`The id of ${what} is ${show(one.id)}; it must be a text.`);
  return { kind, value: one[kind], minus };
}

/** @param {any} value @param {string} what @param {boolean} minus @returns {Term} */
function text(value, what, minus) {
  if (typeof value !== "string") throw badInput(`The text of ${what} is ${show(value)}; it must be words.`);
  if (value.trim() === "") throw badInput(`${what} is blank. Write what the pictures should show.`);
  return { kind: "text", value: value.trim(), minus };
}

/** See `SiglipIndex.parse`. @param {any} typed @returns {Query} */
export function parse(typed) {
  if (typeof typed !== "string") throw badInput(`The query is ${show(typed)}; it must be a text.`);
  /** @type {QueryTerm[]} */
  const minus = [];
  const plus = typed.replace(/(^|\s)-(?:"([^"]+)"|([^\s"-]\S*))/g, (_, space, words, word) => {
    minus.push({ text: words ?? word, minus: true });
    return space;
  }).replace(/\s+/g, " ").trim();
  if (minus.length === 0) return plus;
  return plus === "" ? minus : [{ text: plus }, ...minus];
}

/** @param {any} options @returns {{limit: number, minScore: number, template?: any}} */
export function searchOptions({ limit = 100, minScore = 0, template }) {
  if (!(Number.isSafeInteger(limit) && limit >= 1)) throw badInput(`limit is ${show(limit)}; it must be a whole number of 1 or more.`);
  if (!(typeof minScore === "number" && minScore >= 0 && minScore <= 1)) throw badInput(`minScore is ${show(minScore)}; it must be a number from 0 to 1.`);
  if (template !== undefined) checkTemplate(template);
  return { limit, minScore, template };
}

/** Adds `factor · row` to `sum`. @param {Float32Array} sum @param {Float32Array} row @param {number} factor */
export function addTo(sum, row, factor) {
  for (let i = 0; i < sum.length; i++) sum[i] = /** @type {number} */ (sum[i]) + factor * /** @type {number} */ (row[i]);
}

/** @param {Float32Array} vector @returns {Float32Array} of unit length, or as it is where it has none */
export function unit(vector) {
  const length = Math.hypot(...vector);
  return length > 0 ? vector.map((value) => value / length) : vector;
}
