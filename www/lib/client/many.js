// Many pictures, a few at a time: what comes of each is given as it comes, and one that can't be read stops none of the others.
import { SiglipError, aborted, siglipError } from "../error.js";
import { badInput, show } from "./arguments.js";
import { prepare } from "./image.js";

/** @typedef {import("./image.js").Prepared} Prepared */
/** @typedef {import("./image.js").Fetching} Fetching */
/** @typedef {{index: number, prepared: Prepared} | {index: number, error: SiglipError}} Arrived */

/** Pictures of one message to the engine: enough for any device, few enough that other calls can be heard in between. */
export const AT_ONCE = 8;

/** Faults of one picture; all others end the call. */
const OF_A_PICTURE = ["bad-image", "bad-input", "network", "unsupported"];

/** @param {any} error @returns {SiglipError} @throws what concerns more than one picture */
export function ofPicture(error) {
  const known = siglipError(error);
  if (!OF_A_PICTURE.includes(known.code)) throw known;
  return known;
}

/** @param {any} images @returns {AsyncIterator<any> | Iterator<any>} */
export function iterate(images) {
  const begin = images?.[Symbol.asyncIterator] ?? images?.[Symbol.iterator];
  // The characters of a text are no pictures.
  if (typeof begin !== "function" || typeof images === "string") throw badInput(`images is ${show(images)}; it must be an array of pictures, or anything else that "for await" goes through.`);
  return begin.call(images);
}

/**
 * The pictures in groups, each read while the group before it is worked on; no more than two groups are ever held.
 * @param {AsyncIterator<any> | Iterator<any>} pictures
 * @param {Fetching} fetching
 * @returns {AsyncGenerator<Arrived[], void>}
 */
export async function* groups(pictures, fetching) {
  let index = 0;
  let ended = false;
  const read = async () => {
    /** @type {Promise<Arrived>[]} */
    const group = [];
    while (!ended && group.length < AT_ONCE) {
      const next = await pictures.next();
      if (next.done) ended = true;
      else {
        const arriving = arrive(next.value, index++, fetching);
        arriving.catch(() => {}); // told when the group is here, if somebody still waits for it
        group.push(arriving);
      }
    }
    return Promise.all(group);
  };
  // What gives the pictures may never give another one.
  const stopped = new Promise((_, reject) => fetching.signal.addEventListener("abort", () => reject(aborted()), { once: true }));
  stopped.catch(() => {});
  try {
    let reading = read();
    for (;;) {
      const group = /** @type {Arrived[]} */ (await Promise.race([reading, stopped]));
      if (group.length === 0) return;
      reading = read();
      // Whoever stops early doesn't wait for it.
      reading.catch(() => {});
      yield group;
    }
  } finally {
    if (!ended) Promise.resolve(pictures.return?.()).catch(() => {});
  }
}

/** @param {any} image @param {number} index @param {Fetching} fetching @returns {Promise<Arrived>} */
async function arrive(image, index, fetching) {
  try {
    return { index, prepared: await prepare(await image, fetching) };
  } catch (error) {
    return { index, error: ofPicture(error) };
  }
}
