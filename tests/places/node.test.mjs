// The library in Node.js: the demo model from its folder and over HTTP, in a worker and on the calling thread.
import assert from "node:assert/strict";
import { copyFile, mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import threads from "node:worker_threads";
import { serve } from "../../tools/serve.mjs";
import { place } from "./harness.mjs";
import { library } from "./prepare.mjs";

const { SiglipClassifier, SiglipError } = await import("siglip-web");
const { SiglipIndex } = await import("siglip-web/siglip-index");

const picture = new URL("../../www/samples/ladybug.png", import.meta.url);
const LABELS = /** @type {const} */ (["a ladybug", "a teapot"]);

describe("Node.js", { timeout: 600_000 }, () => {
  let server;
  before(async () => { server = await serve(join(library, "models")); });
  after(() => server.close());

  place({ group: "Other places", place: "Node.js", how: "a model by name, path and address; in a worker and on the calling thread" }, async () => {
    const answers = [];
    for (const [model, image, worker] of [
      ["demo", picture.href, true],
      [join(library, "models", "demo"), await readFile(picture), false],
      [`${server.url}demo/`, fileURLToPath(picture).replace(process.cwd(), "."), true],
    ]) {
      const classifier = await SiglipClassifier.load(model, { worker, onProgress() {} });
      assert.equal(classifier.info.backend, "cpu");
      assert.match(classifier.info.backendReason, /Node\.js/);
      answers.push(await classifier.classify(image, LABELS));
      await classifier.dispose();
    }
    assert.equal(answers[0][0].label, "a ladybug");
    assert.deepEqual(answers[1], answers[0]);
    assert.deepEqual(answers[2], answers[0]);
    return { worker: true };
  });

  test("a path is a path, whatever characters it holds", async () => {
    const folder = await mkdtemp(join(tmpdir(), "siglip-web-"));
    const before = process.cwd();
    try {
      process.chdir(folder);
      const names = ["cat #2.png", "why?.png", "a%20b.png", "50% off.png", "C:\\photos\\cat.png"];
      for (const name of names) await copyFile(picture, name);
      await symlink(join(library, "models", "demo"), "my model #2?");
      const classifier = await SiglipClassifier.load("./my model #2?", { worker: false });
      assert.equal(classifier.info.name, "my model #2?");
      for (const name of names.flatMap((name) => [name, `./${name}`, join(folder, name)])) {
        const [{ label }] = await classifier.classify(name, LABELS);
        assert.equal(label, "a ladybug", name);
      }
      await assert.rejects(classifier.classify("nowhere?.png", LABELS), { code: "bad-input", message: /There is no picture at .*nowhere/ });
      await classifier.dispose();
    } finally {
      process.chdir(before);
      await rm(folder, { recursive: true });
    }
  });

  test("a thread that dies ends the call with an error, and the next one has a fresh model", async () => {
    let thread;
    const { Worker } = threads;
    threads.Worker = class extends Worker {
      constructor(...given) {
        super(...given);
        thread = this;
      }
    };
    try {
      const classifier = await SiglipClassifier.load("demo");
      const call = classifier.classify(picture.href, LABELS);
      await Promise.all([assert.rejects(call, { code: "device-lost", message: /crashed \(its thread ended with code 1\).*starts afresh/ }), thread.terminate()]);
      const [{ label }] = await classifier.classify(picture.href, LABELS);
      assert.equal(label, "a ladybug");
      await classifier.dispose();
    } finally {
      threads.Worker = Worker;
    }
  });

  test("a listener's own error is reported, and stops no index", async (t) => {
    const reported = t.mock.method(console, "error", () => {});
    const classifier = await SiglipClassifier.load("demo", { worker: false });
    const index = await SiglipIndex.open(classifier, { memory: true });
    index.onchange = () => { throw new Error("the listener's own"); };
    const { added } = await index.add([{ id: "ladybug.png", image: picture }], { onProgress: index.onchange });
    assert.equal(added, 1);
    assert.equal((await index.search("a ladybug"))[0].id, "ladybug.png");
    assert.ok(reported.mock.callCount() > 1);
    assert.ok(reported.mock.calls.every(({ arguments: [error] }) => error.message === "the listener's own"));
    await index.close();
    await classifier.dispose();
  });

  test("what is missing is told as a SiglipError", async () => {
    const told = (code, message) => (error) => error instanceof SiglipError && error.code === code && message.test(error.message);
    await assert.rejects(SiglipClassifier.load("./nowhere"), told("bad-model", /config\.json is missing/));
    await assert.rejects(SiglipClassifier.load("demo", { backend: "webgpu" }), told("unsupported", /Node\.js offers no WebGPU/));
    await assert.rejects(SiglipClassifier.load("demo", { threshold: 1 }), told("bad-input", /"threshold"/));
  });
});
