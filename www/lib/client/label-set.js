// Labels with the embeddings that one model gave them: made once, used for any number of pictures, kept where the caller likes.
import { badInput, checkLabels, checkTemplate, show } from "./arguments.js";

/** @typedef {import("../ports.d.ts").LabelSetParts} LabelSetParts */
/** @typedef {import("../siglip-web.d.ts").ModelInfo} ModelInfo */

/** What `structuredClone` (IndexedDB, messages) and JSON make of it are as good as the set itself. */
export class LabelSet {
  /** @readonly */ model;
  /** @readonly */ labels;
  /** @readonly */ templates;
  /** @readonly */ embeddings;

  /** @param {LabelSetParts} parts */
  constructor({ model, labels, templates, embeddings }) {
    this.model = model;
    this.labels = Object.freeze([...labels]);
    this.templates = Object.freeze([...templates]);
    this.embeddings = embeddings;
    Object.freeze(this);
  }

  /** As the Rust crate writes it: the numbers in base64, 32 bits each, lowest byte first. */
  toJSON() {
    const { model, labels, templates, embeddings } = this;
    return { model, labels, templates, embeddings: toBase64(embeddings) };
  }
}

/**
 * A set that a caller gives, as the engine takes it; what its embeddings hold is checked there.
 * @param {any} set a `LabelSet`, its structured clone, or its parsed JSON
 * @param {ModelInfo} info of the model that is asked
 * @returns {LabelSetParts}
 */
export function readLabelSet(set, info) {
  const { model, labels, templates } = set;
  if (typeof model !== "string" || !("embeddings" in set)) {
    throw badInput(`labels is ${show(set)}; it must be an array of strings, such as ["a cat", "a dog"], or a LabelSet that embedLabels gave.`);
  }
  if (model !== info.fingerprint) {
    throw badInput(`The LabelSet was made by another model (its fingerprint is ${model}, that of ${info.name} is ${info.fingerprint}). Make it again with this model's embedLabels.`);
  }
  checkLabels(labels);
  if (!Array.isArray(templates)) throw badInput(`The LabelSet's templates are ${show(templates)}; they must be an array of strings. It is damaged: make it again.`);
  checkTemplate(templates);
  const embeddings = typeof set.embeddings === "string" ? fromBase64(set.embeddings) : set.embeddings;
  if (!(embeddings instanceof Float32Array) || embeddings.length !== labels.length * info.embeddingSize) {
    throw badInput(`The LabelSet's embeddings are ${show(embeddings)}; ${labels.length} labels of this model have ${labels.length * info.embeddingSize} numbers. It is damaged: make it again.`);
  }
  return { model, labels: [...labels], templates: [...templates], embeddings };
}

/** @param {Float32Array} numbers */
function toBase64(numbers) {
  const view = new DataView(new ArrayBuffer(4 * numbers.length));
  numbers.forEach((number, i) => view.setFloat32(4 * i, number, true));
  const bytes = new Uint8Array(view.buffer);
  let text = "";
  // Few enough for a call's arguments.
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

/** @param {string} text */
function fromBase64(text) {
  let bytes;
  try {
    bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch (error) {
    throw badInput(`The LabelSet's embeddings are not base64 (${error.message}). It is damaged: make it again.`);
  }
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length >> 2 }, (_, i) => view.getFloat32(4 * i, true));
}
