// The language of the page: the visitor's, as the browser tells it, unless the button was pressed on an earlier visit.

import { ENGLISH } from './texts/en.js';
import { GERMAN } from './texts/de.js';

/** @typedef {import('./texts/en.js').Texts} Texts */

const KEY = 'siglip-web.language';
/** @type {[Texts, ...Texts[]]} */
const LANGUAGES = [ENGLISH, GERMAN];
/** What the attributes of index.html put into an element, each by its own key. */
const PLACES = {
  'data-text': { get: (/** @type {Element} */ node) => node.textContent, set: (/** @type {Element} */ node, /** @type {string} */ text) => { node.textContent = text; } },
  'data-label': attribute('aria-label'),
  'data-group': attribute('label'),
};

/** @param {string} name */
function attribute(name) {
  return {
    get: (/** @type {Element} */ node) => node.getAttribute(name),
    set: (/** @type {Element} */ node, /** @type {string} */ text) => node.setAttribute(name, text),
  };
}

/** What stands in index.html as it was written: English. @type {{key: string, english: string, put: (text: string) => void}[]} */
const written = Object.entries(PLACES).flatMap(([name, { get, set }]) => [...document.querySelectorAll(`[${name}]`)].map((node) => ({
  key: node.getAttribute(name) ?? '', english: get(node) ?? '', put: (/** @type {string} */ text) => set(node, text),
})));

/** What the page says, in its language. */
export let texts = chosen();
/** @type {Set<() => void>} */
const listeners = new Set();

/** @returns {Texts} */
function chosen() {
  const known = (/** @type {string | null} */ tag) => LANGUAGES.find(({ locale }) => tag?.toLowerCase().split('-')[0] === locale);
  return known(remembered()) ?? navigator.languages.map(known).find(Boolean) ?? LANGUAGES[0];
}

function remembered() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // this browser keeps nothing for this page
  }
}

/** @param {Texts} language */
function write(language) {
  document.documentElement.lang = language.locale;
  for (const { key, english, put } of written) put(language.page[key] ?? english);
  const button = document.getElementById('language');
  const other = otherThan(language);
  button?.setAttribute('lang', other.locale);
  button?.replaceChildren(other.name);
}

/** @param {Texts} language the one after it */
const otherThan = (language) => LANGUAGES[(LANGUAGES.indexOf(language) + 1) % LANGUAGES.length] ?? LANGUAGES[0];

/** Calls back when the page's language has changed: what was said before is to be said again. @param {() => void} listener */
export const onLanguage = (listener) => listeners.add(listener);

/** A number as the page's language writes it. @param {number} value @param {number} [digits] after the point */
export const number = (value, digits = 0) => value.toLocaleString(texts.locale, { minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false });

document.getElementById('language')?.addEventListener('click', () => {
  texts = otherThan(texts);
  try {
    localStorage.setItem(KEY, texts.locale);
  } catch {
    // It holds for this visit.
  }
  write(texts);
  for (const listener of listeners) listener();
});
write(texts);
