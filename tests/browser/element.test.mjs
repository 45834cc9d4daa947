// <siglip-classifier> as a visitor and a page use it.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe } from "node:test";
import { html, mockEngine, openSite, test } from "./harness.mjs";

const picture = { name: "cat.png", mimeType: "image/png", buffer: await readFile(new URL("../fixtures/model/picture.png", import.meta.url)) };
const fixture = (file) => new URL(`../fixtures/model/tiny/${file}`, import.meta.url);
const tiny = Object.fromEntries(["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"].map((file) => [`/tiny/${file}`, fixture(file)]));

/** What a page that holds the tag may be allowed at most: nothing but our own files. */
const STRICT = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; img-src 'self' blob:; style-src 'none'";

for (const engine of ["an engine that fails on command", "the real engine"]) {
  const mocked = engine !== "the real engine";
  describe(`the tag over ${engine}`, { timeout: 1_200_000 }, () => {
    let site;
    const close = [];
    before(async () => {
      site = await openSite(
        { after: (hook) => close.push(hook) },
        {
          overlay: {
            ...(mocked ? { ...mockEngine, "/tiny/config.json": "{}", "/lib/models/demo/config.json": "{}", "/never/config.json": JSON.stringify({ cpu: "never" }) } : tiny),
            // Events are kept from the first moment, by a script that a strict policy allows.
            "/listen.js": `window.heard = []; for (const type of ["siglip-result", "siglip-error", "siglip-progress"]) {
              document.addEventListener(type, (event) => heard.push({ type, code: event.detail.code, message: event.detail.message, stage: event.detail.stage, labels: Array.isArray(event.detail) ? event.detail.map((one) => one.label) : undefined }));
            }`,
          },
        },
      );
    });
    after(async () => {
      for (const hook of close) await hook();
    });

    /** A page with this body, under the strictest policy. */
    async function open(body, { origin = site.origin, policy = STRICT } = {}) {
      const tag = `<!doctype html><meta charset="utf-8"><title>A page</title><script src="${site.origin}/listen.js"></script><script type="module" src="${site.origin}/lib/siglip-classifier.js"></script>`;
      site.overlay["/tag.html"] = html(tag + body, policy ? { "Content-Security-Policy": policy } : {});
      const page = await site.page("/tag.html", { origin });
      page.problems = [];
      page.on("console", (message) => message.type() === "error" && page.problems.push(message.text()));
      page.on("pageerror", (error) => page.problems.push(error.message));
      return page;
    }
    const heard = (page, type) => page.evaluate((type) => heard.filter((event) => event.type === type), type);
    /** Resolves when so many events of a type were heard. */
    const hear = (page, type, count = 1) => page.waitForFunction(([type, count]) => heard.filter((event) => event.type === type).length >= count, [type, count]);

    test("a chosen picture gives a list of labels with percentages, under a strict policy", async () => {
      const page = await open('<siglip-classifier model="/tiny/" labels="a cat, a dog\n<b>bold</b>"></siglip-classifier>');
      assert.equal(page.workers().length, 0, "nothing is loaded before the first use");
      await page.getByLabel("Image").setInputFiles(picture);
      await hear(page, "siglip-result");
      const items = page.getByRole("list", { name: "Results" }).getByRole("listitem");
      assert.equal(await items.count(), 3);
      const texts = await items.allTextContents();
      for (const text of texts) assert.match(text, / <?\d+\.\d+%$/);
      assert.ok(texts.some((text) => text.startsWith("<b>bold</b> ")), "labels are text");
      const [{ labels }] = await heard(page, "siglip-result");
      assert.deepEqual(texts.map((text) => text.replace(/ <?[\d.]+%$/, "")), labels);
      assert.match(await page.getByRole("status").textContent(), /./);
      assert.ok((await heard(page, "siglip-progress")).some(({ stage }) => stage === "download"));
      assert.equal(await page.locator("siglip-classifier img").evaluate((image) => image.naturalWidth > 0 && !image.hidden), true);
      assert.deepEqual(page.problems.filter((text) => !/favicon/.test(text) && !/404/.test(text)), []);
      await page.close();
    });

    test("from another origin", async () => {
      const page = await open('<siglip-classifier model="' + site.origin + '/tiny/" labels="a cat, a dog"></siglip-classifier>', { origin: site.other, policy: null });
      await page.getByLabel("Image").setInputFiles(picture);
      await hear(page, "siglip-result");
      assert.equal(page.workers().length, 1);
      assert.equal(await page.getByRole("list", { name: "Results" }).getByRole("listitem").count(), 2);
      await page.close();
    });

    test("a bad picture is told, and the next one works", async () => {
      const page = await open(`<siglip-classifier model="/tiny/" labels="${mocked ? "reject, bad-image" : "a cat, a dog"}"></siglip-classifier>`);
      await page.getByLabel("Image").setInputFiles({ name: "cat.jpg", mimeType: "image/jpeg", buffer: Buffer.from("no picture at all") });
      await hear(page, "siglip-error");
      const [error] = await heard(page, "siglip-error");
      assert.equal(error.code, "bad-image");
      assert.equal(await page.getByRole("status").textContent(), error.message);
      await page.locator("siglip-classifier").evaluate((tag) => tag.setAttribute("labels", "a cat, a dog"));
      await page.getByLabel("Image").setInputFiles(picture);
      await hear(page, "siglip-result");
      assert.equal(await page.getByRole("list", { name: "Results" }).getByRole("listitem").count(), 2);
      await page.close();
    });

    if (!mocked) return;

    test("bad labels and unknown models are errors, and changing the attribute mends them", async () => {
      const page = await open('<siglip-classifier labels="a cat, a cat"></siglip-classifier>');
      await page.getByLabel("Image").setInputFiles(picture);
      await hear(page, "siglip-error");
      await page.locator("siglip-classifier").evaluate((tag) => tag.removeAttribute("labels"));
      await hear(page, "siglip-error", 2);
      await page.locator("siglip-classifier").evaluate((tag) => { tag.setAttribute("labels", "a cat"); tag.setAttribute("model", "no model"); });
      await hear(page, "siglip-error", 3);
      await page.locator("siglip-classifier").evaluate((tag) => tag.setAttribute("model", "demo"));
      await hear(page, "siglip-result");
      const errors = await heard(page, "siglip-error");
      assert.deepEqual(errors.map(({ code }) => code), ["bad-input", "bad-input", "bad-input"]);
      assert.match(errors[0].message, /the same/);
      assert.match(errors[1].message, /labels is empty/);
      assert.match(errors[2].message, /"no model"/);
      await page.close();
    });

    test("the image property takes any picture, labels may hold commas, and null clears", async () => {
      const page = await open("<siglip-classifier></siglip-classifier>");
      const labels = await page.evaluate(async () => {
        const tag = document.querySelector("siglip-classifier");
        const result = new Promise((resolve) => tag.addEventListener("siglip-result", (event) => resolve(event.detail)));
        tag.labels = ["cats, dogs", "birds"];
        tag.image = new ImageData(4, 4);
        return (await result).map((one) => one.label);
      });
      assert.deepEqual(labels, ["cats, dogs", "birds"]);
      await page.evaluate(() => { document.querySelector("siglip-classifier").image = null; });
      const list = page.locator("siglip-classifier li");
      await page.waitForFunction(() => document.querySelector("siglip-classifier").shadowRoot.querySelectorAll("li").length === 0);
      assert.equal(await list.count(), 0);
      await page.close();
    });

    test("no result stands beside another picture or beside an error, and new texts leave what is said of a run", async () => {
      const page = await open('<siglip-classifier labels="a cat"></siglip-classifier>');
      const tag = page.locator("siglip-classifier");
      const picture = () => tag.evaluate((tag) => { tag.image = new ImageData(4, 4); });
      const shown = () => tag.evaluate((tag) => ({ items: tag.shadowRoot.querySelectorAll("li").length, result: tag.result?.length ?? null, status: tag.shadowRoot.querySelector("[role=status]").textContent }));
      await picture();
      await hear(page, "siglip-result");
      assert.deepEqual({ ...(await shown()), status: "" }, { items: 1, result: 1, status: "" });
      await tag.evaluate((tag) => { tag.labels = ["never ends"]; });
      await page.waitForFunction(() => /Looking/.test(document.querySelector("siglip-classifier").shadowRoot.querySelector("[role=status]").textContent));
      await tag.evaluate((tag) => { tag.texts = { choose: "Pick one" }; });
      assert.match((await shown()).status, /Looking/);
      await picture();
      assert.deepEqual({ ...(await shown()), status: "" }, { items: 0, result: null, status: "" });
      await page.getByRole("button", { name: "Stop" }).click();
      assert.deepEqual(await shown(), { items: 0, result: null, status: "Stopped." });
      await tag.evaluate((tag) => { tag.labels = ["a cat"]; });
      await hear(page, "siglip-result", 2);
      await tag.evaluate((tag) => { tag.labels = ["a cat", "a cat"]; });
      await hear(page, "siglip-error");
      await tag.evaluate((tag) => { tag.texts = {}; });
      const failed = await shown();
      assert.deepEqual([failed.items, failed.result], [0, null]);
      assert.match(failed.status, /the same/);
      await page.close();
    });

    test("whatever the picture is given as, it is shown", async () => {
      const page = await open('<siglip-classifier labels="a cat"></siglip-classifier>', { policy: null });
      const shown = await page.evaluate(async (bytes) => {
        const tag = document.querySelector("siglip-classifier");
        const image = tag.shadowRoot.querySelector("img");
        const file = new Blob([Uint8Array.from(bytes)], { type: "image/png" });
        const canvas = new OffscreenCanvas(30, 20);
        canvas.getContext("2d").fillRect(0, 0, 30, 20);
        const video = Object.assign(document.createElement("video"), { muted: true });
        const source = document.createElement("canvas");
        [source.width, source.height] = [30, 20];
        const context = source.getContext("2d");
        video.srcObject = source.captureStream();
        const ready = new Promise((resolve) => video.addEventListener("loadeddata", resolve, { once: true }));
        const paint = setInterval(() => context.fillRect(0, 0, 30, 20), 20);
        await Promise.all([video.play(), ready]);
        clearInterval(paint);
        const sizes = {};
        for (const [name, one] of Object.entries({ file, bytes: Uint8Array.from(bytes), URL: new URL(URL.createObjectURL(file)), Response: new Response(file), canvas, video })) {
          const loaded = new Promise((resolve, reject) => {
            image.addEventListener("load", resolve, { once: true });
            image.addEventListener("error", () => reject(new Error(name)), { once: true });
          });
          const result = new Promise((resolve) => tag.addEventListener("siglip-result", (event) => resolve(event.detail), { once: true }));
          tag.image = one;
          await loaded;
          sizes[name] = [image.naturalWidth, image.naturalHeight, image.hidden, (await result).length];
        }
        return sizes;
      }, [...picture.buffer]);
      const [width, height] = [picture.buffer.readUInt32BE(16), picture.buffer.readUInt32BE(20)];
      const file = [width, height, false, 1];
      assert.deepEqual(shown, { file, bytes: file, URL: file, Response: file, canvas: [30, 20, false, 1], video: [30, 20, false, 1] });
      await page.close();
    });

    test("labels are a string, an array or null, properties may come before the definition, and every text can be replaced", async () => {
      const page = await open("<siglip-classifier labels='a cat; a dog'></siglip-classifier>");
      const told = await page.evaluate(async (texts) => {
        const { GERMAN } = await import(texts);
        const tag = document.querySelector("siglip-classifier");
        const labels = [tag.labels];
        for (const given of ["birds, fish", "猫、犬，鳥\r\nقطة، كلب", ["one, and one"], null]) {
          tag.labels = given;
          labels.push(tag.labels);
        }
        // As a framework leaves a tag that is not defined yet.
        const early = document.implementation.createHTMLDocument().createElement("siglip-classifier");
        Object.assign(early, { labels: "birds", topK: 1, texts: GERMAN, image: new ImageData(4, 4) });
        const result = new Promise((resolve) => early.addEventListener("siglip-result", (event) => resolve(event.detail)));
        document.body.append(early);
        return { labels, result: (await result).map((one) => one.label), early: early.labels, topK: early.getAttribute("top-k"), text: early.shadowRoot.textContent };
      }, `${site.origin}/lib/texts/de.js`);
      assert.deepEqual(told.labels, [["a cat", "a dog"], ["birds", "fish"], ["猫", "犬", "鳥", "قطة", "كلب"], ["one, and one"], ["a cat", "a dog"]]);
      assert.deepEqual([told.result, told.early, told.topK], [["birds"], ["birds"], "1"]);
      assert.match(told.text, /Bild auswählen.*Am besten passt: birds, 90,0 %\./s);
      await page.close();
    });

    test("a framework may set the same labels, templates and model files again whenever it renders, and nothing runs anew", async () => {
      const page = await open("<siglip-classifier></siglip-classifier><siglip-classifier></siglip-classifier>");
      const told = await page.evaluate(async (files) => {
        const [tag, other] = document.querySelectorAll("siglip-classifier");
        const render = (tag, labels) => Object.assign(tag, {
          labels, template: ["A photo of {}.", "A drawing of {}."], topK: 2, image: new URL("/samples/ladybug.png", document.baseURI),
          model: { name: "mine", files: Object.fromEntries(files.map((file) => [file, new URL(`/tiny/${file}`, document.baseURI)])) },
        });
        const next = (tag) => new Promise((resolve) => tag.addEventListener("siglip-result", resolve, { once: true }));
        let result = next(tag);
        render(tag, ["a cat", "a dog, or two"]);
        await result;
        const stop = tag.shadowRoot.querySelector("button");
        const said = tag.shadowRoot.querySelector("[role=status]").textContent;
        render(tag, ["a cat", "a dog, or two"]);
        await null; // all changes of one moment are one run
        await null;
        const again = { running: !stop.hidden, said: tag.shadowRoot.querySelector("[role=status]").textContent === said };
        document.body.append(tag); // moved within the page
        result = next(other);
        render(other, ["a cat"]);
        await result;
        const results = heard.filter(({ type }) => type === "siglip-result").length;
        result = next(tag);
        render(tag, ["a mouse"]);
        await result;
        return { again, results, last: heard.at(-1).labels };
      }, Object.keys(tiny).map((path) => path.slice("/tiny/".length)));
      assert.deepEqual(told, { again: { running: false, said: true }, results: 2, last: ["a mouse"] });
      assert.equal(page.workers().length, 1, "models of the same files are one");
      assert.deepEqual(await heard(page, "siglip-error"), []);
      await page.close();
    });

    for (const [type, property, words] of [["drop", "dataTransfer", "a dropped picture is taken"], ["paste", "clipboardData", "a pasted picture is taken"]]) {
      test(words, async () => {
        const page = await open('<siglip-classifier labels="a cat"></siglip-classifier>');
        await page.locator("siglip-classifier").evaluate((tag, [type, property]) => {
          const data = new DataTransfer();
          data.items.add(new File(["x"], `${type}.png`, { type: "image/png" }));
          const Kind = type === "drop" ? DragEvent : ClipboardEvent;
          const event = new Kind(type, { bubbles: true, composed: true, cancelable: true });
          // Firefox leaves files out of a ClipboardEvent that a script makes, not out of a visitor's.
          Object.defineProperty(event, property, { value: data });
          tag.shadowRoot.querySelector("input").dispatchEvent(event);
          if (!event.defaultPrevented) throw new Error(`${type} was left to the browser`);
        }, [type, property]);
        await hear(page, "siglip-result");
        assert.equal(await page.locator("siglip-classifier").evaluate((tag) => tag.image.name), `${type}.png`);
        await page.close();
      });
    }

    test("a newer picture or label list takes the place of what runs", async () => {
      const page = await open('<siglip-classifier labels="never ends"></siglip-classifier>');
      await page.getByLabel("Image").setInputFiles(picture);
      await page.getByRole("status").getByText("Looking at the picture").waitFor();
      await page.locator("siglip-classifier").evaluate((tag) => tag.setAttribute("labels", "a cat"));
      await hear(page, "siglip-result");
      assert.deepEqual((await heard(page, "siglip-result")).map(({ labels }) => labels), [["a cat"]]);
      assert.deepEqual(await heard(page, "siglip-error"), []);
      await page.close();
    });

    test("Stop ends a call and a load, by keyboard", async () => {
      for (const model of ["demo", "/never/"]) {
        const page = await open(`<siglip-classifier model="${model}" labels="never ends"></siglip-classifier>`);
        await page.getByLabel("Image").setInputFiles(picture);
        if (model === "demo") await page.getByRole("status").getByText("Looking at the picture").waitFor();
        else await hear(page, "siglip-progress");
        await page.getByRole("button", { name: "Stop" }).press("Enter");
        await page.getByRole("status").getByText("Stopped.").waitFor();
        assert.equal(await page.getByRole("button", { name: "Stop" }).count(), 0);
        if (model !== "demo") await Promise.all(page.workers().map((worker) => worker.waitForEvent("close")));
        await page.locator("siglip-classifier").evaluate((tag) => { tag.setAttribute("model", "demo"); tag.setAttribute("labels", "a cat"); });
        await hear(page, "siglip-result");
        assert.deepEqual(await heard(page, "siglip-error"), []);
        await page.close();
      }
    });

    test("tags share a model, and the last one to leave the page gives it back", async () => {
      const page = await open('<siglip-classifier labels="a"></siglip-classifier><siglip-classifier labels="b"></siglip-classifier><div></div>');
      await page.evaluate(() => document.querySelectorAll("siglip-classifier").forEach((tag) => { tag.image = new ImageData(1, 1); }));
      await hear(page, "siglip-result", 2);
      assert.equal(page.workers().length, 1);
      const [worker] = page.workers();
      const ended = worker.waitForEvent("close");
      await page.evaluate(async () => {
        const [first, second] = document.querySelectorAll("siglip-classifier");
        first.remove();
        document.querySelector("div").append(second); // moved, not gone
        await new Promise((resolve) => requestAnimationFrame(resolve));
        second.labels = ["c"];
      });
      await hear(page, "siglip-result", 3);
      assert.deepEqual(page.workers(), [worker], "still the same worker");
      await page.evaluate(() => document.querySelector("siglip-classifier").remove());
      await ended;
      await page.close();
    });

    test("moved into another document, such as a picture-in-picture window's, the tag keeps its style and its result", async () => {
      const page = await open('<siglip-classifier labels="a cat"></siglip-classifier><iframe></iframe>');
      await page.getByLabel("Image").setInputFiles(picture);
      await hear(page, "siglip-result");
      const looks = await page.evaluate(() => {
        const tag = document.querySelector("siglip-classifier");
        const looks = [];
        for (const to of [document, document.querySelector("iframe").contentDocument, document.implementation.createHTMLDocument(), document]) {
          to.body.append(tag);
          const drop = tag.shadowRoot.querySelector(".drop");
          looks.push(to.defaultView && to.defaultView.getComputedStyle(drop).borderTopStyle, tag.result.length);
        }
        return looks;
      });
      assert.deepEqual(looks, ["dashed", 1, "dashed", 1, null, 1, "dashed", 1]);
      await page.close();
    });

    test("after a crash the next picture is classified", async () => {
      const page = await open('<siglip-classifier labels="trap"></siglip-classifier>');
      await page.getByLabel("Image").setInputFiles(picture);
      await hear(page, "siglip-error");
      assert.equal((await heard(page, "siglip-error"))[0].code, "device-lost");
      await page.locator("siglip-classifier").evaluate((tag) => tag.setAttribute("labels", "a cat"));
      await hear(page, "siglip-result");
      await page.close();
    });

    test("importing the script twice is harmless", async () => {
      const page = await open('<script type="module" src="/lib/siglip-classifier.js?again"></script><siglip-classifier labels="a"></siglip-classifier>');
      await page.getByLabel("Image").setInputFiles(picture);
      await hear(page, "siglip-result");
      assert.deepEqual(page.problems.filter((text) => !/404/.test(text)), []);
      await page.close();
    });
  });
}
