// Parcel, with the .parcelrc that the package's README gives.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { fileURLToPath } from "node:url";
import { addPicture, check, expectedAnswers, fresh, here as places, modulesAmong, open, openBrowser, place } from "../harness.mjs";

const here = fileURLToPath(new URL("./", import.meta.url));
const { parcel: version } = JSON.parse(readFileSync(join(here, "package.json"), "utf8")).dependencies;

describe("Parcel", { timeout: 600_000 }, () => {
  let browser, expected, folder;
  before(async () => {
    browser = await openBrowser();
    expected = await expectedAnswers(browser);
    folder = fresh("parcel");
    const made = ["--dist-dir", folder, "--cache-dir", fresh("parcel-cache"), "--config", join(here, ".parcelrc"), "--no-source-maps"];
    execFileSync(join(here, "node_modules", ".bin", "parcel"), ["build", join(places, "app", "index.html"), ...made], { cwd: here, stdio: "inherit" });
    addPicture(folder);
  });
  after(() => browser?.close());

  for (const isolated of [false, true]) {
    place({ group: "Bundlers, on demand", place: `Parcel ${version}`, how: "production build, with the README's `.parcelrc`", isolated }, async (t) => {
      const site = await open(t, folder, { isolated });
      return check(await browser.page(t, site.url), () => modulesAmong(site.requests, folder), expected, isolated);
    });
  }
});
