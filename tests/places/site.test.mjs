// ./build.sh site: what it writes, on a server that knows nothing but files.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createServer } from "node:http";
import { readFileSync, readdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { extname, join } from "node:path";
import { after, before, describe } from "node:test";
import { fileURLToPath } from "node:url";
import { fresh, openBrowser, place, samples } from "./harness.mjs";

const root = fileURLToPath(new URL("../../", import.meta.url));
const tiny = join(root, "tests", "fixtures", "model", "tiny");
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".png": "image/png" };

/** Files and their types, no other header: no ranges, no versions. @param {import("node:test").TestContext} t @param {string} folder */
async function servePlainly(t, folder) {
  /** @type {string[]} */
  const requests = [];
  const server = createServer((request, response) => {
    try {
      const path = decodeURIComponent(new URL(request.url ?? "/", "http://localhost").pathname).replace(/\/$/, "/index.html");
      requests.push(path);
      const body = readFileSync(join(folder, path));
      response.writeHead(200, { "Content-Type": TYPES[extname(path)] ?? "application/octet-stream" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  t.after(() => new Promise((resolve) => {
    server.close(resolve);
    server.closeAllConnections();
  }));
  return { url: `http://127.0.0.1:${server.address().port}/`, requests };
}

/** As one types it, but that the modules, which are built by now, aren't built again. @param {string[]} given */
function site(...given) {
  return execFileSync("bash", ["-c", 'source ./build.sh; build() { :; }; site "$@"', "site", ...given], { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
}

describe("./build.sh site", { timeout: 600_000 }, () => {
  let browser;
  before(async () => {
    browser = await openBrowser();
  });
  after(() => browser.close());

  const labels = join(fresh("site-labels"), "labels.txt");
  writeFileSync(labels, "a cat\na dog\n");
  for (const [how, given, expected] of /** @type {const} */ ([
    ["a model of one's own", ["--model", tiny], ["a bird", "a fish"]],
    ["a model of one's own for fixed labels", ["--model", tiny, "--labels", labels], ["a cat", "a dog"]],
  ])) {
    place({ group: "Other places", place: "`./build.sh site` on a plain static server", how }, async (t) => {
      const fixed = given.includes("--labels");
      // As systems have it whose folder for temporary files is another's name.
      const link = join(fresh("site"), "link");
      symlinkSync(fresh("site-behind"), link);
      const out = join(link, "out");
      site(out, ...given);
      for (const file of readdirSync(out, { recursive: true })) assert.ok(statSync(join(out, String(file))).size < 95e6);
      const { url, requests } = await servePlainly(t, out);
      const page = await browser.page(t, url);
      if (!fixed) await page.getByRole("textbox", { name: "Labels" }).fill(expected.join("\n"));
      await page.getByLabel("Image", { exact: true }).setInputFiles(join(samples, "ladybug.png"));
      const items = page.getByRole("list", { name: "Results" }).getByRole("listitem");
      // The page may have answered about its own first picture and labels meanwhile.
      await page.waitForFunction((count) => document.querySelectorAll("#results .name").length === count && document.querySelector("#results")?.ariaBusy === "false", expected.length);
      const texts = await items.allTextContents();
      assert.deepEqual(expected.filter((label) => texts.some((text) => text.includes(label))), [...expected], texts.join("; "));
      assert.equal(texts.length, expected.length);
      for (const text of texts) assert.match(text, /\d\s?%/);
      if (fixed) assert.equal(await page.getByRole("textbox", { name: "Labels" }).inputValue(), expected.join("\n"));
      const scripts = requests.filter((path) => path.endsWith(".js"));
      assert.equal(new Set(scripts).size, scripts.length, "each script is asked for once");
      assert.ok(scripts.length < 20, `a page's scripts are in few files: ${scripts}`);
      const worker = page.workers().length > 0;
      // The other pages are made of theirs.
      await page.goto(`${url}speed.html`);
      await page.getByRole("button", { name: "Measure" }).click();
      await page.locator("#status").filter({ hasText: /^Done/ }).waitFor();
      assert.deepEqual(page.problems, []);
      return { worker };
    });
  }
});
