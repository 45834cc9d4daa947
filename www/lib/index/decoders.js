// Pictures decoded and scaled to the model's input beside the engine, which embeds the ones before meanwhile. The pixels are the engine's own.
import { openLink } from "../client/link.js";
import { node, processors } from "../platform.js";

/** @typedef {import("../client/link.js").Link} Link */
/** @typedef {import("../siglip-web.d.ts").ModelInfo} ModelInfo */

/** Beside a GPU, which takes a picture in milliseconds; the CPU's own threads want the cores for themselves. */
const MOST = { webgpu: 4, cpu: 1 };
/** Larger ones go to the engine as they are, which says what is wrong with them. Bytes. */
const LARGEST = 64 * 2 ** 20;

export class Decoders {
  #info;
  #place;
  /** @type {Promise<Link | undefined>[]} */
  #links = [];
  #turn = 0;

  /** @param {ModelInfo} info @param {import("../client/link.js").Place} place whose worker decodes too */
  constructor(info, place) {
    this.#info = info;
    this.#place = place;
  }

  /** Starts the workers, once. */
  start() {
    // A NaFlex model's patches depend on the picture's own size.
    const count = node || this.#info.naflex || typeof ImageData === "undefined" ? 0 : Math.min(processors() - 1, MOST[this.#info.backend] ?? 1);
    while (this.#links.length < count) this.#links.push(openLink(true, async (link) => link, this.#place).catch(() => undefined));
  }

  /** The picture as the model's input, or as it was where it isn't a file, or only the engine or the browser can read it. @param {any} image @returns {Promise<any>} */
  async decode(image) {
    const link = this.#links.length > 0 && image instanceof Blob && image.size <= LARGEST ? await this.#links[this.#turn++ % this.#links.length] : undefined;
    if (!link) return image;
    const { imageSize, resample } = this.#info;
    try {
      const bytes = new Uint8Array(await image.arrayBuffer());
      const { value } = await link.request(/** @type {any} */ ({ method: "shrink", given: [bytes, imageSize, resample] }), undefined, [bytes.buffer]).reply;
      return new ImageData(new Uint8ClampedArray(value.buffer, value.byteOffset, value.length), imageSize, imageSize);
    } catch {
      return image;
    }
  }

  /** @param {import("../error.js").SiglipError} reason */
  end(reason) {
    for (const link of this.#links) link.then((opened) => opened?.close(reason));
    this.#links = [];
  }
}
