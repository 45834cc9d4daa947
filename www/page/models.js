// The models in the page's list and dialog, and what is kept of them here.

import { locate } from '../lib/client/locate.js';
import { ARRIVING, MODELS, SMALL, bestFor, bufferOf, downloadOf, forPhotographs, hasBuffers, lookAtDevice, memoryOf, tableOf } from './catalogue.js';
import { $ } from './elements.js';
import { onLanguage, texts } from './language.js';
import { bytes } from './results.js';

/** @typedef {import('../lib/siglip-web.js').CachedModel} CachedModel */
/** @typedef {import('./catalogue.js').Form} Form */
/** @typedef {import('./catalogue.js').Wish} Wish */
/** @typedef {import('./catalogue.js').Backend} Backend */
/** @typedef {import('./catalogue.js').Device} Device */
/** @typedef {import('./catalogue.js').Model} Model */

/** How long the Hub may take to tell a size. Milliseconds. */
const PATIENCE = 10_000;

/**
 * What a server says that a file has, in bytes; undefined where it doesn't.
 * @param {string} address @param {AbortSignal} signal
 */
async function sizeAt(address, signal) {
  const response = await fetch(address, { method: 'HEAD', signal }).catch(() => undefined);
  const length = response?.ok ? response.headers.get('content-length') : null;
  return length ? Number(length) : undefined;
}

/** Names of the token table's tensors: of a file that is read by ranges it is not kept. */
const TABLE = /\.token_embedding\.(weight|scales|biases)$/;
/** Bytes of a safetensors header, beyond which nobody asks for it. */
const LONGEST_HEADER = 16 << 20;

/**
 * Parameters in a checkpoint's folder that would be kept, and the bytes that they come in, as the server tells; undefined where it doesn't.
 * @param {string} base @param {AbortSignal} signal
 */
async function weightsAt(base, signal) {
  const at = (/** @type {string} */ file) => new URL(file, base).href;
  const part = async (/** @type {number} */ from, /** @type {number} */ to) => {
    const response = await fetch(at('model.safetensors'), { headers: { Range: `bytes=${from}-${to - 1}` }, signal });
    if (response.status === 206) return response.arrayBuffer();
    response.body?.cancel().catch(() => {});
    return undefined;
  };
  const begin = await part(0, 8);
  const length = begin ? Number(new DataView(begin).getBigUint64(0, true)) : Infinity;
  const header = length <= LONGEST_HEADER ? await part(8, 8 + length) : undefined;
  if (header) {
    /** @type {[string, {dtype: string, shape: number[], data_offsets: [number, number]}][]} */
    const tensors = Object.entries(JSON.parse(new TextDecoder().decode(header)));
    const counted = tensors.filter(([name]) => name !== '__metadata__' && !TABLE.test(name)).map(([, { dtype, shape, data_offsets: [from, to] }]) => {
      const numbers = shape.reduce((product, side) => product * side, 1);
      // Words of codes: four of 8 bits.
      return { parameters: dtype === 'U32' ? 4 * numbers : numbers, bytes: to - from };
    });
    const sum = (/** @type {'parameters' | 'bytes'} */ key) => counted.reduce((total, one) => total + one[key], 0);
    return { parameters: sum('parameters'), download: sum('bytes') };
  }
  // A server without ranges gives all of a file; shards have a list.
  const response = await fetch(at('model.safetensors.index.json'), { signal });
  const size = response.ok ? Number((await response.json()).metadata?.total_size) : await sizeAt(at('model.safetensors'), signal);
  return size ? { parameters: size / ARRIVING, download: size } : undefined;
}

/** Whether these are a model's files. @param {File[]} files */
export function isModel(files) {
  try {
    return Boolean(locate(files));
  } catch {
    return false;
  }
}

/** Bytes that this browser lets the page keep still; undefined where it doesn't tell. @returns {Promise<number | undefined>} */
export async function roomLeft() {
  const { quota, usage = 0 } = await navigator.storage?.estimate?.().catch(() => undefined) ?? {};
  return quota === undefined ? undefined : Math.max(0, quota - usage);
}

/** Asks the browser not to clear what is kept away by itself. @returns {Promise<boolean>} its answer */
export async function askToKeep() {
  return Boolean(await navigator.storage?.persist?.().catch(() => false));
}

/** Whether the browser has promised so; undefined where it doesn't tell. @returns {Promise<boolean | undefined>} */
export async function willKeep() {
  return navigator.storage?.persisted?.().catch(() => undefined);
}

/**
 * How to load a model here. Sizes in bytes. `asked`: the server told the download's; `buffer`: what the largest matrix needs and what the GPU
 * takes, where that is less and the GPU was asked for.
 * @typedef {Pick<Model, 'id' | 'title' | 'languages'> & {dtype: Form, fits: boolean, download: number, asked: boolean, memory: number, kept: boolean, buffer?: [needed: number, limit: number]}} Offer
 */

/** The models, in the list and in the dialog, with what each takes. */
export class ModelList {
  #choices;
  /** @type {Device} */
  #device = { gpu: false, memory: 3.6e9 };
  /** @type {CachedModel[]} */
  #kept = [];
  /** Downloads as the server told them, in bytes, by id. @type {Map<string, number>} */
  #asked = new Map();
  /** @type {number | undefined} */
  #room;

  /** @param {() => {dtype: Wish, backend: Backend}} choices what the person has chosen under Advanced */
  constructor(choices) {
    this.#choices = choices;
    for (const family of new Set(MODELS.map((model) => model.family))) {
      const group = document.createElement('optgroup');
      const call = () => {
        group.label = texts.fromHub(family);
      };
      call();
      onLanguage(call);
      group.append(...MODELS.filter((model) => model.family === family).map(({ id, title }) => new Option(title, id)));
      $.modelsOwn.before(group);
    }
    $.choices.append(...MODELS.map(({ id, title }) => choice(id, title)));
    this.show();
    onLanguage(() => this.show());
    lookAtDevice().then((device) => {
      this.#device = device;
      this.show();
    });
  }

  /** @param {string} id @returns {Offer | undefined} */
  find(id) {
    const model = MODELS.find((candidate) => candidate.id === id);
    return model && this.#offer(model);
  }

  /**
   * What it takes to keep a model that isn't in the list, and what arrives for it, in bytes; undefined where the server doesn't tell, or it is kept already.
   * @param {string} source its name or address @param {AbortSignal} stop
   * @returns {Promise<{memory: number, download: number} | undefined>}
   */
  async measure(source, stop) {
    try {
      const { place, name } = locate(source);
      if (place.kind !== 'url' || !place.base || this.#kept.some((one) => one.name === name && one.complete)) return undefined;
      const weights = await weightsAt(place.base, AbortSignal.any([stop, AbortSignal.timeout(PATIENCE)]));
      if (!weights) return undefined;
      const { dtype, backend } = this.#choices();
      const held = dtype !== 'auto' ? dtype : 4 * weights.parameters <= SMALL ? 'f32' : this.#device.gpu && backend !== 'cpu' ? 'f16' : 'q8';
      return { memory: memoryOf({ parameters: weights.parameters / 1e6 }, held), download: weights.download };
    } catch {
      // The load will say what is wrong.
      return undefined;
    }
  }

  /** @returns {Offer} */
  forPhotographs() {
    return this.#offer(forPhotographs(texts.locale, (model) => this.#offer(model).fits));
  }

  /** @param {Model} model @returns {Offer} */
  #offer(model) {
    const { id, title, languages } = model;
    const wishes = this.#choices();
    const best = bestFor(model, this.#device, wishes.dtype, wishes.backend);
    const dtype = best ?? (wishes.dtype === 'auto' ? 'q4' : wishes.dtype);
    const asked = this.#asked.get(id);
    return {
      id, title, languages, dtype, fits: best !== undefined, download: asked ?? downloadOf(model), asked: asked !== undefined, memory: memoryOf(model, dtype),
      kept: this.#kept.some((one) => one.name === id && one.complete && one.dtype === dtype),
      buffer: wishes.backend === 'webgpu' && !hasBuffers(model, this.#device, dtype) ? [bufferOf(model, dtype), this.#device.buffer ?? Infinity] : undefined,
    };
  }

  /** Asks the Hub how large the models are: their files, without the token tables, of which only rows are fetched. */
  async ask() {
    const signal = AbortSignal.timeout(PATIENCE);
    this.#room = await roomLeft();
    this.show();
    await Promise.all(MODELS.filter(({ id }) => !this.#asked.has(id)).map(async (model) => {
      const { id } = model;
      const base = `https://huggingface.co/${id}/resolve/main/`;
      const [weights, tokenizer] = await Promise.all(['model.safetensors', 'tokenizer.json'].map((file) => sizeAt(base + file, signal)));
      if (weights === undefined || tokenizer === undefined) return;
      this.#asked.set(id, weights - tableOf(model) + tokenizer);
      this.show();
    }));
  }

  show() {
    const options = [...$.model.options];
    for (const model of MODELS) {
      const offer = this.#offer(model);
      const told = { ...offer, download: offer.kept ? undefined : bytes(offer.download), memory: bytes(offer.memory) };
      const option = options.find(({ value }) => value === model.id);
      if (option) option.textContent = texts.option(told);
      const [words, numbers] = $.choices.querySelectorAll(`[data-id="${model.id}"] span`);
      if (words) words.textContent = texts.words[model.id] ?? '';
      const room = !offer.kept && this.#room !== undefined && this.#room < offer.memory ? bytes(this.#room) : undefined;
      if (numbers) numbers.textContent = texts.choice({ ...told, room });
    }
  }

  /** @param {CachedModel[]} caches */
  know(caches) {
    this.#kept = caches;
    this.show();
  }
}

/** A model in the dialog. @param {string} id @param {string} title */
function choice(id, title) {
  const label = document.createElement('label');
  const input = Object.assign(document.createElement('input'), { type: 'radio', name: 'choice', value: id });
  const parts = ['words', 'numbers'].map((className) => Object.assign(document.createElement('span'), { className }));
  label.className = 'choice';
  label.dataset.id = id;
  label.append(input, title, ' ', ...parts.flatMap((part) => [part, ' ']));
  return label;
}

/**
 * Lists what is kept, each with a button to remove it.
 * @param {CachedModel[]} caches
 * @param {(name?: string) => void} remove all without a name
 */
export function showKept(caches, remove) {
  const names = [...new Set(caches.map(({ name }) => name))];
  $.keptNote.textContent = names.length > 0
    ? texts.someKept(bytes(caches.reduce((sum, cache) => sum + cache.bytes, 0)))
    : texts.noneKept;
  $.kept.replaceChildren(...names.map((name) => {
    const forms = caches.filter((cache) => cache.name === name);
    const item = document.createElement('li');
    const text = document.createElement('span');
    const told = forms.map(({ dtype, bytes: size, complete }) => `${dtype.replace(/^auto-.*/, texts.automatic)} ${bytes(size)}${complete ? '' : `, ${texts.notComplete}`}`);
    text.textContent = `${name || texts.nameless} · ${told.join('; ')}`;
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'button small';
    button.textContent = texts.remove;
    button.setAttribute('aria-label', texts.removeModel(name));
    button.addEventListener('click', () => remove(name));
    item.append(text, button);
    return item;
  }));
  $.clear.hidden = names.length < 2;
  $.clear.onclick = () => remove();
}

/**
 * What this browser says of its storage: how much room is left, and whether it keeps what is there.
 * @param {{persists?: boolean, room?: number, forgotten: boolean}} told persists: undefined where it doesn't tell; forgotten: what was just kept is gone
 */
export function showStorage({ persists, room, forgotten }) {
  const kept = persists === undefined ? '' : persists ? texts.persists : texts.mayGo;
  $.storageNote.textContent = [room !== undefined && texts.room(bytes(room)), forgotten ? texts.forgotten : kept].filter(Boolean).join(' ');
}
