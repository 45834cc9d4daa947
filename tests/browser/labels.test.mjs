// Labels that are embedded once, and many pictures: as a page uses them, with the real engine on the tiny fixture.
import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { after, before, describe, test as inNode } from "node:test";
import { checkLabels, checkTemplate } from "../../www/lib/client/arguments.js";
import { fits, percent, sigmoid } from "../../www/lib/client/scores.js";
import { assertError, importLibrary, openSite, test } from "./harness.mjs";

const rules = JSON.parse(await readFile(new URL("../rules.json", import.meta.url), "utf8"));

describe("what labels and templates may be", () => {
  const expand = (text) => (typeof text === "string" ? text : text.repeat.repeat(text.times));
  for (const [kind, check] of [["labels", checkLabels], ["templates", checkTemplate]]) {
    inNode(`${kind} are judged as the engine judges them`, () => {
      for (const { texts, error } of rules[kind]) {
        const given = texts.map(expand);
        if (error === null) check(given);
        else assert.throws(() => check(given), (thrown) => thrown.code === "bad-input" && thrown.message.includes(error), `${JSON.stringify(texts)} says ${error}`);
      }
    });
  }

  inNode("half a character is no label: the engine would give another one back", () => {
    assert.throws(() => checkLabels(["a cat", "a \ud83d"]), { code: "bad-input", message: /label 2 of 2 .*lone surrogate/ });
    checkLabels(["a 😀"]);
  });
});

describe("what a score means", () => {
  inNode("the published score of a right caption fits, those of wrong ones don't", () => {
    // google/siglip-base-patch16-224 on COCO 000000039769: "a photo of 2 cats" and "a photo of 2 dogs".
    assert.deepEqual([-0.7567, -10.3354].map((logit) => fits(sigmoid(logit))), ["yes", "no"]);
    assert.equal(fits(0.05), "maybe");
  });

  inNode("percentages are short, and never 0 or 100 for what isn't", () => {
    assert.deepEqual([0.9312, 0.00021, 1e-9, 0.99999, 1, 0.0312].map(percent), ["93.1%", "0.02%", "<0.01%", "99.9%", "100.0%", "3.1%"]);
  });
});

/** A fixture's files, by where the page finds them. */
async function fixture(name) {
  const folder = new URL(`../fixtures/model/${name}/`, import.meta.url);
  return Object.fromEntries((await readdir(folder)).map((file) => [`/${name}/${file}`, new URL(file, folder)]));
}

describe("label sets and many pictures", { timeout: 600_000 }, () => {
  let page;
  const close = [];
  before(async () => {
    const site = await openSite({ after: (hook) => close.push(hook) }, { overlay: { ...await fixture("tiny"), ...await fixture("odd"), "/picture.png": new URL("../fixtures/model/picture.png", import.meta.url) } });
    page = await importLibrary(await site.page(), site.library);
    await page.evaluate(async () => {
      window.tiny = await SiglipClassifier.load("/tiny/", { backend: "cpu" });
      window.runs = (classifier) => classifier[Symbol.for("siglip-web.stats")]();
      window.pixels = (seed) => new ImageData(Uint8ClampedArray.from({ length: 4 * 30 * 20 }, (_, i) => (i % 4 === 3 ? 255 : (i * seed * 7919) % 251)), 30, 20);
      window.gather = async (items) => {
        const list = [];
        for await (const { index, results, error, embedding } of items) list.push({ index, results, code: error?.code, message: error?.message, size: embedding?.length });
        return list;
      };
    });
  });
  after(async () => {
    for (const hook of close) await hook();
  });

  test("a set gives the scores of its labels without the text tower, also as JSON and as a clone", async () => {
    const { expected, got, before, after, json } = await page.evaluate(async () => {
      const labels = ["a cat", "two dogs", "the sky"];
      const template = ["a photo of {}.", "{}"];
      const expected = await tiny.classify("/picture.png", labels, { template });
      const set = await tiny.embedLabels(labels, { template });
      const other = await SiglipClassifier.load("/tiny/", { backend: "cpu" });
      const before = await runs(other);
      const forms = [set, structuredClone(set), JSON.parse(JSON.stringify(set))];
      const got = [];
      for (const form of forms) got.push(await other.classify("/picture.png", form));
      const after = await runs(other);
      await other.dispose();
      return { expected, got, before, after, json: JSON.stringify(set) };
    });
    for (const results of got) assert.deepEqual(results, expected);
    assert.equal(after.textRuns, before.textRuns);
    assert.deepEqual(Object.keys(JSON.parse(json)), ["model", "labels", "templates", "embeddings"]);
  });

  test("a set of another model, a damaged one, and one with a template are refused by name", async () => {
    const errors = await page.evaluate(async () => {
      const set = await tiny.embedLabels(["a cat", "a dog"]);
      const odd = await SiglipClassifier.load("/odd/", { backend: "cpu" });
      const half = Float32Array.from(set.embeddings, (value) => value / 2);
      const errors = [];
      for (const [classifier, labels, options] of [
        [odd, set], [tiny, { ...set, embeddings: set.embeddings.slice(1) }], [tiny, { ...set, embeddings: half }], [tiny, { ...set, embeddings: "no base64!" }],
        [tiny, { ...set, labels: ["a cat", "a cat"] }], [tiny, set, { template: "a drawing of {}" }], [tiny, {}], [tiny, null],
      ]) errors.push(await outcome(() => classifier.classify("/picture.png", labels, options)));
      await odd.dispose();
      return errors;
    });
    for (const [i, words] of [/another model.*embedLabels/, /128 numbers/, /length 0.5/, /not base64/, /"a cat"/, /Leave the template out/, /array of strings/, /array of strings/].entries()) {
      assert.equal(errors[i].code, "bad-input", JSON.stringify(errors[i]));
      assert.match(errors[i].message, words);
    }
  });

  test("many labels in many templates cost the text tower once, tell how far they are, and go on where they were stopped", async () => {
    const { told, first, again, stopped, rest, whole } = await page.evaluate(async () => {
      const labels = Array.from({ length: 60 }, (_, i) => `thing ${i}`);
      const template = ["a photo of {}.", "a drawing of {}.", "{}"];
      const classifier = await SiglipClassifier.load("/tiny/", { backend: "cpu" });
      const count = async () => (await runs(classifier)).textRuns;
      const stop = new AbortController();
      const half = await outcome(() => classifier.embedLabels(labels, { template, signal: stop.signal, onProgress: ({ loaded }) => loaded >= 20 && stop.abort() }));
      const told = [];
      await classifier.embedImage("/picture.png"); // its turn comes when what was stopped has really ended
      const start = await count();
      await classifier.embedLabels(labels, { template, onProgress: (event) => told.push(event) });
      const first = await count();
      await classifier.classify("/picture.png", labels, { template });
      const again = await count();
      await classifier.dispose();
      const fresh = await SiglipClassifier.load("/tiny/", { backend: "cpu" });
      await fresh.embedLabels(labels, { template });
      const whole = (await runs(fresh)).textRuns;
      await fresh.dispose();
      return { told, first, again, stopped: half.code, rest: first - start, whole };
    });
    assert.equal(stopped, "aborted");
    assert.ok(told[0].loaded >= 20 && told.at(-1).loaded === 60 && told.every(({ stage, total }) => stage === "labels" && total === 60), JSON.stringify(told));
    assert.ok(rest < whole, `${rest} runs for the rest, ${whole} for all`);
    assert.equal(again, first);
  });

  test("classify tells when the picture is done, then of the labels", async () => {
    const told = await page.evaluate(async () => {
      const told = [];
      await tiny.classify(pixels(77), Array.from({ length: 40 }, (_, i) => `new thing ${i}`), { onProgress: (event) => told.push(event) });
      return told;
    });
    assert.deepEqual(told[0], { stage: "images", loaded: 1, total: 1 });
    assert.ok(told.length > 3 && told.slice(1).every(({ stage, total }) => stage === "labels" && total === 40));
    assert.equal(told.at(-1).loaded, 40);
  });

  test("many pictures, from any iterable: each one's results or error in order, as alone", async () => {
    const { list, alone, told, held } = await page.evaluate(async () => {
      let given = 0;
      let done = 0;
      let held = 0;
      async function* pictures() {
        for (let i = 0; i < 30; i++) {
          given++;
          held = Math.max(held, given - done);
          yield i === 3 ? new Blob(["no picture"]) : i === 12 ? 5 : i === 20 ? "/none.png" : pixels(i + 1);
        }
      }
      const told = [];
      const list = [];
      for await (const { index, results, error } of tiny.classifyMany(pictures(), ["a cat", "the sky"], { topK: 1, onProgress: (event) => told.push(event) })) {
        done++;
        list.push({ index, results, code: error?.code });
      }
      return { list, told, held, alone: await tiny.classify(pixels(30), ["a cat", "the sky"], { topK: 1 }) };
    });
    assert.deepEqual(list.map(({ index }) => index), Array.from({ length: 30 }, (_, i) => i));
    assert.deepEqual(list.filter(({ code }) => code).map(({ index, code }) => [index, code]), [[3, "bad-image"], [12, "bad-input"], [20, "network"]]);
    assert.equal(list[29].results[0].label, alone[0].label);
    assert.ok(Math.abs(list[29].results[0].logit - alone[0].logit) < 1e-4);
    assert.ok(held <= 24, `${held} pictures were held at a time`);
    assert.deepEqual(told.filter(({ stage }) => stage === "images").map(({ loaded }) => loaded), Array.from({ length: 30 }, (_, i) => i + 1));
  });

  test("what concerns all pictures ends it: labels that are none, an abort, even while waiting for a picture, a break", async () => {
    const { labels, text, stopped, broken, embedded } = await page.evaluate(async () => {
      const stop = new AbortController();
      async function* never() {
        yield pixels(1);
        await new Promise(() => {});
      }
      let closed = false;
      function* closing() {
        try {
          for (let i = 0; ; i++) yield pixels(i + 1);
        } finally {
          closed = true;
        }
      }
      const stopped = outcome(() => gather(tiny.classifyMany(never(), ["a cat"], { signal: stop.signal })));
      const labels = await outcome(() => gather(tiny.classifyMany([pixels(1)], ["?!"])));
      stop.abort();
      const text = await outcome(() => gather(tiny.embedMany("cat.png")));
      for await (const { index } of tiny.embedMany(closing())) if (index === 2) break;
      return { labels, text, stopped: await stopped, broken: closed, embedded: await gather(tiny.embedMany(new Set([pixels(5), new Blob(["x"])]))) };
    });
    assert.equal(labels.code, "bad-input");
    assert.match(labels.message, /"\?!"/);
    assert.equal(text.code, "bad-input");
    assert.equal(stopped.code, "aborted");
    assert.equal(broken, true);
    assert.deepEqual(embedded.map(({ size, code }) => size ?? code), [64, "bad-image"]);
  });

  test("similarity is what classify gives; what is no embedding is refused", async () => {
    const { result, similarity, error } = await page.evaluate(async () => {
      const [result] = await tiny.classify("/picture.png", ["a cat"], { template: "{}" });
      const [image, [text]] = [await tiny.embedImage("/picture.png"), await tiny.embedText(["a cat"])];
      return { result, similarity: tiny.similarity(image, text), error: await outcome(() => tiny.similarity(image, text.slice(1))) };
    });
    assert.ok(Math.abs(similarity.logit - result.logit) < 1e-4 && Math.abs(similarity.score - result.score) < 1e-5);
    assert.equal(error.code, "bad-input");
    assert.match(error.message, /63 numbers.*of 64/);
  });

  test("a tokenizer of another form is read by the tokenizers crate, whose module is fetched for it alone", async (t) => {
    const tokenizer = JSON.parse(await readFile(new URL("../fixtures/model/tiny/tokenizer.json", import.meta.url), "utf8"));
    tokenizer.normalizer.normalizers.unshift({ type: "NFKC" });
    const folder = async (name, json) => Object.entries(await fixture("tiny")).map(([path, file]) => [path.replace("/tiny/", `/${name}/`), path.endsWith("/tokenizer.json") ? JSON.stringify(json) : file]);
    const unknown = structuredClone(tokenizer);
    unknown.normalizer.normalizers.push({ type: "Shuffle" });
    const site = await openSite(t, { overlay: Object.fromEntries([...Object.entries(await fixture("tiny")), ...await folder("wide", tokenizer), ...await folder("unknown", unknown)]) });
    const page = await importLibrary(await site.page(), site.library);
    const embed = (model, labels) => page.evaluate(async ([model, labels]) => {
      try {
        const classifier = await SiglipClassifier.load(model, { backend: "cpu", cache: false });
        const embeddings = await classifier.embedText(labels);
        await classifier.dispose();
        return embeddings.map((numbers) => [...numbers]);
      } catch ({ code, message }) {
        return { code, message };
      }
    }, [model, labels]);
    const fetched = () => site.requests.some((path) => path.includes("siglip_web_tokenizers_bg.wasm"));

    const [plain, raw] = await embed("/tiny/", ["a cat 12", "\u{ff41} \u{ff43}\u{ff41}\u{ff54} \u{ff11}\u{ff12}"]);
    assert.equal(fetched(), false);
    const [same, wide] = await embed("/wide/", ["a cat 12", "\u{ff41} \u{ff43}\u{ff41}\u{ff54} \u{ff11}\u{ff12}"]);
    assert.equal(fetched(), true);
    assert.deepEqual(same, plain);
    assert.deepEqual(wide, plain, "NFKC makes plain letters of wide ones");
    assert.notDeepEqual(raw, plain);

    const wrong = await embed("/unknown/", ["a cat"]);
    assert.equal(wrong.code, "bad-model");
    assert.match(wrong.message, /tokenizer\.json.*Shuffle/s);
    site.overlay["/lib/pkg/siglip_web_tokenizers.js"] = { status: 404 };
    const missing = await embed("/wide/", ["a cat"]);
    assert.equal(missing.code, "network");
    assert.match(missing.message, /siglip_web_tokenizers\.js/);
  });

  test("a video is watched: its newest frame, with the labels of the moment, until it is enough", async () => {
    const seen = await page.evaluate(async () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 40, height: 30 });
      const context = canvas.getContext("2d");
      const paint = (colour) => { context.fillStyle = colour; context.fillRect(0, 0, 40, 30); };
      paint("white");
      const video = Object.assign(document.createElement("video"), { srcObject: canvas.captureStream(), muted: true });
      let colour = "white";
      const painting = setInterval(() => paint(colour), 20); // a stream has a frame for each change
      await video.play();
      let labels = ["a cat", "a dog"];
      const stop = new AbortController();
      const seen = [];
      await tiny.watch(video, () => labels, {
        signal: stop.signal,
        onResult(results, { framesPerSecond, time }) {
          seen.push({ labels: results.map(({ label }) => label).sort(), logit: results.find(({ label }) => label === "a cat").logit, framesPerSecond, time });
          if (seen.length === 3) labels = ["a cat", "the sky", "a house"];
          if (seen.length === 6) colour = "navy";
          if (seen.length === 30) stop.abort();
          if (seen.length === 5) throw new Error("a listener's own mistake");
        },
      });
      clearInterval(painting);
      return seen;
    });
    assert.equal(seen.length, 30);
    assert.deepEqual(seen[2].labels, ["a cat", "a dog"]);
    assert.deepEqual(seen[29].labels, ["a cat", "a house", "the sky"]);
    assert.notEqual(seen[29].logit, seen[2].logit, "the last frame is blue");
    assert.ok(seen[29].framesPerSecond > 0);
    const wrong = await page.evaluate(async () => [
      await outcome(() => tiny.watch(document.body, ["a cat"], { onResult() {} })),
      await outcome(() => tiny.watch(document.createElement("video"), ["a cat"], {})),
      await outcome(() => tiny.watch(document.createElement("video"), ["a cat"], { onResult() {}, every: 2 })),
      await outcome(() => tiny.watch(document.createElement("video"), ["a cat"], { onResult() {}, template: "no place" })),
    ]);
    assert.deepEqual(wrong.map(({ code }) => code), ["bad-input", "bad-input", "bad-input", "bad-input"]);
    // A LabelSet has its templates, for a video as for a picture.
    const twice = await page.evaluate(async () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 40, height: 30 });
      const context = canvas.getContext("2d");
      context.fillRect(0, 0, 40, 30);
      const video = Object.assign(document.createElement("video"), { srcObject: canvas.captureStream(), muted: true });
      const painting = setInterval(() => { context.fillStyle = context.fillStyle === "#000000" ? "white" : "black"; context.fillRect(0, 0, 40, 30); }, 20);
      await video.play();
      const set = await tiny.embedLabels(["a cat"]);
      const told = [
        await outcome(() => tiny.watch(video, set, { onResult() {}, template: "a drawing of {}" })),
        await outcome(() => tiny.classify(video, set, { template: "a drawing of {}" })),
      ];
      clearInterval(painting);
      return told;
    });
    for (const one of twice) assertError(one, "bad-input", /LabelSet were put into .*Leave the template out/);
    // A video that has ended before is no reason to wait.
    await page.evaluate(() => tiny.watch(document.createElement("video"), ["a cat"], { onResult() {}, signal: AbortSignal.abort() }));
  });

  test("what moved a label's logit is what transformers' own head says, place by place", async () => {
    const expected = JSON.parse(await readFile(new URL("../fixtures/model/tiny/explain.json", import.meta.url), "utf8"));
    const [map, single, wrong] = await page.evaluate(async (label) => {
      const { rows, columns, values } = await tiny.explain("/picture.png", label);
      const before = (await runs(tiny)).imageRuns;
      await tiny.explain("/picture.png", "another label");
      return [
        { rows, columns, values: [...values], again: (await runs(tiny)).imageRuns - before },
        [...(await tiny.explain("/picture.png", label, { template: "This is a photo of {}." })).values],
        [await outcome(() => tiny.explain("/picture.png", " ")), await outcome(() => tiny.explain("/picture.png", label, { topK: 1 })), await outcome(() => tiny.explain(new Uint8Array(9), label))],
      ];
    }, expected.label);
    assert.equal(map.again, 0, "the encoder needn't run again");
    assert.deepEqual([map.rows, map.columns], [expected.rows, expected.columns]);
    map.values.forEach((value, i) => assert.ok(Math.abs(value - expected.values[i]) <= 1e-3, `${i}: ${value}, not ${expected.values[i]}`));
    assert.deepEqual(single, map.values);
    assert.deepEqual(wrong.map(({ code }) => code), ["bad-input", "bad-input", "bad-image"]);
  });
});
