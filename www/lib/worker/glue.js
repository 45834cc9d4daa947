// The WebAssembly modules and wasm-bindgen's scripts for them, written out, so that bundlers see the files.

/** @typedef {"siglip_web_webgpu" | "siglip_web_cpu" | "siglip_web_cpu_relaxed" | "siglip_web_cpu_threads" | "siglip_web_cpu_relaxed_threads" | "siglip_web_tokenizers"} ModuleName */

/** @type {Record<ModuleName, () => Promise<any>>} */
export const GLUE = {
  // @ts-ignore: made by the build
  siglip_web_webgpu: () => import("../pkg/siglip_web_webgpu.js"),
  // @ts-ignore: made by the build
  siglip_web_cpu: () => import("../pkg/siglip_web_cpu.js"),
  // @ts-ignore: made by the build
  siglip_web_cpu_relaxed: () => import("../pkg/siglip_web_cpu_relaxed.js"),
  // @ts-ignore: made by the build
  siglip_web_cpu_threads: () => import("../pkg/siglip_web_cpu_threads.js"),
  // @ts-ignore: made by the build
  siglip_web_cpu_relaxed_threads: () => import("../pkg/siglip_web_cpu_relaxed_threads.js"),
  // @ts-ignore: made by the build
  siglip_web_tokenizers: () => import("../pkg/siglip_web_tokenizers.js"),
};

/** @type {Record<ModuleName, () => URL>} */
export const WASM = {
  siglip_web_webgpu: () => new URL("../pkg/siglip_web_webgpu_bg.wasm", import.meta.url),
  siglip_web_cpu: () => new URL("../pkg/siglip_web_cpu_bg.wasm", import.meta.url),
  siglip_web_cpu_relaxed: () => new URL("../pkg/siglip_web_cpu_relaxed_bg.wasm", import.meta.url),
  siglip_web_cpu_threads: () => new URL("../pkg/siglip_web_cpu_threads_bg.wasm", import.meta.url),
  siglip_web_cpu_relaxed_threads: () => new URL("../pkg/siglip_web_cpu_relaxed_threads_bg.wasm", import.meta.url),
  siglip_web_tokenizers: () => new URL("../pkg/siglip_web_tokenizers_bg.wasm", import.meta.url),
};
