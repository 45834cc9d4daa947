// The pictures of an index, in its worker: what is known of each, its row, and the files that all of it is kept in.
//
// A line of the log, in JSON, is [row, sum, id, size, modified] for a picture that was put into a row, `sum` being its embedding's checksum;
// [REMOVED, 0, id] for one that went; [FAILED, 0, id, size, modified, code, message] for one that can't be read. Each begins with its own checksum.
import { SiglipError } from "../error.js";
import { badInput } from "../client/arguments.js";
import { Files, HEAD, Memory, folderOf, idOf, listIndexes, removeIndex, writeAbout } from "./disk.js";
import { write } from "./safetensors.js";

/** @typedef {import("../siglip-index.d.ts").Hit} Hit */
/** @typedef {import("../siglip-index.d.ts").IndexEntry} IndexEntry */
/** @typedef {import("../siglip-index.d.ts").Unreadable} Unreadable */
/** @typedef {import("../ports.d.ts").SearchGlue} SearchGlue */
/** @typedef {{id: string, size?: number, modified?: number}} Known */
/** @typedef {Known & {vector: Float32Array}} Put */
/** @typedef {Known & Pick<Unreadable, "code" | "message">} Failed */
/** `words`: one unit vector after the other. @typedef {{words: Float32Array, minus: Uint8Array, pictures?: Float32Array, scale: number, bias: number, limit: number, minScore: number}} Question */
/** @typedef {{name: string, model: string, dtype: string, fingerprint: string, embeddingSize: number, memory: boolean, again: boolean}} Wish */
/** @typedef {{size: number, kept: boolean, keptReason: string, damaged: number}} Status */
/** @typedef {Known & {row: number, sum: number}} Place */

const [REMOVED, FAILED, GENERATION] = [-1, -2, -3];
/** Lines beyond twice as many as are needed: then the log is written anew. */
const LINES = 1000;
/** Rows that an export reads at a time. */
const ROWS = 1024;
const [NEWLINE, SPACE, COMMA] = [10, 32, 44];
const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class Keeper {
  #glue;
  #memory;
  #search;
  #size;
  /** @type {Memory | Files} */
  #disk;
  /** @type {Map<string, Place>} */
  #places = new Map();
  /** What is in each row. @type {(string | undefined)[]} */
  #ids = [];
  /** Rows to be used again. @type {number[]} */
  #free = [];
  /** @type {Map<string, Failed>} */
  #failed = new Map();
  /** Ids that were given since `begin`. @type {Set<string>} */
  #seen = new Set();
  /** Lines of the log. */
  #lines = 0;
  /** Damaged ones that were found, and aren't there again. @type {Set<string>} */
  #damaged = new Set();
  /** Lines that were damaged: of which picture is unknown. */
  #lost = 0;

  /** @param {SearchGlue} glue @param {WebAssembly.Memory} memory of the module @param {number} size numbers in an embedding */
  constructor(glue, memory, size) {
    this.#glue = glue;
    this.#memory = memory;
    this.#search = new glue.Search(size);
    this.#size = size;
    this.#disk = new Memory(size, "The index isn't kept, as it was asked.");
  }

  /** @returns {Status} */
  get status() {
    return { size: this.#places.size, kept: this.#disk.kept, keptReason: this.#disk.reason, damaged: this.#damaged.size + this.#lost };
  }

  /** @param {Wish} wish @returns {Promise<{id: string, pipeline: number}>} `id`: of what is kept; empty where nothing is */
  async open({ name, model, dtype, fingerprint, memory, again }) {
    const { pipeline } = this.#search;
    if (memory) return { id: "", pipeline };
    const about = { name, model, dtype, fingerprint, pipeline };
    let id = "";
    try {
      if (!globalThis.navigator?.storage?.getDirectory) throw new Error(globalThis.isSecureContext ? "this browser offers none" : "it takes a secure page: https: or localhost");
      if (typeof FileSystemFileHandle === "undefined" || !("createSyncAccessHandle" in FileSystemFileHandle.prototype)) throw new Error("this browser writes no files of a page's own");
      id = await idOf(about);
      const others = (await listIndexes()).filter((other) => other.name === name && other.id !== id);
      const known = await folderOf(id, false).catch(() => undefined);
      const [other] = others;
      if (other && !known && !again) throw badInput(`The index ${JSON.stringify(name)} was made by ${other.model} (${other.dtype}${other.pipeline === pipeline ? "" : ", another version of the library"}), and this model is ${model} (${dtype}): their embeddings don't compare. Open it with that model, take another name, or pass again: true to give it up and index the pictures again.`);
      if (again) await Promise.all(others.map((one) => removeIndex(one.id)));
      const folder = known ?? (await folderOf(id, true));
      if (!known) await writeAbout(folder, about);
      this.#disk = await Files.open(folder, this.#size, this.#search.stride);
      await this.refresh();
    } catch (error) {
      if (error instanceof SiglipError) throw error;
      this.#forget();
      id = "";
      this.#disk = new Memory(this.#size, `The page's storage can't be used (${error.message}), so the index is in memory, and gone with the page: export it to keep it.`);
    }
    return { id, pipeline };
  }

  /** Before writing, with the index's lock: what others wrote meanwhile is read. */
  async hold() {
    await this.#disk.hold();
    await this.refresh();
    if (!(this.#disk instanceof Files) || !this.#disk.kept) return;
    const needed = this.#places.size + this.#failed.size;
    if (this.#disk.generation === 0 || this.#lost > 0 || this.#lines > 2 * needed + LINES) await this.#rewrite();
  }

  /** Lets others write. */
  leave() {
    this.#disk.leave();
  }

  /** Closes the files: then others may remove them. */
  end() {
    this.#disk.end();
  }

  /** What others wrote is read. @returns {Promise<boolean>} whether there was anything */
  async refresh() {
    if (!(this.#disk instanceof Files)) return false;
    const { begun, bytes } = await this.#disk.readLog((head) => this.#generationOf(head));
    if (!begun && bytes.length === 0) return false;
    if (begun) this.#forget();
    const { sound, lost } = soundLines(bytes, this.#glue.soundLines(bytes));
    this.#lost += lost;
    this.#lines += sound.length + lost;
    for (const line of sound) this.#apply(line);
    const changed = begun ? [...this.#places.values()] : [...new Set(sound.map(([, , id]) => id))].flatMap((id) => this.#places.get(id) ?? []);
    await this.#load(changed, begun);
    return true;
  }

  /** @param {Uint8Array} head @returns {number | undefined} */
  #generationOf(head) {
    const [from, to] = this.#glue.soundLines(head);
    if (from === undefined) return undefined;
    const [kind, generation] = JSON.parse(decoder.decode(head.subarray(from, to)));
    return kind === GENERATION ? generation : undefined;
  }

  /** @param {any[]} line */
  #apply([row, sum, id, size, modified, code, message]) {
    const before = this.#places.get(id);
    if (before && before.row !== row) this.#release(before.row);
    if (row < 0) {
      this.#places.delete(id);
      if (row === FAILED) this.#failed.set(id, { id, size: size ?? undefined, modified: modified ?? undefined, code, message });
      else this.#failed.delete(id);
      this.#damaged.delete(id);
      return;
    }
    // Only where the line that freed the row was damaged.
    const other = this.#ids[row];
    if (other !== undefined && other !== id) this.#places.delete(other);
    for (let i = this.#ids.length; i < row; i++) this.#free.push(i);
    const at = this.#free.lastIndexOf(row);
    if (at >= 0) this.#free.splice(at, 1);
    this.#ids[row] = id;
    this.#places.set(id, { id, row, sum, size: size ?? undefined, modified: modified ?? undefined });
    this.#failed.delete(id);
    this.#damaged.delete(id);
  }

  /** @param {number} row */
  #release(row) {
    this.#ids[row] = undefined;
    this.#free.push(row);
    if (row < this.#rows) this.#search.freeRow(row);
  }

  /** Rows that the module has. */
  #rows = 0;

  /** @param {number} count */
  #room(count) {
    if (count <= this.#rows) return;
    this.#search.resize(count);
    this.#rows = count;
  }

  /** A row's memory, or that of a whole chunk. @param {number} row @param {number} count */
  #view(row, count) {
    const { chunk, stride } = this.#search;
    return new Uint8Array(this.#memory.buffer, this.#search.address(Math.floor(row / chunk)) + (row % chunk) * stride, count * stride);
  }

  /** Reads the rows of these places, and checks them. @param {Place[]} places @param {boolean} all whether there are no others */
  async #load(places, all) {
    const disk = /** @type {Files} */ (this.#disk);
    this.#room(this.#ids.length);
    const { chunk } = this.#search;
    if (all) {
      const count = Math.min(await disk.count(), this.#ids.length);
      const parts = [];
      for (let row = 0; row < count; row += chunk) parts.push({ row, into: () => this.#view(row, Math.min(chunk, count - row)) });
      await disk.readRows(parts);
      for (const row of this.#free) this.#search.freeRow(row);
    } else {
      await disk.readRows(places.map(({ row }) => ({ row, into: () => this.#view(row, 1) })));
    }
    if (places.length === 0) return;
    const first = places.reduce((least, { row }) => Math.min(least, row), Infinity);
    const sums = this.#search.sums(first);
    for (const place of places.filter(({ row, sum }) => sums[row - first] !== sum)) {
      const vector = await disk.read([place.row]);
      // The embedding itself may be sound.
      if (this.#search.checksums(vector)[0] === place.sum) this.#search.set(place.row, vector);
      else this.#drop(place);
    }
  }

  /** A damaged one: it is as if it were new. @param {Place} place */
  #drop({ id, row }) {
    this.#places.delete(id);
    this.#release(row);
    this.#damaged.add(id);
  }

  #forget() {
    this.#search.resize(0);
    this.#rows = 0;
    this.#lines = 0;
    this.#lost = 0;
    this.#ids = [];
    this.#free = [];
    this.#places.clear();
    this.#failed.clear();
    this.#damaged.clear();
  }

  /** @param {unknown[]} line */
  #sealed(line) {
    const text = JSON.stringify(line);
    return `${this.#glue.lineSum(encoder.encode(text))} ${text}\n`;
  }

  /** A log of what is needed alone. */
  async #rewrite() {
    const lines = [...[...this.#places.values()].map(lineOf), ...[...this.#failed.values()].map(failedLine)].map((line) => this.#sealed(line));
    await /** @type {Files} */ (this.#disk).rewriteLog(lines, (generation) => {
      const sealed = this.#sealed([GENERATION, generation]);
      // Spaces behind its text would change its checksum: they are a line of their own.
      return `${sealed}${" ".repeat(HEAD - sealed.length - 1)}\n`;
    });
    [this.#lines, this.#lost] = [lines.length, 0];
  }

  begin() {
    this.#seen.clear();
  }

  /** What is known of pictures: whether they are here as they are, or why they can't be. @param {Known[]} pictures @returns {Promise<("new" | "same" | Failed)[]>} */
  async compare(pictures) {
    const same = (/** @type {Known | undefined} */ known, /** @type {Known} */ { size, modified }) => known && known.size === size && known.modified === modified;
    const places = pictures.flatMap((picture) => {
      const place = this.#places.get(picture.id);
      return place && same(place, picture) ? [place] : [];
    });
    await this.#check(places);
    return pictures.map((picture) => {
      this.#seen.add(picture.id);
      if (same(this.#places.get(picture.id), picture)) return "same";
      const failed = this.#failed.get(picture.id);
      return failed && same(failed, picture) ? failed : "new";
    });
  }

  /** Drops those whose embedding is no longer what was put there. @param {Place[]} places */
  async #check(places) {
    if (places.length === 0) return;
    const sorted = places.toSorted((a, b) => a.row - b.row);
    const sums = this.#search.checksums(await this.#disk.read(sorted.map(({ row }) => row)));
    sorted.forEach((place, i) => {
      if (sums[i] !== place.sum) this.#drop(place);
    });
  }

  /** @param {Put[]} records */
  async put(records) {
    // The last one of an id that comes twice.
    const unique = [...new Map(records.map((record) => [record.id, record])).values()];
    /** @type {any[][]} */
    const lines = [];
    const rows = unique.map(({ id, size, modified, vector }) => {
      const row = this.#free.pop() ?? this.#ids.length;
      if (row === this.#ids.length) this.#ids.push(undefined);
      if (row >= this.#rows) this.#room(row + 1);
      lines.push(lineOf({ row, sum: this.#search.set(row, vector), id, size, modified }));
      return { row, vector };
    });
    await this.#write(rows, lines);
  }

  /** @param {Failed[]} records */
  async fail(records) {
    await this.#write([], records.map(failedLine));
  }

  /** @param {string[]} ids @returns {Promise<number>} */
  async remove(ids) {
    const known = [...new Set(ids)].filter((id) => this.#places.has(id) || this.#failed.has(id));
    const count = known.filter((id) => this.#places.has(id)).length;
    await this.#write([], known.map((id) => [REMOVED, 0, id]));
    return count;
  }

  /** @param {{row: number, vector: Float32Array}[]} records @param {any[][]} lines */
  async #write(records, lines) {
    const freed = lines.flatMap(([, , id]) => this.#places.get(id)?.row ?? []);
    await this.#disk.write(records, (row) => this.#search.row(row), lines.map((line) => this.#sealed(line)), freed);
    // Only now may rows that became free be written over.
    for (const line of lines) this.#apply(line);
    this.#lines += lines.length;
  }

  /**
   * Drops what wasn't given since `begin`.
   * @param {string[] | undefined} folders of these alone @param {string[]} closed but not of these @returns {Promise<number>}
   */
  dropUnseen(folders, closed) {
    const inside = (/** @type {string} */ id, /** @type {string[]} */ folders) => folders.some((folder) => id.startsWith(folder));
    const gone = [...this.#places.keys(), ...this.#failed.keys()].filter((id) => !this.#seen.has(id) && (!folders || inside(id, folders)) && !inside(id, closed));
    return this.remove(gone);
  }

  async clear() {
    this.#forget();
    if (this.#disk instanceof Memory) return this.#disk.clear();
    await this.#rewrite();
    this.#disk.truncate();
  }

  /** @returns {IndexEntry[]} */
  entries() {
    return [...this.#places.values()].map(entryOf);
  }

  /** @returns {Unreadable[]} */
  unreadable() {
    return [...this.#failed.values()].map(({ id, code, message }) => ({ id, code, message }));
  }

  /** @param {string[]} ids */
  async vectors(ids) {
    await this.#check(ids.flatMap((id) => this.#places.get(id) ?? []));
    const all = await this.#disk.read(ids.map((id) => this.#places.get(id)?.row ?? 0));
    return ids.map((id, i) => (this.#places.has(id) ? all.slice(i * this.#size, (i + 1) * this.#size) : undefined));
  }

  /** @param {Record<string, string>} metadata */
  async export(metadata) {
    /** @type {BlobPart[]} */
    const parts = [];
    const places = [...this.#places.values()];
    for (let first = 0; first < places.length; first += ROWS) {
      const some = places.slice(first, first + ROWS);
      await this.#check(some);
      const sound = some.filter(({ id }) => this.#places.has(id)).map(({ row }) => row);
      // Into a blob, which browsers put on the disk.
      parts.push(new Blob([/** @type {Float32Array<ArrayBuffer>} */ (await this.#disk.read(sound))]));
    }
    return write(this.entries(), parts, this.#size, metadata);
  }

  /** @param {Question} question @returns {Promise<Hit[]>} */
  async search({ words, minus, pictures, scale, bias, limit, minScore }) {
    const rows = this.#search.ask(words, minus, pictures, scale, bias, limit);
    const numbers = this.#search.answer(await this.#disk.read(rows));
    const scored = new Set();
    /** @type {Hit[]} */
    const hits = [];
    for (let i = 0; i < numbers.length; i += 4) {
      const [row, score, logit, cosine] = /** @type {[number, number, number, number]} */ (/** @type {unknown} */ (numbers.subarray(i, i + 4)));
      scored.add(row);
      const place = this.#places.get(this.#ids[row] ?? "");
      if (!place || score < minScore || hits.length >= limit) continue;
      hits.push({ ...entryOf(place), score, logit, cosine });
    }
    if (numbers.length < 4 * rows.length && !(await this.refresh())) {
      // Nobody else wrote these rows: they are damaged.
      for (const row of rows) {
        const place = this.#places.get(this.#ids[row] ?? "");
        if (!scored.has(row) && place) this.#drop(place);
      }
    }
    return hits;
  }
}

/**
 * The lines of a log that are sound, and how many aren't. All are parsed as one array, many times quicker than one by one: what isn't JSON in `bytes`
 * becomes spaces, and line ends become commas.
 * @param {Uint8Array} bytes written over @param {Uint32Array} places where the JSON of each sound line begins and ends
 * @returns {{sound: any[][], lost: number}}
 */
function soundLines(bytes, places) {
  let [end, lost] = [0, 0];
  for (let i = 0; i <= places.length; i += 2) {
    const begin = places[i] ?? bytes.length;
    for (let at = end; at < begin; at++) {
      if (bytes[at] === NEWLINE) lost += 1;
      bytes[at] = SPACE;
    }
    if (i === places.length) break;
    end = /** @type {number} */ (places[i + 1]);
    bytes[end++] = COMMA;
  }
  const text = decoder.decode(bytes).trimEnd();
  return { sound: JSON.parse(`[${text.slice(0, -1)}]`), lost };
}

/** What isn't known is left out. @param {Place} place @returns {IndexEntry} */
function entryOf({ id, size, modified }) {
  return { id, ...(size !== undefined && { size }), ...(modified !== undefined && { modified }) };
}

/** @param {Place} place */
function lineOf({ row, sum, id, size, modified }) {
  return [row, sum, id, size ?? null, modified ?? null];
}

/** @param {Failed} failed */
function failedLine({ id, size, modified, code, message }) {
  return [FAILED, 0, id, size ?? null, modified ?? null, code, message];
}
