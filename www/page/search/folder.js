// Where pictures come from: a folder by its handle, which known.js remembers; a folder's files; a dropped folder; the built-in drawings.

/** @typedef {import('../../lib/siglip-index.js').IndexSource} IndexSource */
/**
 * @typedef {object} Place
 * @property {string} name
 * @property {() => IndexSource} source for the index
 * @property {(id: string) => Promise<File | undefined>} file by its id in the index, which is its path
 * @property {FileSystemDirectoryHandle} [handle] where the browser gives one
 * @property {boolean} [builtIn]
 */

/** A folder by its handle. @param {FileSystemDirectoryHandle} handle @returns {Place} */
export function ofHandle(handle) {
  const file = async (/** @type {string} */ id) => {
    const names = id.split('/').slice(1);
    let folder = handle;
    for (const name of names.slice(0, -1)) folder = await folder.getDirectoryHandle(name);
    return (await folder.getFileHandle(names.at(-1) ?? '')).getFile();
  };
  return { name: handle.name, handle, source: () => handle, file };
}

/** The files of `<input webkitdirectory>`. @param {File[]} list @param {string} otherwise its name, where the browser gives files without a folder, as on phones @returns {Place} */
export function ofFiles(list, otherwise) {
  const files = new Map(list.map((file) => [file.webkitRelativePath || file.name, file]));
  return { name: list[0]?.webkitRelativePath.split('/')[0] || otherwise, source: () => list, file: async (id) => files.get(id) };
}

/** A dropped folder, in browsers without handles. @param {FileSystemDirectoryEntry} folder @returns {Place} */
export function ofEntry(folder) {
  const file = (/** @type {string} */ id) => new Promise((/** @type {(file: File) => void} */ resolve, reject) => {
    folder.getFile(id.slice(id.indexOf('/') + 1), {}, (entry) => /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject), reject);
  });
  return { name: folder.name, source: () => folder, file };
}

/** The drawings that come with the page: tiles of one sheet. @param {string} name @returns {Promise<Place>} */
export async function ofGallery(name) {
  const [about, sheet] = await Promise.all(['gallery.json', 'gallery.webp'].map(async (file) => {
    const response = await fetch(new URL(`../../samples/${file}`, import.meta.url));
    if (!response.ok) throw new Error(`${file} answered ${response.status}.`);
    return response.blob();
  }));
  /** @type {{tile: number, columns: number, drawings: {name: string}[]}} */
  const { tile, columns, drawings } = JSON.parse(await /** @type {Blob} */ (about).text());
  const picture = await createImageBitmap(/** @type {Blob} */ (sheet));
  const cut = (/** @type {number} */ i, /** @type {string} */ id) => async () => {
    const canvas = Object.assign(document.createElement('canvas'), { width: tile, height: tile });
    canvas.getContext('2d')?.drawImage(picture, (i % columns) * tile, Math.floor(i / columns) * tile, tile, tile, 0, 0, tile, tile);
    const blob = await new Promise((/** @type {(blob: Blob | null) => void} */ resolve) => canvas.toBlob(resolve, 'image/png'));
    return new File(blob ? [blob] : [], id, { type: 'image/png' });
  };
  const files = new Map(drawings.map(({ name: drawing }, i) => [`${drawing}.png`, cut(i, `${drawing}.png`)]));
  return { name, builtIn: true, source: () => [...files].map(([id, image]) => ({ id, image })), file: async (id) => files.get(id)?.() };
}
