// ImageInput → what the engine takes: the encoded file, or all of its pixels. Nothing is ever resized here: a
// browser's canvas resizes in its own way, and the model's scores would follow it.
import { bytesOf } from "../data-address.js";
import { SiglipError, aborted } from "../error.js";
import { fileAt } from "../files/node.js";
import { STALLED, Watch } from "../files/watch.js";
import { addressOf, isFile, readable } from "../platform.js";
import { trusted } from "../trusted.js";
import { decoderTurns, orientationOf, upright } from "./avif.js";

/**
 * @typedef {import("../ports.d.ts").Picture} Picture
 * @typedef {object} Prepared
 * @property {Picture} picture
 * @property {(refusal: SiglipError) => Promise<Picture>} [decode] the browser's own decoder, for what the engine refused to read
 * @typedef {{signal: AbortSignal, stall?: number}} Fetching signal: ends it; stall: milliseconds of nothing that count as broken off
 */

/** Files above this are refused before they are read; no picture within the decoder's limits is as large. */
const MAX_BYTES = 256 * 2 ** 20;
/** The engine's own limit, checked before memory for the pixels is taken. */
export const MAX_PIXELS = 1e8;
/** How long the browser's decoder may take, in milliseconds. */
const PATIENCE = 60_000;
/** What a drawing may make the browser do on the page's thread: elements, those that <use> repeats among them, and steps of filters over them. */
const SVG_WORK = { elements: 200_000, filters: 64 };
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
    case "URL":
      return fromAddress(image.href, fetching);
    case "Response":
      return fromResponse(image, fetching);
    case "ArrayBuffer":
    case "SharedArrayBuffer":
      return fromBytes(copyOf(image, 0, image.byteLength));
    case "HTMLImageElement":
      return { picture: await fromElement(image, fetching) };
    case "ImageData":
      return { picture: fromImageData(image) };
    case "HTMLCanvasElement":
    case "OffscreenCanvas":
    case "ImageBitmap":
      return { picture: draw(image, image.width, image.height) };
    case "VideoFrame":
      return { picture: draw(image, image.displayWidth, image.displayHeight) };
    case "HTMLVideoElement":
      // HAVE_CURRENT_DATA
      if (image.readyState < 2) throw new SiglipError("bad-input", "The <video> has no frame yet. Wait for its loadeddata event, then classify.");
      return { picture: draw(image, image.videoWidth, image.videoHeight) };
    default:
      if (ArrayBuffer.isView(image)) return fromBytes(copyOf(image.buffer, image.byteOffset, image.byteLength));
  }
  const given = image === null ? "null" : typeof image === "object" ? `a ${Object.prototype.toString.call(image).slice(8, -1)}` : typeof image;
  throw new SiglipError("bad-input", `The image is ${given}. It must be a File or Blob, an ArrayBuffer or Uint8Array with an encoded picture, an address (URL), a Response, or an <img>, <video>, canvas, ImageBitmap, ImageData or VideoFrame.`);
}

/** @param {Uint8Array<ArrayBuffer>} bytes @returns {Prepared} */
function fromBytes(bytes) {
  checkSize(bytes.length, "The picture");
  return { picture: { bytes }, decode: (refusal) => decode(new Blob([bytes]), bytes, refusal) };
}

/** @param {ArrayBufferLike} buffer @param {number} start @param {number} length */
function copyOf(buffer, start, length) {
  try {
    return new Uint8Array(buffer, start, length).slice();
  } catch (error) {
    throw new SiglipError("bad-input", "The picture's ArrayBuffer is detached: it was transferred to somewhere else. Give the picture before, or a copy.", { cause: error });
  }
}

/**
 * @template T
 * @param {Promise<T>} work
 * @param {number} time how long it may take, in milliseconds
 * @param {() => SiglipError} late the error if it takes longer
 * @returns {Promise<T>}
 */
async function within(work, time, late) {
  try {
    return await new Watch(time, new AbortController().signal).during(work);
  } catch (error) {
    throw error === STALLED ? late() : error;
  }
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
  return { picture: { bytes }, decode: (refusal) => decode(blob, bytes, refusal) };
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
    address = addressOf(text);
  } catch (error) {
    throw new SiglipError("bad-input", `The image address ${quote(text)} is not one (${error.message}). Give a full address such as https://example.org/cat.jpg.`);
  }
  if (address.protocol !== "data:" && !readable(address)) {
    throw new SiglipError("bad-input", `The image address ${quote(text)} starts with ${address.protocol}, which a page can't fetch. Give an https:, data: or blob: address, or the file itself.`);
  }
  if (isFile(address)) return fromFile(address);
  return fromBlob(await download(address, fetching), `The picture at ${quote(address.href)}`);
}

/** @param {URL} address of a file of Node.js @returns {Promise<Prepared>} */
async function fromFile(address) {
  const file = await fileAt(address);
  if (!file) throw new SiglipError("bad-input", `There is no picture at ${quote(address.href)}. Check the path.`);
  checkSize(file.size, `The picture at ${quote(address.href)}`);
  return fromBytes(new Uint8Array(await file.arrayBuffer()));
}

/** Nothing coming for so long counts as broken off, and so does a picture that isn't there after ten times that. Milliseconds. */
const STALL = 30_000;

/** The file at an address. @param {URL} address @param {Fetching} fetching @returns {Promise<Blob>} */
export async function download(address, { signal: stop, stall = STALL }) {
  if (address.protocol === "data:") return fromDataAddress(address);
  const name = quote(address.href);
  const watch = new Watch(stall, stop);
  let response;
  try {
    response = await watch.during(fetch(address, { signal: watch.signal }));
  } catch (error) {
    if (stop.aborted) throw aborted();
    if (error === STALLED) throw stalled(`The picture at ${name}`, stall);
    throw new SiglipError("network", `The picture at ${name} could not be fetched (${error.message}). Check the address and the connection; if it is on another site, that site may not let pages read it (CORS): save the picture and choose it as a file.`, { cause: error });
  }
  return bodyOf(response, `The picture at ${name}`, watch, stop);
}

/** A page's own fetch of a picture, which it may go on to read itself. @param {Response} response @param {Fetching} fetching @returns {Promise<Prepared>} */
async function fromResponse(response, { signal, stall = STALL }) {
  if (response.bodyUsed || response.body?.locked) throw new SiglipError("bad-input", "The Response has been read already, so its picture is gone. Give it before reading it, or a clone.");
  const what = response.url ? `The picture at ${quote(response.url)}` : "The picture of the Response";
  return fromBlob(await bodyOf(response.clone(), what, new Watch(stall, signal), signal), what);
}

/** @param {string} what @param {number} stall */
const stalled = (what, stall) => new SiglipError("network", `${what} did not come: its server gave nothing for ${stall / 1000} seconds, or less than all of it in ${stall / 100} seconds. Try again, or save the picture and choose it as a file.`);

/** @param {Response} response @param {string} what @param {Watch} watch @param {AbortSignal} stop @returns {Promise<Blob>} */
async function bodyOf(response, what, watch, stop) {
  if (!response.ok) {
    response.body?.cancel().catch(() => {});
    throw new SiglipError("network", `${what} could not be fetched: the server answered ${response.type === "opaque" ? "what this page may not read (CORS)" : `HTTP ${response.status}`}. Check the address.`);
  }
  if (/^text\/html\b/i.test(response.headers.get("content-type") ?? "")) {
    response.body?.cancel().catch(() => {});
    throw new SiglipError("bad-image", `${what} is a web page, not a picture. Give the address of the picture itself.`);
  }
  const began = performance.now();
  const parts = [];
  let size = Number(response.headers.get("content-length"));
  const reader = response.body?.getReader();
  const end = () => reader?.cancel().catch(() => {});
  stop.addEventListener("abort", end);
  try {
    if (size > 0) checkSize(size, what);
    size = 0;
    while (reader) {
      const { done, value } = await watch.during(reader.read());
      if (stop.aborted) throw aborted();
      if (done) break;
      parts.push(value);
      size += value.length;
      // Its length may not have been told, or not truly.
      if (size > MAX_BYTES) checkSize(size, what);
      if (performance.now() - began > 10 * watch.time) throw STALLED;
    }
    return new Blob(parts, { type: response.headers.get("content-type") ?? "" });
  } catch (error) {
    if (stop.aborted) throw aborted();
    if (error === STALLED) throw stalled(what, watch.time);
    if (error instanceof SiglipError) throw error;
    throw new SiglipError("network", `${what} broke off while it was downloaded (${error.message}). Try again.`, { cause: error });
  } finally {
    stop.removeEventListener("abort", end);
    end();
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

/** What an <img> shows at the call: its file may be another one by now. @param {HTMLImageElement} element @param {Fetching} fetching @returns {Promise<Picture>} */
async function fromElement(element, { signal, stall = STALL }) {
  const src = element.src;
  const address = element.currentSrc || src;
  if (!address) throw new SiglipError("bad-input", "The <img> has no src yet. Set it, then classify.");
  const broken = () => new SiglipError("bad-image", `The <img> with ${quote(address)} did not load or is no picture.`);
  if (!element.complete) {
    const late = () => new SiglipError("network", `The <img> with ${quote(address)} did not load within ${stall / 1000} seconds${element.loading === "lazy" ? `: with loading="lazy" it waits until it is scrolled to. Set loading="eager"` : ". Check the address and the connection"}.`);
    const events = new AbortController();
    const loaded = new Promise((resolve, reject) => {
      element.addEventListener("load", resolve, { signal: events.signal });
      element.addEventListener("error", () => reject(broken()), { signal: events.signal });
      signal.addEventListener("abort", () => reject(aborted()), { signal: events.signal });
    });
    try {
      await within(loaded, stall, late);
    } finally {
      events.abort();
    }
    if (element.src !== src) throw new SiglipError("bad-input", `The <img> with ${quote(address)} was given another src before it had loaded. Classify once it has loaded.`);
  }
  if (!element.naturalWidth) throw broken();
  return draw(element, element.naturalWidth, element.naturalHeight);
}

/** @param {ImageData} image @returns {Picture} */
function fromImageData(image) {
  const { width, height, data } = image;
  if (data.length !== width * height * 4) throw new SiglipError("bad-input", "The ImageData's buffer is detached: it was transferred to somewhere else. Give the picture before, or a copy.");
  if (image.colorSpace === "srgb" && data instanceof Uint8ClampedArray) {
    checkPixels(width, height);
    return { rgba: data.slice(), width, height };
  }
  // Another colour space, or half floats: the canvas converts both.
  const [canvas, context] = surface(width, height);
  context.putImageData(image, 0, 0);
  return draw(canvas, width, height);
}

/**
 * By the browser, which may know the format or be less strict; a picture that is too large is so everywhere, and what a file doesn't have nobody shall fill up.
 * @param {Blob} blob @param {Uint8Array} bytes @param {SiglipError} refusal @returns {Promise<Picture>}
 */
async function decode(blob, bytes, refusal) {
  if ("beyondRepair" in refusal) throw refusal;
  const drawing = svgText(bytes);
  if (drawing !== undefined) return rasterise(drawing);
  const [width, height] = sizeOf(bytes);
  if (width * height > MAX_PIXELS) throw refusal;
  let bitmap;
  try {
    const late = () => new SiglipError("bad-image", `This browser did not decode the picture within ${PATIENCE / 1000} seconds. Save it as JPEG, PNG or WebP.`);
    bitmap = await within(createImageBitmap(blob, { imageOrientation: "from-image", premultiplyAlpha: "none" }), PATIENCE, late);
  } catch (error) {
    if (error instanceof SiglipError) throw error;
    if (refusal.code === "bad-image") throw refusal;
    throw new SiglipError("bad-image", `Neither the library nor this browser can decode the picture: it is damaged, or of a format that this browser doesn't know (${refusal.message}). Save it as JPEG, PNG or WebP.`, { cause: error });
  }
  try {
    const picture = draw(bitmap, bitmap.width, bitmap.height);
    const orientation = orientationOf(bytes);
    return orientation && !(await decoderTurns()) ? upright(picture, orientation) : picture;
  } finally {
    bitmap.close();
  }
}

/** The size that the header of a JPEG, PNG, WebP, GIF or BMP gives; zeros if it is none of them. @param {Uint8Array} bytes @returns {[number, number]} */
function sizeOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  /** @param {string} magic */
  const is = (magic, at = 0) => [...magic].every((character, i) => bytes[at + i] === character.charCodeAt(0));
  /** @param {number} at */
  const u24 = (at) => view.getUint16(at, true) + 65536 * view.getUint8(at + 2);
  try {
    if (is("\x89PNG")) {
      const header = is("CgBI", 12) ? 32 : 16; // Apple's variant has a chunk before it
      return [view.getUint32(header), view.getUint32(header + 4)];
    }
    if (is("GIF8")) return [view.getUint16(6, true), view.getUint16(8, true)];
    if (is("BM")) return view.getUint32(14, true) === 12 ? [view.getUint16(18, true), view.getUint16(20, true)] : [view.getInt32(18, true), Math.abs(view.getInt32(22, true))];
    if (is("RIFF") && is("VP8X", 12)) return [1 + u24(24), 1 + u24(27)];
    if (!is("\xff\xd8\xff")) return [0, 0];
    for (let at = 2; ;) {
      const marker = view.getUint16(at);
      // The frame header, whichever of its kinds.
      if (marker >= 0xffc0 && marker <= 0xffcf && ![0xffc4, 0xffc8, 0xffcc].includes(marker)) return [view.getUint16(at + 7), view.getUint16(at + 5)];
      at += marker < 0xffc0 || marker === 0xffff ? 1 : 2 + Math.max(2, view.getUint16(at + 2));
    }
  } catch {
    return [0, 0];
  }
}

/** The text of an SVG file, else nothing. @param {Uint8Array} bytes */
function svgText(bytes) {
  const [first, second] = bytes;
  const encoding = first === 0xff && second === 0xfe ? "utf-16le" : first === 0xfe && second === 0xff ? "utf-16be" : "utf-8";
  const start = new TextDecoder(encoding).decode(bytes.subarray(0, 256)).trimStart();
  if (!start.startsWith("<")) return undefined;
  const text = new TextDecoder(encoding).decode(bytes);
  // Its first element, behind declarations and comments.
  const root = /^\s*(?:<!--[^]*?-->\s*|<\?[^]*?\?>\s*|<!DOCTYPE\b[^[>]*(?:\[[^]*?\]\s*)?>\s*)*<(?:[\w.-]+:)?(\w+)/i.exec(text);
  return root?.[1]?.toLowerCase() === "svg" ? text : undefined;
}

/** Refuses a drawing that would keep the page's thread busy. @param {Element} root */
function checkWork(root) {
  /** @param {string} what */
  const bad = (what) => new SiglipError("bad-image", `The SVG drawing takes too much work to draw: ${what}. Save it as PNG.`);
  const all = [...root.querySelectorAll("*")];
  const filters = all.filter((element) => element.localName === "filter");
  const steps = Math.max(0, ...filters.map((filter) => filter.childElementCount));
  const everywhere = all.some((element) => element.localName === "style" && /filter/.test(element.textContent ?? ""));
  /** @param {Element} element */
  const filtered = (element) => everywhere || element.hasAttribute("filter") || /filter/.test(element.getAttribute("style") ?? "");
  // What <use> repeats is drawn again each time, and may hold <use> in turn.
  const sizes = new Map();
  /** @param {Element} element @returns {{elements: number, filters: number}} */
  const workOf = (element) => {
    const known = sizes.get(element);
    if (known) return known;
    sizes.set(element, { elements: 0, filters: 0 }); // one that repeats itself draws nothing
    const size = { elements: 1, filters: filtered(element) ? Math.max(1, steps) : 0 };
    const add = (/** @type {Element} */ other) => {
      const { elements, filters } = workOf(other);
      size.elements += elements;
      size.filters += filters;
    };
    if (element.localName === "use") {
      const href = element.getAttribute("href") ?? element.getAttributeNS("http://www.w3.org/1999/xlink", "href") ?? "";
      const target = href.startsWith("#") && all.find((other) => other.id === href.slice(1));
      if (target) add(target);
    }
    for (const child of element.children) add(child);
    sizes.set(element, size);
    return size;
  };
  if (all.length > SVG_WORK.elements) throw bad(`it has ${all.length} elements`);
  const total = workOf(root);
  if (total.elements > SVG_WORK.elements) throw bad(`its <use> elements repeat ${total.elements} elements`);
  if (total.filters > SVG_WORK.filters) throw bad(`its filters have ${total.filters} steps in all`);
}

/** A drawing has no pixels of its own: it is drawn as large as it says, within bounds. @param {string} text @returns {Promise<Picture>} */
async function rasterise(text) {
  const bad = (/** @type {string} */ why) => new SiglipError("bad-image", `The SVG drawing could not be drawn: ${why}. Save it as PNG.`);
  if (!globalThis.document) throw new SiglipError("unsupported", "An SVG drawing can only be drawn by a page, not by a worker. Draw it there, or save it as PNG.");
  const root = new DOMParser().parseFromString(trusted.markup(text), "image/svg+xml").documentElement;
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
  checkWork(root);
  const drawing = new XMLSerializer().serializeToString(root);
  // A data: address, because a blob: one taints the canvas where a drawing holds HTML. A strict policy may forbid it.
  const show = async (/** @type {string} */ address) => {
    const image = new Image(width, height);
    image.src = address;
    await within(image.decode(), PATIENCE, () => bad(`this browser did not do it within ${PATIENCE / 1000} seconds`));
    return draw(image, width, height);
  };
  const blob = URL.createObjectURL(new Blob([drawing], { type: "image/svg+xml" }));
  try {
    return await show(`data:image/svg+xml;charset=utf-8,${encodeURIComponent(drawing)}`).catch((error) => {
      if (error instanceof SiglipError) throw error;
      return show(blob);
    });
  } catch (error) {
    throw error instanceof SiglipError ? error : bad(error.message);
  } finally {
    URL.revokeObjectURL(blob);
  }
}

/** All pixels of what a canvas can draw, tile by tile: large pictures are beyond a canvas's own limits. @param {any} source @param {number} width @param {number} height @returns {{rgba: Uint8ClampedArray, width: number, height: number}} */
function draw(source, width, height) {
  checkPixels(width, height);
  const side = 8192;
  const [, context] = surface(Math.min(side, width), Math.min(side, height));
  try {
    if (width <= side && height <= side) {
      // The size is said, because browsers differ in that of a drawing that has none.
      context.drawImage(source, 0, 0, width, height);
      return { rgba: context.getImageData(0, 0, width, height).data, width, height };
    }
    const rgba = new Uint8ClampedArray(width * height * 4);
    for (let y = 0; y < height; y += side) {
      for (let x = 0; x < width; x += side) {
        const [w, h] = [Math.min(side, width - x), Math.min(side, height - y)];
        context.clearRect(0, 0, w, h);
        context.drawImage(source, -x, -y, width, height);
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
