// Tries the packed package wherever people put it:
//   node run.mjs                what ./build.sh test runs; docs/places.md must say the same
//   node run.mjs next parcel rspack    also these, whose install takes minutes
//   --write                     writes docs/places.md
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { writeTable } from "./table.mjs";

const here = fileURLToPath(new URL("./", import.meta.url));
const wanted = process.argv.slice(2).filter((word) => !word.startsWith("--"));
const write = process.argv.includes("--write");
const MORE = readdirSync(join(here, "more")).filter((file) => file.endsWith(".test.mjs")).map((file) => file.replace(".test.mjs", ""));

for (const name of wanted) {
  if (!MORE.includes(name)) fail(`"${name}" is not known: write ${MORE.join(" or ")}, or nothing`);
}
if (wanted.length > 0 && !existsSync(join(here, "more", "node_modules", "next"))) {
  const { status } = spawnSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"], { cwd: join(here, "more"), stdio: "inherit" });
  if (status !== 0) fail("npm could not install what tests/places/more/package-lock.json names");
}
const { results } = await import("./harness.mjs");
rmSync(results, { force: true });
const files = [...readdirSync(here).filter((file) => file.endsWith(".test.mjs")).map((file) => join(here, file)), ...wanted.map((name) => join(here, "more", `${name}.test.mjs`))];
const { status } = spawnSync(process.execPath, ["--test", "--test-concurrency=1", "--test-reporter=spec", ...files], {
  stdio: "inherit",
  env: { ...process.env, SIGLIP_WEB_PACKED: "1" },
});
const stale = writeTable(results, { write });
if (stale) console.error(stale);
process.exitCode = status !== 0 || stale ? 1 : 0;

/** @param {string} message @returns {never} */
function fail(message) {
  console.error(`places: ${message}`);
  process.exit(1);
}
