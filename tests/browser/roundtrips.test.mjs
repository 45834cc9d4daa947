// How often a page waits for the server before it works: a browser learns of a module from the one that imports it, level by level, and asks for it then.
// Scripts that begin something name all that they are made of, and pages name theirs in their head.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { test } from "node:test";
import { www } from "./harness.mjs";

/** What pages import once they run. */
const LATER = ["lib/siglip-web.js", "lib/siglip-index.js"];
const IMPORT = /^(?:import|export)\b(?:[^;'"=()]*?\bfrom)?\s*["'](\.[^"']+)["']/gm;
const read = (file) => readFileSync(join(www, file), "utf8");

/** The files that a module imports as it is loaded. @param {string} file @returns {string[]} */
const imports = (file) => [...read(file).matchAll(IMPORT)].map(([, path]) => relative(www, join(www, dirname(file), path)));

/** All that a module is made of. @param {string[]} files @returns {Set<string>} */
function partsOf(files, found = new Set()) {
  for (const file of files.flatMap(imports)) {
    if (found.has(file)) continue;
    found.add(file);
    partsOf([file], found);
  }
  return found;
}

for (const entry of ["lib/siglip-web.js", "lib/worker/worker.js", "lib/index/worker.js", "lib/worker/thread.js"]) {
  test(`${entry} names all modules that it is made of`, () => {
    const missing = [...partsOf([entry])].filter((file) => !imports(entry).includes(file));
    assert.deepEqual(missing.map((file) => `import ${JSON.stringify(relative(dirname(entry), file).replace(/^(?!\.)/, "./"))};`), []);
  });
}

for (const page of ["index.html", "search.html", "speed.html"]) {
  test(`${page} names all modules that it is made of`, () => {
    const of = (pattern) => [...read(page).matchAll(pattern)].map(([, file]) => file);
    const named = of(/<link rel="modulepreload" href="([^"]+)">/g);
    const scripts = of(/<script type="module" src="([^"]+)">/g);
    assert.ok(scripts.length > 0);
    for (const file of named) assert.ok(existsSync(join(www, file)), `${file} is named and isn't there`);
    // What a script imports is asked for when it has come, what a link's does only when it runs.
    const known = new Set([...named, ...scripts, ...scripts.flatMap(imports)]);
    const missing = [...partsOf([...scripts, ...named])].filter((file) => !known.has(file));
    assert.deepEqual(missing.map((file) => `<link rel="modulepreload" href="${file}">`), []);
    const parts = partsOf([...scripts, ...LATER]);
    assert.deepEqual(named.filter((file) => !parts.has(file) && !LATER.includes(file)), []);
  });
}
