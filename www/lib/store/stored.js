// What is kept of models from one visit to the next: their small files, and their weights as the engine holds them, which are there whole or
// not at all, each. In the origin private file system, or in Cache Storage where that fails. The manifest comes last: with it, a load needs
// no network.
import { SiglipError, aborted } from "../error.js";
import { folderName, hash, hex } from "../hash.js";
import { ROOT, TEMPORARY, disks, limited } from "./disks.js";
import { Packs } from "./packs.js";

/** Raised whenever the engine's entries change their form: what an older version left is then no longer found. */
const FORMAT = 5;

/** @typedef {import("../ports.d.ts").Version} Version */
/** @typedef {import("../ports.d.ts").WeightsVersion} WeightsVersion */
/** @typedef {import("./disks.js").Folder} Folder */
/**
 * What a folder holds, and of which model.
 * @typedef {object} About
 * @property {number} format
 * @property {string} name as the caller called the model
 * @property {string} source address of its folder, or of one of its files, without a query: that may hold a secret
 * @property {string} dtype as it was asked for; with the backend, where the library was to choose
 * @property {string} [generation] another one whenever the folder is begun anew
 * @property {string} [commit] of the Hub
 * @property {string} [held] the dtype that the tensors are held in
 * @property {Record<string, Version | null>} files small ones, kept; null: there is none of this name
 * @property {Record<string, WeightsVersion>} weights of which the tensors are
 */

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const [ABOUT, MANIFEST] = ["about.json", "manifest.json"];
/** Begins each entry of this file's own: the SHA-256 of the rest. The engine seals its entries itself. Bytes. */
const SEAL = 32;
/** How long what is to be removed may be in use. Milliseconds. */
export const BUSY = 5000;
/** Begins the names of entries that the engine put apart from the others: in the place of one that was damaged, or after the load. */
const APART = "t";
/** Names that any file system takes. @param {string} kind @param {string} key */
const entry = (kind, key) => `${kind}-${encodeURIComponent(key).replace(/[*!'()~%]/g, (c) => `$${c.charCodeAt(0).toString(16)}`)}`;

/**
 * Opens what is kept of a model, and holds it: another tab that loads the same one waits until this one is done.
 * @param {{name: string, source: string, dtype: string, parts?: [string, string | Blob][]}} model parts: its files, where each has an address of its own, or is here
 * @param {AbortSignal} signal
 * @param {(waiting: string) => void} wait told when it has to wait
 * @returns {Promise<Stored>} which keeps nothing, and says why, where nothing can be kept
 */
export async function openStore({ name, source, dtype, parts }, signal, wait) {
  /** @type {About} */
  const about = { format: FORMAT, name, source: withoutQuery(source), dtype, files: {}, weights: {} };
  const disk = (await disks()).find(({ writable }) => writable);
  if (!disk) return new Stored(undefined, about, `${globalThis.isSecureContext ? "This browser gives the page no storage" : "Storage needs a secure page (https: or localhost)"}, so the model isn't kept`);
  const id = await folderName([about.format, parts ? await told(parts) : about.source, about.dtype]);
  const release = await lock(id, signal, () => wait(`Another tab is loading ${name}. This one goes on when that is done.`));
  try {
    const stored = await Stored.open(disk.folder(id), about, { id, release });
    // Room for what is about to come.
    if (stored.empty) await removeOlder();
    return stored;
  } catch (error) {
    release();
    return new Stored(undefined, about, `The page's storage failed (${error.message}), so the model isn't kept`);
  }
}

/** @param {string} address */
function withoutQuery(address) {
  return address.replace(/[?#].*$/s, "");
}

/** What tells such a model from others, which may share any of its files. @param {[string, string | Blob][]} parts */
async function told(parts) {
  const all = parts.map(async ([file, part]) => [file, typeof part === "string" ? withoutQuery(part) : hex(await hash(new Uint8Array(await part.arrayBuffer())))]);
  return (await Promise.all(all)).sort(([a = ""], [b = ""]) => (a < b ? -1 : 1));
}

/** @param {Uint8Array} bytes @returns {Promise<Uint8Array>} */
async function sealed(bytes) {
  const entry = new Uint8Array(SEAL + bytes.length);
  entry.set(await hash(bytes));
  entry.set(bytes, SEAL);
  return entry;
}

/** What was sealed; undefined if a bit of it is another one. @param {Uint8Array | undefined} entry */
async function unsealed(entry) {
  if (!entry) return undefined;
  const bytes = entry.subarray(SEAL);
  const expected = await hash(bytes);
  return expected.every((byte, i) => byte === entry[i]) ? bytes : undefined;
}

/**
 * @param {string} id @param {AbortSignal | undefined} signal @param {() => void} wait
 * @returns {Promise<() => void>} releases it
 */
export function lock(id, signal, wait) {
  const { locks } = navigator;
  if (!locks) return Promise.resolve(() => {});
  return new Promise((resolve, reject) => {
    const hold = () => /** @type {Promise<void>} */ (new Promise((release) => resolve(() => release())));
    const name = lockName(id);
    locks.request(name, { ifAvailable: true }, (got) => {
      if (got) return hold();
      wait();
      locks.request(name, { signal }, hold).catch((error) => reject(signal?.aborted ? aborted() : error));
    }).catch(reject);
  });
}

/** @param {string} id */
function lockName(id) {
  return `${ROOT} ${id}`;
}

/** The entries of one model in one dtype. Nothing that goes wrong here fails a load: it goes on without. */
export class Stored {
  /** @type {Folder | undefined} */
  #folder;
  #lock;
  /** Whether other tabs wait for this one. */
  #held = true;
  /** Whether the folder says whose it is. */
  #named = false;
  /** @type {string | undefined} */
  #manifest;
  /** Entries in the order in which they were put. @type {Packs | undefined} */
  #packs;
  /** Small files that are read ahead. @type {Map<string, Promise<Uint8Array | undefined>>} */
  #files = new Map();
  /** Names of entries apart. @type {Set<string>} */
  #apart = new Set();
  /** Whether anything was answered from here: then nothing of another version may come beside it. */
  used = false;
  /** Set when it was found to be of another version than the server has now. */
  stale = false;

  /**
   * @param {Folder | undefined} folder @param {About} about @param {string | undefined} problem why nothing (more) is kept
   * @param {{id: string, release: () => void}} lock
   */
  constructor(folder, about, problem = undefined, lock = { id: "", release: () => {} }) {
    this.#folder = folder;
    this.about = about;
    this.problem = problem;
    this.#lock = lock;
    this.#packs = folder && new Packs(folder, [], limited);
  }

  /** @param {Folder} folder @param {About} about @param {{id: string, release: () => void}} lock */
  static async open(folder, about, lock) {
    const stored = new Stored(folder, about, undefined, lock);
    const names = await limited(folder.names());
    for (const name of names) {
      if (name.startsWith(TEMPORARY)) await limited(folder.remove(name)); // of a tab that was closed midway
    }
    const before = await aboutOf(folder);
    if (before) {
      const { generation, files, weights, commit, held } = before;
      Object.assign(about, { generation, files, weights, commit, held });
      stored.#packs = new Packs(folder, names, limited);
      stored.#packs.begin();
      for (const [file, version] of Object.entries(files)) if (version) stored.#files.set(file, stored.#read(entry("f", file)).then(unsealed));
      stored.#apart = new Set(names.filter((name) => name.startsWith(entry(APART, ""))));
      const manifest = await unsealed(await limited(folder.read(MANIFEST)));
      stored.#manifest = manifest && decoder.decode(manifest);
      stored.#named = true;
    } else {
      // None, or damaged: begun anew.
      await stored.clear();
    }
    return stored;
  }

  /** Whether a load needs nothing else. */
  get complete() {
    return this.#manifest !== undefined;
  }

  /** Whether anything is here. */
  get empty() {
    return Object.keys(this.about.files).length + Object.keys(this.about.weights).length === 0;
  }

  /** How it stands, as a sentence. */
  get reason() {
    if (this.problem) return `${this.problem}.`;
    return this.complete ? "Kept in this browser: the next load needs no download." : "The model isn't kept.";
  }

  // What the engine calls Store

  async manifest() {
    return this.#manifest;
  }

  /** @param {string} key @returns {Promise<Uint8Array | undefined>} */
  async get(key) {
    const name = entry(APART, key);
    const bytes = await this.#ours("shared", async () => (this.#held && !this.#apart.has(name) ? this.#packs?.get(key) : this.#read(name)));
    if (!bytes) return undefined;
    this.used = true;
    return bytes;
  }

  /** @param {string} key @param {Uint8Array} bytes none: what was put is of no use */
  async put(key, bytes) {
    await this.#ours("exclusive", async () => {
      if (!this.#named) await this.save();
      await this.#try((folder, packs) => (bytes.length > 0 ? this.#add(folder, packs, key, bytes) : this.#remove(folder, packs, key)), bytes.length);
    });
  }

  /** @param {Folder} folder @param {Packs} packs @param {string} key @param {Uint8Array} bytes */
  async #add(folder, packs, key, bytes) {
    const name = entry(APART, key);
    if (this.#held && !this.#apart.has(name) && !packs.has(key)) return packs.put(key, bytes);
    await folder.write(name, bytes);
    this.#apart.add(name);
  }

  /** @param {Folder} folder @param {Packs} packs @param {string} key */
  async #remove(folder, packs, key) {
    const name = entry(APART, key);
    if (this.#apart.delete(name)) await folder.remove(name);
    await packs.remove(key);
  }

  /**
   * Once other tabs were let go on, the folder may be theirs: of another version of the model.
   * @template T @param {LockMode} mode @param {() => Promise<T>} work @returns {Promise<T | undefined>} undefined also where another tab is at it
   */
  async #ours(mode, work) {
    if (this.#held) return work();
    const folder = this.#folder;
    if (!folder) return undefined;
    const same = async () => {
      const about = await aboutOf(folder);
      if (about?.generation === this.about.generation) return work();
      this.#folder = undefined;
      return undefined;
    };
    if (!navigator.locks) return same();
    return navigator.locks.request(lockName(this.#lock.id), { mode, ifAvailable: true }, (got) => (got ? same() : undefined));
  }

  /** @param {string} manifest none: what is kept turned out to be of another version than the server has now */
  async commit(manifest) {
    if (!manifest) {
      await this.#ours("exclusive", () => this.#try((folder) => folder.remove(MANIFEST)));
      return;
    }
    this.about.held = JSON.parse(manifest).dtype;
    this.#packs?.close();
    await this.save(true);
    await this.#write(MANIFEST, encoder.encode(manifest));
    if (this.#folder) this.#manifest = manifest;
  }

  /** Keeps nothing more; what is there stays, for a later load to go on from. @param {string} [problem] */
  giveUp(problem) {
    this.#packs?.end();
    this.#folder = undefined;
    this.problem ??= problem;
  }

  // Small files, and what is known of them all

  /** @param {string} file @returns {Promise<Uint8Array | null | undefined>} null: there is no such file; undefined: not kept */
  async file(file) {
    const version = this.about.files[file];
    if (version === undefined) return undefined;
    const ahead = this.#files.get(file);
    this.#files.delete(file);
    const bytes = version && (await (ahead ?? this.#read(entry("f", file)).then(unsealed)));
    if (bytes !== undefined) this.used = true;
    return bytes;
  }

  /** @param {string} file @param {Uint8Array | undefined} bytes undefined: there is no such file @param {Version} [version] */
  async keepFile(file, bytes, version = {}) {
    this.#files.delete(file);
    if (bytes) await this.#write(entry("f", file), bytes);
    this.about.files[file] = bytes ? version : null;
    if (bytes || this.#named) await this.save();
  }

  /** @param {string} file which proved to be of no use */
  async dropFile(file) {
    delete this.about.files[file];
    this.#files.delete(file);
    await this.save();
    await this.#try((folder) => folder.remove(entry("f", file)));
  }

  /** That a file is missing is remembered of whole models only: another load may have failed for that very reason. */
  async save(whole = this.complete) {
    const files = Object.fromEntries(Object.entries(this.about.files).filter(([, version]) => whole || version));
    this.#named = true;
    await this.#write(ABOUT, encoder.encode(JSON.stringify({ ...this.about, files })));
  }

  /** Forgets everything: the model has changed. */
  async clear() {
    this.#manifest = undefined;
    this.#named = false;
    this.about = { ...this.about, generation: crypto.randomUUID(), commit: undefined, held: undefined, files: {}, weights: {} };
    this.#apart.clear();
    this.#files.clear();
    await this.#try(async (folder, packs) => {
      packs.end(); // an open file can't be removed
      this.#packs = new Packs(folder, [], limited);
      await folder.remove(MANIFEST); // first: without it the rest counts as unfinished
      await folder.remove(ABOUT);
      await folder.destroy();
    });
  }

  /** Keeps nothing more. @param {string} problem */
  async refuse(problem) {
    await this.clear();
    this.#folder = undefined;
    this.problem ??= problem;
  }

  /** Lets other tabs go on. @param {boolean} [more] whether what comes after the load, which tells what people typed, is kept too */
  release(more = true) {
    this.#packs?.close();
    this.#files.clear();
    if (!more) this.#folder = undefined;
    this.#packs = this.#folder && new Packs(this.#folder, [], limited); // what was read ahead is no longer needed
    this.#held = false;
    this.#lock.release();
  }

  /** What can't be read isn't there. @param {string} name @returns {Promise<Uint8Array | undefined>} */
  async #read(name) {
    const folder = this.#folder;
    return folder && limited(folder.read(name)).catch(() => undefined);
  }

  /** @param {string} name @param {Uint8Array} bytes */
  async #write(name, bytes) {
    const entry = await sealed(bytes);
    await this.#try((folder) => folder.write(name, entry), entry.length);
  }

  /** @param {(folder: Folder, packs: Packs) => Promise<void>} work @param {number} [bytes] */
  async #try(work, bytes) {
    if (!this.#folder || !this.#packs) return;
    try {
      await limited(work(this.#folder, this.#packs), bytes);
    } catch (error) {
      this.giveUp();
      const full = error.name === "QuotaExceededError";
      this.problem ??= full
        ? `The browser's storage for this page is full, so the model is kept only in part${await room()}: clear other models or free space on the disk`
        : `The page's storage failed (${error.message}), so the model isn't kept`;
    }
  }
}

/** What the browser says of its room, in brackets. */
async function room() {
  /** @type {StorageEstimate} */
  const { usage, quota } = (await limited(navigator.storage.estimate()).catch(() => {})) ?? {};
  if (usage === undefined || quota === undefined) return "";
  return ` (${(usage / 1e6).toFixed(0)} of ${(quota / 1e6).toFixed(0)} MB are used)`;
}

// ---------------------------------------------------------------------------------------------------------
// All models

/** @returns {Promise<import("../siglip-web.d.ts").CachedModel[]>} */
export async function listCaches() {
  const found = [];
  for (const disk of await disks()) {
    for (const id of await limited(disk.list())) {
      const folder = disk.folder(id);
      const names = await limited(folder.names());
      if (names.length === 0) continue;
      const { name, source, dtype, held = dtype } = (await aboutOf(folder)) ?? UNKNOWN;
      found.push({ name, source, dtype: held, bytes: await limited(folder.bytes()), complete: names.includes(MANIFEST) });
    }
  }
  return found.sort((a, b) => a.name.localeCompare(b.name) || a.dtype.localeCompare(b.dtype));
}

/** Entries that don't say whose they are: damaged, or of another version of the library. */
const UNKNOWN = /** @type {About} */ ({ format: 0, name: "(unknown)", source: "", dtype: "", files: {}, weights: {} });

/**
 * @param {string} [name] of a model, or the address that it came from; all of them without
 * @param {string} [base] the address of the folder that `load` would take for this name
 * @returns {Promise<number>} bytes given back
 */
export async function clearCaches(name, base = "") {
  const sources = name === undefined ? [] : [name, base].filter(Boolean).map(withoutQuery);
  let freed = 0;
  for (const disk of await disks()) {
    for (const id of await limited(disk.list())) {
      const folder = disk.folder(id);
      const about = (await aboutOf(folder)) ?? UNKNOWN;
      if (name !== undefined && name !== about.name && !sources.includes(about.source)) continue;
      const release = await lock(id, AbortSignal.timeout(BUSY), () => {}).catch(() => {
        throw new SiglipError("network", `What is kept of ${about.name} could not be removed: the model is being loaded, here or in another tab. Stop that, or wait until it is done, and try again.`);
      });
      try {
        freed += await limited(folder.bytes());
        await limited(folder.destroy());
      } catch (error) {
        throw new SiglipError("network", `What is kept of ${about.name} could not be removed (${error.message}). Close other tabs of this site and try again, or clear the site's data in the browser's settings.`, { cause: error });
      } finally {
        release();
      }
    }
  }
  return freed;
}

/** Removes what older versions of the library kept: none reads it any more. What another tab uses, or what can't be removed, stays until the next time. */
async function removeOlder() {
  for (const disk of await disks()) {
    for (const id of await limited(disk.list())) {
      const folder = disk.folder(id);
      const { format = FORMAT } = (await aboutOf(folder)) ?? {};
      if (format >= FORMAT) continue;
      const remove = () => limited(folder.destroy()).catch(() => {});
      await (navigator.locks ? navigator.locks.request(lockName(id), { ifAvailable: true }, (got) => got && remove()) : remove());
    }
  }
}

/** @param {Folder} folder @returns {Promise<About | undefined>} */
async function aboutOf(folder) {
  try {
    const bytes = await unsealed(await limited(folder.read(ABOUT)));
    return bytes && JSON.parse(decoder.decode(bytes));
  } catch {
    return undefined;
  }
}
