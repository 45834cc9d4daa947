// siglip-web.js as a page uses it. First with an engine that fails on command, then with the real one on the demo model.
import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { html, importLibrary, mockEngine, openSite, www } from "./harness.mjs";

/** A model folder for the mock. */
const folder = (name, config = {}) => ({ [`/${name}/config.json`]: JSON.stringify(config) });

/** A SiglipError with this code, and a message that says so. */
function assertError(outcome, code, message = /./) {
  assert.equal(outcome.code, code, JSON.stringify(outcome));
  assert.match(outcome.message, message);
  assert.ok(outcome.ours, "rejects with a SiglipError");
}

/** The browser tells a moment later that a worker has ended. */
async function workersEnded(page) {
  await Promise.all(page.workers().map((worker) => worker.waitForEvent("close", { timeout: 5000 })));
}

describe("the library over an engine that fails on command", { timeout: 120_000 }, () => {
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

    test(`a crash rejects what runs and what waits, and the model can be loaded again (${where})`, async () => {
      const page = await open();
      for (const label of ["trap", "throw a trap"]) {
        const results = await page.evaluate(async ({ worker, label }) => {
          const classifier = await SiglipClassifier.load("/mock/", { worker });
          const bytes = new Uint8Array(1);
          const both = await Promise.all([outcome(() => classifier.classify(bytes, [label])), outcome(() => classifier.classify(bytes, ["waits"]))]);
          const later = await outcome(() => classifier.embedText(["later"]));
          await classifier.dispose();
          const again = await SiglipClassifier.load("/mock/", { worker });
          return [...both, later, await outcome(() => again.classify(bytes, ["a"]))];
        }, { worker, label });
        for (const result of results.slice(0, 3)) assertError(result, "device-lost", /[Ll]oad the model again/);
        assert.equal(results[3].value[0].label, "a");
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
      assert.deepEqual(result.stats, { imageRuns: 3, textRuns: 1 });
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
      ["/worker.js", { status: 404 }, "network", /worker\.js could not be started/, [true]],
      ["/engine.js", { status: 404 }, "network", /worker\.js could not be started/, [true]],
      ["/pkg/siglip_web_cpu.js", { status: 404 }, "network", /siglip_web_cpu\.js could not be loaded/, [true, false]],
      ["/pkg/siglip_web_cpu_bg.wasm", { status: 404 }, "network", /siglip_web_cpu_bg\.wasm is not there/, [true, false]],
      ["/pkg/siglip_web_cpu_bg.wasm", "<!doctype html>", "unsupported", /can't run the library's WebAssembly/, [true, false]],
    ];
    for (const [path, answer, code, message, places] of cases) {
      for (const worker of places) {
        site.overlay[path] = answer;
        const page = await open();
        assertError(await page.evaluate((worker) => outcome(() => SiglipClassifier.load("/mock/", { worker })), worker), code, message);
        await workersEnded(page);
        await page.close();
        if (path in broken) site.overlay[path] = broken[path];
        else delete site.overlay[path];
      }
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
    assert.match(outcomes["no place"].message, /"a photo" has no \{\}/);
    assert.deepEqual(stats, { imageRuns: 0, textRuns: 0 }, "nothing ran");
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
    assert.deepEqual(asked, [
      "https://huggingface.co/google/siglip-base-patch16-224/resolve/main/config.json",
      "https://huggingface.co/google/siglip2/resolve/refs%2Fpr%2F3/config.json",
      "https://huggingface.co/google/siglip/resolve/v1/config.json",
    ]);
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
