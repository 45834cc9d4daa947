// The page's own model, asked for by a script of its own: the model need not wait until the rest of the page has come.

import './policy.js';
import { input, select } from './find.js';

/** @typedef {import('../lib/siglip-web.js').SiglipClassifier} SiglipClassifier */
/** @typedef {import('../lib/siglip-web.js').LoadOptions} LoadOptions */
/** @typedef {import('../lib/siglip-web.js').ProgressEvent} Progress */

/** @type {HTMLMetaElement | null} */
const meta = document.querySelector('meta[name="siglip-model"]');
/** A site made by `./build.sh site --model` names its own model in the page's head. */
export const named = meta && { title: meta.dataset.title ?? meta.content };
export const source = meta ? new URL(meta.content, document.baseURI).href : 'demo';

const WISHES = /** @type {const} */ (['backend', 'dtype', 'wholeTable']);
/** As the browser has left or restored them. */
const wishes = /** @type {Required<Pick<LoadOptions, typeof WISHES[number]>>} */ ({ backend: select('backend').value, dtype: select('dtype').value, wholeTable: input('whole').checked });
const stop = new AbortController();
/** What it told before somebody listened. @type {Progress[]} */
const told = [];
/** @type {(event: Progress) => void} */
let listener = (event) => { told.push(event); };
/** @type {Promise<SiglipClassifier> | undefined} */
let begun = import('../lib/siglip-web.js').then(({ SiglipClassifier }) => SiglipClassifier.load(source, { ...wishes, signal: stop.signal, onProgress: (event) => listener(event) }));
begun.catch(() => {}); // told to who takes it

/**
 * The load that has begun, once, and as if it began now; nothing where something else is wanted by now.
 * @param {LoadOptions & {signal: AbortSignal, onProgress: (event: Progress) => void}} options
 * @returns {Promise<SiglipClassifier> | undefined}
 */
export function takeFirst({ signal, onProgress, ...wanted }) {
  const load = begun;
  begun = undefined;
  if (!load) return undefined;
  if (!WISHES.every((wish) => wanted[wish] === wishes[wish])) {
    stop.abort();
    load.then((classifier) => classifier.dispose(), () => {});
    return undefined;
  }
  if (signal.aborted) stop.abort();
  signal.addEventListener('abort', () => stop.abort());
  listener = onProgress;
  for (const event of told.splice(0)) onProgress(event);
  return load;
}
