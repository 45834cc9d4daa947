// From a request to a model that answers: chooses the backend, fetches its WebAssembly, opens the checkpoint and what is kept of it.
import { SiglipError, aborted, siglipError } from "../error.js";
import { node } from "../platform.js";
import { RETRY_POLICY } from "../files/download.js";
import { openSource } from "../files/source.js";
import { Stored, openStore } from "../store/stored.js";
import { CPU, adapterOf, chooseBackend } from "./backend.js";
import { Crash, guard, instantiate } from "./module.js";
import { pipelines } from "./pipelines.js";
import { tokenizers } from "./tokenizers.js";

/** @typedef {import("../ports.d.ts").Backend} Backend */
/** @typedef {import("../ports.d.ts").Cancel} Cancel */
/** @typedef {import("../ports.d.ts").Context} Context */
/** @typedef {import("../ports.d.ts").Engine} Engine */
/** @typedef {import("../ports.d.ts").Glue} Glue */
/** @typedef {import("../ports.d.ts").LoadRequest} LoadRequest */
/** @typedef {import("../ports.d.ts").Place} Place */
/** @typedef {import("../siglip-web.d.ts").ModelInfo} ModelInfo */
/** @typedef {import("./backend.js").Choice} Choice */
/** @typedef {import("./module.js").Report} Report */
/** @typedef {import("./module.js").Wasm} Wasm */
/** `context`: of downloads; those of the load, and of rows that calls need later. @typedef {{wasm: Wasm, engine: Engine, context: Context, info: ModelInfo}} Loaded */

/** Tensors without a use that a message names. */
const NAMED = 8;

/**
 * @param {LoadRequest} request
 * @param {Report} report
 * @param {Cancel} cancel
 * @param {AbortSignal} signal
 * @returns {Promise<Loaded>}
 */
export async function load({ place, name, cure, backend, reason, dtype, maxPatches, cache, keepLabels, wholeTable, retryPolicy, note }, report, cancel, signal) {
  const choice = reason ? { ...CPU, reason } : await chooseBackend(backend);
  if (signal.aborted) throw aborted();
  const wait = (/** @type {string} */ waiting) => report.progress({ stage: "download", loaded: 0, total: 0, waiting });
  /** @type {Context} */
  const context = { signal, name, hub: place.kind === "url" && place.hub !== undefined, retryPolicy: { ...RETRY_POLICY, ...retryPolicy }, caching: "default", wait, readable: new Set() };
  let started = false;
  /** @param {Choice} choice @param {boolean} [again] @returns {Promise<Loaded>} */
  const attempt = async (choice, again = false) => {
    const { backend, adapter } = choice;
    // What is kept is opened, and read ahead, while the module comes. That is no file of the model, and the browser may keep it as well.
    const opening = openStored(place, { name, dtype: dtype === "auto" ? `auto-${backend}` : dtype }, cache, context).then((stored) => {
      const source = openSource(place, context, stored, report.progress);
      source.begin();
      return { stored, source };
    });
    opening.catch(() => {}); // it is told below
    const wasm = await instantiate(backend, report, { ...context }).catch((error) => {
      opening.then(({ stored, source }) => {
        stored.release();
        source.settle();
      }, () => {});
      throw error;
    });
    started = true;
    const { stored, source } = await opening;
    try {
      const options = { backend, backendReason: [choice.reason, wasm.note, note].filter(Boolean).join(" "), adapter: adapterOf(wasm) ?? adapter, dtype, wholeTable, maxPatches, name };
      // "ready" is reported by the client.
      /** @type {Parameters<Glue["Engine"]["load"]>[5]} */
      const progress = (stage, file, loaded, total, fromCache) => {
        if (stage === "download" && file) source.loaded(file, loaded, total, fromCache);
        else if (stage !== "ready") report.progress({ stage, ...(file && { file }), loaded, total });
      };
      const engine = await guard(wasm, () => wasm.glue.Engine.load(source, stored.problem ? undefined : stored, options, pipelines, tokenizers(report, context), progress, cancel));
      const { unused = [], ...info } = engine.info;
      if (unused.length > 0) console.info(unusedIn(name, unused));
      return { wasm, engine, context, info: { ...info, cached: stored.complete, cacheReason: stored.reason } };
    } catch (error) {
      // Parts of two versions of the model would have come together. The older ones are gone now.
      if (!stored.stale || again || signal.aborted) throw cure ? cured(error, cure) : error;
      stored.release();
      return attempt(choice, true);
    } finally {
      source.settle();
      stored.release(keepLabels);
    }
  };
  try {
    return await attempt(choice);
  } catch (thrown) {
    const error = thrown instanceof Crash ? thrown.reason : siglipError(thrown);
    const gpuFailed = backend === "auto" && choice.backend === "webgpu" && !cancel.aborted;
    // A site may leave the WebGPU module out: it is then missing, or still being built.
    if (!gpuFailed || (started && !["device-lost", "unsupported", "out-of-memory"].includes(error.code))) throw thrown;
    return await attempt({ ...CPU, reason: `The CPU is used because WebGPU on ${choice.adapter} failed: ${error.message}` });
  }
}

/** @param {any} error @param {string} cure what to do if the model's files are not there */
function cured(error, cure) {
  return ["network", "bad-model"].includes(error.code) ? new SiglipError(error.code, `${siglipError(error).message} ${cure}`, { cause: error }) : error;
}

/**
 * What is kept of the model, or a stand-in that keeps nothing.
 * @param {Place} place @param {{name: string, dtype: string}} model @param {boolean} cache @param {Context} context
 */
async function openStored(place, { name, dtype }, cache, context) {
  const source = place.kind === "url" ? place.base : "";
  const none = (/** @type {string} */ why) => new Stored(undefined, { format: 0, name, source, dtype, files: {}, weights: {} }, why);
  if (place.kind !== "url") return none("The model's files are on this device already");
  if (place.ours) return none("The demo model comes with the page");
  if (node) return none("Node.js has no storage of a browser, so the model isn't kept: download its folder and load that");
  if (!cache) {
    context.caching = "no-store";
    return none("The model isn't kept, as it was asked");
  }
  const { addresses, inline = [] } = place;
  const stored = await openStore({ name, source, dtype, parts: addresses && [...addresses, ...inline] }, context.signal, context.wait);
  // One copy is enough.
  context.caching = stored.problem ? "default" : "no-store";
  return stored;
}

/** @param {string} model @param {readonly string[]} tensors */
function unusedIn(model, tensors) {
  const named = tensors.slice(0, NAMED).join(", ");
  return `siglip-web: files of ${model} have ${tensors.length === 1 ? "a tensor" : `${tensors.length} tensors`} that the model has no use for: ${named}${tensors.length > NAMED ? ", …" : ""}`;
}
