// A real browser on the real files: Chromium or Firefox through playwright-core, WebKit through webkit.mjs; and www/ on two origins.
// playwright-core stays at 1.64.1: later ones ask Firefox ESR 153 for a command that it doesn't know (emulation.setMediaFeaturesOverride).
//
//   const site = await openSite(t, { overlay: { "/broken/config.json": "<html>" } });
//   const page = await site.page("/");                 // an empty page unless a path of www/ is given
//   await page.evaluate(async (url) => { const { SiglipClassifier } = await import(url); … }, site.library);
//
// `t` is a node:test context (or anything with `after`): all is closed when it ends.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test as run } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium, firefox } from "playwright-core";
import { serve } from "../../tools/serve.mjs";
import { summary } from "../../www/page/speed/measure.js";
import { CANNOT } from "./cannot.mjs";
import { launchWebKit } from "./webkit.mjs";

export const www = fileURLToPath(new URL("../../www/", import.meta.url));

/** SwiftShader serves for WebGPU: right, not fast. */
const ARGUMENTS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
];

/** The engines that people use. */
export const BROWSERS = /** @type {const} */ (["chromium", "firefox", "webkit"]);
/** The one of this run, where a test names none: BROWSER=firefox node --test … */
export const BROWSER = /** @type {(typeof BROWSERS)[number]} */ (process.env.BROWSER ?? "chromium");

/** As packaged by Debian: WebKitGTK has neither relaxed SIMD nor, without a build option, shared memory or a private file system. */
export const LACKS = {
  chromium: { relaxedSimd: false, sharedMemory: false, privateFiles: false },
  firefox: { relaxedSimd: false, sharedMemory: false, privateFiles: false },
  webkit: { relaxedSimd: true, sharedMemory: true, privateFiles: true },
};

/**
 * node:test's `test`. What the run's browser or its driver can't do is skipped, with the reason.
 * @param {string} name @param {object} options @param {(t: import("node:test").TestContext) => Promise<void> | void} body
 */
export function test(name, options, body = options) {
  const [reason] = CANNOT[BROWSER].find(([, names]) => names.includes(name)) ?? [];
  return run(name, { ...(body !== options && options), skip: reason ?? false }, body);
}

/**
 * Starts a browser with a fresh profile. `context` is Playwright's, where it drives the browser. Service workers are blocked in Chromium unless
 * `serviceWorkers` is "allow": the page's own would answer before the test's server.
 * @param {{browser?: "chromium" | "firefox" | "webkit", args?: string[], preferences?: Record<string, any>, serviceWorkers?: "allow" | "block", extension?: string}} [options]
 *   preferences: Firefox's; extension: a folder, for Chromium
 */
export async function launch({ browser = BROWSER, args = [], preferences, serviceWorkers = "block", extension } = {}) {
  if (browser === "webkit") return launchWebKit({ args });
  const profile = await mkdtemp(join(tmpdir(), "siglip-web-"));
  const downloads = join(profile, "downloads");
  await mkdir(downloads);
  const extending = extension ? { args: [`--load-extension=${extension}`], ignoreDefaultArgs: ["--disable-extensions"] } : { args: [] };
  const context = browser === "chromium"
    ? await chromium.launchPersistentContext(profile, { executablePath: process.env.CHROME_BIN ?? "/usr/bin/chromium", headless: true, ...extending, args: [...ARGUMENTS, ...args, ...extending.args], serviceWorkers })
    : await firefox.launchPersistentContext(profile, { channel: "moz-firefox", executablePath: process.env.FIREFOX_BIN ?? "/usr/bin/firefox-esr", headless: true, args, firefoxUserPrefs: preferences, downloadsPath: downloads });
  return {
    context,
    /** Where Firefox puts what pages save. */
    downloads,
    newPage: () => context.newPage(),
    async close() {
      await context.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}

/** The bytes that the largest renderer process has held at once (Chromium on Linux). @param {import("playwright-core").BrowserContext} context */
export async function highest(context) {
  const session = await context.browser().newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const renderers = processInfo.filter(({ type }) => type === "renderer");
  const statuses = await Promise.all(renderers.map(({ id }) => readFile(`/proc/${id}/status`, "utf8").catch(() => "")));
  return Math.max(0, ...statuses.map((status) => 1024 * Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0)));
}

/**
 * Serves www/ on two ports, and opens a browser (this run's unless `browser` says another).
 * `isolated`: its pages are cross-origin isolated. `overlay` maps paths to what they answer instead of (or beside) the files: text or bytes, `{status, headers, body}`,
 * a URL of a file, or a function (request, response) that answers by itself. It may be changed while the site is open.
 * @returns {Promise<{origin: string, other: string, library: string, overlay: object, requests: string[], context: import("playwright-core").BrowserContext | undefined,
 *   page(path?: string, options?: {origin?: string}): Promise<import("playwright-core").Page>}>}
 */
export async function openSite(t, { overlay = {}, browser: name = BROWSER, args, preferences, isolated } = {}) {
  const answers = { "/blank.html": html("<!doctype html><title>blank</title>"), ...overlay };
  const handle = (request, response) => answer(answers[request.url.replace(/[?#].*$/s, "")], request, response);
  const closing = [];
  t.after(async () => {
    for (const close of closing.reverse()) await close();
  });
  const home = await serve(www, { handle, isolated });
  closing.push(home.close);
  const away = await serve(www, { handle, isolated });
  closing.push(away.close);
  const browser = await launch({ browser: name, args, preferences });
  closing.push(browser.close);
  const origin = home.url.replace(/\/$/, "");
  return {
    origin,
    other: away.url.replace(/\/$/, ""),
    library: `${origin}/lib/siglip-web.js`,
    overlay: answers,
    requests: home.requests,
    context: browser.context,
    async page(path = "/blank.html", { origin: at = origin } = {}) {
      const page = await browser.newPage();
      closing.push(() => page.close());
      page.setDefaultTimeout(120_000); // real engines on a busy machine
      await page.goto(at + path);
      return page;
    },
  };
}

/** @param {string} body @param {Record<string, string>} [headers] */
export function html(body, headers = {}) {
  return { headers: { "Content-Type": "text/html; charset=utf-8", ...headers }, body };
}

async function answer(given, request, response) {
  if (given === undefined) return false;
  if (typeof given === "function") {
    await given(request, response);
    return true;
  }
  const plain = typeof given === "string" || given instanceof Uint8Array || given instanceof URL;
  const { status = 200, headers = {}, body = "" } = plain ? { body: given } : given;
  const content = body instanceof URL ? await readFile(body) : Buffer.from(body);
  response.writeHead(status, {
    "Access-Control-Allow-Origin": "*",
    "Cache-Control": "no-store",
    "Content-Type": types[/\.\w+$/.exec(request.url.replace(/[?#].*$/s, ""))?.[0]] ?? "application/octet-stream",
    "Content-Length": content.length,
    ...headers,
  });
  response.end(request.method === "HEAD" ? undefined : content);
  return true;
}

const types = { ".html": "text/html", ".js": "text/javascript", ".json": "application/json", ".wasm": "application/wasm", ".png": "image/png", ".svg": "image/svg+xml" };

/** A module whose `trap` traps, with a page of memory. */
const trap = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 5, 3, 1, 0, 1,
  7, 17, 2, 4, 116, 114, 97, 112, 0, 0, 6, 109, 101, 109, 111, 114, 121, 2, 0, 10, 5, 1, 3, 0, 0, 11);

/** Overlay with the engine that fails on command in place of the real one. */
export const mockEngine = Object.fromEntries(["cpu", "cpu_relaxed", "webgpu"].flatMap((device) => [
  [`/lib/pkg/siglip_web_${device}.js`, new URL("./mock/siglip_web.js", import.meta.url)],
  [`/lib/pkg/siglip_web_${device}_bg.wasm`, trap],
]));

/**
 * Puts the library's names, and helpers, on `window` of the page:
 * `outcome(() => promise)` is what came of it, in words that travel: {value} or {code, message, ours: whether it is a SiglipError}.
 */
export async function importLibrary(page, address) {
  await page.evaluate(async (url) => {
    const library = await import(url);
    Object.assign(window, library, {
      async outcome(work) {
        try {
          return { value: await work() };
        } catch (error) {
          return { code: error.code, message: error.message, ours: error instanceof library.SiglipError };
        }
      },
    });
  }, address);
  return page;
}

/**
 * For programs that measure: `work` gets a page with the library, whose calls may take as long as they like, and its site.
 * @template T @param {Parameters<typeof openSite>[1]} options @param {(page: import("playwright-core").Page, site: Awaited<ReturnType<typeof openSite>>) => Promise<T>} work
 */
export async function measureIn(options, work) {
  const hooks = [];
  try {
    const site = await openSite({ after: (hook) => hooks.push(hook) }, options);
    const page = await importLibrary(await site.page(), site.library);
    page.setDefaultTimeout(0);
    return await work(page, site);
  } finally {
    for (const hook of hooks) await hook();
  }
}

/** For the tables of such programs: the minimum and, in brackets, the median. @param {number[]} times in ms */
export function leastAndMedian(times) {
  const [least, median] = summary(times).map((time) => time.toFixed(0));
  return `${least} (${median})`;
}

/**
 * A page with the library, and with `load(source, options)` on its window and here: loads on the CPU and ends the classifier again, unless `keep`
 * asks for it as `window.kept`. It gives `outcome`, the classifier's information beside it, and all `events` of progress. `policy` is of retries,
 * which are made at once.
 * @param {{page(): Promise<import("playwright-core").Page>, library: string}} site
 */
export async function openLoader(site) {
  const page = await importLibrary(await site.page(), site.library);
  await page.evaluate(() => {
    window.load = async (source, { policy, keep, onProgress, ...options } = {}) => {
      const events = [];
      const result = await outcome(async () => {
        const classifier = await SiglipClassifier.load(source, {
          backend: "cpu", ...options, [Symbol.for("siglip-web.retryPolicy")]: { hurry: true, stall: 20_000, ...policy },
          onProgress: (event) => { events.push(event); onProgress?.(event); },
        });
        if (keep) window.kept = classifier;
        else await classifier.dispose();
        return classifier.info;
      });
      return { ...result, ...result.value, events };
    };
  });
  return page;
}

/**
 * Waits until `ask`, which the page runs, promises something true. (Playwright's own waitForFunction takes a promise itself for true.) A page that
 * is loaded anew meanwhile is asked again.
 * @param {import("playwright-core").Page} page @param {() => Promise<unknown>} ask
 */
export async function waitForPromise(page, ask) {
  const end = Date.now() + 30_000;
  for (;;) {
    const value = await page.evaluate(ask).catch((error) => {
      if (!/context was destroyed|navigat/.test(error.message)) throw error;
    });
    if (value) return value;
    if (Date.now() > end) throw new Error(`30 s passed: ${ask}`);
    await page.evaluate(() => new Promise(requestAnimationFrame)).catch(() => {});
  }
}

/** Calls `load` on a page of `openLoader`. */
export const loadOn = (page, source, options) => page.evaluate(([source, options]) => load(source, options), [source, options]);

/** The SHA-256 of a safetensors file's data, as the engine that fails on command tells it. @param {Buffer} file */
export const digest = (file) => createHash("sha256").update(file.subarray(8 + Number(file.readBigUInt64LE(0)))).digest("hex");

/** That an `outcome` is a SiglipError with this code, and a message that says so. */
export function assertError(outcome, code, message = /./) {
  assert.equal(outcome.code, code, JSON.stringify({ ...outcome, value: undefined, events: undefined }));
  assert.match(outcome.message, message);
  assert.ok(outcome.ours, "rejects with a SiglipError");
}
