// The CPU's threads, which only cross-origin isolated pages have.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { importLibrary, openSite, test, www } from "./harness.mjs";

const DEMO = "/lib/models/demo/";
const LABELS = ["a ladybug", "a teapot", "a bicycle"];

describe("threads", { timeout: 1_200_000 }, () => {
  let isolated;
  let plain;
  const close = [];
  before(async () => {
    const hooks = { after: (hook) => close.push(hook) };
    isolated = await openSite(hooks, { isolated: true });
    plain = await openSite(hooks);
  });
  after(async () => {
    for (const hook of close) await hook();
  });

  /** Embeddings of some pictures and labels, and what the classifier says of itself. */
  const embed = (page, options) => page.evaluate(async ([model, labels, options]) => {
    const classifier = await SiglipClassifier.load(new URL(model, location.href).href, { backend: "cpu", cache: false, ...options });
    const pictures = Array.from({ length: 5 }, (_, i) => {
      const picture = new ImageData(90 + i, 80);
      for (let j = 0; j < picture.data.length; j++) picture.data[j] = (Math.imul(j + i, 2654435761) >>> 24) | (j % 4 === 3 ? 255 : 0);
      return picture;
    });
    const embeddings = [await classifier.embedImage("/samples/ladybug.png"), ...(await classifier.embedImages(pictures)), ...(await classifier.embedText(labels))];
    const scores = await classifier.classify("/samples/ladybug.png", labels);
    const { adapter, backendReason } = classifier.info;
    await classifier.dispose();
    return { adapter, backendReason, scores, embeddings: embeddings.map((embedding) => [...embedding]) };
  }, [DEMO, LABELS, options]);

  test("give bit for bit the results of one, in every dtype", async () => {
    const [many, one] = [await importLibrary(await isolated.page(), isolated.library), await importLibrary(await plain.page(), plain.library)];
    for (const dtype of ["f32", "f16", "q8", "q4"]) {
      const [with_, without] = [await embed(many, { dtype }), await embed(one, { dtype })];
      assert.match(with_.adapter, /^WebAssembly relaxed SIMD, [2-8] threads$/);
      assert.equal(without.adapter, "WebAssembly relaxed SIMD");
      assert.deepEqual(with_.embeddings, without.embeddings, dtype);
      assert.deepEqual(with_.scores, without.scores, dtype);
    }
    await many.close();
  });

  test("are ended with the classifier, and a second one has its own", async () => {
    const page = await importLibrary(await isolated.page(), isolated.library);
    const results = await page.evaluate(async ([model, labels]) => {
      const load = () => SiglipClassifier.load(model, { backend: "cpu" });
      const [first, second] = await Promise.all([load(), load()]);
      const answers = await Promise.all([first, second].map((classifier) => classifier.classify("/samples/ladybug.png", labels)));
      await first.dispose();
      answers.push(await second.classify("/samples/ladybug.png", labels));
      await second.dispose();
      return answers;
    }, ["demo", LABELS]);
    assert.deepEqual(results[1], results[0]);
    assert.deepEqual(results[2], results[0]);
    await Promise.all(page.workers().map((worker) => worker.waitForEvent("close", { timeout: 5000 })));
    await page.close();
  });

  test("are shared by what computes in a worker of the page's own, and stay when one of these ends", async () => {
    const page = await importLibrary(await isolated.page(), isolated.library);
    const result = await page.evaluate(([library, labels]) => new Promise((resolve, reject) => {
      const script = `
        let running = 0;
        const Own = Worker;
        globalThis.Worker = class extends Own {
          constructor(...given) { super(...given); running += 1; }
          terminate() { running -= 1; super.terminate(); }
        };
        const { SiglipClassifier } = await import(${JSON.stringify(library)});
        const one = async () => {
          const classifier = await SiglipClassifier.load("demo", { worker: false, backend: "cpu" });
          const scores = await classifier.classify(${JSON.stringify(new URL("/samples/ladybug.png", location.href).href)}, ${JSON.stringify(labels)});
          const { adapter } = classifier.info;
          const during = running;
          await classifier.dispose();
          return { adapter, during, after: running, scores };
        };
        postMessage([await one(), await one()]);`;
      const worker = new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })), { type: "module" });
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = ({ message }) => reject(new Error(message));
    }), [isolated.library, LABELS]);
    const [first, second] = result;
    assert.match(first.adapter, /threads$/);
    assert.ok(first.during > 0);
    assert.equal(first.after, first.during);
    assert.deepEqual(second, first);
    await page.close();
  });

  test("work for a page of another site", async () => {
    const page = await importLibrary(await isolated.page("/blank.html", { origin: isolated.other }), isolated.library);
    assert.match((await embed(page)).adapter, /threads$/);
    await page.close();
  });

  test("aren't used on the main thread, which may not wait", async () => {
    const page = await importLibrary(await isolated.page(), isolated.library);
    assert.equal((await embed(page, { worker: false })).adapter, "WebAssembly relaxed SIMD");
    await page.close();
  });

  test("that don't start are done without", async () => {
    const cases = { "/lib/worker/thread.js": { status: 404 }, "/lib/pkg/siglip_web_cpu_relaxed_threads.js": { status: 404 }, "/lib/pkg/siglip_web_cpu_relaxed_threads_bg.wasm": { status: 404 } };
    for (const [file, answer] of Object.entries(cases)) {
      isolated.overlay[file] = answer;
      const page = await importLibrary(await isolated.page(), isolated.library);
      const { adapter, backendReason } = await embed(page);
      assert.equal(adapter, "WebAssembly relaxed SIMD", file);
      assert.match(backendReason, /asked for\. One thread is used because more could not be started: /);
      await page.close();
      delete isolated.overlay[file];
    }
  });

  test("that crash end the call with an error, not with silence, and the model starts afresh", async () => {
    // A thread that takes its share of the work, and then crashes instead of doing it.
    const script = await readFile(join(www, "lib/worker/thread.js"), "utf8");
    isolated.overlay["/lib/worker/thread.js"] = script.replace("glue.runThread();", 'throw new WebAssembly.RuntimeError("unreachable");');
    assert.notEqual(isolated.overlay["/lib/worker/thread.js"], script);
    const page = await importLibrary(await isolated.page(), isolated.library);
    const error = await page.evaluate(async ([model, labels]) => {
      try {
        window.kept = await SiglipClassifier.load(model, { backend: "cpu" });
        for (;;) await kept.classify("/samples/ladybug.png", labels);
      } catch (error) {
        return { code: error.code, message: error.message };
      }
    }, ["demo", LABELS]);
    assert.equal(error.code, "device-lost");
    // It takes its share from the first moment on, so the load may be the call that it ends.
    assert.match(error.message, /crashed \(unreachable\).*(starts afresh for the next call|Load the model again)/);
    delete isolated.overlay["/lib/worker/thread.js"];
    const [{ label }] = await page.evaluate(async ([model, labels]) => {
      window.kept ??= await SiglipClassifier.load(model, { backend: "cpu" });
      return kept.classify("/samples/ladybug.png", labels);
    }, ["demo", LABELS]);
    assert.equal(label, "a ladybug");
    await page.close();
  });

  test("need headers with which the tag still shows pictures of other sites that let themselves be read", async () => {
    // Without Cross-Origin-Resource-Policy, as most sites send it.
    isolated.overlay["/readable.png"] = new URL("samples/ladybug.png", `file://${www}/`);
    const page = await isolated.page();
    const shown = await page.evaluate(async (address) => {
      await import(new URL("/lib/siglip-classifier.js", location.href).href);
      const tag = Object.assign(document.createElement("siglip-classifier"), { backend: "cpu" });
      tag.setAttribute("model", "demo");
      tag.setAttribute("labels", "a ladybug, a teapot");
      const results = new Promise((resolve) => tag.addEventListener("siglip-result", resolve, { once: true }));
      document.body.append(tag);
      tag.image = address;
      await results;
      const preview = tag.shadowRoot.querySelector("[part=preview]");
      await preview.decode();
      return !preview.hidden && preview.naturalWidth > 0;
    }, `${isolated.other}/readable.png`);
    assert.ok(shown);
    await page.close();
  });

  test("are there on the page, which says so", async () => {
    const page = await isolated.page("/");
    await page.waitForFunction(() => /CPU: WebAssembly relaxed SIMD, \d threads/.test(document.body.textContent));
    await page.close();
  });
});
