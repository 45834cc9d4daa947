// The models that the page offers: how large they are in each form, what this device can hold, and what is kept of them here.

import { isSoftware } from '../lib/worker/backend.js';
import { $ } from './elements.js';
import { onLanguage, texts } from './language.js';
import { bytes } from './results.js';

/** @typedef {import('../lib/siglip-web.js').CachedModel} CachedModel */
/** @typedef {'f32' | 'f16' | 'q8' | 'q4'} Form how weights are held */
/** @typedef {Form | 'auto'} Wish */
/** @typedef {'auto' | 'webgpu' | 'cpu'} Backend */
/** @typedef {{gpu: boolean, memory: number, buffer?: number}} Device memory: bytes that a tab may take; buffer: bytes that a GPU's buffer may have */
/**
 * A model of the Hub. What it is good for, in plain words, is in the texts of each language, by its id.
 * @typedef {object} Model
 * @property {string} family
 * @property {string} id
 * @property {string} title
 * @property {number} parameters in millions, without the token table: of that only the rows of the labels' tokens are fetched
 * @property {[tokens: number, width: number]} table the token table's shape
 * @property {number} tokenizer its file, in MB, unless the server says another size
 * @property {number} matrix the largest one's numbers, in millions: what one GPU buffer has to hold
 * @property {'en' | 'many'} languages that it reads
 */

/** @type {Model[]} */
const MODELS = [
  { family: 'SigLIP', id: 'google/siglip-base-patch16-224', title: 'SigLIP B/16, 224 px', parameters: 178.6, table: [32_000, 768], tokenizer: 2.4, matrix: 2.4, languages: 'en' },
  { family: 'SigLIP', id: 'google/siglip-base-patch16-256-multilingual', title: 'SigLIP B/16, 256 px, multilingual', parameters: 178.6, table: [250_000, 768], tokenizer: 16, matrix: 2.4, languages: 'many' },
  { family: 'SigLIP', id: 'google/siglip-large-patch16-256', title: 'SigLIP L/16, 256 px', parameters: 619.4, table: [32_000, 1024], tokenizer: 2.4, matrix: 4.2, languages: 'en' },
  { family: 'SigLIP', id: 'google/siglip-so400m-patch14-384', title: 'SigLIP So400m/14, 384 px', parameters: 841.1, table: [32_000, 1152], tokenizer: 2.4, matrix: 5, languages: 'en' },
  { family: 'SigLIP 2', id: 'google/siglip2-base-patch16-224', title: 'SigLIP 2 B/16, 224 px', parameters: 178.6, table: [256_000, 768], tokenizer: 34, matrix: 2.4, languages: 'many' },
  { family: 'SigLIP 2', id: 'google/siglip2-large-patch16-256', title: 'SigLIP 2 L/16, 256 px', parameters: 619.4, table: [256_000, 1024], tokenizer: 34, matrix: 4.2, languages: 'many' },
  { family: 'SigLIP 2', id: 'google/siglip2-so400m-patch14-384', title: 'SigLIP 2 So400m/14, 384 px', parameters: 841.1, table: [256_000, 1152], tokenizer: 34, matrix: 5, languages: 'many' },
];

/** Bytes that a parameter takes, as measured on the whole models: some weights are held finer than the rest. @type {Record<Form, number>} */
const HELD = { f32: 4, f16: 2, q8: 1.28, q4: 0.93 };
/** As the Hub has them: whatever they are held as here, they arrive as f32. */
const ARRIVING = 4;
/** For pictures on their way, the tokenizer and the browser itself. */
const BESIDES = 4e8;
/** How long the Hub may take to tell a size. Milliseconds. */
const PATIENCE = 10_000;

/** @param {Model} model @returns {number} bytes */
export const downloadOf = ({ parameters, tokenizer }) => 1e6 * (parameters * ARRIVING + tokenizer);
/** @param {Pick<Model, 'parameters'>} model @param {Form} dtype @returns {number} bytes */
export const memoryOf = ({ parameters }, dtype) => 1e6 * parameters * HELD[dtype];
/** @param {Pick<Model, 'matrix'>} model @param {Form} dtype @returns {number} bytes */
const bufferOf = ({ matrix }, dtype) => 1e6 * matrix * HELD[dtype];

/** What a tab may take of this device. Browsers tell of memory only roughly, some not at all, and none of a GPU's. @returns {Promise<Device>} */
export async function lookAtDevice() {
  const phone = matchMedia('(hover: none) and (pointer: coarse)').matches;
  const memory = navigator.deviceMemory ? navigator.deviceMemory * 5e8 : phone ? 1.2e9 : 4e9;
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: 'high-performance' }).catch(() => null);
  // WebAssembly addresses 4 GB.
  if (!adapter || isSoftware(adapter)) return { gpu: false, memory: Math.min(memory, 3.6e9) };
  const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
  return { gpu: true, memory, buffer: Math.min(maxBufferSize, maxStorageBufferBindingSize) };
}

/**
 * The largest form that fits; undefined if none does.
 * @param {Pick<Model, 'parameters' | 'matrix'>} model @param {Device} device @param {Wish} wish @param {Backend} backend @returns {Form | undefined}
 */
export function bestFor(model, device, wish = 'auto', backend = 'auto') {
  const inMemory = (/** @type {Form} */ dtype) => memoryOf(model, dtype) + BESIDES <= device.memory;
  const onGpu = (/** @type {Form} */ dtype) => inMemory(dtype) && hasBuffers(model, device, dtype);
  const fits = backend === 'webgpu' ? onGpu : inMemory;
  if (wish !== 'auto') return fits(wish) ? wish : undefined;
  /** @type {[gpu: Form[], cpu: Form[]]} */
  const [gpu, cpu] = [device.gpu && backend !== 'cpu' ? ['f16', 'q8', 'q4'] : [], ['q8', 'q4']];
  return gpu.find(onGpu) ?? cpu.find(fits);
}

/** Whether this device's GPU takes the model's largest matrix in one buffer. @param {Pick<Model, 'matrix'>} model @param {Device} device @param {Form} dtype */
const hasBuffers = (model, { gpu, buffer = Infinity }, dtype) => !gpu || bufferOf(model, dtype) <= buffer;

/**
 * What a server says that a file has, in bytes; undefined where it doesn't.
 * @param {string} address @param {AbortSignal} signal
 */
async function sizeAt(address, signal) {
  const response = await fetch(address, { method: 'HEAD', signal }).catch(() => undefined);
  const length = response?.ok ? response.headers.get('content-length') : null;
  return length ? Number(length) : undefined;
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

  /** The first that knows photographs, fits this device, and reads the page's language, if there is one. @returns {Offer} */
  forPhotographs() {
    const fitting = MODELS.map((model) => this.#offer(model)).filter(({ fits }) => fits);
    return fitting.find(({ languages }) => languages === 'many' || texts.locale === languages) ?? fitting[0] ?? this.#offer(/** @type {Model} */ (MODELS[0]));
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
    await Promise.all(MODELS.filter(({ id }) => !this.#asked.has(id)).map(async ({ id, table: [tokens, width] }) => {
      const base = `https://huggingface.co/${id}/resolve/main/`;
      const [weights, tokenizer] = await Promise.all(['model.safetensors', 'tokenizer.json'].map((file) => sizeAt(base + file, signal)));
      if (weights === undefined || tokenizer === undefined) return;
      this.#asked.set(id, weights - tokens * width * ARRIVING + tokenizer);
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
