// siglip-web.js as a page uses it. First with an engine that fails on command, then with the real one on the demo model.
import assert from "node:assert/strict";
import { readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { BROWSER, LACKS, assertError, html, importLibrary, mockEngine, openSite, test, www } from "./harness.mjs";
import { sendFile } from "../../tools/serve.mjs";

/** A model folder for the mock. */
const folder = (name, config = {}) => ({ [`/${name}/config.json`]: JSON.stringify(config) });

const runs = ({ imageRuns, textRuns }) => ({ imageRuns, textRuns });

/** The browser tells a moment later that a worker has ended: on a busy machine, a long one. */
async function workersEnded(page) {
  await Promise.all(page.workers().map((worker) => worker.waitForEvent("close", { timeout: 120_000 })));
}

describe("the library over an engine that fails on command", { timeout: 1_200_000 }, () => {
  let site;
  const close = [];
  before(async () => {
    site = await openSite(
      { after: (hook) => close.push(hook) },
      {
        overlay: {
          ...mockEngine,
          ...folder("mock"),
          ...folder("never", { cpu: "never" }),
          ...folder("trap", { cpu: "trap" }),
          ...Object.fromEntries(["device-lost", "unsupported", "out-of-memory", "bad-model", "trap"].flatMap((code) => Object.entries(folder(`gpu-${code}`, { webgpu: code })))),
        },
      },
    );
  });
  after(async () => {
    for (const hook of close) await hook();
  });

  /** A page with the library; `gpu` replaces the browser's WebGPU on the main thread: "none", "no adapter" or an adapter's info. */
  async function open(gpu) {
    const page = await site.page();
    if (gpu !== undefined) {
      await page.evaluate((gpu) => {
        const fake = { requestAdapter: async () => (gpu === "no adapter" ? null : { info: gpu }) };
        Object.defineProperty(navigator, "gpu", { value: gpu === "none" ? undefined : fake, configurable: true });
      }, gpu);
    }
    return importLibrary(page, site.library);
  }

  test("auto takes WebGPU on a real adapter, and the CPU otherwise, and says why", async () => {
    const cases = [
      [{ vendor: "nvidia", architecture: "ada", description: "GeForce", isFallbackAdapter: false }, "webgpu", /WebGPU is used on GeForce/],
      [{ vendor: "nvidia", architecture: "ada", description: "", isFallbackAdapter: true }, "cpu", /nvidia ada.*imitates/],
      [{ vendor: "google", architecture: "swiftshader", description: "" }, "cpu", /swiftshader.*imitates/],
      [{ vendor: "mesa", architecture: "", description: "llvmpipe (LLVM 15)", isFallbackAdapter: false }, "cpu", /llvmpipe/],
      ["no adapter", "cpu", /no graphics adapter/],
      ["none", "cpu", /offers no WebGPU/],
    ];
    for (const [gpu, backend, reason] of cases) {
      const page = await open(gpu);
      const info = await page.evaluate(async () => (await SiglipClassifier.load("/mock/", { worker: false })).info);
      assert.equal(info.backend, backend, JSON.stringify(gpu));
      assert.match(info.backendReason, reason);
      await page.close();
    }
  });

  test("in the worker, the browser's own software adapter is passed over unless WebGPU is asked for", async () => {
    const page = await open();
    const infos = await page.evaluate(async () => [(await SiglipClassifier.load("/mock/")).info, (await SiglipClassifier.load("/mock/", { backend: "webgpu" })).info]);
    assert.equal(infos[0].backend, "cpu");
    assert.match(infos[0].backendReason, /swiftshader/i);
    assert.equal(infos[1].backend, "webgpu");
    assert.match(infos[1].backendReason, /asked for.*imitates/);
    await page.close();
  });

  test("asking for WebGPU where there is none is unsupported", async () => {
    for (const gpu of ["none", "no adapter"]) {
      const page = await open(gpu);
      assertError(await page.evaluate(() => outcome(() => SiglipClassifier.load("/mock/", { worker: false, backend: "webgpu" }))), "unsupported", /backend "auto" or "cpu"/);
      await page.close();
    }
  });

  test("auto goes on with the CPU when the GPU fails, and with nothing else", async () => {
    const page = await open({ vendor: "acme", description: "Acme GPU" });
    for (const code of ["device-lost", "unsupported", "out-of-memory", "trap"]) {
      const { value: info } = await page.evaluate((code) => outcome(async () => (await SiglipClassifier.load(`/gpu-${code}/`, { worker: false })).info), code);
      assert.equal(info.backend, "cpu", code);
      assert.match(info.backendReason, /^The CPU is used because WebGPU on Acme GPU failed: ./);
    }
    assertError(await page.evaluate(() => outcome(() => SiglipClassifier.load("/gpu-bad-model/", { worker: false }))), "bad-model", /told to fail/);
    assertError(await page.evaluate(() => outcome(() => SiglipClassifier.load("/gpu-device-lost/", { worker: false, backend: "webgpu" }))), "device-lost");
    await page.close();
  });

  for (const worker of [true, false]) {
    const where = worker ? "in the worker" : "on the main thread";

    test(`a crash rejects the call that ran, and the model starts afresh for all others (${where})`, async () => {
      const page = await open();
      for (const label of ["trap", "throw a trap"]) {
        const results = await page.evaluate(async ({ worker, label }) => {
          const [classifier, neighbour] = [await SiglipClassifier.load("/mock/", { worker }), await SiglipClassifier.load("/mock/", { worker })];
          const bytes = new Uint8Array(1);
          const classify = (labels, by = classifier) => outcome(() => by.classify(bytes, labels));
          const results = await Promise.all([classify([label]), classify(["waits"]), classify(["last"])]);
          results.push(await classify(["later"]), await classify(["of another classifier"], neighbour));
          // A second crash at once is the end, and said to be.
          results.push(...await Promise.all([classify([label]), classify([label]), classify(["waits"])]), await classify(["later"]));
          await classifier.dispose();
          await neighbour.dispose();
          const again = await SiglipClassifier.load("/mock/", { worker });
          results.push(await classify(["a"], again));
          await again.dispose();
          return results;
        }, { worker, label });
        assertError(results[0], "device-lost", /crashed.*starts afresh for the next call/);
        assert.deepEqual(results.slice(1, 5).map(({ value }) => value[0].label), ["waits", "last", "later", "of another classifier"]);
        assertError(results[5], "device-lost", /starts afresh for the next call/);
        assertError(results[6], "device-lost", /again after a fresh start: load the model again/);
        for (const result of results.slice(7, 9)) assertError(result, "device-lost");
        assert.equal(results[9].value[0].label, "a");
      }
      assertError(await page.evaluate((worker) => outcome(() => SiglipClassifier.load("/trap/", { worker })), worker), "device-lost");
      await page.close();
    });

    test(`aborting rejects at once, stops the work, and leaves the rest as it was (${where})`, async () => {
      const page = await open();
      const result = await page.evaluate(async (worker) => {
        const classifier = await SiglipClassifier.load("/mock/", { worker });
        const bytes = new Uint8Array(1);
        const first = new AbortController();
        const second = new AbortController();
        const order = [];
        const keep = (name, promise) => promise.then((value) => order.push(name) && value);
        const running = outcome(() => keep("running", classifier.classify(bytes, ["never ends"], { signal: first.signal })));
        const waiting = outcome(() => keep("waiting", classifier.classify(bytes, ["waits"], { signal: second.signal })));
        const last = keep("last", classifier.classify(bytes, ["last"]));
        const final = keep("final", classifier.classify(bytes, ["final"]));
        second.abort();
        const waited = await waiting;
        first.abort();
        const ran = await running;
        const gone = await outcome(() => classifier.classify(bytes, ["a"], { signal: AbortSignal.abort() }));
        return { waited, ran, gone, last: await last, final: await final, order, stats: await classifier[Symbol.for("siglip-web.stats")]() };
      }, worker);
      for (const name of ["waited", "ran", "gone"]) assertError(result[name], "aborted");
      assert.equal(result.last[0].label, "last");
      assert.deepEqual(result.order, ["last", "final"]);
      // Three ran: the stopped one, "last" and "final". The waiting one never did.
      assert.deepEqual(runs(result.stats), { imageRuns: 3, textRuns: 1 });
      await page.close();
    });

    test(`dispose rejects what runs, what waits and what comes later (${where})`, async () => {
      const page = await open();
      const results = await page.evaluate(async (worker) => {
        const classifier = await SiglipClassifier.load("/mock/", { worker });
        const bytes = new Uint8Array(1);
        const calls = [outcome(() => classifier.classify(bytes, ["never ends"])), outcome(() => classifier.classify(bytes, ["waits"]))];
        const done = [classifier.dispose(), classifier.dispose()];
        const later = outcome(() => classifier.embedImage(bytes));
        await Promise.all(done);
        await classifier.dispose();
        return Promise.all([...calls, later, outcome(() => classifier.embedText(["a"])), outcome(() => classifier.classify(bytes, ["a"]))]);
      }, worker);
      for (const result of results) assertError(result, "disposed", /[Ll]oad the model again/);
      await workersEnded(page);
      await page.close();
    });
  }

  test("dispose ends a fresh start that is under way, and its worker", async () => {
    const page = await open();
    const before = site.overlay["/mock/config.json"];
    try {
      // By itself it wouldn't give up for long.
      await page.evaluate(async () => { window.classifier = await SiglipClassifier.load("/mock/", { cache: false, [Symbol.for("siglip-web.retryPolicy")]: { stall: 1_000_000 } }); });
      const started = new Promise((resolve) => { site.overlay["/mock/config.json"] = resolve; }); // and never an answer
      assertError(await page.evaluate(() => outcome(() => classifier.classify(new Uint8Array(1), ["trap"]))), "device-lost");
      await started;
      assertError(await page.evaluate(async () => {
        const waits = outcome(() => classifier.classify(new Uint8Array(1), ["waits"]));
        await classifier.dispose();
        return waits;
      }), "disposed");
      await workersEnded(page);
    } finally {
      site.overlay["/mock/config.json"] = before;
    }
    await page.close();
  });

  test("an entry for the store that is written too late, when nobody waits for it any more, is not written at all", async () => {
    const page = await open();
    const result = await page.evaluate(async (library) => {
      const { Packs } = await import(new URL("store/packs.js", library).href);
      const written = [];
      let closed = 0;
      let answer;
      const appender = { write: (bytes) => written.push([...bytes]), close: () => { closed += 1; } };
      const folder = { append: () => new Promise((resolve) => { answer = () => resolve(appender); }) };
      const packs = new Packs(folder, [], (work) => work);
      const put = packs.put("layer 1", Uint8Array.of(1, 2, 3, 4));
      packs.end();
      answer();
      await put;
      return { written, closed };
    }, site.library);
    assert.deepEqual(result, { written: [], closed: 1 });
    await page.close();
  });

  test("loading can be aborted, before and midway, and takes its downloads along", async () => {
    const page = await open();
    assertError(await page.evaluate(() => outcome(() => SiglipClassifier.load("/mock/", { signal: AbortSignal.abort() }))), "aborted");
    let closed;
    const connectionClosed = new Promise((resolve) => { closed = resolve; });
    let asked;
    const requested = new Promise((resolve) => { asked = resolve; });
    site.overlay["/stuck/config.json"] = (request, response) => {
      response.on("close", closed);
      response.writeHead(200, { "Content-Type": "application/json", "Content-Length": 1000 });
      response.write("{");
      asked();
    };
    for (const worker of [true, false]) {
      for (const path of ["/stuck/", "/never/"]) {
        const loading = page.evaluate(({ worker, path }) => {
          window.stop = new AbortController();
          return outcome(() => SiglipClassifier.load(path, { worker, signal: window.stop.signal, onProgress: () => window.progressed?.() }));
        }, { worker, path });
        if (path === "/stuck/") await requested;
        await page.evaluate(() => window.stop.abort());
        assertError(await loading, "aborted");
        if (path === "/stuck/") await connectionClosed;
      }
    }
    await workersEnded(page);
    await page.close();
  });

  test("what was asked for ahead is let go of without a word when a load is aborted", async () => {
    const page = await open();
    const troubles = [];
    page.on("pageerror", ({ message }) => troubles.push(message));
    let asked;
    const requested = new Promise((resolve) => { asked = resolve; });
    Object.assign(site.overlay, folder("ahead"));
    // The engine, which would read it, doesn't come.
    const module = `/lib/pkg/siglip_web_cpu${LACKS[BROWSER].relaxedSimd ? "" : "_relaxed"}_bg.wasm`;
    const there = site.overlay[module];
    site.overlay[module] = () => {};
    site.overlay["/ahead/preprocessor_config.json"] = (request, response) => {
      response.writeHead(200, { "Content-Type": "application/json", "Content-Length": 1000 });
      response.write("{");
      asked();
    };
    try {
      const loading = page.evaluate(() => {
        window.stop = new AbortController();
        return outcome(() => SiglipClassifier.load("/ahead/", { worker: false, backend: "cpu", signal: window.stop.signal }));
      });
      await requested;
      await page.evaluate(async () => {
        await (await fetch("/blank.html")).text(); // later than the answer above
        window.stop.abort();
      });
      assertError(await loading, "aborted");
      await page.evaluate(() => new Promise(requestAnimationFrame));
      assert.deepEqual(troubles, []);
    } finally {
      site.overlay[module] = there;
    }
    await page.close();
  });

  test("progress has the contract's shape, and a listener that throws stops nothing", async () => {
    const page = await open();
    page.on("pageerror", () => {});
    const events = await page.evaluate(async () => {
      const events = [];
      await SiglipClassifier.load("/mock/", { onProgress: (event) => { events.push(event); throw new Error("the listener's own"); } });
      return events;
    });
    const stages = [...new Set(events.map(({ stage }) => stage))];
    assert.deepEqual(stages, ["download", "load", "warmup", "ready"]);
    for (const { loaded, total } of events) assert.ok(loaded >= 0 && (total === 0 || loaded <= total));
    const config = events.filter(({ file }) => file === "config.json").at(-1);
    assert.deepEqual(config, { stage: "download", file: "config.json", loaded: 2, total: 2 });
    assert.equal(events.at(-1).stage, "ready");
    await page.close();
  });

  test("a GPU that is lost is asked for once more, then the CPU goes on and the information says why", async () => {
    const page = await open({ vendor: "acme", description: "Acme GPU" });
    for (const backend of ["auto", "webgpu"]) {
      const { infos, results } = await page.evaluate(async (backend) => {
        const classifier = await SiglipClassifier.load("/mock/", { worker: false, backend });
        const infos = [classifier.info];
        const results = [];
        for (let i = 0; i < 2; i++) {
          const [lost, waits] = await Promise.all([["reject", "device-lost"], ["waits"]].map((labels) => outcome(() => classifier.classify(new Uint8Array(1), labels))));
          results.push(lost, waits);
          infos.push(classifier.info);
        }
        await classifier.dispose();
        return { infos, results };
      }, backend);
      assert.deepEqual(infos.map((info) => info.backend), ["webgpu", "webgpu", "cpu"], backend);
      assert.match(infos[2].backendReason, /^The CPU is used because WebGPU on Acme GPU was lost: the mock was told to fail/);
      for (const i of [0, 2]) assertError(results[i], "device-lost", /starts afresh for the next call/);
      for (const i of [1, 3]) assert.equal(results[i].value[0].label, "waits");
    }
    await page.close();
  });

  test("errors of the engine keep their code and message", async () => {
    const page = await open();
    for (const code of ["bad-input", "bad-image", "bad-model", "network", "out-of-memory", "device-lost"]) {
      const result = await page.evaluate(async (code) => {
        window.kept ??= await SiglipClassifier.load("/mock/");
        return outcome(() => window.kept.classify(new Uint8Array(1), ["reject", code]));
      }, code);
      assertError(result, code, /^the mock was told to fail with/);
    }
    await page.close();
  });

  test("files of the library that are missing or blocked are told, in both places", async () => {
    const broken = { ...site.overlay };
    const cases = [
      ["/lib/worker/worker.js", { status: 404 }, "network", /worker\.js could not be started/, [true]],
      ["/lib/worker/host.js", { status: 404 }, "network", /worker\.js could not be started/, [true]],
      ["/lib/pkg/siglip_web_cpu_relaxed.js", { status: 404 }, "network", /siglip_web_cpu_relaxed\.js could not be loaded/, [true, false]],
      ["/lib/pkg/siglip_web_cpu_relaxed_bg.wasm", { status: 404 }, "network", /siglip_web_cpu_relaxed_bg\.wasm is not there/, [true, false]],
      ["/lib/pkg/siglip_web_cpu_relaxed_bg.wasm", html("<!doctype html>"), "network", /^The library's file .*_bg\.wasm is not there: its server answers with a web page \(HTML\)\. Serve the whole folder/, [true, false]],
      ["/lib/pkg/siglip_web_cpu_relaxed_bg.wasm", "<!doctype html>", "unsupported", /can't run the library's WebAssembly/, [true, false]],
    ];
    for (const [path, answer, code, message, places] of cases) {
      for (const worker of places) {
        site.overlay[path] = answer;
        try {
          const page = await open();
          assertError(await page.evaluate((worker) => outcome(() => SiglipClassifier.load("/mock/", { worker })), worker), code, message);
          await workersEnded(page);
          await page.close();
        } finally {
          if (path in broken) site.overlay[path] = broken[path];
          else delete site.overlay[path];
        }
      }
    }
  });

  test("the library's WebAssembly goes on where its connection went silent, and is given up when nothing comes any more", async () => {
    const path = `/lib/pkg/siglip_web_cpu${LACKS[BROWSER].relaxedSimd ? "" : "_relaxed"}_bg.wasm`;
    const there = site.overlay[path];
    // A module of nothing but a long custom section: its id, its size in LEB128, a name of no letters.
    const module = Buffer.concat([Buffer.from("\0asm\x01\0\0\0\0", "latin1"), Buffer.from([0x80, 0x80, 0x20]), Buffer.alloc(2 ** 19)]);
    const part = 2 ** 17;
    for (const recovers of [true, false]) {
      const asked = [];
      site.overlay[path] = (request, response) => {
        const start = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
        asked.push(start);
        const range = start > 0 && { "Content-Range": `bytes ${start}-${module.length - 1}/${module.length}` };
        response.writeHead(range ? 206 : 200, { "Content-Type": "application/wasm", "Cache-Control": "no-store", "Content-Length": module.length - start, ...range });
        response.flushHeaders();
        if (start < 2 * part) response.write(module.subarray(start, start + part));
        else if (recovers) response.end(module.subarray(start));
      };
      const page = await open();
      const result = await page.evaluate(() => outcome(async () => {
        const retryPolicy = { hurry: true, stall: 500, tries: 2 };
        return (await SiglipClassifier.load("/mock/", { [Symbol.for("siglip-web.retryPolicy")]: retryPolicy })).info.backend;
      }));
      if (recovers) assert.equal(result.value, "cpu", result.message);
      else assertError(result, "network", /Nothing more came from .*_bg\.wasm/);
      assert.deepEqual(asked.slice(0, 3), [0, part, 2 * part]);
      await page.close();
    }
    site.overlay[path] = there;
  });

  test("auto goes on with the CPU on a site without the WebGPU module", async () => {
    for (const file of ["siglip_web_webgpu.js", "siglip_web_webgpu_bg.wasm"]) {
      const path = `/lib/pkg/${file}`;
      const there = site.overlay[path];
      site.overlay[path] = { status: 404 };
      const page = await open({ vendor: "acme", description: "Acme GPU" });
      const { value: info } = await page.evaluate(() => outcome(async () => (await SiglipClassifier.load("/mock/", { worker: false })).info));
      assert.equal(info.backend, "cpu");
      assert.match(info.backendReason, new RegExp(`^The CPU is used because WebGPU on Acme GPU failed: .*${file}`));
      site.overlay[path] = there;
      await page.close();
    }
  });

  test("WebAssembly forbidden by the page's policy is told", async () => {
    site.overlay["/no-wasm.html"] = html("<!doctype html>", { "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'" });
    const page = await site.page("/no-wasm.html");
    await importLibrary(page, site.library);
    assertError(await page.evaluate(() => outcome(() => SiglipClassifier.load("/mock/", { worker: false }))), "unsupported", /wasm-unsafe-eval/);
    await page.close();
  });

  test("a page of another site whose policy has no blob: workers is told so", async () => {
    site.overlay["/no-blob.html"] = html("<!doctype html>", { "Content-Security-Policy": `default-src 'none'; script-src ${site.origin} 'wasm-unsafe-eval'; connect-src ${site.origin}; worker-src 'self'` });
    const page = await site.page("/no-blob.html", { origin: site.other });
    await importLibrary(page, site.library);
    assertError(await page.evaluate(() => outcome(() => SiglipClassifier.load("/mock/"))), "network", /worker-src blob:.*worker: false/);
    await page.close();
  });

  test("every argument is checked before anything runs", async () => {
    const page = await open();
    const results = await page.evaluate(async () => {
      const classifier = await SiglipClassifier.load("/mock/");
      const bytes = new Uint8Array(1);
      const long = "🐈".repeat(10_000);
      const classify = (labels, options, image = bytes) => classifier.classify(image, labels, options);
      const cases = {
        "a bare string": () => classify("a cat"),
        "no labels": () => classify([]),
        "labels missing": () => classify(undefined),
        "a blank label": () => classify(["a cat", " \n "]),
        "a duplicate": () => classify(["a cat", "a dog", " a cat"]),
        "a number": () => classify(["a cat", 5]),
        "a hole": () => classify(["a cat", , "a dog"]),
        "too long": () => classify([long]),
        "half a character": () => classify(["a cat 🐱".slice(0, -1)]),
        "half a character in a text": () => classifier.embedText(["\udc31"]),
        "half a character in a template": () => classify(["a"], { template: "{} \ud83d" }),
        "no place": () => classify(["a"], { template: "a photo" }),
        "two places": () => classify(["a"], { template: "{} or {}" }),
        "no templates": () => classify(["a"], { template: [] }),
        "a bad one of two": () => classify(["a"], { template: ["{}", 7] }),
        "template null": () => classify(["a"], { template: null }),
        "scores": () => classify(["a"], { scores: "cosine" }),
        "topK 0": () => classify(["a"], { topK: 0 }),
        "topK 1.5": () => classify(["a"], { topK: 1.5 }),
        "topK text": () => classify(["a"], { topK: "3" }),
        "options null": () => classify(["a"], null),
        "signal": () => classify(["a"], { signal: true }),
        "image missing": () => classifier.classify(undefined, ["a"]),
        "image null": () => classify(["a"], {}, null),
        "image number": () => classify(["a"], {}, 5),
        "image object": () => classify(["a"], {}, {}),
        "image video": () => classify(["a"], {}, document.createElement("video")),
        "image blank address": () => classify(["a"], {}, " "),
        "image bad address": () => classify(["a"], {}, "https://"),
        "image script": () => classify(["a"], {}, "javascript:1"),
        "img without src": () => classify(["a"], {}, new Image()),
        "texts": () => classifier.embedText("a"),
        "no texts": () => classifier.embedText([]),
        "backend": () => SiglipClassifier.load("/mock/", { backend: "webgl" }),
        "dtype": () => SiglipClassifier.load("/mock/", { dtype: "int8" }),
        "worker": () => SiglipClassifier.load("/mock/", { worker: "no" }),
        "cache": () => SiglipClassifier.load("/mock/", { cache: 1 }),
        "timeout": () => SiglipClassifier.load("/mock/", { timeout: 0 }),
        "a password": () => SiglipClassifier.load("https://me:secret@example.org/model/"),
        "onProgress": () => SiglipClassifier.load("/mock/", { onProgress: {} }),
        "no model": () => SiglipClassifier.load(),
        "blank model": () => SiglipClassifier.load(""),
        "one word": () => SiglipClassifier.load("siglip"),
        "three words": () => SiglipClassifier.load("a/b/c"),
        "climbing": () => SiglipClassifier.load("google/.."),
        "revision": () => SiglipClassifier.load("google/siglip@../../x"),
        "a file": () => SiglipClassifier.load("/mock/config.json"),
        "script": () => SiglipClassifier.load("javascript:1"),
        "not files": () => SiglipClassifier.load(["config.json"]),
      };
      const results = {};
      for (const [name, work] of Object.entries(cases)) results[name] = await outcome(work);
      results.stats = await classifier[Symbol.for("siglip-web.stats")]();
      return results;
    });
    const { stats, ...outcomes } = results;
    for (const [name, result] of Object.entries(outcomes)) {
      assert.equal(result.code, "bad-input", `${name}: ${JSON.stringify(result)}`);
      assert.ok(result.message.length > 20 && result.ours, name);
    }
    assert.match(outcomes["a bare string"].message, /must be an array.*\["a cat", "a dog"\]/);
    assert.match(outcomes["a duplicate"].message, /labels 1 and 3 are the same \("a cat"\)/);
    assert.match(outcomes["a blank label"].message, /label 2 of 2 is blank/);
    assert.match(outcomes["too long"].message, /has 10000 characters; 1000 are allowed/);
    assert.match(outcomes["half a character"].message, /label 1 of 1 .*lone surrogate/);
    assert.doesNotMatch(outcomes["a password"].message, /secret/);
    assert.match(outcomes["no place"].message, /"a photo" has no \{\}/);
    assert.deepEqual(runs(stats), { imageRuns: 0, textRuns: 0 }, "nothing ran");
    await page.close();
  });

  test("models of the Hub are asked for where they are, and what it refuses is explained", async () => {
    const page = await open();
    const asked = [];
    let reply = { status: 200, body: "{}" };
    await site.context.route("https://huggingface.co/**", (route) => {
      asked.push(route.request().url());
      return reply ? route.fulfill({ ...reply, headers: { "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "X-Error-Code", ...reply.headers } }) : route.abort();
    });
    const load = (source) => page.evaluate((source) => outcome(async () => (await SiglipClassifier.load(source)).info.name), source);
    assert.deepEqual(await load("google/siglip-base-patch16-224"), { value: "google/siglip-base-patch16-224" });
    assert.deepEqual(await load("google/siglip2@refs/pr/3"), { value: "google/siglip2@refs/pr/3" });
    assert.deepEqual(await load("https://huggingface.co/google/siglip/tree/v1"), { value: "google/siglip@v1" });
    // The first files; the weights may be on their way when this engine, which reads nothing else, is done.
    assert.deepEqual(asked.filter((address) => !address.endsWith(".safetensors")).sort(), [
      ["google/siglip-base-patch16-224", "main"], ["google/siglip2", "refs%2Fpr%2F3"], ["google/siglip", "v1"],
    ].flatMap(([model, revision]) => [
      `https://huggingface.co/${model}/resolve/${revision}/config.json`,
      `https://huggingface.co/${model}/resolve/${revision}/preprocessor_config.json`,
      `https://huggingface.co/api/models/${model}/tree/${revision}`,
    ]).sort());
    reply = { status: 401, body: "" };
    assertError(await load("google/secret"), "network", /google\/secret \(HTTP 401\).*private/);
    reply = { status: 404, body: "", headers: { "X-Error-Code": "RevisionNotFound" } };
    assertError(await load("google/siglip@nope"), "network", /no such revision of google\/siglip@nope/);
    reply = { status: 503, body: "" };
    assertError(await load("google/siglip"), "network", /HTTP 503/);
    reply = undefined;
    assertError(await load("google/siglip"), "network", /config\.json could not be fetched/);
    await site.context.unroute("https://huggingface.co/**");
    await page.close();
  });

  test("a picture's address that fails is a network error that names it", async () => {
    const page = await open();
    await page.evaluate(async () => { window.kept = await SiglipClassifier.load("/mock/"); });
    const embed = (address) => page.evaluate((address) => outcome(() => window.kept.classify(address, ["a"])), address);
    assertError(await embed("/missing.png"), "network", /missing\.png".*HTTP 404/);
    assertError(await embed("http://127.0.0.1:9/cat.png"), "network", /127\.0\.0\.1:9\/cat\.png" could not be fetched.*CORS/);
    site.overlay["/private.png"] = { headers: { "Access-Control-Allow-Origin": "https://example.org" }, body: "x" };
    assertError(await embed(`${site.other}/private.png`), "network", /CORS.*save the picture/);
    assertError(await embed("/blank.html"), "bad-image", /web page, not a picture/);
    assertError(await embed("data:image/png;base64,%%%"), "bad-image", /data: address is damaged/);
    site.overlay["/empty.png"] = "";
    assertError(await embed("/empty.png"), "bad-image", /empty \(0 bytes\)/);
    const tainted = await page.evaluate(async (address) => {
      const image = new Image();
      image.src = address;
      await image.decode();
      const canvas = document.createElement("canvas");
      canvas.getContext("2d").drawImage(image, 0, 0);
      return [await outcome(() => window.kept.classify(image, ["a"])), await outcome(() => window.kept.classify(canvas, ["a"]))];
    }, await taintingPicture());
    for (const result of tainted) assertError(result, "network", /another site.*CORS/);
    await page.close();
  });

  /** The address of a picture on the other origin that pages may show but not read. */
  async function taintingPicture() {
    const body = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC", "base64");
    site.overlay["/tainting.png"] = { headers: { "Access-Control-Allow-Origin": "https://example.org" }, body };
    return `${site.other}/tainting.png`;
  }

  test("an address is fetched at once, while another call runs, and not after an abort", async () => {
    const page = await open();
    const requested = page.waitForRequest(/\/slow\.png$/);
    site.overlay["/slow.png"] = (request, response) => response.end("picture");
    const result = await page.evaluate(async () => {
      const classifier = await SiglipClassifier.load("/mock/");
      const stop = new AbortController();
      const running = outcome(() => classifier.classify(new Uint8Array(1), ["never ends"], { signal: stop.signal }));
      const waiting = classifier.classify("/slow.png", ["a"]);
      window.go = async () => {
        stop.abort();
        return [await running, await waiting];
      };
    }).then(() => requested).then(() => page.evaluate(() => window.go()));
    assertError(result[0], "aborted");
    assert.equal(result[1][0].label, "a");
    await page.close();
  });
});

const MODEL_FILES = ["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"];
const model = (file) => new URL(`../fixtures/model/tiny/${file}`, import.meta.url);
const expected = JSON.parse(await readFile(model("classify.json"), "utf8"));
const PICTURE = new URL("../fixtures/model/picture.png", import.meta.url);

/** An AVIF of 8 × 8 pixels of one red, which only the browser can decode. */
const AVIF = Buffer.from(
  "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAOcGl0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAAKAAAAChpaW5mAAAA" +
    "AAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAAAABqaXBycAAAAEtpcGNvAAAAFGlzcGUAAAAAAAAACAAAAAgAAAAQcGl4aQAAAAADCAgIAAAADGF2MUOBAAwAAAAAE2NvbHJuY2x4AAEADQAGgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAAMG1k" +
    "YXQSAAoIGAi/aICGg0IyGheHh4YhhJJJJlAAAABIVDZhrGHxZRanx5LM",
  "base64",
);

describe("the library over the real engine", { timeout: 1_200_000 }, () => {
  let site;
  let page;
  const close = [];
  before(async () => {
    site = await openSite(
      { after: (hook) => close.push(hook) },
      {
        overlay: {
          ...Object.fromEntries(MODEL_FILES.map((file) => [`/tiny/${file}`, model(file)])),
          "/picture.png": PICTURE,
          "/red.avif": { headers: { "Content-Type": "image/avif" }, body: AVIF },
        },
      },
    );
    page = await importLibrary(await site.page(), site.library);
    // One classifier in a worker serves most tests, whatever was asked of it before.
    const loaded = await page.evaluate(() => outcome(async () => { window.tiny = await SiglipClassifier.load("/tiny/", { backend: "cpu" }); }));
    assert.equal(loaded.code, undefined, loaded.message);
  });
  after(async () => {
    for (const hook of close) await hook();
  });

  /** Within `tolerance` of what transformers computes from the same files. */
  function assertAsReference(results, tolerance = 1e-4) {
    assert.deepEqual(results.map(({ label }) => label).sort(), [...expected.labels].sort());
    for (const { label, score, logit } of results) {
      const index = expected.labels.indexOf(label);
      assert.ok(Math.abs(logit - expected.logits[index]) <= tolerance, `${label}: ${logit}, not ${expected.logits[index]}`);
      assert.ok(Math.abs(score - expected.scores[index]) <= tolerance, `${label}: ${score}`);
    }
    const scores = results.map(({ score }) => score);
    assert.deepEqual(scores, [...scores].sort((a, b) => b - a));
  }

  test("logits and scores are those of transformers, sorted", async () => {
    const { sigmoid, softmax, top, info } = await page.evaluate(async (labels) => ({
      sigmoid: await tiny.classify("/picture.png", labels),
      softmax: await tiny.classify("/picture.png", labels, { scores: "softmax" }),
      top: await tiny.classify("/picture.png", labels, { topK: 2 }),
      info: tiny.info,
    }), expected.labels);
    assertAsReference(sigmoid);
    assert.deepEqual(top, sigmoid.slice(0, 2));
    for (const { label, score } of softmax) assert.ok(Math.abs(score - expected.softmax[expected.labels.indexOf(label)]) < 1e-5);
    assert.ok(Math.abs(softmax.reduce((sum, { score }) => sum + score, 0) - 1) < 1e-5);
    assert.deepEqual(
      { ...info, fingerprint: "", backendReason: "", cacheReason: "", logitScale: 0, logitBias: 0, parameters: 0, bytes: 0 },
      { name: "tiny", backend: "cpu", backendReason: "", adapter: LACKS[BROWSER].relaxedSimd ? "WebAssembly SIMD" : "WebAssembly relaxed SIMD", dtype: "f32", task: "zero-shot-image-classification", scores: "sigmoid", imageSize: 32, resample: 3, patchSize: 8, naflex: false, maxPatches: 16, embeddingSize: 64, contextLength: 16, parameters: 0, logitScale: 0, logitBias: 0, bytes: 0, fingerprint: "", cached: false, cacheReason: "" },
    );
    assert.match(info.fingerprint, /^[\da-f]{32}$/);
    assert.ok(info.parameters > 0 && info.bytes > 0 && info.logitScale > 0 && Number.isFinite(info.logitBias));
  });

  test("on WebGPU, in a worker, results are the same", async () => {
    const { value } = await page.evaluate((labels) => outcome(async () => {
      const gpu = await SiglipClassifier.load("/tiny/", { backend: "webgpu" });
      const results = await gpu.classify("/picture.png", labels);
      await gpu.dispose();
      return { results, info: gpu.info };
    }), expected.labels);
    assertAsReference(value.results, 1e-3);
    assert.equal(value.info.backend, "webgpu");
    assert.match(value.info.adapter, /swiftshader/i);
  });

  test("the GPU's pipelines are made side by side while a model loads, none when it is used, and none twice", async () => {
    const fresh = await site.page();
    await importLibrary(fresh, site.library);
    const counts = await fresh.evaluate(async (labels) => {
      const counts = { waitedFor: 0, ahead: [] };
      const { createComputePipeline, createComputePipelineAsync } = GPUDevice.prototype;
      let ahead = 0;
      Object.assign(GPUDevice.prototype, {
        createComputePipeline(descriptor) {
          counts.waitedFor++;
          return createComputePipeline.call(this, descriptor);
        },
        createComputePipelineAsync(descriptor) {
          ahead++;
          return createComputePipelineAsync.call(this, descriptor);
        },
      });
      for (const dtype of ["f32", "f16", "q8", "q4", "q4"]) {
        const gpu = await SiglipClassifier.load("/tiny/", { backend: "webgpu", dtype, worker: false });
        counts.ahead.push(ahead);
        await gpu.embedImages([new ImageData(8, 8), new ImageData(9, 9)]);
        await gpu.embedText(labels);
        await gpu.embedText(Array.from({ length: 16 }, (_, i) => `the label ${i}`));
        await gpu.dispose();
      }
      return counts;
    }, expected.labels);
    await fresh.close();
    assert.equal(counts.waitedFor, 0);
    assert.ok(counts.ahead[0] > 10, `${counts.ahead}`);
    assert.ok(counts.ahead[3] > counts.ahead[0], `${counts.ahead}`);
    assert.equal(counts.ahead[4], counts.ahead[3]);
  });

  test("on the main thread, results are the same", async () => {
    const results = await page.evaluate(async (labels) => {
      const local = await SiglipClassifier.load("/tiny/", { worker: false, backend: "cpu" });
      const results = await local.classify("/picture.png", labels);
      await local.dispose();
      return results;
    }, expected.labels);
    assertAsReference(results);
  });

  test("without relaxed SIMD another module gives the same answers, in every dtype", async () => {
    const plain = await site.page();
    // Where the library asks for it.
    await plain.evaluate(() => { WebAssembly.validate = () => false; });
    await importLibrary(plain, site.library);
    const embed = (page, worker) => page.evaluate(async ([worker, labels]) => {
      const results = {};
      for (const dtype of ["f32", "f16", "q8", "q4"]) {
        const classifier = await SiglipClassifier.load("/tiny/", { worker, backend: "cpu", dtype });
        const embeddings = [await classifier.embedImage("/picture.png"), ...(await classifier.embedText(labels))];
        results[dtype] = { adapter: classifier.info.adapter, embeddings: embeddings.map((embedding) => [...embedding]) };
        await classifier.dispose();
      }
      return results;
    }, [worker, expected.labels]);
    const [without, relaxed] = [await embed(plain, false), await embed(page, true)];
    for (const [dtype, { adapter, embeddings }] of Object.entries(without)) {
      assert.equal(adapter, "WebAssembly SIMD");
      assert.equal(relaxed[dtype].adapter, "WebAssembly relaxed SIMD");
      // With q8 and q4, activations are rounded to 8 bits where one instruction multiplies them.
      const bound = dtype.startsWith("q") ? 1e-3 : 1e-6;
      embeddings.forEach((embedding, i) => {
        const cosine = embedding.reduce((sum, number, j) => sum + number * relaxed[dtype].embeddings[i][j], 0);
        assert.ok(Math.abs(1 - cosine) < bound, `${dtype}: cosine ${cosine}`);
      });
    }
    await plain.close();
  });

  test("weights whose sums overflow are a bad model, with and without relaxed SIMD, and never an answer", async () => {
    const plain = await site.page();
    await plain.evaluate(() => { WebAssembly.validate = () => false; });
    await importLibrary(plain, site.library);
    for (const [one, worker] of [[page, true], [plain, false]]) {
      const outcomes = await one.evaluate(async ([worker, names]) => {
        const fetched = await Promise.all(names.map(async (name) => [name, new Uint8Array(await (await fetch(`/tiny/${name}`)).arrayBuffer())]));
        const weights = Object.fromEntries(fetched)["model.safetensors"];
        const length = Number(new DataView(weights.buffer).getBigUint64(0, true));
        const header = Object.entries(JSON.parse(new TextDecoder().decode(weights.subarray(8, 8 + length))));
        const outcomes = [];
        for (const part of ["vision_model.embeddings.patch_embedding.weight", "vision_model.encoder.layers.0.self_attn.q_proj.weight", "vision_model.encoder.layers.0.mlp.fc1.weight",
          "vision_model.head.attention.in_proj_weight", "vision_model.post_layernorm.weight", "text_model.encoder.layers.0.self_attn.v_proj.weight", "text_model.encoder.layers.0.mlp.fc2.weight", "text_model.head.weight"]) {
          const [start, end] = header.find(([name]) => name === part)[1].data_offsets.map((offset) => 8 + length + offset);
          const bytes = weights.slice();
          const numbers = new DataView(bytes.buffer, start, end - start);
          // 1.7e38, with the sign that it had.
          for (let at = 0; at < end - start; at += 4) numbers.setFloat32(at, numbers.getUint8(at + 3) & 0x80 ? -1.7e38 : 1.7e38, true);
          const files = fetched.map(([name, content]) => new File([name === "model.safetensors" ? bytes : content], name));
          // In q8 these two are held in f16, where larger numbers are cut.
          for (const dtype of /patch_embedding|q_proj/.test(part) ? ["f32"] : ["f32", "q8"]) {
            outcomes.push({ part, dtype, ...(await outcome(async () => {
              const classifier = await SiglipClassifier.load(files, { worker, backend: "cpu", dtype });
              try {
                return await classifier.classify("/picture.png", ["a cat"]);
              } finally {
                await classifier.dispose();
              }
            })) });
          }
        }
        return outcomes;
      }, [worker, MODEL_FILES]);
      for (const one of outcomes) assert.equal(one.code, "bad-model", JSON.stringify(one));
    }
    await plain.close();
  });

  test("a page of another site imports the library and classifies in a worker", async () => {
    const away = await importLibrary(await site.page("/blank.html", { origin: site.other }), site.library);
    const { value } = await away.evaluate(([model, picture, labels]) => outcome(async () => {
      const classifier = await SiglipClassifier.load(model);
      return classifier.classify(picture, labels);
    }), [`${site.origin}/tiny/`, `${site.origin}/picture.png`, expected.labels]);
    assertAsReference(value);
    assert.equal(away.workers().length, 1);
    await away.close();
  });

  test("a strict policy is enough: nothing but the page's own files", async () => {
    site.overlay["/strict.html"] = html("<!doctype html>", { "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'" });
    for (const worker of [true, false]) {
      const strict = await importLibrary(await site.page("/strict.html"), site.library);
      const data = `data:image/png;base64,${(await readFile(PICTURE)).toString("base64")}`;
      const { value } = await strict.evaluate(([worker, labels, data]) => outcome(async () => {
        const classifier = await SiglipClassifier.load("/tiny/", { worker });
        return classifier.classify(data, labels);
      }), [worker, expected.labels, data]);
      assertAsReference(value);
      await strict.close();
    }
  });

  test("every kind of picture gives the same embedding, and is left as it was", async () => {
    const results = await page.evaluate(async () => {
      const [width, height] = [97, 61];
      const canvas = Object.assign(document.createElement("canvas"), { width, height });
      const context = canvas.getContext("2d");
      const pixels = context.createImageData(width, height);
      for (let i = 0; i < width * height; i++) pixels.data.set([(i * 7) % 256, (i * 13) % 251, Math.floor(i / width) * 4, 255], 4 * i);
      context.putImageData(pixels, 0, 0);
      const offscreen = new OffscreenCanvas(width, height);
      offscreen.getContext("2d").putImageData(pixels, 0, 0);
      const blob = await offscreen.convertToBlob({ type: "image/png" });
      const buffer = await blob.arrayBuffer();
      const padded = new Uint8Array(buffer.byteLength + 10);
      padded.set(new Uint8Array(buffer), 5);
      const element = new Image();
      element.src = URL.createObjectURL(blob);
      const text = btoa(String.fromCharCode(...new Uint8Array(buffer)));
      const bitmap = await createImageBitmap(pixels);
      const frame = new VideoFrame(canvas, { timestamp: 0 });
      const kinds = {
        blob,
        file: new File([blob], "picture.png", { type: "image/png" }),
        "file of a wrong type": new File([blob], "picture.jpg", { type: "text/plain" }),
        buffer,
        bytes: new Uint8Array(buffer),
        "part of a buffer": padded.subarray(5, padded.length - 5),
        view: new DataView(buffer),
        "blob address": element.src,
        "data address": `data:image/png;base64,${text}`,
        element,
        canvas,
        offscreen,
        bitmap,
        pixels,
        frame,
      };
      const results = {};
      for (const [kind, image] of Object.entries(kinds)) {
        const { value, ...error } = await outcome(() => tiny.embedImage(image));
        results[kind] = value ? [...value] : error;
      }
      const intact = buffer.byteLength > 0 && bitmap.width === width && frame.codedWidth === width && pixels.data.length === 4 * width * height && padded.length > 0;
      frame.close();
      return { results, intact, type: Object.prototype.toString.call(await tiny.embedImage(blob)) };
    });
    const { blob, ...others } = results.results;
    assert.equal(blob.length, 64);
    assert.ok(Math.abs(Math.hypot(...blob) - 1) < 1e-5, "of unit length");
    for (const [kind, embedding] of Object.entries(others)) {
      assert.ok(Array.isArray(embedding), `${kind}: ${JSON.stringify(embedding)}`);
      assert.ok(embedding.every((number, i) => Math.abs(number - blob[i]) < 1e-6), kind);
    }
    assert.ok(results.intact);
    assert.equal(results.type, "[object Float32Array]");
  });

  test("alpha lies over white, also where the browser hands out the pixels", async () => {
    const embeddings = await page.evaluate(async () => {
      const draw = (background) => {
        const canvas = new OffscreenCanvas(40, 40);
        const context = canvas.getContext("2d");
        if (background) {
          context.fillStyle = background;
          context.fillRect(0, 0, 40, 40);
        }
        context.fillStyle = "#c02020";
        context.fillRect(8, 8, 20, 12);
        return canvas;
      };
      const embed = async (image) => [...(await tiny.embedImage(image))];
      return Promise.all([embed(draw("#fff")), embed(draw()), embed(await draw().convertToBlob()), embed(draw().transferToImageBitmap())]);
    });
    for (const embedding of embeddings) assert.ok(embedding.every((number, i) => Math.abs(number - embeddings[0][i]) < 1e-6));
  });

  test("several pictures at once have the embeddings of each alone", async () => {
    const { many, alone, nothing, ...errors } = await page.evaluate(async () => {
      const pixels = (seed) => new ImageData(Uint8ClampedArray.from({ length: 4 * 30 * 20 }, (_, i) => (i % 4 === 3 ? 255 : (i * seed * 7919) % 251)), 30, 20);
      const canvas = new OffscreenCanvas(30, 20);
      canvas.getContext("2d").putImageData(pixels(3), 0, 0);
      // The AVIF is decoded by the browser; one picture comes twice; more than one message's worth.
      const images = [canvas, "/picture.png", "/red.avif", ...Array.from({ length: 8 }, (_, i) => pixels(i + 5)), "/picture.png"];
      const many = await tiny.embedImages(images);
      const alone = [];
      for (const image of images) alone.push(await tiny.embedImage(image));
      return {
        many: many.map((embedding) => [...embedding]),
        alone: alone.map((embedding) => [...embedding]),
        nothing: await tiny.embedImages([]),
        damaged: await outcome(() => tiny.embedImages([canvas, new Blob(["no picture"])])),
        "no picture": await outcome(() => tiny.embedImages([canvas, 5])),
        "no array": await outcome(() => tiny.embedImages(canvas)),
        stopped: await outcome(() => tiny.embedImages([canvas], { signal: AbortSignal.abort() })),
      };
    });
    assert.equal(many.length, alone.length);
    many.forEach((embedding, i) => embedding.forEach((number, j) => assert.ok(Math.abs(number - alone[i][j]) < 1e-6, `picture ${i}: ${number}, ${alone[i][j]}`)));
    assert.deepEqual(nothing, []);
    assertError(errors.damaged, "bad-image", /^images\[1\]: /);
    assertError(errors["no picture"], "bad-input", /^images\[1\]: /);
    assertError(errors["no array"], "bad-input", /array of pictures/);
    assertError(errors.stopped, "aborted");
  });

  test("a picture is taken as it is when the call is made", async () => {
    const [before, during, later] = await page.evaluate(async () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 32, height: 32 });
      const context = canvas.getContext("2d");
      context.fillStyle = "red";
      context.fillRect(0, 0, 16, 32);
      const bytes = new Uint8Array(await (await new Promise((resolve) => canvas.toBlob(resolve))).arrayBuffer());
      const before = await tiny.embedImage(canvas);
      const calls = [tiny.embedImage(canvas), tiny.embedImage(bytes)];
      context.fillStyle = "blue";
      context.fillRect(0, 0, 32, 32);
      bytes.fill(0);
      return [before, ...(await Promise.all(calls))].map((embedding) => [...embedding]);
    });
    assert.deepEqual(during, before);
    assert.deepEqual(later, before);
  });

  test("formats that only the browser knows are decoded by it: AVIF, SVG", async () => {
    const results = await page.evaluate(async () => {
      const flat = (width, height) => {
        const canvas = new OffscreenCanvas(width, height);
        const context = canvas.getContext("2d");
        context.fillStyle = "#c81e28";
        context.fillRect(0, 0, width, height);
        return canvas;
      };
      const avif = await tiny.embedImage("/red.avif");
      const svg = (attributes) => new Blob([`<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" ${attributes}><rect width="50%" height="100%" fill="#c81e28"/></svg>`]);
      const half = (side) => {
        const canvas = new OffscreenCanvas(side, side);
        canvas.getContext("2d").drawImage(flat(side / 2, side), 0, 0);
        return canvas;
      };
      const image = new Image();
      image.src = URL.createObjectURL(new Blob([svg('viewBox="0 0 8 8"')], { type: "image/svg+xml" }));
      await image.decode();
      const pairs = { avif: [avif, await tiny.embedImage(flat(8, 8))] };
      const drawings = { "view box": svg('viewBox="0 0 8 8"'), size: svg('width="24" height="24"'), both: svg('width="100%" viewBox="0 0 3 3"'), element: image, prefixed: new Blob(['\ufeff<!-- drawn by hand -->\n<s:svg xmlns:s="http://www.w3.org/2000/svg" viewBox="0 0 2 2"><s:rect width="1" height="2" fill="#c81e28"/></s:svg>']) };
      for (const [name, drawing] of Object.entries(drawings)) {
        // How large an element shows a drawing without a size is the browser's own affair.
        pairs[name] = [await tiny.embedImage(drawing), await tiny.embedImage(half(drawing.naturalWidth ?? 1024))];
      }
      const cosine = ([a, b]) => a.reduce((sum, number, i) => sum + number * b[i], 0);
      return Object.fromEntries(Object.entries(pairs).map(([name, pair]) => [name, cosine(pair)]));
    });
    // AVIF is lossy: a level or two. A drawing has the same pixels.
    for (const [name, cosine] of Object.entries(results)) assert.ok(cosine > (name === "avif" ? 0.99 : 0.9999), `${name}: ${cosine}`);
  });

  test("a picture that can't be read says so, and the next one works", async () => {
    const png = await readFile(PICTURE);
    const jpeg = await readFile(new URL("../fixtures/preprocess/pictures/rgb.jpg", import.meta.url));
    const damaged = Buffer.from(png);
    damaged.fill(0x55, 60, 300);
    // A PNG of 30000 × 30000 pixels in a few bytes.
    const bomb = Buffer.from(png);
    bomb.writeUInt32BE(30_000, 16);
    bomb.writeUInt32BE(30_000, 20);
    const cases = {
      empty: Buffer.alloc(0),
      "truncated png": png.subarray(0, 200),
      "truncated jpeg": jpeg.subarray(0, Math.floor(jpeg.length / 2)),
      "only a signature": png.subarray(0, 8),
      damaged,
      bomb,
      text: Buffer.from("this is no picture"),
      html: Buffer.from("<!doctype html><p>hello"),
      pdf: Buffer.from("%PDF-1.7\n"),
      zeros: Buffer.alloc(5000),
      "damaged svg": Buffer.from("<svg xmlns='http://www.w3.org/2000/svg'><rect"),
      "damaged avif": AVIF.subarray(0, 100),
    };
    for (const [name, bytes] of Object.entries(cases)) {
      const result = await page.evaluate((bytes) => outcome(() => tiny.classify(new File([new Uint8Array(bytes)], "chosen.png"), ["a cat"])), [...bytes]);
      assertError(result, "bad-image", /.{20}/);
      assert.doesNotMatch(result.message, /panick|unreachable|undefined|\[object/, name);
    }
    const more = await page.evaluate(async () => {
      const closed = await createImageBitmap(new ImageData(2, 2));
      closed.close();
      const broken = new Image();
      broken.src = "/blank.html";
      const huge = { width: 20_000, height: 20_000 };
      const frame = new VideoFrame(await createImageBitmap(new ImageData(2, 2)), { timestamp: 0 });
      frame.close();
      return {
        closed: await outcome(() => tiny.embedImage(closed)),
        broken: await outcome(() => tiny.embedImage(broken)),
        "no pixels": await outcome(() => tiny.embedImage(Object.assign(document.createElement("canvas"), { width: 0 }))),
        "too many pixels": await outcome(() => tiny.embedImage(Object.assign(document.createElement("canvas"), huge))),
        "closed frame": await outcome(() => tiny.embedImage(frame)),
        "too many bytes": await outcome(() => tiny.embedImage(new Blob(Array(257).fill(new Uint8Array(2 ** 20))))),
      };
    });
    for (const result of Object.values(more)) assertError(result, "bad-image", /.{20}/);
    assertAsReference(await page.evaluate((labels) => tiny.classify("/picture.png", labels), expected.labels));
  });

  test("odd files are read as Pillow reads them, by the library or the browser, or refused", async () => {
    const corpus = new URL("../fixtures/preprocess/corpus/", import.meta.url);
    const expected = JSON.parse(await readFile(new URL("expected.json", corpus), "utf8"));
    for (const file of Object.keys(expected)) site.overlay[`/corpus/${file}`] = new URL(file, corpus);
    const results = await page.evaluate(async (expected) => {
      const results = {};
      for (const [file, { rgb_sha256: wanted }] of Object.entries(expected)) {
        const blob = await (await fetch(`/corpus/${file}`)).blob();
        const { value, ...error } = await outcome(() => tiny.embedImage(blob));
        results[file] = { ...error };
        if (!value) continue;
        // Where the browser's own pixels are Pillow's, they say what the embedding should be.
        const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" }).catch(() => undefined);
        if (!bitmap) continue;
        const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
        context.drawImage(bitmap, 0, 0);
        const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height);
        const rgb = pixels.data.filter((_, i) => i % 4 < 3);
        const digest = [...new Uint8Array(await crypto.subtle.digest("SHA-256", rgb))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
        if (digest !== wanted) continue;
        const same = await tiny.embedImage(pixels);
        results[file].exact = same.every((number, i) => number === value[i]);
      }
      return results;
    }, expected);
    // What neither the library nor the browser shows, though Pillow does; and what one of them shows, though Pillow doesn't. Apple's PNG is WebKit's.
    const refused = [...(BROWSER === "webkit" ? [] : ["cgbi.png"]), "other.qoi", "other.tga", "other.tiff"];
    const shown = ["bad_adler.png", "os2_v2_16.bmp", "pal_clr_big.bmp", "two_bit.bmp"];
    let exact = 0;
    const wrong = [];
    for (const [file, result] of Object.entries(results)) {
      const read = (expected[file].rgb_sha256 !== undefined && !refused.includes(file)) || shown.includes(file);
      if (read ? result.code !== undefined : result.code !== "bad-image" || !result.ours) wrong.push([file, result]);
      if (result.exact === false) wrong.push([file, "other pixels than the browser's and Pillow's"]);
      exact += result.exact ? 1 : 0;
    }
    assert.deepEqual(wrong, []);
    assert.ok(exact >= 100, `only ${exact} files compared with the browser's pixels`);
  });

  test("the largest picture is the same for both languages", async () => {
    const limits = JSON.parse(await readFile(new URL("../fixtures/preprocess/limits.json", import.meta.url), "utf8"));
    assert.equal(await page.evaluate(async () => (await import("/lib/client/image.js")).MAX_PIXELS), limits.largest_picture_pixels);
  });

  test("an <img> is taken as it is at the call, without another request", async () => {
    let requests = 0;
    const png = await readFile(PICTURE);
    site.overlay["/once.png"] = (request, response) => {
      // Whether the one whose src is changed at once is asked for is the browser's own affair.
      if (!request.url.includes("late")) requests++;
      response.writeHead(200, { "Content-Type": "image/png", "Cache-Control": "no-store" }).end(png);
    };
    const [shown, same, changed] = await page.evaluate(async () => {
      const image = new Image();
      image.src = "/once.png";
      await image.decode();
      const running = tiny.embedImage(image);
      image.src = "/red.avif";
      const shown = await running;
      const pending = Object.assign(new Image(), { src: "/once.png?late" });
      const late = outcome(() => tiny.embedImage(pending));
      pending.src = "/red.avif?other";
      return [[...shown], [...(await tiny.embedImage("/picture.png"))], await late];
    });
    assert.equal(requests, 1);
    shown.forEach((number, i) => assert.ok(Math.abs(number - same[i]) < 1e-6));
    assertError(changed, "bad-input", /another src before it had loaded/);
  });

  test("an <img> that does not load holds nobody up, ends with its signal, and after a time says so", async () => {
    site.overlay["/silent.png"] = () => new Promise(() => {});
    const waiting = await importLibrary(await site.page(), site.library);
    await waiting.clock.install();
    const results = await waiting.evaluate(async () => {
      const classifier = await SiglipClassifier.load("/tiny/", { backend: "cpu", worker: false });
      const silent = Object.assign(new Image(), { src: "/silent.png" });
      const lazy = Object.assign(new Image(), { loading: "lazy", src: "/silent.png?lazy" });
      const stop = new AbortController();
      const stopped = outcome(() => classifier.embedImage(silent, { signal: stop.signal }));
      window.late = [silent, lazy].map((image) => outcome(() => classifier.embedImage(image)));
      window.silentAddress = outcome(() => classifier.embedImage("/silent.png"));
      const other = await outcome(() => classifier.embedImage(new ImageData(4, 4)));
      stop.abort();
      return { stopped: await stopped, other: other.value?.length };
    });
    assertError(results.stopped, "aborted");
    assert.equal(results.other, 64);
    await waiting.clock.fastForward(61_000);
    const [silent, lazy, address] = await waiting.evaluate(() => Promise.all([...window.late, window.silentAddress]));
    assertError(silent, "network", /did not load within 30 seconds/);
    assertError(lazy, "network", /loading="eager"/);
    assertError(address, "network", /gave nothing for 30 seconds/);
    await waiting.close();
  });

  test("a buffer that was transferred is bad input, and the classifier goes on", async () => {
    const results = await page.evaluate(async () => {
      const detach = (view) => {
        structuredClone(view.buffer ?? view.data.buffer, { transfer: [view.buffer ?? view.data.buffer] });
        return view;
      };
      const bytes = detach(new Uint8Array(100));
      return {
        view: await outcome(() => tiny.embedImage(bytes)),
        buffer: await outcome(() => tiny.embedImage(bytes.buffer)),
        pixels: await outcome(() => tiny.embedImage(detach(new ImageData(2, 2)))),
      };
    });
    for (const result of Object.values(results)) assertError(result, "bad-input", /detached/);
    assertAsReference(await page.evaluate((labels) => tiny.classify("/picture.png", labels), expected.labels));
  });

  test("a URL, a Response and a <video>'s current frame are pictures", async () => {
    const results = await page.evaluate(async () => {
      const response = await fetch("/picture.png");
      const read = await fetch("/picture.png");
      await read.arrayBuffer();
      // A video of one colour.
      const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
      const context = canvas.getContext("2d");
      const stream = canvas.captureStream();
      const video = Object.assign(document.createElement("video"), { srcObject: stream, muted: true });
      const early = await outcome(() => tiny.embedImage(video));
      context.fillStyle = "#1ec828";
      context.fillRect(0, 0, 64, 64);
      const ready = new Promise((resolve) => video.requestVideoFrameCallback(resolve));
      await video.play();
      await ready;
      const dot = (a, b) => a.reduce((sum, number, i) => sum + number * b[i], 0);
      const file = await tiny.embedImage("/picture.png");
      return {
        url: dot(await tiny.embedImage(new URL("/picture.png", location.href)), file),
        response: dot(await tiny.embedImage(response), file),
        intact: !response.bodyUsed,
        video: dot(await tiny.embedImage(video), await tiny.embedImage(canvas)),
        errors: { early, read: await outcome(() => tiny.embedImage(read)), missing: await outcome(async () => tiny.embedImage(await fetch("/missing.png"))) },
      };
    });
    for (const kind of ["url", "response", "video"]) assert.ok(results[kind] > 0.999, `${kind}: ${results[kind]}`);
    assert.ok(results.intact);
    assertError(results.errors.early, "bad-input", /no frame yet/);
    assertError(results.errors.read, "bad-input", /read already/);
    assertError(results.errors.missing, "network", /HTTP 404/);
  });

  test("a drawing may hold HTML, and none keeps the page busy", async () => {
    const results = await page.evaluate(async () => {
      const svg = (body) => new Blob([`<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64">${body}</svg>`]);
      const html = await outcome(() => tiny.embedImage(svg('<foreignObject width="64" height="64"><div xmlns="http://www.w3.org/1999/xhtml" style="background:#c81e28;height:64px"></div></foreignObject>')));
      const flat = await tiny.embedImage(svg('<rect width="64" height="64" fill="#c81e28"/>'));
      const blur = '<feGaussianBlur stdDeviation="300"/>';
      const nested = Array.from({ length: 20 }, (_, i) => `<g id="g${i + 1}"><use href="#g${i}"/><use href="#g${i}"/></g>`).join("");
      return {
        html: html.value ? html.value.reduce((sum, number, i) => sum + number * flat[i], 0) : html,
        attacks: {
          blurs: await outcome(() => tiny.embedImage(svg(`<filter id="f">${blur.repeat(300)}</filter><rect width="64" height="64" filter="url(#f)"/>`))),
          "blurred over and over": await outcome(() => tiny.embedImage(svg(`<filter id="f">${blur}</filter>${'<g filter="url(#f)">'.repeat(300)}<rect width="9" height="9"/>${"</g>".repeat(300)}`))),
          "blurred by style": await outcome(() => tiny.embedImage(svg(`<style>rect { filter: blur(99px) }</style>${'<rect width="64" height="64"/>'.repeat(300)}`))),
          repeated: await outcome(() => tiny.embedImage(svg(`<rect id="g0" width="1" height="1"/>${nested}`))),
        },
      };
    });
    assert.ok(results.html > 0.999, JSON.stringify(results.html));
    for (const result of Object.values(results.attacks)) assertError(result, "bad-image", /too much work/);
  });

  test("a panorama and a strip of one pixel are pictures", async () => {
    const embeddings = await page.evaluate(async () => {
      const make = (width, height) => {
        const canvas = new OffscreenCanvas(width, height);
        const context = canvas.getContext("2d");
        context.fillStyle = "#3060c0";
        context.fillRect(0, 0, width / 2, height);
        return canvas.convertToBlob();
      };
      const bitmap = await createImageBitmap(await make(20_000, 40));
      const results = [await tiny.embedImage(await make(20_000, 40)), await tiny.embedImage(bitmap), await tiny.embedImage(await make(1, 3000)), await tiny.embedImage(new ImageData(1, 1))];
      return results.map((embedding) => [...embedding]);
    });
    assert.ok(embeddings[0].every((number, i) => Math.abs(number - embeddings[1][i]) < 1e-6), "tile by tile the same as whole");
    for (const embedding of embeddings) assert.ok(embedding.every(Number.isFinite));
  });

  test("labels are text, whatever is in them", async () => {
    const labels = ["<img src=x onerror=alert(1)>", "$& and $1", "water", "🐈 cat", "a {} b", "Zürich", "é", "constructor", "x".repeat(1000)];
    const { value } = await page.evaluate((labels) => outcome(() => tiny.classify("/picture.png", labels)), labels);
    assert.deepEqual(value.map(({ label }) => label).sort(), [...labels].sort());
    const dollar = await page.evaluate(async () => {
      const [one] = await tiny.classify("/picture.png", ["$&dogs"], { template: "a {}" });
      const [text] = await tiny.embedText(["a $&dogs"]);
      const image = await tiny.embedImage("/picture.png");
      return { logit: one.logit, cosine: image.reduce((sum, number, i) => sum + number * text[i], 0), info: tiny.info };
    });
    assert.ok(Math.abs(Math.exp(dollar.info.logitScale) * dollar.cosine + dollar.info.logitBias - dollar.logit) < 1e-3, "the label went in as it is");
  });

  test("several templates are averaged, and texts are embedded as given", async () => {
    const { both, one, other, texts } = await page.evaluate(async () => ({
      both: await tiny.classify("/picture.png", ["a cat"], { template: ["{}", "a drawing of {}"] }),
      one: await tiny.classify("/picture.png", ["a cat"], { template: "{}" }),
      other: await tiny.classify("/picture.png", ["a cat"], { template: "a drawing of {}" }),
      texts: (await tiny.embedText(["a cat", "", "a cat"])).map((embedding) => [...embedding]),
    }));
    const [low, high] = [one[0].logit, other[0].logit].sort((a, b) => a - b);
    assert.ok(both[0].logit !== low && both[0].logit !== high);
    assert.equal(texts.length, 3);
    assert.deepEqual(texts[0], texts[2]);
    for (const embedding of texts) assert.ok(Math.abs(Math.hypot(...embedding) - 1) < 1e-5);
  });

  test("the same labels run the text tower once, the same picture the image tower once", async () => {
    const [start, first, second, third] = await page.evaluate(async () => {
      const stats = async () => {
        const { imageRuns, textRuns } = await tiny[Symbol.for("siglip-web.stats")]();
        return { imageRuns, textRuns };
      };
      const bytes = new Uint8Array(await (await fetch("/picture.png")).arrayBuffer());
      const labels = ["quite new", "never asked"];
      const counts = [await stats()];
      await tiny.classify(bytes, labels);
      counts.push(await stats());
      await tiny.classify(new Blob([bytes]), labels);
      counts.push(await stats());
      await tiny.classify(new ImageData(3, 3), labels);
      counts.push(await stats());
      return counts;
    });
    assert.ok(first.textRuns > start.textRuns);
    assert.deepEqual(second, first);
    assert.deepEqual(third, { imageRuns: first.imageRuns + 1, textRuns: first.textRuns });
  });

  test("nothing is requested while classifying", async () => {
    const file = await readFile(PICTURE);
    const before = site.requests.length;
    const requests = [];
    page.on("request", (request) => requests.push(request.url()));
    await page.evaluate((bytes) => tiny.classify(new File([new Uint8Array(bytes)], "picture.png"), ["not asked before"]), [...file]);
    assert.deepEqual(site.requests.slice(before), []);
    assert.deepEqual(requests, []);
  });

  test("a call that is aborted midway leaves a classifier that works", async () => {
    const [results, last] = await page.evaluate(async (labels) => {
      const results = [];
      for (const wait of [() => {}, () => Promise.resolve(), () => new Promise((resolve) => setTimeout(resolve))]) {
        const stop = new AbortController();
        const call = outcome(() => tiny.classify("/picture.png", Array.from({ length: 500 }, (_, i) => `number ${i} ${Math.random()}`), { signal: stop.signal }));
        await wait();
        stop.abort();
        results.push(await call);
      }
      return [results, await tiny.classify("/picture.png", labels)];
    }, expected.labels);
    for (const result of results) assertError(result, "aborted");
    assertAsReference(last);
  });

  test("a checkpoint on disk: chosen files, a chosen folder, a directory handle", async () => {
    const results = await page.evaluate(async ([files, labels]) => {
      const parts = await Promise.all(files.map(async (name) => new File([await (await fetch(`/tiny/${name}`)).blob()], name)));
      // What <input webkitdirectory> gives; scripts can't make such files.
      const inFolder = parts.map((file) => Object.defineProperty(new File([file], file.name), "webkitRelativePath", { value: `models/tiny/${file.name}` }));
      const stray = Object.defineProperty(new File(["{}"], "config.json"), "webkitRelativePath", { value: "models/tiny/deeper/below/config.json" });
      const root = await navigator.storage.getDirectory();
      const directory = await root.getDirectoryHandle("checkpoint", { create: true });
      for (const file of parts) {
        const writable = await (await directory.getFileHandle(file.name, { create: true })).createWritable();
        await writable.write(file);
        await writable.close();
      }
      const results = [];
      for (const source of [parts, [stray, ...inFolder], directory]) {
        const { value, ...error } = await outcome(async () => {
          const classifier = await SiglipClassifier.load(source, { backend: "cpu" });
          const scores = await classifier.classify("/picture.png", labels);
          await classifier.dispose();
          return { name: classifier.info.name, scores };
        });
        results.push(value ?? error);
      }
      return results;
    }, [MODEL_FILES, expected.labels]);
    for (const { scores, ...rest } of results) {
      assert.ok(scores, JSON.stringify(rest));
      assertAsReference(scores);
    }
    assert.deepEqual(results.map(({ name }) => name), ["local files", "tiny", "checkpoint"]);
    const missing = await page.evaluate(() => outcome(() => SiglipClassifier.load([new File(["x"], "model.safetensors")])));
    assertError(missing, "bad-model", /config\.json is missing among the 1 files/);
  });

  test("folders of MLX and open_clip give what these compute", async () => {
    for (const name of ["mlx-8bit", "mlx-mixed", "open-clip"]) {
      const folder = new URL(`../fixtures/model/${name}/`, import.meta.url);
      for (const file of await readdir(folder)) site.overlay[`/${name}/${file}`] = new URL(file, folder);
      const reference = JSON.parse(await readFile(new URL("classify.json", folder), "utf8"));
      const { value, ...error } = await page.evaluate(([name, labels]) => outcome(async () => {
        const classifier = await SiglipClassifier.load(`/${name}/`, { backend: "cpu", dtype: "f32" });
        const scores = await classifier.classify("/picture.png", labels);
        await classifier.dispose();
        return scores;
      }), [name, reference.labels]);
      assert.ok(value, `${name}: ${JSON.stringify(error)}`);
      for (const { label, logit } of value) {
        const want = reference.logits[reference.labels.indexOf(label)];
        assert.ok(Math.abs(logit - want) < 1e-3, `${name}, ${label}: ${logit}, not ${want}`);
      }
    }
  });

  test("a folder as transformers 5 saves it, on a server and from the visitor's disk: spiece.model and processor_config.json alone", async () => {
    const demo = (file) => new URL(`../../www/lib/models/demo/${file}`, import.meta.url);
    const preprocessor = JSON.parse(await readFile(demo("preprocessor_config.json"), "utf8"));
    const saved = ["config.json", "tokenizer_config.json", "spiece.model", "model.safetensors"];
    for (const file of saved) site.overlay[`/five/${file}`] = demo(file);
    // Some servers answer with a page for whatever is missing.
    for (const file of ["preprocessor_config.json", "tokenizer.json", "tokenizer.model", "open_clip_config.json"]) site.overlay[`/pages/${file}`] = html("<!doctype html><title>The site</title>");
    site.overlay["/five/processor_config.json"] = JSON.stringify({ image_processor: preprocessor, processor_class: "SiglipProcessor" });
    for (const file of [...saved, "processor_config.json"]) site.overlay[`/pages/${file}`] = site.overlay[`/five/${file}`];
    const [want, ...got] = await page.evaluate(async (files) => {
      const labels = ["a cat", "Zürich, two dogs!", "a red apple"];
      const dropped = files.map(async (name) => new File([await (await fetch(`/five/${name}`)).blob()], name));
      const results = [];
      for (const source of ["demo", "/five/", "/pages/", await Promise.all(dropped)]) {
        const { value, ...error } = await outcome(async () => {
          const classifier = await SiglipClassifier.load(source, { backend: "cpu" });
          const scores = await classifier.classify("/picture.png", labels);
          await classifier.dispose();
          return scores;
        });
        results.push(value ?? error);
      }
      return results;
    }, [...saved, "processor_config.json"]);
    assert.equal(want.length, 3, JSON.stringify(want));
    for (const scores of got) assert.deepEqual(scores, want);
    for (const [file, named] of [["processor_config.json", "preprocessor_config"], ["spiece.model", "tokenizer"]]) {
      const there = site.overlay[`/pages/${file}`];
      for (const answer of [html("<!doctype html>"), { status: 404 }]) {
        site.overlay[`/pages/${file}`] = answer;
        assertError(await page.evaluate(() => outcome(async () => (await SiglipClassifier.load("/pages/", { backend: "cpu", cache: false })).info)), "bad-model", new RegExp(`/${named}\\.json is a web page`));
      }
      site.overlay[`/pages/${file}`] = there;
    }
  });

  test("checkpoint files that are missing, wrong or damaged are named", async () => {
    const weights = await readFile(model("model.safetensors"));
    const config = JSON.parse(await readFile(model("config.json"), "utf8"));
    const wider = structuredClone(config);
    wider.vision_config.hidden_size = wider.text_config.hidden_size = 128;
    const page404 = { status: 404, headers: { "Content-Type": "text/html" }, body: "<!doctype html>not found" };
    const webPage = html("<!doctype html><title>Sign in</title>");
    const stop = (request, response) => {
      response.writeHead(200, { "Content-Length": weights.length });
      response.write(weights.subarray(0, 300_000), () => response.destroy());
    };
    const cases = [
      ...["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"].flatMap((file) => [
        [file, page404, "bad-model", new RegExp(`${file.replace(".", "\\.")} is missing`)],
        [file, webPage, "bad-model", new RegExp(`${file.replace(".", "\\.")} is a web page`)],
        [file, Buffer.from("<!doctype html><title>As bytes</title>"), "bad-model", new RegExp(file.replace(".", "\\."))],
        [file, "", "bad-model", new RegExp(file.replace(".", "\\."))],
        [file, { status: 500 }, "network", new RegExp(`${file.replace(".", "\\.")} with HTTP 500`)],
        [file, { status: 403 }, "network", /refused.*HTTP 403/],
      ]),
      ["config.json", "{\"model_type\": \"siglip\", ", "bad-model", /config\.json/],
      ["config.json", JSON.stringify({ ...config, model_type: "clip" }), "unsupported", /clip/],
      ["config.json", JSON.stringify(wider), "bad-model", /64.*128|128.*64/],
      ["model.safetensors", weights.subarray(0, weights.length - 1000), "bad-model", /model\.safetensors/],
      ["model.safetensors", weights.subarray(0, 100), "bad-model", /model\.safetensors/],
      ["model.safetensors", Buffer.concat([Buffer.alloc(8, 0xff), weights.subarray(8)]), "bad-model", /model\.safetensors/],
      ["model.safetensors", stop, "network", /model\.safetensors broke off/],
    ];
    for (const [file, answer, code, message] of cases) {
      for (const name of MODEL_FILES) site.overlay[`/broken/${name}`] = name === file ? answer : model(name);
      const result = await page.evaluate(() => outcome(async () => (await SiglipClassifier.load("/broken/", { worker: false, backend: "cpu", [Symbol.for("siglip-web.retryPolicy")]: { hurry: true } })).info));
      assertError(result, code, message);
    }
    // In the worker, and with a page that is as usable as before.
    assertError(await page.evaluate(() => outcome(async () => (await SiglipClassifier.load("/broken/", { [Symbol.for("siglip-web.retryPolicy")]: { hurry: true } })).info)), "network");
    assertAsReference(await page.evaluate((labels) => tiny.classify("/picture.png", labels), expected.labels));
  });

  test("progress tells bytes that arrive, and ends with ready", async () => {
    const events = await page.evaluate(async () => {
      const events = [];
      const classifier = await SiglipClassifier.load("/tiny/", { backend: "cpu", onProgress: (event) => events.push(event) });
      await classifier.dispose();
      return events;
    });
    const size = (await readFile(model("model.safetensors"))).length;
    const weights = events.filter(({ stage, file }) => stage === "download" && file === "model.safetensors");
    assert.deepEqual(weights.at(-1), { stage: "download", file: "model.safetensors", loaded: size, total: size });
    for (let i = 1; i < weights.length; i++) assert.ok(weights[i].loaded >= weights[i - 1].loaded);
    assert.equal(events.at(-1).stage, "ready");
    assert.equal(events.filter(({ stage }) => stage === "ready").length, 1);
    assert.ok(events.some(({ file }) => file === `siglip_web_cpu${LACKS[BROWSER].relaxedSimd ? "" : "_relaxed"}_bg.wasm`));
  });

  test("a small model comes whole while the library's WebAssembly does, and the page asks for its own before the rest of its scripts has come", async () => {
    const weights = "lib/models/demo/model.safetensors";
    const { size } = await stat(join(www, weights));
    for (const [path, opened] of [[`/lib/pkg/siglip_web_cpu${LACKS[BROWSER].relaxedSimd ? "" : "_relaxed"}_bg.wasm`, site.page], ["/page/main.js", () => site.page("/index.html")]]) {
      let asked = 0;
      let last;
      const whole = new Promise((resolve) => { last = resolve; });
      site.overlay[`/${weights}`] = (request, response) => {
        asked = Math.max(asked, 1 + Number(/-(\d+)$/.exec(request.headers.range)?.[1]));
        if (asked >= size) last();
        sendFile(www, request, response);
      };
      site.overlay[path] = async (request, response) => {
        await whole;
        sendFile(www, request, response);
      };
      const visited = await opened();
      if (opened === site.page) {
        await importLibrary(visited, site.library);
        const { value, message } = await visited.evaluate(() => outcome(async () => (await SiglipClassifier.load("demo", { backend: "cpu" })).info.name));
        assert.equal(value, "demo", message);
      } else {
        await visited.evaluate(() => new Promise((done) => {
          const look = () => (/\d\s?%/.test(document.querySelector("#results").textContent) ? done(true) : setTimeout(look, 20));
          look();
        }));
      }
      await visited.close();
      for (const held of [`/${weights}`, path]) delete site.overlay[held];
    }
  });

  test("the demo model answers for every sample picture, without any other site", async () => {
    const samples = (await readdir(join(www, "samples"))).filter((name) => /\.(png|jpe?g|webp)$/.test(name));
    assert.ok(samples.length > 0);
    const outside = [];
    page.on("request", (request) => new URL(request.url()).origin !== site.origin && outside.push(request.url()));
    const { value } = await page.evaluate((samples) => outcome(async () => {
      const demo = await SiglipClassifier.load("demo", { backend: "cpu" });
      const results = [];
      for (const sample of samples) results.push(await demo.classify(`/samples/${sample}`, ["a cat", "a car", "a tree"]));
      await demo.dispose();
      return { results, info: demo.info };
    }), samples);
    assert.equal(value.info.name, "demo");
    for (const results of value.results) {
      assert.equal(results.length, 3);
      for (const { score, logit } of results) assert.ok(score >= 0 && score <= 1 && Number.isFinite(logit));
    }
    assert.deepEqual(outside, []);
  });

  test("dispose ends the worker, and pictures may come from the next classifier", async () => {
    const fresh = await importLibrary(await site.page(), site.library);
    const result = await fresh.evaluate(async () => {
      const classifier = await SiglipClassifier.load("/tiny/", { backend: "cpu" });
      const running = outcome(() => classifier.classify("/picture.png", Array.from({ length: 200 }, (_, i) => `thing ${i}`)));
      await classifier.dispose();
      const again = await SiglipClassifier.load("/tiny/", { backend: "cpu" });
      return [await running, (await again.classify("/picture.png", ["a cat"]))[0].label];
    });
    assertError(result[0], "disposed");
    assert.equal(result[1], "a cat");
    await fresh.close();
  });
});
