// The page without a network: its service worker.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { serve } from "../../tools/serve.mjs";
import { offlineList } from "../../tools/offline.mjs";
import { launch, waitForPromise, www } from "./harness.mjs";

const siteTool = fileURLToPath(new URL("../../tools/site.mjs", import.meta.url));

/** The site as ./build.sh serve has it, or `root` as it is; `change` may answer other contents of a file, or {location} of it. */
async function openServer(change = () => undefined, root = www) {
  const list = root === www ? offlineList(www) : undefined;
  return serve(root, {
    isolated: true,
    handle(request, response) {
      const path = request.url.replace(/\?.*$/s, "");
      const body = change(path) ?? (path === "/offline.js" ? list : undefined);
      if (body === undefined) return false;
      if (body.location) response.writeHead(301, { Location: body.location, "Cache-Control": "no-store" }).end();
      else response.writeHead(200, { "Content-Type": `text/${/\.(css|js)$/.exec(path)?.[1].replace("js", "javascript") ?? "html"}`, "Cache-Control": "no-store" }).end(body);
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
  const site = async (t) => {
    const folder = await mkdtemp(join(tmpdir(), "siglip-web-site-"));
    t.after(() => rm(folder, { recursive: true }));
    execFileSync(process.execPath, [siteTool, www, folder]);
    return folder;
  };
  for (const [what, folder] of [["", () => www], [", as ./build.sh site writes it, too", site]]) {
    test(`after one visit it opens and answers without its server${what}`, async (t) => {
      const browser = await launch({ serviceWorkers: "allow" });
      t.after(browser.close);
      const server = await openServer(undefined, await folder(t));
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
  }

  test("where a host leads search.html to search, its page opens after the first visit too", async (t) => {
    const browser = await launch({ serviceWorkers: "allow" });
    t.after(browser.close);
    const html = await readFile(`${www}search.html`, "utf8");
    const server = await openServer((path) => ({ "/search.html": { location: "/search" }, "/search": html })[path]);
    t.after(() => server.close());
    const page = await firstVisit(browser, server);
    await page.goto(`${server.url}search.html`);
    assert.match(await page.title(), /[Ss]earch/);
  });

  test("two sites of one origin are kept beside each other", async (t) => {
    const browser = await launch({ serviceWorkers: "allow" });
    t.after(browser.close);
    const both = await mkdtemp(join(tmpdir(), "siglip-web-sites-"));
    t.after(() => rm(both, { recursive: true }));
    for (const name of ["cats", "birds"]) {
      await cp(www, join(both, name), { recursive: true });
      await writeFile(join(both, name, "offline.js"), offlineList(www).replace(/(VERSION = ")[^"]+/, `$1${name}`));
    }
    const server = await openServer(undefined, both);
    for (const name of ["cats", "birds"]) {
      const page = await browser.newPage();
      await page.goto(`${server.url}${name}/`);
      await answered(page);
      await waitForPromise(page, async () => {
        const [, name] = location.pathname.split("/");
        const kept = await (await caches.open(`siglip-web-page /${name}/ ${name}`)).keys();
        return kept.some(({ url }) => url.endsWith("_bg.wasm")) && Boolean(navigator.serviceWorker.controller);
      });
      await page.close();
    }
    await server.close();
    const again = await browser.newPage();
    await again.goto(`${server.url}cats/`);
    await answered(again);
  });

  test("a page that was built anew comes whole, and one that was half replaced not at all", async (t) => {
    const browser = await launch({ serviceWorkers: "allow" });
    t.after(browser.close);
    /** What the server has instead of the site's files. */
    let replaced = {};
    const server = await openServer((path) => replaced[path]);
    t.after(() => server.close());
    await (await firstVisit(browser, server)).close();
    const shown = (page) => page.evaluate(() => getComputedStyle(document.body).getPropertyValue("--edition").trim());

    // The server has a new style sheet, but its list still names the old one: the old page goes on.
    const css = `${await readFile(`${www}page.css`, "utf8")}\nbody { --edition: 1; }\n`;
    replaced = { "/page.css": css };
    const old = await browser.newPage();
    await old.goto(server.url);
    await answered(old);
    assert.equal(await shown(old), "");
    await old.close();

    // Now the list names the new one: it is taken as a whole, and shown when the page is opened again, once the browser lets the older worker go.
    const hash = createHash("sha256").update(css).digest("base64");
    const list = offlineList(www).replace(/("page\.css": \[")sha256-[^"]+/, `$1sha256-${hash}`).replace(/(VERSION = ")[^"]+/, "$1edition-1");
    replaced = { "/page.css": css, "/offline.js": list };
    const visit = await browser.newPage();
    await visit.goto(server.url);
    await answered(visit);
    await waitForPromise(visit, async () => {
      const registration = await navigator.serviceWorker.getRegistration();
      await registration.update().catch(() => {}); // the browser does so in its own time
      return (await caches.keys()).includes("siglip-web-page / edition-1") && registration.installing === null;
    });
    await visit.close();
    const end = Date.now() + 60_000;
    for (let edition; edition !== "1";) {
      assert.ok(Date.now() < end, "the new page is not shown");
      const next = await browser.newPage();
      // The newer worker may have it loaded anew before it has loaded. Chromium now and then holds an opening back while the workers change places.
      const held = await next.goto(server.url, { waitUntil: "commit", timeout: 10_000 }).then(() => false, (error) => error.name === "TimeoutError" || Promise.reject(error));
      if (held) t.diagnostic("an opening was held back for 10 s, and is tried again");
      else await answered(next);
      edition = held ? "" : await shown(next).catch(() => ""); // being loaded anew
      await next.close();
    }
  });

  test("another version that takes over doesn't load the page anew from under a visitor who has begun", async (t) => {
    const browser = await launch({ serviceWorkers: "allow" });
    t.after(browser.close);
    const server = await openServer();
    t.after(() => server.close());
    await (await firstVisit(browser, server)).close();
    const page = await browser.newPage();
    await page.goto(server.url);
    await answered(page);
    await page.locator("#labels").fill("a cat");
    await page.locator("#labels").press("End");
    await page.evaluate(async () => {
      navigator.serviceWorker.dispatchEvent(new Event("controllerchange"));
      await (await fetch("page.css", { cache: "no-store" })).text();
    });
    assert.equal(await page.locator("#labels").inputValue(), "a cat");
  });

  for (const [where, full] of [["", false], [", also where the storage is full", true]]) {
    test(`a picture that another app shares is the page's picture${where}`, async (t) => {
      const browser = await launch({ serviceWorkers: "allow" });
      t.after(browser.close);
      const server = await openServer();
      t.after(() => server.close());
      const page = await firstVisit(browser, server);
      if (full) await (await browser.context.newCDPSession(page)).send("Storage.overrideQuotaForOrigin", { origin: new URL(server.url).origin, quotaSize: 1 });
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
  }
});
