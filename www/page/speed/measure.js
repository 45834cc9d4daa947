// How long a model takes on this device: for the page, and for tests/browser/times.mjs.

/** @typedef {import('../../lib/siglip-web.js').SiglipClassifier} SiglipClassifier */
/** @typedef {import('../../lib/siglip-web.js').ModelInfo} ModelInfo */
/**
 * Milliseconds. `ready`: until the model was loaded and had answered once; `labels`: none, where the model takes none but its own.
 * @typedef {{ready: number, pictures: number[], labels: number[], info: ModelInfo}} Times
 */

/** Of a picture's side: larger than most models see. */
const SIDE = 384;

/** Noise, other for each seed: a picture or label that was there before would be answered from memory. @param {number} seed */
function picture(seed) {
  const image = new ImageData(SIDE, SIDE);
  for (let i = 0; i < image.data.length; i++) image.data[i] = i % 4 === 3 ? 255 : Math.imul(i + seed, 2654435761) >>> 24;
  return image;
}

/**
 * Loads a model, and has it look at `calls` pictures and read as many labels, in turns.
 * @param {() => Promise<SiglipClassifier>} load
 * @param {number} calls
 * @param {{signal?: AbortSignal, onCall?: (done: number) => void}} [options]
 * @returns {Promise<Times>}
 */
export async function measure(load, calls, { signal, onCall } = {}) {
  const start = performance.now();
  const classifier = await load();
  try {
    const known = classifier.info.labels ? null : ['a cat'];
    const look = (/** @type {number} */ seed) => classifier.classify(picture(seed), known, { signal });
    await look(0);
    const ready = performance.now() - start;
    const reads = !classifier.info.labels;
    // Other labels at each visit: the browser keeps their vectors.
    const first = Math.floor(1e9 * Math.random());
    /** @type {number[]} */
    const pictures = [];
    /** @type {number[]} */
    const labels = [];
    for (let turn = 1; turn <= calls; turn++) {
      onCall?.(turn - 1);
      pictures.push(await timed(() => look(turn)));
      if (reads) labels.push(await timed(() => classifier.embedText([`a drawing of ${first + turn} things`], { signal })));
    }
    return { ready, pictures, labels, info: classifier.info };
  } finally {
    await classifier.dispose();
  }
}

/** @param {() => Promise<unknown>} work */
async function timed(work) {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/** @param {number[]} times @returns {[least: number, median: number]} */
export function summary(times) {
  const sorted = [...times].sort((a, b) => a - b);
  return [sorted[0] ?? NaN, sorted[Math.floor(sorted.length / 2)] ?? NaN];
}
