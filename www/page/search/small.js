// Small pictures for the page, made by a worker: decoding and scaling don't hold up scrolling.

import { shrink } from './shrink.js';

/** Milliseconds that the worker may take, beyond which it is taken for dead: then the page makes them itself. */
const PATIENCE = 30_000;

/** @type {Map<number, {file: Blob, resolve: (bitmap: ImageBitmap | undefined | Promise<ImageBitmap | undefined>) => void}>} */
const waiting = new Map();
let count = 0;
/** @type {Worker | undefined} */
let worker;
let failed = false;

function start() {
  const started = new Worker(new URL('./shrink-worker.js', import.meta.url), { type: 'module', name: 'small pictures' });
  started.onmessage = ({ data: { id, bitmap } }) => {
    const one = waiting.get(id);
    waiting.delete(id);
    if (one) one.resolve(bitmap);
    else bitmap?.close();
  };
  started.onerror = fail;
  return started;
}

function fail() {
  failed = true;
  worker?.terminate();
  for (const { file, resolve } of waiting.values()) resolve(here(file));
  waiting.clear();
}

/** @param {Blob} file */
const here = (file) => shrink(file).catch(() => undefined);

/** @param {Blob} file @returns {Promise<ImageBitmap | undefined>} undefined where it can't be shown */
export async function smallOf(file) {
  if (failed) return here(file);
  worker ??= start();
  const id = count++;
  /** @type {Promise<ImageBitmap | undefined>} */
  const made = new Promise((resolve) => waiting.set(id, { file, resolve }));
  worker.postMessage({ id, file });
  const timer = setTimeout(fail, PATIENCE);
  return made.finally(() => clearTimeout(timer));
}
