// The page as a test visits it: each test has a page of its own, and fails on a script error, on a violation of the page's
// Content-Security-Policy and on a request that leaves this machine unasked.
import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { CANNOT } from './cannot.mjs';
import { BROWSER, launch, www } from './harness.mjs';
import { serve } from '../../tools/serve.mjs';

export const sample = (name) => readFile(`${www}samples/${name}.png`);
export const png = async (name, sampleName = name) => ({ name: `${name}.png`, mimeType: 'image/png', buffer: await sample(sampleName) });

export const PATIENCE = 120_000; // ms; nothing is timed, this only ends a test that hangs

export let site;
export let browser;
let hold; // {path, release}: requests that the server keeps waiting

/** A camera that is none, allowed without a question; and files that may load no others, as people have it (the driver lets them). */
const FIREFOX = { 'media.navigator.streams.fake': true, 'media.navigator.permission.disabled': true, 'security.fileuri.strict_origin_policy': true };
/** What Chromium's driver pretends of a visitor, Firefox takes from its preferences. */
const PREFERENCES = {
  colorScheme: (value) => ({ 'layout.css.prefers-color-scheme.content-override': value === 'dark' ? 0 : 1 }),
  reducedMotion: (value) => ({ 'ui.prefersReducedMotion': value === 'reduce' ? 1 : 0 }),
  forcedColors: (value) => ({ 'browser.display.document_color_use': value === 'active' ? 2 : 0, 'ui.useAccessibilityTheme': value === 'active' ? 1 : 0 }),
  hasTouch: () => ({ 'dom.w3c_touch_events.enabled': 1, 'ui.primaryPointerCapabilities': 1, 'ui.allPointerCapabilities': 1 }),
  isMobile: () => ({ 'ui.useOverlayScrollbars': 1 }),
};
/** What the page sees of it. */
const SEEN = {
  colorScheme: (value) => `(prefers-color-scheme: ${value})`,
  reducedMotion: (value) => `(prefers-reduced-motion: ${value})`,
  forcedColors: (value) => `(forced-colors: ${value})`,
  hasTouch: () => '(pointer: coarse)',
};
const others = new Map(); // by their preferences

/** The browser for a visitor with these options. */
async function browserFor(options) {
  const pretended = BROWSER === 'firefox' ? Object.entries(options).filter(([name]) => name in PREFERENCES) : [];
  if (pretended.length === 0) return browser;
  const preferences = Object.assign({}, FIREFOX, ...pretended.map(([name, value]) => PREFERENCES[name](value)));
  const key = JSON.stringify(preferences);
  if (!others.has(key)) others.set(key, await launch({ preferences }));
  return others.get(key);
}

before(async () => {
  site = await serve(www, { handle: async ({ url }) => { if (hold && hold.path.test(url)) await hold.gate; return false; } });
  browser = await launch(BROWSER === 'firefox' ? { preferences: FIREFOX } : { args: ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'] });
});

after(async () => {
  for (const one of [browser, ...others.values()]) await one?.close();
  await site?.close();
});

/** Keeps matching files back until the function given back is called. */
export function keepBack(path) {
  let release;
  hold = { path, gate: new Promise((resolve) => (release = resolve)) };
  return () => {
    hold = undefined;
    release();
  };
}

/** A test with a page of its own. `wait: false` does not wait for the first answer; `path`: of another page. */
export function onPage(name, body, { wait = true, path = '', expected = /^$/, ...options } = {}) {
  const [reason] = CANNOT[BROWSER].find(([, names]) => names.includes(name)) ?? [];
  test(name, { timeout: 10 * PATIENCE, skip: reason ?? false }, async () => {
    const context = await (await browserFor(options)).context.browser().newContext({ viewport: { width: 1280, height: 900 }, ...options });
    context.setDefaultTimeout(PATIENCE);
    const page = await context.newPage();
    const troubles = [];
    const requests = [];
    page.on('pageerror', ({ message }) => {
      // Firefox's driver takes what the console says of failed requests for errors of a script.
      if (BROWSER !== 'firefox' || !expected.test(message)) troubles.push(`script error: ${message}`);
    });
    page.on('console', (message) => {
      if (message.type() === 'error' && !expected.test(`${message.text()} ${message.location().url}`)) troubles.push(`console: ${message.text()}`);
    });
    context.on('request', (request) => requests.push(request.url()));
    await context.route(/^https:\/\//, (route) => route.abort());
    // Sizes of models, as the Hub tells them: their files' lengths.
    await context.route(/^https:\/\/huggingface\.co\/.*\.(safetensors|json)$/, (route) => (route.request().method() === 'HEAD'
      ? route.fulfill({ headers: { 'Access-Control-Allow-Origin': '*', 'Content-Length': route.request().url().endsWith('.json') ? '2000000' : '2000000000' } })
      : route.fallback()));
    await page.addInitScript(() => {
      window.violations = [];
      document.addEventListener('securitypolicyviolation', (event) => window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
    });
    try {
      await page.goto(site.url + path);
      for (const [name, query] of Object.entries(SEEN)) {
        if (name in options) assert.ok(await page.evaluate((query) => matchMedia(query).matches, query(options[name])), `the browser pretends ${query(options[name])}`);
      }
      if (wait) await answered(page);
      await body(page, requests);
      assert.deepEqual(await page.evaluate(() => window.violations), [], 'the page keeps to its Content-Security-Policy');
      assert.deepEqual(troubles, [], 'the browser reports no errors');
    } catch (error) {
      const status = await page.locator('#status').textContent().catch(() => '(no page)');
      error.message += `\n  the status was: ${status}${troubles.length ? `\n  ${troubles.join('\n  ')}` : ''}`;
      throw error;
    } finally {
      hold = undefined;
      await context.close();
    }
  });
}

export const image = (page) => page.getByLabel('Image');
export const labels = (page) => page.getByRole('textbox', { name: 'Labels' });
export const results = (page) => page.getByRole('list', { name: 'Results' });
export const model = (page) => page.getByRole('combobox', { name: 'Model' });
export const status = (page) => page.getByRole('status');
export const preview = (page) => page.getByRole('img', { name: 'The chosen picture' });

export const says = (page, pattern) => status(page).filter({ hasText: pattern }).waitFor();
export const shows = (page, name) => page.getByRole('img', { name: `The chosen picture: ${name}` }).waitFor();

/** Waits until the results on the page answer what is asked now, and for these labels if given. */
export async function answered(page, wanted) {
  await page.waitForFunction((labels) => {
    const names = [...document.querySelectorAll('#results .name')].map((node) => node.textContent);
    const fresh = document.querySelector('#results-card').dataset.stale === 'false' && document.querySelector('#results').ariaBusy === 'false';
    return fresh && names.length > 0 && (!labels || [...labels].sort().join('\n') === names.sort().join('\n'));
  }, wanted);
  return read(page);
}

export async function read(page) {
  const items = await results(page).getByRole('listitem').all();
  return Promise.all(items.map(async (item) => {
    const text = (await item.innerText()).replace(/\s+/g, ' ').trim();
    const [, label, , value, alone] = /^(.*?) (<?)([\d.]+)%(?: on its own <?([\d.]+)%)?$/.exec(text) ?? assert.fail(`no label and percentage in “${text}”`);
    return { label, percent: Number(value), alone: alone === undefined ? undefined : Number(alone) };
  }));
}

export const type = async (page, text) => {
  await labels(page).fill(text);
  return answered(page, [...new Set(text.split(/[,;\n]/).map((label) => label.trim()).filter(Boolean))]);
};

/** Drops or pastes files as the browser would hand them over. */
export const hand = (page, kind, { name, mimeType, buffer }) => page.evaluate(({ kind, name, mimeType, bytes }) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], name, { type: mimeType }));
  const options = { bubbles: true, cancelable: true };
  // Firefox leaves files out of a ClipboardEvent that a script makes, not out of a visitor's.
  if (kind === 'paste') document.body.dispatchEvent(Object.defineProperty(new ClipboardEvent('paste', options), 'clipboardData', { value: transfer }));
  else for (const type of kind) document.body.dispatchEvent(new DragEvent(type, { ...options, dataTransfer: transfer }));
}, { kind, name, mimeType, bytes: [...buffer] });

/** The file that the page hands to the browser's downloads after `press`. */
export async function saved(page, press) {
  if (BROWSER !== 'firefox') {
    const file = page.waitForEvent('download');
    await press();
    return readFile(await (await file).path());
  }
  // Its driver overlooks downloads that are no navigations, and the files arrive all the same: under another name until they are whole.
  const names = async () => (await readdir(browser.downloads)).filter((name) => !name.endsWith('.part'));
  const before = await names();
  await press();
  for (const end = Date.now() + PATIENCE; Date.now() < end;) {
    const [name] = (await names()).filter((name) => !before.includes(name));
    const content = name && await readFile(join(browser.downloads, name));
    if (content?.length) return content;
    await page.evaluate(() => new Promise(requestAnimationFrame));
  }
  return assert.fail('nothing was saved');
}

/** The page works: it takes a new picture and new labels and answers. */
export async function stillWorks(page) {
  await image(page).setInputFiles(await png('afterwards', 'balloon'));
  await shows(page, 'afterwards.png');
  const rows = await type(page, 'a balloon, a spoon');
  assert.equal(rows.length, 2);
  await says(page, /balloon|spoon/);
}
