// An index as a safetensors file: the form that the Rust crate and other programs read and write.
import { badInput } from "../client/arguments.js";

/** Of what such a file holds. */
export const FORMAT = "siglip-web index 1";
/** By how much the length of an embedding may differ from 1: see `is_unit` in src/classifier/labels.rs. */
const LENGTH_ERROR = 1e-3;
/** Of the header alone: that of an index has a few hundred bytes. */
const LONGEST_HEADER = 1 << 20;

/** @typedef {import("../siglip-index.d.ts").IndexEntry} IndexEntry */
/** @typedef {Record<string, string>} Metadata */

/** @param {IndexEntry[]} entries @param {BlobPart[]} vectors in their order @param {number} size numbers in an embedding @param {Metadata} metadata */
export function write(entries, vectors, size, metadata) {
  const listed = new TextEncoder().encode(JSON.stringify(entries));
  const bytes = 4 * size * entries.length;
  const header = JSON.stringify({
    __metadata__: { format: FORMAT, ...metadata },
    embeddings: { dtype: "F32", shape: [entries.length, size], data_offsets: [0, bytes] },
    entries: { dtype: "U8", shape: [listed.length], data_offsets: [bytes, bytes + listed.length] },
  });
  // The header's length is a multiple of eight, so that numbers are aligned.
  const text = new TextEncoder().encode(header.padEnd(header.length + ((8 - (new TextEncoder().encode(header).length % 8)) % 8)));
  const length = new DataView(new ArrayBuffer(8));
  length.setBigUint64(0, BigInt(text.length), true);
  return new Blob([length, text, ...vectors, listed], { type: "application/octet-stream" });
}

/**
 * @param {Blob} file
 * @returns {Promise<{metadata: Metadata, size: number, entries: IndexEntry[], rows: (first: number, count: number) => Promise<Float32Array>}>}
 */
export async function read(file) {
  const damaged = (/** @type {string} */ why) => badInput(`The file is no index of siglip-web, or it is damaged: ${why}. Export it again.`);
  const bytesAt = async (/** @type {number} */ from, /** @type {number} */ to) => {
    if (to > file.size) throw damaged(`it ends after ${file.size} bytes, and ${to} are needed`);
    return file.slice(from, to).arrayBuffer();
  };
  const length = Number(new DataView(await bytesAt(0, 8)).getBigUint64(0, true));
  if (length > LONGEST_HEADER) throw damaged("it doesn't begin as a safetensors file does");
  const header = parsed(await bytesAt(8, 8 + length), "its header", damaged);
  const { __metadata__: metadata = {}, embeddings, entries: list } = header ?? {};
  if (metadata.format !== FORMAT) throw damaged(`its metadata says format ${JSON.stringify(metadata.format)}, not ${JSON.stringify(FORMAT)}`);
  const [count, size] = embeddings?.shape ?? [];
  const [from, to] = embeddings?.data_offsets ?? [];
  if (embeddings?.dtype !== "F32" || !Number.isSafeInteger(count) || !Number.isSafeInteger(size) || to - from !== 4 * count * size) throw damaged("it has no embeddings of F32");
  if (list?.dtype !== "U8" || !(list.data_offsets?.[0] <= list.data_offsets?.[1])) throw damaged("it has no entries of U8");
  const data = 8 + length;
  const entries = parsed(await bytesAt(data + list.data_offsets[0], data + list.data_offsets[1]), "its list of entries", damaged);
  if (!Array.isArray(entries) || entries.length !== count) throw damaged(`it has ${count} embeddings and ${entries?.length} entries`);
  if (data + to > file.size) throw damaged("embeddings are missing at its end");
  const rows = async (/** @type {number} */ first, /** @type {number} */ some) => {
    const numbers = new Float32Array(await bytesAt(data + from + 4 * size * first, data + from + 4 * size * (first + some)));
    for (let i = 0; i < some; i++) {
      const squares = numbers.subarray(i * size, (i + 1) * size).reduce((sum, value) => sum + value * value, 0);
      if (!(Math.abs(Math.sqrt(squares) - 1) < LENGTH_ERROR)) throw damaged(`embedding ${first + i + 1} has not the length 1`);
    }
    return numbers;
  };
  return { metadata, size, entries, rows };
}

/** @param {ArrayBuffer} bytes @param {string} what @param {(why: string) => Error} damaged @returns {any} */
function parsed(bytes, what, damaged) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw damaged(`${what} is not JSON (${error.message})`);
  }
}
