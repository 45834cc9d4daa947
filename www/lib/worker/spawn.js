// Starting module workers.

/**
 * Starts a worker. Its script must be of the page's own origin: for a page of another site that is a script in a blob which
 * imports ours; on our own site the plain address also passes a Content-Security-Policy with worker-src 'self'.
 * @param {URL} url of the script
 * @param {() => Worker} start starts it from its plain address; written out by the caller, so that bundlers see the file
 * @param {string} [name]
 * @returns {{worker: Worker, end: () => void}}
 */
export function spawn(url, start, name) {
  const foreign = isForeign(url);
  const blob = foreign ? URL.createObjectURL(new Blob([`import ${JSON.stringify(url.href)};`], { type: "text/javascript" })) : "";
  const worker = foreign ? new Worker(blob, { type: "module", name }) : start();
  const end = () => {
    worker.terminate();
    if (blob) URL.revokeObjectURL(blob);
  };
  return { worker, end };
}

/** @param {URL} url */
export function isForeign(url) {
  return url.origin !== self.location.origin;
}
