// The packed package in fresh projects of bundlers, and without any: what is built is opened, and classifies one picture with the demo model.
import assert from "node:assert/strict";
import { cpSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { addPage, answersOf, app, check, expectedAnswers, fresh, here, modulesAmong, open, openBrowser, place, samples } from "./harness.mjs";
import { library } from "./prepare.mjs";

const readme = readFileSync(join(library, "README.md"), "utf8");
const [importMap] = /** @type {string[]} */ (/<script type="importmap">.*?<\/script>/s.exec(readme));
const versionOf = (/** @type {string} */ name) => JSON.parse(readFileSync(join(here, "package.json"), "utf8")).devDependencies[name];
const viteOptions = (/** @type {string} */ name) => /** @type {const} */ ({ root: app, configFile: false, publicDir: samples, cacheDir: fresh(`${name}-cache`), logLevel: "warn" });

/** As the README says, for bundlers that don't follow `new URL(…, import.meta.url)`: the package stays outside, found by an import map. @param {string} folder */
function addPackage(folder) {
  cpSync(library, join(folder, "siglip-web"), { recursive: true });
  addPage(folder, importMap);
}

/** @type {Record<string, (folder: string) => Promise<void>>} */
const BUILDS = {
  async vite(outDir) {
    const { build } = await import("vite");
    await build({ ...viteOptions("vite"), build: { outDir, emptyOutDir: true } });
  },
  async webpack(path) {
    const { default: webpack } = await import("webpack");
    const stats = await new Promise((resolve, reject) => {
      webpack({ mode: "production", context: app, entry: "./main.js", output: { path, filename: "main.js" } }, (error, stats) => (error ? reject(error) : resolve(stats)));
    });
    assert.deepEqual(stats.toJson({ errors: true }).errors, []);
    addPage(path);
  },
  async esbuild(outdir) {
    const { build } = await import("esbuild");
    await build({ entryPoints: [join(app, "main.js")], bundle: true, format: "esm", minify: true, outdir, external: ["siglip-web", "siglip-web/*"] });
    addPackage(outdir);
  },
  async rollup(dir) {
    const { rollup } = await import("rollup");
    const bundle = await rollup({ input: join(app, "main.js"), external: /^siglip-web/ });
    await bundle.write({ dir });
    addPackage(dir);
  },
};

/** Each is built once, for two pages. @type {Record<string, Promise<string>>} */
const built = {};

/** @param {string} name @param {(folder: string) => Promise<void>} build */
async function make(name, build) {
  const folder = fresh(name);
  await build(folder);
  return folder;
}

describe("bundlers", { timeout: 600_000 }, () => {
  let browser, expected;
  before(async () => {
    browser = await openBrowser();
  });
  after(() => browser.close());

  place({ group: "Pages", place: "No bundler", how: "an address, \"demo\" by its name" }, async () => {
    expected = await expectedAnswers(browser);
    return { worker: true };
  });

  for (const isolated of [false, true]) {
    place({ group: "Pages", place: "No bundler", how: "an import map", isolated }, async (t) => {
      const folder = fresh("plain");
      cpSync(join(app, "main.js"), join(folder, "main.js"));
      addPackage(folder);
      const site = await open(t, folder, { isolated });
      return check(await browser.page(t, site.url), () => modulesAmong(site.requests, folder), expected, isolated);
    });

    for (const [name, build] of Object.entries(BUILDS)) {
      const title = { vite: "Vite", webpack: "webpack", esbuild: "esbuild", rollup: "rollup" }[name];
      place({ group: "Bundlers", place: `${title} ${versionOf(name)}`, how: "production build", isolated }, async (t) => {
        const folder = await (built[name] ??= make(name, build));
        const site = await open(t, folder, { isolated });
        return check(await browser.page(t, site.url), () => modulesAmong(site.requests, folder), expected, isolated);
      });
    }

    place({ group: "Bundlers", place: `Vite ${versionOf("vite")}`, how: "production build, assets at another origin (`base`)", isolated }, async (t) => {
      const { build } = await import("vite");
      const folder = fresh("vite-cdn");
      const cdn = await open(t, folder, { isolated });
      await build({ ...viteOptions("vite-cdn"), base: cdn.url, build: { outDir: folder, emptyOutDir: true } });
      const site = await open(t, folder, { isolated });
      const found = await check(await browser.page(t, site.url), () => modulesAmong(cdn.requests, folder), expected, isolated);
      assert.deepEqual(site.requests.filter((request) => /\.(js|wasm|json|safetensors)/.test(request)), [], "all but the page and its picture is at the other origin");
      return found;
    });

    if (!isolated) {
      place({ group: "Bundlers", place: `Vite ${versionOf("vite")}`, how: "production build, WebGPU asked for" }, async (t) => {
        const folder = await (built.vite ??= make("vite", BUILDS.vite));
        const site = await open(t, folder);
        const answers = await answersOf(await browser.page(t, `${site.url}?backend=webgpu`));
        assert.match(answers.backendReason, /^WebGPU is used because it was asked for/);
        answers.scores.forEach(({ label, logit }, i) => {
          assert.equal(label, expected.scores[i].label);
          assert.ok(Math.abs(logit - expected.scores[i].logit) < 1e-3, `${label}: ${logit}, on the CPU ${expected.scores[i].logit}`);
        });
        assert.ok(modulesAmong(site.requests, folder).includes("siglip_web_webgpu_bg.wasm"));
        return { worker: true };
      });
    }

    place({ group: "Bundlers", place: `Vite ${versionOf("vite")}`, how: "development server", isolated }, async (t) => {
      const { createServer } = await import("vite");
      const headers = isolated ? { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" } : {};
      const server = await createServer({ ...viteOptions("vite-dev"), server: { host: "127.0.0.1", port: 0, headers } });
      t.after(() => server.close());
      await server.listen();
      const requests = [];
      server.httpServer.prependListener("request", (request) => requests.push(request.url));
      const page = await browser.page(t, server.resolvedUrls.local[0]);
      return check(page, () => [...new Set(requests.flatMap((url) => /[\w-]+\.wasm/.exec(url) ?? []))], expected, isolated);
    });
  }
});
