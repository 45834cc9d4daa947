// Fine-tuned models, which know their own labels: in a page's script, in the tag and on the page, with the real engine on small fixtures.
import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { after, before, describe } from "node:test";
import { fits } from "../../www/lib/client/scores.js";
import { importLibrary, openSite, test } from "./harness.mjs";

const PATIENCE = 60_000;
const PICTURE = new URL("../fixtures/model/picture.png", import.meta.url);

/** A fixture's files, by where the page finds them, and its golden. */
async function fixture(name) {
  const folder = new URL(`../fixtures/model/${name}/`, import.meta.url);
  const files = Object.fromEntries((await readdir(folder)).map((file) => [`/${name}/${file}`, new URL(file, folder)]));
  return { files, golden: JSON.parse(await readFile(new URL("classify.json", folder), "utf8")) };
}

const [single, one, multi, naflex, tiny] = await Promise.all(["classifier-single", "classifier-one", "classifier-multi", "classifier-naflex", "tiny"].map(fixture));

/** What a fixture's model must answer, best first. */
function expected({ labels, logits, scores }) {
  return labels.map((label, i) => ({ label, logit: logits[i], score: scores[i] })).sort((a, b) => b.logit - a.logit);
}

function assertClose(got, golden) {
  const wanted = expected(golden);
  assert.deepEqual(got.map(({ label }) => label), wanted.map(({ label }) => label));
  for (const [i, { label, logit, score }] of wanted.entries()) {
    assert.ok(Math.abs(got[i].logit - logit) < 1e-4 && Math.abs(got[i].score - score) < 1e-4, `${label}: ${JSON.stringify(got[i])}, transformers has ${logit} and ${score}`);
  }
}

describe("fine-tuned models", { timeout: 600_000 }, () => {
  let site;
  const close = [];
  before(async () => {
    site = await openSite({ after: (hook) => close.push(hook) }, { overlay: { ...single.files, ...one.files, ...multi.files, ...naflex.files, ...tiny.files, "/picture.png": PICTURE } });
  });
  after(async () => {
    for (const hook of close) await hook();
  });

  describe("in a script", () => {
    let page;
    before(async () => {
      page = await importLibrary(await site.page(), site.library);
    });

    test("classify without labels gives what transformers' pipeline gives, and no tokenizer is asked for", async () => {
      site.requests.length = 0;
      for (const [name, { golden }] of Object.entries({ "classifier-single": single, "classifier-one": one, "classifier-multi": multi, "classifier-naflex": naflex })) {
        const { results, info, best, again, runs } = await page.evaluate(async (name) => {
          const classifier = await SiglipClassifier.load(`/${name}/`, { backend: "cpu" });
          const results = await classifier.classify("/picture.png");
          const best = await classifier.classify("/picture.png", null, { topK: 1, scores: "sigmoid" });
          const again = [];
          for await (const item of classifier.classifyMany(["/picture.png", new Blob(["no picture"]), "/picture.png"])) again.push(item.results ?? item.error.code);
          const runs = await classifier[Symbol.for("siglip-web.stats")]();
          const { info } = classifier;
          await classifier.dispose();
          return { results, info, best, again, runs };
        }, name);
        assertClose(results, golden);
        assert.deepEqual([info.task, info.labels], ["image-classification", golden.labels]);
        assert.equal(info.scores, ["classifier-single", "classifier-naflex"].includes(name) ? "softmax" : "sigmoid");
        assert.equal(best.length, 1);
        assert.ok(Math.abs(best[0].score - 1 / (1 + Math.exp(-best[0].logit))) < 1e-6);
        assert.deepEqual(again, [results, "bad-image", results]);
        assert.deepEqual([runs.imageRuns, runs.textRuns], [1, 0]);
      }
      assert.deepEqual(site.requests.filter((path) => /\/classifier-.*(token|spiece)/.test(path)), []);
    });

    test("words and embeddings are refused, and so are no labels by a model without its own", async () => {
      const { refused, templates, none } = await page.evaluate(async () => {
        const classifier = await SiglipClassifier.load("/classifier-single/", { backend: "cpu" });
        const two = new Float32Array(2);
        const many = async (items) => { for await (const item of items) if (item.error) throw item.error; };
        const refused = [];
        for (const ask of [
          () => classifier.classify("/picture.png", ["a cat"]), () => classifier.classify("/picture.png", []), () => many(classifier.classifyMany(["/picture.png"], ["a cat"])),
          () => classifier.embedText(["a cat"]), () => classifier.embedLabels(["a cat"]), () => classifier.embedImage("/picture.png"), () => classifier.embedImages(["/picture.png"]),
          async () => classifier.similarity(two, two),
        ]) refused.push(await outcome(ask));
        const templates = await outcome(() => classifier.classify("/picture.png", undefined, { template: "a {}" }));
        await classifier.dispose();
        const tiny = await SiglipClassifier.load("/tiny/", { backend: "cpu" });
        const none = [await outcome(() => tiny.classify("/picture.png")), await outcome(() => many(tiny.classifyMany(["/picture.png"])))];
        await tiny.dispose();
        return { refused, templates, none };
      });
      for (const error of refused) {
        assert.equal(error.code, "unsupported", JSON.stringify(error));
        assert.match(error.message, /own \(Cat, dog, a green bird, flying\).*classify\(image\) without labels/);
      }
      for (const error of [templates, ...none]) assert.equal(error.code, "bad-input", JSON.stringify(error));
      assert.match(templates.message, /Leave the template out/);
      assert.match(none[0].message, /array of strings/);
    });

    test("a heat map is for one of the model's labels", async () => {
      const { map, error } = await page.evaluate(async () => {
        const classifier = await SiglipClassifier.load("/classifier-single/", { backend: "cpu" });
        const { rows, columns, values } = await classifier.explain("/picture.png", "Cat");
        const error = await outcome(() => classifier.explain("/picture.png", "a horse"));
        await classifier.dispose();
        return { map: { rows, columns, values: [...values] }, error };
      });
      const { values, ...size } = single.golden.explained;
      assert.deepEqual({ rows: map.rows, columns: map.columns }, size);
      for (const [i, value] of values.entries()) assert.ok(Math.abs(map.values[i] - value) < 1e-4);
      assert.equal(error.code, "bad-input");
      assert.match(error.message, /"a horse"/);
    });
  });

  test("the tag shows the model's labels where it has none", { timeout: PATIENCE * 2 }, async () => {
    const page = await site.page();
    await page.evaluate(async (address) => {
      await import(address);
      document.body.innerHTML = '<siglip-classifier model="/classifier-single/" backend="cpu" src="/picture.png"></siglip-classifier>';
    }, site.library.replace("siglip-web.js", "siglip-classifier.js"));
    await page.getByRole("list", { name: "Results" }).getByRole("listitem").nth(2).waitFor({ timeout: PATIENCE });
    const [best] = expected(single.golden);
    const texts = await page.getByRole("listitem").allTextContents();
    assert.deepEqual(texts, expected(single.golden).map(({ label, score }) => `${label} ${(100 * score).toFixed(1)}%`));
    assert.equal(fits(best.score, true), "maybe");
    assert.equal(await page.getByRole("status").textContent(), `Perhaps: ${best.label}, ${(100 * best.score).toFixed(1)}%.`);
    await page.evaluate(() => { document.querySelector("siglip-classifier").labels = ["a cat"]; });
    await page.getByRole("status").filter({ hasText: /fine-tuned for labels of its own/ }).waitFor({ timeout: PATIENCE });
  });

  test("the page shows them in place of the box, which comes back with another model", { timeout: PATIENCE * 3 }, async () => {
    const page = await site.page("/");
    const labels = page.getByRole("textbox", { name: "Labels" });
    const results = page.getByRole("list", { name: "Results" }).getByRole("listitem");
    await labels.fill("a house, a tree");
    const choose = async (name) => {
      await page.getByRole("combobox", { name: "Model" }).selectOption("other");
      await page.getByRole("dialog", { name: "Choose a model" }).getByRole("textbox").fill(name);
      await page.keyboard.press("Enter");
    };
    await choose(`${site.origin}/classifier-single/`);
    await page.getByText("This model was fine-tuned for these 3 labels of its own and takes no others.").waitFor({ timeout: PATIENCE });
    assert.equal(await labels.inputValue(), single.golden.labels.join("\n"));
    assert.equal(await labels.isEditable(), false);
    await page.getByLabel("Image", { exact: true }).setInputFiles({ name: "mine.png", mimeType: "image/png", buffer: await readFile(PICTURE) });
    const [best] = expected(single.golden);
    await page.getByRole("status").filter({ hasText: new RegExp(`Perhaps “${best.label}”, at ${(100 * best.score).toFixed(1)}%`) }).waitFor({ timeout: PATIENCE });
    assert.equal(await results.count(), 3);
    assert.equal(await page.getByRole("checkbox", { name: /Make one label win/ }).isVisible(), false);
    await page.getByText("3 labels of its own").last().waitFor();

    // A label may be there twice.
    await choose(`${site.origin}/classifier-multi/`);
    await page.getByText("This model was fine-tuned for these 8 labels of its own and takes no others.").waitFor({ timeout: PATIENCE });
    await page.getByRole("status").filter({ hasText: /labels fit; the best is “round”/ }).waitFor({ timeout: PATIENCE });
    assert.equal(await results.count(), 8);

    await page.getByRole("combobox", { name: "Model" }).selectOption("demo");
    await page.getByRole("listitem").filter({ hasText: "a house" }).waitFor({ timeout: PATIENCE });
    assert.deepEqual([await labels.inputValue(), await labels.isEditable()], ["a house, a tree", true]);
    assert.equal(await results.count(), 2);
  });
});
