// Keeps the page for when there is no network: its own files and the demo model, nothing else. The library registers no service worker; this
// one belongs to the page. All that a page is made of comes from one version (offline.js lists its files with their hashes), never half
// from an older one: what the server has replaced meanwhile is refused by its hash.
importScripts("offline.js");

/**
 * What offline.js brings: the page's files, each with its hash (as `integrity` takes it) and whether it is kept at once; and their version.
 * @typedef {{FILES: Record<string, [integrity: string, atOnce: boolean]>, VERSION: string}} Offline
 */
const worker = /** @type {ServiceWorkerGlobalScope & Offline} */ (/** @type {unknown} */ (self));
const { FILES, VERSION } = worker;
const SCOPE = worker.registration.scope;
/** One origin may have several sites. */
const PREFIX = `siglip-web-page ${new URL(SCOPE).pathname} `;
const CACHE = PREFIX + VERSION;
/** How long storage may take. In ms. */
const LONGEST = 5000;
/** Where a picture waits that another app has shared with the page. */
const SHARED = new URL("shared-picture", SCOPE).href;
/** The same picture, for when there is no room to keep it. The browser may end this worker before the page asks. @type {File | undefined} */
let shared;

worker.addEventListener("install", (event) => {
  event.waitUntil(keepAll(Object.keys(FILES).filter((name) => FILES[name]?.[1])));
});

worker.addEventListener("activate", (event) => {
  // Pages that are opened meanwhile wait for it.
  event.waitUntil(inTime((async () => {
    const old = (await caches.keys()).filter((name) => name.startsWith(PREFIX) && name !== CACHE);
    await Promise.all(old.map((name) => caches.delete(name)));
    // A first visit's page goes on without having been loaded again.
    if (old.length === 0) await worker.clients.claim();
  })()));
});

/** A page names the module that it took before there was a worker, or asks the newer version to take over. */
worker.addEventListener("message", (event) => {
  /** @type {{takeOver?: boolean, keep?: string[]} | null} */
  const data = event.data;
  if (data?.takeOver) event.waitUntil(takeOver());
  const names = (data?.keep ?? []).filter((name) => name in FILES);
  if (names.length > 0) event.waitUntil(keepAll(names));
});

worker.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method === "POST" && request.url === new URL("share", SCOPE).href) return event.respondWith(receive(request));
  if (request.method !== "GET") return;
  if (request.url === SHARED) return event.respondWith(handOver());
  const name = nameOf(request.url);
  if (name !== undefined) event.respondWith(answer(name, event));
});

/** Not while another page of the older version is open: it may still want its files. */
async function takeOver() {
  const open = await worker.clients.matchAll({ type: "window", includeUncontrolled: true });
  if (open.length <= 1) await worker.skipWaiting();
}

/** The page's file that an address is of. @param {string} address */
function nameOf(address) {
  const url = new URL(address, SCOPE);
  if (!url.href.startsWith(SCOPE)) return undefined;
  const name = decodeURIComponent(url.pathname.slice(new URL(SCOPE).pathname.length)) || "index.html";
  return name in FILES ? name : undefined;
}

/** The page's file, as this version has it. @param {string} name @param {FetchEvent} event */
async function answer(name, event) {
  const kept = await inTime(caches.open(CACHE).then((cache) => cache.match(name)));
  if (kept) return withRange(kept, event.request);
  const response = await get(name);
  if (!response.ok) return response;
  const copy = response.clone();
  // Without room the page works as long as there is a network.
  event.waitUntil(caches.open(CACHE).then((cache) => cache.put(name, copy)).catch(() => {}));
  return withRange(response, event.request);
}

/** What storage gives, or nothing if that takes too long: it may wait for what another worker is at. @template T @param {Promise<T>} given @returns {Promise<T | undefined>} */
function inTime(given) {
  return Promise.race([given, new Promise((resolve) => { setTimeout(resolve, LONGEST); })]);
}

/** A part, where one was asked for. @param {Response} response @param {Request} request */
async function withRange(response, request) {
  const [, first, last = ""] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.get("range") ?? "") ?? [];
  if (first === undefined) return response;
  const whole = await response.blob();
  const headers = new Headers(response.headers);
  if (Number(first) >= whole.size) {
    headers.set("content-range", `bytes */${whole.size}`);
    return new Response(null, { status: 416, headers });
  }
  const end = last === "" ? whole.size : Math.min(Number(last) + 1, whole.size);
  headers.set("content-range", `bytes ${first}-${end - 1}/${whole.size}`);
  headers.set("content-length", String(end - Number(first)));
  return new Response(whole.slice(Number(first), end), { status: 206, headers });
}

/** @param {string[]} names */
async function keepAll(names) {
  const cache = await caches.open(CACHE);
  await Promise.all(names.map(async (name) => {
    if (await cache.match(name)) return;
    const response = await get(name);
    if (!response.ok) throw new Error(`${name} answered ${response.status}`);
    await cache.put(name, response);
  }));
}

/** A file of the page from its server, and nothing else under its name. @param {string} name */
async function get(name) {
  // Some servers send who asks for index.html to the folder, and who asks for another page to its address without .html.
  const response = await fetch(new URL(name === "index.html" ? "./" : name, SCOPE), { integrity: FILES[name]?.[0], cache: "no-cache" });
  // Browsers open no page from an answer that was led elsewhere.
  return response.redirected ? new Response(response.body, response) : response;
}

/** A picture from another app's share menu waits until the page that is opened asks for it. The page opens whatever comes of that. @param {Request} request */
async function receive(request) {
  try {
    const picture = (await request.formData()).get("picture");
    if (picture instanceof File) {
      shared = picture;
      const cache = await caches.open(CACHE);
      await cache.delete(SHARED);
      await cache.put(SHARED, asResponse(picture));
    }
  } catch {
    // No room to keep it: it is handed over as long as this worker lives.
  }
  return Response.redirect(`${SCOPE}?shared`, 303);
}

/** @param {File} picture */
const asResponse = (picture) => new Response(picture, { headers: { "content-type": picture.type, "x-name": encodeURIComponent(picture.name) } });

async function handOver() {
  const picture = shared;
  shared = undefined;
  const cache = await caches.open(CACHE);
  const kept = await cache.match(SHARED);
  await cache.delete(SHARED);
  return picture ? asResponse(picture) : kept ?? new Response(null, { status: 404 });
}
