// Whether the GPU or the CPU computes, and why.
import { SiglipError } from "../error.js";
import { node } from "../platform.js";
import { THREADS } from "./threads.js";

/**
 * Whether this browser has all of relaxed SIMD that our kernels use: a function of both instructions, f32x4.relaxed_madd and
 * i32x4.relaxed_dot_i8x16_i7x16_add_s. See src/kernels/cpu/lanes.rs.
 */
export const RELAXED = WebAssembly.validate(Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, // "\0asm", version 1
  1, 8, 1, 96, 3, 123, 123, 123, 1, 123, // a type: three vectors to one
  3, 2, 1, 0, // a function of it
  10, 23, 1, 21, 0, 32, 0, 32, 1, 32, 2, 253, 133, 2, 26, 32, 0, 32, 1, 32, 2, 253, 147, 2, 11, // both, the first one's result dropped
));

/** @typedef {import("../ports.d.ts").Backend} Backend */
/** What computes, and why. @typedef {{backend: Backend, reason: string, adapter: string}} Choice */

/** Its adapter is known when its module runs. */
export const CPU = /** @type {const} */ ({ backend: "cpu", adapter: "" });

/** What the CPU computes with. @param {import("./module.js").Wasm} wasm */
export function adapterOf({ backend, relaxed, threads }) {
  if (backend !== "cpu") return undefined;
  return `WebAssembly${relaxed ? " relaxed" : ""} SIMD${threads ? `, ${THREADS} threads` : ""}`;
}

/** Renderers that are programs, not devices. */
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|basic render|\bwarp\b|software/i;

/** @param {import("../ports.d.ts").LoadRequest["backend"]} wish @returns {Promise<Choice>} */
export async function chooseBackend(wish) {
  if (wish === "cpu") return { ...CPU, reason: "The CPU is used because it was asked for." };
  const { adapter, software, missing } = await probe();
  if (wish === "auto" && missing) return { ...CPU, reason: `The CPU is used because ${missing}.` };
  if (wish === "auto" && software) {
    return { ...CPU, reason: `The CPU is used because the only graphics adapter, ${adapter}, is a program that imitates a GPU and would be slower.` };
  }
  if (missing) throw new SiglipError("unsupported", `WebGPU was asked for, but ${missing}. Use backend "auto" or "cpu", or a browser and device with WebGPU.`);
  const asked = wish === "webgpu" ? " because it was asked for" : "";
  const slow = software ? ", a program that imitates a GPU" : "";
  return { backend: /** @type {const} */ ("webgpu"), adapter, reason: `WebGPU is used${asked} on ${adapter}${slow}.` };
}

async function probe() {
  const { gpu } = /** @type {any} */ (globalThis.navigator ?? {});
  if (node) return { missing: "Node.js offers no WebGPU" };
  if (!gpu) return { missing: globalThis.isSecureContext ? "this browser offers no WebGPU" : "WebGPU needs a secure page (https: or localhost)" };
  let adapter;
  try {
    adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  } catch (error) {
    return { missing: `this browser's WebGPU failed (${error.message})` };
  }
  if (!adapter) return { missing: "this browser found no graphics adapter that WebGPU can use" };
  return { adapter: adapter.info?.description || wordsOf(adapter) || "an unnamed GPU", software: isSoftware(adapter) };
}

/** Whether an adapter is a program that imitates a GPU: slower than our own CPU path. @param {GPUAdapter} adapter */
export function isSoftware(adapter) {
  // Older browsers say so of the adapter itself.
  const { isFallbackAdapter } = /** @type {{isFallbackAdapter?: boolean}} */ (adapter);
  return Boolean(adapter.info?.isFallbackAdapter ?? isFallbackAdapter) || SOFTWARE.test(wordsOf(adapter));
}

/** @param {GPUAdapter} adapter */
function wordsOf({ info }) {
  return [info?.vendor, info?.architecture, info?.device, info?.description].filter(Boolean).join(" ");
}
