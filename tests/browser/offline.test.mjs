// The page without a network: its service worker.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { serve } from "../../tools/serve.mjs";
import { offlineList } from "../../tools/offline.mjs";
import { launch, waitForPromise, www } from "./harness.mjs";

/** The site as ./build.sh serve has it; `change` may answer other contents of a file. */
async function openServer(port, change = () => undefined) {
  const list = offlineList(www);
  return serve(www, {
    port,
    isolated: true,
    handle(request, response) {
      const path = request.url.replace(/\?.*$/s, "");
      const body = change(path) ?? (path === "/offline.js" ? list : undefined);
      if (body === undefined) return false;
      response.writeHead(200, { "Content-Type": path.endsWith(".css") ? "text/css" : "text/javascript", "Cache-Control": "no-store" }).end(body);
      return true;
    },
  });
}

const answered = (page) => page.waitForFunction(() => document.querySelectorAll("#results .name").length > 0 && document.querySelector("#results").ariaBusy === "false");

/** All that a first visit keeps is there. */
const kept = (page) => waitForPromise(page, async () => {
  const [name] = await caches.keys();
  const files = name ? await (await caches.open(name)).keys() : [];
  return files.some(({ url }) => url.endsWith("_bg.wasm")) && files.some(({ url }) => url.endsWith("model.safetensors")) && Boolean(navigator.serviceWorker.controller);
});

/** Opens the page, and waits until it can do without its server. */
async function firstVisit(browser, { url }) {
  const page = await browser.newPage();
  await page.goto(url);
  await answered(page);
  await kept(page);
  return page;
}

describe("the page offline", { timeout: 600_000 }, () => {
  test("after one visit it opens and answers without its server", async (t) => {
    const browser = await launch({ serviceWorkers: "allow" });
    t.after(browser.close);
    const server = await openServer(0);
    const page = await firstVisit(browser, server);
    const modules = await page.evaluate(async () => (await (await caches.open((await caches.keys())[0])).keys()).map(({ url }) => url).filter((url) => /_bg\.wasm$/.test(url)).length);
    assert.equal(modules, 1, "only the module that this browser takes is kept");
    const [weights, keeper] = ["GET /lib/models/demo/model.safetensors", "GET /service-worker.js"].map((request) => server.requests.indexOf(request));
    assert.ok(weights >= 0 && weights < keeper, "nothing is kept beside what the visit is for");
    // The search page needs a module more, for its index.
    const searching = (one) => one.waitForFunction(() => /^\d+ pictures\. /.test(document.querySelector("#status").textContent));
    await page.goto(`${server.url}search.html`);
    await searching(page);
    await waitForPromise(page, async () => (await (await caches.open((await caches.keys())[0])).keys()).some(({ url }) => /siglip_web_cpu_relaxed_bg\.wasm$/.test(url)));
    await page.close();
    await server.close();

    const again = await browser.newPage();
    await again.goto(server.url);
    await answered(again);
    assert.match(await again.evaluate(() => document.querySelector("#results").textContent), /a ladybug/);
    assert.equal(await again.evaluate(() => crossOriginIsolated), true);
    await again.goto(`${server.url}search.html`);
    await searching(again);
  });

  test("a page that was built anew comes whole, and one that was half replaced not at all", async (t) => {
    const browser = await launch({ serviceWorkers: "allow" });
    t.after(browser.close);
    const first = await openServer(0);
    t.after(() => first.close());
    const page = await firstVisit(browser, first);
    await page.close();
    await first.close();

    // The server has a new style sheet, but its list still names the old one: the old page goes on.
    const css = `${await readFile(`${www}page.css`, "utf8")}\nbody { --new: 1; }\n`;
    const isNew = (one) => one.evaluate(() => getComputedStyle(document.body).getPropertyValue("--new").trim());
    const half = await openServer(first.port, (path) => (path === "/page.css" ? css : undefined));
    const old = await browser.newPage();
    await old.goto(half.url);
    await answered(old);
    assert.equal(await isNew(old), "");
    await old.close();
    await half.close();

    // Now the list names the new one: it is taken as a whole, and shown from the next opening on, or from this one where the browser has
    // looked for it before the page was there.
    const { createHash } = await import("node:crypto");
    const hash = createHash("sha256").update(css).digest("base64");
    const list = offlineList(www).replace(/("page\.css": \[")sha256-[^"]+/, `$1sha256-${hash}`).replace(/(VERSION = ")[^"]+/, "$1another");
    const second = await openServer(first.port, (path) => ({ "/page.css": css, "/offline.js": list })[path]);
    t.after(() => second.close());
    const visit = await browser.newPage();
    await visit.goto(second.url);
    await answered(visit);
    await waitForPromise(visit, async () => {
      if (getComputedStyle(document.body).getPropertyValue("--new").trim() === "1") return true;
      const registration = await navigator.serviceWorker.getRegistration();
      await registration.update().catch(() => {}); // the browser does so in its own time
      return Boolean(registration.waiting);
    });
    await visit.close();
    const next = await browser.newPage();
    await next.goto(second.url);
    await next.waitForFunction(() => getComputedStyle(document.body).getPropertyValue("--new").trim() === "1");
    await answered(next);
  });

  test("a picture that another app shares is the page's picture", async (t) => {
    const browser = await launch({ serviceWorkers: "allow" });
    t.after(browser.close);
    const server = await openServer(0);
    t.after(() => server.close());
    const page = await firstVisit(browser, server);
    const penguin = [...(await readFile(`${www}samples/penguin.png`))];
    // As the system's share menu does it: a form that opens the page.
    await Promise.all([
      page.waitForURL(server.url),
      page.evaluate((bytes) => {
        const form = Object.assign(document.createElement("form"), { method: "post", action: "share", enctype: "multipart/form-data" });
        const input = Object.assign(document.createElement("input"), { type: "file", name: "picture" });
        const transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(bytes)], "holiday.png", { type: "image/png" }));
        input.files = transfer.files;
        form.append(input);
        document.body.append(form);
        // The page's own policy forbids forms; the share menu is none of it. Not waited for: the page that would say so is left.
        fetch("share", { method: "POST", body: new FormData(form), redirect: "follow" }).then(() => { location.href = "./?shared"; });
      }, penguin),
    ]);
    await page.waitForFunction(() => /holiday\.png/.test(document.querySelector("#caption").textContent) && !document.querySelector("#preview").hidden);
  });
});
