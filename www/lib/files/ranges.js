// A file over HTTP as the engine reads it: any range at any time, what is planned ahead of time.
import { opaque } from "./download.js";

/** @typedef {import("./download.js").Download} Download */

/** No request is for more bytes. The engine plans reads no longer (`PIECE` in src/checkpoint/load/tensors.rs), so that each is one chunk. */
const CHUNK = 4 * 2 ** 20;
const READ_AHEAD = 32 * 2 ** 20;
const REQUESTS = 4;
/** A file's first block: as a rule it holds the whole header of a safetensors file. */
const FIRST_BLOCK = 2 ** 18;
/** Files up to this size are fetched whole before their reads are planned. */
const SMALL = 2 ** 24;

/** @typedef {{start: number, end: number, bytes?: Uint8Array, done?: Promise<void>, failed?: boolean}} Chunk */

/**
 * An open file: what the engine calls Reader. Planned reads are fetched ahead, at most 32 MB of them, in up to four requests
 * at a time. Without ranges there is one stream, whose bytes between two reads are dropped.
 */
export class Ranges {
  /** @param {Download} download @returns {Promise<Ranges | undefined>} undefined: there is no such file */
  static async open(download) {
    const response = await download.first(download.ranges ? { range: `bytes=0-${FIRST_BLOCK - 1}` } : {});
    return response && new Ranges(download, response);
  }

  #download;
  /** Ends what is in flight when the file is closed or planned anew. */
  #stop = new AbortController();
  /** The chunks still to be read, in order. @type {Chunk[]} */
  #chunks = [];
  /** How many of them are under way or here. */
  #begun = 0;
  #inFlight = 0;
  #held = 0;
  /** The file's beginning. @type {Chunk} */
  #head;
  /** @type {Stream | undefined} where the server knows no ranges */
  #stream;
  /** Bytes of the plan that have arrived and weren't read yet. */
  #ahead = 0;
  /** Whether all of the file is being fetched, and no reads were planned yet. */
  #whole = false;
  /** @type {(ahead: number) => void} told of these as they arrive */
  onProgress = () => {};

  /** @param {Download} download @param {Response} [response] to a request for the first block; without, the file is one that knows ranges */
  constructor(download, response) {
    this.#download = download;
    this.ranges = response?.status !== 200;
    if (!response) {
      this.#head = { start: 0, end: 0 };
    } else if (this.ranges) {
      const end = Math.min(FIRST_BLOCK, download.size ?? FIRST_BLOCK);
      this.#head = { start: 0, end };
      this.#fetch(this.#head, response);
    } else {
      this.#head = { start: 0, end: 0, bytes: new Uint8Array(0), done: Promise.resolve() };
      this.#stream = new Stream(download, response);
    }
  }

  get size() {
    return this.#download.size;
  }

  get ahead() {
    return this.#ahead;
  }

  get sha256() {
    return this.#download.sha256;
  }

  get version() {
    return this.#download.version;
  }

  /** What tells this version from others. A hash does it alone: the servers of one file may differ in their ETags. */
  get validator() {
    const { commit, sha256, version: { etag, modified } } = this.#download;
    return commit ?? (sha256 ? undefined : etag === undefined ? modified : opaque(etag));
  }

  /** Fetches all of a small file, before the reads that are planned next are known. */
  begin() {
    const { size } = this;
    if (!this.ranges || size === undefined || size > SMALL) return;
    this.plan([this.#head.end, Math.max(0, size - this.#head.end)]);
    this.#whole = true;
  }

  /** @param {Float64Array | number[]} reads [offset, length, offset, length, …], in order */
  plan(reads) {
    if (this.#whole) {
      this.#whole = false;
      return;
    }
    this.#drop();
    const headEnd = this.#head.bytes ? this.#head.end : 0;
    for (let i = 0; i + 1 < reads.length; i += 2) {
      const [offset, length] = /** @type {[number, number]} */ ([reads[i], reads[i + 1]]);
      let [start, end] = [offset, offset + length];
      if (this.size !== undefined) end = Math.min(end, this.size);
      start = Math.max(start, headEnd);
      // A planned read that is met by one chunk is handed on as it arrived, without a copy: neighbours share a chunk only whole.
      const last = this.#chunks[this.#chunks.length - 1];
      if (last && last.end === start && end - last.start <= CHUNK) {
        last.end = Math.max(last.end, end);
        continue;
      }
      for (; start < end; start += CHUNK) this.#chunks.push({ start, end: Math.min(end, start + CHUNK) });
    }
    this.#pump();
  }

  /**
   * @param {number} offset @param {number} length
   * @returns {Promise<Uint8Array>} shorter only where the file ends
   */
  async readAt(offset, length) {
    const end = Math.min(offset + length, this.size ?? Infinity);
    if (offset >= end) return new Uint8Array(0);
    /** @type {Uint8Array | undefined} */
    let out;
    let at = offset;
    while (at < end) {
      const chunk = await this.#chunkAt(at, end);
      const bytes = /** @type {Uint8Array} */ (chunk.bytes);
      const part = bytes.subarray(at - chunk.start, end - chunk.start);
      if (chunk === this.#chunks[0]) {
        this.#ahead -= part.length;
        if (end >= chunk.end) this.#release();
      }
      if (part.length === 0) break;
      if (!out && part.length === end - offset) return part;
      out ??= new Uint8Array(end - offset);
      out.set(part, at - offset);
      at += part.length;
      // A chunk shorter than was asked for: the file has ended.
      if (at >= chunk.start + bytes.length && bytes.length < chunk.end - chunk.start) break;
    }
    return (out ?? new Uint8Array(0)).subarray(0, at - offset);
  }

  /** The chunk that holds the byte `at`, arrived. @param {number} at @param {number} end @returns {Promise<Chunk>} */
  async #chunkAt(at, end) {
    if (at < this.#head.end && !this.#head.failed) {
      await this.#head.done;
      return this.#head;
    }
    const planned = this.#chunks.findIndex(({ start, end, failed }) => start <= at && at < end && !failed);
    if (planned >= 0) {
      for (let i = 0; i < planned; i++) this.#release(); // not read after all
      const next = /** @type {Chunk} */ (this.#chunks[0]);
      this.#pump();
      await next.done;
      return next;
    }
    /** @type {Chunk} for this read alone */
    const chunk = { start: at, end };
    if (this.#inFlight > 0 && this.#stream) await Promise.allSettled(this.#chunks.map(({ done }) => done));
    await this.#fetch(chunk);
    return chunk;
  }

  #release() {
    const chunk = /** @type {Chunk} */ (this.#chunks.shift());
    if (!chunk.done) return this.#pump();
    this.#begun -= 1;
    this.#held -= chunk.end - chunk.start;
    this.#pump();
  }

  #pump() {
    const most = this.#stream ? 1 : REQUESTS;
    while (this.#inFlight < most && this.#begun < this.#chunks.length) {
      const chunk = /** @type {Chunk} */ (this.#chunks[this.#begun]);
      const size = chunk.end - chunk.start;
      if (this.#begun > 0 && this.#held + size > READ_AHEAD) return;
      this.#begun += 1;
      this.#held += size;
      this.#inFlight += 1;
      const chunks = this.#chunks;
      const over = (/** @type {boolean} */ well) => {
        if (chunks !== this.#chunks) return; // of an earlier plan
        this.#inFlight -= 1;
        if (well) this.#pump(); // after a final error nothing more is asked for, until somebody reads on
      };
      this.#fetch(chunk).then(() => over(true), () => over(false));
    }
  }

  /** @param {Chunk} chunk @param {Response} [response] */
  #fetch(chunk, response) {
    const buffer = new Uint8Array(chunk.end - chunk.start);
    const planned = this.#chunks.includes(chunk);
    let filled = 0;
    const sink = (/** @type {Uint8Array} */ bytes) => {
      buffer.set(bytes, filled);
      filled += bytes.length;
      if (!planned) return;
      this.#ahead += bytes.length;
      this.onProgress(this.#ahead);
    };
    const fill = async () => {
      if (this.#stream) await this.#stream.read(chunk.start, chunk.end, sink);
      else for await (const bytes of this.#download.bytes(chunk.start, chunk.end, { response, stop: this.#stop.signal })) sink(bytes);
      chunk.bytes = filled < buffer.length ? buffer.slice(0, filled) : buffer;
    };
    chunk.done = fill();
    chunk.done.catch(() => { chunk.failed = true; }); // told to who waits for it
    return chunk.done;
  }

  /** Forgets the plan. */
  #drop() {
    if (this.#inFlight > 0) {
      this.#stop.abort();
      this.#stop = new AbortController();
      this.#stream?.close();
    }
    this.#chunks = [];
    this.#begun = this.#inFlight = this.#held = this.#ahead = 0;
    this.#whole = false;
  }

  close() {
    this.#drop();
    this.#stop.abort();
    this.#stream?.close();
  }
}

/** A file that only comes from its beginning on; what breaks off is asked for again and skipped up to the byte reached. */
class Stream {
  #download;
  #stop = new AbortController();
  /** @type {AsyncGenerator<Uint8Array> | undefined} */
  #bytes;
  #at = 0;
  /** Arrived, not yet read. @type {Uint8Array} */
  #rest = new Uint8Array(0);

  /** @param {Download} download @param {Response} response */
  constructor(download, response) {
    this.#download = download;
    this.#bytes = download.bytes(0, Infinity, { response, stop: this.#stop.signal, whole: true });
  }

  /** Must not be called again before it ends. @param {number} start @param {number} end @param {(bytes: Uint8Array) => void} sink */
  async read(start, end, sink) {
    if (start < this.#at) this.close();
    this.#bytes ??= this.#download.bytes(0, Infinity, { stop: this.#stop.signal, whole: true });
    while (this.#at < end) {
      if (this.#rest.length === 0) {
        const { done, value } = await this.#bytes.next().catch((error) => {
          this.close();
          throw error;
        });
        if (done) return;
        this.#rest = value;
      }
      const from = Math.max(0, start - this.#at);
      const part = this.#rest.subarray(from, end - this.#at);
      const used = Math.min(this.#rest.length, end - this.#at);
      this.#rest = this.#rest.subarray(used);
      this.#at += used;
      if (part.length > 0) sink(part);
    }
  }

  /** The next read begins anew. */
  close() {
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#bytes = undefined;
    this.#at = 0;
    this.#rest = new Uint8Array(0);
  }
}
