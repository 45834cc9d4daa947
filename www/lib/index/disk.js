// Where the bytes of an index are: files of the origin private file system, or this worker's memory.
//   vectors    the embeddings as f32, one after the other: row i begins at i · 4 · size
//   rows       the same in 8 bits, as src/search/rows.rs has them: row i begins at i · stride
//   log-0, 1   what each row is: lines that are only ever added; see log.js. Of the two the one of the later generation counts.
//   about.json whose index it is
// Whoever writes holds the index's lock; others may read meanwhile. Rows are written before the line that tells of them, so that a page may be closed
// at any moment.
import { folderName } from "../hash.js";
import { openAccess } from "../store/disks.js";

/** The folder of all indexes. */
export const INDEXES = "siglip-web-indexes";

/** @typedef {import("../siglip-index.d.ts").KeptIndex} KeptIndex */
/** @typedef {Omit<KeptIndex, "bytes">} About */

/** Embeddings in memory: all of them, or those that a full disk didn't take. */
export class Memory {
  /** @type {Map<number, Float32Array>} */
  vectors = new Map();
  kept = false;

  /** @param {number} size @param {string} reason why nothing is kept */
  constructor(size, reason) {
    this.size = size;
    this.reason = reason;
  }

  /** @param {number[] | Uint32Array} rows @returns {Promise<Float32Array>} their embeddings, one after the other; zeros for what isn't there */
  async read(rows) {
    const all = new Float32Array(rows.length * this.size);
    rows.forEach((row, i) => {
      const vector = this.vectors.get(row);
      if (vector) all.set(vector, i * this.size);
    });
    return all;
  }

  /** @param {{row: number, vector: Float32Array}[]} records @param {(row: number) => Uint8Array} _codes @param {string[]} _lines @param {number[]} freed */
  async write(records, _codes, _lines, freed) {
    for (const row of freed) this.vectors.delete(row);
    for (const { row, vector } of records) this.vectors.set(row, vector);
  }

  async clear() {
    this.vectors.clear();
  }

  async hold() {}

  leave() {}

  end() {}
}

/** One file, read and written through a handle where there is one. */
class Opened {
  /** @type {any} */
  #access;

  /** @param {FileSystemFileHandle} handle */
  constructor(handle) {
    this.handle = handle;
  }

  /** For writing. `shared`: others may have it open as well, where the browser knows that. */
  async hold() {
    this.#access ??= await openAccess(this.handle, { mode: "readwrite-unsafe" });
    return this.#access.mode === "readwrite-unsafe";
  }

  leave() {
    this.#access?.close();
    this.#access = undefined;
  }

  async size() {
    return this.#access ? this.#access.getSize() : (await this.handle.getFile()).size;
  }

  /**
   * What reads from `at` on what there is, and gives how many bytes. `into` is where to: asked for when it is read, as memory may move.
   * @returns {Promise<(into: () => Uint8Array, at: number) => number | Promise<number>>}
   */
  async reader() {
    if (this.#access) return (into, at) => this.#access.read(into(), { at });
    const file = await this.handle.getFile();
    return async (into, at) => {
      const bytes = new Uint8Array(await file.slice(at, at + into().byteLength).arrayBuffer());
      into().set(bytes);
      return bytes.length;
    };
  }

  /** @param {Uint8Array} bytes @param {number} at */
  write(bytes, at) {
    if (this.#access.write(bytes, { at }) < bytes.length) throw new DOMException("The disk is full.", "QuotaExceededError");
  }

  /** @param {number} size */
  truncate(size) {
    this.#access.truncate(size);
  }

  flush() {
    this.#access.flush();
  }
}

/** Files of an index. What can't be written any more stays in memory, and `reason` says why. */
export class Files {
  /** @type {Record<"vectors" | "rows" | "log-0" | "log-1", Opened>} */
  #files;
  /** @type {Memory | undefined} what came after writing failed */
  #overlay;
  /** Whether the browser lets several have the files open: then they stay open. */
  #shared = false;
  /** Of the log that counts. */
  generation = 0;
  /** Bytes of the log that were read or written. */
  #end = 0;
  kept = true;
  reason = "Kept in this browser.";

  /** @param {Files["files"]} files @param {number} size @param {number} stride */
  constructor(files, size, stride) {
    this.#files = files;
    this.size = size;
    this.stride = stride;
  }

  get files() {
    return this.#files;
  }

  /** @param {FileSystemDirectoryHandle} folder @param {number} size @param {number} stride */
  static async open(folder, size, stride) {
    const names = /** @type {const} */ (["vectors", "rows", "log-0", "log-1"]);
    const opened = await Promise.all(names.map(async (name) => [name, new Opened(await folder.getFileHandle(name, { create: true }))]));
    const files = new Files(Object.fromEntries(opened), size, stride);
    // Reading through a handle is many times quicker. Where a browser lets only one have it, that is whoever writes.
    if ("mode" in /** @type {any} */ (globalThis).FileSystemSyncAccessHandle.prototype) await files.hold();
    return files;
  }

  /** Before writing: opens the files where they aren't. The caller has the index's lock. */
  async hold() {
    for (const file of Object.values(this.#files)) this.#shared = await file.hold();
  }

  /** Lets others in. */
  leave() {
    if (this.#shared) return;
    for (const file of Object.values(this.#files)) file.leave();
  }

  /** Closes the files. */
  end() {
    for (const file of Object.values(this.#files)) file.leave();
  }

  get #log() {
    return this.generation % 2 === 0 ? this.#files["log-0"] : this.#files["log-1"];
  }

  /**
   * What the log has beyond what was read before.
   * @param {(bytes: Uint8Array) => number | undefined} generationOf of a log, by its first line
   * @returns {Promise<{begun: boolean, bytes: Uint8Array}>} begun: it is another log than before, and this is all of it
   */
  async readLog(generationOf) {
    const logs = [this.#files["log-0"], this.#files["log-1"]];
    const heads = await Promise.all(logs.map(async (file) => generationOf(await part(file, 0, HEAD))));
    const sizes = await Promise.all(logs.map((file) => file.size()));
    // A log whose first line is damaged counts where there is no other.
    const generation = Math.max(...heads.map((head) => head ?? 0)) || (sizes.some(Boolean) ? (/** @type {any} */ (sizes)[1] > 0 ? 1 : 2) : 0);
    const begun = generation !== this.generation || this.#end === 0;
    if (begun) [this.generation, this.#end] = [generation, HEAD];
    const size = await this.#log.size();
    const bytes = size > this.#end ? await part(this.#log, this.#end, size - this.#end) : new Uint8Array();
    // A line that is being written, or was torn, is no line yet.
    const whole = bytes.lastIndexOf(10) + 1;
    this.#end += whole;
    return { begun, bytes: bytes.subarray(0, whole) };
  }

  /** Begins another log, and then lets it count. @param {string[]} lines @param {(generation: number) => string} head its first line, of `HEAD` bytes */
  async rewriteLog(lines, head) {
    const next = this.generation + 1;
    const file = next % 2 === 0 ? this.#files["log-0"] : this.#files["log-1"];
    const bytes = encoder.encode(lines.join(""));
    file.truncate(0);
    if (bytes.length > 0) file.write(bytes, HEAD);
    file.flush();
    file.write(encoder.encode(head(next)), 0);
    file.flush();
    this.#log.truncate(0);
    [this.generation, this.#end] = [next, HEAD + bytes.length];
  }

  /** Before the log of nothing counts. */
  truncate() {
    this.#files.vectors.truncate(0);
    this.#files.rows.truncate(0);
  }

  /** How many rows the file has. */
  async count() {
    return Math.floor((await this.#files.rows.size()) / this.stride);
  }

  /** Reads rows of 8 bits into the module's memory. @param {{row: number, into: () => Uint8Array}[]} parts `row`: the first of each */
  async readRows(parts) {
    const read = await this.#files.rows.reader();
    for (const { row, into } of parts) into().fill(0, await read(into, row * this.stride));
  }

  /** @param {number[] | Uint32Array} rows @returns {Promise<Float32Array>} */
  async read(rows) {
    const all = this.#overlay ? await this.#overlay.read(rows) : new Float32Array(rows.length * this.size);
    const bytes = 4 * this.size;
    const read = await this.#files.vectors.reader();
    /** @type {(number | Promise<number>)[]} */
    const reads = [];
    for (let i = 0; i < rows.length;) {
      const first = /** @type {number} */ (rows[i]);
      let count = 1;
      // Neighbours in one go.
      while (!this.#overlay && i + count < rows.length && rows[i + count] === first + count) count += 1;
      if (!this.#overlay?.vectors.has(first)) {
        const into = new Uint8Array(all.buffer, i * bytes, count * bytes);
        reads.push(read(() => into, first * bytes));
      }
      i += count;
    }
    await Promise.all(reads);
    return all;
  }

  /**
   * Rows, then the lines that tell of them.
   * @param {{row: number, vector: Float32Array}[]} records @param {(row: number) => Uint8Array} codes @param {string[]} lines @param {number[]} freed
   */
  async write(records, codes, lines, freed) {
    if (!this.#overlay) {
      try {
        for (const { row, vector } of records) {
          this.#files.vectors.write(new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength), row * 4 * this.size);
          this.#files.rows.write(codes(row), row * this.stride);
        }
        if (records.length > 0) {
          this.#files.vectors.flush();
          this.#files.rows.flush();
        }
        this.#append(lines);
        this.#wipe(freed);
        return;
      } catch (error) {
        this.#fail(error);
      }
    }
    await this.#overlay?.write(records, codes, lines, freed);
  }

  /** @param {string[]} lines */
  #append(lines) {
    if (lines.length === 0) return;
    // What a torn line left behind is overwritten: nobody read it.
    const bytes = encoder.encode(lines.join(""));
    this.#log.truncate(this.#end);
    this.#log.write(bytes, this.#end);
    this.#log.flush();
    this.#end += bytes.length;
  }

  /** Nothing is left of what was removed. @param {number[]} rows */
  #wipe(rows) {
    for (const row of rows) {
      this.#files.vectors.write(new Uint8Array(4 * this.size), row * 4 * this.size);
      this.#files.rows.write(new Uint8Array(this.stride), row * this.stride);
    }
  }

  /** @param {any} error */
  #fail(error) {
    const full = error.name === "QuotaExceededError";
    this.kept = false;
    this.reason = full
      ? "The browser's storage for this page is full: what was indexed since then isn't kept. Free space on the disk, or clear models and other indexes, then index again."
      : `The page's storage failed (${error.message}): what was indexed since then isn't kept.`;
    this.#overlay = new Memory(this.size, this.reason);
  }
}

/** Bytes of a log's first line. */
export const HEAD = 64;
const encoder = new TextEncoder();

/** @param {Opened} file @param {number} at @param {number} length */
async function part(file, at, length) {
  const bytes = new Uint8Array(length);
  return bytes.subarray(0, await (await file.reader())(() => bytes, at));
}

/** @param {string} id @param {boolean} create @returns {Promise<FileSystemDirectoryHandle>} */
export async function folderOf(id, create) {
  return (await root(create)).getDirectoryHandle(id, { create });
}

/** @param {boolean} create */
async function root(create) {
  return (await navigator.storage.getDirectory()).getDirectoryHandle(INDEXES, { create });
}

/** The name of an index's folder. @param {About} about */
export function idOf({ name, model, dtype, fingerprint, pipeline }) {
  return folderName([name, model, dtype, fingerprint, pipeline]);
}

/** @param {FileSystemDirectoryHandle} folder @param {About} about */
export async function writeAbout(folder, about) {
  const access = await openAccess(await folder.getFileHandle("about.json", { create: true }));
  try {
    access.truncate(0);
    access.write(encoder.encode(JSON.stringify(about)), { at: 0 });
  } finally {
    access.close();
  }
}

/** All that is kept. @returns {Promise<(KeptIndex & {id: string})[]>} */
export async function listIndexes() {
  if (!globalThis.navigator?.storage?.getDirectory) return [];
  const found = [];
  let all;
  try {
    all = await root(false);
  } catch {
    // There is none, or this page gets no storage.
    return [];
  }
  for await (const [id, folder] of /** @type {any} */ (all).entries()) {
    let bytes = 0;
    let about = { name: "(unknown)", model: "", dtype: "", fingerprint: "", pipeline: 0 };
    for await (const [name, handle] of folder.entries()) {
      const file = await handle.getFile();
      bytes += file.size;
      if (name === "about.json") about = await file.text().then(JSON.parse).catch(() => about);
    }
    found.push({ ...about, bytes, id });
  }
  return found.sort((a, b) => a.name.localeCompare(b.name));
}

/** @param {string} id */
export async function removeIndex(id) {
  await (await root(false)).removeEntry(id, { recursive: true });
}
