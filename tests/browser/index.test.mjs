// siglip-index.js as a page uses it, on the demo model.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { cpus } from "node:os";
import { after, before, describe } from "node:test";
import { BROWSER, LACKS, assertError, importLibrary, openSite, test, waitForPromise } from "./harness.mjs";

const SAMPLES = ["balloon", "cherry", "ladybug", "lock", "penguin", "soup", "strawberry", "truck"];

describe("an index of pictures", { timeout: 1_200_000 }, () => {
  let site, page;
  const close = [];
  before(async () => {
    site = await openSite({ after: (hook) => close.push(hook) });
    page = await openIndex(site);
  });
  after(async () => {
    for (const hook of close) await hook();
  });

  test("pictures are found by words, with the probability that classify gives", async () => {
    const { added, best, scores } = await page.evaluate(async () => {
      const index = await SiglipIndex.open(classifier, { memory: true });
      const added = await index.add(await samples());
      const best = {};
      for (const [words, id] of [["a penguin", "penguin.png"], ["a strawberry", "strawberry.png"], ["a truck", "truck.png"]]) best[id] = (await index.search(words))[0];
      const [{ score, logit }] = await classifier.classify((await samples())[4].image, ["a penguin"]);
      await index.close();
      return { added, best, scores: [[best["penguin.png"].score, score], [best["penguin.png"].logit, logit]] };
    });
    assert.deepEqual(added, { added: 8, unchanged: 0, removed: 0, skipped: 0, unreadable: [] });
    for (const [id, hit] of Object.entries(best)) assert.equal(hit.id, id);
    for (const [found, expected] of scores) assert.ok(Math.abs(found - expected) < 1e-4 * Math.max(1, Math.abs(expected)), `${found} ${expected}`);
  });

  test("only new and changed pictures are embedded; unreadable ones are listed, and not tried again", async () => {
    const result = await page.evaluate(async () => {
      const index = await SiglipIndex.open(classifier, { memory: true });
      const items = (await samples()).map((item) => ({ ...item, size: item.image.size, modified: 1 }));
      const bad = { id: "bad.png", image: new Blob(["no picture"]), size: 10, modified: 1 };
      const first = await index.add([...items, bad]);
      const before = await runs();
      const again = await index.add([...items, bad]);
      const between = await runs();
      const changed = await index.add([{ ...items[0], image: items[1].image, modified: 2 }], { gone: "drop" });
      const entries = await index.entries();
      await index.close();
      return { first, again, changed, embedded: between - before, entries };
    });
    assert.equal(result.first.added, 8);
    assert.deepEqual(result.first.unreadable.map(({ id, code }) => [id, code]), [["bad.png", "bad-image"]]);
    assert.deepEqual({ ...result.again, unreadable: result.again.unreadable.length }, { added: 0, unchanged: 8, removed: 0, skipped: 0, unreadable: 1 });
    assert.equal(result.embedded, 0);
    assert.deepEqual(result.changed, { added: 1, unchanged: 0, removed: 7, skipped: 0, unreadable: [] });
    assert.deepEqual(result.entries.map(({ id, modified }) => [id, modified]), [["balloon.png", 2]]);
  });

  test("a folder within that can't be looked into is listed, stops nothing, and keeps what was found in it", async () => {
    const { before, after, ids, root } = await page.evaluate(async () => {
      const handle = (tag, kind, name, more) => ({ [Symbol.toStringTag]: tag, kind, name, ...more });
      const files = (await samples()).map(({ image }, i) => handle("FileSystemFileHandle", "file", `${i}.png`, { getFile: async () => new File([image], `${i}.png`, { lastModified: 1 }) }));
      let closed = "";
      const folder = (name, children) => handle("FileSystemDirectoryHandle", "directory", name, {
        async *values() {
          if (name === closed) throw new DOMException("It is not allowed.", "NotAllowedError");
          yield* children;
        },
      });
      const photos = folder("photos", [files[0], folder("locked", [files[1]]), folder("open", [files[2]])]);
      const index = await SiglipIndex.open(classifier, { memory: true });
      const before = await index.add(photos);
      closed = "locked";
      const after = await index.add(photos);
      const ids = (await index.entries()).map(({ id }) => id);
      closed = "photos";
      const root = await outcome(() => index.add(photos));
      await index.close();
      return { before, after, ids, root };
    });
    assert.deepEqual(before, { added: 3, unchanged: 0, removed: 0, skipped: 0, unreadable: [] });
    assert.deepEqual({ ...after, unreadable: after.unreadable.map(({ id, code }) => [id, code]) }, { added: 0, unchanged: 2, removed: 0, skipped: 0, unreadable: [["photos/locked", "network"]] });
    assert.match(after.unreadable[0].message, /^The folder .*locked.* could not be read \(It is not allowed\.\)/);
    assert.deepEqual(ids.sort(), ["photos/0.png", "photos/locked/1.png", "photos/open/2.png"]);
    assertError(root, "network", /The folder "photos" could not be read/);
  });

  test("a picture of the index, a picture, several terms and minus terms are queries", async () => {
    const { like, same, more, less, words, parsed } = await page.evaluate(async () => {
      const index = await SiglipIndex.open(classifier, { memory: true });
      const items = await samples();
      await index.add(items);
      const ids = async (query) => (await index.search(query)).map(({ id }) => id);
      const found = {
        like: await index.search({ id: "cherry.png" }),
        same: (await ids(items[1].image)),
        more: (await ids({ id: "strawberry.png" })).indexOf("cherry.png"),
        less: (await ids([{ id: "strawberry.png" }, { id: "cherry.png", minus: true }])).indexOf("cherry.png"),
        words: await index.search(["fruit", { text: "a strawberry", minus: true }]),
        parsed: [SiglipIndex.parse("red  car -truck -\"two people\" t-shirt"), SiglipIndex.parse("a cat"), SiglipIndex.parse("-x")],
      };
      await index.close();
      return found;
    });
    assert.equal(like[0].id, "cherry.png");
    assert.ok(like[0].cosine > 0.9999 && Math.abs(like[0].score - like[0].cosine) < 1e-6);
    assert.deepEqual(same, like.map(({ id }) => id));
    assert.ok(less > more, `${less} ${more}`);
    assert.notEqual(words[0].id, "strawberry.png");
    assert.ok(words.every(({ score }, i) => i === 0 || score <= words[i - 1].score));
    assert.deepEqual(parsed, [[{ text: "red car t-shirt" }, { text: "truck", minus: true }, { text: "two people", minus: true }], "a cat", [{ text: "x", minus: true }]]);
  });

  test("pictures that other workers decode have the embeddings that the engine gives their files", async () => {
    const { same, decoded } = await page.evaluate(async () => {
      const files = await samples();
      // Each with a byte behind its end: other files, the same pictures.
      const items = Array.from({ length: 40 }, (_, i) => ({ id: `${i}`, image: new Blob([files[i % files.length].image, Uint8Array.of(i)]), size: i, modified: 1 }));
      const index = await SiglipIndex.open(classifier, { memory: true });
      const { embedImage } = classifier;
      let decoded = 0;
      classifier.embedImage = (image, options) => {
        if (image instanceof ImageData) decoded += 1;
        return embedImage.call(classifier, image, options);
      };
      await index.add(items);
      delete classifier.embedImage;
      const found = await index.embeddings(items.map(({ id }) => id));
      const own = [];
      for (const { image } of items) own.push(await classifier.embedImage(image));
      await index.close();
      return { same: found.filter((vector, i) => vector.every((value, j) => value === own[i][j])).length, decoded };
    });
    assert.equal(same, 40);
    // On one core the engine does all of it.
    assert.ok(decoded > 0 || cpus().length === 1, `${decoded}`);
  });

  test("an add that is paused embeds nothing more, says so, is searched meanwhile, and goes on where it was", async () => {
    const { paused, still, hits, added, later } = await page.evaluate(async () => {
      const index = await SiglipIndex.open(classifier, { memory: true });
      const files = await samples();
      const items = Array.from({ length: 48 }, (_, i) => ({ id: `${i}`, image: new Blob([files[i % files.length].image, Uint8Array.of(i)]), size: i, modified: 1 }));
      const events = [];
      let tell;
      const heard = new Promise((resolve) => { tell = resolve; });
      const adding = index.add(items, {
        onProgress: (event) => {
          events.push(event);
          if (event.added > 0 && !events.some((one) => one.paused)) index.pause();
          if (event.paused) tell();
        },
      });
      await heard;
      const { paused } = index;
      // The engine takes what comes in turn: so many pictures to search by are time for all the others to be embedded.
      let hits;
      for (let i = 0; i < 60; i++) hits = await index.search(new Blob([files[i % files.length].image, Uint8Array.of(100 + i)]));
      const still = index.size;
      const last = events.length;
      index.resume();
      const { added } = await adding;
      const found = { paused, still, hits: hits.length, added, later: events.slice(last).some((event) => event.paused) };
      await index.close();
      return found;
    });
    assert.equal(paused, true);
    // What was under way is done: groups of up to eight, one that was being kept and one that was being embedded.
    assert.ok(still > 0 && still <= 24, `${still}`);
    assert.equal(hits, still);
    assert.deepEqual([added, later], [48, false]);
  });

  test("who waits for another add, or for the library's WebAssembly, is let go at once by its signal", async () => {
    const waiting = await page.evaluate(async () => {
      const index = await SiglipIndex.open(classifier, { memory: true });
      const file = await index.export();
      index.pause();
      const pictures = await samples();
      const first = index.add(pictures);
      const told = [];
      for (const wait of [(signal) => index.add(pictures, { signal }), (signal) => index.import(file, { signal })]) {
        const giving = new AbortController();
        const given = outcome(() => wait(giving.signal));
        await index.entries(); // by then it waits
        giving.abort();
        told.push(await now(given));
      }
      index.resume();
      const { added } = await first;
      await index.close();
      return { told, added };
    });
    for (const each of waiting.told) assertError(each, "aborted");
    assert.equal(waiting.added, 8);

    const path = `/lib/pkg/siglip_web_cpu${LACKS[BROWSER].relaxedSimd ? "" : "_relaxed"}_bg.wasm`;
    let asked;
    const here = new Promise((resolve) => { asked = resolve; });
    site.overlay[path] = (request, response) => asked(response);
    await page.evaluate(() => {
      window.opening = new AbortController();
      window.ended = 0;
      const { terminate } = Worker.prototype;
      Worker.prototype.terminate = function () { window.ended += 1; terminate.call(this); };
      window.opened = outcome(() => SiglipIndex.open(classifier, { memory: true, signal: opening.signal }));
    });
    const response = await here;
    const opening = await page.evaluate(async () => {
      window.opening.abort();
      return { told: await now(opened), ended };
    });
    response.destroy();
    assertError(opening.told, "aborted");
    assert.equal(opening.ended, 1, "its worker is gone");
    // Nor is a worker left where there is nothing to start.
    site.overlay[path] = { status: 404 };
    const missing = await page.evaluate(async () => ({ told: await outcome(() => SiglipIndex.open(classifier, { memory: true })), ended }));
    delete site.overlay[path];
    assertError(missing.told, "network", /is not there/);
    assert.equal(missing.ended, 2);
  });

  test("an add that has failed looks for no more pictures, and says no more", async () => {
    const { told, after } = await page.evaluate(async () => {
      const lost = { info: classifier.info, embedImage: async () => { throw new SiglipError("disposed", "The classifier was disposed of."); } };
      const index = await SiglipIndex.open(lost, { memory: true });
      const [{ image }] = await samples();
      const events = [];
      let [left, listed] = [false, 0];
      const generated = (async function* () {
        try {
          for (let i = 0; i < 100; i++) yield { id: `${i}`, image };
        } finally {
          left = true;
        }
      })();
      const handle = (kind, name, more) => ({ [Symbol.toStringTag]: `FileSystem${kind === "file" ? "File" : "Directory"}Handle`, kind, name, ...more });
      const folders = Array.from({ length: 2000 }, (_, i) => handle("directory", `${i}`, {
        async *values() {
          listed += 1;
          await new Promise(requestAnimationFrame);
          yield handle("file", "a.png", { getFile: async () => new File([image], "a.png", { lastModified: 1 }) });
        },
      }));
      const folder = handle("directory", "photos", { async *values() { yield* folders; } });
      const [told, after] = [[], []];
      for (const source of [generated, folder]) {
        told.push(await outcome(() => index.add(source, { onProgress: (event) => events.push(event) })));
        const before = [events.length, listed];
        for (let i = 0; i < 3; i++) await index.entries().then(() => new Promise(requestAnimationFrame)); // what it had asked is answered by then
        after.push([events.length - before[0], listed - before[1]]);
      }
      await index.close();
      return { told, after: { events: after, left, all: listed === folders.length } };
    });
    for (const each of told) assertError(each, "disposed");
    assert.deepEqual(after, { events: [[0, 0], [0, 0]], left: true, all: false });
  });

  test("pictures are removed while an add is paused", async () => {
    const { removed, entries, added, soon } = await page.evaluate(async () => {
      const index = await SiglipIndex.open(classifier, { memory: true });
      const [first, ...others] = await samples();
      await index.add([first]);
      index.pause();
      let tell;
      const heard = new Promise((resolve) => { tell = resolve; });
      const adding = index.add(others, { onProgress: ({ paused }) => paused && tell() });
      await heard;
      const unless = (change) => {
        const look = async () => {
          for (let i = 0; i < 5; i++) await index.entries();
          return "still waiting";
        };
        return Promise.race([change, look()]);
      };
      const removed = await unless(index.remove([first.id]));
      const entries = await index.entries();
      await unless(index.clear());
      index.resume();
      const { added } = await adding;
      // One that has only just been asked for is no reason to wait either.
      index.pause();
      const next = index.add([first]);
      const soon = await unless(index.remove([others[0].id]));
      index.resume();
      await next;
      await index.close();
      return { removed, entries, added, soon };
    });
    assert.deepEqual([removed, entries, added, soon], [1, [], 7, 1]);
  });

  test("bad input is refused in words", async () => {
    const outcomes = await page.evaluate(async () => {
      const index = await SiglipIndex.open(classifier, { memory: true });
      const asked = [
        () => SiglipIndex.open({}), () => index.add([]), () => index.add("text"), () => index.add([{ id: 1, image: new Blob() }]), () => index.search(" "),
        () => index.search([]), () => index.search({ id: "nothing" }), () => index.search("a", { limit: 0 }), () => index.search("a", { minScore: 2 }), () => index.search({}),
        () => index.import(new Blob(["nothing of the kind"])),
      ];
      const outcomes = [];
      for (const ask of asked) outcomes.push(await outcome(ask));
      await index.close();
      outcomes.push(await outcome(() => index.search("a")));
      outcomes.push(await outcome(() => SiglipIndex.open({ embedImage() {}, info: { ...classifier.info, task: "image-classification" } })));
      return outcomes;
    });
    assertError(outcomes.pop(), "unsupported", /no embeddings/);
    const closed = outcomes.pop();
    for (const each of outcomes) assertError(each, "bad-input");
    assertError(closed, "disposed");
  });

  test("what export writes, import reads, and an index of another model is refused", async () => {
    const { count, same, refused, damaged } = await page.evaluate(async () => {
      const [index, other] = [await SiglipIndex.open(classifier, { memory: true }), await SiglipIndex.open(classifier, { memory: true })];
      await index.add(await samples());
      const file = await index.export();
      const count = await other.import(file);
      const same = JSON.stringify(await index.search("a penguin")) === JSON.stringify(await other.search("a penguin"));
      const bytes = new Uint8Array(await file.arrayBuffer());
      const start = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
      const { fingerprint, embeddingSize } = classifier.info;
      const header = new TextDecoder().decode(bytes.subarray(8, start)).replace(fingerprint, "0".repeat(fingerprint.length));
      const refused = await outcome(() => other.import(new Blob([bytes.subarray(0, 8), header, bytes.subarray(start)])));
      // A hole in the file: zeros in the place of the first embedding.
      bytes.fill(0, start, start + 4 * embeddingSize);
      const damaged = await outcome(() => other.import(bytes));
      await index.close();
      await other.close();
      return { count, same, refused, damaged };
    });
    assert.equal(count, 8);
    assert.ok(same);
    assertError(refused, "bad-input", /made by/);
    assertError(damaged, "bad-input", /damaged: embedding 1 has not the length 1/);
  });

  test("an index that the Rust crate wrote is read, and finds the same", async () => {
    const bytes = [...await readFile(new URL("../fixtures/index.safetensors", import.meta.url))];
    const { count, hit, own } = await page.evaluate(async (bytes) => {
      const index = await SiglipIndex.open(classifier, { memory: true });
      const count = await index.import(Uint8Array.from(bytes));
      const [hit] = await index.search("a penguin");
      await index.add((await samples()).map((item) => ({ ...item, id: `own/${item.id}` })));
      const [own] = (await index.search("a penguin")).filter(({ id }) => id.startsWith("own/"));
      await index.close();
      return { count, hit, own };
    }, bytes);
    assert.equal(count, 10);
    assert.equal(hit.id, "samples/penguin.png");
    assert.ok(hit.size > 0 && hit.modified > 0);
    assert.ok(Math.abs(hit.cosine - own.cosine) < 1e-5, `${hit.cosine} ${own.cosine}`);
  });

  test("an index is kept: the next visit finds it, embeds nothing again, and lists it until it is deleted", async () => {
    const first = await page.evaluate(async () => {
      const index = await SiglipIndex.open(classifier, { name: "kept" });
      await index.add(await samples());
      const found = { hits: await index.search("a truck"), info: index.info };
      await index.close();
      return found;
    });
    assert.equal(first.info.kept, true);
    const visit = await openIndex(site);
    const { again, hits, size, list, freed, left } = await visit.evaluate(async () => {
      const index = await SiglipIndex.open(classifier, { name: "kept" });
      const { size } = index;
      const hits = await index.search("a truck");
      const again = await index.add(await samples());
      await index.close();
      const list = await SiglipIndex.list();
      return { size, hits, again, list, freed: await SiglipIndex.delete("kept"), left: await SiglipIndex.list() };
    });
    assert.equal(size, 8);
    assert.deepEqual(hits, first.hits);
    assert.deepEqual([again.added, again.unchanged], [0, 8]);
    assert.deepEqual(list.map(({ name, model, dtype }) => [name, model, dtype]), [["kept", "demo", "f32"]]);
    assert.ok(freed > 8 * 160 * 4 && freed === list[0].bytes);
    assert.deepEqual(left, []);
    await visit.close();
  });

  test("closed at any moment, an index goes on where it was", async () => {
    // In Firefox, where a frame takes much longer to open, some of them.
    const MOMENTS = BROWSER === "firefox" ? 8 : 50, COUNT = 2000;
    const { sizes, damaged, result, size, embedded, found } = await page.evaluate(async ([address, MOMENTS, COUNT]) => {
      // A model that costs nothing: the moments are those of the index.
      window.embedded = 0;
      const visit = async (there) => {
        const { SiglipIndex } = await there.eval(`import(${JSON.stringify(address)})`);
        const vector = (number) => new there.Float32Array(32).fill(0).with(number % 32, 0.8).with((number >> 5) % 32, 0.6);
        const fake = {
          info: { name: "fake", dtype: "f32", fingerprint: "0", embeddingSize: 32, logitScale: 4, logitBias: -10, backend: "cpu" },
          embedImage: async (number) => { window.embedded += 1; return vector(number); },
        };
        const index = await SiglipIndex.open(fake, { name: "killed" });
        // Pictures change their places between visits.
        return { index, vector, add: () => index.add(Array.from({ length: COUNT }, (_, i) => ({ id: `${i}`, image: i, size: i, modified: 1 }))) };
      };
      const [sizes, damaged] = [[], []];
      for (let moment = 0; moment < MOMENTS; moment++) {
        const frame = document.createElement("iframe");
        frame.src = "/blank.html";
        await new Promise((resolve) => { frame.onload = resolve; document.body.append(frame); });
        const { index, add } = await visit(frame.contentWindow);
        sizes.push(index.size);
        damaged.push(index.info.damaged);
        add().catch(() => {});
        const before = embedded;
        for (let turn = 0; turn < 200_000 && embedded - before < (moment * 7) % 41; turn++) {
          await new Promise((resolve) => { const { port1, port2 } = new MessageChannel(); port1.onmessage = resolve; port2.postMessage(0); });
        }
        frame.remove();
      }
      const { index, add, vector } = await visit(window);
      const before = embedded;
      const result = await add();
      const found = [];
      for (const number of [0, 1, COUNT >> 1, COUNT - 1]) {
        const [got] = await index.embeddings([`${number}`]);
        found.push(got.every((value, i) => value === vector(number)[i]));
      }
      await index.close();
      await SiglipIndex.delete("killed");
      return { sizes, damaged, result: { ...result, ran: embedded - before }, size: result.added + result.unchanged, embedded, found };
    }, [`${site.origin}/lib/siglip-index.js`, MOMENTS, COUNT]);
    assert.equal(size, COUNT);
    assert.deepEqual(found, [true, true, true, true]);
    assert.deepEqual(damaged, damaged.map(() => 0), "nothing is torn");
    assert.ok(sizes.every((size, i) => i === 0 || size >= sizes[i - 1]), "nothing is lost");
    assert.ok(sizes.at(-1) > 0 && sizes.at(-1) < COUNT, `the moments were within the work: ${sizes}`);
    assert.equal(result.ran, result.added);
    // What was on its way when the page was closed, and no more, is embedded twice.
    assert.ok(embedded <= COUNT + MOMENTS * 24, `${embedded}`);
  });

  test("a bit that flips anywhere is found, and only what it damaged is embedded again", async () => {
    const visit = await openIndex(site);
    const outcomes = await visit.evaluate(async () => {
      const items = Array.from({ length: 20 }, (_, i) => ({ id: `${i}`, image: drawing(i), size: i, modified: 1 }));
      let index = await SiglipIndex.open(classifier, { name: "flipped" });
      await index.add(items);
      const right = JSON.stringify(await index.search("a truck"));
      await index.close();
      const [folder] = await Array.fromAsync((await (await navigator.storage.getDirectory()).getDirectoryHandle("siglip-web-indexes")).values());
      const outcomes = [];
      for (const name of ["vectors", "rows", "log-1", "vectors", "rows", "log-1", "log-1"]) {
        const handle = await folder.getFileHandle(name);
        const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
        const at = name === "log-1" && outcomes.length === 6 ? 3 : Math.floor((bytes.length * (outcomes.length + 1)) / 9);
        bytes[at] ^= 1 << (outcomes.length % 8);
        const writable = await handle.createWritable();
        await writable.write(bytes);
        await writable.close();
        index = await SiglipIndex.open(classifier, { name: "flipped" });
        const { damaged } = index.info;
        const { added } = await index.add(items);
        outcomes.push({ name, damaged, added, size: index.size, same: JSON.stringify(await index.search("a truck")) === right, after: index.info.damaged });
        await index.close();
      }
      await SiglipIndex.delete("flipped");
      return outcomes;
    });
    for (const { name, added, size, same, after } of outcomes) {
      assert.ok(added <= 1, `${name}: ${added}`);
      assert.deepEqual([size, same, after], [20, true, 0], JSON.stringify(outcomes, null, 1));
    }
    // The rows of 8 bits are made anew from the embeddings.
    assert.deepEqual(outcomes.slice(0, 3).map(({ name, added }) => [name, added]), [["vectors", 1], ["rows", 0], ["log-1", 1]]);
    await visit.close();
  });

  test("two tabs: one at a time adds, and the other one sees it", async () => {
    const [one, two] = [await openIndex(site), await openIndex(site)];
    for (const tab of [one, two]) {
      await tab.evaluate(async () => {
        window.index = await SiglipIndex.open(classifier, { name: "shared" });
        window.changes = 0;
        index.onchange = () => { window.changes += 1; };
      });
    }
    await one.evaluate(async () => {
      index.pause();
      window.adding = index.add(await samples());
      await new Promise((resolve) => { const look = () => (index.paused && index.size === 0 ? resolve() : requestAnimationFrame(look)); look(); });
    });
    const waiting = await two.evaluate(async () => {
      let waiting;
      const heard = new Promise((resolve) => {
        window.adding = samples().then((all) => index.add(all, { onProgress: (event) => { if (event.waiting) resolve(event.waiting); } }));
      });
      waiting = await heard;
      return waiting;
    });
    assert.match(waiting, /Another tab/);
    const busy = await two.evaluate(async () => {
      const { timeout } = AbortSignal;
      AbortSignal.timeout = () => AbortSignal.abort(); // without the seconds that it would wait
      const told = [await outcome(() => index.remove(["penguin.png"])), await outcome(() => index.clear()), await outcome(() => SiglipIndex.delete("shared"))];
      AbortSignal.timeout = timeout;
      return told;
    });
    for (const each of busy) assertError(each, "network", /^The index "shared" (was not changed|could not be removed): pictures are being added to it, here or in another tab\./);
    const first = await one.evaluate(() => { index.resume(); return adding; });
    const second = await two.evaluate(() => adding);
    assert.deepEqual([first.added, second.added, second.unchanged], [8, 0, 8]);
    const seen = await two.evaluate(async () => ({ changes, size: index.size, best: (await index.search("a penguin"))[0].id }));
    assert.deepEqual([seen.changes > 0, seen.size, seen.best], [true, 8, "penguin.png"]);
    await two.evaluate(() => index.remove(["penguin.png"]));
    await waitForPromise(one, () => index.size === 7);
    assert.notEqual(await one.evaluate(async () => (await index.search("a penguin"))[0].id), "penguin.png");
    await one.evaluate(() => index.clear());
    await waitForPromise(two, () => index.size === 0);
    for (const tab of [one, two]) await tab.evaluate(() => index.close());
    await one.evaluate(() => SiglipIndex.delete("shared"));
    for (const tab of [one, two]) await tab.close();
  });

  test("an index of another model is refused with what to do, and again: true begins anew", async () => {
    const visit = await openIndex(site);
    const { refused, again, list, removed } = await visit.evaluate(async () => {
      await (await SiglipIndex.open(classifier, { name: "models" })).close();
      const other = await SiglipClassifier.load("demo", { backend: "cpu", dtype: "q8" });
      const refused = await outcome(() => SiglipIndex.open(other, { name: "models" }));
      const index = await SiglipIndex.open(other, { name: "models", again: true });
      const again = index.info.dtype;
      await index.close();
      await other.dispose();
      const list = await SiglipIndex.list();
      return { refused, again, list, removed: await SiglipIndex.delete("models") };
    });
    assertError(refused, "bad-input", /made by demo \(f32\).*this model is demo \(q8\).*again: true/);
    assert.equal(again, "q8");
    assert.deepEqual(list.map(({ dtype }) => dtype), ["q8"]);
    assert.ok(removed >= 0);
    await visit.close();
  });

  test("where storage is refused or full, the index stays in memory and says so", async () => {
    const refused = await openIndex(site, "refused");
    const { info, added, found } = await refused.evaluate(async () => {
      const index = await SiglipIndex.open(classifier);
      const { added } = await index.add(await samples());
      const found = (await index.search("a truck"))[0].id;
      const { info } = index;
      await index.close();
      return { info, added, found };
    });
    assert.deepEqual([info.kept, added, found], [false, 8, "truck.png"]);
    assert.match(info.keptReason, /storage can't be used.*in memory.*export/);
    await refused.close();
    const full = await openIndex(site, "full");
    const result = await full.evaluate(async () => {
      const index = await SiglipIndex.open(classifier, { name: "full" });
      const { added } = await index.add(await samples());
      const hits = await index.search("a truck");
      const { info, size } = index;
      await index.close();
      await SiglipIndex.delete("full");
      return { info, added, size, hits };
    });
    assert.deepEqual([result.info.kept, result.added, result.size, result.hits[0].id, result.hits.length], [false, 8, 8, "truck.png", 8]);
    assert.match(result.info.keptReason, /full/);
    await full.close();
  });
});

/**
 * A page with the library and `classifier`, the demo model. `storage`: "refused", or "full" after a few writes.
 */
async function openIndex(site, storage = "") {
  const page = await importLibrary(await site.page(), site.library);
  await page.evaluate(async ([address, samples, storage]) => {
    const { SiglipIndex } = await import(address);
    const classifier = await SiglipClassifier.load("demo", { backend: "cpu" });
    if (storage) {
      // What the browser would do is done in the index's worker, before its own script.
      const script = storage === "refused"
        ? `navigator.storage.getDirectory = async () => { throw new DOMException("Not here.", "SecurityError"); };`
        : `let left = 9; const { write } = FileSystemSyncAccessHandle.prototype;
           FileSystemSyncAccessHandle.prototype.write = function (...given) { if (left-- <= 0) throw new DOMException("No room.", "QuotaExceededError"); return write.apply(this, given); };`;
      const { Worker } = window;
      window.Worker = class extends Worker {
        constructor(url, options) {
          const blob = (text) => URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
          super(blob([script && blob(script), new URL(url, location.href).href].map((address) => `import ${JSON.stringify(address)};`).join("")), options);
        }
      };
    }
    Object.assign(window, {
      SiglipIndex,
      classifier,
      samples: () => Promise.all(samples.map(async (name) => ({ id: `${name}.png`, image: await (await fetch(`/samples/${name}.png`)).blob() }))),
      /** What a promise gave, if it has given anything when all that was under way is done. */
      now: (promise) => {
        const { port1, port2 } = new MessageChannel();
        const later = new Promise((resolve) => { port1.onmessage = () => resolve({ code: "still waiting", message: "" }); });
        port2.postMessage(0);
        return Promise.race([promise, later]);
      },
      runs: async () => (await classifier[Symbol.for("siglip-web.stats")]()).imageRuns,
      drawing: (number) => new ImageData(Uint8ClampedArray.from({ length: 8 * 8 * 4 }, (_, i) => (i % 4 === 3 ? 255 : (number * 37 + i * (number % 11)) % 256)), 8, 8),
    });
  }, [`${site.origin}/lib/siglip-index.js`, SAMPLES, storage]);
  return page;
}
