// Next.js with Turbopack, exported as static files: the page's own script is that of the other projects, in an effect.
import { execFileSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { fileURLToPath } from "node:url";
import { addPicture, check, expectedAnswers, modulesAmong, open, openBrowser, place } from "../harness.mjs";

const here = fileURLToPath(new URL("./", import.meta.url));
const { next: version } = JSON.parse(readFileSync(join(here, "package.json"), "utf8")).dependencies;

describe("Next", { timeout: 600_000 }, () => {
  const folder = join(here, "next", "out");
  let browser, expected;
  before(async () => {
    browser = await openBrowser();
    expected = await expectedAnswers(browser);
    for (const made of ["out", ".next"]) rmSync(join(here, "next", made), { recursive: true, force: true });
    execFileSync(join(here, "node_modules", ".bin", "next"), ["build"], { cwd: join(here, "next"), stdio: "inherit", env: { ...process.env, NEXT_TELEMETRY_DISABLED: "1" } });
    addPicture(folder);
  });
  after(() => browser?.close());

  for (const isolated of [false, true]) {
    place({ group: "Bundlers, on demand", place: `Next ${version}`, how: "Turbopack, static export", isolated }, async (t) => {
      const site = await open(t, folder, { isolated });
      return check(await browser.page(t, site.url), () => modulesAmong(site.requests, folder), expected, isolated);
    });
  }
});
