// ModelSource → where the model's files are.
import { SiglipError } from "../error.js";
import { badInput, show, tagOf } from "./arguments.js";

/** @typedef {{place: import("../ports.d.ts").Place, name: string}} Located */

/**
 * @param {any} source
 * @returns {Located}
 */
export function locate(source) {
  if (typeof source === "string") return locateText(source.trim());
  const tag = tagOf(source);
  if (tag === "FileSystemDirectoryHandle") return { place: { kind: "directory", handle: source }, name: source.name };
  if (Array.isArray(source) || tag === "FileList") return locateFiles([...source]);
  throw badInput(`The model is ${show(source)}. It must be "demo", "owner/name" of the Hugging Face Hub, the address of a folder, the files of a checkpoint, or a directory handle.`);
}

/** @param {string} text @returns {Located} */
function locateText(text) {
  if (text === "demo") return { place: { kind: "url", base: new URL("../models/demo/", import.meta.url).href }, name: "demo" };
  if (/^([a-z][a-z\d+.-]*:|\.{0,2}\/)/i.test(text)) return locateAddress(text);
  const [, owner, name, revision = "main"] = /^([a-z\d][\w.-]{0,95})\/([a-z\d][\w.-]{0,95})(?:@([\w.-]+(?:\/[\w.-]+)*))?$/i.exec(text) ?? [];
  if (!owner || revision.split("/").some((part) => /^\.+$/.test(part))) {
    throw badInput(`The model ${show(text)} is not known. Write "demo", "owner/name" or "owner/name@revision" for one of the Hugging Face Hub, or the address of a folder that starts with https://, / or ./.`);
  }
  const hub = { origin: "https://huggingface.co", model: `${owner}/${name}`, revision };
  const base = `${hub.origin}/${hub.model}/resolve/${encodeURIComponent(revision)}/`;
  return { place: { kind: "url", base, hub }, name: text };
}

/** @param {string} text @returns {Located} */
function locateAddress(text) {
  let url;
  try {
    url = new URL(text, globalThis.document?.baseURI ?? self.location.href);
  } catch (error) {
    throw badInput(`The model's address ${show(text)} is not one (${error.message}). Give the address of the folder that holds config.json.`);
  }
  if (!["http:", "https:", self.location.protocol].includes(url.protocol)) {
    throw badInput(`The model's address ${show(text)} starts with ${url.protocol}, which can't be a folder. Give one that starts with https://, / or ./, or the files themselves.`);
  }
  // The Hub's page of a model is what people copy.
  const [, model, revision] = /^\/([^/]+\/[^/]+)(?:\/(?:tree|resolve)\/(.+?))?\/?$/.exec(url.pathname) ?? [];
  if (/^(www\.)?(huggingface\.co|hf\.co)$/.test(url.hostname) && model) return locateText(revision ? `${model}@${decodeURIComponent(revision)}` : model);
  if (/\.(json|safetensors)$/i.test(url.pathname)) throw badInput(`The model's address ${show(text)} is that of one file. Give the folder that it is in.`);
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  url.hash = "";
  // Mirrors of the Hub have its addresses.
  const [, mirrored, of] = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/$/.exec(url.pathname) ?? [];
  if (mirrored && of) {
    const hub = { origin: url.origin, model: mirrored, revision: decodeURIComponent(of) };
    return { place: { kind: "url", base: url.href, hub }, name: hub.revision === "main" ? hub.model : `${hub.model}@${hub.revision}` };
  }
  const name = decodeURIComponent(url.pathname.split("/").at(-2) || url.host);
  return { place: { kind: "url", base: url.href }, name };
}

/** @param {any[]} list @returns {Located} */
function locateFiles(list) {
  list.forEach((file, index) => {
    if (tagOf(file) !== "File") throw badInput(`Of the model's files, number ${index + 1} is ${show(file)}; all must be File objects.`);
  });
  const paths = list.map((file) => file.webkitRelativePath || file.name);
  const config = paths.filter((path) => /(^|\/)config\.json$/.test(path)).sort((a, b) => a.split("/").length - b.split("/").length)[0];
  if (config === undefined) {
    throw new SiglipError("bad-model", list.length === 0
      ? "No model files were given. Choose all files of the model's folder: config.json, preprocessor_config.json, tokenizer.json and model.safetensors."
      : `config.json is missing among the ${list.length} files given. Choose all files of the model's folder: config.json, preprocessor_config.json, tokenizer.json and model.safetensors.`);
  }
  const folder = config.slice(0, -"config.json".length);
  const files = new Map();
  paths.forEach((path, index) => {
    if (path.startsWith(folder)) files.set(path.slice(folder.length), list[index]);
  });
  return { place: { kind: "files", files }, name: folder.split("/").at(-2) || "local files" };
}
