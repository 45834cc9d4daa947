// Puts the npm package together: node package.mjs REPOSITORY DESTINATION (./build.sh package, after the build).
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [root, destination] = process.argv.slice(2);
// The package is this folder, file for file; the page is no part of it.
const library = join(root, "www", "lib");
const NEEDED = [
  "siglip-web.js",
  "siglip-web.d.ts",
  "siglip-index.js",
  "siglip-index.d.ts",
  "siglip-classifier.js",
  "siglip-classifier.d.ts",
  "demo.js",
  "demo.d.ts",
  ...["webgpu", "cpu", "cpu_relaxed", "cpu_threads", "cpu_relaxed_threads", "tokenizers"].flatMap((module) => [`pkg/siglip_web_${module}.js`, `pkg/siglip_web_${module}_bg.wasm`]),
  ...["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"].map((file) => `models/demo/${file}`),
];

const missing = NEEDED.filter((file) => !existsSync(join(library, file)));
if (missing.length) {
  console.error(`package: www/lib/ lacks ${missing.join(", ")}: restore what git holds with git checkout www, build www/lib/pkg with ./build.sh`);
  process.exit(1);
}

const metadata = JSON.parse(
  execFileSync("cargo", ["metadata", "--no-deps", "--offline", "--format-version", "1"], { cwd: root, encoding: "utf8" }),
);
const crate = metadata.packages.find((candidate) => candidate.name === "siglip-web");

rmSync(destination, { recursive: true, force: true });
// What the demo's tokenizer.json was made from; nothing reads it here.
const UNREAD = join(library, "models", "demo", "spiece.model");
cpSync(library, destination, { recursive: true, filter: (file) => file !== UNREAD });
// The library has a README of its own.
for (const entry of readdirSync(root).filter((name) => /^(LICENSE|NOTICE)/.test(name))) {
  cpSync(join(root, entry), join(destination, entry), { recursive: true });
}
const manifest = {
  name: crate.name,
  version: crate.version,
  description: crate.description,
  keywords: crate.keywords,
  license: crate.license,
  ...(crate.repository && { repository: { type: "git", url: crate.repository } }),
  ...(crate.homepage && { homepage: crate.homepage }),
  type: "module",
  main: "./siglip-web.js",
  module: "./siglip-web.js",
  types: "./siglip-web.d.ts",
  exports: {
    ".": { types: "./siglip-web.d.ts", default: "./siglip-web.js" },
    "./siglip-classifier": { types: "./siglip-classifier.d.ts", default: "./siglip-classifier.js" },
    "./siglip-index": { types: "./siglip-index.d.ts", default: "./siglip-index.js" },
    "./demo": { types: "./demo.d.ts", default: "./demo.js" },
    "./texts/de": { types: "./texts/de.d.ts", default: "./texts/de.js" },
    ...Object.fromEntries(["react", "preact", "vue", "svelte"].map((framework) => [`./types/${framework}`, { types: `./types/${framework}.d.ts` }])),
    "./*": "./*",
  },
  engines: JSON.parse(readFileSync(new URL("package.json", import.meta.url), "utf8")).engines, // as the tools and tests take it, which try the package
  // The tag registers itself, the demo model its name; the workers are started by address.
  sideEffects: ["./siglip-classifier.js", "./demo.js", "./worker/worker.js", "./worker/thread.js", "./index/worker.js"],
};
writeFileSync(join(destination, "package.json"), `${JSON.stringify(manifest, null, 2)}\n`);
