// A checkpoint's files on the visitor's disk.
import { SiglipError, siglipError } from "../error.js";
import { tooLarge } from "./download.js";
import { fileAt } from "./node.js";

/** @typedef {import("../ports.d.ts").Loaded} Loaded */
/** @typedef {import("../ports.d.ts").LocalPlace} LocalPlace */
/** @typedef {import("../ports.d.ts").Progress} Progress */
/** @typedef {import("../ports.d.ts").Reader} Reader */

/** Files that the visitor chose; they are read by slices. */
export class LocalFiles {
  #place;
  #name;
  #report;

  /** @param {LocalPlace} place @param {string} name @param {(progress: Progress) => void} report */
  constructor(place, name, report) {
    this.#place = place;
    this.#name = name;
    this.#report = report;
  }

  begin() {}

  settle() {}

  /** @type {Loaded} */
  loaded(file, loaded, total) {
    this.#report({ stage: "download", file, loaded, total });
  }

  /** @param {string} file */
  #find(file) {
    if (this.#place.kind === "folder") return fileAt(new URL(file, this.#place.base));
    return this.#place.kind === "files" ? this.#place.files.get(file) : fromDirectory(this.#place.handle, file);
  }

  /** @param {string} file @param {number} limit */
  async readAll(file, limit) {
    const found = await this.#find(file);
    if (found && found.size > limit) throw tooLarge(file, this.#name, limit);
    return found && read(found, file, this.#name);
  }

  async keep() {}

  async forget() {
    return false;
  }

  /** @param {string} file @returns {Promise<Reader | undefined>} */
  async open(file) {
    const found = await this.#find(file);
    const name = this.#name;
    return found && {
      size: found.size,
      ranges: true,
      validator: `modified ${found.lastModified}`,
      plan() {},
      readAt: (offset, length) => read(found.slice(offset, offset + length), file, name),
      close() {},
    };
  }
}

/** @param {FileSystemDirectoryHandle} directory @param {string} file */
async function fromDirectory(directory, file) {
  const folders = file.split("/");
  const name = /** @type {string} */ (folders.pop());
  try {
    for (const folder of folders) directory = await directory.getDirectoryHandle(folder);
    return await (await directory.getFileHandle(name)).getFile();
  } catch (error) {
    if (error.name === "NotFoundError" || error.name === "TypeMismatchError") return undefined;
    throw new SiglipError("network", `${file} in the folder ${directory.name} could not be read (${error.message}). Choose the folder again and allow reading.`, { cause: error });
  }
}

/** @param {Pick<Blob, "arrayBuffer">} blob @param {string} file @param {string} name */
async function read(blob, file, name) {
  try {
    return new Uint8Array(await blob.arrayBuffer());
  } catch (error) {
    if (error instanceof RangeError) throw siglipError(error);
    throw new SiglipError("network", `${file} of ${name} could not be read (${error.message}). It may have been moved or changed since it was chosen: choose it again.`, { cause: error });
  }
}
