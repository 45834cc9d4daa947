// What must work in every engine that people use, in each of them. What an engine lacks is said in `LACKS` of harness.mjs, and tested to be still so.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { BROWSERS, LACKS, importLibrary, openSite } from "./harness.mjs";

const FILES = ["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];
const fixture = (file) => new URL(`../fixtures/model/tiny/${file}`, import.meta.url);
const expected = JSON.parse(await readFile(fixture("classify.json"), "utf8"));
/** How often Firefox starts threads: more for a proof than at every run. */
const FIREFOX_LOADS = Number(process.env.FIREFOX_LOADS ?? 20);
const overlay = {
  // With a version, without which nothing is kept.
  ...Object.fromEntries(FILES.map((file) => [`/tiny/${file}`, { headers: { ETag: '"1"' }, body: fixture(file) }])),
  "/picture.png": new URL("../fixtures/model/picture.png", import.meta.url),
  ...Object.fromEntries([1, 2, 3, 4, 5, 6, 7, 8].map((orientation) => [`/avif/${orientation}`, new URL(`../fixtures/preprocess/avif/${orientation}.avif`, import.meta.url)])),
};

for (const browser of BROWSERS) {
  describe(`${browser}`, { timeout: 1_200_000 + 20_000 * FIREFOX_LOADS }, () => {
    let site;
    let page;
    const close = [];
    const hooks = { after: (hook) => close.push(hook) };
    before(async () => {
      site = await openSite(hooks, { browser, overlay });
      page = await importLibrary(await site.page(), site.library);
    });
    after(async () => {
      for (const hook of close) await hook();
    });

    /** Loads the tiny model, classifies the picture and says how it was. */
    const classify = (where, options) => where.evaluate(async ([labels, options]) => {
      const stages = new Set();
      const classifier = await SiglipClassifier.load("/tiny/", { backend: "cpu", dtype: "f32", onProgress: ({ stage, fromCache }) => stages.add(fromCache ? `${stage} from cache` : stage), ...options });
      const results = await classifier.classify("/picture.png", labels);
      await classifier.dispose();
      return { results, stages: [...stages], ...classifier.info };
    }, [expected.labels, options]);

    function assertAsReference(results) {
      assert.equal(results.length, expected.labels.length);
      for (const { label, logit } of results) {
        const wanted = expected.logits[expected.labels.indexOf(label)];
        assert.ok(Math.abs(logit - wanted) <= 1e-4, `${label}: ${logit}, not ${wanted}`);
      }
    }

    test("has an AVIF upright as its boxes say, also where its own decoder leaves that to others", async () => {
      const corners = await page.evaluate(async () => {
        const { prepare } = await import("/lib/client/image.js");
        return Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map(async (orientation) => {
          const { decode } = await prepare(await (await fetch(`/avif/${orientation}`)).blob(), { signal: new AbortController().signal });
          const { rgba, width, height } = await decode(new Error("the engine reads no AVIF"));
          const colour = (x, y) => ["red", "green", "blue"].find((_, channel) => rgba[4 * (Math.floor(height * y) * width + Math.floor(width * x)) + channel] > 128) ?? "black";
          return [width, height, colour(0.25, 0.25), colour(0.75, 0.25), colour(0.25, 0.75), colour(0.75, 0.75)].join(" ");
        }));
      });
      assert.deepEqual(corners, [
        "64 32 red green blue black", "64 32 green red black blue", "64 32 black blue green red", "64 32 blue black red green",
        "32 64 red blue green black", "32 64 blue red black green", "32 64 black green blue red", "32 64 green black red blue",
      ]);
    });

    test("gives the reference's logits, in a worker and on the page's own thread", async () => {
      for (const worker of [true, false]) {
        const { results, adapter } = await classify(page, { worker });
        assertAsReference(results);
        assert.equal(adapter, LACKS[browser].relaxedSimd ? "WebAssembly SIMD" : "WebAssembly relaxed SIMD");
      }
    });

    // WebKit is driven in a private window, whose Cache Storage forgets what nobody holds any more.
    test(LACKS[browser].privateFiles ? "keeps a model as long as something holds it, and clears it" : "keeps a model, loads it without a request, and clears it", async () => {
      await page.evaluate(() => SiglipClassifier.clearCache());
      const first = await classify(page);
      const kept = await page.evaluate(async () => (await SiglipClassifier.caches()).map(({ name, bytes }) => ({ name, bytes })));
      site.requests.length = 0;
      const second = await classify(page);
      assertAsReference(second.results);
      const asked = site.requests.filter((request) => /^GET .*safetensors/.test(request));
      if (!LACKS[browser].privateFiles) {
        assert.ok(first.cached, first.cacheReason);
        assert.equal(kept.length, 1);
        assert.ok(kept[0].bytes > 100_000, `${kept[0].bytes} bytes are kept`);
        assert.deepEqual(asked, []);
      }
      await page.evaluate(() => SiglipClassifier.clearCache());
      assert.deepEqual(await page.evaluate(() => SiglipClassifier.caches()), []);
    });

    test("works from another site, and where the server calls wasm something else", async () => {
      for (const name of ["cpu", "cpu_relaxed"]) {
        const path = `/lib/pkg/siglip_web_${name}_bg.wasm`;
        site.overlay[path] = { headers: { "Content-Type": "application/octet-stream" }, body: new URL(`../../www${path}`, import.meta.url) };
      }
      const foreign = await importLibrary(await site.page("/blank.html", { origin: site.other }), site.library);
      assertAsReference((await classify(foreign)).results);
      await foreign.close();
      for (const name of ["cpu", "cpu_relaxed"]) delete site.overlay[`/lib/pkg/siglip_web_${name}_bg.wasm`];
    });

    test("an abort ends a load and a call, with its code", async () => {
      const codes = await page.evaluate(async () => {
        const stop = new AbortController();
        const loading = outcome(() => SiglipClassifier.load("/tiny/", { backend: "cpu", signal: stop.signal }));
        stop.abort();
        const classifier = await SiglipClassifier.load("/tiny/", { backend: "cpu" });
        const again = new AbortController();
        const calling = outcome(() => classifier.classify("/picture.png", ["a cat"], { signal: again.signal }));
        again.abort();
        const codes = [(await loading).code, (await calling).code];
        await classifier.dispose();
        return codes;
      });
      assert.deepEqual(codes, ["aborted", "aborted"]);
    });

    test("the page opens and answers its sample", async () => {
      const opened = await site.page("/");
      await opened.waitForFunction(() => document.querySelectorAll("#results .name").length > 0 && document.querySelector("#results").ariaBusy === "false");
      assert.match(await opened.evaluate(() => document.querySelector("#results").textContent), /a ladybug/);
      assert.match(await opened.evaluate(() => document.querySelector("#status").textContent), /ladybug/);
      await opened.close();
    });

    test("the search page opens with its drawings, and finds some by words", async () => {
      const opened = await site.page("/search.html");
      const says = (words) => opened.waitForFunction((words) => document.querySelector("#status").textContent.includes(words), words);
      await says("144 pictures. Type words to search.");
      await opened.evaluate(() => {
        const query = document.querySelector("#query");
        query.value = "a flower";
        query.dispatchEvent(new Event("input"));
      });
      await says("fit “a flower”.");
      // The grid is drawn in the frame after that.
      await opened.evaluate(() => new Promise(requestAnimationFrame));
      // The small pictures come from a worker.
      await opened.waitForFunction(() => document.querySelector(".tile canvas[data-ready]")?.width > 1);
      assert.match(await opened.evaluate(() => document.querySelector(".tile .called").textContent), /tulip|flower|rose|daisy|sunflower/);
      await opened.close();
    });

    if (browser === "firefox") {
      test("WebGPU, where Firefox's own switch turns it on", async (t) => {
        const gpu = await openSite(hooks, { browser, overlay, preferences: { "dom.webgpu.enabled": true, "dom.webgpu.workers.enabled": true, "gfx.webgpu.ignore-blocklist": true } });
        const one = await importLibrary(await gpu.page(), gpu.library);
        if (!await one.evaluate(async () => Boolean(await navigator.gpu?.requestAdapter()))) return t.skip("this Firefox finds no adapter for WebGPU, not even Mesa's program that imitates one");
        const { results, backend } = await classify(one, { backend: "webgpu" });
        assert.equal(backend, "webgpu");
        assertAsReference(results);
      });
    }

    test(LACKS[browser].sharedMemory ? "on a cross-origin isolated page, an answer without threads" : "on a cross-origin isolated page, threads that every load gets", async () => {
      // As many as people's machines have, whatever this one has.
      const script = await readFile(new URL("../../www/lib/platform.js", import.meta.url), "utf8");
      const eight = script.replace("globalThis.navigator?.hardwareConcurrency", "8");
      assert.notEqual(eight, script);
      const isolated = await openSite(hooks, { browser, overlay: { ...overlay, "/lib/platform.js": eight }, isolated: true });
      // Firefox starts workers within workers only now and then.
      const loads = browser === "firefox" ? FIREFOX_LOADS : 3;
      for (let i = 0; i < loads; i++) {
        const one = await isolated.page();
        await importLibrary(one, isolated.library);
        const { results, adapter } = await classify(one);
        assertAsReference(results);
        assert.equal(adapter, LACKS[browser].sharedMemory ? "WebAssembly SIMD" : "WebAssembly relaxed SIMD, 8 threads");
        await one.close();
      }
    });
  });
}
