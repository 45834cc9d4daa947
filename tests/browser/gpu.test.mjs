// GPUs that compute wrongly or not at all, and say nothing of it: the browser's own one with faults put into its prototypes. Whatever it does, an
// answer is right or an error.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { importLibrary, openSite } from "./harness.mjs";

const FILES = ["tokenizer.json", "tokenizer_config.json"];
const tiny = (file) => new URL(`../fixtures/model/tiny/${file}`, import.meta.url);
const json = async (file) => JSON.parse(await readFile(tiny(file), "utf8"));

/** The smallest fixture for pictures of four times as many patches: more than the 37 tokens of the check at the start. */
async function wideModel() {
  const config = await json("config.json");
  config.vision_config.image_size = 64;
  const preprocessor = await json("preprocessor_config.json");
  preprocessor.size = { height: 64, width: 64 };
  const file = await readFile(tiny("model.safetensors"));
  const start = 8 + Number(file.readBigUInt64LE(0));
  const { __metadata__, ...header } = JSON.parse(file.subarray(8, start));
  const parts = [];
  let at = 0;
  for (const [name, info] of Object.entries(header)) {
    let bytes = file.subarray(start + info.data_offsets[0], start + info.data_offsets[1]);
    if (name === "vision_model.embeddings.position_embedding.weight") {
      info.shape = [64, 64];
      bytes = Buffer.from(Float32Array.from({ length: 64 * 64 }, (_, i) => 0.2 * Math.sin(1.7 * i)).buffer);
    }
    info.data_offsets = [at, at += bytes.length];
    parts.push(bytes);
  }
  const text = JSON.stringify(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return {
    "/wide/config.json": JSON.stringify(config),
    "/wide/preprocessor_config.json": JSON.stringify(preprocessor),
    "/wide/model.safetensors": Buffer.concat([length, Buffer.from(text), ...parts]),
    ...Object.fromEntries(FILES.map((file) => [`/wide/${file}`, tiny(file)])),
  };
}

function assertError(outcome, code, message) {
  assert.equal(outcome.code, code, JSON.stringify(outcome));
  assert.match(outcome.message, message);
  assert.ok(outcome.ours, "rejects with a SiglipError");
}

describe("GPUs with silent faults", { timeout: 600_000 }, () => {
  let site;
  /** What the CPU makes of pictures 0 to 3 and of two texts. */
  let right;
  const close = [];
  before(async () => {
    site = await openSite({ after: (hook) => close.push(hook) }, { overlay: await wideModel() });
    const page = await open();
    right = await page.evaluate(async () => {
      const classifier = await load("cpu");
      const answers = [];
      for (let i = 0; i < 4; i++) answers.push(await embed(classifier, i));
      await classifier.dispose();
      return answers;
    });
    await page.close();
  });
  after(async () => {
    for (const hook of close.reverse()) await hook();
  });

  /** A page whose GPU is called Acme, so that "auto" takes it. */
  async function open() {
    const page = await importLibrary(await site.page(), site.library);
    await page.evaluate(() => {
      // The engine itself is told what it is, and takes the kernels that software runs best.
      const info = { vendor: "acme", architecture: "", device: "", description: "Acme GPU", get isFallbackAdapter() { return new Error().stack.includes("/pkg/"); } };
      Object.defineProperty(GPUAdapter.prototype, "info", { get: () => info });
      const pixels = (seed) => new ImageData(Uint8ClampedArray.from({ length: 4 * 64 * 64 }, (_, i) => (i % 4 === 3 ? 255 : ((i >> 2) * (7919 + 1000 * seed) * (i % 4 + 1)) % 251)), 64, 64);
      Object.assign(window, {
        load: (backend, dtype = "f32") => SiglipClassifier.load("/wide/", { backend, dtype, worker: false, cache: false }),
        embed: async (classifier, seed) => [...await classifier.embedImage(pixels(seed))],
        /** Puts `fault` in the place of a method: called with how often that was called before, it says whether this call does nothing. */
        drop(type, method, fault) {
          const real = type.prototype[method];
          let calls = 0;
          type.prototype[method] = function (...given) {
            return fault(calls++) ? undefined : real.apply(this, given);
          };
        },
      });
    });
    return page;
  }

  /** Within `tolerance` of the CPU's. */
  function assertRight(answer, seed, tolerance = 1e-4) {
    assert.equal(answer.length, right[seed].length);
    answer.forEach((value, i) => assert.ok(Math.abs(value - right[seed][i]) <= tolerance, `picture ${seed}: ${value}, not ${right[seed][i]}`));
  }

  test("one without faults is taken, in every dtype, and its answers are the CPU's", async () => {
    const page = await open();
    for (const dtype of ["f32", "f16", "q8", "q4"]) {
      const { info, answer } = await page.evaluate(async (dtype) => {
        const classifier = await load("auto", dtype);
        const answer = await embed(classifier, 0);
        await classifier.dispose();
        return { info: classifier.info, answer };
      }, dtype);
      assert.equal(info.backend, "webgpu", info.backendReason);
      assertRight(answer, 0, { f32: 1e-4, f16: 1e-3, q8: 1e-2, q4: 1e-1 }[dtype]);
    }
    await page.close();
  });

  test("a softmax that leaves out keys beyond the 40th is found before the first answer", async () => {
    const page = await open();
    await page.evaluate(() => {
      const { createShaderModule } = GPUDevice.prototype;
      GPUDevice.prototype.createShaderModule = function (descriptor) {
        return createShaderModule.call(this, { ...descriptor, code: descriptor.code.replace("let keys = sizes.y;", "let keys = min(sizes.y, 40u);") });
      };
    });
    const { info, answer } = await page.evaluate(async () => {
      const classifier = await load("auto");
      return { info: classifier.info, answer: await embed(classifier, 0) };
    });
    assert.equal(info.backend, "cpu");
    assert.match(info.backendReason, /^The CPU is used because WebGPU on Acme GPU failed: this device computes wrongly: its attention in the vision tower's layer 0 is off by/);
    assertRight(answer, 0);
    assertError(await page.evaluate(() => outcome(() => load("webgpu"))), "device-lost", /computes wrongly: its attention/);
    await page.close();
  });

  // Each says which calls are dropped, counted from when the model is loaded.
  const faults = {
    "all submissions": () => drop(GPUQueue, "submit", () => true),
    "every submission but the first": () => drop(GPUQueue, "submit", (i) => i > 0),
    "every other submission": () => drop(GPUQueue, "submit", (i) => i % 2 === 0),
    "all that is written into buffers": () => drop(GPUQueue, "writeBuffer", () => true),
  };
  for (const [name, fault] of Object.entries(faults)) {
    test(`one that drops ${name} gives an error, not the answer before, and the CPU goes on`, async () => {
      const page = await open();
      const { backend, before } = await page.evaluate(async () => {
        window.kept = await load("auto");
        return { backend: kept.info.backend, before: [await embed(kept, 0), await embed(kept, 1)] };
      });
      assert.equal(backend, "webgpu");
      before.forEach((answer, seed) => assertRight(answer, seed));
      await page.evaluate(fault);
      assertError(await page.evaluate(() => outcome(() => embed(kept, 2))), "device-lost", /the GPU left out some of its work .*starts afresh for the next call/);
      for (const seed of [2, 3]) {
        const { value } = await page.evaluate((seed) => outcome(() => embed(kept, seed)), seed);
        assertRight(value, seed);
      }
      const info = await page.evaluate(() => kept.info);
      assert.equal(info.backend, "cpu");
      assert.match(info.backendReason, /^The CPU is used because WebGPU on Acme GPU (was lost|failed): /);
      await page.close();
    });
  }

  test("one that drops all submissions after so many is an error at whatever moment it begins", async () => {
    const page = await open();
    await page.evaluate(() => {
      window.last = Infinity;
      window.submitted = 0;
      drop(GPUQueue, "submit", () => submitted++ >= last);
    });
    /** Two answers with a queue that works `last` times. */
    const answers = (last) => page.evaluate((last) => outcome(async () => {
      Object.assign(window, { last, submitted: 0 });
      const classifier = await load("auto");
      const answers = [];
      for (const seed of [0, 1]) {
        const { value } = await outcome(() => embed(classifier, seed));
        answers.push(value ?? await embed(classifier, seed));
      }
      await classifier.dispose();
      return { answers, backend: classifier.info.backend, submitted };
    }), last);
    const whole = (await answers(Infinity)).value;
    assert.equal(whole.backend, "webgpu");
    assert.ok(whole.submitted > 45, `${whole.submitted}`);
    // While it loads, and at the answers, which come last.
    const moments = [10, 45, whole.submitted - 6, whole.submitted - 3, whole.submitted - 1];
    for (const last of moments) {
      const { value, ...error } = await answers(last);
      assert.ok(value, `${last}: ${JSON.stringify(error)}`);
      value.answers.forEach((answer, seed) => assertRight(answer, seed));
      assert.equal(value.backend, "cpu", `${last}`);
    }
    await page.close();
  });
});
