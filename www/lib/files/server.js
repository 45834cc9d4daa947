// A folder of a server, or a model of the Hub.
import { SiglipError } from "../error.js";
import { hash, hex } from "../hash.js";
import { Download, LOOK, sameVersion, teller, versionOf } from "./download.js";
import { Ranges } from "./ranges.js";

/** @typedef {import("../ports.d.ts").Context} Context */
/** @typedef {import("../ports.d.ts").Hub} Hub */
/** @typedef {{size?: number, sha256?: string, git?: string}} Listed */
/** @typedef {{download: Download, first: Promise<Response | undefined>}} Asked */
/** @typedef {{download: Download, reader: Ranges | undefined}} Opened */
/** @typedef {import("../ports.d.ts").Loaded} Loaded */
/** @typedef {import("../ports.d.ts").Progress} Progress */
/** @typedef {import("../ports.d.ts").Reader} Reader */
/** @typedef {import("../ports.d.ts").RemotePlace} RemotePlace */
/** @typedef {import("../ports.d.ts").Version} Version */
/** @typedef {import("../ports.d.ts").WeightsVersion} WeightsVersion */
/** @typedef {import("../store/stored.js").Stored} Stored */

/** Of weights in one file. */
const WEIGHTS = "model.safetensors";
/** Of weights in several files. */
const INDEX = "model.safetensors.index.json";
/** How pictures are prepared. */
const PICTURES = "preprocessor_config.json";
/** Where transformers 5 says it. */
const PROCESSOR = "processor_config.json";
/** Files that stand for each other: a model has one of each line. */
const ANY = [
  ["config.json", "open_clip_config.json"],
  [PICTURES, PROCESSOR],
  ["tokenizer.json", "spiece.model", "tokenizer.model"],
  [WEIGHTS, INDEX],
];
/** Files that a model needn't have: some servers answer with a web page where there is none. */
const OPTIONAL = [...ANY.flat(), "tokenizer_config.json", "added_tokens.json", "open_clip_model.safetensors"];

/** A folder of a server, or a model of the Hub; with what is kept of it. */
export class RemoteFiles {
  #place;
  #context;
  #stored;
  #report;
  /** Requests that were made before the engine asked. @type {Map<string, Asked>} */
  #asked = new Map();
  /** The weights' file, opened before the engine asked. @type {Promise<Opened> | undefined} */
  #opened;
  #settled = false;
  /** @type {Promise<void> | undefined} the look at whether what is kept still holds */
  #checked;
  /** Whether small files are fetched although they are kept. */
  #anew = false;
  /** Small files that were answered from kept copies. @type {Set<string>} */
  #answered = new Set();
  /** Small files that were downloaded, until the engine could parse them. @type {Map<string, {bytes?: Uint8Array, version: Version}>} */
  #parsing = new Map();
  /** @type {Promise<Map<string, Listed>> | undefined} what the Hub lists */
  #listing;
  /** Files that aren't there; of some the server answered with a web page. @type {Map<string, SiglipError | undefined>} */
  #missing = new Map();
  /** What the engine has of the weights that are being read, and what arrived since. @type {Map<string, {loaded: number, total: number, ahead: number, told: number}>} */
  #weights = new Map();

  /** @param {RemotePlace} place @param {Context} context @param {Stored | undefined} stored @param {(progress: Progress) => void} report */
  constructor(place, context, stored, report) {
    this.#place = place;
    this.#context = context;
    this.#stored = stored;
    this.#report = report;
  }

  /** Looks at whether what is kept still holds; where nothing is, asks for what the engine will ask for. */
  begin() {
    this.#checked ??= this.#check();
    this.#goAhead().catch(() => {}); // whoever asks for a file is told
  }

  /** What else a model has is known once its configuration was read. */
  async #goAhead() {
    await this.#checked;
    if (this.#settled || (this.#stored && !this.#stored.empty)) return;
    const config = this.#ask("config.json");
    if ((config && !(await config.first)) || this.#settled) return;
    if (config) this.#pin(config.download);
    this.#ask(PICTURES);
    if (this.#absent(WEIGHTS)) return;
    this.#opened = this.#openFile(WEIGHTS);
    this.#opened.then(({ reader }) => reader?.begin()).catch(() => {}); // as above
  }

  /** Lets go of what was asked for and not wanted: what a model has is the engine's to know. */
  settle() {
    this.#settled = true;
    // What was aborted can't be cancelled any more, and says so.
    for (const { first } of this.#asked.values()) first.then((response) => response?.body?.cancel()).catch(() => {});
    this.#asked.clear();
    this.#opened?.then(({ reader }) => reader?.close()).catch(() => {});
    this.#opened = undefined;
  }

  /** Makes the request for a small file, unless that is somewhere else. @param {string} file */
  #ask(file) {
    if (this.#absent(file)) return undefined;
    const download = this.#download(file);
    const asked = { download, first: download.first() };
    asked.first.catch(() => {}); // as above
    this.#asked.set(file, asked);
    return asked;
  }

  /** @param {string} file @param {number} limit */
  async readAll(file, limit) {
    if (this.#absent(file)) return this.#without(file);
    await (this.#checked ??= this.#check());
    const kept = this.#anew ? undefined : await this.#stored?.file(file);
    if (kept !== undefined) this.#answered.add(file);
    if (kept === null || (kept === undefined && file === PROCESSOR && (await this.#isOlder()))) return this.#without(file);
    if (kept) {
      this.#report({ stage: "download", file, loaded: kept.length, total: kept.length, fromCache: true });
      return kept;
    }
    // What was damaged on the way comes right the second time.
    const { bytes, version } = await this.#fetch(file, limit).catch((error) => (error instanceof Damaged ? this.#fetch(file, limit) : Promise.reject(error)));
    if (!bytes || this.#place.hub || provable(version)) this.#parsing.set(file, { bytes, version });
    return bytes;
  }

  /**
   * Whether the model has no `processor_config.json`, as far as that can be known without asking for it: browsers tell of what isn't there as of an
   * error. The Hub lists what it has; on other servers nearly none has it beside the older file.
   */
  async #isOlder() {
    const { hub, addresses } = this.#place;
    if (addresses) return false;
    const older = this.#anew ? undefined : await this.#stored?.file(PICTURES);
    if (older !== undefined) return older !== null;
    const listing = hub && (await (this.#listing ??= this.#list(hub)));
    if (listing && listing.size > 0) return !listing.has(PROCESSOR);
    return (await (this.#asked.get(PICTURES) ?? this.#ask(PICTURES))?.first) !== undefined;
  }

  async keep() {
    for (const [file, { bytes, version }] of this.#parsing) await this.#stored?.keepFile(file, bytes, version);
    this.#parsing.clear();
  }

  async forget() {
    const any = this.#answered.size > 0;
    for (const file of this.#answered) await this.#stored?.dropFile(file);
    this.#answered.clear();
    this.#parsing.clear();
    return any;
  }

  /** A small file, as the Hub lists it. @param {string} file @param {number} limit */
  async #fetch(file, limit) {
    const { download, first } = this.#asked.get(file) ?? { download: this.#download(file) };
    this.#asked.delete(file);
    // Both are read, whatever the first one says.
    if (file === "tokenizer.json") this.#ask("tokenizer_config.json");
    const told = teller(file, this.#report);
    let loaded = 0;
    const bytes = await download.all((count) => told((loaded += count), download.size ?? 0), limit, first);
    if (bytes) {
      told(bytes.length, bytes.length);
      this.#missing.delete(file);
    } else {
      await this.#without(file, download.page);
    }
    this.#pin(download);
    const listed = bytes && crypto.subtle && (await this.#listed(file));
    if (bytes && listed) {
      const [name, found, expected] = listed.sha256 ? ["SHA-256", hex(await hash(bytes)), listed.sha256] : ["git hash", await gitHash(bytes), listed.git];
      if (expected && found !== expected) {
        throw new Damaged("bad-model", `${file} of ${this.#context.name} was damaged on the way: its ${name} is ${found} instead of ${expected}. Load again.`);
      }
    }
    return { bytes, version: download.version };
  }

  /** @param {string} file @returns {Promise<Reader | undefined>} */
  async open(file) {
    if (this.#absent(file)) return this.#without(file);
    await (this.#checked ??= this.#check());
    const known = this.#stored?.complete ? this.#stored.about.weights[file] : undefined;
    if (known?.ranges) {
      // Only a few rows will be asked for, if any.
      return new Ranges(this.#sized(file, known));
    }
    const opened = file === WEIGHTS ? this.#opened : undefined;
    if (opened) this.#opened = undefined;
    const { download, reader } = await (opened ?? this.#openFile(file));
    if (!reader) return this.#without(file, download.page);
    await this.#compare(file, { ...reader.version, sha256: reader.sha256, ranges: reader.ranges });
    const state = { loaded: 0, total: 0, ahead: reader.ahead, told: 0 };
    this.#weights.set(file, state);
    const tell = teller(file, this.#report);
    reader.onProgress = (ahead) => {
      state.ahead = ahead;
      if (state.total > 0) tell((state.told = Math.max(state.told, Math.min(state.loaded + ahead, state.total))), state.total);
    };
    return reader;
  }

  /** @param {string} file @returns {Promise<Opened>} */
  async #openFile(file) {
    const download = this.#sized(file, await this.#listed(file));
    return { download, reader: await Ranges.open(download) };
  }

  /** A file of which something is known. @param {string} file @param {Listed} [known] */
  #sized(file, known) {
    const download = this.#download(file);
    download.size = known?.size;
    download.sha256 = known?.sha256;
    return download;
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

  /** Whether a file is not among those that have addresses. @param {string} file */
  #absent(file) {
    return this.#place.addresses?.has(file) === false;
  }

  /** @param {string} file */
  #address(file) {
    const { base, hub, addresses } = this.#place;
    const own = addresses?.get(file);
    if (own !== undefined) return own;
    const commit = hub && this.#stored?.about.commit;
    const address = new URL(file.split("/").map(encodeURIComponent).join("/"), commit ? `${hub.origin}/${hub.model}/resolve/${commit}/` : base);
    address.search = new URL(base).search;
    return address.href;
  }

  /** @param {string} file */
  #download(file) {
    const download = new Download(this.#context, this.#address(file), file);
    download.mayBePage = !this.#place.hub && OPTIONAL.includes(file);
    return download;
  }

  /**
   * There is no such file, and perhaps another one for it. A web page in its place means that, too, if the server has files elsewhere; else it comes
   * from a network that wants a sign-in.
   * @param {string} file @param {SiglipError} [page] what such a page would be
   * @returns {Promise<undefined>}
   */
  async #without(file, page) {
    this.#missing.set(file, page);
    const all = ANY.find((files) => files.includes(file)) ?? [];
    const first = all.every((one) => this.#missing.has(one)) && all.map((one) => this.#missing.get(one)).find(Boolean);
    // None of them: then the page is why.
    if (first) throw first;
    const config = this.#missing.has("config.json") ? "open_clip_config.json" : "config.json";
    if (page && !(await this.#unpinned(config, this.#context).look().catch(() => undefined))) throw page;
    return undefined;
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
      // open_clip's folders have another.
      const config = files["config.json"] === null ? "open_clip_config.json" : "config.json";
      const download = this.#unpinned(config, this.#context);
      const response = await download.look();
      const version = files[config];
      const same = commit && download.commit ? commit === download.commit : response && provable(version) && sameVersion(version ?? {}, versionOf(response));
      if (!same) await stored.clear();
      return;
    }
    // Its weights are compared when they are opened; the rest is small.
    this.#anew = !stored.complete;
    if (this.#anew) return;
    const { retryPolicy } = this.#context;
    const context = { ...this.#context, retryPolicy: { ...retryPolicy, tries: 1, stall: Math.min(retryPolicy.stall, LOOK) } };
    const same = Object.entries({ ...files, ...weights }).map(async ([file, version]) => {
      try {
        const response = await this.#unpinned(file, context).look(version !== null);
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
    const { base, addresses } = this.#place;
    const address = new URL(addresses?.get(file) ?? file, base);
    if (!addresses) address.search = new URL(base).search;
    return new Download(context, address.href, file);
  }

  /**
   * What is kept of a file's tensors counts only if the file is the same as then.
   * @param {string} file @param {WeightsVersion} version
   */
  async #compare(file, version) {
    const stored = this.#stored;
    if (!stored) return;
    const before = stored.about.weights[file];
    if (before) {
      const sizes = before.size === undefined || version.size === undefined || before.size === version.size;
      const same = before.sha256 && version.sha256 ? sizes && before.sha256 === version.sha256 : sameVersion(before, version);
      if (same) return;
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

  /** What the Hub lists of a file, and what is known of it. @param {string} file @returns {Promise<Listed | undefined>} */
  async #listed(file) {
    const { hub } = this.#place;
    const listed = hub && crypto.subtle && (await (this.#listing ??= this.#list(hub))).get(file);
    const known = hub?.sums?.[file];
    if (known === undefined) return listed;
    if (listed?.sha256 !== undefined && listed.sha256 !== known) {
      throw new SiglipError("bad-model", `${file} of ${this.#context.name} is not the one that this library knows: its SHA-256 is ${listed.sha256} instead of ${known}. The model was changed, or somebody else's is in its place. Name its revision (${hub?.model}@REVISION) to take it as it is.`);
    }
    return { ...listed, sha256: known };
  }

  /**
   * Sizes and SHA-256 sums as the Hub lists them. Without them a model loads all the same.
   * @param {Hub} hub
   */
  async #list({ origin, model, revision }) {
    /** @type {Map<string, Listed>} */
    const listing = new Map();
    const commit = this.#stored?.about.commit ?? revision;
    const { retryPolicy } = this.#context;
    const context = { ...this.#context, hub: false, retryPolicy: { ...retryPolicy, tries: Math.min(2, retryPolicy.tries) } };
    try {
      const download = new Download(context, `${origin}/api/models/${model}/tree/${encodeURIComponent(commit)}`, "list of files");
      const bytes = await download.all(() => {});
      for (const { path, size, oid, lfs } of bytes ? JSON.parse(new TextDecoder().decode(bytes)) : []) {
        // The SHA-256 of what lies beside git; of the rest git's own SHA-1 is told. `xetHash` is a sum of chunks.
        const sha256 = typeof lfs?.oid === "string" && /^[\da-f]{64}$/.test(lfs.oid) ? lfs.oid : undefined;
        if (typeof path === "string") listing.set(path, { size: Number.isSafeInteger(size) ? size : undefined, sha256, git: !lfs && /^[\da-f]{40}$/.test(oid) ? oid : undefined });
      }
    } catch (error) {
      if (this.#context.signal.aborted) throw error;
    }
    return listing;
  }
}

/** A file that isn't as the Hub lists it. */
class Damaged extends SiglipError {}

/** As git names a file. @param {Uint8Array} bytes */
async function gitHash(bytes) {
  const head = new TextEncoder().encode(`blob ${bytes.length}\0`);
  const object = new Uint8Array(head.length + bytes.length);
  object.set(head);
  object.set(bytes, head.length);
  return hex(await hash(object, "SHA-1"));
}

/** Whether a version tells more than a size. @param {Version | null | undefined} version */
function provable(version) {
  return version?.etag !== undefined || version?.modified !== undefined;
}
