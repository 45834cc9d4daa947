// The `tokenizers` crate: a module of its own, fetched and started for a tokenizer.json of another form than SigLIP's.
import { compile, importGlue, trapped } from "./module.js";

/** @typedef {import("../ports.d.ts").Context} Context */
/** @typedef {import("../ports.d.ts").TokenizerModule} TokenizerModule */
/** @typedef {import("../ports.d.ts").Tokenizers} Tokenizers */
/** @typedef {import("./module.js").Report} Report */

const NAME = "siglip_web_tokenizers";

/** @param {Report} report @param {Context} context @returns {Tokenizers} */
export function tokenizers(report, context) {
  return { start: () => start(report, context) };
}

/** Each model has an instance of its own: the crate panics over some damaged files, and then only that one is lost. @param {Report} report @param {Context} context @returns {Promise<TokenizerModule>} */
async function start(report, context) {
  const glue = /** @type {import("../ports.d.ts").TokenizersGlue} */ (await importGlue(NAME));
  await glue({ module_or_path: await compile(NAME, report, context) });
  return {
    open(json, steps) {
      const pipeline = told(() => new glue.Pipeline(json, steps));
      return { ids: (text) => told(() => pipeline.ids(text)), free: () => pipeline.free() };
    },
  };
}

/** @template T @param {() => T} call */
function told(call) {
  try {
    return call();
  } catch (error) {
    throw trapped(error) ? new Error("the tokenizers crate panicked over it", { cause: error }) : error;
  }
}
