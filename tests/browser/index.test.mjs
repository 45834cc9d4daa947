// siglip-index.js as a page uses it, on the demo model.
import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import { assertError, importLibrary, openSite, test } from "./harness.mjs";

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
      return outcomes;
    });
    const closed = outcomes.pop();
    for (const each of outcomes) assertError(each, "bad-input");
    assertError(closed, "disposed");
  });

  test("what export writes, import reads, and an index of another model is refused", async () => {
    const { count, same, refused } = await page.evaluate(async () => {
      const [index, other] = [await SiglipIndex.open(classifier, { memory: true }), await SiglipIndex.open(classifier, { memory: true })];
      await index.add(await samples());
      const file = await index.export();
      const count = await other.import(file);
      const same = JSON.stringify(await index.search("a penguin")) === JSON.stringify(await other.search("a penguin"));
      const text = (await file.text()).replace(classifier.info.fingerprint, "0".repeat(classifier.info.fingerprint.length));
      const refused = await outcome(() => other.import(new Blob([text])));
      await index.close();
      await other.close();
      return { count, same, refused };
    });
    assert.equal(count, 8);
    assert.ok(same);
    assertError(refused, "bad-input");
  });

  async function openIndex() {
    const page = await importLibrary(await site.page(), site.library);
    await page.evaluate(async ([address, samples]) => {
      const { SiglipIndex } = await import(address);
      const classifier = await SiglipClassifier.load("demo", { backend: "cpu" });
      Object.assign(window, {
        SiglipIndex,
        classifier,
        samples: () => Promise.all(samples.map(async (name) => ({ id: `${name}.png`, image: await (await fetch(`/samples/${name}.png`)).blob() }))),
        runs: async () => (await classifier[Symbol.for("siglip-web.stats")]()).imageRuns,
      });
    }, [`${site.origin}/lib/siglip-index.js`, SAMPLES]);
    return page;
  }
});
