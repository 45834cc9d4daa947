// Elements by their ids, each of the kind that the rest takes it for: the first that isn't is an error with its name.

/**
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} Kind
 * @returns {T}
 */
export function element(id, Kind) {
  const found = document.getElementById(id);
  if (!(found instanceof Kind)) throw new TypeError(`The page has no ${Kind.name} with the id "${id}".`);
  return found;
}

export const button = (/** @type {string} */ id) => element(id, HTMLButtonElement);
export const dialog = (/** @type {string} */ id) => element(id, HTMLDialogElement);
export const form = (/** @type {string} */ id) => element(id, HTMLFormElement);
export const input = (/** @type {string} */ id) => element(id, HTMLInputElement);
export const part = (/** @type {string} */ id) => element(id, HTMLElement);
export const select = (/** @type {string} */ id) => element(id, HTMLSelectElement);
