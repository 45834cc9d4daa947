// The orientation that an AVIF states in its boxes (ISO/IEC 23008-12: irot, imir), for browsers whose decoder leaves it to others: WebKit's own.

/** @typedef {{turns: number, mirror?: "vertical" | "horizontal"}} Orientation quarter turns anticlockwise, then top and bottom or left and right exchanged */

/** A gray AVIF of 2 × 1 pixels with a quarter turn. */
const TURNED = "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAAD1bWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAOcGl0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAEdAAAAHQAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAAAAB0aXBycAAAAFRpcGNvAAAAFGlzcGUAAAAAAAAAAgAAAAEAAAAQcGl4aQAAAAADCAgIAAAADGF2MUOBAAwAAAAAE2NvbHJuY2x4AAEADQAGgAAAAAlpcm90AwAAABhpcG1hAAAAAAAAAAEAAQUBAoMEhQAAACVtZGF0EgAKCBgAJsgIaDQgMg8ZR4eGIYAAaAAAIJBAzUA=";

/** @type {Promise<boolean> | undefined} */
let probe;

/** Whether this browser's decoder turns AVIFs as they say. */
export function decoderTurns() {
  return (probe ??= (async () => {
    const bytes = Uint8Array.from(atob(TURNED), (character) => character.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/avif" }));
    const { width, height } = bitmap;
    bitmap.close();
    return width < height;
  })().catch(() => true)); // it decodes no AVIF at all
}

/** What the primary item of an AVIF says; nothing for other files. @param {Uint8Array} bytes @returns {Orientation | undefined} */
export function orientationOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const word = (/** @type {number} */ at) => String.fromCharCode(...bytes.subarray(at, at + 4));
  /** The boxes between two places. @param {number} from @param {number} to @returns {Generator<{kind: string, start: number, end: number}>} */
  function* boxes(from, to) {
    for (let at = from; at + 8 <= to;) {
      let [size, start] = [view.getUint32(at), at + 8];
      if (size === 1) [size, start] = [Number(view.getBigUint64(start)), start + 8];
      if (size === 0) size = to - at;
      if (size < start - at || at + size > to) return;
      yield { kind: word(at + 4), start, end: at + size };
      at += size;
    }
  }
  /** @param {{start: number, end: number} | undefined} inside @param {string} kind @param {number} [skip] bytes of the box itself */
  const find = (inside, kind, skip = 0) => {
    for (const box of inside ? boxes(inside.start + skip, inside.end) : []) if (box.kind === kind) return box;
    return undefined;
  };
  try {
    const whole = { start: 0, end: bytes.length };
    const kind = find(whole, "ftyp");
    if (!kind || kind.start !== 8 || !/avi[fs]/.test(String.fromCharCode(...bytes.subarray(kind.start, kind.end)))) return undefined;
    const meta = find(whole, "meta");
    const primary = find(meta, "pitm", 4);
    const properties = find(meta, "iprp", 4);
    const list = find(properties, "ipco");
    const uses = find(properties, "ipma");
    if (!primary || !list || !uses) return undefined;
    const item = view.getUint8(primary.start) === 0 ? view.getUint16(primary.start + 4) : view.getUint32(primary.start + 4);
    const all = [...boxes(list.start, list.end)];
    /** @type {Orientation} */
    const orientation = { turns: 0 };
    for (const index of usedBy(item)) {
      const property = all[index - 1];
      if (property?.kind === "irot") orientation.turns = view.getUint8(property.start) & 3;
      if (property?.kind === "imir") orientation.mirror = view.getUint8(property.start) & 1 ? "horizontal" : "vertical";
    }
    return orientation;

    /** The properties of an item, counted from 1. @param {number} wanted */
    function usedBy(wanted) {
      const { start } = /** @type {{start: number}} */ (uses);
      const wide = view.getUint8(start) >= 1;
      const long = view.getUint8(start + 3) & 1;
      let at = start + 8;
      for (let left = view.getUint32(start + 4); left > 0; left--) {
        const id = wide ? view.getUint32(at) : view.getUint16(at);
        at += wide ? 4 : 2;
        const count = view.getUint8(at++);
        const indices = Array.from({ length: count }, (_, i) => (long ? view.getUint16(at + 2 * i) & 0x7fff : view.getUint8(at + i) & 0x7f));
        if (id === wanted) return indices;
        at += count * (long ? 2 : 1);
      }
      return [];
    }
  } catch {
    return undefined; // it ends early: the decoder says so
  }
}

/** The picture upright. @param {{rgba: Uint8ClampedArray, width: number, height: number}} picture @param {Orientation} orientation */
export function upright({ rgba, width, height }, { turns, mirror }) {
  if (turns === 0 && !mirror) return { rgba, width, height };
  const source = new Uint32Array(rgba.buffer, rgba.byteOffset, width * height);
  const [newWidth, newHeight] = turns % 2 ? [height, width] : [width, height];
  const pixels = new Uint32Array(source.length);
  for (let y = 0, at = 0; y < newHeight; y++) {
    const row = mirror === "vertical" ? newHeight - 1 - y : y;
    for (let x = 0; x < newWidth; x++, at++) {
      const column = mirror === "horizontal" ? newWidth - 1 - x : x;
      // Where the turned picture's pixel comes from.
      const from = turns === 0 ? row * width + column
        : turns === 1 ? column * width + (width - 1 - row)
        : turns === 2 ? (height - 1 - row) * width + (width - 1 - column)
        : (height - 1 - column) * width + row;
      pixels[at] = /** @type {number} */ (source[from]);
    }
  }
  return { rgba: new Uint8ClampedArray(pixels.buffer), width: newWidth, height: newHeight };
}
