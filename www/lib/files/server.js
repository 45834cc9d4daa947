// The checkpoint's files, wherever they are: what the engine calls Source.
import { Download, sameVersion, versionOf } from "./download.js";
import { SiglipError, siglipError } from "../error.js";
import { Ranges } from "./ranges.js";

/** @typedef {import("./download.js").Context} Context */
/** @typedef {import("./download.js").Version} Version */
/** @typedef {import("../store/stored.js").Stored} Stored */
/** @typedef {{stage: string, file?: string, loaded: number, total: number, fromCache?: boolean, waiting?: string}} Progress */
/** @typedef {{kind: "url", base: string, hub?: Hub} | {kind: "files", files: Map<string, File>} | {kind: "directory", handle: FileSystemDirectoryHandle}} Place */
/** The Hub's own, or a mirror's, origin; the model there. @typedef {{origin: string, model: string, revision: string}} Hub */
/** Told by the engine how much of a file it has, and whether the last of it was kept. @typedef {(file: string, loaded: number, total: number, fromCache: boolean) => void} Loaded */
/** @typedef {{size?: number, ranges: boolean, sha256?: string, plan: (reads: Float64Array) => void, readAt: (offset: number, length: number) => Promise<Uint8Array>, close: () => void}} Reader */

/** How long to wait for a server that is only asked whether anything has changed. Milliseconds. */
const LOOK = 5000;

/**
 * @param {Place} place
 * @param {Context} context
 * @param {Stored | undefined} stored
 * @param {(progress: Progress) => void} report told of what is downloaded
 * @returns {{readAll: (file: string) => Promise<Uint8Array | undefined>, open: (file: string) => Promise<Reader | undefined>, loaded: Loaded}}
 */
export function openSource(place, context, stored, report) {
  const source = place.kind === "url" ? new Folder(place, context, stored, report) : new Files(place, context.name, report);
  /** @template T @param {(file: string) => Promise<T>} work @returns {(file: string) => Promise<T>} */
  const inside = (work) => async (file) => {
    if (!file.split("/").every((part) => /^[\w.-]+$/.test(part) && !/^\.+$/.test(part))) {
      throw new SiglipError("bad-model", `${context.name} names a file ${JSON.stringify(file)}, which is not a name inside its folder.`);
    }
    return work(file);
  };
  return { readAll: inside((file) => source.readAll(file)), open: inside((file) => source.open(file)), loaded: (...how) => source.loaded(...how) };
}

// ---------------------------------------------------------------------------------------------------------
// On disk

/** Files that the visitor chose; they are read by slices. */
class Files {
  #place;
  #name;
  #report;

  /** @param {Exclude<Place, {kind: "url"}>} place @param {string} name @param {(progress: Progress) => void} report */
  constructor(place, name, report) {
    this.#place = place;
    this.#name = name;
    this.#report = report;
  }

  /** @type {Loaded} */
  loaded(file, loaded, total) {
    this.#report({ stage: "download", file, loaded, total });
  }

  /** @param {string} file */
  #find(file) {
    return this.#place.kind === "files" ? this.#place.files.get(file) : fromDirectory(this.#place.handle, file);
  }

  /** @param {string} file */
  async readAll(file) {
    const found = await this.#find(file);
    return found && read(found, file, this.#name);
  }

  /** @param {string} file @returns {Promise<Reader | undefined>} */
  async open(file) {
    const found = await this.#find(file);
    const name = this.#name;
    return found && {
      size: found.size,
      ranges: true,
      plan() {},
      readAt: (offset, length) => read(found.slice(offset, offset + length), file, name),
      close() {},
    };
  }
}

/** @param {FileSystemDirectoryHandle} directory @param {string} file */
async function fromDirectory(directory, file) {
  const parts = file.split("/");
  try {
    for (const part of parts.slice(0, -1)) directory = await directory.getDirectoryHandle(part);
    return await (await directory.getFileHandle(parts[parts.length - 1])).getFile();
  } catch (error) {
    if (error.name === "NotFoundError" || error.name === "TypeMismatchError") return undefined;
    throw new SiglipError("network", `${file} in the folder ${directory.name} could not be read (${error.message}). Choose the folder again and allow reading.`, { cause: error });
  }
}

/** @param {Blob} blob @param {string} file @param {string} name */
async function read(blob, file, name) {
  try {
    return new Uint8Array(await blob.arrayBuffer());
  } catch (error) {
    if (error instanceof RangeError) throw siglipError(error);
    throw new SiglipError("network", `${file} of ${name} could not be read (${error.message}). It may have been moved or changed since it was chosen: choose it again.`, { cause: error });
  }
}

// ---------------------------------------------------------------------------------------------------------
// On a server

/** A folder of a server, or a model of the Hub; with what is kept of it. */
class Folder {
  #place;
  #context;
  #stored;
  #report;
  /** @type {Promise<void> | undefined} the look at whether what is kept still holds */
  #checked;
  /** Whether small files are fetched although they are kept. */
  #anew = false;
  /** @type {Promise<Map<string, {size?: number, sha256?: string}>> | undefined} what the Hub lists */
  #listing;
  /** What the engine has of the weights that are being read, and what arrived since. @type {Map<string, {loaded: number, total: number, ahead: number, told: number}>} */
  #weights = new Map();

  /** @param {Extract<Place, {kind: "url"}>} place @param {Context} context @param {Stored | undefined} stored @param {(progress: Progress) => void} report */
  constructor(place, context, stored, report) {
    this.#place = place;
    this.#context = context;
    this.#stored = stored;
    this.#report = report;
  }

  /** @param {string} file */
  async readAll(file) {
    await (this.#checked ??= this.#check());
    const kept = this.#anew ? undefined : await this.#stored?.file(file);
    if (kept === null) return undefined;
    if (kept) {
      this.#report({ stage: "download", file, loaded: kept.length, total: kept.length, fromCache: true });
      return kept;
    }
    const download = this.#download(file);
    const told = this.#teller(file);
    let loaded = 0;
    const bytes = await download.all((count) => told((loaded += count), download.size ?? 0));
    if (bytes) told(bytes.length, bytes.length);
    this.#pin(download);
    const listed = bytes && (await this.#listed(file));
    if (listed?.sha256) {
      const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", /** @type {any} */ (bytes)));
      const found = [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
      if (found !== listed.sha256) throw new SiglipError("bad-model", `${file} of ${this.#context.name} was damaged on the way: its SHA-256 is ${found}, the Hub lists ${listed.sha256}. Load again.`);
    }
    const { version } = download;
    if (!bytes || this.#place.hub || provable(version)) await this.#stored?.keepFile(file, bytes, version);
    return bytes;
  }

  /** @param {string} file @returns {Promise<Reader | undefined>} */
  async open(file) {
    await (this.#checked ??= this.#check());
    const download = this.#download(file);
    const known = this.#stored?.complete ? this.#stored.about.weights[file] : undefined;
    if (known?.ranges) {
      // Only a few rows will be asked for, if any.
      download.size = known.size;
      download.sha256 = known.sha256;
      return new Ranges(download);
    }
    const listed = await this.#listed(file);
    download.size = listed?.size;
    download.sha256 = listed?.sha256;
    const reader = await Ranges.open(download);
    if (!reader) return undefined;
    await this.#compare(file, { ...reader.version, sha256: reader.sha256, ranges: reader.ranges });
    const state = { loaded: 0, total: 0, ahead: 0, told: 0 };
    this.#weights.set(file, state);
    const tell = this.#teller(file);
    reader.onProgress = (ahead) => {
      state.ahead = ahead;
      if (state.total > 0) tell((state.told = Math.max(state.told, Math.min(state.loaded + ahead, state.total))), state.total);
    };
    return reader;
  }

  /** @type {Loaded} */
  loaded(file, loaded, total, fromCache) {
    const state = this.#weights.get(file);
    if (state) {
      Object.assign(state, { loaded, total });
      loaded = state.told = Math.max(state.told, Math.min(loaded + state.ahead, total));
    }
    this.#report({ stage: "download", file, loaded, total, ...(fromCache && { fromCache }) });
  }

  /** @param {string} file */
  #address(file) {
    const { base, hub } = this.#place;
    const commit = hub && this.#stored?.about.commit;
    const address = new URL(file.split("/").map(encodeURIComponent).join("/"), commit ? `${hub.origin}/${hub.model}/resolve/${commit}/` : base);
    address.search = new URL(base).search;
    return address.href;
  }

  /** @param {string} file */
  #download(file) {
    return new Download(this.#context, this.#address(file), file);
  }

  /** Reports now and then, and at the end. @param {string} file */
  #teller(file) {
    let last = -Infinity;
    return (/** @type {number} */ loaded, /** @type {number} */ total) => {
      const now = performance.now();
      if (loaded !== total && now - last < 50) return;
      last = now;
      this.#report({ stage: "download", file, loaded, total: Math.max(total, loaded) });
    };
  }

  /** From the first file on, all are those of the commit that it came from: a branch may move meanwhile. @param {Download} download */
  #pin({ commit }) {
    if (this.#place.hub && this.#stored && commit) this.#stored.about.commit ??= commit;
  }

  /**
   * Whether what is kept is still what the server has. Models of the Hub that are complete aren't asked about: they make no
   * request at all. Where nobody can be asked, a complete model holds.
   */
  async #check() {
    const stored = this.#stored;
    if (!stored || stored.empty) return;
    const { hub } = this.#place;
    if (hub && (stored.complete || /^[\da-f]{40}$/.test(hub.revision))) return;
    const { files, weights, commit } = stored.about;
    if (hub) {
      const download = this.#unpinned("config.json", this.#context);
      const response = await download.first({ method: "HEAD", cache: "no-cache" });
      const version = files["config.json"];
      const same = commit && download.commit ? commit === download.commit : response && provable(version) && sameVersion(version ?? {}, versionOf(response));
      if (!same) await stored.clear();
      return;
    }
    // Its weights are compared when they are opened; the rest is small.
    this.#anew = !stored.complete;
    if (this.#anew) return;
    const { patience } = this.#context;
    const context = { ...this.#context, patience: { ...patience, tries: 1, stall: Math.min(patience.stall, LOOK) } };
    const same = Object.entries({ ...files, ...weights }).map(async ([file, version]) => {
      try {
        const response = await this.#unpinned(file, context).first({ method: "HEAD", cache: "no-cache" });
        if (!response || !version) return !response && !version;
        return provable(version) && sameVersion(version, versionOf(response));
      } catch (error) {
        if (this.#context.signal.aborted) throw error;
        return true;
      }
    });
    if ((await Promise.all(same)).includes(false)) await stored.clear();
  }

  /** A file of the revision that was asked for, not of the commit that was found. @param {string} file @param {Context} context */
  #unpinned(file, context) {
    const address = new URL(file, this.#place.base);
    address.search = new URL(this.#place.base).search;
    return new Download(context, address.href, file);
  }

  /**
   * What is kept of a file's tensors counts only if the file is the same as then.
   * @param {string} file @param {Version & {sha256?: string, ranges?: boolean}} version
   */
  async #compare(file, version) {
    const stored = this.#stored;
    if (!stored) return;
    const before = stored.about.weights[file];
    if (before) {
      if (sameVersion(before, version) && (!before.sha256 || !version.sha256 || before.sha256 === version.sha256)) return;
      const { used } = stored;
      await stored.clear();
      if (used) {
        stored.stale = true;
        throw new SiglipError("network", `${file} of ${this.#context.name} was changed on the server since a part of it was kept here. Load again to get the new one.`);
      }
    }
    if (!this.#place.hub && !provable(version)) return stored.refuse("The server tells no version of the model's files (ETag or Last-Modified), so the model isn't kept");
    stored.about.weights[file] = version;
    await stored.save();
  }

  /** What the Hub lists of a file. @param {string} file */
  async #listed(file) {
    const { hub } = this.#place;
    return hub && crypto.subtle && (await (this.#listing ??= this.#list(hub))).get(file);
  }

  /**
   * Sizes and SHA-256 sums as the Hub lists them. Without them a model loads all the same.
   * @param {Hub} hub
   */
  async #list({ origin, model, revision }) {
    /** @type {Map<string, {size?: number, sha256?: string}>} */
    const listing = new Map();
    const commit = this.#stored?.about.commit ?? revision;
    const { patience } = this.#context;
    const context = { ...this.#context, hub: false, patience: { ...patience, tries: Math.min(2, patience.tries) } };
    try {
      const download = new Download(context, `${origin}/api/models/${model}/tree/${encodeURIComponent(commit)}`, "list of files");
      const bytes = await download.all(() => {});
      for (const { path, size, lfs } of bytes ? JSON.parse(new TextDecoder().decode(bytes)) : []) {
        // For git's own objects `oid` is another sum, and `xetHash` is one of chunks.
        const sha256 = typeof lfs?.oid === "string" && /^[\da-f]{64}$/.test(lfs.oid) ? lfs.oid : undefined;
        if (typeof path === "string") listing.set(path, { size: Number.isSafeInteger(size) ? size : undefined, sha256 });
      }
    } catch (error) {
      if (this.#context.signal.aborted) throw error;
    }
    return listing;
  }
}

/** Whether a version tells more than a size. @param {Version | null | undefined} version */
function provable(version) {
  return version?.etag !== undefined || version?.modified !== undefined;
}
