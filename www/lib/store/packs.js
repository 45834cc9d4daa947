// Many entries in few files: a browser's storage takes its time for each file, however small (Firefox tens of milliseconds).
// A pack is a row of records in the order in which they were put, which is the order in which a load asks for them: so packs are read ahead.
//   record  MAGIC, bytes of the key, bytes of the entry, check of these (u32 each, little-endian), key, entry; both filled up to whole words
// A record that is damaged or torn is as good as none, and costs no other one.

/** @typedef {import("./disks.js").Appender} Appender */
/** @typedef {import("./disks.js").Folder} Folder */

/** Begins the names of packs; what follows is their number. */
const PREFIX = "p-";
/** "swp" and the version. */
const MAGIC = 0x31707773;
/** Bytes before the key. */
const HEAD = 16;
/** A pack that has as many bytes is full. */
const FULL = 8 << 20;
/** Packs that are read before they are asked for. */
const AHEAD = 2;

const encoder = new TextEncoder();
const decoder = new TextDecoder();
/** @param {number} length in whole words, as bytes */
const whole = (length) => (length + 3) & ~3;
/** @param {number} key @param {number} entry their bytes */
const check = (key, entry) => (Math.imul(key ^ MAGIC, 0x9e3779b1) ^ Math.imul(entry, 0x85ebca6b)) >>> 0;

/** What comes before an entry in its record. @param {string} key @param {Uint8Array} entry */
function headOf(key, entry) {
  const name = encoder.encode(key);
  const bytes = new Uint8Array(HEAD + whole(name.length));
  const view = new DataView(bytes.buffer);
  [MAGIC, name.length, entry.length, check(name.length, entry.length)].forEach((word, i) => view.setUint32(4 * i, word, true));
  bytes.set(name, HEAD);
  return bytes;
}

/** @param {Uint8Array} pack @returns {Map<string, Uint8Array>} */
function entriesOf(pack) {
  const entries = new Map();
  const view = new DataView(pack.buffer, pack.byteOffset, pack.byteLength);
  let at = 0;
  while (at + HEAD <= pack.length) {
    const word = (/** @type {number} */ i) => view.getUint32(at + 4 * i, true);
    const [magic, name, size, sum] = [word(0), word(1), word(2), word(3)];
    const start = at + HEAD + whole(name);
    if (magic !== MAGIC || sum !== check(name, size) || start + size > pack.length) {
      at += 4; // to the next record that is one
      continue;
    }
    entries.set(decoder.decode(pack.subarray(at + HEAD, at + HEAD + name)), pack.subarray(start, start + size));
    at = start + whole(size);
  }
  return entries;
}

/** The packs of a folder. One at a time may use it. */
export class Packs {
  #folder;
  #limited;
  /** @type {string[]} */
  #names;
  /** What is read, or being read. @type {Map<number, Promise<Map<string, Uint8Array>>>} */
  #read = new Map();
  /** The pack that has a key. @type {Map<string, number>} */
  #where = new Map();
  /** Packs from this one on have yet to be looked into. */
  #next = 0;
  /** @type {{appender: Appender, length: number} | undefined} the last pack, while it grows */
  #growing;
  #ended = false;

  /**
   * @param {Folder} folder @param {string[]} names of all that it holds
   * @param {<T>(work: Promise<T>, bytes?: number) => Promise<T>} limited
   */
  constructor(folder, names, limited) {
    this.#folder = folder;
    this.#limited = limited;
    this.#names = names.filter((name) => name.startsWith(PREFIX)).sort();
  }

  /** Reads what will be asked for first. */
  begin() {
    if (this.#names.length > 0) this.#entries(0);
  }

  /** @param {string} key */
  async get(key) {
    let number = this.#where.get(key);
    while (number === undefined && this.#next < this.#names.length) {
      const entries = await this.#entries(this.#next);
      for (const name of entries.keys()) if (!this.#where.has(name)) this.#where.set(name, this.#next);
      this.#next += 1;
      number = this.#where.get(key);
    }
    return number === undefined ? undefined : (await this.#entries(number)).get(key);
  }

  /** Whether a pack has this key, of those that were looked into. @param {string} key */
  has(key) {
    return this.#where.has(key);
  }

  /** @param {string} key of no entry yet @param {Uint8Array} entry */
  async put(key, entry) {
    // Not copied into one: new memory for each of hundreds of megabytes takes its time.
    const parts = [headOf(key, entry), entry, new Uint8Array(whole(entry.length) - entry.length)];
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    if (this.#growing && this.#growing.length + length > FULL) this.close();
    if (!this.#growing) {
      const last = this.#names.at(-1);
      const name = PREFIX + String(last === undefined ? 0 : Number(last.slice(PREFIX.length)) + 1).padStart(6, "0");
      const appender = await this.#folder.append(name);
      if (this.#ended) return appender?.close(); // too late
      // What comes into it is known.
      if (this.#next === this.#names.length) this.#next += 1;
      this.#names.push(name);
      if (appender) this.#growing = { appender, length: 0 };
      else await this.#folder.write(name, new Uint8Array(await new Blob(/** @type {BlobPart[]} */ (parts)).arrayBuffer()));
    }
    if (this.#growing) {
      for (const part of parts) this.#growing.appender.write(part);
      this.#growing.length += length;
    }
    this.#where.set(key, this.#names.length - 1);
  }

  /** Removes the pack that has this key. @param {string} key */
  async remove(key) {
    const number = this.#where.get(key);
    if (number === undefined) return;
    this.close();
    for (const [key, of] of this.#where) if (of === number) this.#where.delete(key);
    this.#read.delete(number);
    await this.#folder.remove(/** @type {string} */ (this.#names[number]));
  }

  /** The pack that grew is whole. */
  close() {
    const growing = this.#growing;
    this.#growing = undefined;
    growing?.appender.close();
  }

  /** Nothing more is put, not even what is being put: nobody waits for it any more. */
  end() {
    this.#ended = true;
    this.close();
  }

  /** Those of a pack; the next ones are read meanwhile. @param {number} number @returns {Promise<Map<string, Uint8Array>>} */
  #entries(number) {
    if (this.#growing && number + AHEAD >= this.#names.length - 1) this.close();
    for (let i = number; i <= number + AHEAD && i < this.#names.length; i++) {
      if (!this.#read.has(i)) this.#read.set(i, this.#load(/** @type {string} */ (this.#names[i])));
    }
    // So much is held and no more.
    for (const i of this.#read.keys()) if (i < number || i > number + AHEAD) this.#read.delete(i);
    return /** @type {Promise<Map<string, Uint8Array>>} */ (this.#read.get(number));
  }

  /** What can't be read isn't there. @param {string} name */
  async #load(name) {
    const pack = await this.#limited(this.#folder.read(name), FULL).catch(() => undefined);
    return entriesOf(pack ?? new Uint8Array());
  }
}
