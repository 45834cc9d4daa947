// The models that are offered: how large they are in each form, and what this device can hold.

import { isSoftware } from '../lib/worker/backend.js';

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
 * @property {number} [arriving] bytes that a parameter has on the Hub: 4 unless given. With 8 bits a number, 64 of them share two of 16
 * @property {[tokens: number, width: number]} table the token table's shape
 * @property {number} tokenizer its file, in MB, unless the server says another size
 * @property {number} matrix the largest one's numbers, in millions: what one GPU buffer has to hold
 * @property {'en' | 'many'} languages that it reads
 */

/** @type {Model[]} */
export const MODELS = [
  { family: 'SigLIP 2', id: 'mlx-community/siglip2-base-patch16-224-8bit', title: 'SigLIP 2 B/16, 224 px, 8 bits', parameters: 178.6, arriving: 1.0625, table: [256_000, 768], tokenizer: 34, matrix: 2.4, languages: 'many' },
  { family: 'SigLIP 2', id: 'google/siglip2-base-patch32-256', title: 'SigLIP 2 B/32, 256 px', parameters: 180.3, table: [256_000, 768], tokenizer: 34, matrix: 2.4, languages: 'many' },
  { family: 'SigLIP 2', id: 'google/siglip2-base-patch16-224', title: 'SigLIP 2 B/16, 224 px', parameters: 178.6, table: [256_000, 768], tokenizer: 34, matrix: 2.4, languages: 'many' },
  { family: 'SigLIP 2', id: 'google/siglip2-base-patch16-naflex', title: 'SigLIP 2 B/16, any shape', parameters: 178.7, table: [256_000, 768], tokenizer: 34, matrix: 2.4, languages: 'many' },
  { family: 'SigLIP 2', id: 'google/siglip2-large-patch16-256', title: 'SigLIP 2 L/16, 256 px', parameters: 619.4, table: [256_000, 1024], tokenizer: 34, matrix: 4.2, languages: 'many' },
  { family: 'SigLIP 2', id: 'google/siglip2-so400m-patch14-384', title: 'SigLIP 2 So400m/14, 384 px', parameters: 841.1, table: [256_000, 1152], tokenizer: 34, matrix: 5, languages: 'many' },
  { family: 'SigLIP', id: 'google/siglip-base-patch16-224', title: 'SigLIP B/16, 224 px', parameters: 178.6, table: [32_000, 768], tokenizer: 2.4, matrix: 2.4, languages: 'en' },
  { family: 'SigLIP', id: 'google/siglip-base-patch16-256-multilingual', title: 'SigLIP B/16, 256 px, multilingual', parameters: 178.6, table: [250_000, 768], tokenizer: 16, matrix: 2.4, languages: 'many' },
  { family: 'SigLIP', id: 'google/siglip-large-patch16-256', title: 'SigLIP L/16, 256 px', parameters: 619.4, table: [32_000, 1024], tokenizer: 2.4, matrix: 4.2, languages: 'en' },
  { family: 'SigLIP', id: 'google/siglip-so400m-patch14-384', title: 'SigLIP So400m/14, 384 px', parameters: 841.1, table: [32_000, 1152], tokenizer: 2.4, matrix: 5, languages: 'en' },
];

/** Bytes that a parameter takes, as measured on the whole models: some weights are held finer than the rest. @type {Record<Form, number>} */
const HELD = { f32: 4, f16: 2, q8: 1.28, q4: 0.93 };
/** As the Hub has nearly all: whatever they are held as here, they arrive as f32. */
export const ARRIVING = 4;
/** Models of no more bytes are held as they are, unless the person says otherwise: see src/checkpoint/precision.rs. */
export const SMALL = 64 << 20;
/** For pictures on their way, the tokenizer and the browser itself. */
const BESIDES = 4e8;
/** @param {Model} model @returns {number} bytes */
export const downloadOf = ({ parameters, arriving = ARRIVING, tokenizer }) => 1e6 * (parameters * arriving + tokenizer);
/** @param {Model} model @returns {number} bytes of the token table on the Hub, of which only rows are fetched */
export const tableOf = ({ table: [tokens, width], arriving = ARRIVING }) => tokens * width * arriving;
/** @param {Pick<Model, 'parameters'>} model @param {Form} dtype @returns {number} bytes */
export const memoryOf = ({ parameters }, dtype) => 1e6 * parameters * HELD[dtype];
/** @param {Pick<Model, 'matrix'>} model @param {Form} dtype @returns {number} bytes */
export const bufferOf = ({ matrix }, dtype) => 1e6 * matrix * HELD[dtype];

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

/**
 * The first that knows photographs, can be used here, and reads the page's language, if there is one.
 * @param {string} language @param {(model: Model) => boolean} fits @returns {Model}
 */
export function forPhotographs(language, fits) {
  const fitting = MODELS.filter(fits);
  return fitting.find(({ languages }) => languages === 'many' || languages === language) ?? fitting[0] ?? /** @type {Model} */ (MODELS[0]);
}

/** Whether this device's GPU takes the model's largest matrix in one buffer. @param {Pick<Model, 'matrix'>} model @param {Device} device @param {Form} dtype */
export const hasBuffers = (model, { gpu, buffer = Infinity }, dtype) => !gpu || bufferOf(model, dtype) <= buffer;
