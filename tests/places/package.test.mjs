// The tarball itself: what checkers of packages say of it, its sizes, and what it does with parts left out.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { expectedAnswers, fresh, here, open, openBrowser, pictureAnd, place } from "./harness.mjs";
import { library, tarball } from "./prepare.mjs";
import { sizes } from "./sizes.mjs";

const GROUP = "Package";
const bin = (/** @type {string} */ name) => join(here, "node_modules", ".bin", name);
const { devDependencies: versions } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
const readme = readFileSync(join(library, "README.md"), "utf8");

describe("the package", { timeout: 300_000 }, () => {
  let browser, expected;
  before(async () => {
    browser = await openBrowser();
    expected = await expectedAnswers(browser);
  });
  after(() => browser.close());

  place({ group: GROUP, place: `publint ${versions.publint}`, how: "strict" }, async () => {
    assert.match(execFileSync(bin("publint"), ["run", "--strict", tarball], { encoding: "utf8" }), /All good/);
  });

  place({ group: GROUP, place: `attw ${versions["@arethetypeswrong/cli"]}`, how: "types of every entry, as an ES module and by a bundler" }, async () => {
    const report = execFileSync(bin("attw"), ["--profile", "esm-only", "--format", "json", tarball], { encoding: "utf8" });
    const { analysis } = JSON.parse(report);
    const entries = Object.keys(analysis.entrypoints);
    for (const entry of [".", "./siglip-classifier", "./demo", "./texts/de", "./types/react", "./types/preact", "./types/vue", "./types/svelte"]) assert.ok(entries.includes(entry), entry);
    // Of the kinds of import that this profile doesn't promise, one problem is known: require() can't take it.
    assert.deepEqual([...new Set(analysis.problems.map(({ kind, resolutionKind }) => `${kind} ${resolutionKind}`))], ["CJSResolvesToESM node16-cjs"]);
  });

  place({ group: GROUP, place: "Contents", how: "own README, licences, types; nothing that nobody reads; sizes as the README says" }, async () => {
    const files = readdirSync(library, { recursive: true }).map(String);
    for (const file of ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "siglip-web.d.ts", "siglip-classifier.d.ts", "demo.d.ts"]) assert.ok(files.includes(file), file);
    assert.deepEqual(files.filter((file) => /spiece\.model|\.map$|(^|\/)\.|^page|test/.test(file)), []);
    const manifest = JSON.parse(readFileSync(join(library, "package.json"), "utf8"));
    assert.ok(manifest.license && manifest.types && manifest.exports["."].types);
    for (const [what, { bytes, gzip }] of Object.entries(sizes)) {
      const [, ...told] = new RegExp(`^\\| ${what} \\| ([\\d.]+) MB \\| (?:([\\d.]+) MB |)\\|$`, "m").exec(readme) ?? [];
      assert.ok(told[0], `the README tells the size of ${what}`);
      // Compilers differ a little.
      for (const [number, size] of [[told[0], bytes], [told[1], gzip]]) {
        if (size !== undefined) assert.ok(Math.abs(Number(number) * 1e6 - size) < 0.05 * size + 1e5, `${what}: ${number} MB, measured ${size} bytes: node tests/places/sizes.mjs prints the table`);
      }
    }
  });

  place({ group: GROUP, place: "Without the WebGPU module", how: "`auto` takes the CPU where there is a GPU, and says why; `\"webgpu\"` is an error" }, async (t) => {
    const folder = fresh("without-webgpu");
    cpSync(library, folder, { recursive: true });
    for (const file of ["siglip_web_webgpu.js", "siglip_web_webgpu_bg.wasm"]) rmSync(join(folder, "pkg", file));
    const site = await open(t, folder, { handle: pictureAnd("<!doctype html><title>A page</title>") });
    const page = await browser.page(t, "about:blank");
    // A real GPU, as far as the library sees.
    await page.addInitScript(() => {
      for (const [name, value] of [["vendor", "acme"], ["architecture", ""], ["device", ""], ["description", "Acme GPU"], ["isFallbackAdapter", false]]) {
        Object.defineProperty(GPUAdapterInfo.prototype, name, { value });
      }
    });
    await page.goto(site.url);
    const told = await page.evaluate(async () => {
      const { SiglipClassifier } = await import("/siglip-web.js");
      const classifier = await SiglipClassifier.load("demo", { worker: false });
      const { backend, backendReason } = classifier.info;
      const scores = await classifier.classify("/ladybug.png", ["a ladybug", "a teapot", "a penguin"]);
      const refused = await SiglipClassifier.load("demo", { worker: false, backend: "webgpu" }).catch(({ code, message }) => ({ code, message }));
      return { backend, backendReason, scores, refused };
    });
    assert.deepEqual([told.backend, told.scores], ["cpu", expected.scores]);
    assert.match(told.backendReason, /^The CPU is used because WebGPU on Acme GPU failed: .*siglip_web_webgpu\.js/);
    assert.equal(told.refused.code, "network");
    assert.match(told.refused.message, /siglip_web_webgpu\.js/);
  });
});
