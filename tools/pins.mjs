// Pins the models that the page lists to what they are on the Hugging Face Hub now, by commit and SHA-256:
//   node tools/pins.mjs [--hub ORIGIN] [--whole] [--check] [--table FILE] [MODEL…]
// Without MODEL all of the table, www/lib/files/pins.js unless another is given, which it writes. Small files are fetched and compared with what git calls them; of those that lie beside git the
// Hub's own SHA-256 is taken, or with --whole that of their bytes, which must then be the same. --check changes nothing and says what differs.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

/** What a loader may read of a model's folder. */
const READ = /^(config|open_clip_config|preprocessor_config|processor_config|tokenizer|tokenizer_config|model\.safetensors\.index)\.json$|^(spiece|tokenizer)\.model$|^[\w.-]+\.safetensors$/;

const { values: { hub, whole, check, table }, positionals } = parseArgs({
  options: {
    hub: { type: "string", default: "https://huggingface.co" },
    whole: { type: "boolean", default: false },
    check: { type: "boolean", default: false },
    table: { type: "string", default: fileURLToPath(new URL("../www/lib/files/pins.js", import.meta.url)) },
  },
  allowPositionals: true,
});
const origin = hub.replace(/\/$/, "");
const { PINS } = await import(pathToFileURL(table).href);

/** Five minutes without an end are too many for a list or a small file; weights may take hours. @param {string} path @param {{patience?: number, method?: string}} [options] */
async function ask(path, { patience = 300_000, method = "GET" } = {}) {
  const response = await fetch(`${origin}/${path}`, { method, signal: AbortSignal.timeout(patience) });
  if (!response.ok) throw new Error(`${origin}/${path} answered HTTP ${response.status}`);
  return response;
}

/** @param {string} model @returns {Promise<import("../www/lib/files/pins.js").Pin>} */
async function pin(model) {
  const head = await ask(`${model}/resolve/main/config.json`, { method: "HEAD" });
  const commit = head.headers.get("x-repo-commit");
  if (!commit) throw new Error(`${origin} tells no commit of ${model} (X-Repo-Commit)`);
  const list = await (await ask(`api/models/${model}/tree/${commit}`)).json();
  /** @type {Record<string, string>} */
  const files = {};
  for (const { path, oid, size, lfs } of list.filter(({ path }) => READ.test(path)).sort((a, b) => (a.path < b.path ? -1 : 1))) {
    files[path] = lfs && !whole ? lfs.oid : await sumOf(`${model}/resolve/${commit}/${path}`, { size, sha256: lfs?.oid, git: lfs ? undefined : oid });
  }
  if (!Object.keys(files).some((file) => file.endsWith(".safetensors"))) throw new Error(`${model} has no safetensors file`);
  return { commit, files };
}

/** The SHA-256 of a file's bytes, which must be what the Hub calls them. @param {string} path @param {{size: number, sha256?: string, git?: string}} stated */
async function sumOf(path, { size, sha256, git }) {
  const [sum, gitSum] = [createHash("sha256"), createHash("sha1").update(`blob ${size}\0`)];
  const { body } = await ask(path, { patience: size > 1e8 ? 6 * 3_600_000 : undefined });
  for await (const part of body) for (const hash of [sum, gitSum]) hash.update(part);
  const [found, named] = [sum.digest("hex"), gitSum.digest("hex")];
  if ((sha256 && sha256 !== found) || (git && git !== named)) throw new Error(`${path} came with the SHA-256 ${found}, which isn't what the Hub lists (${sha256 ?? git})`);
  return found;
}

/** @param {Record<string, import("../www/lib/files/pins.js").Pin | null>} pins */
function text(pins) {
  const entry = ([model, pin]) => {
    if (!pin) return `  ${JSON.stringify(model)}: null,`;
    const files = Object.entries(pin.files).map(([file, sum]) => `      ${JSON.stringify(file)}: ${JSON.stringify(sum)},`);
    return [`  ${JSON.stringify(model)}: {`, `    commit: ${JSON.stringify(pin.commit)},`, "    files: {", ...files, "    },", "  },"].join("\n");
  };
  const [head] = readFileSync(table, "utf8").split("export const PINS");
  return `${head}export const PINS = {\n${Object.entries(pins).map(entry).join("\n")}\n};\n`;
}

const models = positionals.length > 0 ? positionals : Object.keys(PINS);
const pins = { ...PINS };
let failed = false;
for (const model of models) {
  try {
    const found = await pin(model);
    const same = JSON.stringify(found) === JSON.stringify(pins[model]);
    console.log(`${model}: ${Object.keys(found.files).length} files at ${found.commit}${same ? ", as before" : check ? ", not as they are pinned" : ""}`);
    failed ||= check && !same;
    pins[model] = found;
  } catch (error) {
    console.error(`${model}: ${error.message}${error.cause ? ` (${error.cause.message ?? error.cause})` : ""}`);
    failed = true;
  }
}
if (!check) writeFileSync(table, text(pins));
process.exit(failed ? 1 : 0);
