// What a page, a worker and Node.js have under different names, or not at all.

/** @type {any} */
const { process } = globalThis;

/**
 * Node.js's own modules, asked for in a way that no bundler follows; nothing in a browser.
 * @type {Record<string, any> | undefined}
 */
export const node = typeof document === "undefined" && !("WorkerGlobalScope" in globalThis) && process?.getBuiltinModule
  ? Object.fromEntries(Object.entries({ threads: "worker_threads", files: "fs/promises", url: "url", path: "path", os: "os" }).map(([name, module]) => [name, process.getBuiltinModule(`node:${module}`)]))
  : undefined;

/** Where a worker's messages come from and go to. @type {{postMessage: (message: any, transfer?: Transferable[]) => void, onmessage: ((event: MessageEvent) => void) | null}} */
export const port = node?.threads?.parentPort ?? globalThis;

/** What relative addresses are relative to; of Node.js, the working folder. */
export function baseAddress() {
  return globalThis.document?.baseURI ?? globalThis.location?.href ?? (node && node.url.pathToFileURL(`${process.cwd()}/`).href);
}

/** What a text means as an address. In Node.js it may be a path, which may hold #, ? and %, or begin with a drive's letter. @param {string} text */
export function addressOf(text) {
  return node && !/^[a-z][a-z\d+.-]+:/i.test(text) ? new URL(node.url.pathToFileURL(node.path.resolve(text))) : new URL(text, baseAddress());
}

/** Whether an address is one that can be read from here. @param {URL} address */
export function readable({ protocol }) {
  return ["http:", "https:", "blob:", globalThis.location?.protocol, node && "file:"].includes(protocol);
}

/** Whether an address is that of a file on the disk, for Node.js. @param {string | URL} address */
export function isFile(address) {
  return node !== undefined && String(address).startsWith("file:");
}

/**
 * Hears of this thread's uncaught errors.
 * @param {(error: any) => boolean} caught whether the error is dealt with
 * @returns {() => void} ends it
 */
export function onUncaught(caught) {
  if (node) {
    const heard = (/** @type {any} */ error) => { if (!caught(error)) throw error; };
    const kinds = ["uncaughtException", "unhandledRejection"];
    for (const kind of kinds) process.on(kind, heard);
    return () => { for (const kind of kinds) process.off(kind, heard); };
  }
  const heard = (/** @type {any} */ event) => { if (caught(event.error ?? event.reason)) event.preventDefault(); };
  const kinds = ["error", "unhandledrejection"];
  for (const kind of kinds) globalThis.addEventListener(kind, heard);
  return () => { for (const kind of kinds) globalThis.removeEventListener(kind, heard); };
}

/** The listener's own mistakes are reported as such, and stop nothing. @param {Function | null | undefined} listener @param {any[]} given */
export function tell(listener, ...given) {
  try {
    listener?.(...given);
  } catch (error) {
    if (globalThis.reportError) globalThis.reportError(error);
    else console.error(error);
  }
}

/** How many threads this device runs at once. */
export function processors() {
  return node?.os.availableParallelism() ?? (globalThis.navigator?.hardwareConcurrency || 1);
}

/** Whether this thread may share memory with others, and wait for them. */
export function sharesMemory() {
  return node ? !node.threads.isMainThread : globalThis.crossOriginIsolated && typeof Window === "undefined";
}
