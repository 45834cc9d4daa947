// ModelSource → where the model's files are.
import { bytesOf } from "../data-address.js";
import { SiglipError } from "../error.js";
import { PINS } from "../files/pins.js";
import { addressOf, isFile, readable } from "../platform.js";
import { badInput, show, tagOf } from "./arguments.js";

/** `cure`: as in LoadRequest. @typedef {{place: import("../ports.d.ts").Place, name: string, cure?: string}} Located */
/** @typedef {import("../siglip-web.d.ts").ModelFiles} ModelFiles */

/** The files that describe a model: transformers', or open_clip's. */
const CONFIGS = ["config.json", "open_clip_config.json"];

/** @type {ModelFiles | undefined} what siglip-web/demo gives */
let demo;

/** @param {ModelFiles} model */
export function provideDemo(model) {
  demo = model;
}

/**
 * @param {any} source
 * @returns {Located}
 */
export function locate(source) {
  if (typeof source === "string") return locateText(source.trim());
  const tag = tagOf(source);
  if (tag === "FileSystemDirectoryHandle") return { place: { kind: "directory", handle: source }, name: source.name };
  if (Array.isArray(source) || tag === "FileList") return locateFiles([...source]);
  if (tag === "Object" && typeof source.files === "object" && source.files !== null) return locateAddresses(source);
  throw badInput(`The model is ${show(source)}. It must be "demo", "owner/name" of the Hugging Face Hub, the address of a folder, the files of a checkpoint or their addresses ({files: {"config.json": …}}), or a directory handle.`);
}

/** @param {string} text @returns {Located} */
function locateText(text) {
  if (text === "demo") return locateDemo();
  if (/^([a-z][a-z\d+.-]*:|\.{0,2}[/\\])/i.test(text)) return locateAddress(text);
  const [, owner, name, asked] = /^([a-z\d][\w.-]{0,95})\/([a-z\d][\w.-]{0,95})(?:@([\w.-]+(?:\/[\w.-]+)*))?$/i.exec(text) ?? [];
  const model = `${owner}/${name}`;
  const pin = asked === undefined ? pinOf(model) : undefined;
  const revision = asked ?? pin?.commit ?? "main";
  if (!owner || revision.split("/").some((part) => /^\.+$/.test(part))) {
    throw badInput(`The model ${show(text)} is not known. Write "demo", "owner/name" or "owner/name@revision" for one of the Hugging Face Hub, or the address of a folder that starts with https://, / or ./.`);
  }
  const hub = { origin: "https://huggingface.co", model, revision, sums: pin?.files };
  const base = `${hub.origin}/${hub.model}/resolve/${encodeURIComponent(revision)}/`;
  return { place: { kind: "url", base, hub }, name: text };
}

/** What is known of a model of the Hub. @param {string} model */
function pinOf(model) {
  return Object.hasOwn(PINS, model) ? PINS[model] ?? undefined : undefined;
}

/** @returns {Located} */
function locateDemo() {
  if (demo) return locateAddresses(demo, true);
  // Not in words that a bundler knows: it can't take a whole folder. (In bundle/ where tools/bundle.mjs made this page's site.)
  const base = new URL(import.meta.url.replace(/(client|bundle)\/[^/]*$/, "models/demo/"));
  const cure = 'A bundler leaves the demo model behind: write import "siglip-web/demo"; once, and it finds the files.';
  if (!readable(base)) throw badInput(`The demo model was looked for at ${base.href}, which this page can't read. ${cure}`);
  return { place: isFile(base) ? { kind: "folder", base: base.href } : { kind: "url", base: base.href, ours: true }, name: "demo", cure };
}

/** @param {ModelFiles} model @param {boolean} [ours] @returns {Located} */
function locateAddresses({ name = "the model", files }, ours) {
  /** @type {Map<string, string>} */
  const addresses = new Map();
  /** @type {Map<string, File>} */
  const inline = new Map();
  for (const [file, text] of Object.entries(files)) {
    let address;
    try {
      address = addressOf(String(text));
    } catch (error) {
      throw badInput(`The address of the model's ${file}, ${show(text)}, is not one (${error.message}).`);
    }
    // Bundlers put small files into the script.
    if (address.protocol === "data:") inline.set(file, new File([bytesOf(address)], file));
    else if (readable(address)) addresses.set(file, address.href);
    else throw badInput(`The address of the model's ${file}, ${show(address.href)}, starts with ${address.protocol}, which this page can't read. With a bundler, write new URL("./${file}", import.meta.url) and nothing shorter.`);
  }
  const base = addresses.get("config.json") ?? addresses.values().next().value;
  if (!CONFIGS.some((file) => inline.has(file) || addresses.has(file))) throw new SiglipError("bad-model", "config.json is missing among the model's files. Give the addresses of config.json, preprocessor_config.json, tokenizer.json and model.safetensors.");
  if (base === undefined) return { place: { kind: "files", files: inline }, name };
  return { place: { kind: "url", base, addresses, inline, ours }, name };
}

/** @param {string} text @returns {Located} */
function locateAddress(text) {
  let url;
  try {
    url = addressOf(text);
  } catch (error) {
    throw badInput(`The model's address ${show(text)} is not one (${error.message}). Give the address of the folder that holds config.json.`);
  }
  if (url.username || url.password) throw badInput(`The model's address holds a user's name or password, which browsers don't send. Use an address without them, such as one with a token in its query.`);
  if (!readable(url)) {
    throw badInput(`The model's address ${show(text)} starts with ${url.protocol}, which can't be a folder. Give one that starts with https://, / or ./, or the files themselves.`);
  }
  // The Hub's page of a model is what people copy.
  const [, model, revision] = /^\/([^/]+\/[^/]+)(?:\/(?:tree|resolve)\/(.+?))?\/?$/.exec(url.pathname) ?? [];
  if (/^(www\.)?(huggingface\.co|hf\.co)$/.test(url.hostname) && model) return locateText(revision ? `${model}@${decoded(revision)}` : model);
  if (/\.(json|safetensors)$/i.test(url.pathname)) throw badInput(`The model's address ${show(text)} is that of one file. Give the folder that it is in.`);
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  url.hash = "";
  // Mirrors of the Hub have its addresses.
  const [, mirrored, of] = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/$/.exec(url.pathname) ?? [];
  if (mirrored && of) {
    const revision = decoded(of);
    const hub = { origin: url.origin, model: mirrored, revision, sums: revision === "main" ? pinOf(mirrored)?.files : undefined };
    return { place: { kind: "url", base: url.href, hub }, name: hub.revision === "main" ? hub.model : `${hub.model}@${hub.revision}` };
  }
  const name = decoded(url.pathname.split("/").at(-2) || url.host);
  return { place: isFile(url) ? { kind: "folder", base: url.href } : { kind: "url", base: url.href }, name };
}

/** A part of an address as people read it; as it is, where a % in it begins nothing. @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** @param {any[]} list @returns {Located} */
function locateFiles(list) {
  list.forEach((file, index) => {
    if (tagOf(file) !== "File") throw badInput(`Of the model's files, number ${index + 1} is ${show(file)}; all must be File objects.`);
  });
  const paths = list.map((file) => file.webkitRelativePath || file.name);
  const folder = CONFIGS.flatMap((file) => {
    const found = paths.filter((path) => path === file || path.endsWith(`/${file}`)).map((path) => path.slice(0, -file.length));
    return found.sort((a, b) => a.split("/").length - b.split("/").length).slice(0, 1);
  })[0];
  if (folder === undefined) {
    throw new SiglipError("bad-model", list.length === 0
      ? "No model files were given. Choose all files of the model's folder: config.json, preprocessor_config.json, tokenizer.json and model.safetensors."
      : `config.json is missing among the ${list.length} files given. Choose all files of the model's folder: config.json, preprocessor_config.json, tokenizer.json and model.safetensors.`);
  }
  const files = new Map();
  paths.forEach((path, index) => {
    if (path.startsWith(folder)) files.set(path.slice(folder.length), list[index]);
  });
  return { place: { kind: "files", files }, name: folder.split("/").at(-2) || "local files" };
}
