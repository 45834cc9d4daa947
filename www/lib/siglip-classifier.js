// <siglip-classifier model="demo" labels="a cat, a dog" template="This is a photo of {}."></siglip-classifier>
// A picture goes in by button, drop, paste or the `image` property; the labels' probabilities come out.
// Events, all bubbling: siglip-result (detail: LabelScore[]), siglip-error (SiglipError), siglip-progress (ProgressEvent).
// The model is loaded at the first use, and shared by all tags that name the same one.
import { tagOf } from "./client/arguments.js";
import { SEPARATORS, fits, percent } from "./client/scores.js";
import { addressIn, mayHoldPictures, picturesAmong } from "./client/transfer.js";
import { SiglipClassifier, SiglipError } from "./siglip-web.js";

/** @typedef {import("./siglip-web.d.ts").ImageInput} ImageInput */
/** @typedef {import("./siglip-web.d.ts").LabelScore} LabelScore */
/** @typedef {import("./siglip-classifier.d.ts").Texts} Texts */
/** @typedef {typeof import("./siglip-classifier.d.ts").SiglipClassifierElement} Declared */
/** @typedef {"observedAttributes" | "connectedCallback" | "disconnectedCallback" | "adoptedCallback" | "attributeChangedCallback"} Callbacks */
/** @typedef {import("./ports.d.ts").Implements<Declared, typeof SiglipClassifierElement>} AsDeclared */
/** @typedef {import("./ports.d.ts").NothingMore<import("./ports.d.ts").Undeclared<Declared, typeof SiglipClassifierElement, Callbacks>>} NothingMore */

const CSS = `
:host { display: block; max-width: 32rem; font: 1rem/1.45 system-ui, sans-serif;
  --accent: var(--siglip-accent, light-dark(#1a56c4, #8ab4ff)); --line: var(--siglip-line, light-dark(#767b85, #8d94a0));
  --bar: var(--siglip-bar, light-dark(#d5e2fb, #2b4475)); --error: var(--siglip-error, light-dark(#a8200d, #ff9e8f));
  color: var(--siglip-color, light-dark(#16181d, #eceef2)); background: var(--siglip-background, light-dark(#fff, #17191e)); }
:host([hidden]) { display: none; }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
.drop { border: 1px dashed var(--line); border-radius: .5rem; padding: .75rem; display: grid; gap: .5rem; justify-items: center; }
.drop.over { border-style: solid; border-color: var(--accent); background: var(--bar); }
.button, button { font: inherit; color: var(--accent); background: transparent; border: 1px solid currentColor; border-radius: .4rem; padding: .4rem .9rem; min-height: 2.75rem; cursor: pointer;
  display: inline-flex; align-items: center; }
.button:focus-within, button:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
input { position: absolute; width: 1px; height: 1px; opacity: 0; }
img { max-width: 100%; max-height: 16rem; border-radius: .25rem; }
p { margin: 0; }
.row { display: flex; gap: .75rem; align-items: center; justify-content: space-between; margin-block: .5rem; min-height: 1.5rem; }
.row p { overflow-wrap: anywhere; }
.failed { color: var(--error); }
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: .25rem; }
li { position: relative; display: flex; justify-content: space-between; gap: 1rem; padding: .3rem .5rem; border-radius: .25rem; overflow: hidden; isolation: isolate; }
li span { overflow-wrap: anywhere; }
.share { position: absolute; inset: 0 auto 0 0; width: var(--share); background: var(--bar); z-index: -1; }
.percent { font-variant-numeric: tabular-nums; white-space: nowrap; }
@media (forced-colors: active) { .share { background: Highlight; forced-color-adjust: none; opacity: .4; } }
`;

/** What stands in the tag unless `texts` says otherwise. Braces hold what is put in. @type {Texts} */
export const ENGLISH = Object.freeze({
  locale: "en",
  image: "Image",
  choose: "Choose a picture",
  drop: "or drop or paste one here",
  picture: "The picture",
  named: "The picture {name}",
  results: "Results",
  stop: "Stop",
  stopped: "Stopped.",
  loading: "Loading the model…",
  looking: "Looking at the picture…",
  download: "Downloading {percent} of {megabytes} MB…",
  load: "Loading the model {percent}…",
  warmup: "Warming up…",
  best: "Best: {label}, {percent}.",
  perhaps: "Perhaps: {label}, {percent}.",
  none: "None of the labels fits.",
  percent: "{number}%",
  waiting: "{reason}",
  errors: {},
});

/** What a page or a framework may have set before the tag was defined. */
const PROPERTIES = ["texts", "model", "labels", "template", "scores", "topK", "backend", "dtype", "worker", "src", "image"];

/** So many in a row, and the model is given up. */
const MOST_CRASHES = 3;

/**
 * The models in use, by what they were asked for.
 * @type {Map<string, {users: Set<SiglipClassifierElement>, stop: AbortController, ready: Promise<SiglipClassifier>, loaded: boolean, crashes: number}>}
 */
const models = new Map();

// Where there is no page (a server that renders one) the module can still be imported.
const Base = globalThis.HTMLElement ?? /** @type {typeof HTMLElement} */ (class {});
/** A document takes no sheets of another one. @type {WeakMap<Document, CSSStyleSheet>} */
const sheets = new WeakMap();

export class SiglipClassifierElement extends Base {
  static observedAttributes = ["model", "labels", "template", "src", "scores", "top-k", "backend", "dtype", "worker"];

  /** @type {ImageInput | null} */
  #image = null;
  /** @type {any} labels set as a property, in place of the attribute's */
  #labels;
  /** Properties that no attribute can hold: a template of several, a model of files. @type {Map<string, any>} */
  #given = new Map();
  /** @type {Texts} */
  #texts = ENGLISH;
  /** @type {LabelScore[] | null} */
  #result = null;
  /** Of the model that gave it. @type {{tuned: boolean, exclusive: boolean}} */
  #kind = { tuned: false, exclusive: false };
  /** @type {string | undefined} the key of the model this tag holds */
  #model;
  /** @type {AbortController | undefined} ends what runs */
  #run;
  #planned = false;
  /** @type {string | undefined} what the last run was asked for */
  #asked;
  /** How often a picture was set. */
  #pictures = 0;
  #parts;

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    this.#dress(root);
    const input = make("input", { type: "file", accept: "image/*" });
    const choose = make("span", {});
    const button = make("label", { className: "button", part: "button" }, choose, input);
    // As the classifier reads pictures of other sites, and the only way in which cross-origin isolated pages may show them.
    const preview = make("img", { part: "preview", hidden: true, alt: "", crossOrigin: "anonymous" });
    const drop = make("div", { className: "drop", part: "drop" }, preview, button, make("p", { part: "hint" }));
    const status = make("p", { part: "status", role: "status" });
    const stop = make("button", { type: "button", part: "stop", hidden: true });
    const results = make("ol", { part: "results", role: "list" });
    root.append(drop, make("div", { className: "row" }, status, stop), results);
    this.#parts = { input, choose, hint: /** @type {HTMLElement} */ (drop.lastChild), drop, preview, status, stop, results };
    this.#word();

    input.addEventListener("change", () => {
      const file = input.files?.[0];
      // The same file may be chosen again, after it was changed on disk.
      input.value = "";
      if (file) this.image = file;
    });
    stop.addEventListener("click", () => {
      this.#run?.abort();
      // A download goes on only for other tags; a loaded model is kept.
      if (!models.get(this.#model ?? "")?.loaded) this.#release();
      this.#say(this.#texts.stopped);
      input.focus();
    });
    preview.addEventListener("load", () => URL.revokeObjectURL(preview.src));
    preview.addEventListener("error", () => {
      URL.revokeObjectURL(preview.src);
      preview.hidden = true;
    });
    // Whoever comes near will want the model.
    root.addEventListener("pointerdown", () => this.#warm());
    root.addEventListener("dragenter", () => this.#warm());
    this.addEventListener("dragover", (event) => {
      if (!mayHoldPictures(event.dataTransfer)) return;
      event.preventDefault();
      drop.classList.add("over");
    });
    this.addEventListener("dragleave", () => drop.classList.remove("over"));
    this.addEventListener("drop", (event) => this.#take(event, event.dataTransfer));
    this.addEventListener("paste", (event) => this.#take(event, event.clipboardData));
  }

  /** The picture shown and classified; setting it starts. */
  get image() {
    return this.#image;
  }

  set image(image) {
    if (tagOf(image) === "URL" && keyOf(image) === keyOf(this.#image)) return;
    this.#image = image ?? null;
    this.#pictures += 1;
    this.#forget();
    this.#show(this.#image);
    this.#plan();
  }

  /** The labels: those that were set, as an array or between separators, or else the attribute's. @returns {string[]} */
  get labels() {
    return this.#labels ?? split(this.getAttribute("labels") ?? "");
  }

  set labels(/** @type {string | readonly string[] | null | undefined} */ labels) {
    // What is none of these is told with the next picture, as an error of the classifier.
    this.#labels = typeof labels === "string" ? split(labels) : Array.isArray(labels) ? [...labels] : labels ?? undefined;
    this.#plan();
  }

  /** What stands in the tag; what is left out is English. @returns {Texts} */
  get texts() {
    return this.#texts;
  }

  set texts(/** @type {Partial<Texts> | null | undefined} */ texts) {
    this.#texts = Object.freeze({ ...ENGLISH, ...texts });
    this.#word();
    if (!this.#result) return;
    if (this.#parts.stop.hidden) this.#tell(this.#result);
    else this.#list(this.#result); // beside what is said of the run
  }

  /** @returns {import("./siglip-web.d.ts").ModelSource | null} */
  get model() {
    return this.#get("model");
  }

  set model(model) {
    this.#set("model", model);
  }

  /** @returns {string | readonly string[] | null} */
  get template() {
    return this.#get("template");
  }

  set template(template) {
    this.#set("template", template);
  }

  /** @returns {"sigmoid" | "softmax" | null} */
  get scores() {
    return this.#get("scores");
  }

  set scores(scores) {
    this.#set("scores", scores);
  }

  /** @returns {"auto" | "webgpu" | "cpu" | null} */
  get backend() {
    return this.#get("backend");
  }

  set backend(backend) {
    this.#set("backend", backend);
  }

  /** @returns {"auto" | "f32" | "f16" | "q8" | "q4" | null} */
  get dtype() {
    return this.#get("dtype");
  }

  set dtype(dtype) {
    this.#set("dtype", dtype);
  }

  /** @returns {string | null} */
  get src() {
    return this.getAttribute("src");
  }

  set src(/** @type {string | null | undefined} */ src) {
    if (src === null || src === undefined) this.removeAttribute("src");
    else this.setAttribute("src", src);
  }

  /** @returns {number | null} */
  get topK() {
    const text = this.getAttribute("top-k");
    return text === null ? null : Number(text);
  }

  set topK(/** @type {number | null | undefined} */ topK) {
    if (topK === null || topK === undefined) this.removeAttribute("top-k");
    else this.setAttribute("top-k", String(topK));
  }

  /** @returns {boolean} */
  get worker() {
    return this.getAttribute("worker") !== "false";
  }

  set worker(/** @type {boolean | string | null | undefined} */ worker) {
    if (worker === false || worker === "false") this.setAttribute("worker", "false");
    else this.removeAttribute("worker");
  }

  /** The last result; null while there is none. */
  get result() {
    return this.#result;
  }

  connectedCallback() {
    // Set before the tag was defined, they would stand before ours for ever.
    for (const name of PROPERTIES) {
      if (!Object.hasOwn(this, name)) continue;
      const value = /** @type {any} */ (this)[name];
      delete (/** @type {any} */ (this)[name]);
      /** @type {any} */ (this)[name] = value;
    }
    this.#plan();
  }

  disconnectedCallback() {
    // A tag that is only moved within the page comes back at once.
    queueMicrotask(() => {
      if (this.isConnected) return;
      this.#run?.abort();
      this.#asked = undefined;
      this.#release();
    });
  }

  /** It has come to another document, such as that of a frame or of a picture-in-picture window. */
  adoptedCallback() {
    if (this.shadowRoot) this.#dress(this.shadowRoot);
  }

  /** @param {string} name @param {string | null} before @param {string | null} after */
  attributeChangedCallback(name, before, after) {
    if (before === after) return;
    if (name === "labels") this.#labels = undefined;
    this.#given.delete(name);
    if (name === "src") this.image = after;
    else this.#plan();
  }

  /** All changes of one moment are one run; a framework that sets the same again, in arrays made anew whenever it renders, causes none. */
  #plan() {
    if (this.#planned) return;
    this.#planned = true;
    queueMicrotask(() => {
      this.#planned = false;
      if (!this.isConnected) return;
      if (this.#model !== undefined && this.#model !== this.#key()) this.#release();
      const asked = keyOf([this.#key(), this.labels, this.template, this.scores, this.topK, this.#pictures]);
      if (asked === this.#asked) return;
      this.#asked = asked;
      this.#classify();
    });
  }

  async #classify() {
    this.#run?.abort();
    const run = (this.#run = new AbortController());
    const { stop } = this.#parts;
    stop.hidden = this.#image === null;
    if (this.#image === null) return;
    this.#say(this.#texts.loading);
    try {
      const classifier = await Promise.race([this.#acquire(), aborted(run.signal)]);
      this.#say(this.#texts.looking);
      /** @type {import("./siglip-web.d.ts").ClassifyOptions} */
      const options = { signal: run.signal };
      const [template, scores, topK] = [this.template, this.scores, this.topK];
      if (template !== null) options.template = template;
      if (scores !== null) options.scores = scores;
      if (topK !== null) options.topK = topK;
      const { info } = classifier;
      const labels = this.labels;
      // Without labels of the tag's, those that the model has.
      const own = info.labels !== undefined && Array.isArray(labels) && labels.length === 0;
      const result = await classifier.classify(this.#image, own ? undefined : labels, options);
      const model = models.get(this.#model ?? "");
      if (model) model.crashes = 0;
      if (run !== this.#run) return;
      this.#result = result;
      this.#kind = { tuned: info.task === "image-classification", exclusive: (scores ?? info.scores) === "softmax" };
      this.#tell(result);
      this.#emit("siglip-result", result);
    } catch (error) {
      if (run !== this.#run) return;
      if (error.code === "aborted") return;
      this.#forget();
      this.#say(this.#texts.errors[/** @type {SiglipError} */ (error).code] ?? error.message, true);
      this.#emit("siglip-error", error);
      // A model that crashed starts afresh by itself. What still can't be used isn't kept: the next picture loads the model again.
      const model = models.get(this.#model ?? "");
      const crashed = ["device-lost", "out-of-memory"].includes(error.code) && model && ++model.crashes >= MOST_CRASHES;
      if (crashed || error.code === "disposed") this.#release(true);
    } finally {
      if (run === this.#run) stop.hidden = true;
    }
  }

  #key() {
    const { model, backend, dtype, worker } = this;
    return keyOf([model, backend, dtype, worker]);
  }

  /** The attribute, or what was set in its place. @param {string} name @returns {any} */
  #get(name) {
    return this.#given.get(name) ?? this.getAttribute(name);
  }

  /** Words are attributes; what else there is takes the attribute's place until that is set again. @param {string} name @param {any} value */
  #set(name, value) {
    this.#given.delete(name);
    if (typeof value === "string") this.setAttribute(name, value);
    else this.removeAttribute(name);
    if (typeof value !== "string" && value !== null && value !== undefined) this.#given.set(name, value);
    this.#plan();
  }

  #warm() {
    if (this.isConnected) this.#acquire().catch(() => {});
  }

  /** @returns {Promise<SiglipClassifier>} */
  #acquire() {
    const key = this.#key();
    let model = models.get(key);
    if (!model) {
      const users = new Set();
      const stop = new AbortController();
      const ready = SiglipClassifier.load(this.model ?? "demo", {
        backend: this.backend ?? "auto",
        dtype: this.dtype ?? "auto",
        worker: this.worker,
        signal: stop.signal,
        onProgress: (progress) => users.forEach((user) => user.#progress(progress)),
      });
      const added = { users, stop, ready, loaded: false, crashes: 0 };
      models.set(key, (model = added));
      ready.then(
        () => { added.loaded = true; },
        // Tried again with the next picture.
        () => { if (models.get(key) === added) models.delete(key); },
      );
    }
    model.users.add(this);
    this.#model = key;
    return model.ready;
  }

  /** @param {boolean} [broken] no other tag is to take it over */
  #release(broken = false) {
    const key = this.#model ?? "";
    this.#model = undefined;
    const model = models.get(key);
    model?.users.delete(this);
    if (!model || (model.users.size > 0 && !broken)) return;
    models.delete(key);
    model.stop.abort();
    model.ready.then((classifier) => classifier.dispose(), () => {});
  }

  /** @param {import("./siglip-web.d.ts").ProgressEvent} progress */
  #progress(progress) {
    const { stage, loaded, total, waiting } = progress;
    if (this.#image !== null && waiting) this.#say(fill(this.#texts.waiting, { reason: waiting }));
    else if (this.#image !== null && stage !== "ready") {
      const known = total > 0 && stage !== "warmup";
      const values = { percent: fill(this.#texts.percent, { number: this.#number(Math.floor((100 * loaded) / total), 0) }), megabytes: this.#number(total / 1e6, 1) };
      this.#say(known ? fill(this.#texts[stage], values) : stage === "warmup" ? this.#texts.warmup : this.#texts.loading);
    }
    this.#emit("siglip-progress", progress);
  }

  /** @param {Event} event @param {DataTransfer | null} data */
  #take(event, data) {
    this.#parts.drop.classList.remove("over");
    const [file] = picturesAmong(data?.files ?? []);
    const address = addressIn(data);
    if (!file && !address) return;
    event.preventDefault();
    this.image = file ?? address ?? null;
  }

  /** Gives it the style, in a sheet of its document's own. @param {ShadowRoot} root */
  #dress(root) {
    const { ownerDocument } = this;
    const view = ownerDocument.defaultView;
    if (!view) return; // nothing is shown there
    let sheet = sheets.get(ownerDocument);
    if (!sheet) {
      sheet = /** @type {CSSStyleSheet} */ (new (/** @type {any} */ (view).CSSStyleSheet)());
      sheet.replaceSync(CSS);
      sheets.set(ownerDocument, sheet);
    }
    root.adoptedStyleSheets = [sheet];
  }

  /** What doesn't change with the picture. */
  #word() {
    const { input, choose, hint, stop, results } = this.#parts;
    const { image, choose: chosen, drop, stop: stopping, results: listed } = this.#texts;
    [input.ariaLabel, choose.textContent, hint.textContent, stop.textContent, results.ariaLabel] = [image, chosen, drop, stopping, listed];
  }

  /** No result stands beside another picture, or beside an error. */
  #forget() {
    this.#result = null;
    this.#parts.results.replaceChildren();
  }

  /** @param {LabelScore[]} result */
  #tell(result) {
    this.#list(result);
    const [best] = result;
    const { tuned, exclusive } = this.#kind;
    const fit = best ? fits(best.score, tuned) : "no";
    // Of labels that exclude each other one is right.
    if (best) this.#say(fit === "no" && !(tuned && exclusive) ? this.#texts.none : fill(fit === "yes" ? this.#texts.best : this.#texts.perhaps, { label: best.label, percent: this.#percent(best.score) }));
  }

  /** @param {number} number @param {number} digits */
  #number(number, digits) {
    return number.toLocaleString(this.#texts.locale, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  }

  /** @param {number} score */
  #percent(score) {
    const [point] = (0.5).toLocaleString(this.#texts.locale).match(/[^\d]/) ?? ["."];
    return fill(this.#texts.percent, { number: percent(score).replace("%", "").replace(".", point ?? ".") });
  }

  /** @param {LabelScore[]} result */
  #list(result) {
    this.#parts.results.replaceChildren(...result.map(({ label, score }) => {
      const share = make("div", { className: "share", part: "bar" });
      share.style.setProperty("--share", `${100 * score}%`);
      return make("li", { part: "result" }, share, make("span", { part: "label" }, label), " ", make("span", { className: "percent", part: "percent" }, this.#percent(score)));
    }));
  }

  /** @param {string} text @param {boolean} [failed] */
  #say(text, failed = false) {
    const { status } = this.#parts;
    if (status.textContent !== text) status.textContent = text;
    status.classList.toggle("failed", failed);
  }

  /** @param {any} image */
  async #show(image) {
    const { preview } = this.#parts;
    URL.revokeObjectURL(preview.src);
    preview.hidden = true;
    preview.removeAttribute("src");
    if (image === null) return this.#say("");
    preview.alt = image.name ? fill(this.#texts.named, { name: image.name }) : this.#texts.picture;
    let address = "";
    try {
      if (typeof image === "string" || image instanceof URL) address = String(image);
      else if (image instanceof HTMLImageElement) address = image.currentSrc || image.src;
      else address = URL.createObjectURL(await previewOf(image));
    } catch {
      return; // no picture to show; the classifier says why
    }
    if (image !== this.#image) return URL.revokeObjectURL(address);
    preview.src = address;
    preview.hidden = false;
  }

  /** @param {string} type @param {any} detail */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true, composed: true }));
  }
}

/** @param {any} image @returns {Promise<Blob> | Blob} */
function previewOf(image) {
  if (image instanceof Blob) return image;
  if (image instanceof ArrayBuffer || ArrayBuffer.isView(image)) return new Blob([/** @type {ArrayBuffer} */ (image)]);
  // The classifier reads it too, with other labels perhaps more than once.
  if (image instanceof Response) return image.clone().blob();
  const width = image.displayWidth ?? image.videoWidth ?? image.width;
  const height = image.displayHeight ?? image.videoHeight ?? image.height;
  const canvas = new OffscreenCanvas(width, height);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
  if (image instanceof ImageData) context.putImageData(image, 0, 0);
  else context.drawImage(image, 0, 0);
  return canvas.convertToBlob();
}

/** @param {AbortSignal} signal @returns {Promise<never>} */
function aborted(signal) {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(new SiglipError("aborted", "Stopped.")), { once: true });
  });
}

/** @param {string} text */
function split(text) {
  return text.split(SEPARATORS).map((label) => label.trim()).filter(Boolean);
}

/** @param {string} text @param {Record<string, string>} values */
function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** @type {WeakMap<object, number>} */
const numbers = new WeakMap();
let count = 0;

/**
 * What tells values apart: their content, as far as frameworks make it anew; of others (files, a folder's handle) a number of their own.
 * @param {any} value @param {number} [depth] no object deeper than a model's files is looked into @returns {string}
 */
function keyOf(value, depth = 3) {
  const tag = tagOf(value);
  if (tag === "URL") return value.href;
  if (value === null || typeof value !== "object") return JSON.stringify([typeof value, String(value)]);
  if (depth > 0 && ["Array", "Object"].includes(tag)) return JSON.stringify(Object.entries(value).map(([name, one]) => [name, keyOf(one, depth - 1)]));
  if (!numbers.has(value)) numbers.set(value, ++count);
  return String(numbers.get(value));
}

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {Record<string, any>} properties @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[T]}
 */
function make(tag, { part, role, ...properties }, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  if (part) element.setAttribute("part", part);
  if (role) element.setAttribute("role", role);
  element.append(...children);
  return element;
}

if (globalThis.customElements && !customElements.get("siglip-classifier")) customElements.define("siglip-classifier", SiglipClassifierElement);
