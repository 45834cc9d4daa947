// Where entries are kept: the origin private file system, or Cache Storage where that fails.

/** The name of all that this library keeps, before other names. */
export const ROOT = "siglip-web";

/**
 * Entries by name, each written as a whole. There is a folder as soon as it has an entry.
 * @typedef {object} Folder
 * @property {(name: string) => Promise<Uint8Array | undefined>} read
 * @property {(name: string, bytes: Uint8Array) => Promise<void>} write
 * @property {(name: string) => Promise<Appender | undefined>} append to a new entry; undefined where entries are written as a whole only
 * @property {(name: string) => Promise<void>} remove
 * @property {() => Promise<void>} destroy
 * @property {() => Promise<string[]>} names
 * @property {() => Promise<number>} bytes
 */
/** An entry that grows; what was written stays if the page goes. Nobody else opens it before it is closed. @typedef {{write: (bytes: Uint8Array) => void, close: () => void}} Appender */
/**
 * @typedef {object} Disk
 * @property {boolean} writable from here
 * @property {(id: string) => Folder} folder
 * @property {() => Promise<string[]>} list ids of folders
 */

/** The origin private file system. @implements {Disk} */
class PrivateFiles {
  #root;

  /** @param {FileSystemDirectoryHandle} root */
  constructor(root) {
    this.#root = root;
  }

  static async open() {
    if (!("FileSystemFileHandle" in globalThis) || !globalThis.navigator?.storage?.getDirectory) throw new Error("no private file system");
    return new PrivateFiles(await (await navigator.storage.getDirectory()).getDirectoryHandle(ROOT, { create: true }));
  }

  /** Some browsers write in workers only. */
  get writable() {
    return "createSyncAccessHandle" in FileSystemFileHandle.prototype || "createWritable" in FileSystemFileHandle.prototype;
  }

  folder(/** @type {string} */ id) {
    return new PrivateFolder(this.#root, id);
  }

  list() {
    return keysOf(this.#root);
  }
}

/** @implements {Folder} */
class PrivateFolder {
  #root;
  #id;
  /** @type {FileSystemDirectoryHandle | undefined} */
  #handle;

  /** @param {FileSystemDirectoryHandle} root @param {string} id */
  constructor(root, id) {
    this.#root = root;
    this.#id = id;
  }

  /** @returns {Promise<FileSystemDirectoryHandle | undefined>} */
  async #found() {
    return (this.#handle ??= await this.#root.getDirectoryHandle(this.#id).catch(ignoreMissing));
  }

  async read(/** @type {string} */ name) {
    const handle = await (await this.#found())?.getFileHandle(name).catch(ignoreMissing);
    return handle && new Uint8Array(await (await handle.getFile()).arrayBuffer());
  }

  async write(/** @type {string} */ name, /** @type {Uint8Array} */ bytes) {
    const directory = (this.#handle ??= await this.#root.getDirectoryHandle(this.#id, { create: true }));
    const { prototype } = /** @type {any} */ (FileSystemFileHandle);
    if (!prototype.createSyncAccessHandle) {
      // What is written shows when it is closed, and not before.
      const writable = await (await directory.getFileHandle(name, { create: true })).createWritable();
      try {
        await writable.write(/** @type {any} */ (bytes));
        await writable.close();
      } catch (error) {
        await writable.abort().catch(() => {});
        throw error;
      }
      return;
    }
    // Only workers have this, quicker way. Without `move` an entry that was torn is told by its checksum.
    const temporary = prototype.move ? `${TEMPORARY}${crypto.randomUUID()}` : name;
    const handle = /** @type {any} */ (await directory.getFileHandle(temporary, { create: true }));
    try {
      const access = await openAccess(handle);
      try {
        access.truncate(0);
        writeAll(access, bytes, 0);
      } finally {
        access.close();
      }
      if (temporary !== name) await handle.move(name);
    } catch (error) {
      await this.remove(temporary).catch(() => {});
      throw error;
    }
  }

  async append(/** @type {string} */ name) {
    if (!(/** @type {any} */ (FileSystemFileHandle).prototype.createSyncAccessHandle)) return undefined;
    const directory = (this.#handle ??= await this.#root.getDirectoryHandle(this.#id, { create: true }));
    const access = await openAccess(await directory.getFileHandle(name, { create: true }));
    access.truncate(0);
    let end = 0;
    return {
      write(/** @type {Uint8Array} */ bytes) {
        writeAll(access, bytes, end);
        end += bytes.length;
      },
      close: () => access.close(),
    };
  }

  async remove(/** @type {string} */ name) {
    await (await this.#found())?.removeEntry(name).catch(ignoreMissing);
  }

  async destroy() {
    this.#handle = undefined;
    await this.#root.removeEntry(this.#id, { recursive: true }).catch(ignoreMissing);
  }

  async names() {
    const directory = await this.#found();
    return directory ? keysOf(directory) : [];
  }

  async bytes() {
    /** @type {Promise<number>[]} */
    const sizes = [];
    const handles = /** @type {AsyncIterable<any>} */ ((await this.#found())?.values() ?? []);
    for await (const handle of handles) sizes.push(handle.getFile().then((/** @type {File} */ { size }) => size, () => 0));
    return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
  }
}

/** What is being opened. @type {Set<FileSystemFileHandle>} */
const opening = new Set();

/**
 * A file for reading and writing at once, in workers. Chromium (148) never answers where the handle is collected meanwhile: it must be held until then.
 * @param {FileSystemFileHandle} handle @param {{mode?: string}} [options] @returns {Promise<any>} a FileSystemSyncAccessHandle
 */
export async function openAccess(handle, options) {
  opening.add(handle);
  try {
    return await /** @type {any} */ (handle).createSyncAccessHandle(options);
  } finally {
    opening.delete(handle);
  }
}

/** @param {any} access a FileSystemSyncAccessHandle @param {Uint8Array} bytes @param {number} at */
function writeAll(access, bytes, at) {
  if (access.write(bytes, { at }) < bytes.length) throw new DOMException("The disk is full.", "QuotaExceededError");
}

export const TEMPORARY = "tmp-";

/** @param {any} directory @returns {Promise<string[]>} */
async function keysOf(directory) {
  const names = [];
  for await (const name of directory.keys()) names.push(name);
  return names;
}

/** @param {Error} error @returns {undefined} */
function ignoreMissing(error) {
  if (error.name !== "NotFoundError") throw error;
}

/** Cache Storage: a cache for each folder, an answer for each entry. @implements {Disk} */
class Caches {
  writable = true;

  static async open() {
    if (!("caches" in globalThis)) throw new Error("no Cache Storage");
    await caches.keys();
    return new Caches();
  }

  folder(/** @type {string} */ id) {
    return new CacheFolder(`${ROOT}/${id}`);
  }

  async list() {
    return (await caches.keys()).filter((name) => name.startsWith(`${ROOT}/`)).map((name) => name.slice(ROOT.length + 1));
  }
}

/** @implements {Folder} */
class CacheFolder {
  #name;

  /** @param {string} name of the cache */
  constructor(name) {
    this.#name = name;
  }

  /** @param {string} name */
  static #address(name) {
    return `https://${ROOT}.invalid/${name}`;
  }

  async #found() {
    return (await caches.has(this.#name)) ? caches.open(this.#name) : undefined;
  }

  async read(/** @type {string} */ name) {
    const answer = await (await this.#found())?.match(CacheFolder.#address(name));
    return answer && new Uint8Array(await answer.arrayBuffer());
  }

  async write(/** @type {string} */ name, /** @type {Uint8Array} */ bytes) {
    const cache = await caches.open(this.#name);
    await cache.put(CacheFolder.#address(name), new Response(/** @type {any} */ (bytes), { headers: { "Content-Length": String(bytes.length) } }));
  }

  async append() {
    return undefined;
  }

  async remove(/** @type {string} */ name) {
    await (await this.#found())?.delete(CacheFolder.#address(name));
  }

  async destroy() {
    await caches.delete(this.#name);
  }

  async names() {
    const requests = (await (await this.#found())?.keys()) ?? [];
    return requests.map(({ url }) => new URL(url).pathname.slice(1));
  }

  async bytes() {
    const answers = (await (await this.#found())?.matchAll()) ?? [];
    return answers.reduce((sum, { headers }) => sum + Number(headers.get("content-length")), 0);
  }
}

/** Those that work here, the better one first. @returns {Promise<Disk[]>} */
export async function disks() {
  const opened = await Promise.allSettled([limited(PrivateFiles.open()), limited(Caches.open())]);
  return opened.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
}

/** How long the browser's storage may take for one thing, and for a megabyte. Milliseconds. */
const LIMIT = { once: 30_000, megabyte: 1000 };

/**
 * Where a visitor clears the site's data meanwhile, some of the browser's promises are never settled.
 * @template T @param {Promise<T>} work @param {number} [bytes] @returns {Promise<T>}
 */
export async function limited(work, bytes = 0) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("it does not answer")), LIMIT.once + (bytes / 1e6) * LIMIT.megabyte);
  });
  try {
    return await Promise.race([work, /** @type {Promise<never>} */ (late)]);
  } finally {
    clearTimeout(timer);
  }
}
