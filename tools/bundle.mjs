// The scripts of a site's pages in few files: a visitor's browser waits for the server at each of them, and takes its time with each.
//   await bundle(OUT)   OUT: a copy of www/
// What a page's scripts import, and the workers that they start, goes to lib/bundle/; what is left of page/ is what pages take as it is. The library's own
// files stay, for pages that import them from there.
import { readFileSync, readdirSync, realpathSync, rmSync, rmdirSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { build } from "esbuild";
import { BUNDLE, address } from "./offline.mjs";

const SCRIPT = /<script type="module" src="([^"]+)"><\/script>/g;
const PRELOAD = /<link rel="modulepreload" href="([^"]+)">\n/g;
/** An address beside a script, of which an expression may be the end. */
const ADDRESS = /(new Worker\()?new URL\((?:(["'])(\.{1,2}\/[^"'$]*)\2|`(\.{1,2}\/[^`$]*)([^`]*)`), import\.meta\.url\)/g;

/** @param {string} site */
export async function bundle(site) {
  const out = realpathSync(site); // as esbuild names files
  const folder = resolve(out, BUNDLE);
  /** The names of workers' sources that are started somewhere. @type {Set<string>} */
  const workers = new Set();
  /** @param {string} source as in worker/thread.js */
  const workerName = (source) => source.split("/").slice(-2).join("-");
  /** @type {import("esbuild").Plugin} */
  const addresses = {
    name: "addresses of files beside a script",
    setup({ onResolve, onLoad }) {
      // WebAssembly's glue, of which a browser takes one.
      onResolve({ filter: /\/pkg\/[^/]+\.js$/ }, (imported) => ({ path: address(folder, resolve(imported.resolveDir, imported.path)), external: true }));
      onLoad({ filter: /\.js$/ }, (loaded) => ({
        contents: readFileSync(loaded.path, "utf8").replace(ADDRESS, (_, worker = "", quote, whole, start = whole, expression = "") => {
          const file = resolve(dirname(loaded.path), start);
          const source = address(out, file);
          if (worker) workers.add(source);
          const beside = worker ? `./${workerName(source)}` : `${address(folder, file)}${start.endsWith("/") ? "/" : ""}`;
          return `${worker}new URL(\`${beside}${expression}\`, import.meta.url)`;
        }),
      }));
    },
  };
  /** @type {(options: import("esbuild").BuildOptions) => Promise<import("esbuild").Metafile>} */
  const put = async (options) => (await build({
    ...options, absWorkingDir: out, outdir: BUNDLE, chunkNames: "[hash]", bundle: true, format: "esm", target: "es2022", minify: true, metafile: true,
    external: ["node:*"], plugins: [addresses], logLevel: "warning",
  })).metafile;

  /** Sources that are in the bundle. @type {Set<string>} */
  const taken = new Set();
  for (const page of readdirSync(out).filter((name) => name.endsWith(".html"))) {
    const text = readFileSync(join(out, page), "utf8");
    /** @param {string} script */
    const entry = (script) => `${basename(page, ".html")}.${basename(script, ".js")}`; // a worker's has no dot
    const scripts = [...text.matchAll(SCRIPT)].map(([, script]) => script);
    if (scripts.length === 0) continue;
    // A page by itself: with what only some pages have in common in files of its own, each would need many.
    const { inputs, outputs } = await put({ entryPoints: scripts.map((script) => ({ in: script, out: entry(script) })), splitting: true });
    for (const source of Object.keys(inputs)) taken.add(source);

    // What the page asks for at once, in whatever file it is now, and what that imports.
    const asked = new Set([...text.matchAll(PRELOAD)].map(([, source]) => source));
    const own = new Set(scripts.map((script) => `${BUNDLE}/${entry(script)}.js`));
    const needed = new Set(own);
    for (const [file, { inputs }] of Object.entries(outputs)) if (Object.keys(inputs).some((source) => asked.has(source))) needed.add(file);
    for (const file of needed) { // which grows meanwhile
      for (const imported of outputs[file].imports) if (imported.kind === "import-statement" && !imported.external) needed.add(imported.path);
    }
    const preloads = [...needed].filter((file) => !own.has(file)).sort().map((file) => `<link rel="modulepreload" href="${file}">\n`).join("");
    const rest = text.replace(PRELOAD, "").replace(SCRIPT, (_, script) => `<script type="module" src="${BUNDLE}/${entry(script)}.js"></script>`);
    writeFileSync(join(out, page), rest.replace("<script ", () => `${preloads}<script `));
  }
  for (const source of workers) { // a worker may start others
    const { inputs } = await put({ entryPoints: [{ in: source, out: basename(workerName(source), ".js") }] });
    for (const input of Object.keys(inputs)) taken.add(input);
  }
  for (const source of taken) if (source.startsWith("page/")) rmSync(join(out, source));
  const folders = readdirSync(out, { withFileTypes: true, recursive: true }).filter((entry) => entry.isDirectory());
  for (const entry of folders) {
    const folder = join(entry.parentPath ?? entry.path, entry.name);
    if (readdirSync(folder).length === 0) rmdirSync(folder);
  }
}
