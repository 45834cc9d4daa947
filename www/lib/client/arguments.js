// What the caller gives, checked before anything is done with it.
import { SiglipError, aborted } from "../error.js";

// The rules for labels and templates are those of src/classifier/labels.rs; tests/rules.json has the cases that both are tested with.

/** Longer labels are a mistake: a text tower reads at most a few hundred characters of them. */
const LONGEST_LABEL = 1000;

/** @param {string} option @param {unknown} value */
export function checkFunction(option, value) {
  if (value !== undefined && typeof value !== "function") throw badInput(`${option} is ${show(value)}; it must be a function.`);
}

/** @param {string} what @param {any} embedding @param {number} size */
export function checkEmbedding(what, embedding, size) {
  if (!(embedding instanceof Float32Array) || embedding.length !== size) {
    const given = embedding instanceof Float32Array ? `${embedding.length} numbers` : show(embedding);
    throw badInput(`${what} is ${given}; it must be an embedding of this model, a Float32Array of ${size}.`);
  }
}

/** @param {any} options @param {readonly string[]} known what may be among them */
export function checkOptions(options, known) {
  if (options === null || typeof options !== "object") throw badInput(`The options are ${show(options)}; they must be an object such as {topK: 3}.`);
  const { signal } = options;
  if (signal !== undefined && (typeof signal?.aborted !== "boolean" || typeof signal.addEventListener !== "function")) {
    throw badInput(`signal is ${show(signal)}; it must be an AbortSignal, such as new AbortController().signal.`);
  }
  for (const name of Object.keys(options)) {
    if (!known.includes(name)) throw badInput(`There is no option ${show(name)} here. Known are ${known.join(", ")}.`);
  }
  return options;
}

/** @param {AbortSignal} [signal] */
export function checkAborted(signal) {
  if (signal?.aborted) throw aborted(signal);
}

/** @param {string} option @param {unknown} value @param {unknown[]} words */
export function checkWord(option, value, words) {
  if (!words.includes(value)) throw badInput(`${option} is ${show(value)}; it must be ${words.map((word) => JSON.stringify(word)).join(" or ")}.`);
}

/** @param {any} texts @param {string} many @param {string} one */
export function checkTexts(texts, many, one) {
  if (!Array.isArray(texts)) throw badInput(`${many} is ${show(texts)}; it must be an array of strings, such as ["a cat", "a dog"].`);
  if (texts.length === 0) throw badInput(`${many} is empty; give at least one ${one}.`);
  for (let i = 0; i < texts.length; i++) {
    if (typeof texts[i] !== "string") throw badInput(`${one} ${i + 1} of ${texts.length} is ${show(texts[i])}; every ${one} must be a string.`);
    checkWellFormed(`${one} ${i + 1} of ${texts.length}`, texts[i]);
  }
}

/** Half of a surrogate pair stands for no character, and WebAssembly would make another one of it. @param {string} what @param {string} text */
function checkWellFormed(what, text) {
  if (/\p{Surrogate}/u.test(text)) throw badInput(`${what} (${show(text)}) holds half a character (a lone surrogate): it was cut in the middle of one, such as an emoji. Cut it elsewhere.`);
}

/** @param {string} what @param {string} text */
function checkLength(what, text) {
  const length = text.length <= LONGEST_LABEL ? text.length : [...text].length;
  if (length > LONGEST_LABEL) throw badInput(`${what} (${show(text)}) has ${length} characters; ${LONGEST_LABEL} are allowed, and a model reads only the first few dozen words. Shorten it.`);
}

/** @param {any} labels */
export function checkLabels(labels) {
  checkTexts(labels, "labels", "label");
  const seen = new Map();
  labels.forEach((/** @type {string} */ label, /** @type {number} */ i) => {
    // U+0085 is white space to Unicode, and to Rust, but not to JavaScript.
    const text = label.replace(/^[\s\u0085]+|[\s\u0085]+$/g, "");
    if (text === "") throw badInput(`label ${i + 1} of ${labels.length} is blank. Write what it stands for, or leave it out.`);
    checkLength(`label ${i + 1} of ${labels.length}`, label);
    if (seen.has(text)) throw badInput(`labels ${seen.get(text) + 1} and ${i + 1} are the same (${show(text)}). Leave one out.`);
    seen.set(text, i);
  });
}

/** @param {any} template */
export function checkTemplate(template) {
  const templates = Array.isArray(template) ? template : [template];
  if (templates.length === 0) throw badInput("template is an empty array; give at least one template, or leave the option out.");
  for (const text of templates) {
    if (typeof text !== "string") throw badInput(`template is ${show(text)}; it must be a string with {} where the label goes, or an array of them.`);
    checkWellFormed("the template", text);
    checkLength("the template", text);
    const places = text.split("{}").length - 1;
    if (places !== 1) throw badInput(`The template ${show(text)} has ${places === 0 ? "no {}" : `${places} times {}`}; it must have {} once, where the label goes.`);
  }
}

/** @param {unknown} value */
export function tagOf(value) {
  return Object.prototype.toString.call(value).slice(8, -1);
}

/** A value as a message shows it. @param {unknown} value */
export function show(value) {
  if (typeof value === "string") return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}…` : value);
  if (value === null || ["undefined", "number", "bigint", "boolean"].includes(typeof value)) return String(value);
  return typeof value === "object" ? `of type ${tagOf(value)}` : `a ${typeof value}`;
}

/** @param {string} message */
export function badInput(message) {
  return new SiglipError("bad-input", message);
}
