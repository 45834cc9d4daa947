// What servers, networks, storage and visitors do wrong, each with its right end; and seeded combinations of all of it (faults.mjs).
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, beforeEach, describe } from "node:test";
import { openBench } from "./faults.mjs";
import { assertError, digest, loadOn, mockEngine, openLoader, openSite, test } from "./harness.mjs";
import { startHub } from "./hub.mjs";

const WEIGHTS = "model.safetensors";
const tiny = await readFile(new URL(`../fixtures/model/tiny/${WEIGHTS}`, import.meta.url));

describe("faults of servers and storage", { timeout: 600_000 }, () => {
  const CONFIG = JSON.stringify({ weights: true });
  let site;
  let hub;
  let page;
  const close = [];
  before(async () => {
    const t = { after: (hook) => close.push(hook) };
    site = await openSite(t, { overlay: mockEngine });
    hub = await startHub(t, {});
    page = await openLoader(site);
  });
  after(async () => {
    for (const hook of close.reverse()) await hook();
  });
  beforeEach(async () => {
    hub.reset();
    hub.files = { "config.json": CONFIG, [WEIGHTS]: tiny };
    hub.commit = "1".repeat(40);
    hub.large = undefined;
    await page.evaluate(() => SiglipClassifier.clearCache());
  });

  const load = (source, options, on = page) => loadOn(on, source, options);
  const caches = (on = page) => on.evaluate(() => SiglipClassifier.caches());
  const whole = (result, weights = hub.files[WEIGHTS]) => assert.equal(result.weights?.digest, digest(weights), JSON.stringify({ ...result, events: undefined }));
  const waiting = ({ events }) => events.flatMap(({ waiting }) => waiting ?? []);

  test("a connection that breaks, or an error without CORS, is tried again before anything is concluded, on another site too", async () => {
    for (const fault of [{ reset: true }, { status: 503, closed: true }, { status: 429, closed: true }]) {
      for (const file of ["config.json", WEIGHTS]) {
        let left = 2;
        hub.fault = (request) => (request.method === "GET" && request.file === file && left-- > 0 ? fault : undefined);
        whole(await load(hub.folder, { cache: false }));
        assert.ok(left <= 0);
      }
    }
  });

  test("what never lets itself be read is told as either of two things, and what was read before is not called CORS", async () => {
    hub.fault = () => ({ closed: true });
    assertError(await load(hub.folder), "network", /doesn't let this page read .*\(CORS\), or broke off or was damaged each time/);
    hub.fault = ({ file }) => (file === WEIGHTS ? { reset: true } : undefined);
    assertError(await load(hub.folder), "network", /model\.safetensors could not be fetched/);
    hub.fault = ({ file }) => (file === WEIGHTS ? { garbled: true } : undefined);
    assertError(await load(hub.folder), "network", /model\.safetensors (could not be fetched|broke off)/);
  });

  test("tensors that the model has no use for are named in the console, once a load", async () => {
    const said = [];
    const listen = (message) => { if (/no use for/.test(message.text())) said.push(`${message.type()}: ${message.text()}`); };
    page.on("console", listen);
    for (const worker of [true, false]) {
      for (const unused of [["optimizer.state"], Array.from({ length: 12 }, (_, i) => `extra.${i}`), []]) {
        hub.files["config.json"] = JSON.stringify({ weights: true, unused });
        const { info, unused: told } = await load(hub.folder, { cache: false, worker });
        assert.deepEqual([info, told], [undefined, undefined]);
      }
    }
    page.off("console", listen);
    const words = (what) => new RegExp(`^info: siglip-web: files of .* have ${what}$`);
    assert.equal(said.length, 4, said.join("\n"));
    for (const at of [0, 2]) {
      assert.match(said[at], words("a tensor that the model has no use for: optimizer\\.state"));
      assert.match(said[at + 1], words("12 tensors that the model has no use for: extra\\.0, .*extra\\.7, …"));
    }
  });

  test("the question whether a server answers at all has its own end", async () => {
    hub.fault = ({ method }) => (method === "HEAD" ? { silent: true } : { reset: true });
    const result = await load(hub.folder);
    assertError(result, "network", /config\.json could not be fetched/);
  });

  test("a server that gives a byte now and then is told of, and given up", async () => {
    for (const file of ["config.json", WEIGHTS]) {
      hub.files["config.json"] = CONFIG.padEnd(2000);
      hub.fault = (request) => (request.file === file ? { drip: 20 } : undefined);
      const result = await load(hub.folder, { policy: { stall: 300 } });
      assertError(result, "network", /Nothing more came from .* for 1 seconds/);
      assert.match(waiting(result).join(), /127\.0\.0\.1:\d+ sends only \d+ bytes per second/);
      hub.reset();
    }
    hub.fault = ({ file }) => (file === WEIGHTS ? { silent: true } : undefined);
    const result = await load(hub.folder, { policy: { stall: 300 } });
    assertError(result, "network");
    assert.match(waiting(result).join(), /Nothing has come from 127\.0\.0\.1:\d+/);
  });

  test("loading ends when the caller's time is over, whatever is waited for, and goes on from there", async () => {
    for (const worker of [true, false]) {
      hub.fault = ({ where }) => (where === "cdn" ? { status: 503, headers: { "Retry-After": "300" } } : undefined);
      assertError(await load(hub.model, { worker, timeout: 1500, policy: { hurry: false } }), "network", /owner\/name was not loaded within 1\.5 seconds.*HTTP 503.*Trying again in 300 s/);
      hub.reset();
      whole(await load(hub.model, { worker, timeout: 60_000 }));
      await page.evaluate(() => SiglipClassifier.clearCache());
    }
  });

  test("servers of one file may call it by different ETags where its SHA-256 is known", async () => {
    let count = 0;
    hub.fault = ({ where }) => (where === "cdn" ? { etag: `"${count++}"` } : undefined);
    whole(await load(hub.model));
    assert.ok(count > 1);
    hub.requests.length = 0;
    whole(await load(hub.model));
    assert.deepEqual(hub.requests, []);
  });

  test("what is kept still holds where an ETag became a weak one, and where HEAD isn't answered", async () => {
    whole(await load(hub.folder));
    const faults = [
      ({ file }) => ({ etag: `W/${hub.etag(file)}` }),
      // As Apache, Caddy and others name what they compressed: Chromium asks for parts uncompressed, and hears the plain one.
      ({ file }) => ({ etag: hub.etag(file).replace(/"$/, '-gzip"') }),
      ...[404, 405, 501].map((status) => ({ method }) => (method === "HEAD" ? { status } : undefined)),
    ];
    for (const fault of faults) {
      hub.fault = fault;
      hub.requests.length = 0;
      const result = await load(hub.folder);
      whole(result);
      assert.equal(result.weights.fetched, 0);
      assert.ok(hub.requests.every(({ method, range }) => method === "HEAD" || range === "bytes=0-0"), JSON.stringify(hub.requests));
    }
    // And one that has changed is noticed that way as well.
    hub.files[WEIGHTS] = Buffer.from(tiny);
    hub.files[WEIGHTS][tiny.length - 5] ^= 1;
    whole(await load(hub.folder));
  });

  test("a compressed file that stops midway goes on uncompressed, under another ETag", async () => {
    hub.files["config.json"] = CONFIG.padEnd(400_000);
    const ranges = [];
    hub.fault = ({ file, range }) => {
      if (file !== "config.json") return undefined;
      ranges.push(range);
      return range ? undefined : { etag: hub.etag(file).replace(/"$/, '-gzip"'), stall: 200_000 };
    };
    whole(await load(hub.folder, { cache: false, policy: { hurry: true, stall: 1000 } }));
    assert.match(ranges.at(-1) ?? "", /^bytes=\d+-/);
  });

  test("a token in the address is sent, and never kept: another one finds the same copy", async () => {
    whole(await load(`${hub.folder}?token=first-secret`));
    assert.ok((await load(`${hub.folder}?token=second-secret`)).cached);
    const list = await caches();
    assert.deepEqual(list.map(({ source, complete }) => [source, complete]), [[hub.folder, true]]);
    const kept = await page.evaluate(async () => {
      const texts = [];
      const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("siglip-web");
      for await (const folder of root.values()) {
        for await (const file of folder.values()) texts.push(folder.name, file.name, await (await file.getFile()).text());
      }
      return texts.join("\n");
    });
    assert.match(kept, /"source":/);
    assert.doesNotMatch(kept, /secret/);
    assert.ok((await page.evaluate((address) => SiglipClassifier.clearCache(address), `${hub.folder}?token=third`)) > 0);
  });

  test("a server that has a web page for every name has no such file", async () => {
    hub.files["config.json"] = JSON.stringify({ weights: true, also: "tokenizer_config.json" });
    hub.fault = ({ file }) => (file in hub.files ? undefined : { html: true });
    whole(await load(hub.folder));
    // A page in place of a file that must be there is an error, and so is one where the network wants a sign-in.
    hub.fault = ({ file }) => (file === "config.json" ? undefined : { html: true });
    assertError(await load(hub.model), "network", /sign in first/);
    hub.fault = ({ method, file }) => (method === "HEAD" || file === "tokenizer_config.json" ? { html: true } : undefined);
    assertError(await load(hub.folder, { cache: false }), "bad-model", /tokenizer_config\.json is a web page/);
    // A folder of open_clip's has another configuration. It is kept as others are.
    await page.evaluate(() => SiglipClassifier.clearCache());
    hub.files = { "open_clip_config.json": CONFIG, [WEIGHTS]: tiny };
    hub.fault = ({ file }) => (file in hub.files ? undefined : { html: true });
    whole(await load(hub.folder));
    hub.requests.length = 0;
    assert.ok((await load(hub.folder)).cached);
    assert.deepEqual(hub.requests.filter(({ method }) => method === "GET"), []);
    delete hub.files["open_clip_config.json"];
    assertError(await load(hub.folder, { cache: false }), "bad-model", /\/config\.json is a web page/);
  });

  test("a small file that came damaged from the Hub is fetched again, and told if it stays so", async () => {
    for (const [times, right] of [[1, true], [Infinity, false]]) {
      let left = times;
      hub.fault = ({ file, where }) => (where === "hub" && file === "config.json" && left-- > 0 ? { flip: 8 * CONFIG.indexOf("true") } : undefined);
      const result = await load(hub.model, { cache: false });
      if (right) whole(result);
      else assertError(result, "bad-model", /config\.json of owner\/name was damaged on the way: its git hash is [\da-f]{40}/);
    }
  });

  /** Flips a bit of the entries whose names match, at a share of their length. */
  const damage = (pattern, share) => page.evaluate(async ([pattern, share]) => {
    const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("siglip-web");
    let count = 0;
    for await (const folder of root.values()) {
      for await (const [name, handle] of folder.entries()) {
        if (!new RegExp(pattern).test(name)) continue;
        const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
        bytes[Math.floor(share * bytes.length)] ^= 4;
        const writable = await handle.createWritable();
        await writable.write(bytes);
        await writable.close();
        count += 1;
      }
    }
    return count;
  }, [pattern, share]);

  test("a kept file of which a bit is another one is as if it were not there", async () => {
    for (const pattern of ["^f-config", "^about", "^manifest"]) {
      for (const share of [0, 0.4, 0.8, 0.999]) {
        whole(await load(hub.model));
        assert.equal(await damage(pattern, share), 1, pattern);
        whole(await load(hub.model));
        hub.requests.length = 0;
        const again = await load(hub.model);
        whole(again);
        assert.ok(again.cached);
        assert.deepEqual(hub.requests, [], `${pattern} is whole again`);
      }
    }
  });

  test("a model whose server tells no version leaves nothing behind", async () => {
    hub.fault = () => ({ etag: null });
    const result = await load(hub.folder);
    whole(result);
    assert.equal(result.cached, false);
    assert.match(result.cacheReason, /tells no version/);
    assert.deepEqual(await caches(), []);
    hub.fault = () => ({ status: 404 });
    assert.ok((await load(hub.folder)).code);
    assert.deepEqual(await caches(), []);
  });

  test("rows that an old tab asks for come from the version it has loaded, or not at all, and never into the newer one's store", async () => {
    const tab = await openLoader(site);
    const first = await load(hub.folder, { keep: true }, tab);
    whole(first);
    const before = [...tiny.subarray(800_000, 800_064)];
    const rows = (on) => on.evaluate(() => outcome(async () => [...(await kept.embedText(["800000 64"]))[0]]));
    assert.deepEqual((await rows(tab)).value, before);
    hub.files[WEIGHTS] = Buffer.from(tiny);
    hub.files[WEIGHTS].fill(3, 800_000, 800_064);
    assertError(await tab.evaluate(() => outcome(() => kept.embedText(["700000 64"]))), "network", /was changed on the server/);
    whole(await load(hub.folder));
    const generations = await page.evaluate(async () => {
      const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("siglip-web");
      const found = [];
      for await (const folder of root.values()) found.push(JSON.parse((await (await (await folder.getFileHandle("about.json")).getFile()).slice(32).text())).generation);
      return found;
    });
    assert.equal(generations.length, 1);
    whole(await load(hub.folder));
    await tab.close();
  });

  test("storage that stops answering costs the copy, not the model", async () => {
    const fresh = await openLoader(site);
    await fresh.evaluate(() => {
      // As where a visitor clears the site's data: what was begun is never settled.
      const never = () => new Promise(() => {});
      const wait = window.setTimeout;
      window.setTimeout = (work, time, ...rest) => wait(work, time >= 30_000 ? 3000 : time, ...rest);
      FileSystemFileHandle.prototype.createWritable = never;
    });
    const result = await load(hub.folder, { worker: false }, fresh);
    whole(result);
    assert.equal(result.cached, false);
    assert.match(result.cacheReason, /storage failed \(it does not answer\)/);
    await fresh.close();
    await page.evaluate(() => SiglipClassifier.clearCache());
  });

  test("a picture's address that never answers, or never ends, fails and keeps no other call waiting", async () => {
    const pictures = { "/silent.png": { silent: true }, "/drip.png": { drip: 20 }, "/endless.png": { endless: true } };
    hub.files["picture"] = Buffer.alloc(5000);
    for (const [name, fault] of Object.entries(pictures)) {
      await load(hub.folder, { keep: true, cache: false, policy: { stall: fault.endless ? 20_000 : 300 } });
      hub.fault = ({ file }) => (file === "picture" ? fault : undefined);
      const [failed, other] = await page.evaluate((address) => Promise.all([outcome(() => kept.classify(address, ["a"])), outcome(() => kept.embedText(["0 4"]))]), `${hub.folder}picture`);
      if (name === "/endless.png") assertError(failed, "bad-image", /at most 256 MiB are read/);
      else assertError(failed, "network", /did not come: its server gave nothing/);
      assert.equal(other.value.length, 1);
      hub.reset();
      await page.evaluate(() => kept.dispose());
    }
  });

  test("many pictures that are given up while one is on its way and the next isn't there yet end with one error", async () => {
    hub.files["picture"] = Buffer.alloc(5000);
    await load(hub.folder, { keep: true, cache: false });
    const asked = new Promise((resolve) => {
      hub.fault = ({ file }) => (file === "picture" ? (resolve(), { silent: true }) : undefined);
    });
    const given = page.evaluate((address) => {
      window.unheard = [];
      window.addEventListener("unhandledrejection", ({ reason }) => unheard.push(String(reason)));
      window.stop = new AbortController();
      const pictures = async function* () {
        yield address;
        await new Promise(() => {});
      };
      return outcome(async () => { for await (const one of kept.embedMany(pictures(), { signal: stop.signal })) void one; });
    }, `${hub.folder}picture`);
    await Promise.race([asked, given]);
    await page.evaluate(() => stop.abort());
    assertError(await given, "aborted");
    assert.deepEqual(await page.evaluate(() => unheard), []);
    hub.reset();
    await page.evaluate(() => kept.dispose());
  });

  test("addresses with a % that begins nothing are addresses", async () => {
    const [base] = hub.folder.split("folder/");
    hub.files["100%/config.json"] = CONFIG;
    const result = await load(`${base}folder/100%/`);
    assertError(result, "bad-model", /model\.safetensors is missing/);
    assert.ok(hub.requests.length > 0);
  });

  test("the page may not be framed by others, and what it is made of may be read by them", async () => {
    const headers = async (path) => (await fetch(`${site.origin}${path}`)).headers;
    assert.equal((await headers("/")).get("content-security-policy"), "frame-ancestors 'none'");
    assert.equal((await headers("/index.html")).get("content-security-policy"), "frame-ancestors 'none'");
    const library = await headers("/lib/siglip-web.js");
    assert.equal(library.get("content-security-policy"), null);
    assert.equal(library.get("access-control-allow-origin"), "*");
  });
});

describe("seeded combinations of faults", { timeout: 900_000 }, () => {
  const close = [];
  let bench;
  before(async () => {
    bench = await openBench({ after: (hook) => close.push(hook) });
  });
  after(async () => {
    for (const hook of close.reverse()) await hook();
  });

  test("each of 60 ends right or with a typed error, and a load without faults is right after it", async () => {
    const problems = [];
    let right = 0;
    for (let seed = 1; seed <= 60; seed++) {
      const result = await bench.run(seed);
      if (result.problem) problems.push(result);
      if (result.ended === "right") right += 1;
    }
    assert.deepEqual(problems, []);
    assert.ok(right >= 10, `${right} were right all the same`);
  });
});
