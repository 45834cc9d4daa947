// The list of models on the pages that offer no more than a list, search.html and speed.html; and when a choice counts, on index.html too.

import { MODELS, downloadOf } from './catalogue.js';
import { select } from './find.js';
import { onLanguage, texts } from './language.js';
import { bytes } from './results.js';

// A site made by `./build.sh site --model` names its own model in the page's head.
/** @type {HTMLMetaElement | null} */
const named = document.querySelector('meta[name="siglip-model"]');

/** The model that the page begins with, by its id in the list. */
export const FIRST = named ? 'site' : 'demo';

/** @param {string} id */
const found = (id) => MODELS.find((one) => one.id === id);

/** @param {string} id */
export const titleOf = (id) => (id === 'demo' ? texts.demo : id === 'site' ? named?.dataset.title ?? '' : found(id)?.title ?? id);

/** What `SiglipClassifier.load` takes. @param {string} id */
export const sourceOf = (id) => (id === 'site' && named ? new URL(named.content, document.baseURI).href : id);

/** Milliseconds. */
const PASSING = 600;
/** @type {number | undefined} */
let choosing;

/** Loads what is chosen in the list: after a while, as arrow keys may only be passing by a large download. @param {string} id @param {() => void} load */
export function chooseSoon(id, load) {
  chooseNot();
  if (id === 'demo' || id === 'site') load();
  else choosing = setTimeout(load, PASSING);
}

/** Something else is loaded, or nothing. */
export const chooseNot = () => clearTimeout(choosing);

/** Fills the page's list, in the page's language from now on. */
export function listModels() {
  const list = select('model');
  const groups = new Map([...new Set(MODELS.map(({ family }) => family))].map((family) => [family, document.createElement('optgroup')]));
  list.append(...groups.values());
  for (const { family, title, id } of MODELS) groups.get(family)?.append(new Option(title, id));
  if (named) list.prepend(new Option(named.dataset.title ?? named.content, 'site', true, true));
  const tell = () => {
    for (const [family, group] of groups) group.label = texts.fromHub(family);
    for (const option of list.options) {
      const model = found(option.value);
      if (model) option.textContent = `${model.title} · ${bytes(downloadOf(model))}`;
    }
  };
  onLanguage(tell);
  tell();
}
