// One file over HTTP: asked for again with back-off when the connection or the server fails, resumed at the byte reached, never
// put together from two versions, and what goes wrong for good is told apart.
import { SiglipError, aborted, siglipError } from "../error.js";
import { node } from "../platform.js";
import { STALLED, Watch } from "./watch.js";

/** @typedef {import("../ports.d.ts").Context} Context */
/** @typedef {import("../ports.d.ts").RetryPolicy} RetryPolicy */
/** @typedef {import("../ports.d.ts").Version} Version */

/** @type {RetryPolicy} */
export const RETRY_POLICY = { first: 500, longest: 30_000, tries: 8, stall: 30_000 };

/** Failures in a row before the file ever was there: mostly a wrong address or no network at all. */
const TRIES_AT_FIRST = 3;
/** A server that asks for more is busy for the day. Seconds. */
const LONGEST_ASKED = 300;

/** For a server that is only asked how things stand. Milliseconds. */
export const LOOK = 5000;
/** What comes more slowly than so many bytes in the time after which nothing counts as broken off is broken off as well. */
const LEAST = 1024;

/** A failure that may pass. */
class Again extends Error {
  /**
   * @param {SiglipError} reason what to say when it doesn't
   * @param {{asked?: number, conclude?: () => Promise<SiglipError>}} [more] asked: seconds to wait, where the server says; conclude: finds out
   *   more about the reason, once nothing is tried any more
   */
  constructor(reason, { asked, conclude = async () => reason } = {}) {
    super(reason.message);
    this.reason = reason;
    this.asked = asked;
    this.conclude = conclude;
  }
}

/** Counts failures in a row, and waits between them. */
class Tries {
  #context;
  #signal;
  #failures = 0;
  #known;

  /** @param {Context} context @param {AbortSignal} signal @param {() => boolean} known whether the file ever was there */
  constructor(context, signal, known) {
    this.#context = context;
    this.#signal = signal;
    this.#known = known;
  }

  /** Something has come. */
  worked() {
    this.#failures = 0;
  }

  /** Returns when it is time to try again; throws what there is to say when it isn't worth it. @param {any} error */
  async failed(error) {
    if (this.#signal.aborted) throw aborted();
    if (!(error instanceof Again)) throw siglipError(error, "network");
    const { reason, asked } = error;
    const { retryPolicy } = this.#context;
    this.#failures += 1;
    const enough = this.#known() || asked !== undefined ? retryPolicy.tries : Math.min(TRIES_AT_FIRST, retryPolicy.tries);
    if (this.#failures >= enough || (asked !== undefined && asked > LONGEST_ASKED)) throw await error.conclude();
    const wait = asked === undefined ? backOff(retryPolicy, this.#failures) : 1000 * asked;
    if (wait >= 1000) this.#context.wait(`${reason.message.split(/(?<=\.) /)[0]} Trying again in ${Math.ceil(wait / 1000)} s.`);
    if (!retryPolicy.hurry) await pause(wait, this.#signal);
  }
}

/** Twice as long each time, and not all visitors at once. @param {RetryPolicy} retryPolicy @param {number} failures */
function backOff({ first, longest }, failures) {
  return Math.min(longest, first * 2 ** (failures - 1)) * (0.5 + Math.random() / 2);
}

/** Ends early when the network comes back. @param {number} time @param {AbortSignal} signal */
function pause(time, signal) {
  return /** @type {Promise<void>} */ (new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      globalThis.removeEventListener?.("online", end);
      signal.removeEventListener("abort", end);
      if (signal.aborted) reject(aborted());
      else resolve();
    };
    const timer = setTimeout(end, time);
    globalThis.addEventListener?.("online", end);
    signal.addEventListener("abort", end);
  }));
}

// ---------------------------------------------------------------------------------------------------------
// One request

/** @param {Context} context @param {string} address @param {AbortSignal} signal */
function watchOver({ retryPolicy, wait }, address, signal) {
  const { host } = new URL(address);
  return new Watch(retryPolicy.stall, signal, (seconds) => wait(`Nothing has come from ${host} for ${seconds} s.`));
}

/**
 * @param {Context} context
 * @param {string} address
 * @param {Watch} watch
 * @param {{method?: string, range?: string, cache?: RequestCache}} options
 * @returns {Promise<Response | undefined>} undefined: there is no such file
 */
async function ask(context, address, watch, { method = "GET", range, cache = context.caching }) {
  let response;
  try {
    response = await watch.during(fetch(address, { method, cache, signal: watch.signal, ...(range && { headers: { Range: range } }) }));
  } catch (error) {
    if (error === STALLED) throw new Again(stalled(context, address));
    if (watch.signal.aborted) throw aborted();
    throw unreachable(context, address, error);
  }
  for (const read of [address, response.url || address]) context.readable.add(new URL(read).origin);
  if (method === "HEAD" && HEAD_REFUSED.includes(response.status)) return undefined;
  if (response.ok || response.status === 416) return response;
  response.body?.cancel().catch(() => {});
  return refused(context, address, response);
}

/** What servers answer that have the file, but know no HEAD; also where there is none. */
const HEAD_REFUSED = [400, 403, 404, 405, 410, 501];

/** @param {Context} context @param {string} address */
function stalled({ retryPolicy }, address) {
  return new SiglipError("network", `Nothing more came from ${plain(address)} for ${Math.ceil(retryPolicy.stall / 1000)} seconds. Check the connection and load again.`);
}

/** The browser says of a failed request only that it failed. @param {Context} context @param {string} address @param {Error} error */
function unreachable({ readable, signal }, address, error) {
  const { origin, host } = new URL(address);
  const reason = new SiglipError("network", globalThis.navigator?.onLine === false
    ? `${plain(address)} could not be fetched: this device is offline. Connect it and load again.`
    : `${plain(address)} could not be fetched (${error.message}). Check the connection and the address; a file of another site must allow this page to read it (CORS), and this page's Content-Security-Policy must allow the connection.`, { cause: error });
  const conclude = async () => {
    // A server that let the page read something before does so still, if its answers come.
    if (node || origin === globalThis.origin || readable.has(origin) || !(await answersUnread(address, signal))) return reason;
    return new SiglipError("network", `The server ${host} doesn't let this page read ${plain(address)}: its answer lacks an Access-Control-Allow-Origin header (CORS), or broke off or was damaged each time. Load again; if it stays so, change the server's settings, serve the files from this page's own site, or download them and choose the files.`, { cause: error });
  };
  return new Again(reason, { conclude });
}

/** Whether the server answers a request whose answer the page may not read. @param {string} address @param {AbortSignal} signal */
async function answersUnread(address, signal) {
  const watch = new Watch(LOOK, signal);
  try {
    await watch.during(fetch(address, { method: "HEAD", mode: "no-cors", cache: "no-store", signal: watch.signal }));
    return true;
  } catch {
    return false;
  }
}

/** What a status other than success means. @param {Context} context @param {string} address @param {Response} response */
function refused({ hub, name }, address, response) {
  const { status } = response;
  const said = response.headers.get("x-error-code");
  const host = new URL(address).host;
  const giver = /(^|\.)(huggingface\.co|hf\.co)$/.test(host) ? "The Hugging Face Hub" : host;
  if (status === 408 || status === 425 || status === 429 || status >= 500) {
    const asked = retryAfter(response);
    const busy = status === 429
      ? `${new URL(address).host} asks to be left alone for a while (HTTP 429, too many requests). Load again ${asked === undefined ? "in some minutes" : `after ${duration(asked)}`}.`
      : `The server answered ${plain(address)} with HTTP ${status}. Try again later, or check the address.`;
    throw new Again(new SiglipError("network", busy), { asked });
  }
  if (hub && said === "RevisionNotFound") throw new SiglipError("network", `${giver} has no such revision of ${name}. Check what follows the @.`);
  if (hub && said === "GatedRepo") throw new SiglipError("network", `${giver} gives out ${name} only to those who have accepted its terms (HTTP ${status}). Accept them on its page, download the files there and load them from disk.`);
  if (hub && (status === 401 || status === 403 || said === "RepoNotFound")) {
    throw new SiglipError("network", `${giver} doesn't give out ${name} (HTTP ${status}): there is no such model, or it is private or asks for terms to be accepted. Check the name; a gated model can be downloaded by hand and loaded from its files.`);
  }
  if (status === 404 || status === 410) return undefined;
  if (status === 401 || status === 403) throw new SiglipError("network", `The server refused ${plain(address)} (HTTP ${status}): it is private or needs a sign-in.`);
  throw new SiglipError("network", `The server answered ${plain(address)} with HTTP ${status}. Try again later, or check the address.`);
}

/** Seconds, where the header can be read. @param {Response} response */
function retryAfter(response) {
  const text = response.headers.get("retry-after");
  if (text === null) return undefined;
  const seconds = /^\d+$/.test(text.trim()) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : undefined;
}

/** @param {number} seconds */
function duration(seconds) {
  return seconds < 90 ? `${Math.ceil(seconds)} seconds` : `${Math.ceil(seconds / 60)} minutes`;
}

/** An address without a query: it may be long, or hold a signature. @param {string} address */
function plain(address) {
  return address.replace(/[?#].*$/s, "");
}

/** @param {Response} response @returns {Version} */
export function versionOf(response) {
  const header = (/** @type {string} */ name) => response.headers.get(name) ?? undefined;
  return { etag: header("etag"), modified: header("last-modified"), size: wholeSize(response) };
}

/** Whether two answers can be of the same file: nothing that both tell differs. @param {Version} a @param {Version} b */
export function sameVersion(a, b) {
  if (a.size !== undefined && b.size !== undefined && a.size !== b.size) return false;
  if (a.etag !== undefined && b.etag !== undefined) return opaque(a.etag) === opaque(b.etag);
  return a.modified === undefined || b.modified === undefined || a.modified === b.modified;
}

/** An ETag as weak comparison takes it: servers that compress mark the same one as weak, or name what they compressed with. @param {string} etag */
export function opaque(etag) {
  return etag.replace(/^W\//, "").replace(/--?(?:gzip|br|zstd|deflate)(?="?$)/, "");
}

/** Size of the file, where the answer is certain to tell it: a compressed one has another length, and another site's answer hides whether it is compressed. @param {Response} response */
function wholeSize(response) {
  const range = /\/(\d+)\s*$/.exec(response.headers.get("content-range") ?? "");
  if (range) return Number(range[1]);
  const length = response.headers.get("content-length");
  const plainly = response.type === "basic" && !response.headers.get("content-encoding");
  return response.status === 200 && plainly && length !== null ? Number(length) : undefined;
}

// ---------------------------------------------------------------------------------------------------------
// One file

/** One file of a server, whatever happens on the way. */
export class Download {
  #context;
  #address;
  /** Where redirects led: the Hub's signed addresses are good for many requests, but not for ever. @type {string | undefined} */
  #direct;
  /** What each server that was led to says the file is. @type {Map<string, Version>} */
  #versions = new Map();
  /** @type {number | undefined} */
  size;
  /** @type {string | undefined} lower-case hexadecimal */
  sha256;
  /** @type {string | undefined} the Hub's commit */
  commit;
  /** Whether a web page in the file's place is no error: `page` then says what it would be. */
  mayBePage = false;
  /** @type {SiglipError | undefined} */
  page;
  #known = false;

  /** @param {Context} context @param {string} address @param {string} file how messages call it */
  constructor(context, address, file) {
    this.#context = context;
    this.#address = address;
    this.file = file;
  }

  /** Whether parts can be asked for. Other schemes answer such a request with a part and call it the whole (chrome-extension:). */
  get ranges() {
    return /^https?:/.test(this.#address);
  }

  /** What the file's own address told. @returns {Version} */
  get version() {
    return { ...this.#versions.values().next().value, size: this.size };
  }

  /**
   * The answer to a first request, checked; undefined if there is no such file.
   * @param {{method?: string, range?: string, cache?: RequestCache}} [options]
   * @returns {Promise<Response | undefined>}
   */
  async first(options = {}) {
    const { signal } = this.#context;
    const tries = new Tries(this.#context, signal, () => this.#known);
    for (;;) {
      try {
        return await this.#ask(options, watchOver(this.#context, this.#address, signal));
      } catch (error) {
        await tries.failed(error);
      }
    }
  }

  /**
   * What the server says of the file now, without its bytes; undefined if there is no such file.
   * @param {boolean} expected whether it was there before
   * @returns {Promise<Response | undefined>}
   */
  async look(expected = true) {
    const head = await this.first({ method: "HEAD", cache: "no-cache" });
    if (head || !expected) return head;
    const response = await this.first({ range: "bytes=0-0", cache: "no-cache" });
    response?.body?.cancel().catch(() => {});
    return response;
  }

  /** @param {{method?: string, range?: string, cache?: RequestCache}} options @param {Watch} watch */
  async #ask(options, watch) {
    const direct = this.#direct;
    let response;
    try {
      response = await ask(this.#context, direct ?? this.#address, watch, options);
      if (!response && direct) throw new SiglipError("network", `${plain(direct)} is gone. Load again.`);
    } catch (error) {
      if (!direct || watch.signal.aborted) throw error;
      // A signed address has run out, or the server behind it is gone: ask where the file is now.
      this.#direct = undefined;
      throw error instanceof Again ? error : new Again(siglipError(error, "network"));
    }
    if (!response) {
      if (this.#known) throw new Again(this.#changed("is no longer there"));
      return undefined;
    }
    if (/^text\/html\b/i.test(response.headers.get("content-type") ?? "")) {
      response.body?.cancel().catch(() => {});
      this.#direct = undefined;
      const page = this.#webPage();
      if (this.#known) throw new Again(page);
      this.page = page;
      if (this.mayBePage) return undefined;
      throw page;
    }
    this.#check(response);
    this.#known = true;
    if (response.redirected) this.#direct = response.url;
    return response;
  }

  #webPage() {
    const { hub } = this.#context;
    const what = `${plain(this.#address)} came as a web page (HTML), not as the model's ${this.file}`;
    if (hub || this.#known) return new SiglipError("network", `${what}: the network may want you to sign in first, as in a hotel or a train. Open any web site, sign in and load again.`);
    return new SiglipError("bad-model", `${plain(this.#address)} is a web page (HTML), not the model's ${this.file}. Give the address of the folder that holds the files themselves; if it is right, the network may want you to sign in first: open any web site to see.`);
  }

  /** Nothing is put together from two versions of a file. @param {Response} response */
  #check(response) {
    const version = versionOf(response);
    const place = new URL(response.url || this.#address).origin;
    const before = this.#versions.get(place);
    const { size } = version;
    const linked = /^(?:W\/)?"?([\da-f]{64})"?$/i.exec(response.headers.get("x-linked-etag") ?? "")?.[1]?.toLowerCase();
    // Where the whole file's hash is known, the servers of a network may call it by ETags of their own.
    const same = this.sha256 === undefined ? !before || sameVersion(before, version) : (linked ?? this.sha256) === this.sha256;
    if (!same || (size !== undefined && this.size !== undefined && size !== this.size)) {
      response.body?.cancel().catch(() => {});
      throw this.#changed(size !== this.size && size !== undefined && this.size !== undefined ? `had ${this.size} bytes and now has ${size}` : "has another version now");
    }
    this.#versions.set(place, { ...version, ...before });
    this.size ??= size;
    this.sha256 ??= linked;
    this.commit ??= /^[\da-f]{40}$/.exec(response.headers.get("x-repo-commit") ?? "")?.[0];
  }

  /** @param {string} how */
  #changed(how) {
    return new SiglipError("network", `${this.file} of ${this.#context.name} was changed on the server while it was downloaded: it ${how}. Load again to get the new one from its beginning.`);
  }

  /**
   * The bytes from `start` to `end`, or to the file's end if that comes first, as they arrive.
   * @param {number} start
   * @param {number} end Infinity: to the end of the file
   * @param {{response?: Response, stop?: AbortSignal, whole?: boolean}} [options] response: an answer that begins with them;
   * whole: no range is asked for as long as nothing has arrived
   */
  async *bytes(start, end, { response, stop, whole } = {}) {
    const signal = stop ? AbortSignal.any([stop, this.#context.signal]) : this.#context.signal;
    const tries = new Tries(this.#context, signal, () => this.#known);
    let at = start;
    for (;;) {
      const watch = watchOver(this.#context, this.#address, signal);
      let came = 0;
      try {
        if (!response) {
          const range = (whole && at === 0) || !this.ranges ? undefined : `bytes=${at}-${end === Infinity ? "" : end - 1}`;
          response = await this.#ask({ range }, watch);
          if (!response) throw this.#changed("is no longer there");
        }
        for await (const bytes of this.#body(response, at, end, watch)) {
          at += bytes.length;
          came += bytes.length;
          if (came >= LEAST || at >= end) tries.worked();
          yield bytes;
        }
        return;
      } catch (error) {
        await tries.failed(error);
      }
      response = undefined;
    }
  }

  /**
   * What one answer has of the bytes from `at` to `end`.
   * @param {Response} response @param {number} at @param {number} end @param {Watch} watch
   */
  async *#body(response, at, end, watch) {
    let skip = this.#offset(response, at);
    const reader = (response.body ?? new Blob([]).stream()).getReader();
    let came = 0;
    let [waited, few] = [0, 0];
    try {
      while (skip !== undefined && at < end) {
        const asked = performance.now();
        const { done, value } = await watch.during(reader.read());
        if (done) break;
        came += value.length;
        [waited, few] = [waited + performance.now() - asked, few + value.length];
        if (few >= LEAST) [waited, few] = [0, 0];
        else if (waited > watch.time) throw STALLED;
        else if (waited > watch.time / 3) this.#context.wait(`${new URL(this.#address).host} sends only ${Math.ceil((1000 * few) / waited)} bytes per second.`);
        const bytes = value.subarray(Math.min(skip, value.length), skip + end - at);
        skip -= Math.min(skip, value.length);
        at += bytes.length;
        if (bytes.length > 0) yield bytes;
      }
    } catch (error) {
      if (error === STALLED) throw new Again(stalled(this.#context, this.#address));
      if (watch.signal.aborted) throw aborted();
      if (error instanceof RangeError) throw siglipError(error);
      throw new Again(this.#broken(at, error.message));
    } finally {
      reader.cancel().catch(() => {});
    }
    if (at >= end || skip === undefined) return;
    // The answer is complete. The browser notices when a connection ends early, if the answer's length was told.
    const length = response.headers.get("content-length");
    if (this.size === undefined && (response.status === 200 || Number(length) === came)) this.size = at;
    if (at < Math.min(end, this.size ?? Infinity)) throw new Again(this.#broken(at, "the server ended it too early"));
  }

  /** How many bytes of an answer come before `at`; undefined if the file has none from there on. @param {Response} response @param {number} at */
  #offset(response, at) {
    if (response.status === 416) {
      if (this.size !== undefined && at < this.size) throw new Again(this.#wrongRange("refuses a part that the file has"));
      return undefined;
    }
    if (response.status === 200) return at;
    const begins = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "");
    if (begins && Number(begins[1]) !== at) throw new Again(this.#wrongRange(`was asked for the bytes from ${at} on and sent those from ${begins[1]} on`));
    return 0;
  }

  /** @param {string} how */
  #wrongRange(how) {
    return new SiglipError("network", `The server of ${this.file} ${how}. Its support for ranges is broken: load again, or serve the files from another server.`);
  }

  /** @param {number} at @param {string} why */
  #broken(at, why) {
    const of = this.size === undefined ? "" : ` of ${this.size}`;
    return new SiglipError("network", `The download of ${plain(this.#address)} broke off after ${at}${of} bytes (${why}). Check the connection and load again: it goes on from there.`);
  }

  /**
   * The whole of a small file.
   * @param {(count: number) => void} arrived
   * @param {number} [limit] of bytes; what has more is not read
   * @param {Promise<Response | undefined>} [first] the answer to a request that was made already
   * @returns {Promise<Uint8Array<ArrayBuffer> | undefined>}
   */
  async all(arrived, limit = Infinity, first = this.first()) {
    const response = await first;
    if (!response) return undefined;
    if (this.size !== undefined && this.size > limit) {
      response.body?.cancel().catch(() => {});
      throw tooLarge(this.file, this.#context.name, limit);
    }
    let length = 0;
    /** @type {Uint8Array[]} */
    const parts = [];
    for await (const bytes of this.bytes(0, Infinity, { response, whole: true })) {
      length += bytes.length;
      if (length > limit) throw tooLarge(this.file, this.#context.name, limit);
      parts.push(bytes);
      arrived(bytes.length);
    }
    return join(parts);
  }
}

/** Reports of a file's bytes now and then, and at the end. @param {string} file @param {(progress: import("../ports.d.ts").Progress) => void} report */
export function teller(file, report) {
  let last = -Infinity;
  return (/** @type {number} */ loaded, /** @type {number} */ total) => {
    const now = performance.now();
    if (loaded !== total && now - last < 50) return;
    last = now;
    report({ stage: "download", file, loaded, total: Math.max(total, loaded) });
  };
}

/** @param {string} file @param {string} name of the model @param {number} limit */
export function tooLarge(file, name, limit) {
  return new SiglipError("bad-model", `${file} of ${name} has more than the ${limit} bytes that such a file ever needs. It belongs to something else or is damaged: get it again.`);
}

/** @param {Uint8Array[]} parts */
function join(parts) {
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
