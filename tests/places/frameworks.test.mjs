// The tag in templates of React, Preact, Vue and Svelte: built by Vite in one go, checked by each one's own type checker, opened in Chromium.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { fresh, here, open, openBrowser, place, samples } from "./harness.mjs";

const root = join(here, "frameworks");
const bin = (/** @type {string} */ name) => join(here, "node_modules", ".bin", name);
const { devDependencies: versions } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
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
      build: { outDir: folder, emptyOutDir: true, rolldownOptions: { input: Object.keys(FRAMEWORKS).map((name) => join(root, `${name}.html`)) } },
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

  place({ group: "Frameworks", place: `React ${versions.react}, Preact ${versions.preact}`, how: "JSX under strict TypeScript; wrong attributes are errors" }, async () => {
    execFileSync(bin("tsc"), ["--project", root], { stdio: "inherit" });
  });

  place({ group: "Frameworks", place: `Vue ${versions.vue}`, how: "templates by vue-tsc; wrong attributes are errors" }, async () => {
    execFileSync(bin("vue-tsc"), ["--project", join(root, "tsconfig.vue.json")], { stdio: "inherit" });
  });

  place({ group: "Frameworks", place: `Svelte ${versions.svelte}`, how: "templates by svelte-check; wrong attributes are errors" }, async () => {
    const { stdout } = spawnSync(bin("svelte-check"), ["--workspace", root, "--tsconfig", join(root, "tsconfig.svelte.json"), "--output", "machine"], { encoding: "utf8" });
    const errors = stdout.split("\n").filter((line) => / ERROR /.test(line));
    assert.equal(errors.length, 2, stdout);
    assert.match(errors[0], /Refused\.svelte" 3:.*number/);
    assert.match(errors[1], /Refused\.svelte" 4:.*webgl/);
  });

  place({ group: "Frameworks", place: "Server-side rendering", how: "importing the tag does nothing where there is no page; React renders it, attributes and all" }, async () => {
    const code = `
      const before = Object.keys(globalThis).length;
      const { ENGLISH } = await import("siglip-web/siglip-classifier");
      await import("siglip-web/demo");
      const { renderToString } = await import("react-dom/server");
      const { createElement } = await import("react");
      const made = renderToString(createElement("siglip-classifier", { labels: "a cat, a dog", "top-k": 1 }));
      console.log(JSON.stringify({ made, choose: ENGLISH.choose, more: Object.keys(globalThis).length - before }));`;
    const told = JSON.parse(execFileSync(process.execPath, ["--input-type=module", "-e", code], { cwd: here, encoding: "utf8" }));
    assert.deepEqual(told, { made: '<siglip-classifier labels="a cat, a dog" top-k="1"></siglip-classifier>', choose: "Choose a picture", more: 0 });
  });
});
