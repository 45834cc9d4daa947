// The tag in templates of React, Preact, Vue and Svelte: built by Vite in one go, checked by each one's own type checker, opened in Chromium.
import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { fresh, here, open, openBrowser, place, samples } from "./harness.mjs";
import { library } from "./prepare.mjs";

const root = join(here, "frameworks");
const bin = (/** @type {string} */ name) => join(here, "node_modules", ".bin", name);
const { devDependencies: versions } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
/** The lines in which a checker tells an error. @param {string} name @param {string[]} given @param {RegExp} error @returns {Promise<string[]>} */
const errorsIn = (name, given, error) => new Promise((resolve, reject) => {
  execFile(bin(name), given, { cwd: here }, (failure, stdout, stderr) => {
    const lines = stdout.split("\n").filter((line) => error.test(line));
    // What fails without telling an error did not check anything.
    if (failure && lines.length === 0) reject(new Error(`${name}: ${stdout}${stderr}`));
    else resolve(lines);
  });
});
const FRAMEWORKS = { react: "React", preact: "Preact", vue: "Vue", svelte: "Svelte" };

describe("frameworks", { timeout: 600_000 }, () => {
  const folder = fresh("frameworks");
  let browser;
  before(async () => {
    const [{ build }, { default: vue }, { svelte }] = await Promise.all([import("vite"), import("@vitejs/plugin-vue"), import("@sveltejs/vite-plugin-svelte")]);
    await build({
      root,
      configFile: false,
      publicDir: samples,
      cacheDir: fresh("frameworks-cache"),
      logLevel: "warn",
      plugins: [vue({ template: { compilerOptions: { isCustomElement: (tag) => tag === "siglip-classifier" } } }), svelte({ configFile: false })],
      build: { outDir: folder, emptyOutDir: true, rolldownOptions: { input: [...Object.keys(FRAMEWORKS), "hydrated"].map((name) => join(root, `${name}.html`)) } },
    });
    browser = await openBrowser();
  });
  after(() => browser?.close());

  for (const [name, title] of Object.entries(FRAMEWORKS)) {
    place({ group: "Frameworks", place: `${title} ${versions[name]}`, how: "the tag with labels as text and as `readonly` array, its events" }, async (t) => {
      const site = await open(t, folder);
      const page = await browser.page(t, `${site.url}${name}.html`);
      await page.waitForFunction(() => globalThis.results?.length >= 2).catch((error) => { throw new Error(`${error.message}\n${page.problems.join("\n")}`); });
      const [first, second] = await page.evaluate(() => [...document.querySelectorAll("siglip-classifier")].map((tag) => ({ labels: tag.labels, result: tag.result, worker: tag.worker })));
      assert.deepEqual(first.labels, ["a cat", "a dog"]);
      assert.deepEqual(first.result.map(({ label }) => label).sort(), ["a cat", "a dog"]);
      assert.deepEqual(second.labels, ["a ladybug, red", "a teapot"]);
      assert.deepEqual(second.result.map(({ label }) => label), ["a ladybug, red"], "the best one alone");
      assert.deepEqual([first.worker, second.worker], [true, false]);
      assert.equal(await page.locator("siglip-classifier.second").count(), 1);
      const best = await page.locator("p").filter({ hasText: /^a / }).textContent();
      assert.ok(["a cat", "a dog", "a ladybug, red"].includes(best), best);
      assert.equal(page.workers().length, 1);
      return { worker: true };
    });
  }

  test("the README's lines are those that are compiled here", () => {
    const [, section = ""] = /\n## Frameworks\n(.*?)\n## /s.exec(readFileSync(join(library, "README.md"), "utf8")) ?? [];
    const sources = [...readdirSync(root).map((file) => join(root, file)), fileURLToPath(import.meta.url)].map((file) => readFileSync(file, "utf8")).join("\n");
    const lines = [...section.matchAll(/`((?:<|import type|labels=|:labels=|vue\().*?)`/g)].map(([, line]) => line);
    assert.equal(lines.length, 11);
    for (const line of lines) assert.ok(sources.includes(line), line);
  });

  /** Each one's errors; they run side by side. @type {Record<string, Promise<string[]>> | undefined} */
  let checks;
  const errorsOf = (/** @type {string} */ checker) => (checks ??= {
    tsc: errorsIn("tsc", ["--project", root], /error TS/),
    "vue-tsc": errorsIn("vue-tsc", ["--project", join(root, "tsconfig.vue.json")], /error TS/),
    "svelte-check": errorsIn("svelte-check", ["--workspace", root, "--tsconfig", join(root, "tsconfig.svelte.json"), "--output", "machine"], / ERROR /),
  })[checker];

  place({ group: "Frameworks", place: `React ${versions.react}, Preact ${versions.preact}`, how: "JSX under strict TypeScript; wrong attributes are errors" }, async () => {
    assert.deepEqual(await errorsOf("tsc"), []);
  });

  place({ group: "Frameworks", place: `Vue ${versions.vue}`, how: "templates by vue-tsc; wrong attributes are errors" }, async () => {
    assert.deepEqual(await errorsOf("vue-tsc"), []);
  });

  place({ group: "Frameworks", place: `Svelte ${versions.svelte}`, how: "templates by svelte-check; wrong attributes are errors" }, async () => {
    const errors = (await errorsOf("svelte-check")) ?? [];
    assert.equal(errors.length, 2, errors.join("\n"));
    assert.match(errors[0] ?? "", /Refused\.svelte" 3:.*number/);
    assert.match(errors[1] ?? "", /Refused\.svelte" 4:.*webgl/);
  });

  place({ group: "Frameworks", place: "Server-side rendering", how: "importing the tag does nothing where there is no page; React renders it with its attributes, and in the page alone with properties and listeners" }, async (t) => {
    const code = `
      const before = Object.keys(globalThis).length;
      const { ENGLISH } = await import("siglip-web/siglip-classifier");
      await import("siglip-web/demo");
      const { renderToString } = await import("react-dom/server");
      const { createElement } = await import("react");
      const src = "ladybug.png";
      const [made, ...hydrated] = [{ labels: "a cat, a dog", "top-k": 1 }, { labels: "a cat", src, "onsiglip-result"() {} }, { labels: ["a ladybug, red", "a teapot"], src }].map((given) => renderToString(createElement("siglip-classifier", given)));
      console.log(JSON.stringify({ made, hydrated, choose: ENGLISH.choose, more: Object.keys(globalThis).length - before }));`;
    const { hydrated, ...told } = JSON.parse(execFileSync(process.execPath, ["--input-type=module", "-e", code], { cwd: here, encoding: "utf8" }));
    assert.deepEqual(told, { made: '<siglip-classifier labels="a cat, a dog" top-k="1"></siglip-classifier>', choose: "Choose a picture", more: 0 });
    assert.ok(readFileSync(join(root, "hydrated.html"), "utf8").includes(hydrated.join("")), hydrated.join(""));

    const site = await open(t, folder);
    const page = await browser.page(t, `${site.url}hydrated.html`);
    await page.waitForFunction(() => globalThis.results?.length >= 1 && document.querySelector("siglip-classifier").result).catch((error) => { throw new Error(`${error.message}\n${page.problems.join("\n")}`); });
    // Labels and a listener that React was given for what it hydrates: its README says that they are lost.
    const labels = await page.evaluate(() => [...document.querySelectorAll("siglip-classifier")].map((tag) => tag.labels));
    assert.deepEqual(labels, [["a cat"], [], ["a ladybug, red", "a teapot"]]);
    await page.locator("p").filter({ hasText: /^a ladybug, red$/ }).waitFor();
    // The labels are an array of their own in each render.
    assert.equal(await page.evaluate(() => globalThis.results.length), 1);
    assert.deepEqual(page.problems.filter((text) => !/404/.test(text)), []);
  });
});
