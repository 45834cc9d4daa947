// ImageInput → what the engine takes: the encoded file, or all of its pixels. Nothing is ever resized here: a
// browser's canvas resizes in its own way, and the model's scores would follow it.
import { bytesOf } from "../data-address.js";
import { SiglipError, aborted } from "../error.js";
import { STALLED, Watch } from "../files/watch.js";

/**
 * @typedef {import("../ports.d.ts").Picture} Picture
 * @typedef {object} Prepared
 * @property {Picture} picture
 * @property {() => Promise<Picture>} [decode] the browser's own decoder, for a format that the engine doesn't know
 * @typedef {{signal: AbortSignal, stall?: number}} Fetching signal: ends it; stall: milliseconds of nothing that count as broken off
 */

/** Files above this are refused before they are read; no picture within the decoder's limits is as large. */
const MAX_BYTES = 256 * 2 ** 20;
/** The engine's own limit, checked before memory for the pixels is taken. */
const MAX_PIXELS = 1e8;
/** Longest side, in pixels, of a drawing that has no pixels of its own (SVG). */
const SVG_SIDE = { least: 1024, most: 4096 };

/**
 * Takes the picture as it is now: what its owner does with the canvas, frame or buffer afterwards changes nothing.
 * @param {any} image
 * @param {Fetching} fetching
 * @returns {Promise<Prepared>}
 */
export async function prepare(image, fetching) {
  // By tag, not by instanceof: objects of another frame are as good.
  switch (Object.prototype.toString.call(image).slice(8, -1)) {
    case "Blob":
    case "File":
      return fromBlob(image, image.name ? `The file ${JSON.stringify(image.name)}` : "The picture");
    case "String":
      if (typeof image !== "string") break;
      return fromAddress(image, fetching);
    case "ArrayBuffer":
    case "SharedArrayBuffer":
      return fromBytes(new Uint8Array(image).slice());
    case "HTMLImageElement":
      return fromElement(image, fetching);
    case "ImageData":
      return { picture: fromImageData(image) };
    case "HTMLCanvasElement":
    case "OffscreenCanvas":
    case "ImageBitmap":
      return { picture: draw(image, image.width, image.height) };
    case "VideoFrame":
      return { picture: draw(image, image.displayWidth, image.displayHeight) };
    default:
      if (ArrayBuffer.isView(image)) return fromBytes(new Uint8Array(image.buffer, image.byteOffset, image.byteLength).slice());
  }
  const given = image === null ? "null" : typeof image === "object" ? `a ${Object.prototype.toString.call(image).slice(8, -1)}` : typeof image;
  throw new SiglipError("bad-input", `The image is ${given}. It must be a File or Blob, an ArrayBuffer or Uint8Array with an encoded picture, an address, or an <img>, canvas, ImageBitmap, ImageData or VideoFrame.`);
}

/** @param {Uint8Array<ArrayBuffer>} bytes @returns {Prepared} */
function fromBytes(bytes) {
  checkSize(bytes.length, "The picture");
  return { picture: { bytes }, decode: () => decode(new Blob([bytes]), bytes) };
}

/** @param {Blob} blob @param {string} what @returns {Promise<Prepared>} */
async function fromBlob(blob, what) {
  checkSize(blob.size, what);
  let bytes;
  try {
    bytes = new Uint8Array(await blob.arrayBuffer());
  } catch (error) {
    throw new SiglipError("network", `${what} could not be read (${error.message}). It may have been moved or changed since it was chosen: choose it again.`, { cause: error });
  }
  return { picture: { bytes }, decode: () => decode(blob, bytes) };
}

/** @param {number} size @param {string} what */
function checkSize(size, what) {
  if (size === 0) throw new SiglipError("bad-image", `${what} is empty (0 bytes). Choose it again, or another one.`);
  if (size > MAX_BYTES) throw new SiglipError("bad-image", `${what} has ${Math.round(size / 2 ** 20)} MiB; at most ${MAX_BYTES / 2 ** 20} MiB are read. Save it smaller.`);
}

/** @param {string} text @param {Fetching} fetching @returns {Promise<Prepared>} */
async function fromAddress(text, fetching) {
  let address;
  try {
    if (text.trim() === "") throw new TypeError("it is blank");
    address = new URL(text, globalThis.document?.baseURI ?? self.location?.href);
  } catch (error) {
    throw new SiglipError("bad-input", `The image address ${quote(text)} is not one (${error.message}). Give a full address such as https://example.org/cat.jpg.`);
  }
  if (!["http:", "https:", "data:", "blob:"].includes(address.protocol) && address.protocol !== self.location?.protocol) {
    throw new SiglipError("bad-input", `The image address ${quote(text)} starts with ${address.protocol}, which a page can't fetch. Give an https:, data: or blob: address, or the file itself.`);
  }
  return fromBlob(await download(address, fetching), `The picture at ${quote(address.href)}`);
}

/** Nothing coming for so long counts as broken off, and so does a picture that isn't there after ten times that. Milliseconds. */
const STALL = 30_000;

/** @param {URL} address @param {Fetching} fetching @returns {Promise<Blob>} */
async function download(address, { signal: stop, stall = STALL }) {
  if (address.protocol === "data:") return fromDataAddress(address);
  const name = quote(address.href);
  const watch = new Watch(stall, stop);
  const late = () => new SiglipError("network", `The picture at ${name} did not come: its server gave nothing for ${stall / 1000} seconds, or less than all of it in ${stall / 100} seconds. Try again, or save the picture and choose it as a file.`);
  const began = performance.now();
  let response;
  try {
    response = await watch.during(fetch(address, { signal: watch.signal }));
  } catch (error) {
    if (stop.aborted) throw aborted();
    if (error === STALLED) throw late();
    throw new SiglipError("network", `The picture at ${name} could not be fetched (${error.message}). Check the address and the connection; if it is on another site, that site may not let pages read it (CORS): save the picture and choose it as a file.`, { cause: error });
  }
  if (!response.ok) {
    response.body?.cancel().catch(() => {});
    throw new SiglipError("network", `The picture at ${name} could not be fetched: the server answered HTTP ${response.status}. Check the address.`);
  }
  if (/^text\/html\b/i.test(response.headers.get("content-type") ?? "")) {
    response.body?.cancel().catch(() => {});
    throw new SiglipError("bad-image", `${name} is a web page, not a picture. Give the address of the picture itself.`);
  }
  const parts = [];
  let size = Number(response.headers.get("content-length"));
  const reader = response.body?.getReader();
  try {
    if (size > 0) checkSize(size, `The picture at ${name}`);
    size = 0;
    while (reader) {
      const { done, value } = await watch.during(reader.read());
      if (done) break;
      parts.push(value);
      size += value.length;
      // Its length may not have been told, or not truly.
      if (size > MAX_BYTES) checkSize(size, `The picture at ${name}`);
      if (performance.now() - began > 10 * stall) throw STALLED;
    }
    return new Blob(parts, { type: response.headers.get("content-type") ?? "" });
  } catch (error) {
    if (stop.aborted) throw aborted();
    if (error === STALLED) throw late();
    if (error instanceof SiglipError) throw error;
    throw new SiglipError("network", `The download of ${name} broke off (${error.message}). Try again.`, { cause: error });
  } finally {
    reader?.cancel().catch(() => {});
  }
}

/** @param {URL} address */
function fromDataAddress(address) {
  try {
    return new Blob([bytesOf(address)]);
  } catch (error) {
    throw new SiglipError("bad-image", `The data: address is damaged (${error.message}), so it holds no picture.`, { cause: error });
  }
}

/** A decoded picture of the page: the file behind it where it can be had (exact), else what is shown. @param {HTMLImageElement} element @param {Fetching} fetching @returns {Promise<Prepared>} */
async function fromElement(element, fetching) {
  if (!element.currentSrc && !element.src) throw new SiglipError("bad-input", "The <img> has no src yet. Set it, then classify.");
  try {
    await new Watch(fetching.stall ?? STALL, fetching.signal).during(element.decode());
  } catch (error) {
    if (error === STALLED) throw new SiglipError("network", `The <img> with ${quote(element.currentSrc || element.src)} is still loading. Classify it once it shows.`);
    throw new SiglipError("bad-image", `The <img> with ${quote(element.currentSrc || element.src)} did not load or is no picture.`, { cause: error });
  }
  try {
    const address = new URL(element.currentSrc || element.src, element.baseURI);
    return await fromBlob(await download(address, fetching), "The picture of the <img>");
  } catch (error) {
    if (fetching.signal.aborted) throw aborted();
    return { picture: draw(element, element.naturalWidth, element.naturalHeight) };
  }
}

/** @param {ImageData} image @returns {Picture} */
function fromImageData(image) {
  const { width, height, data } = image;
  if (image.colorSpace === "srgb" && data instanceof Uint8ClampedArray) {
    checkPixels(width, height);
    return { rgba: data.slice(), width, height };
  }
  // Another colour space, or half floats: the canvas converts both.
  const [canvas, context] = surface(width, height);
  context.putImageData(image, 0, 0);
  return draw(canvas, width, height);
}

/** @param {Blob} blob @param {Uint8Array} bytes @returns {Promise<Picture>} */
async function decode(blob, bytes) {
  const drawing = svgText(bytes);
  if (drawing !== undefined) return rasterise(drawing);
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", premultiplyAlpha: "none" });
  } catch (error) {
    throw new SiglipError("bad-image", "Neither the library nor this browser can decode the picture: it is damaged, or of a format that this browser doesn't know. Save it as JPEG, PNG or WebP.", { cause: error });
  }
  try {
    return draw(bitmap, bitmap.width, bitmap.height);
  } finally {
    bitmap.close();
  }
}

/** The text of an SVG file, else nothing. @param {Uint8Array} bytes */
function svgText(bytes) {
  const [first, second] = bytes;
  const encoding = first === 0xff && second === 0xfe ? "utf-16le" : first === 0xfe && second === 0xff ? "utf-16be" : "utf-8";
  const start = new TextDecoder(encoding).decode(bytes.subarray(0, 65536)).trimStart();
  return /^</.test(start) && /[<:]svg[\s>]/i.test(start) ? new TextDecoder(encoding).decode(bytes) : undefined;
}

/** A drawing has no pixels of its own: it is drawn as large as it says, within bounds. @param {string} text @returns {Promise<Picture>} */
async function rasterise(text) {
  const bad = (/** @type {string} */ why) => new SiglipError("bad-image", `The SVG drawing could not be drawn: ${why}. Save it as PNG.`);
  if (!globalThis.document) throw new SiglipError("unsupported", "An SVG drawing can only be drawn by a page, not by a worker. Draw it there, or save it as PNG.");
  const root = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  if (root.localName !== "svg") throw bad("it is not well-formed XML");
  const [, , boxWidth = NaN, boxHeight = NaN] = (root.getAttribute("viewBox") ?? "").trim().split(/[\s,]+/).map(Number);
  const length = (/** @type {string} */ name) => Number(/^\s*([\d.]+(?:e[+-]?\d+)?)\s*(px|pt|pc|mm|cm|in)?\s*$/i.exec(root.getAttribute(name) ?? "")?.[1]);
  let width = length("width") || (length("height") * boxWidth) / boxHeight || boxWidth || 300;
  let height = length("height") || (width * boxHeight) / boxWidth || boxHeight || 150;
  const longest = Math.max(width, height);
  const scale = Math.min(Math.max(longest, SVG_SIDE.least), SVG_SIDE.most) / longest;
  width = Math.max(1, Math.round(width * scale));
  height = Math.max(1, Math.round(height * scale));
  root.setAttribute("width", String(width));
  root.setAttribute("height", String(height));
  if (!root.hasAttribute("viewBox")) root.setAttribute("viewBox", `0 0 ${width / scale} ${height / scale}`);
  const address = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(root)], { type: "image/svg+xml" }));
  try {
    const image = new Image(width, height);
    image.src = address;
    await image.decode();
    return draw(image, width, height);
  } catch (error) {
    throw error instanceof SiglipError ? error : bad(error.message);
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** All pixels of what a canvas can draw, tile by tile: large pictures are beyond a canvas's own limits. @param {any} source @param {number} width @param {number} height @returns {Picture} */
function draw(source, width, height) {
  checkPixels(width, height);
  const side = 8192;
  const [, context] = surface(Math.min(side, width), Math.min(side, height));
  try {
    if (width <= side && height <= side) {
      context.drawImage(source, 0, 0);
      return { rgba: context.getImageData(0, 0, width, height).data, width, height };
    }
    const rgba = new Uint8ClampedArray(width * height * 4);
    for (let y = 0; y < height; y += side) {
      for (let x = 0; x < width; x += side) {
        const [w, h] = [Math.min(side, width - x), Math.min(side, height - y)];
        context.clearRect(0, 0, w, h);
        context.drawImage(source, -x, -y);
        const { data } = context.getImageData(0, 0, w, h);
        for (let row = 0; row < h; row++) rgba.set(data.subarray(row * w * 4, (row + 1) * w * 4), ((y + row) * width + x) * 4);
      }
    }
    return { rgba, width, height };
  } catch (error) {
    if (error.name === "SecurityError") {
      throw new SiglipError("network", "The picture comes from another site that doesn't let this page read its pixels (CORS). Load it with crossorigin=\"anonymous\" from a site that allows it, or save it and choose it as a file.", { cause: error });
    }
    if (error.name === "InvalidStateError") throw new SiglipError("bad-image", "The picture has no pixels any more: it was closed or is broken.", { cause: error });
    throw error;
  }
}

/** @param {number} width @param {number} height @returns {[OffscreenCanvas, OffscreenCanvasRenderingContext2D]} */
function surface(width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  if (!context) throw new SiglipError("out-of-memory", "This browser has no memory left for a canvas. Close other tabs.");
  return [canvas, context];
}

/** @param {number} width @param {number} height */
function checkPixels(width, height) {
  if (!width || !height) throw new SiglipError("bad-image", `The picture has no pixels (${width} × ${height}): it is empty, closed or not loaded yet.`);
  if (width * height > MAX_PIXELS) throw new SiglipError("bad-image", `The picture has ${width} × ${height} pixels; at most ${MAX_PIXELS / 1e6} million are read. Save it smaller.`);
}

/** @param {string} text */
function quote(text) {
  return JSON.stringify(text.length > 120 ? `${text.slice(0, 117)}…` : text);
}
