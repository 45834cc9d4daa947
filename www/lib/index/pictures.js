// IndexSource → pictures with their ids, sizes and times. Folders are walked; nothing is read here but what the file system says of a file.
import { badInput, show, tagOf } from "../client/arguments.js";
import { SiglipError, aborted, siglipError } from "../error.js";

/** @typedef {import("../siglip-index.d.ts").IndexItem} IndexItem */
/** `failure`: that a file can't be asked about, or a folder not be looked into. @typedef {IndexItem & {failure?: SiglipError}} Found */
/**
 * @typedef {object} Pictures
 * @property {AsyncIterable<Found> | Iterable<Found>} items
 * @property {boolean} lazy whether they are taken only when there is room for them: the caller may make them on the way
 * @property {string[]} folders what ids of folders that are whole begin with
 * @property {Count} count
 */
/** `closed`: folders that can't be looked into, as ids begin. @typedef {{skipped: number, closed: string[]}} Count */

/** Names of files that are pictures to the engine or to some browser. */
const PICTURE = /\.(jpe?g|jfif|png|webp|gif|bmp|dib|avif|heic|heif|svg|ico|jxl|tiff?)$/i;
/** Folders and files of systems, which hold no pictures of people's. */
const HIDDEN = /^(\.|__MACOSX$|Thumbs\.db$|desktop\.ini$)/;
/** Files that are asked about at once, and folders: each answer takes its time, and many come together. */
const AT_ONCE = 128;
const FOLDERS = 8;
const LONGEST_ID = 4096;

/** @param {any} source @param {AbortSignal} signal @returns {Pictures} */
export function picturesOf(source, signal) {
  const tag = tagOf(source);
  /** @type {Count} */
  const count = { skipped: 0, closed: [] };
  const walk = (/** @type {any[]} */ roots) => {
    const folders = roots.filter(isFolder).map(({ name }) => `${name}/`);
    return { items: filesOf(roots, count, signal), lazy: false, folders, count };
  };
  if (tag === "DataTransfer") return walk(rootsOf(source));
  if (isHandle(source) || isEntry(source)) return walk([source]);
  const listed = Array.isArray(source) || tag === "FileList" ? [...source] : undefined;
  if (listed?.length === 0) throw badInput("There are no files to index: the list is empty. Choose a folder or pictures.");
  if (listed && listed.every((file) => tagOf(file) === "File")) return chosenFiles(listed, count);
  if (listed && listed.every((one) => tagOf(one) === "File" || isHandle(one) || isEntry(one))) return walk(listed);
  const begin = source?.[Symbol.asyncIterator] ?? source?.[Symbol.iterator];
  if (typeof begin !== "function" || typeof source === "string") {
    throw badInput(`The pictures to index are ${show(source)}. Give a folder (a FileSystemDirectoryHandle, a dropped entry, event.dataTransfer, the files of <input webkitdirectory>), files, or anything that "for await" goes through of {id, image}.`);
  }
  return { items: checked(source), lazy: true, folders: [], count };
}

/** @param {any} one */
const isHandle = (one) => ["FileSystemDirectoryHandle", "FileSystemFileHandle"].includes(tagOf(one));
/** @param {any} one */
const isEntry = (one) => typeof one?.isDirectory === "boolean" && typeof one.fullPath === "string";
/** @param {any} one */
const isFolder = (one) => one.kind === "directory" || one.isDirectory === true;

/** What was dropped. It is there only until the event is over. @param {DataTransfer} data */
function rootsOf(data) {
  const roots = [...data.items].filter(({ kind }) => kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  if (!roots.some(Boolean)) throw badInput("What was dropped holds no files. Drop a folder or pictures, and call add within the drop event.");
  return roots.filter(Boolean);
}

/** Files of an input: of a folder where they have paths. @param {File[]} files @param {Count} count @returns {Pictures} */
function chosenFiles(files, count) {
  const folders = new Set();
  const items = [];
  for (const file of files) {
    const path = file.webkitRelativePath;
    if (path) folders.add(path.slice(0, path.indexOf("/") + 1));
    if (path && !shown(path.split("/"))) count.skipped += 1;
    else items.push(ofFile(path || file.name, file));
  }
  return { items, lazy: false, folders: [...folders], count };
}

/** Whether a path is that of a picture to be indexed. @param {string[]} parts */
function shown(parts) {
  return !parts.slice(1).some((part) => HIDDEN.test(part)) && PICTURE.test(/** @type {string} */ (parts.at(-1)));
}

/** @param {string} id @param {File} file @returns {Found} */
function ofFile(id, file) {
  return { id, image: file, size: file.size, modified: file.lastModified };
}

/**
 * The pictures in folders, and files that were given by themselves. Many are asked about at once, as each answer takes its time.
 * @param {any[]} roots files, handles, entries @param {Count} count @param {AbortSignal} signal
 * @returns {AsyncGenerator<Found, void>}
 */
async function* filesOf(roots, count, signal) {
  /** @type {Promise<Found>[]} */
  const asked = [];
  for await (const { path, file } of walked(roots, "", count, signal)) {
    asked.push(file().then((found) => ofFile(path, found), (error) => ({ id: path, image: file, failure: error instanceof SiglipError ? error : unreadable(path, error) })));
    if (asked.length >= AT_ONCE) yield /** @type {Promise<Found>} */ (asked.shift());
  }
  yield* asked;
}

/**
 * @param {any[]} roots @param {string} prefix @param {Count} count @param {AbortSignal} signal
 * @returns {AsyncGenerator<{path: string, file: () => Promise<File>}, void>}
 */
async function* walked(roots, prefix, count, signal) {
  const pathOf = (/** @type {any} */ one) => `${prefix}${one.name}`;
  const folders = roots.filter((one) => isFolder(one) && !(prefix && HIDDEN.test(one.name)));
  /** Those of the folders that come next. @type {Promise<any[]>[]} */
  const children = [];
  const list = () => {
    for (const folder of folders.splice(0, FOLDERS - children.length)) {
      const listed = childrenOf(folder, pathOf(folder));
      listed.catch(() => {});
      children.push(listed);
    }
  };
  for (const one of roots) {
    if (signal.aborted) throw aborted(signal);
    const path = pathOf(one);
    if (isFolder(one)) {
      if (prefix && HIDDEN.test(one.name)) continue;
      list();
      const listed = /** @type {Promise<any[]>} */ (children.shift());
      const inside = await listed.catch((error) => {
        if (!prefix) throw error;
        count.closed.push(`${path}/`);
      });
      // One among others is told as a file is that can't be read.
      if (inside) yield* walked(inside, `${path}/`, count, signal);
      else yield { path, file: () => /** @type {Promise<any>} */ (listed) };
    } else if (prefix && (HIDDEN.test(one.name) || !PICTURE.test(one.name))) {
      count.skipped += 1;
    } else {
      yield { path, file: () => fileOf(one) };
    }
  }
}

/** @param {any} folder @param {string} path @returns {Promise<any[]>} in the order of their names */
async function childrenOf(folder, path) {
  const children = [];
  try {
    if (folder.kind === "directory") {
      for await (const child of folder.values()) children.push(child);
    } else {
      const reader = folder.createReader();
      for (;;) {
        // A hundred at a time, in Chromium.
        const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (some.length === 0) break;
        children.push(...some);
      }
    }
  } catch (error) {
    throw new SiglipError("network", `The folder ${show(path)} could not be read (${error.message}). It may have been moved, or the page's permission to read it has ended: choose it again.`, { cause: error });
  }
  return children.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** @param {any} one @returns {Promise<File>} */
function fileOf(one) {
  if (tagOf(one) === "File") return Promise.resolve(one);
  return isHandle(one) ? one.getFile() : new Promise((resolve, reject) => one.file(resolve, reject));
}

/** @param {string} path @param {any} error */
export function unreadable(path, error) {
  return new SiglipError("network", `The file ${show(path)} could not be read (${error.message}). It may have been moved or changed: index the folder again.`, { cause: error });
}

/** @param {any} source @returns {AsyncGenerator<Found, void>} */
async function* checked(source) {
  let index = 0;
  for await (const item of source) {
    const what = `item ${index++} of the pictures to index`;
    if (item === null || typeof item !== "object" || !("image" in item)) throw badInput(`${what} is ${show(item)}; it must be {id, image}.`);
    checkId(what, item.id);
    for (const name of ["size", "modified"]) {
      const value = item[name];
      if (value !== undefined && !(Number.isFinite(value) && value >= 0)) throw badInput(`${name} of ${what} (${show(item.id)}) is ${show(value)}; it must be a number that is not negative, or be left out.`);
    }
    yield item;
  }
}

/** @param {string} what @param {any} id */
export function checkId(what, id) {
  if (typeof id !== "string" || id === "" || id.length > LONGEST_ID) throw badInput(`The id of ${what} is ${show(id)}; it must be a text of 1 to ${LONGEST_ID} characters.`);
}

/** The picture itself. @param {Found} found @returns {Promise<any>} */
export async function imageOf({ id, image, failure }) {
  if (failure) throw failure;
  if (typeof image !== "function") return image;
  try {
    return await image();
  } catch (error) {
    throw error instanceof SiglipError || error?.code ? siglipError(error) : unreadable(id, error);
  }
}
