// NaFlex models, which see pictures in their own shape: with the real engine on a small fixture, beside what transformers computes.
import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { after, before, describe } from "node:test";
import { assertError, importLibrary, openSite, test } from "./harness.mjs";

const FOLDER = new URL("../fixtures/model/naflex/", import.meta.url);
const overlay = Object.fromEntries((await readdir(FOLDER)).map((file) => [`/naflex/${file}`, new URL(file, FOLDER)]));
const golden = JSON.parse(await readFile(new URL("classify.json", FOLDER), "utf8"));

describe("NaFlex", { timeout: 600_000 }, () => {
  let page;
  const close = [];
  before(async () => {
    const site = await openSite({ after: (hook) => close.push(hook) }, { overlay });
    page = await importLibrary(await site.page(), site.library);
  });
  after(async () => {
    for (const hook of close) await hook();
  });

  test("pictures from 1:10 to 10:1 have the logits of transformers, alone and together", async () => {
    for (const { patches, shapes, logits } of golden.results) {
      const { info, alone, together, map } = await page.evaluate(async ({ labels, pictures, patches, first }) => {
        const classifier = await SiglipClassifier.load("/naflex/", { backend: "cpu", dtype: "f32", ...(!first && { maxPatches: patches }) });
        const addresses = pictures.map((name) => `/naflex/${name}`);
        const inOrder = (results) => labels.map((label) => results.find((result) => result.label === label).logit);
        const alone = [];
        for (const address of addresses) alone.push(inOrder(await classifier.classify(address, labels)));
        const together = [];
        for await (const { results } of classifier.classifyMany(addresses, labels)) together.push(inOrder(results));
        const { rows, columns, values } = await classifier.explain(addresses[0], labels[0]);
        const { info } = classifier;
        await classifier.dispose();
        return { info, alone, together, map: [rows, columns, values.length] };
      }, { ...golden, patches, first: patches === golden.results[0].patches });
      assert.deepEqual([info.naflex, info.maxPatches, info.patchSize, info.imageSize], [true, patches, 8, 32]);
      for (const [i, expected] of logits.entries()) {
        for (const [j, logit] of expected.entries()) assert.ok(Math.abs(alone[i][j] - logit) < 1e-3, `${golden.pictures[i]}: ${alone[i]}, transformers has ${expected}`);
      }
      assert.deepEqual(together, alone);
      assert.deepEqual(map, [...shapes[0], shapes[0][0] * shapes[0][1]]);
    }
  });

  test("a number of patches that can't be is refused", async () => {
    for (const [maxPatches, message] of [[0, /whole number from 1 to 1024/], ["many", /whole number from 1 to 1024/], [1025, /maxPatches is 1025; a picture may have 1 to 1024/]]) {
      assertError(await page.evaluate((maxPatches) => outcome(() => SiglipClassifier.load("/naflex/", { backend: "cpu", maxPatches })), maxPatches), "bad-input", message);
    }
    assertError(await page.evaluate(() => outcome(() => SiglipClassifier.load("demo", { backend: "cpu", maxPatches: 64 }))), "bad-input", /maxPatches is for NaFlex models/);
  });
});
