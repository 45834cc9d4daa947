// What can be asked of a loaded model: the one list of methods, by which the caller's thread asks and the worker passes on.

/** @typedef {import("../ports.d.ts").Call} Call */
/** @typedef {{[M in Call["method"]]: readonly Exclude<keyof Extract<Call, {method: M}>, "method">[]}} Methods */

/** Methods of the engine (src/web/mod.rs), and what each is given of its message, in order; then who hears of its progress, and whether the caller has given up. */
export const METHODS = /** @type {const} @satisfies {Methods} */ ({
  classify: ["image", "labels", "options"],
  classifyImages: ["images", "labels", "options"],
  explain: ["image", "label", "options"],
  embedImage: ["image"],
  embedImages: ["images"],
  embedLabels: ["labels", "options"],
  embedText: ["texts"],
});
