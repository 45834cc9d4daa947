// Rspack, configured as webpack is.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { fileURLToPath } from "node:url";
import { rspack } from "@rspack/core";
import { addPage, app, check, expectedAnswers, fresh, modulesAmong, open, openBrowser, place } from "../harness.mjs";

const here = fileURLToPath(new URL("./", import.meta.url));
const version = JSON.parse(readFileSync(join(here, "package.json"), "utf8")).dependencies["@rspack/core"];

describe("Rspack", { timeout: 600_000 }, () => {
  let browser, expected, folder;
  before(async () => {
    browser = await openBrowser();
    expected = await expectedAnswers(browser);
    folder = fresh("rspack");
    const stats = await new Promise((resolve, reject) => {
      rspack({ mode: "production", context: app, entry: "./main.js", output: { path: folder, filename: "main.js" } }, (error, stats) => (error ? reject(error) : resolve(stats)));
    });
    assert.deepEqual(stats.toJson({ errors: true }).errors, []);
    addPage(folder);
  });
  after(() => browser?.close());

  for (const isolated of [false, true]) {
    place({ group: "Bundlers, on demand", place: `Rspack ${version}`, how: "production build", isolated }, async (t) => {
      const site = await open(t, folder, { isolated });
      return check(await browser.page(t, site.url), () => modulesAmong(site.requests, folder), expected, isolated);
    });
  }
});
