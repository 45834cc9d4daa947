// The folders that this browser knows: which index is whose. Two folders of one name are two: handles say which is which, and what they hold where
// there are none.

/** @typedef {import('../../lib/siglip-index.js').IndexEntry} IndexEntry */
/** @typedef {import('./folder.js').Place} Place */
/**
 * @typedef {object} Known
 * @property {string} index its index is kept under this name, and the page calls the folder so: "Holidays", "Holidays (2)"
 * @property {string} name the folder's own
 * @property {FileSystemDirectoryHandle} [handle] opens it again
 * @property {number} pictures that are in the index
 * @property {IndexEntry[]} sample some of them
 * @property {number} opened when, in milliseconds since 1970
 */

const [DATABASE, STORE] = ['siglip-web.search', 'folders'];
/** Version 1 knew the last folder alone. */
const VERSION = 2;
/** Pictures that a folder is known by. */
const SAMPLE = 24;

/** Where the browser keeps nothing: what this visit knows. @type {Map<string, Known>} */
const here = new Map();

/** @template T @param {IDBTransactionMode} mode @param {(store: IDBObjectStore) => IDBRequest<T>} work @returns {Promise<T>} */
function inStore(mode, work) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(DATABASE, VERSION);
    opening.onupgradeneeded = () => {
      const { result } = opening;
      if (result.objectStoreNames.contains(STORE)) result.deleteObjectStore(STORE);
      result.createObjectStore(STORE, { keyPath: 'index' });
    };
    opening.onerror = opening.onblocked = () => reject(opening.error);
    opening.onsuccess = () => {
      const transaction = opening.result.transaction(STORE, mode);
      const request = work(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
      for (const end of ['complete', 'abort']) transaction.addEventListener(end, () => opening.result.close());
    };
  });
}

/** @returns {Promise<Known[]>} the one that was opened last first */
export async function knownFolders() {
  /** @type {Known[]} */
  const known = await inStore('readonly', (store) => store.getAll()).catch(() => [...here.values()]);
  return known.sort((a, b) => b.opened - a.opened);
}

/** Remembers it as it is now. @param {Known} known @param {readonly IndexEntry[]} entries of its index */
export async function remember(known, entries) {
  const step = Math.max(1, entries.length / SAMPLE);
  known.pictures = entries.length;
  known.sample = Array.from({ length: Math.min(SAMPLE, entries.length) }, (_, i) => /** @type {IndexEntry} */ (entries[Math.floor(i * step)]));
  here.set(known.index, known);
  await inStore('readwrite', (store) => store.put(known)).catch(() => {});
}

/** @param {string} index */
export async function forget(index) {
  here.delete(index);
  await inStore('readwrite', (store) => store.delete(index)).catch(() => {});
}

/** What is known of a folder; one that isn't known yet gets an index of its own. @param {Place} place @returns {Promise<Known>} */
export async function recognize(place) {
  const all = await knownFolders();
  for (const known of all) {
    if (known.name === place.name && await isSame(known, place)) return { ...known, handle: place.handle ?? known.handle, opened: Date.now() };
  }
  let index = place.name;
  for (let number = 2; all.some((known) => known.index === index); number++) index = `${place.name} (${number})`;
  return { index, name: place.name, handle: place.handle, pictures: 0, sample: [], opened: Date.now() };
}

/** @param {Known} known @param {Place} place of the same name */
async function isSame({ handle, sample }, place) {
  if (handle && place.handle) return handle.isSameEntry(place.handle);
  const there = await Promise.all(sample.map(async ({ id, size, modified }) => {
    const file = await place.file(id).catch(() => undefined);
    return file?.size === size && file?.lastModified === modified;
  }));
  // Pictures come and go. Of a folder whose index is empty nothing can be mistaken.
  return 2 * there.filter(Boolean).length >= sample.length;
}
