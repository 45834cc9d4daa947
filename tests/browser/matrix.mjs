// docs/browsers.md, from what the tests said. As a reporter it writes one run's results as JSON:
//   BROWSER=firefox node --test --test-reporter=./tests/browser/matrix.mjs --test-reporter-destination=RESULTS/firefox.json tests/browser/….test.mjs
// As a program it puts the runs together:
//   node tests/browser/matrix.mjs RESULTS            says whether docs/browsers.md is of these results
//   node tests/browser/matrix.mjs RESULTS --write    writes it
import { readFile, readdir, writeFile } from "node:fs/promises";
import { realpathSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

/** Where tests are made that are of a browser, and not of Node.js. */
const SHARED = ["harness.mjs", "browsers.test.mjs", "visit.mjs"];
const BROWSERS = ["chromium", "firefox", "webkit"];
const TITLES = { chromium: "Chromium", firefox: "Firefox", webkit: "WebKit (Safari’s engine)" };
const DOCUMENT = new URL("../../docs/browsers.md", import.meta.url);

/** @param {AsyncIterable<{type: string, data: any}>} events */
export default async function* report(events) {
  const path = [];
  const results = [];
  for await (const { type, data } of events) {
    if (type === "test:start") path.splice(data.nesting, Infinity, data.name);
    if (type !== "test:pass" && type !== "test:fail") continue;
    if (data.details?.type === "suite" || data.name.endsWith(".mjs")) continue;
    const skip = data.skip === undefined || data.skip === false ? undefined : String(data.skip);
    results.push({ file: basename(data.file ?? ""), suite: path.slice(0, data.nesting), name: data.name, passed: type === "test:pass", skip });
  }
  yield `${JSON.stringify(results, null, 1)}\n`;
}

/** What was seen of each test, by suite and name: a map from browser to result. */
async function gather(folder) {
  const suites = new Map();
  for (const file of (await readdir(folder)).filter((name) => name.endsWith(".json")).sort()) {
    for (const { file: maker, suite, name, ...result } of JSON.parse(await readFile(join(folder, file), "utf8"))) {
      if (!SHARED.includes(maker)) continue;
      // A suite of a browser's name is of that browser, whichever run it was part of.
      const browser = BROWSERS.includes(suite[0]) ? suite[0] : file.replace(".json", "");
      const title = BROWSERS.includes(suite[0]) ? "what every browser must do" : `${maker === "visit.mjs" ? "the page: " : ""}${suite.join(", ")}`;
      if (!suites.has(title)) suites.set(title, new Map());
      const tests = suites.get(title);
      if (!tests.has(name)) tests.set(name, new Map());
      tests.get(name).set(browser, result);
    }
  }
  return suites;
}

/** A test's name as Markdown has it. @param {string} text */
const escaped = (text) => text.replaceAll("|", "\\|").replaceAll("<", "&lt;");

function print(suites) {
  const reasons = [];
  const mark = (result) => {
    if (!result) return "";
    if (result.skip !== undefined) {
      if (!reasons.includes(result.skip)) reasons.push(result.skip);
      return `– (${reasons.indexOf(result.skip) + 1})`;
    }
    return result.passed ? "✓" : "✗";
  };
  const counts = Object.fromEntries(BROWSERS.map((browser) => [browser, { passed: 0, skipped: 0 }]));
  const sections = [];
  for (const [title, tests] of [...suites].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if ([...tests.values()].every((results) => results.size === 1 && results.has("chromium"))) continue;
    for (const results of tests.values()) for (const [browser, { skip }] of results) counts[browser][skip === undefined ? "passed" : "skipped"] += 1;
    const rows = [...tests].map(([name, results]) => `| ${escaped(name)} | ${BROWSERS.map((browser) => mark(results.get(browser))).join(" | ")} |`);
    sections.push(`## ${title[0].toUpperCase()}${title.slice(1)}\n\n| | ${BROWSERS.map((browser) => TITLES[browser]).join(" | ")} |\n| --- | --- | --- | --- |\n${rows.join("\n")}\n`);
  }
  const summary = BROWSERS.map((browser) => `| ${TITLES[browser]} | ${counts[browser].passed} | ${counts[browser].skipped} |`).join("\n");
  return `# What works in which browser

Printed from the results of the tests (\`tests/browser/matrix.mjs\`), and compared with them at each \`./build.sh test\`. ✓: tested there. –: not, for the reason of
that number. Nothing: that test is of another browser. The browsers are those that Debian packages: Chromium, Firefox ESR, and WebKitGTK's MiniBrowser.

| | tests | not possible |
| --- | ---: | ---: |
${summary}

${sections.join("\n")}
## In Chromium alone

- The search page as people use it (\`search\`): its tests run in Firefox too (\`BROWSER=firefox node --test tests/browser/search.test.mjs\`), and take
  minutes. That it opens and finds is tested in every browser.
- The page for everybody, in other languages and without its server (\`accessibility\`, \`languages\`, \`offline\`), and the page that measures (\`speed\`): a visitor with
  forced colours, a language, a service worker, as Chromium's driver pretends one. In WebKit the first page too, whose driver pretends nothing.
  That the page opens and answers is tested in every browser.
- Downloads, faults and threads (\`download\`, \`faults\`, \`threads\`): most would run in Firefox (\`BROWSER=firefox node --test tests/browser/download.test.mjs\`), but
  take minutes each time; filling the disk needs Chromium's developer tools. That a model is kept, and that loads get their threads, is tested in every browser that can.
- GPUs with silent faults (\`gpu\`): of the browsers tested here only Chromium has WebGPU without a switch.
- A file of more than 4 GiB (\`large\`): it takes a minute, and what counts its bytes is WebAssembly that all browsers run.

## Why not

${reasons.map((reason, i) => `${i + 1}. ${escaped(reason)}`).join("\n")}
`;
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const [folder, how] = process.argv.slice(2);
  const text = print(await gather(folder));
  if (how === "--write") await writeFile(DOCUMENT, text);
  else if (text !== await readFile(DOCUMENT, "utf8").catch(() => "")) {
    console.error(`docs/browsers.md is not what the tests said: type node tests/browser/matrix.mjs ${folder} --write, and look at what has changed`);
    process.exitCode = 1;
  }
}
