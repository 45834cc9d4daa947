// One place where people put the library: a test, and a row of docs/places.md. Pages are opened in Chromium.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { appendFileSync, cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { serve } from "../../tools/serve.mjs";
import { launch } from "../browser/harness.mjs";
import { cache, library } from "./prepare.mjs";

export const here = fileURLToPath(new URL("./", import.meta.url));
/** The sources of a user's page. */
export const app = join(here, "app");
export const samples = fileURLToPath(new URL("../../www/samples/", import.meta.url));
/** The rows of one run, one in a line. */
export const results = join(cache, "results.jsonl");

/**
 * @typedef {object} Row
 * @property {string} group the table it stands in
 * @property {string} place
 * @property {string} how what is tested
 * @property {boolean} [isolated] whether the page is cross-origin isolated; the table has both in one row
 * @property {boolean} [works]
 * @property {boolean} [worker] whether a worker computed; undefined where nothing did
 * @property {boolean} [threads] whether it had threads where the page was isolated
 */

/**
 * A test, and what the table says of it.
 * @param {Row} row @param {(t: import("node:test").TestContext) => Promise<{works?: boolean, worker?: boolean, threads?: boolean} | void>} work `works: false`: it is refused, as it should be
 */
export function place(row, work) {
  test(`${row.place}, ${row.how}${row.isolated ? ", cross-origin isolated" : ""}`, async (t) => {
    const tell = (/** @type {object} */ found) => appendFileSync(results, `${JSON.stringify({ ...row, ...found })}\n`);
    try {
      tell({ works: true, ...(await work(t)) });
    } catch (error) {
      tell({ works: false });
      throw error;
    }
  });
}

/** An empty folder for what a test makes. @param {string} name */
export function fresh(name) {
  const folder = join(cache, name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  return folder;
}

/** A browser for a file of tests. @param {Parameters<typeof launch>[0]} [options] */
export async function openBrowser(options) {
  const browser = await launch({ browser: "chromium", ...options });
  return {
    close: browser.close,
    /** A page, closed when the test ends; what went wrong in it is in `problems`. @param {import("node:test").TestContext} t @param {string} address */
    async page(t, address) {
      const page = await browser.newPage();
      t.after(() => page.close());
      page.setDefaultTimeout(120_000); // bundled afresh, on a busy machine
      const problems = [];
      page.on("pageerror", (error) => problems.push(error.message));
      page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
      await page.goto(address);
      return Object.assign(page, { problems });
    },
    context: browser.context,
  };
}

/** Serves a folder, with the samples beside its files, until the test ends. @param {import("node:test").TestContext} t @param {string} folder @param {object} [options] as for `serve` */
export async function open(t, folder, options = {}) {
  const site = await serve(folder, options);
  t.after(site.close);
  return site;
}

/** What the page of `app/` answers: the call's and the tag's scores, and what computed them. */
export async function answersOf(page) {
  try {
    await page.waitForFunction(() => globalThis.answers, null, { timeout: 60_000 });
    return await page.evaluate(() => globalThis.answers);
  } catch (error) {
    throw new Error(`${error.message}\n${page.problems.join("\n")}`, { cause: error });
  }
}

/** The WebAssembly modules of the package by the hash of their bytes: bundlers give them other names. */
const modules = new Map(readdirSync(join(library, "pkg")).filter((file) => file.endsWith(".wasm")).map((file) => [hash(join(library, "pkg", file)), file]));

function hash(file) {
  return createHash("sha256").update(readFileSync(file)).digest("hex");
}

/** Which modules were fetched, each once. @param {string[]} requests as `serve` lists them @param {string} folder that was served */
export function modulesAmong(requests, folder) {
  const paths = new Set(requests.map((request) => request.replace(/^\w+ |[?#].*$/g, "")).filter((path) => path.endsWith(".wasm")));
  return [...paths].map((path) => modules.get(hash(join(folder, path))) ?? path);
}

/**
 * That a page of `app/` gives the scores that a plain page gives, in a worker, with the one module that this browser takes.
 * @param {any} page @param {string[]} fetched the modules @param {any} expected the plain page's answers @param {boolean} isolated
 */
export async function check(page, fetched, expected, isolated) {
  const answers = await answersOf(page);
  assert.deepEqual(answers.scores, expected.scores);
  assert.deepEqual(answers.tag, expected.scores);
  assert.match(answers.adapter, isolated ? /^WebAssembly relaxed SIMD, \d threads$/ : /^WebAssembly relaxed SIMD$/);
  // The call's was ended with its classifier; the tag's is kept.
  assert.ok(page.workers().length > 0, "a worker computes");
  assert.deepEqual(await fetched(), [`siglip_web_cpu_relaxed${isolated ? "_threads" : ""}_bg.wasm`]);
  return { worker: true, ...(isolated && { threads: true }) };
}

/** What every place must answer: the scores of a page that imports the package by its address. @param {any} browser */
export async function expectedAnswers(browser) {
  const site = await serve(library, { handle: pictureAnd("<!doctype html><title>A plain page</title>") });
  const page = await browser.context.newPage();
  try {
    await page.goto(site.url);
    const expected = await page.evaluate(async () => {
      const { SiglipClassifier } = await import("/siglip-web.js");
      const classifier = await SiglipClassifier.load("demo");
      return { scores: await classifier.classify("/ladybug.png", ["a ladybug", "a teapot", "a penguin"]) };
    });
    assert.equal(expected.scores[0].label, "a ladybug");
    assert.ok(expected.scores[0].score > 0.5 && expected.scores[1].score < 0.5, JSON.stringify(expected.scores));
    assert.equal(page.workers().length, 1);
    return expected;
  } finally {
    await page.close();
    await site.close();
  }
}

/** For `serve`: a page at its root, and the picture, beside its files. @param {string} page @param {Record<string, string>} [headers] of the page */
export function pictureAnd(page, headers = {}) {
  return (request, response) => {
    if (request.url === "/") response.writeHead(200, { "Content-Type": "text/html; charset=utf-8", ...headers }).end(page);
    else if (request.url === "/favicon.ico") response.writeHead(204).end();
    else if (request.url === "/ladybug.png") response.writeHead(200, { "Content-Type": "image/png", "Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin" }).end(readFileSync(join(samples, "ladybug.png")));
    else return false;
    return true;
  };
}

/** What a bundler that makes no pages is given: the page, and the picture. @param {string} folder @param {string} [head] put before the page's script */
export function addPage(folder, head = "") {
  writeFileSync(join(folder, "index.html"), readFileSync(join(app, "index.html"), "utf8").replace("<script", () => `${head}<script`));
  addPicture(folder);
}

/** @param {string} folder */
export function addPicture(folder) {
  cpSync(join(samples, "ladybug.png"), join(folder, "ladybug.png"));
}
