// The page without a network, and as an app: its service worker, pictures that other apps share with it or open in it.

import { texts } from './language.js';

/** @type {Set<string>} names of modules */
const taken = new Set();

/**
 * @param {(picture: import('./page.d.ts').Picture) => void} take
 * @returns {Promise<boolean>} whether a picture is on its way
 */
export async function connectApp(take) {
  window.launchQueue?.setConsumer(async ({ files }) => {
    const [file] = await Promise.all((files ?? []).map((handle) => handle.getFile()));
    if (file) take({ blob: file, name: file.name });
  });
  if (!keepPage()) return false;
  if (!new URLSearchParams(location.search).has('shared')) return false;
  history.replaceState(null, '', location.pathname + location.hash);
  const response = await fetch('shared-picture');
  if (!response.ok) return false;
  take({ blob: await response.blob(), name: decodeURIComponent(response.headers.get('x-name') ?? '') || texts.sharedPicture });
  return true;
}

/** Keeps the page for when there is no network. @returns {boolean} whether this browser can */
export function keepPage() {
  if (!('serviceWorker' in navigator)) return false;
  // A page without it works as long as there is a network.
  navigator.serviceWorker.register('service-worker.js').then(renew).catch(() => {});
  return true;
}

/** A newer page that was fetched during the last visit is taken now, before anything is begun. @param {ServiceWorkerRegistration} registration */
function renew({ waiting }) {
  if (!waiting || !navigator.serviceWorker.controller) return;
  navigator.serviceWorker.addEventListener('controllerchange', () => location.reload(), { once: true });
  waiting.postMessage({ takeOver: true });
}

/** The WebAssembly that suits this browser is kept with the page, and no other. @param {string | undefined} file of a progress event */
export async function keepModule(file) {
  const module = /^(siglip_web_\w+)_bg\.wasm$/.exec(file ?? '')?.[1];
  if (module === undefined || taken.has(module) || !('serviceWorker' in navigator)) return;
  taken.add(module);
  const { active } = await navigator.serviceWorker.ready;
  active?.postMessage({ keep: [`lib/pkg/${module}.js`, `lib/pkg/${module}_bg.wasm`] });
}
