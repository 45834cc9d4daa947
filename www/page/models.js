// The models that the page offers: how large they are in each form, what this device can hold, and what is kept of them here.

import { isSoftware } from '../lib/worker/backend.js';
import { $ } from './elements.js';
import { bytes } from './results.js';


/** @typedef {import('../lib/siglip-web.js').CachedModel} CachedModel */
/** @typedef {'f32' | 'f16' | 'q8' | 'q4'} Form how weights are held */
/** @typedef {Form | 'auto'} Wish */
/** @typedef {'auto' | 'webgpu' | 'cpu'} Backend */
/** @typedef {{gpu: boolean, memory: number}} Device memory in bytes */
/**
 * @typedef {object} Model
 * @property {string} family
 * @property {string} id on the Hub
 * @property {string} title
 * @property {number} parameters in millions, without the token table: of that only the rows of the labels' tokens are fetched
 * @property {number} tokenizer its file, in MB
 */

/** @type {Model[]} */
const MODELS = [
  { family: 'SigLIP', id: 'google/siglip-base-patch16-224', title: 'SigLIP B/16, 224 px', parameters: 178.6, tokenizer: 2.4 },
  { family: 'SigLIP', id: 'google/siglip-base-patch16-256-multilingual', title: 'SigLIP B/16, 256 px, multilingual', parameters: 178.6, tokenizer: 16 },
  { family: 'SigLIP', id: 'google/siglip-large-patch16-256', title: 'SigLIP L/16, 256 px', parameters: 619.4, tokenizer: 2.4 },
  { family: 'SigLIP', id: 'google/siglip-so400m-patch14-384', title: 'SigLIP So400m/14, 384 px', parameters: 841.1, tokenizer: 2.4 },
  { family: 'SigLIP 2', id: 'google/siglip2-base-patch16-224', title: 'SigLIP 2 B/16, 224 px', parameters: 178.6, tokenizer: 34 },
  { family: 'SigLIP 2', id: 'google/siglip2-large-patch16-256', title: 'SigLIP 2 L/16, 256 px', parameters: 619.4, tokenizer: 34 },
  { family: 'SigLIP 2', id: 'google/siglip2-so400m-patch14-384', title: 'SigLIP 2 So400m/14, 384 px', parameters: 841.1, tokenizer: 34 },
];

/** Bytes that a parameter takes, as measured on the whole models: some weights are held finer than the rest. @type {Record<Form, number>} */
const HELD = { f32: 4, f16: 2, q8: 1.28, q4: 0.93 };
/** As the Hub has them: whatever they are held as here, they arrive as f32. */
const ARRIVING = 4;
/** For pictures on their way, the tokenizer and the browser itself. */
const BESIDES = 4e8;

/** @param {Model} model @returns {number} bytes */
export const downloadOf = ({ parameters, tokenizer }) => 1e6 * (parameters * ARRIVING + tokenizer);
/** @param {Pick<Model, 'parameters'>} model @param {Form} dtype @returns {number} bytes */
export const memoryOf = ({ parameters }, dtype) => 1e6 * parameters * HELD[dtype];

/** What a tab may take of this device. Browsers tell of memory only roughly, some not at all, and none of a GPU's. @returns {Promise<Device>} */
export async function lookAtDevice() {
  const phone = matchMedia('(hover: none) and (pointer: coarse)').matches;
  const memory = navigator.deviceMemory ? navigator.deviceMemory * 5e8 : phone ? 1.2e9 : 4e9;
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: 'high-performance' }).catch(() => null);
  const gpu = Boolean(adapter && !isSoftware(adapter));
  // WebAssembly addresses 4 GB. What WebGPU promises of buffers is many times the largest matrix of these models, so its limits decide nothing.
  return { gpu, memory: Math.min(memory, gpu ? Infinity : 3.6e9) };
}

/**
 * The largest form that fits; undefined if none does.
 * @param {Pick<Model, 'parameters'>} model @param {Device} device @param {Wish} wish @param {Backend} backend @returns {Form | undefined}
 */
export function bestFor(model, device, wish = 'auto', backend = 'auto') {
  const fits = (/** @type {Form} */ dtype) => memoryOf(model, dtype) + BESIDES <= device.memory;
  if (wish !== 'auto') return fits(wish) ? wish : undefined;
  /** @type {Form[]} */
  const forms = device.gpu && backend !== 'cpu' ? ['f16', 'q8', 'q4'] : ['q8', 'q4'];
  return forms.find(fits);
}

/** Bytes that this browser lets the page keep still; undefined where it doesn't tell. @returns {Promise<number | undefined>} */
export async function roomLeft() {
  const { quota, usage = 0 } = await navigator.storage?.estimate?.().catch(() => undefined) ?? {};
  return quota === undefined ? undefined : Math.max(0, quota - usage);
}

/**
 * Asks the browser not to clear what is kept away by itself.
 * @returns {Promise<string>} its answer, as a sentence
 */
export async function askToKeep() {
  const kept = await navigator.storage?.persist?.().catch(() => false);
  return kept
    ? 'The browser keeps it until you remove it.'
    : 'The browser may clear it away by itself, when room runs short or after weeks without a visit.';
}

/** Fills the list of models, and tells of each what it takes. */
export class ModelList {
  #choices;
  /** @type {Device} */
  #device = { gpu: false, memory: 3.6e9 };
  /** @type {CachedModel[]} */
  #kept = [];

  /** @param {() => {dtype: Wish, backend: Backend}} choices what the person has chosen under Advanced */
  constructor(choices) {
    this.#choices = choices;
    for (const family of new Set(MODELS.map((model) => model.family))) {
      const group = document.createElement('optgroup');
      group.label = `${family}, from the Hugging Face Hub`;
      group.append(...MODELS.filter((model) => model.family === family).map(({ id, title }) => new Option(title, id)));
      $.modelsOwn.before(group);
    }
    this.show();
    lookAtDevice().then((device) => {
      this.#device = device;
      this.show();
    });
  }

  /** How to load it here. @param {string} id */
  find(id) {
    const model = MODELS.find((candidate) => candidate.id === id);
    return model && this.#described(model);
  }

  /** @param {Model} model @returns {{id: string, title: string, dtype: Form, download: number, disk: number, kept: boolean}} sizes in bytes */
  #described(model) {
    const { id } = model;
    const dtype = this.#best(model) ?? this.#fallback();
    return { id, title: model.title, dtype, download: downloadOf(model), disk: memoryOf(model, dtype), kept: this.#keptAs(id, dtype) };
  }

  /** The first that knows photographs and fits this device. */
  forPhotographs() {
    return this.#described(MODELS.find((model) => this.#best(model)) ?? /** @type {Model} */ (MODELS[0]));
  }

  /** @param {string} id @param {Form} wanted */
  #keptAs(id, wanted) {
    return this.#kept.some(({ name, dtype, complete }) => name === id && complete && dtype === wanted);
  }

  /** @param {Model} model */
  #best(model) {
    const { dtype, backend } = this.#choices();
    return bestFor(model, this.#device, dtype, backend);
  }

  /** What is tried where nothing fits. */
  #fallback() {
    const { dtype } = this.#choices();
    return dtype === 'auto' ? 'q4' : dtype;
  }

  show() {
    for (const model of MODELS) {
      const option = [...$.model.options].find(({ value }) => value === model.id);
      const best = this.#best(model);
      const kept = this.#keptAs(model.id, best ?? this.#fallback());
      const size = kept ? 'kept here' : `${bytes(downloadOf(model))} download`;
      const memory = `${bytes(memoryOf(model, best ?? this.#fallback()))} in memory (${best ?? this.#fallback()})`;
      if (option) option.textContent = `${model.title} · ${size}, ${memory}${best ? '' : ' · too large for this device'}`;
    }
  }

  /** @param {CachedModel[]} caches */
  know(caches) {
    this.#kept = caches;
    this.show();
  }
}

/**
 * Lists what is kept, each with a button to remove it.
 * @param {CachedModel[]} caches
 * @param {(name?: string) => void} remove all without a name
 */
export function showKept(caches, remove) {
  const names = [...new Set(caches.map(({ name }) => name))];
  $.keptNote.textContent = names.length > 0
    ? `${bytes(caches.reduce((sum, cache) => sum + cache.bytes, 0))} on this device. A model that is kept needs no download the next time.`
    : 'None so far. A model that you download is kept here for the next time; the demo comes with the page.';
  $.kept.replaceChildren(...names.map((name) => {
    const forms = caches.filter((cache) => cache.name === name);
    const item = document.createElement('li');
    const text = document.createElement('span');
    text.textContent = `${name || 'A model without a name'} · ${forms.map((form) => `${form.dtype.replace(/^auto-.*/, 'automatic')} ${bytes(form.bytes)}${form.complete ? '' : ', not complete'}`).join('; ')}`;
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'button small';
    button.textContent = 'Remove';
    button.setAttribute('aria-label', `Remove ${name}`);
    button.addEventListener('click', () => remove(name));
    item.append(text, button);
    return item;
  }));
  $.clear.hidden = names.length < 2;
  $.clear.onclick = () => remove();
}
