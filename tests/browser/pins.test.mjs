// Models whose files are known: what is loaded must be that, whatever the Hub says, and how they come to be known.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, test as inNode } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { PINS } from "../../www/lib/files/pins.js";
import { assertError, loadOn, mockEngine, openLoader, openSite, test } from "./harness.mjs";
import { startHub } from "./hub.mjs";

const WEIGHTS = "model.safetensors";
const TABLE = "/lib/files/pins.js";
const FILES = { "config.json": JSON.stringify({ weights: true }), [WEIGHTS]: await readFile(new URL(`../fixtures/model/tiny/${WEIGHTS}`, import.meta.url)) };

describe("known models", { timeout: 600_000 }, () => {
  let site;
  let hub;
  const close = [];
  before(async () => {
    const t = { after: (hook) => close.push(hook) };
    site = await openSite(t, { overlay: { ...mockEngine } });
    hub = await startHub(t, FILES);
  });
  after(async () => {
    for (const hook of close.reverse()) await hook();
  });
  beforeEach(() => {
    hub.reset();
    delete site.overlay[TABLE];
  });

  /** A page whose library knows owner/name by these sums. */
  async function knowing(files) {
    const text = `export const PINS = ${JSON.stringify({ "owner/name": { commit: hub.commit, files } })};`;
    site.overlay[TABLE] = { headers: { "Content-Type": "text/javascript" }, body: text };
    return openLoader(site);
  }

  const sums = () => ({ "config.json": hub.sha256("config.json"), [WEIGHTS]: hub.sha256(WEIGHTS) });
  const load = (page, source) => loadOn(page, source, { cache: false });

  test("a model with the known sums is loaded, and verified by them where the Hub states none", async () => {
    const page = await knowing(sums());
    for (const fault of [undefined, { status: 404 }]) {
      hub.fault = ({ where }) => (where === "api" ? fault : undefined);
      const result = await load(page, hub.model);
      assert.equal(result.weights?.sha256, hub.sha256(WEIGHTS), JSON.stringify(result));
    }
    await page.close();
  });

  test("another file is refused before it is downloaded; a revision that is named is taken as it is", async () => {
    const page = await knowing({ ...sums(), [WEIGHTS]: "0".repeat(64) });
    assertError(await load(page, hub.model), "bad-model", /model\.safetensors of owner\/name is not the one that this library knows: its SHA-256 is [\da-f]{64} instead of 0{64}/);
    assert.deepEqual(hub.requests.filter(({ where }) => where === "cdn"), []);
    const other = await load(page, hub.model.replace("/main/", `/${hub.commit}/`));
    assert.equal(other.weights?.sha256, hub.sha256(WEIGHTS));
    await page.close();
  });

  test("a small file is compared as well", async () => {
    const page = await knowing({ ...sums(), "config.json": "1".repeat(64) });
    assertError(await load(page, hub.model), "bad-model", /config\.json of owner\/name .* its SHA-256 is [\da-f]{64} instead of 1{64}/);
    await page.close();
  });

  test("by its name a known model is asked for at the commit that is known", async () => {
    const page = await knowing(sums());
    const hubs = await page.evaluate(async (library) => {
      const { locate } = await import(library.replace("siglip-web.js", "client/locate.js"));
      return ["owner/name", "owner/name@main", "owner/other", "constructor/name"].map((name) => locate(name)).map(({ place, name }) => ({ name, base: place.base, known: place.hub.sums !== undefined }));
    }, site.library);
    const at = (model, revision) => `https://huggingface.co/${model}/resolve/${revision}/`;
    assert.deepEqual(hubs, [
      { name: "owner/name", base: at("owner/name", hub.commit), known: true },
      { name: "owner/name@main", base: at("owner/name", "main"), known: false },
      { name: "owner/other", base: at("owner/other", "main"), known: false },
      { name: "constructor/name", base: at("constructor/name", "main"), known: false },
    ]);
    await page.close();
  });

  test("every model that the page offers has a place among them", async () => {
    const page = await site.page("/");
    const offered = await page.evaluate(() => [...document.querySelectorAll("#model option")].map(({ value }) => value).filter((value) => value.includes("/")));
    assert.ok(offered.length > 5);
    assert.deepEqual(offered.filter((model) => !Object.hasOwn(PINS, model)), []);
    await page.close();
  });

  describe("tools/pins.mjs", () => {
    const tool = fileURLToPath(new URL("../../tools/pins.mjs", import.meta.url));
    let table;
    const run = (...given) => promisify(execFile)(process.execPath, [tool, "--hub", new URL(hub.model).origin, "--table", table, ...given]).then(
      ({ stdout }) => ({ code: 0, stdout }),
      ({ code, stdout, stderr }) => ({ code, stdout, stderr }),
    );
    /** As it is now: an address that was not imported before. */
    const known = async () => (await import(`${pathToFileURL(table).href}?${Math.random()}`)).PINS["owner/name"];
    before(async () => {
      const folder = await mkdtemp(join(tmpdir(), "siglip-web-pins-"));
      table = join(folder, "pins.mjs");
      await copyFile(new URL("../../www/lib/files/pins.js", import.meta.url), table);
      close.push(() => rm(folder, { recursive: true }));
    });

    inNode("writes the commit and the sums of what a loader reads, and finds what has changed since", async () => {
      hub.files = { ...FILES, "README.md": "# A model" };
      assert.equal((await run("owner/name")).code, 0);
      assert.deepEqual(await known(), { commit: hub.commit, files: sums() });
      assert.deepEqual(await run("--check", "--whole", "owner/name"), { code: 0, stdout: `owner/name: 2 files at ${hub.commit}, as before\n` });
      hub.files = { ...FILES, "config.json": "{}" };
      const changed = await run("--check", "owner/name");
      assert.equal(changed.code, 1);
      assert.match(changed.stdout, /not as they are pinned/);
      assert.equal((await known()).files["config.json"], (hub.files = FILES, hub.sha256("config.json")));
    });

    inNode("bytes that aren't what the Hub lists are no pin", async () => {
      hub.files = FILES;
      hub.fault = ({ where, file }) => (where === "cdn" && file === WEIGHTS ? { flip: 5 } : undefined);
      const before = await known();
      const damaged = await run("--whole", "owner/name");
      assert.equal(damaged.code, 1);
      assert.match(damaged.stderr, /model\.safetensors came with the SHA-256 [\da-f]{64}, which isn't what the Hub lists/);
      assert.deepEqual(await known(), before);
      hub.fault = ({ where }) => (where === "hub" ? { status: 404 } : undefined);
      assert.match((await run("owner/name")).stderr, /answered HTTP 404/);
    });
  });
});
