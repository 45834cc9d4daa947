// Starting module workers.
import { node } from "../platform.js";
import { trusted } from "../trusted.js";

/** As much of a Worker as is needed here. @typedef {Pick<Worker, "postMessage" | "onmessage" | "onerror">} WorkerLike */

/**
 * Starts a worker. Its script must be of the page's own origin: for a page of another site that is a script in a blob, or in a data: address, which
 * imports ours; on our own site the plain address also passes a Content-Security-Policy with worker-src 'self'.
 * @param {() => Worker} start `new Worker(new URL(…, import.meta.url), {…})` and nothing else: bundlers know a worker by these words alone, and
 *   put the address of what they made of its script there. What the constructor is given is learned by standing in for it.
 * @returns {{worker: WorkerLike, address: URL, end: () => void}} throws a WorkerFailure
 */
export function spawn(start) {
  const [given, options] = learn(start);
  const address = new URL(given, globalThis.location?.href);
  if (node) return spawnInNode(address);
  const foreign = isForeign(address);
  const script = options?.type === "module" ? `import ${JSON.stringify(address.href)};` : `importScripts(${JSON.stringify(address.href)});`;
  // A page without an origin of its own (a sandboxed frame) may start no worker from a blob in some browsers.
  const blob = foreign && globalThis.origin !== "null" ? URL.createObjectURL(new Blob([script], { type: "text/javascript" })) : "";
  const revoke = () => { if (blob) URL.revokeObjectURL(blob); };
  try {
    const worker = new Worker(trusted.script(blob || (foreign ? `data:text/javascript,${encodeURIComponent(script)}` : address.href)), options);
    return { worker, address, end: () => { worker.terminate(); revoke(); } };
  } catch (error) {
    revoke();
    throw Object.assign(error, { address });
  }
}

/** @param {URL} address */
function spawnInNode(address) {
  const thread = new /** @type {any} */ (node).threads.Worker(address);
  /** @type {any} */
  const worker = { postMessage: (/** @type {any} */ message, /** @type {any} */ transfer) => thread.postMessage(message, transfer), onmessage: null, onerror: null };
  thread.on("message", (/** @type {any} */ data) => worker.onmessage?.({ data }));
  const over = (/** @type {string} */ message) => worker.onerror?.({ message, preventDefault() {} });
  thread.on("error", (/** @type {Error} */ { message }) => over(message));
  thread.on("exit", (/** @type {number} */ code) => over(`its thread ended with code ${code}`));
  // A process may end while nothing is asked of its threads; whoever waits for an answer holds it: see Link.
  thread.unref();
  const end = () => {
    worker.onmessage = worker.onerror = null;
    thread.terminate();
  };
  return { worker, address, end };
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
