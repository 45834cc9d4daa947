// What is kept of models from one visit to the next: their small files, and their weights as the engine holds them, each in an
// entry of its own that is there whole or not at all. In the origin private file system, or in Cache Storage where that fails.
// The manifest comes last: with it, a load needs no network.
import { SiglipError, aborted } from "../error.js";
import { ROOT, TEMPORARY, disks } from "./disks.js";

/** Raised whenever the engine's entries change their form: what an older version left is then no longer found. */
const FORMAT = 2;

/** @typedef {import("../ports.d.ts").Version} Version */
/** @typedef {import("../ports.d.ts").WeightsVersion} WeightsVersion */
/** @typedef {import("./disks.js").Folder} Folder */
/**
 * What a folder holds, and of which model.
 * @typedef {object} About
 * @property {number} format
 * @property {string} name as the caller called the model
 * @property {string} source address of its folder
 * @property {string} dtype as it was asked for; with the backend, where the library was to choose
 * @property {string} [commit] of the Hub
 * @property {string} [held] the dtype that the tensors are held in
 * @property {Record<string, Version | null>} files small ones, kept; null: there is none of this name
 * @property {Record<string, WeightsVersion>} weights of which the tensors are
 */

const encoder = new TextEncoder();
const decoder = new TextDecoder();
/** Small files that whole models hold in a form of the engine's own, under keys that begin so: one copy of 34 MB is enough. */
const ENGINE_FORMS = { "tokenizer.json": "tokenizer/" };
const [ABOUT, MANIFEST] = ["about.json", "manifest.json"];
/** Names that any file system takes. @param {string} kind @param {string} key */
const entry = (kind, key) => `${kind}-${encodeURIComponent(key).replace(/[*!'()~%]/g, (c) => `$${c.charCodeAt(0).toString(16)}`)}`;

/**
 * Opens what is kept of a model, and holds it: another tab that loads the same one waits until this one is done.
 * @param {{name: string, source: string, dtype: string}} model
 * @param {AbortSignal} signal
 * @param {(waiting: string) => void} wait told when it has to wait
 * @returns {Promise<Stored>} which keeps nothing, and says why, where nothing can be kept
 */
export async function openStore({ name, source, dtype }, signal, wait) {
  /** @type {About} */
  const about = { format: FORMAT, name, source, dtype, files: {}, weights: {} };
  const disk = (await disks()).find(({ writable }) => writable);
  if (!disk) return new Stored(undefined, about, `${self.isSecureContext ? "This browser gives the page no storage" : "Storage needs a secure page (https: or localhost)"}, so the model isn't kept`);
  const id = await idOf(about);
  const release = await lock(id, signal, () => wait(`Another tab is loading ${name}. This one goes on when that is done.`));
  try {
    return await Stored.open(await disk.folder(id), about, release);
  } catch (error) {
    release();
    return new Stored(undefined, about, `The page's storage failed (${error.message}), so the model isn't kept`);
  }
}

/** @param {About} about */
async function idOf({ format, source, dtype }) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", encoder.encode(JSON.stringify([format, source, dtype]))));
  return [...hash.subarray(0, 16)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {string} id @param {AbortSignal | undefined} signal @param {() => void} wait
 * @returns {Promise<() => void>} releases it
 */
function lock(id, signal, wait) {
  const { locks } = navigator;
  if (!locks) return Promise.resolve(() => {});
  return new Promise((resolve, reject) => {
    const hold = () => /** @type {Promise<void>} */ (new Promise((release) => resolve(() => release())));
    const name = `${ROOT} ${id}`;
    locks.request(name, { ifAvailable: true }, (got) => {
      if (got) return hold();
      wait();
      locks.request(name, { signal }, hold).catch((error) => reject(signal?.aborted ? aborted() : error));
    }).catch(reject);
  });
}

/** The entries of one model in one dtype. Nothing that goes wrong here fails a load: it goes on without. */
export class Stored {
  /** @type {Folder | undefined} */
  #folder;
  #release;
  /** @type {string | undefined} */
  #manifest;
  /** Whether anything was answered from here: then nothing of another version may come beside it. */
  used = false;
  /** Set when it was found to be of another version than the server has now. */
  stale = false;

  /** @param {Folder | undefined} folder @param {About} about @param {string | undefined} problem why nothing (more) is kept @param {() => void} release */
  constructor(folder, about, problem = undefined, release = () => {}) {
    this.#folder = folder;
    this.about = about;
    this.problem = problem;
    this.#release = release;
  }

  /** @param {Folder} folder @param {About} about @param {() => void} release */
  static async open(folder, about, release) {
    const stored = new Stored(folder, about, undefined, release);
    for (const name of await folder.names()) {
      if (name.startsWith(TEMPORARY)) await folder.remove(name); // of a tab that was closed midway
    }
    const before = await folder.read(ABOUT);
    if (before) {
      try {
        const { files, weights, commit, held } = JSON.parse(decoder.decode(before));
        Object.assign(about, { files, weights, commit, held });
        const manifest = await folder.read(MANIFEST);
        stored.#manifest = manifest && decoder.decode(manifest);
        return stored;
      } catch {
        // Damaged: begun anew.
      }
    }
    await stored.clear();
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
    const bytes = await this.#read(entry("t", key));
    if (!bytes) return undefined;
    this.used = true;
    return bytes;
  }

  /** @param {string} key @param {Uint8Array} bytes */
  async put(key, bytes) {
    await this.#try((folder) => folder.write(entry("t", key), bytes));
  }

  /** @param {string} manifest */
  async commit(manifest) {
    this.about.held = JSON.parse(manifest).dtype;
    await this.save(true);
    await this.#try((folder) => folder.write(MANIFEST, encoder.encode(manifest)));
    if (!this.#folder) return;
    this.#manifest = manifest;
    await this.#try(async (folder) => {
      const names = await folder.names();
      for (const [file, form] of Object.entries(ENGINE_FORMS)) {
        if (names.some((name) => name.startsWith(entry("t", form)))) await folder.remove(entry("f", file));
      }
    });
  }

  // Small files, and what is known of them all

  /** @param {string} file @returns {Promise<Uint8Array | null | undefined>} null: there is no such file; undefined: not kept */
  async file(file) {
    const version = this.about.files[file];
    if (version === undefined) return undefined;
    const bytes = version && (await this.#read(entry("f", file)));
    if (bytes !== undefined) this.used = true;
    return bytes;
  }

  /** @param {string} file @param {Uint8Array | undefined} bytes undefined: there is no such file @param {Version} [version] */
  async keepFile(file, bytes, version = {}) {
    if (bytes) await this.#try((folder) => folder.write(entry("f", file), bytes));
    this.about.files[file] = bytes ? version : null;
    await this.save();
  }

  /** That a file is missing is remembered of whole models only: another load may have failed for that very reason. */
  async save(whole = this.complete) {
    const files = Object.fromEntries(Object.entries(this.about.files).filter(([, version]) => whole || version));
    await this.#try((folder) => folder.write(ABOUT, encoder.encode(JSON.stringify({ ...this.about, files }))));
  }

  /** Forgets everything: the model has changed. */
  async clear() {
    this.#manifest = undefined;
    this.about = { ...this.about, commit: undefined, held: undefined, files: {}, weights: {} };
    await this.#try(async (folder) => {
      await folder.remove(MANIFEST); // first: without it the rest counts as unfinished
      await folder.remove(ABOUT);
      for (const name of await folder.names()) await folder.remove(name);
    });
  }

  /** Keeps nothing more. @param {string} problem */
  async refuse(problem) {
    await this.clear();
    this.#folder = undefined;
    this.problem ??= problem;
  }

  /** Lets other tabs go on. */
  release() {
    this.#release();
  }

  /** What can't be read isn't there. @param {string} name @returns {Promise<Uint8Array | undefined>} */
  async #read(name) {
    return this.#folder?.read(name).catch(() => undefined);
  }

  /** @template T @param {(folder: Folder) => Promise<T>} work @returns {Promise<T | undefined>} */
  async #try(work) {
    if (!this.#folder) return undefined;
    try {
      return await work(this.#folder);
    } catch (error) {
      this.#folder = undefined;
      const full = error.name === "QuotaExceededError";
      this.problem ??= full
        ? `The browser's storage for this page is full, so the model is kept only in part${await room()}: clear other models or free space on the disk`
        : `The page's storage failed (${error.message}), so the model isn't kept`;
      return undefined;
    }
  }
}

/** What the browser says of its room, in brackets. */
async function room() {
  /** @type {StorageEstimate} */
  const { usage, quota } = (await navigator.storage?.estimate?.().catch(() => {})) ?? {};
  if (usage === undefined || quota === undefined) return "";
  return ` (${(usage / 1e6).toFixed(0)} of ${(quota / 1e6).toFixed(0)} MB are used)`;
}

// ---------------------------------------------------------------------------------------------------------
// All models

/** @returns {Promise<import("../siglip-web.d.ts").CachedModel[]>} */
export async function listCaches() {
  const found = [];
  for (const disk of await disks()) {
    for (const id of await disk.list()) {
      const folder = await disk.folder(id);
      const { name = "", source = "", dtype = "", held = dtype } = await aboutOf(folder);
      const complete = (await folder.names()).includes(MANIFEST);
      found.push({ name, source, dtype: held, bytes: await folder.bytes(), complete });
    }
  }
  return found.sort((a, b) => a.name.localeCompare(b.name) || a.dtype.localeCompare(b.dtype));
}

/** @param {string} [name] of a model, or the address of its folder; all of them without @returns {Promise<number>} bytes given back */
export async function clearCaches(name) {
  let freed = 0;
  for (const disk of await disks()) {
    for (const id of await disk.list()) {
      const folder = await disk.folder(id);
      const about = await aboutOf(folder);
      if (name !== undefined && name !== about.name && name !== about.source) continue;
      const release = await lock(id, undefined, () => {});
      try {
        freed += await folder.bytes();
        await disk.remove(id);
      } catch (error) {
        throw new SiglipError("network", `What is kept of ${about.name ?? "a model"} could not be removed (${error.message}). Close other tabs of this site and try again, or clear the site's data in the browser's settings.`, { cause: error });
      } finally {
        release();
      }
    }
  }
  return freed;
}

/** @param {Folder} folder @returns {Promise<Partial<About>>} */
async function aboutOf(folder) {
  try {
    return JSON.parse(decoder.decode(await folder.read(ABOUT)));
  } catch {
    return {};
  }
}
