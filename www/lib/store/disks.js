// Where entries are kept: the origin private file system, or Cache Storage where that fails.

/** The name of all that this library keeps, before other names. */
export const ROOT = "siglip-web";

/**
 * Entries by name, each written as a whole.
 * @typedef {object} Folder
 * @property {(name: string) => Promise<Uint8Array | undefined>} read
 * @property {(name: string, bytes: Uint8Array) => Promise<void>} write
 * @property {(name: string) => Promise<void>} remove
 * @property {() => Promise<string[]>} names
 * @property {() => Promise<number>} bytes
 */
/**
 * @typedef {object} Disk
 * @property {boolean} writable from here
 * @property {(id: string) => Promise<Folder>} folder made where there is none
 * @property {() => Promise<string[]>} list ids of folders
 * @property {(id: string) => Promise<void>} remove
 */

/** The origin private file system. @implements {Disk} */
class PrivateFiles {
  #root;

  /** @param {FileSystemDirectoryHandle} root */
  constructor(root) {
    this.#root = root;
  }

  static async open() {
    if (!("FileSystemFileHandle" in self) || !navigator.storage?.getDirectory) throw new Error("no private file system");
    return new PrivateFiles(await (await navigator.storage.getDirectory()).getDirectoryHandle(ROOT, { create: true }));
  }

  /** Some browsers write in workers only. */
  get writable() {
    return "createSyncAccessHandle" in FileSystemFileHandle.prototype || "createWritable" in FileSystemFileHandle.prototype;
  }

  async folder(/** @type {string} */ id) {
    return new PrivateFolder(await this.#root.getDirectoryHandle(id, { create: true }));
  }

  async list() {
    return keysOf(this.#root);
  }

  async remove(/** @type {string} */ id) {
    await this.#root.removeEntry(id, { recursive: true }).catch(ignoreMissing);
  }
}

/** @implements {Folder} */
class PrivateFolder {
  #directory;

  /** @param {FileSystemDirectoryHandle} directory */
  constructor(directory) {
    this.#directory = directory;
  }

  async read(/** @type {string} */ name) {
    const handle = await this.#directory.getFileHandle(name).catch(ignoreMissing);
    return handle && new Uint8Array(await (await handle.getFile()).arrayBuffer());
  }

  async write(/** @type {string} */ name, /** @type {Uint8Array} */ bytes) {
    const { prototype } = /** @type {any} */ (FileSystemFileHandle);
    if (!prototype.createSyncAccessHandle) {
      // What is written shows when it is closed, and not before.
      const writable = await (await this.#directory.getFileHandle(name, { create: true })).createWritable();
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
    const handle = /** @type {any} */ (await this.#directory.getFileHandle(temporary, { create: true }));
    try {
      const access = await handle.createSyncAccessHandle();
      try {
        access.truncate(0);
        if (access.write(bytes, { at: 0 }) < bytes.length) throw new DOMException("The disk is full.", "QuotaExceededError");
      } finally {
        access.close();
      }
      if (temporary !== name) await handle.move(name);
    } catch (error) {
      await this.remove(temporary).catch(() => {});
      throw error;
    }
  }

  async remove(/** @type {string} */ name) {
    await this.#directory.removeEntry(name).catch(ignoreMissing);
  }

  names() {
    return keysOf(this.#directory);
  }

  async bytes() {
    /** @type {Promise<number>[]} */
    const sizes = [];
    // @ts-ignore: known to newer type libraries
    for await (const handle of this.#directory.values()) sizes.push(handle.getFile().then(({ size }) => size, () => 0));
    return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
  }
}

export const TEMPORARY = "tmp-";

/** @param {any} directory */
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
    if (!("caches" in self)) throw new Error("no Cache Storage");
    await caches.keys();
    return new Caches();
  }

  async folder(/** @type {string} */ id) {
    return new CacheFolder(await caches.open(`${ROOT}/${id}`));
  }

  async list() {
    return (await caches.keys()).filter((name) => name.startsWith(`${ROOT}/`)).map((name) => name.slice(ROOT.length + 1));
  }

  async remove(/** @type {string} */ id) {
    await caches.delete(`${ROOT}/${id}`);
  }
}

/** @implements {Folder} */
class CacheFolder {
  #cache;

  /** @param {Cache} cache */
  constructor(cache) {
    this.#cache = cache;
  }

  /** @param {string} name */
  static #address(name) {
    return `https://${ROOT}.invalid/${name}`;
  }

  async read(/** @type {string} */ name) {
    const answer = await this.#cache.match(CacheFolder.#address(name));
    return answer && new Uint8Array(await answer.arrayBuffer());
  }

  async write(/** @type {string} */ name, /** @type {Uint8Array} */ bytes) {
    await this.#cache.put(CacheFolder.#address(name), new Response(/** @type {any} */ (bytes), { headers: { "Content-Length": String(bytes.length) } }));
  }

  async remove(/** @type {string} */ name) {
    await this.#cache.delete(CacheFolder.#address(name));
  }

  async names() {
    return (await this.#cache.keys()).map(({ url }) => new URL(url).pathname.slice(1));
  }

  async bytes() {
    const answers = await this.#cache.matchAll();
    return answers.reduce((sum, { headers }) => sum + Number(headers.get("content-length")), 0);
  }
}

/** Those that work here, the better one first. @returns {Promise<Disk[]>} */
export async function disks() {
  const opened = await Promise.allSettled([PrivateFiles.open(), Caches.open()]);
  return opened.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
}
