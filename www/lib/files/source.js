// The checkpoint's files, wherever they are: what the engine calls Source.
import { SiglipError } from "../error.js";
import { LocalFiles } from "./disk.js";
import { RemoteFiles } from "./server.js";

/** @typedef {import("../ports.d.ts").Context} Context */
/** @typedef {import("../ports.d.ts").Loaded} Loaded */
/** @typedef {import("../ports.d.ts").Place} Place */
/** @typedef {import("../ports.d.ts").Progress} Progress */
/** @typedef {import("../ports.d.ts").Source} Source */
/** @typedef {import("../store/stored.js").Stored} Stored */

/**
 * @param {Place} place
 * @param {Context} context
 * @param {Stored | undefined} stored
 * @param {(progress: Progress) => void} report told of what is downloaded
 * @returns {Source & {begin: () => void, settle: () => void, loaded: Loaded}} begin: what can be done before the engine asks; settle: when it asks no more
 */
export function openSource(place, context, stored, report) {
  const source = place.kind === "url" ? new RemoteFiles(place, context, stored, report) : new LocalFiles(place, context.name, report);
  const inline = place.kind === "url" && place.inline ? new LocalFiles({ kind: "files", files: place.inline }, context.name, report) : undefined;
  const having = (/** @type {string} */ file) => (place.kind === "url" && place.inline?.has(file) && inline) || source;
  /** @template T @template {any[]} A @param {(file: string, ...rest: A) => Promise<T>} work @returns {(file: string, ...rest: A) => Promise<T>} */
  const inside = (work) => async (file, ...rest) => {
    if (!file.split("/").every((part) => /^[\w.-]+$/.test(part) && !/^\.+$/.test(part))) {
      throw new SiglipError("bad-model", `${context.name} names a file ${JSON.stringify(file)}, which is not a name inside its folder.`);
    }
    return work(file, ...rest);
  };
  return {
    readAll: inside((file, /** @type {number} */ limit) => having(file).readAll(file, limit)),
    open: inside((file) => having(file).open(file)),
    keep: () => source.keep(),
    forget: () => source.forget(),
    begin: () => source.begin(),
    settle: () => source.settle(),
    loaded: (...how) => having(how[0]).loaded(...how),
  };
}
