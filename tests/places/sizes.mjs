// What a visitor fetches, and the package as npm has it: node tests/places/sizes.mjs prints the table of www/lib/README.md.
import { readFileSync, readdirSync, realpathSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { library, tarball } from "./prepare.mjs";

const files = readdirSync(library, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(library.length + 1));
const scripts = files.filter((file) => file.endsWith(".js") && !/^(pkg|texts)\//.test(file));
const of = (/** @type {RegExp} */ pattern) => files.filter((file) => pattern.test(file));

/** Bytes as they are, and in gzip as most servers send them. @param {string[]} files */
function measure(files) {
  const contents = files.map((file) => readFileSync(join(library, file)));
  return { bytes: contents.reduce((sum, { length }) => sum + length, 0), gzip: contents.reduce((sum, content) => sum + gzipSync(content).length, 0) };
}

/** In the order of the table; bytes. */
export const sizes = {
  "a visitor, CPU": measure([...scripts, ...of(/^pkg\/siglip_web_cpu_relaxed(_bg\.wasm|\.js)$/)]),
  "a visitor, GPU": measure([...scripts, ...of(/^pkg\/siglip_web_webgpu/)]),
  "the demo model": measure(of(/^models\/demo\/.*\.(json|safetensors)$/)),
  "the whole folder": measure(files),
  "the package": { bytes: statSync(tarball).size, gzip: undefined },
};

/** @param {number | undefined} bytes */
const megabytes = (bytes) => (bytes === undefined ? "" : `${(bytes / 1e6).toFixed(1)} MB`);
export const table = ["| | bytes | gzip |", "|---|---|---|", ...Object.entries(sizes).map(([what, { bytes, gzip }]) => `| ${what} | ${megabytes(bytes)} | ${megabytes(gzip)} |`)].join("\n");

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) console.log(table);
