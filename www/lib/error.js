// The one error of the library: a stable code to branch on, a message to show a person.

/** @typedef {import("./siglip-web.d.ts").SiglipErrorCode} SiglipErrorCode */

/** The words `code` can be; the same as in the Rust crate. */
const CODES = ["bad-input", "bad-image", "bad-model", "network", "aborted", "unsupported", "out-of-memory", "device-lost", "disposed"];

export class SiglipError extends Error {
  /** @type {"SiglipError"} */
  name = "SiglipError";

  /** @param {SiglipErrorCode} code @param {string} message @param {ErrorOptions} [options] */
  constructor(code, message, options) {
    super(message, options);
    /** @readonly @type {SiglipErrorCode} */
    this.code = code;
  }
}

/**
 * Any thrown value as a SiglipError. What already has one of our codes keeps it (WebAssembly and a worker
 * throw plain objects); the browser's own errors are sorted by what they mean to the caller.
 * @param {any} error
 * @param {SiglipErrorCode} [otherwise] the code of an error that says nothing about itself
 * @returns {SiglipError}
 */
export function siglipError(error, otherwise = "device-lost") {
  if (error instanceof SiglipError) return error;
  const message = String(error?.message ?? error);
  if (CODES.includes(error?.code)) return Object.assign(new SiglipError(error.code, message), error.beyondRepair && { beyondRepair: true });
  if (error?.name === "AbortError") return aborted();
  if (error instanceof RangeError && /memory|allocat|array (buffer|length)|typed array/i.test(message)) {
    return new SiglipError("out-of-memory", `Memory ran out (${message}). Close other tabs, or use a smaller picture or model.`, { cause: error });
  }
  return new SiglipError(otherwise, message, { cause: error });
}

/** @param {AbortSignal} [signal] @returns {SiglipError} */
export function aborted(signal) {
  return new SiglipError("aborted", "Stopped because the caller's AbortSignal asked for it.", { cause: signal?.reason });
}
