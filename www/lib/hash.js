// Hashes by the browser's own code.

const encoder = new TextEncoder();

/** @param {Uint8Array} bytes @param {"SHA-1" | "SHA-256"} [algorithm] */
export async function hash(bytes, algorithm = "SHA-256") {
  return new Uint8Array(await crypto.subtle.digest(algorithm, /** @type {Uint8Array<ArrayBuffer>} */ (bytes)));
}

/** In lower case. @param {Uint8Array} bytes */
export const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** The name of the folder for what these words tell apart. @param {unknown[]} words */
export async function folderName(words) {
  return hex((await hash(encoder.encode(JSON.stringify(words)))).subarray(0, 16));
}
