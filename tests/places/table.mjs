// docs/places.md from what the last run of the tests found: `node table.mjs` prints it, run.mjs compares or writes it.
import { existsSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** @typedef {import("./harness.mjs").Row} Row */

const DOCUMENT = fileURLToPath(new URL("../../docs/places.md", import.meta.url));
const more = JSON.parse(readFileSync(new URL("./more/package.json", import.meta.url), "utf8")).dependencies;
/** How the lines of what runs only when it is asked for begin. */
const ASKED = [`| Next ${more.next} |`, `| Parcel ${more.parcel} |`, `| Rspack ${more["@rspack/core"]} |`];
const ON_DEMAND = "Bundlers, on demand";
const GROUPS = ["Pages", "Bundlers", ON_DEMAND, "Frameworks", "Other places", "Package"];

const HEAD = `# Where it works

Written by \`node tests/places/run.mjs --write\` from the results of its tests, with the package as npm packs it, in Chromium (and Node.js where it says so);
\`./build.sh test\` runs them and compares. Those on demand take an install of some minutes: \`node tests/places/run.mjs next parcel rspack\`.

*Worker*: the page's thread stays free. *Threads*: where the page is cross-origin isolated, several compute. A dash stands for what is not asked there.
`;

/** @param {boolean | undefined} value */
const word = (value) => (value === undefined ? "–" : value ? "yes" : "no");
/** What was found in each of several tests of one line. @param {(boolean | undefined)[]} values */
const all = (values) => {
  const known = values.filter((value) => value !== undefined);
  return known.length === 0 ? undefined : known.every(Boolean);
};

/** The lines of one table. @param {Row[]} rows */
function linesOf(rows) {
  /** @type {Map<string, Row[]>} */
  const merged = new Map();
  for (const row of rows) {
    const key = `| ${row.place} | ${row.how} |`;
    merged.set(key, [...(merged.get(key) ?? []), row]);
  }
  return [...merged].map(([key, found]) => `${key} ${/** @type {const} */ (["works", "worker", "threads"]).map((column) => word(all(found.map((row) => row[column])))).join(" | ")} |`);
}

/** What the document says of places that were not asked for this time, in the versions that are installed now. @param {string} text @param {string[]} lines of those that were */
function kept(text, lines) {
  const others = ASKED.filter((place) => !lines.some((line) => line.startsWith(place)));
  return text.split("\n").filter((line) => others.some((place) => line.startsWith(place)));
}

/** @param {string} results the file of rows */
function compose(results) {
  const before = existsSync(DOCUMENT) ? readFileSync(DOCUMENT, "utf8") : "";
  /** @type {Row[]} */
  const rows = existsSync(results) ? readFileSync(results, "utf8").split("\n").filter(Boolean).map((line) => JSON.parse(line)) : [];
  const parts = GROUPS.map((group) => {
    let lines = linesOf(rows.filter((row) => row.group === group));
    if (group === ON_DEMAND) lines = [...lines, ...kept(before, lines)].sort();
    return [`## ${group}`, "", "| | tested | works | worker | threads |", "|---|---|---|---|---|", ...lines, ""].join("\n");
  });
  return { before, after: [HEAD, ...parts].join("\n") };
}

/**
 * @param {string} results @param {{write: boolean}} how
 * @returns {string | undefined} why the document isn't what the results say
 */
export function writeTable(results, { write }) {
  const { before, after } = compose(results);
  if (write) writeFileSync(DOCUMENT, after);
  else if (before !== after) return "docs/places.md is not what the tests found: type node tests/places/run.mjs --write, and look at what changed";
  const missing = ASKED.filter((place) => !after.includes(`\n${place}`));
  return missing.length === 0 ? undefined : `docs/places.md has no line ${missing.join(", ")}, which tests/places/more/package.json names: type node tests/places/run.mjs next parcel rspack --write`;
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  console.log(compose(fileURLToPath(new URL("./node_modules/.cache/results.jsonl", import.meta.url))).after);
}
