// The files of known models of the Hugging Face Hub: `node tools/pins.mjs` fills this in, and nobody else. A model that is pinned is loaded as it was at
// `commit` unless another revision is asked for, and its files have the SHA-256 sums that stand here, whatever the Hub says. What isn't here is verified
// against what the Hub states.

/** @typedef {{readonly commit: string, readonly files: {readonly [file: string]: string}}} Pin sums in lower-case hexadecimal */

/** @type {{readonly [model: string]: Pin | null}} null: not filled in yet */
export const PINS = {
  "google/siglip-base-patch16-224": null,
  "google/siglip-base-patch16-256-multilingual": null,
  "google/siglip-large-patch16-256": null,
  "google/siglip-so400m-patch14-384": null,
  "google/siglip2-base-patch16-224": null,
  "google/siglip2-base-patch16-naflex": null,
  "google/siglip2-base-patch32-256": null,
  "google/siglip2-large-patch16-256": null,
  "google/siglip2-so400m-patch14-384": null,
  "mlx-community/siglip2-base-patch16-224-8bit": null,
};
