// The page without a network, and as an app: its service worker, pictures that other apps share with it or open in it.

import { texts } from './language.js';

/** @type {Set<string>} names of modules */
const taken = new Set();

/** What a first visit waits for at most, in ms, before the page is kept. */
const LONGEST = 20_000;

/** How long a page is new: in ms since it was opened. */
const START = 10_000;

/**
 * @param {(picture: import('./page.d.ts').Picture) => void} take
 * @param {Promise<void>} begun as `keepPage` takes it
 * @returns {Promise<boolean>} whether a picture is on its way
 */
export async function connectApp(take, begun) {
  window.launchQueue?.setConsumer(async ({ files }) => {
    const [file] = await Promise.all((files ?? []).map((handle) => handle.getFile()));
    if (file) take({ blob: file, name: file.name });
  });
  if (!keepPage(begun)) return false;
  if (!new URLSearchParams(location.search).has('shared')) return false;
  history.replaceState(null, '', location.pathname + location.hash);
  const response = await fetch('shared-picture');
  if (!response.ok) return false;
  take({ blob: await response.blob(), name: decodeURIComponent(response.headers.get('x-name') ?? '') || texts.sharedPicture });
  return true;
}

/**
 * Keeps the page for when there is no network.
 * @param {Promise<void>} [begun] what a first visit is for; all of the page's files are fetched again after it, not beside it
 * @returns {boolean} whether this browser can
 */
export function keepPage(begun) {
  if (!('serviceWorker' in navigator)) return false;
  const { controller } = navigator.serviceWorker;
  const visit = controller ? undefined : begun;
  if (controller) navigator.serviceWorker.addEventListener('controllerchange', reload, { once: true });
  // A page without it works as long as there is a network.
  Promise.race([visit, new Promise((done) => { setTimeout(done, LONGEST); })]).then(() => navigator.serviceWorker.register('service-worker.js')).then(renew).catch(() => {});
  return true;
}

/** Another version has taken over, maybe long after it was asked to: the page is loaded anew, but not from under a visitor who has begun. */
function reload() {
  if (isNew()) location.reload();
}

/** Whether nothing is begun yet. */
const isNew = () => performance.now() < START && !navigator.userActivation?.hasBeenActive;

/**
 * A newer page that was fetched during the last visit is taken now, before anything is begun. Chromium may let the older worker go on, which has
 * just answered this page: then it is the next opening that shows the newer one.
 * @param {ServiceWorkerRegistration} registration
 */
function renew({ waiting }) {
  if (waiting && navigator.serviceWorker.controller && isNew()) waiting.postMessage({ takeOver: true });
}

/** The WebAssembly that suits this browser is kept with the page, and no other. @param {string | undefined} file of a progress event */
export async function keepModule(file) {
  const module = /^(siglip_web_\w+)_bg\.wasm$/.exec(file ?? '')?.[1];
  if (module === undefined || taken.has(module) || !('serviceWorker' in navigator)) return;
  taken.add(module);
  const { active } = await navigator.serviceWorker.ready;
  active?.postMessage({ keep: [`lib/pkg/${module}.js`, `lib/pkg/${module}_bg.wasm`] });
}
