// Pages, frames, workers and extensions that browsers give other rights.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { cpSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { fileURLToPath } from "node:url";
import { expectedAnswers, fresh, open, openBrowser, pictureAnd, place, samples } from "./harness.mjs";
import { library } from "./prepare.mjs";

const root = fileURLToPath(new URL("../../", import.meta.url));
const GROUP = "Other places";
const LABELS = ["a ladybug", "a teapot", "a penguin"];
const picture = readFileSync(join(samples, "ladybug.png")).toString("base64");
const ONE_THREAD = /^WebAssembly relaxed SIMD$/;
const THREADS = /^WebAssembly relaxed SIMD, \d threads$/;

/** Code of a page or worker: classifies the picture with a model. */
const CLASSIFY = `async (address, picture, model = "demo", options = {}) => {
  const { SiglipClassifier } = await import(address);
  const classifier = await SiglipClassifier.load(model, options);
  const scores = await classifier.classify(Uint8Array.from(atob(picture), (byte) => byte.charCodeAt(0)), ${JSON.stringify(LABELS)});
  const { adapter, backendReason, cacheReason } = classifier.info;
  await classifier.dispose();
  return { scores, adapter, backendReason, cacheReason };
}`;

/** @param {{evaluate: (code: string) => Promise<any>}} frame a page or frame of Playwright @param {any[]} given */
const classify = (frame, ...given) => frame.evaluate(`(${CLASSIFY})(${given.map((value) => JSON.stringify(value)).join(", ")})`);

/** A worker's own script, which answers with what came of it. @param {string} listen a function that is given what to do with each message */
const workerScript = (listen) => `const classify = ${CLASSIFY};
${listen}(async (reply, address, picture) => {
  try { reply({ value: await classify(address, picture) }); } catch (error) { reply({ code: error.code, message: error.message }); }
});`;
const SCRIPTS = {
  "/worker.js": workerScript("((answer) => { onmessage = ({ data }) => answer(postMessage, ...data); })"),
  "/shared.js": workerScript("((answer) => { onconnect = ({ ports: [port] }) => { port.onmessage = ({ data }) => answer((message) => port.postMessage(message), ...data); }; })"),
  // A service worker may not import(): its page's script is imported as it starts.
  "/service.js": `import { SiglipClassifier } from "./siglip-web.js";
    onmessage = ({ data, source }) => SiglipClassifier.load("demo").then(() => source.postMessage({}), ({ code, message }) => source.postMessage({ code, message }));`,
};

/** For `serve`: these scripts, and what else is there. @param {(request: any, response: any) => boolean} otherwise */
const withScripts = (otherwise) => (request, response) => {
  const script = SCRIPTS[request.url];
  if (!script) return otherwise(request, response);
  response.writeHead(200, { "Content-Type": "text/javascript" }).end(script);
  return true;
};

/** A page of the library's own site, the policy as its header. */
async function ownPage(t, browser, { policy, isolated, body = "<!doctype html><title>A page</title>" } = {}) {
  const site = await open(t, library, { isolated, handle: withScripts(pictureAnd(body, policy && { "Content-Security-Policy": policy })) });
  const page = await browser.page(t, site.url);
  return { site, page, address: `${site.url}siglip-web.js` };
}

/** The tag with the picture as its `image`: its scores, and whether it shows the picture. */
const tagIn = (page, address, picture) => page.evaluate(async ([address, picture, labels]) => {
  await import(address);
  const tag = document.createElement("siglip-classifier");
  const told = new Promise((resolve, reject) => {
    tag.addEventListener("siglip-result", ({ detail }) => resolve(detail));
    tag.addEventListener("siglip-error", ({ detail }) => reject(detail));
  });
  tag.labels = labels;
  tag.image = new Blob([Uint8Array.from(atob(picture), (byte) => byte.charCodeAt(0))]);
  document.body.append(tag);
  const scores = await told;
  const preview = tag.shadowRoot.querySelector("img");
  await preview.decode();
  return { scores, shown: preview.naturalWidth > 0 };
}, [address.replace("siglip-web.js", "siglip-classifier.js"), picture, LABELS]);

/** A page with a frame that has no origin of its own. @param {string} [head] of the frame */
const sandboxed = (head = "") => `<!doctype html><title>A page</title><iframe sandbox="allow-scripts" srcdoc="${head}<title>A frame</title>"></iframe>`;

describe("other places", { timeout: 600_000 }, () => {
  let browser, expected;
  before(async () => {
    browser = await openBrowser();
    expected = await expectedAnswers(browser);
  });
  after(() => browser.close());

  for (const isolated of [false, true]) {
    const adapter = isolated ? THREADS : ONE_THREAD;
    const found = { worker: true, ...(isolated && { threads: true }) };

    place({ group: GROUP, place: "Library at another origin", how: "exactly the Content-Security-Policy that the README states; the demo model, one of the Hub, the tag", isolated }, async (t) => {
      const lib = await open(t, library, { isolated });
      const [stated] = /script-src LIB [^`]*/.exec(readFileSync(join(library, "README.md"), "utf8")) ?? [""];
      assert.ok(readFileSync(join(root, "README.md"), "utf8").includes(stated), "both README say the same");
      const policy = `default-src 'none'; ${stated}; img-src blob:`.replaceAll("LIB", lib.url.slice(0, -1)).replace("HUB", "https://huggingface.co https://*.hf.co");
      const site = await open(t, fresh("empty"), { isolated, handle: pictureAnd("<!doctype html><title>A page</title><body>", { "Content-Security-Policy": policy }) });
      const page = await browser.page(t, site.url);
      await page.evaluate(() => {
        globalThis.violations = [];
        document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => violations.push(`${violatedDirective} ${blockedURI}`));
      });
      const address = `${lib.url}siglip-web.js`;
      const called = await classify(page, address, picture);
      assert.deepEqual(called.scores, expected.scores);
      assert.match(called.adapter, adapter);
      assert.deepEqual(await tagIn(page, address, picture), { scores: expected.scores, shown: true });
      // The Hub and the servers that it sends weights from.
      for (const origin of ["https://huggingface.co", "https://cas-bridge.xethub.hf.co"]) {
        await page.route(`${origin}/**`, (route) => {
          const [, file] = /\/some\/model\/resolve\/main\/(.+)$/.exec(route.request().url()) ?? [];
          const headers = { "access-control-allow-origin": "*" };
          return file ? route.fulfill({ path: join(library, "models", "demo", file), headers }) : route.fulfill({ status: 404, headers });
        });
        assert.deepEqual((await classify(page, address, picture, `${origin}/some/model/resolve/main/`, { cache: false })).scores, expected.scores);
      }
      assert.deepEqual(await page.evaluate(() => violations), []);
      await page.route("https://elsewhere.example/**", (route) => route.fulfill({ headers: { "access-control-allow-origin": "*" } }));
      await assert.rejects(page.evaluate(() => fetch("https://elsewhere.example/")), /Failed to fetch/, "the policy is in force");
      return found;
    });

    place({ group: GROUP, place: "Page that demands Trusted Types", how: "the policy `siglip-web` allowed; the call and the tag", isolated }, async (t) => {
      const { page, address } = await ownPage(t, browser, { isolated, policy: "require-trusted-types-for 'script'; trusted-types siglip-web", body: "<!doctype html><title>A page</title><body>" });
      const called = await classify(page, address, picture);
      assert.deepEqual(called.scores, expected.scores);
      assert.match(called.adapter, adapter);
      assert.deepEqual(await tagIn(page, address, picture), { scores: expected.scores, shown: true });
      assert.deepEqual(page.problems, []);
      return found;
    });

    for (const [kind, type] of [["module", "module"], ["classic", "classic"]]) {
      place({ group: GROUP, place: "Worker of the page's own", how: `a ${kind} worker`, isolated }, async (t) => {
        const { page, address } = await ownPage(t, browser, { isolated });
        const { value, message } = await page.evaluate(([address, picture, type]) => new Promise((resolve, reject) => {
          const worker = new Worker("/worker.js", { type });
          worker.onmessage = ({ data }) => resolve(data);
          worker.onerror = ({ message }) => reject(new Error(message));
          worker.postMessage([address, picture]);
        }), [address, picture, type]);
        assert.deepEqual(value?.scores, expected.scores, message);
        assert.match(value.adapter, adapter);
        return found;
      });
    }
  }

  place({ group: GROUP, place: "Page that demands Trusted Types", how: "no policy allowed: the error says which to allow" }, async (t) => {
    const { page, address } = await ownPage(t, browser, { policy: "require-trusted-types-for 'script'; trusted-types 'none'" });
    await assert.rejects(classify(page, address, picture), /Trusted Types.*siglip-web/);
    return { works: false };
  });

  place({ group: GROUP, place: "Sandboxed frame", how: "without `allow-same-origin`; the library read by CORS" }, async (t) => {
    const { page, address } = await ownPage(t, browser, { body: sandboxed() });
    const [, frame] = page.frames();
    assert.equal(await frame.evaluate("origin"), "null");
    const { scores, backendReason } = await classify(frame, address, picture);
    assert.deepEqual(scores, expected.scores);
    assert.doesNotMatch(backendReason, /calling thread/);
    // Nothing can be kept there, which is said.
    const kept = await classify(frame, address, picture, new URL("models/demo/", address).href);
    assert.deepEqual(kept.scores, expected.scores);
    assert.match(kept.cacheReason, /no storage/);
    return { worker: true };
  });

  place({ group: GROUP, place: "Sandboxed frame", how: "whose policy allows no workers: the calling thread computes, and `info` says so" }, async (t) => {
    const { page, address } = await ownPage(t, browser, { body: sandboxed("<meta http-equiv=Content-Security-Policy content='worker-src blob:'>") });
    const { scores, backendReason } = await classify(page.frames()[1], address, picture);
    assert.deepEqual(scores, expected.scores);
    assert.match(backendReason, /The calling thread computes, because/);
    return { worker: false };
  });

  place({ group: GROUP, place: "SharedWorker", how: "a module of the page's own" }, async (t) => {
    const { page, address } = await ownPage(t, browser);
    const { value, message } = await page.evaluate(([address, picture]) => new Promise((resolve, reject) => {
      const { port } = new SharedWorker("/shared.js", { type: "module" });
      port.onmessage = ({ data }) => resolve(data);
      port.postMessage([address, picture]);
      setTimeout(() => reject(new Error("nothing came back")), 60_000);
    }), [address, picture]);
    assert.deepEqual(value?.scores, expected.scores, message);
    assert.match(value.backendReason, /The calling thread computes, because it can't start workers\./);
    return { worker: true };
  });
});

describe("with service workers and extensions", { timeout: 600_000 }, () => {
  let browser, expected;
  const folder = fresh("extension");
  before(async () => {
    cpSync(join(root, "examples", "extension"), folder, { recursive: true });
    cpSync(library, join(folder, "siglip-web"), { recursive: true });
    cpSync(join(root, "tests", "fixtures", "model", "tiny"), join(folder, "my-model"), { recursive: true });
    browser = await openBrowser({ extension: folder, serviceWorkers: "allow" });
    expected = await expectedAnswers(browser);
  });
  after(() => browser.close());

  place({ group: GROUP, place: "Service worker", how: "`load` rejects with code `unsupported` and says what to do" }, async (t) => {
    const { page } = await ownPage(t, browser);
    const told = await page.evaluate(async () => {
      await navigator.serviceWorker.register("/service.js", { type: "module" });
      const { active } = await navigator.serviceWorker.ready;
      const told = new Promise((resolve) => navigator.serviceWorker.addEventListener("message", ({ data }) => resolve(data)));
      navigator.serviceWorker.startMessages();
      active.postMessage("load");
      return told;
    });
    assert.equal(told.code, "unsupported");
    assert.match(told.message, /service worker.*Load the model in a page/s);
    return { works: false };
  });

  place({ group: GROUP, place: "Browser extension", how: "Manifest V3, `examples/extension`: the demo model in the tag, a model by address in a call" }, async (t) => {
    // As browsers name a folder that is loaded unpacked.
    const id = [...createHash("sha256").update(folder).digest("hex").slice(0, 32)].map((digit) => "abcdefghijklmnop"[parseInt(digit, 16)]).join("");
    const page = await browser.page(t, `chrome-extension://${id}/page.html`);
    assert.equal(await page.evaluate(() => crossOriginIsolated), true);
    await page.getByLabel("Image").setInputFiles(join(samples, "ladybug.png"));
    const items = page.getByRole("list", { name: "Results" }).getByRole("listitem");
    await items.nth(2).waitFor();
    assert.match((await items.allTextContents())[0], /^a ladybug \d/);
    const address = `chrome-extension://${id}/siglip-web/siglip-web.js`;
    const demo = await classify(page, address, picture);
    assert.deepEqual(demo.scores, expected.scores);
    assert.match(demo.adapter, THREADS);
    const own = await classify(page, address, picture, "./my-model/");
    assert.equal(own.scores.length, LABELS.length);
    assert.ok(page.workers().length > 0);
    return { worker: true, threads: true };
  });
});
