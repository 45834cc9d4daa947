// Models over bad connections and from the browser's own storage: a server like the Hub's that misbehaves on command.
// The engine reads and keeps weights as the real one does, and tells their SHA-256.
import assert from "node:assert/strict";
import { createCipheriv, createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { after, before, beforeEach, describe } from "node:test";
import { assertError, digest, importLibrary, loadOn, mockEngine, openLoader, openSite, test } from "./harness.mjs";
import { startHub } from "./hub.mjs";

const WEIGHTS = "model.safetensors";
const tiny = await readFile(new URL(`../fixtures/model/tiny/${WEIGHTS}`, import.meta.url));
const headerEnd = 8 + Number(tiny.readBigUInt64LE(0));
const tensors = Object.keys(JSON.parse(tiny.subarray(8, headerEnd))).filter((name) => name !== "__metadata__").length;

/** Numbers that are the same in every run. */
function* random(seed) {
  for (;;) {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    yield ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
}

/** A safetensors file of random bytes in tensors of these sizes. */
function weights(sizes, seed) {
  let at = 0;
  const header = Object.fromEntries(sizes.map((size, i) => [`t${i}`, { dtype: "U8", shape: [size], data_offsets: [at, (at += size)] }]));
  const json = Buffer.from(JSON.stringify(header).padEnd(Math.ceil(JSON.stringify(header).length / 8) * 8));
  const file = Buffer.alloc(8 + json.length + at);
  file.writeBigUInt64LE(BigInt(json.length));
  json.copy(file, 8);
  createCipheriv("aes-128-ctr", Buffer.alloc(16, seed), Buffer.alloc(16)).update(Buffer.alloc(at)).copy(file, 8 + json.length);
  return file;
}

describe("downloads and what is kept of them", { timeout: 600_000 }, () => {
  let site;
  let hub;
  let page;
  const close = [];
  before(async () => {
    const t = { after: (hook) => close.push(hook) };
    site = await openSite(t, { overlay: mockEngine });
    hub = await startHub(t, { "config.json": JSON.stringify({ weights: true }), [WEIGHTS]: tiny });
    page = await openLoader(site);
  });
  after(async () => {
    for (const hook of close.reverse()) await hook();
  });
  beforeEach(async () => {
    hub.reset();
    hub.files = { "config.json": JSON.stringify({ weights: true }), [WEIGHTS]: tiny };
    hub.commit = createHash("sha1").update("first").digest("hex");
    await page.evaluate(() => SiglipClassifier.clearCache());
  });

  const load = (source, options, on = page) => loadOn(on, source, options);
  const asked = (file = WEIGHTS) => hub.requests.filter((request) => request.file === file);
  /** Puts models into the store that other versions of the library kept, each in a folder of its name. */
  const keptAs = (models) => page.evaluate(async (models) => {
    const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("siglip-web", { create: true });
    for (const model of models) {
      const folder = await root.getDirectoryHandle(model.name.replace("/", " "), { create: true });
      const about = new TextEncoder().encode(JSON.stringify({ dtype: "q8", files: {}, weights: {}, ...model }));
      const parts = { "about.json": [await crypto.subtle.digest("SHA-256", about), about], "t-q8$2fx": ["tensor"], "manifest.json": ["{}"] };
      for (const [file, bytes] of Object.entries(parts)) {
        const writable = await (await folder.getFileHandle(file, { create: true })).createWritable();
        await writable.write(new Blob(bytes));
        await writable.close();
      }
    }
  }, models);
  const whole = (result) => assert.equal(result.weights?.digest, digest(hub.files[WEIGHTS]), JSON.stringify({ ...result, events: undefined }));

  test("a model of the Hub comes by ranges over its redirects, verified by the sum that is SHA-256, and then needs no network", async () => {
    const first = await load(hub.model);
    whole(first);
    assert.equal(first.name, "owner/name");
    assert.equal(first.weights.size, tiny.length);
    assert.equal(first.weights.sha256, hub.sha256(WEIGHTS));
    assert.equal(first.cached, true);
    assert.match(first.cacheReason, /^Kept in this browser/);
    assert.equal(asked().filter(({ where }) => where === "hub").length, 1, "signed addresses are used again");
    assert.ok(asked().filter(({ where }) => where === "cdn").every(({ range }) => range), "by ranges");
    assert.deepEqual(asked()[0].revision, hub.commit, "of the commit that config.json was of");
    const arrived = first.events.filter(({ file }) => file === WEIGHTS);
    assert.deepEqual(arrived.at(-1), { stage: "download", file: WEIGHTS, loaded: tiny.length, total: tiny.length });

    hub.requests.length = 0;
    const again = await load(hub.model);
    whole(again);
    assert.deepEqual(hub.requests, []);
    assert.equal(again.weights.fetched, 0);
    assert.ok(again.events.filter(({ stage, file }) => stage === "download" && !/wasm/.test(file)).every(({ fromCache }) => fromCache));
    assert.ok(again.events.some(({ file, fromCache }) => file === WEIGHTS && fromCache));
    const reloaded = await openLoader(site);
    whole(await load(hub.model, {}, reloaded));
    assert.deepEqual(hub.requests, []);
    await reloaded.close();
  });

  test("cache: false keeps nothing and reads nothing that is kept", async () => {
    const result = await load(hub.model, { cache: false });
    whole(result);
    assert.equal(result.cached, false);
    assert.deepEqual(await page.evaluate(() => SiglipClassifier.caches()), []);
    await load(hub.model);
    hub.requests.length = 0;
    whole(await load(hub.model, { cache: false }));
    assert.ok(hub.requests.length > 2);
  });

  test("what is kept is listed with its size, and cleared by name", async () => {
    await load(hub.model, { dtype: "f32" });
    await load(hub.folder, { dtype: "f32" });
    const list = await page.evaluate(() => SiglipClassifier.caches());
    assert.deepEqual(list.map(({ bytes, ...rest }) => rest), [
      { name: "folder", source: hub.folder, dtype: "f32", complete: true },
      { name: "owner/name", source: hub.model, dtype: "f32", complete: true },
    ]);
    for (const { bytes } of list) assert.ok(bytes >= tiny.length - headerEnd && bytes < 1.2 * tiny.length, `${bytes}`);
    assert.equal(await page.evaluate(() => SiglipClassifier.clearCache("owner/name")), list[1].bytes);
    assert.deepEqual((await page.evaluate(() => SiglipClassifier.caches())).map(({ name }) => name), ["folder"]);
    assert.equal(await page.evaluate(() => SiglipClassifier.clearCache("owner/other")), 0);
    assertError(await page.evaluate(() => outcome(() => SiglipClassifier.clearCache(5))), "bad-input");
    await page.evaluate(() => SiglipClassifier.clearCache());
    assert.deepEqual(await page.evaluate(() => SiglipClassifier.caches()), []);
    hub.requests.length = 0;
    whole(await load(hub.folder));
    assert.ok(hub.requests.length > 0);
  });

  test("what load was given clears what it kept: a path, an address, a page of the Hub", async () => {
    const versioned = (body) => ({ headers: { ETag: '"1"' }, body });
    Object.assign(site.overlay, { "/models/m/config.json": versioned(JSON.stringify({ weights: true })), [`/models/m/${WEIGHTS}`]: versioned(tiny) });
    for (const name of ["/models/m", "./models/m/", `${site.origin}/models/m`, "/models/m?token=1", `${site.origin}/models/m/`, "m"]) {
      whole(await load("/models/m"));
      assert.equal(await page.evaluate(() => SiglipClassifier.clearCache("/models/other")), 0);
      assert.ok((await page.evaluate((name) => SiglipClassifier.clearCache(name), name)) > tiny.length - headerEnd, name);
      assert.deepEqual(await page.evaluate(() => SiglipClassifier.caches()), []);
    }
    for (const name of ["https://huggingface.co/owner/name", "https://huggingface.co/owner/name/tree/main", "owner/name@main", "owner/name"]) {
      await keptAs([{ format: 1000, name: "owner/name", source: "https://huggingface.co/owner/name/resolve/main/" }]);
      assert.ok((await page.evaluate((name) => SiglipClassifier.clearCache(name), name)) > 0, name);
    }
  });

  test("models whose files have addresses of their own are kept apart, whatever files they share", async () => {
    const other = Buffer.from(tiny);
    other[other.length - 1] ^= 1;
    Object.assign(hub.files, { "a.safetensors": tiny, "b.safetensors": other });
    const model = (letter) => ({ files: { "config.json": `${hub.folder}config.json`, [WEIGHTS]: `${hub.folder}${letter}.safetensors` } });
    // As a server tells it that makes it of a file's size and time.
    hub.fault = () => ({ etag: '"one"' });
    for (const letter of ["a", "b", "a", "b"]) assert.equal((await load(model(letter))).weights?.digest, digest(hub.files[`${letter}.safetensors`]), letter);
    assert.deepEqual(hub.requests.filter(({ method }) => method === "GET").map(({ file }) => file).filter((file, i, all) => all.indexOf(file) === i).sort(), ["a.safetensors", "b.safetensors", "config.json"]);
    hub.requests.length = 0;
    for (const letter of ["a", "b"]) {
      const again = await load(model(letter));
      assert.equal(again.weights?.digest, digest(hub.files[`${letter}.safetensors`]), letter);
      assert.ok(again.cached);
    }
    assert.deepEqual(hub.requests.filter(({ method }) => method === "GET"), []);
    hub.fault = () => ({ reset: true });
    for (const letter of ["b", "a"]) assert.equal((await load(model(letter))).weights?.digest, digest(hub.files[`${letter}.safetensors`]), "the server is gone");
    // A signature in an address changes nothing, nor does the order; a file that came with the page does.
    const { files } = model("a");
    const signed = { files: Object.fromEntries(Object.entries(files).reverse().map(([file, address]) => [file, `${address}?signature=2`])) };
    assert.equal((await load(signed)).weights?.digest, digest(tiny));
    hub.fault = () => ({ etag: '"one"' });
    for (const config of [{ weights: true }, { weights: true, unused: ["none"] }]) await load({ files: { ...files, "config.json": `data:application/json,${JSON.stringify(config)}` } });
    const list = await page.evaluate(() => SiglipClassifier.caches());
    assert.equal(list.length, 4);
    assert.ok(list.every(({ name, complete }) => name === "the model" && complete));
    assert.ok((await page.evaluate(() => SiglipClassifier.clearCache("the model"))) > 3 * (tiny.length - headerEnd));
    assert.deepEqual(await page.evaluate(() => SiglipClassifier.caches()), []);
  });

  test("a connection cut at any byte goes on there, within the load", async () => {
    const numbers = random(1);
    let resumed = 0;
    const file = (hub.files[WEIGHTS] = weights(Array(24).fill(2 ** 20), 1));
    for (let i = 0; i < 5; i++) {
      const cuts = Array.from({ length: 10 }, () => Math.floor(numbers.next().value * file.length));
      const cut = [];
      hub.fault = ({ where, start, end }) => {
        const next = where === "cdn" ? cuts.findIndex((at) => at > start && at < end) : -1;
        if (next < 0) return undefined;
        cut.push({ start, at: cuts[next], end });
        return { cut: cuts.splice(next, 1)[0] };
      };
      hub.requests.length = 0;
      whole(await load(hub.model, { cache: false }));
      // Each goes on where it was: the browser may have lost what had only just arrived, never more.
      const requests = asked().filter(({ where }) => where === "cdn").map(({ range }) => range.match(/\d+/g).map(Number));
      for (const { start, at, end } of cut) {
        const next = requests.findIndex(([from, last], i) => last + 1 === end && from >= start && from <= at && i > requests.findIndex(([from]) => from === start));
        assert.ok(next >= 0, `${start} to ${end} was cut at ${at}: ${JSON.stringify(requests)}`);
        if (requests[next][0] > start) resumed += 1;
      }
    }
    assert.ok(resumed > 0);
  });

  test("a tab killed at any byte leaves what the next load goes on with, bit by bit", async () => {
    const numbers = random(2);
    for (let i = 0; i < 50; i++) {
      await page.evaluate(() => SiglipClassifier.clearCache());
      const at = Math.floor(numbers.next().value * tiny.length);
      let reached;
      const stalled = new Promise((resolve) => { reached = resolve; });
      hub.fault = ({ where, start, end }) => {
        if (where !== "cdn" || at < start || at >= end) return undefined;
        reached();
        return { stall: at };
      };
      // The worker is ended in the midst of whatever it does.
      const loading = page.evaluate((source) => {
        window.stop = new AbortController();
        return load(source, { signal: window.stop.signal });
      }, hub.model);
      await stalled;
      await page.evaluate(() => window.stop.abort());
      assertError(await loading, "aborted");
      hub.reset();
      const result = await load(hub.model);
      whole(result);
      assert.ok(result.cached);
      assert.ok(result.weights.fetched <= tensors);
    }
    hub.requests.length = 0;
    whole(await load(hub.model));
    assert.deepEqual(hub.requests, []);
  });

  test("what arrived before the tab was closed is not fetched again", async () => {
    const sizes = Array.from({ length: 24 }, () => 2 ** 20);
    hub.files[WEIGHTS] = weights(sizes, 3);
    const doomed = await openLoader(site);
    hub.fault = ({ where, end }) => (where === "cdn" && end >= 20 * 2 ** 20 ? { stall: 20 * 2 ** 20 } : undefined);
    const kept = doomed.evaluate((source) => new Promise((resolve) => {
      load(source, { onProgress: ({ stage, loaded }) => stage === "load" && loaded === 16 && resolve() });
    }), hub.model);
    await kept;
    await doomed.close({ runBeforeUnload: false });
    hub.reset();
    const result = await load(hub.model);
    whole(result);
    assert.ok(result.weights.fetched <= 8, `${result.weights.fetched}`);
    assert.equal(asked("config.json").length, 1, "once, to see whether the model is the same");
  });

  test("several ranges are under way at a time, and little is held", async () => {
    hub.files[WEIGHTS] = weights([30, 50, 7, 3].map((size) => size * 2 ** 20), 4);
    let now = 0;
    let most = 0;
    const gates = [];
    hub.fault = async ({ where, start }) => {
      if (where !== "cdn" || start === 0) return undefined;
      most = Math.max(most, ++now);
      // As long as fewer than four are here, each waits for the next one.
      if (most < 4) await new Promise((go) => gates.push(go));
      else for (const go of gates.splice(0)) go();
      now -= 1;
      return undefined;
    };
    whole(await load(hub.model, { cache: false }));
    assert.equal(most, 4);
    for (const { range } of asked().filter(({ range }) => range)) {
      const [start, end] = range.match(/\d+/g).map(Number);
      assert.ok(end - start < 4 * 2 ** 20, range);
    }
  });

  test("a busy server is asked again, later if it says when", async () => {
    for (const status of [429, 500, 502, 503, 504]) {
      let left = 2;
      hub.fault = ({ where }) => (where === "cdn" && left-- > 0 ? { status, headers: { "Retry-After": "7" } } : undefined);
      const { events, ...result } = await load(hub.model, { cache: false });
      whole(result);
      const waiting = events.filter((event) => event.waiting);
      assert.equal(waiting.length, 2);
      for (const event of waiting) assert.match(event.waiting, new RegExp(`HTTP ${status}.*Trying again in 7 s\\.$`));
    }
  });

  test("trying again comes to an end, with what was wrong", async () => {
    const counts = async (fault, code, message, options) => {
      hub.requests.length = 0;
      hub.fault = fault;
      assertError(await load(hub.model, { cache: false, ...options }), code, message);
      return hub.requests.length;
    };
    const busy = ({ file }) => (file === WEIGHTS ? { status: 503 } : undefined);
    assert.equal(await counts(busy, "network", /HTTP 503/), 3 + 3, "two small files, the list, and three tries at a server never heard of");
    const limited = ({ file }) => (file === WEIGHTS ? { status: 429, headers: { "Retry-After": "4000" } } : undefined);
    assert.equal(await counts(limited, "network", /too many requests.*after 67 minutes/), 3 + 1);
    let served = false;
    const broken = ({ where, start, end }) => (where === "cdn" && 500_000 >= start && 500_000 < end ? { cut: served ? start : ((served = true), 500_000) } : undefined);
    const tries = await counts(broken, "network", /broke off after \d{6} of 902080 bytes/);
    assert.ok(tries >= 8 && tries <= 24, `${tries}`);
  });

  test("a connection that gives nothing any more counts as broken", async () => {
    let stalls = 2;
    hub.fault = ({ where, start, end }) => (where === "cdn" && 400_000 >= start && 400_000 < end && stalls-- > 0 ? { stall: 400_000 } : undefined);
    whole(await load(hub.model, { cache: false, policy: { stall: 150 } }));
    assert.ok(stalls <= 0);
  });

  test("an expired address is asked for anew", async () => {
    let expired = false;
    hub.fault = ({ where, start }) => {
      if (where === "cdn" && start > 0 && !expired) {
        expired = true;
        hub.expire();
      }
      return undefined;
    };
    whole(await load(hub.model));
    assert.ok(asked().filter(({ where }) => where === "hub").length >= 2);
  });

  test("a server without ranges gives one stream, and one that breaks off is skipped up to where it was", async () => {
    const cuts = [tiny.length - 5, 300_000, 299_999, 0];
    hub.fault = ({ where }) => (where === "folder" ? { noRange: true, cut: hub.requests.at(-1).file === WEIGHTS ? cuts.pop() : undefined } : undefined);
    const result = await load(hub.folder);
    whole(result);
    assert.equal(result.weights.ranges, false);
    assert.equal(asked().length, 5);
    assert.deepEqual(cuts, []);
  });

  test("a file that changes midway is told, and nothing of two versions is put together", async () => {
    const other = Buffer.from(tiny);
    other.fill(1, headerEnd);
    const longer = weights([...Array(20).fill(1000), tiny.length], 5);
    for (const changed of [other, longer]) {
      hub.files[WEIGHTS] = tiny;
      hub.fault = ({ method, file, start, end }) => {
        if (method !== "GET" || file !== WEIGHTS || 500_000 < start || 500_000 >= end) return undefined;
        hub.files[WEIGHTS] = changed;
        hub.fault = () => undefined;
        return { cut: 500_000, body: tiny };
      };
      assertError(await load(hub.folder), "network", /model\.safetensors of folder was changed on the server while it was downloaded/);
      whole(await load(hub.folder));
    }
    // Also where no length or range tells: the tab was closed in between.
    hub.files[WEIGHTS] = other;
    whole(await load(hub.folder));
  });

  test("a model that was uploaded anew is not answered from what is kept", async () => {
    whole(await load(hub.folder));
    hub.requests.length = 0;
    whole(await load(hub.folder));
    assert.deepEqual([...new Set(hub.requests.map(({ method }) => method))], ["HEAD"], "only asked whether it has changed");
    hub.files[WEIGHTS] = Buffer.from(tiny);
    hub.files[WEIGHTS][headerEnd + 17] ^= 1;
    whole(await load(hub.folder));
    hub.fault = () => ({ closed: true });
    whole(await load(hub.folder)); // without a network what is kept holds
    hub.fault = () => ({ status: 503 });
    whole(await load(hub.folder));
  });

  test("a branch of the Hub that moved while a download was broken off begins anew", async () => {
    hub.fault = ({ where }) => (where === "cdn" ? { status: 503 } : undefined);
    assertError(await load(hub.model), "network");
    hub.reset();
    hub.commit = createHash("sha1").update("second").digest("hex");
    hub.files[WEIGHTS] = Buffer.from(tiny);
    hub.files[WEIGHTS][headerEnd + 1000] ^= 1;
    whole(await load(hub.model));
    assert.ok(asked().every(({ where, revision }) => where !== "hub" || revision === hub.commit));
  });

  test("entries that are damaged or gone are fetched again, and only they", async () => {
    /** Changes the packs of what is kept: flips bits at `[record, byte from its beginning]`, then cuts off all after so many bytes of the record `cut`. */
    const damage = (given) => page.evaluate(async ({ flips, cut, remove }) => {
      const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("siglip-web");
      for await (const folder of root.values()) {
        const names = (await Array.fromAsync(folder.keys())).filter((name) => name.startsWith("p-"));
        if (names.length !== 1) throw new Error(`${names.length} packs`);
        if (remove) return folder.removeEntry(names[0]);
        const handle = await folder.getFileHandle(names[0]);
        let bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
        const view = new DataView(bytes.buffer);
        const records = [];
        for (let at = 0; at < bytes.length; at += 4) if (view.getUint32(at, true) === 0x31707773) records.push(at);
        for (const [record, byte] of flips) bytes[records[record] + byte] ^= 1;
        if (cut) bytes = bytes.subarray(0, records[cut.record] + cut.bytes);
        const writable = await handle.createWritable();
        await writable.write(bytes);
        await writable.close();
      }
    }, { flips: [], ...given });
    // A record's magic, sizes and check, key, and what is kept itself.
    for (const flips of [[[3, 0], [5, 4], [7, 9], [9, 14]], [[2, 16], [4, 200], [6, 90]], [[0, 0]], [[5, 8], [6, 8], [tensors - 1, 120]]]) {
      await page.evaluate(() => SiglipClassifier.clearCache());
      whole(await load(hub.model));
      await damage({ flips });
      hub.requests.length = 0;
      const result = await load(hub.model);
      whole(result);
      assert.equal(result.weights.fetched, flips.length, `${flips}`);
      assert.equal(asked("config.json").length, 0);
      hub.requests.length = 0;
      whole(await load(hub.model));
      assert.deepEqual(hub.requests, []);
    }
    // Torn, and gone.
    for (const [given, fetched] of [[{ cut: { record: tensors - 2, bytes: 7 } }, 2], [{ cut: { record: 3, bytes: 60 } }, tensors - 3], [{ remove: true }, tensors]]) {
      await page.evaluate(() => SiglipClassifier.clearCache());
      whole(await load(hub.model));
      await damage(given);
      const result = await load(hub.model);
      whole(result);
      assert.equal(result.weights.fetched, fetched, JSON.stringify(given));
      hub.requests.length = 0;
      whole(await load(hub.model));
      assert.deepEqual(hub.requests, []);
    }
  });

  test("what an older version of the library kept is removed when a model is kept anew, and nothing else", async () => {
    await load(hub.model, { dtype: "f32" });
    const folders = () => page.evaluate(async () => (await Array.fromAsync((await (await navigator.storage.getDirectory()).getDirectoryHandle("siglip-web")).keys())).sort());
    const own = await folders();
    await keptAs([["older", 3], ["newer", 1000]].map(([name, format]) => ({ format, name, source: "" })));
    whole(await load(hub.model, { dtype: "f32" }));
    assert.deepEqual(await folders(), [...own, "newer", "older"].sort(), "a load that finds all there looks at no other model");
    whole(await load(hub.folder, { dtype: "f32" }));
    assert.deepEqual((await page.evaluate(() => SiglipClassifier.caches())).map(({ name }) => name).sort(), ["folder", "newer", "owner/name"]);
  });

  test("two tabs at once: one downloads, the other waits and finds all there", async () => {
    let go;
    let stalled;
    const gate = new Promise((resolve) => { go = resolve; });
    const held = new Promise((resolve) => { stalled = resolve; });
    hub.fault = async ({ where }) => {
      if (where !== "cdn") return undefined;
      stalled();
      await gate;
      return undefined;
    };
    const second = await openLoader(site);
    const first = load(hub.model);
    await held;
    const waits = second.evaluate((source) => new Promise((resolve) => {
      window.loading = load(source, { onProgress: ({ waiting }) => waiting && resolve(waiting) });
    }), hub.model);
    assert.match(await waits, /Another tab is loading owner\/name/);
    assertError(await second.evaluate(() => outcome(() => SiglipClassifier.clearCache("owner/name"))), "network", /is being loaded, here or in another tab/);
    go();
    whole(await first);
    const count = hub.requests.length;
    whole(await second.evaluate(() => window.loading));
    assert.equal(hub.requests.length, count);

    // A tab that is closed gives way.
    await second.evaluate(() => SiglipClassifier.clearCache());
    const reached = new Promise((resolve) => {
      hub.fault = ({ where }) => (where === "cdn" ? (resolve(), { stall: 0 }) : undefined);
    });
    second.evaluate((source) => void load(source), hub.model);
    await reached;
    const waiting = page.evaluate((source) => new Promise((resolve) => {
      window.loading = load(source, { onProgress: ({ waiting }) => waiting && resolve(waiting) });
    }), hub.model);
    await waiting;
    hub.reset();
    await second.close();
    whole(await page.evaluate(() => window.loading));
  });

  test("storage answers although the browser collects its garbage meanwhile", async (t) => {
    const { library, page: open } = await openSite(t, { args: ["--js-flags=--expose-gc"] });
    const page = await open();
    const read = await page.evaluate((library) => new Promise((done, failed) => {
      const script = `
        const { createSyncAccessHandle } = FileSystemFileHandle.prototype;
        FileSystemFileHandle.prototype.createSyncAccessHandle = function (options) {
          const access = createSyncAccessHandle.call(this, options);
          queueMicrotask(() => gc({ type: "major" }));
          return access;
        };
        const [{ disks }, { writeAbout }] = await Promise.all([import("${library.replace(/[^/]*$/, "")}store/disks.js"), import("${library.replace(/[^/]*$/, "")}index/disk.js")]);
        const folder = (await disks())[0].folder("collected");
        const appender = await folder.append("appended");
        appender.write(Uint8Array.of(1, 2));
        appender.close();
        await folder.write("written", Uint8Array.of(3));
        const root = await navigator.storage.getDirectory();
        await writeAbout(root, { name: "index" });
        const about = await (await (await root.getFileHandle("about.json")).getFile()).text();
        postMessage([...await folder.read("appended"), ...await folder.read("written"), JSON.parse(about).name]);`;
      const worker = new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })), { type: "module" });
      worker.onmessage = ({ data }) => done(data);
      worker.onerror = ({ message }) => failed(new Error(message));
      setTimeout(() => failed(new Error("it does not answer")), 20_000);
    }), library);
    assert.deepEqual(read, [1, 2, 3, "index"]);
  });

  test("a full disk is told, and the model works all the same", async () => {
    const session = await site.context.newCDPSession(page);
    const usage = await page.evaluate(async () => (await navigator.storage.estimate()).usage);
    await session.send("Storage.overrideQuotaForOrigin", { origin: site.origin, quotaSize: usage + 600_000 });
    for (const worker of [true, false]) {
      const result = await load(hub.model, { worker });
      whole(result);
      assert.equal(result.cached, false);
      assert.match(result.cacheReason, /storage for this page is full/);
    }
    await session.send("Storage.overrideQuotaForOrigin", { origin: site.origin });
    const result = await load(hub.model);
    whole(result);
    assert.ok(result.cached && result.weights.fetched < tensors, "what found room is used");
  });

  test("without a private file system the model is in Cache Storage; without both it is told", async () => {
    for (const [broken, cached, reason] of [[["getDirectory"], true, /^Kept/], [["getDirectory", "caches"], false, /no storage/]]) {
      const fresh = await openLoader(site);
      await fresh.evaluate((broken) => {
        navigator.storage.getDirectory = () => Promise.reject(new DOMException("not in private windows", "SecurityError"));
        if (broken.includes("caches")) caches.keys = () => Promise.reject(new DOMException("no", "SecurityError"));
      }, broken);
      hub.requests.length = 0;
      const first = await load(hub.model, { worker: false }, fresh);
      whole(first);
      assert.equal(first.cached, cached);
      assert.match(first.cacheReason, reason);
      hub.requests.length = 0;
      whole(await load(hub.model, { worker: false }, fresh));
      assert.equal(hub.requests.length === 0, cached);
      if (cached) {
        const list = await fresh.evaluate(() => SiglipClassifier.caches());
        assert.equal(list.length, 1);
        assert.ok(list[0].complete && list[0].bytes > tiny.length - headerEnd);
        assert.ok((await fresh.evaluate(() => SiglipClassifier.clearCache())) > 0);
        assert.deepEqual(await fresh.evaluate(() => SiglipClassifier.caches()), []);
      }
      await fresh.close();
    }
  });

  test("aborting ends requests and waits at once, and what is kept stays good", async () => {
    for (const worker of [true, false]) {
      for (const fault of [{ stall: 300_000 }, { status: 503, headers: { "Retry-After": "200" } }]) {
        let reached;
        const there = new Promise((resolve) => { reached = resolve; });
        hub.fault = ({ where }) => (where === "cdn" ? (reached(), fault) : undefined);
        await page.evaluate(([source, worker]) => {
          window.stop = new AbortController();
          window.loading = load(source, { worker, signal: window.stop.signal, policy: { hurry: false } });
        }, [hub.model, worker]);
        await there;
        const result = await page.evaluate(() => {
          window.stop.abort();
          return Promise.race([window.loading, new Promise((resolve) => setTimeout(resolve, 0, { message: "later than a timer" }))]);
        });
        assertError(result, "aborted");
        hub.reset();
        whole(await load(hub.model));
        await page.evaluate(() => SiglipClassifier.clearCache());
      }
    }
  });

  test("what a server does instead of giving a model has its own message each", async () => {
    const cases = [
      [hub.model, () => ({ status: 401, headers: { "X-Error-Code": "RepoNotFound" } }), /no such model, or it is private/],
      [hub.model, ({ file }) => (file === WEIGHTS ? { status: 403, headers: { "X-Error-Code": "GatedRepo" } } : undefined), /only to those who have accepted its terms/],
      [hub.model, () => ({ status: 404, headers: { "X-Error-Code": "RevisionNotFound" } }), /no such revision/],
      [hub.model, () => ({ html: true }), /sign in first/],
      [hub.model, ({ file }) => (file === WEIGHTS ? { html: true } : undefined), /model\.safetensors came as a web page.*sign in first/s],
      [hub.folder, () => ({ html: true }), /config\.json is a web page.*Give the address of the folder/, "bad-model"],
      [hub.folder, () => ({ closed: true }), /doesn't let this page read .*Access-Control-Allow-Origin header \(CORS\)/],
      [hub.folder, () => ({ status: 403 }), /refused .*config\.json \(HTTP 403\)/],
      [hub.folder, ({ file }) => (file === WEIGHTS ? { status: 404 } : undefined), /model\.safetensors is missing/, "bad-model"],
      [hub.folder, ({ file }) => (file === WEIGHTS ? { body: tiny.subarray(0, 700_000) } : undefined), /model\.safetensors ends in/, "bad-model"],
      [`http://127.0.0.1:9/folder/`, () => undefined, /could not be fetched.*Check the connection/],
    ];
    for (const [source, fault, message, code = "network"] of cases) {
      hub.fault = fault;
      assertError(await load(source), code, message);
    }
    hub.reset();
    await page.evaluate(() => SiglipClassifier.clearCache());
    whole(await load(hub.model));
  });

  test("a network that asks to sign in midway is outlasted", async () => {
    let pages = 2;
    hub.fault = ({ where, start }) => (where === "cdn" && start > 0 && pages-- > 0 ? { html: true } : undefined);
    whole(await load(hub.model));
  });

  test("the Hub's list may be missing; sums that are not SHA-256 are never taken for one", async () => {
    hub.fault = ({ where }) => (where === "api" ? { status: 404 } : undefined);
    let result = await load(hub.model, { cache: false });
    whole(result);
    assert.equal(result.weights.sha256, undefined, "redirects hide x-linked-etag, and the other sums are none");
    hub.fault = ({ where }) => (where === "api" ? { sha256: hub.commit } : undefined);
    result = await load(hub.model, { cache: false });
    assert.equal(result.weights.sha256, undefined);
  });

  test("small files that the Hub keeps apart are verified as well, and a damaged one is not kept", async () => {
    hub.files["config.json"] = JSON.stringify({ weights: true, also: "tokenizer.json" });
    hub.files["tokenizer.json"] = "{}".padEnd(100_000);
    hub.large = /safetensors|tokenizer/;
    try {
      hub.fault = ({ where, file }) => (where === "cdn" && file === "tokenizer.json" ? { body: "{}".padEnd(99_999).concat("!") } : undefined);
      assertError(await load(hub.model), "bad-model", /tokenizer\.json of owner\/name was damaged on the way/);
      hub.reset();
      whole(await load(hub.model));
    } finally {
      hub.large = undefined;
    }
  });

  test("rows asked for after the load come by ranges, and end with their call", async () => {
    await load(hub.model, { keep: true, cache: false });
    hub.requests.length = 0;
    const rows = await page.evaluate(async () => (await kept.embedText(["800000 64", "400000 100", "902070 10"])).map((row) => [...row]));
    assert.deepEqual(rows, [[800_000, 64], [400_000, 100], [902_070, 10]].map(([at, length]) => [...tiny.subarray(at, at + length)]));
    assert.deepEqual(asked().map(({ range }) => range).sort(), ["bytes=400000-400099", "bytes=800000-800063", "bytes=902070-902079"]);
    let reached;
    const there = new Promise((resolve) => { reached = resolve; });
    hub.fault = () => (reached(), { stall: 500_010 });
    const call = page.evaluate(() => {
      window.stop = new AbortController();
      return outcome(() => kept.embedText(["500000 64"], { signal: window.stop.signal }));
    });
    await there;
    await page.evaluate(() => window.stop.abort());
    assertError(await call, "aborted");
    hub.reset();
    assert.deepEqual(await page.evaluate(async () => [...(await kept.embedText(["500000 4"]))[0]]), [...tiny.subarray(500_000, 500_004)]);
    await page.evaluate(() => kept.dispose());
  });
});

describe("the real engine over the same server", { timeout: 900_000 }, () => {
  const FILES = ["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS];
  const LABELS = ["a cat", "a dog", "two birds"];
  let site;
  let hub;
  let page;
  let files;
  const close = [];
  before(async () => {
    const t = { after: (hook) => close.push(hook) };
    site = await openSite(t);
    files = Object.fromEntries(await Promise.all(FILES.map(async (file) => [file, await readFile(new URL(`../fixtures/model/tiny/${file}`, import.meta.url))])));
    hub = await startHub(t, files);
    page = await importLibrary(await site.page(), site.library);
    await page.evaluate((labels) => {
      window.answer = async (source, options) => outcome(async () => {
        const retryPolicy = { [Symbol.for("siglip-web.retryPolicy")]: { hurry: true } };
        const classifier = await SiglipClassifier.load(source, { backend: "cpu", ...retryPolicy, ...options });
        const picture = new ImageData(new Uint8ClampedArray(4 * 20 * 20).map((_, i) => (i * 37) % 256), 20, 20);
        const scores = await classifier.classify(picture, labels);
        const texts = await classifier.embedText(labels);
        await classifier.dispose();
        return { logits: scores.map(({ label, logit }) => [label, logit]), texts: texts.map((text) => [...text]), info: classifier.info };
      });
    }, LABELS);
  });
  after(async () => {
    for (const hook of close.reverse()) await hook();
  });
  beforeEach(async () => {
    hub.reset();
    hub.files = { ...files };
    await page.evaluate(() => SiglipClassifier.clearCache());
  });

  const answer = async (source, options) => {
    const result = await page.evaluate(([source, options]) => answer(source, options), [source, options]);
    return { ...result, ...result.value };
  };
  const same = (a, b) => assert.deepEqual([a.logits, a.texts], [b.logits, b.texts], a.message);

  for (const dtype of ["f32", "q8"]) {
    test(`killed at any byte, ${dtype} weights end up bit-equal, and the second load asks for nothing`, async () => {
      const expected = await answer(hub.model, { dtype, cache: false });
      assert.equal(expected.info?.dtype, dtype, expected.message);
      const numbers = random(dtype.length);
      for (let i = 0; i < 6; i++) {
        await page.evaluate(() => SiglipClassifier.clearCache());
        const at = Math.floor(numbers.next().value * tiny.length);
        let reached;
        const stalled = new Promise((resolve) => { reached = resolve; });
        hub.fault = ({ where, start, end }) => (where === "cdn" && at >= start && at < end ? (reached(), { stall: at }) : undefined);
        const loading = page.evaluate(([source, dtype]) => {
          window.stop = new AbortController();
          return answer(source, { dtype, signal: window.stop.signal });
        }, [hub.model, dtype]);
        await stalled;
        await page.evaluate(() => window.stop.abort());
        assertError(await loading, "aborted");
        hub.reset();
        same(await answer(hub.model, { dtype }), expected);
      }
      hub.requests.length = 0;
      const again = await answer(hub.model, { dtype });
      same(again, expected);
      assert.deepEqual(hub.requests, []);
      assert.equal(again.info.cached, true);
    });
  }

  test("processor_config.json says how pictures are prepared, and is asked for only where it may be", async () => {
    const processor = "processor_config.json";
    const asked = () => hub.requests.filter(({ file }) => file === processor).length;
    for (const source of [hub.model, hub.folder]) {
      const { info, message } = await answer(source);
      assert.ok(info, message);
      assert.equal(asked(), 0, source);
    }
    // Beside the older file, which is what another version of transformers left.
    const image_processor = { ...JSON.parse(String(files["preprocessor_config.json"])), size: { height: 999, width: 999 } };
    hub.files[processor] = JSON.stringify({ image_processor });
    hub.commit = "3".repeat(40);
    assertError(await answer(hub.model, { cache: false }), "bad-model", /999 × 999/);
    delete hub.files["preprocessor_config.json"];
    assertError(await answer(hub.folder, { cache: false }), "bad-model", /999 × 999/);
  });

  test("a returning visitor's labels run no text tower, unless their copy is damaged, of another form, or not wanted", async () => {
    /** A visit of its own: what the labels' progress began with, how often the text tower ran, and the numbers. */
    const visit = async (options) => {
      const fresh = await importLibrary(await site.page(), site.library);
      const { value, message } = await fresh.evaluate(([source, options, labels]) => outcome(async () => {
        const classifier = await SiglipClassifier.load(source, { backend: "cpu", dtype: "f32", ...options });
        const picture = new ImageData(new Uint8ClampedArray(4 * 20 * 20).map((_, i) => (i * 37) % 256), 20, 20);
        const events = [];
        const scores = await classifier.classify(picture, labels, { onProgress: (event) => events.push(event) });
        const texts = await classifier.embedText(["a red house", ...labels]);
        const { textRuns } = await classifier[Symbol.for("siglip-web.stats")]();
        await classifier.dispose();
        return { numbers: JSON.stringify([scores, texts.map((text) => [...text])]), known: events.find(({ stage }) => stage === "labels").loaded, textRuns };
      }), [hub.model, options, LABELS]);
      await fresh.close();
      assert.ok(value, message);
      return value;
    };
    const sizes = async () => (await page.evaluate(() => SiglipClassifier.caches())).map(({ bytes }) => bytes);
    const { numbers, textRuns: all } = await visit({ cache: false });
    assert.ok(all > 0);
    const [none, known] = [{ numbers, known: 0, textRuns: all }, { numbers, known: LABELS.length, textRuns: 0 }];

    assert.deepEqual(await visit({ keepLabels: false }), none);
    const [before] = await sizes();
    assert.deepEqual(await visit({ keepLabels: false }), none);
    assert.deepEqual(await sizes(), [before], "nothing is kept that isn't wanted");
    assert.deepEqual(await visit(), none);
    const [after] = await sizes();
    assert.ok(after > before, "it is listed with the model");
    assert.deepEqual(await visit(), known);
    assert.deepEqual(await visit({ keepLabels: false }), none, "nor read");
    const other = await visit({ dtype: "q8" });
    assert.equal(other.textRuns, all);
    assert.notEqual(other.numbers, numbers);
    assert.deepEqual(await visit(), known);

    // No file of what is kept has the words.
    const found = await page.evaluate(async (labels) => {
      const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("siglip-web");
      const found = [];
      for await (const folder of root.values()) {
        for await (const file of folder.values()) {
          if (!file.name.startsWith("t-")) continue;
          const text = await (await file.getFile()).text();
          found.push([file.name, labels.some((label) => text.includes(label))]);
        }
      }
      return found;
    }, LABELS);
    assert.deepEqual(found, [["t-texts$252F0", false], ["t-texts$252F0", false]]);

    await page.evaluate(async () => {
      const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("siglip-web");
      for await (const folder of root.values()) {
        const handle = await folder.getFileHandle("t-texts$252F0");
        const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
        bytes[bytes.length >> 1] ^= 1;
        const writable = await handle.createWritable();
        await writable.write(bytes);
        await writable.close();
      }
    });
    assert.deepEqual(await visit(), none);
    assert.deepEqual(await visit(), known);

    // Other weights under the same name, and a model that was cleared.
    const changed = Buffer.from(tiny);
    for (let at = headerEnd; at + 1 < changed.length; at += 4) changed[at + 1] ^= 0x10;
    hub.files[WEIGHTS] = changed;
    hub.commit = createHash("sha1").update("second").digest("hex");
    await page.evaluate(() => SiglipClassifier.clearCache());
    const second = await visit();
    assert.deepEqual([second.known, second.textRuns], [0, all]);
    assert.notEqual(second.numbers, numbers);
  });

  test("a file whose SHA-256 isn't the Hub's is refused, and nothing of it is kept", async () => {
    const expected = await answer(hub.model, { dtype: "f32", cache: false });
    const damaged = Buffer.from(tiny);
    damaged[headerEnd + 4321] ^= 1;
    hub.fault = ({ where, file }) => (where === "cdn" && file === WEIGHTS ? { body: damaged } : undefined);
    assertError(await answer(hub.model, { dtype: "f32" }), "bad-model", /model\.safetensors has the SHA-256 [\da-f]{64}/);
    hub.reset();
    const result = await answer(hub.model, { dtype: "f32" });
    same(result, expected);
    assert.ok(result.info.cached);
  });

  test("without ranges, from one stream that breaks off, the answer is the same", async () => {
    const expected = await answer(hub.model, { dtype: "q4", cache: false });
    let cut = 2;
    hub.fault = ({ file }) => ({ noRange: true, ...(file === WEIGHTS && cut-- > 0 && { cut: 400_000 }) });
    same(await answer(hub.folder, { dtype: "q4" }), expected);
  });

  test("of a large token table only the rows of the tokens in use are fetched, once", async () => {
    const wider = widen(files, 70_000);
    Object.assign(hub.files, wider);
    const expected = await answer(hub.model, { dtype: "f32", wholeTable: true, cache: false });
    assert.equal(expected.code, undefined, expected.message);
    hub.requests.length = 0;
    same(await answer(hub.model, { dtype: "f32" }), expected);
    const fetched = hub.requests.filter(({ where, range }) => where === "cdn" && range).map(({ range }) => range.match(/\d+/g).map(Number));
    const sum = fetched.reduce((sum, [first, last]) => sum + Math.min(last, wider[WEIGHTS].length - 1) - first + 1, 0);
    assert.ok(sum < wider[WEIGHTS].length - 16e6, `${sum} of ${wider[WEIGHTS].length}`);
    hub.requests.length = 0;
    same(await answer(hub.model, { dtype: "f32" }), expected);
    assert.deepEqual(hub.requests, [], "rows are kept as well");

    // New words, and no network: that call fails, and nothing else.
    hub.fault = ({ where }) => (where === "cdn" || where === "hub" ? { status: 503 } : undefined);
    const results = await page.evaluate(async ([source, labels]) => {
      const retryPolicy = { [Symbol.for("siglip-web.retryPolicy")]: { hurry: true } };
      const classifier = await SiglipClassifier.load(source, { backend: "cpu", dtype: "f32", ...retryPolicy });
      const results = [await outcome(() => classifier.embedText(["zebra crossing"])), await outcome(() => classifier.embedText(labels))];
      await classifier.dispose();
      return results;
    }, [hub.model, LABELS]);
    assertError(results[0], "network", /HTTP 503/);
    assert.equal(results[1].code, undefined, results[1].message);
  });
});

/** The model with a token table of so many rows: what is new in it is never asked for. */
function widen(files, rows) {
  const config = JSON.parse(files["config.json"]);
  config.text_config.vocab_size = rows;
  const { __metadata__, ...header } = JSON.parse(tiny.subarray(8, headerEnd));
  let at = 0;
  const parts = [];
  for (const [name, tensor] of Object.entries(header).sort(([, a], [, b]) => a.data_offsets[0] - b.data_offsets[0])) {
    let bytes = tiny.subarray(headerEnd + tensor.data_offsets[0], headerEnd + tensor.data_offsets[1]);
    if (name.endsWith("token_embedding.weight")) {
      bytes = Buffer.concat([bytes, Buffer.alloc((bytes.length / tensor.shape[0]) * (rows - tensor.shape[0]))]);
      tensor.shape[0] = rows;
    }
    tensor.data_offsets = [at, (at += bytes.length)];
    parts.push(bytes);
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return { "config.json": JSON.stringify(config), [WEIGHTS]: Buffer.concat([length, json, ...parts]) };
}
