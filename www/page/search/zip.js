// A zip of files as they are, without compression: pictures are compressed already. (PKWARE's APPNOTE 6.3.10, without its extensions.)

/** A zip without extensions holds no more. */
const MOST_BYTES = 0xffffffff;
const MOST_FILES = 0xffff;

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** @param {Uint8Array} bytes */
export function crc32(bytes) {
  let value = ~0;
  for (const byte of bytes) value = (TABLE[(value ^ byte) & 0xff] ?? 0) ^ (value >>> 8);
  return ~value >>> 0;
}

/** Numbers of two or four bytes, lowest first. @param {[bytes: 2 | 4, value: number][]} fields */
function record(fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [bytes]) => sum + bytes, 0)));
  let at = 0;
  for (const [bytes, value] of fields) {
    if (bytes === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += bytes;
  }
  return view.buffer;
}

/** When a file was changed, as DOS tells it, which begins in 1980. @param {number} time @returns {[time: number, date: number]} */
function dosTime(time) {
  const date = new Date(Math.max(time, Date.UTC(1980, 0, 2)));
  return [(date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1), ((date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate()];
}

/**
 * @param {AsyncIterable<{name: string, file: File}>} files names: paths, each once
 * @returns {Promise<Blob | undefined>} undefined: more than a zip holds
 */
export async function zip(files) {
  /** @type {BlobPart[]} */
  const parts = [];
  /** @type {BlobPart[]} */
  const directory = [];
  let [at, count, length] = [0, 0, 0];
  for await (const { name, file } of files) {
    const crc = crc32(new Uint8Array(await file.arrayBuffer()));
    const path = new TextEncoder().encode(name);
    const [time, date] = dosTime(file.lastModified);
    /** Version 2.0; names are UTF-8; stored. @type {[2 | 4, number][]} */
    const common = [[2, 20], [2, 0x0800], [2, 0], [2, time], [2, date], [4, crc], [4, file.size], [4, file.size], [2, path.length], [2, 0]];
    parts.push(record([[4, 0x04034b50], ...common]), path, file);
    directory.push(record([[4, 0x02014b50], [2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, at]]), path);
    at += 30 + path.length + file.size;
    length += 46 + path.length;
    count += 1;
    if (at + length > MOST_BYTES || count > MOST_FILES) return undefined;
  }
  return new Blob([...parts, ...directory, record([[4, 0x06054b50], [2, 0], [2, 0], [2, count], [2, count], [4, length], [4, at], [2, 0]])], { type: 'application/zip' });
}
