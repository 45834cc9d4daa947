// Starting module workers.
import { trusted } from "../trusted.js";

/**
 * Starts a worker. Its script must be of the page's own origin: for a page of another site that is a script in a blob which
 * imports ours; on our own site the plain address also passes a Content-Security-Policy with worker-src 'self'.
 * @param {() => Worker} start `new Worker(new URL(…, import.meta.url), {…})` and nothing else: bundlers know a worker by these words alone, and
 *   put the address of what they made of its script there. What the constructor is given is learned by standing in for it.
 * @returns {{worker: Worker, address: URL, end: () => void}} throws a WorkerFailure
 */
export function spawn(start) {
  const [given, options] = learn(start);
  const address = new URL(given, globalThis.location?.href);
  const foreign = isForeign(address);
  const script = options?.type === "module" ? `import ${JSON.stringify(address.href)};` : `importScripts(${JSON.stringify(address.href)});`;
  const blob = foreign ? URL.createObjectURL(new Blob([script], { type: "text/javascript" })) : "";
  const revoke = () => { if (blob) URL.revokeObjectURL(blob); };
  try {
    const worker = new Worker(trusted.script(blob || address.href), options);
    return { worker, address, end: () => { worker.terminate(); revoke(); } };
  } catch (error) {
    revoke();
    throw Object.assign(error, { address });
  }
}

/** @param {() => unknown} start @returns {[string | URL, WorkerOptions | undefined]} what it gives to the constructor */
function learn(start) {
  /** @type {any} */
  let given;
  const { Worker } = globalThis;
  // No other code runs in between.
  globalThis.Worker = /** @type {any} */ (function (/** @type {any[]} */ ...values) { given = values; });
  try {
    start();
  } finally {
    globalThis.Worker = Worker;
  }
  return given;
}

/** Whether an address is of another origin than this page or worker: all are to a sandboxed frame. @param {URL} url */
export function isForeign(url) {
  return url.origin !== globalThis.origin;
}
