// Files on the disk of Node.js.
import { SiglipError } from "../error.js";
import { node } from "../platform.js";

/** As much of a Blob as is needed here. @typedef {{size: number, lastModified: number, slice: (start: number, end: number) => Part, arrayBuffer: () => Promise<ArrayBuffer>}} Part */

/** @param {URL} address @returns {Promise<Part | undefined>} undefined: there is no such file */
export async function fileAt(address) {
  try {
    const found = await node?.files.stat(address);
    return found.isFile() ? part(address, 0, found.size, found.mtimeMs) : undefined;
  } catch (error) {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw new SiglipError("network", `${address.pathname} could not be read (${error.message}).`, { cause: error });
  }
}

/** @param {URL} address @param {number} start @param {number} end @param {number} lastModified @returns {Part} */
function part(address, start, end, lastModified) {
  return {
    size: end - start,
    lastModified,
    slice: (from, to) => part(address, start + from, Math.min(start + to, end), lastModified),
    async arrayBuffer() {
      const file = await node?.files.open(address);
      try {
        const bytes = new Uint8Array(end - start);
        for (let at = 0; at < bytes.length;) {
          const { bytesRead } = await file.read(bytes, at, bytes.length - at, start + at);
          if (bytesRead === 0) throw new Error("it became shorter");
          at += bytesRead;
        }
        return bytes.buffer;
      } finally {
        await file.close();
      }
    },
  };
}
