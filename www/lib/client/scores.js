// What a score means to people, and what stands between their labels: the one place for pages and tags.

/** Between labels: new lines, commas and semicolons; those of Arabic, Ethiopic and East Asian writing too, whatever their width. */
export const SEPARATORS = /[,;\n\r\u060C\u061B\u1363\u1364\u3001\uFE50\uFE51\uFE54\uFF0C\uFF1B\uFF64]+/;

/** A label fits from here on. SigLIP is strict: a right label often gets only 10 to 30 %, a wrong one far below 1 %. */
export const FITS = 0.1;
/** Below this it doesn't; between the two the model is not sure. */
export const MAYBE = 0.01;

/** The same of fine-tuned models, whose probabilities are those of pictures like the ones they were tuned with. */
const FITS_TUNED = 0.5;
const MAYBE_TUNED = 0.1;

/** The probability that a logit stands for. @param {number} logit */
export const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));

/**
 * @param {number} score between 0 and 1: of a sigmoid or, of a fine-tuned model, as it was trained
 * @param {boolean} [tuned]
 * @returns {"yes" | "maybe" | "no"} whether the label fits
 */
export function fits(score, tuned = false) {
  return score >= (tuned ? FITS_TUNED : FITS) ? "yes" : score >= (tuned ? MAYBE_TUNED : MAYBE) ? "maybe" : "no";
}

/** 0.9312 → "93.1%", 0.00021 → "0.02%", 1e-9 → "<0.01%". @param {number} score */
export function percent(score) {
  const value = score * 100;
  if (value < 0.01) return "<0.01%";
  if (value < 1) return `${value.toFixed(2)}%`;
  if (value > 99.9 && value < 100) return "99.9%";
  return `${value.toFixed(1)}%`;
}
