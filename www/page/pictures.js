// Every way a picture reaches the page: file, drop, paste, camera, web address, sample. Each ends in one call of
// `take(pictures)`, where a picture is {blob, name, sample?}, or of `fail(message)`. A model's files may be dropped as well.

import { addressIn, mayHoldPictures, picturesAmong } from '../lib/client/transfer.js';
import { fetchPicture, isText, isTyping } from './arriving.js';
import { connectCamera } from './camera.js';
import { $ } from './elements.js';
import { onLanguage, texts } from './language.js';
import { isModel } from './models.js';

/** @typedef {import('./page.d.ts').Picture} Picture */
/** @typedef {(pictures: Picture[]) => void} Take */
/**
 * What the page does with what comes.
 * @typedef {object} Page
 * @property {Take} take
 * @property {(message: () => string) => void} fail
 * @property {(address: string, work: (signal: AbortSignal) => Promise<Picture>) => void} fetching
 * @property {(files: File[], name: string) => void} takeFolder
 */

/** @param {Iterable<File>} files @param {string} otherwise the name of one without @returns {Picture[]} */
const named = (files, otherwise) => picturesAmong(files).map((file) => ({ blob: file, name: file.name || otherwise }));

/** Connects all of the page's doors for pictures. @param {Page} page */
export function connect(page) {
  connectFiles(page);
  connectDrop(page);
  connectPaste(page);
  connectAddress(page);
  connectCamera(page);
}

/** @param {Page} page */
function connectFiles({ take }) {
  for (const input of [$.image, $.capture]) {
    input.addEventListener('change', () => {
      const pictures = named(input.files ?? [], texts.aPicture);
      if (pictures.length > 0) take(pictures);
      input.value = ''; // so that the same file can be chosen again
    });
  }
}

/** @param {FileSystemEntry} entry @returns {entry is FileSystemFileEntry} */
const isFile = (entry) => entry.isFile;

/** @param {FileSystemEntry | null | undefined} entry @returns {entry is FileSystemDirectoryEntry} */
const isFolder = (entry) => Boolean(entry?.isDirectory);

/** The files of a folder, not of those in it. @param {FileSystemDirectoryEntry} folder @returns {Promise<File[]>} */
async function filesOf(folder) {
  const reader = folder.createReader();
  /** @type {File[]} */
  const files = [];
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // some at a time
    if (entries.length === 0) return files;
    files.push(...(await Promise.all(entries.filter(isFile).map((entry) => /** @type {Promise<File>} */ (new Promise((resolve, reject) => entry.file(resolve, reject)))))));
  }
}

/** @param {Page} page */
function connectDrop({ take, fail, fetching, takeFolder }) {
  const veil = $.drop;
  let depth = 0;
  const lower = () => {
    depth = 0;
    veil.hidden = true;
  };
  addEventListener('dragenter', (event) => {
    if (!mayHoldPictures(event.dataTransfer)) return;
    event.preventDefault();
    depth += 1;
    veil.hidden = false;
  }, true);
  addEventListener('dragover', (event) => {
    if (!mayHoldPictures(event.dataTransfer)) return;
    event.preventDefault();
    if (event.dataTransfer) event.dataTransfer.dropEffect = 'copy';
  }, true);
  addEventListener('dragleave', () => {
    depth -= 1;
    if (depth <= 0) lower();
  }, true);
  addEventListener('dragend', lower, true);
  addEventListener('drop', (event) => {
    const data = event.dataTransfer;
    if (!data || !mayHoldPictures(data)) return;
    event.preventDefault();
    lower();
    const folder = [...data.items].map((item) => item.webkitGetAsEntry?.()).find(isFolder);
    if (folder) {
      filesOf(folder).then((files) => takeFolder(files, folder.name), () => fail(() => texts.noFolder(folder.name)));
      return;
    }
    const files = [...data.files];
    if (isModel(files)) return takeFolder(files, '');
    if (files.length > 0) return take(named(files, texts.droppedPicture));
    const address = addressIn(data);
    if (address) return fetching(address, (signal) => fetchPicture(address, signal));
    fail(() => texts.nothingDropped);
  }, true);
}

/** @param {Page} page */
function connectPaste({ take, fail, fetching }) {
  addEventListener('paste', (event) => {
    if (isText(event)) return;
    const pictures = named(event.clipboardData?.files ?? [], texts.pastedPicture);
    if (pictures.length > 0) {
      event.preventDefault();
      return take(pictures);
    }
    if (isTyping(event)) return;
    const text = event.clipboardData?.getData('text').trim() ?? '';
    if (/^(https?:\/\/|data:image\/)\S+$/i.test(text)) fetching(text, (signal) => fetchPicture(text, signal));
    else fail(() => texts.nothingPasted);
  }, true);

  const button = $.paste;
  button.hidden = !navigator.clipboard?.read;
  button.addEventListener('click', async () => {
    try {
      for (const item of await navigator.clipboard.read()) {
        const type = item.types.find((name) => name.startsWith('image/'));
        if (type) return take([{ blob: await item.getType(type), name: texts.pastedPicture }]);
      }
      fail(() => texts.nothingCopied);
    } catch {
      fail(() => texts.noClipboard);
    }
  });
}

/** @param {Page} page */
function connectAddress({ fail, fetching }) {
  const [button, form, input] = [$.link, $.addressForm, $.address];
  button.addEventListener('click', () => {
    form.hidden = !form.hidden;
    button.setAttribute('aria-expanded', String(!form.hidden));
    if (!form.hidden) input.focus();
  });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const address = input.value.trim();
    if (!address) return fail(() => texts.typeAddress);
    fetching(address, (signal) => fetchPicture(address, signal));
  });
}

/** What the page calls a picture. @param {Picture} picture */
export const nameOf = ({ name, sample }) => texts.samples[sample ?? ''] ?? name;

/**
 * Shows the samples as thumbnails. Their bytes are fetched once, here, so that choosing one later asks nobody for anything.
 * @param {Take} take
 * @returns {Promise<Picture[]>} the samples, with `labels`
 */
export async function showSamples(take) {
  const response = await fetch(new URL('../samples/samples.json', import.meta.url));
  if (!response.ok) throw new Error(`The samples answered ${response.status}.`);
  /** @type {{file: string, name: string, labels: string[]}[]} */
  const list = await response.json();
  const samples = await Promise.all(list.map(async ({ file, name, labels }) => {
    const url = new URL(`../samples/${file}`, import.meta.url);
    const picture = await fetch(url);
    if (!picture.ok) throw new Error(`${file} answered ${picture.status}.`);
    return { blob: await picture.blob(), name, labels, sample: file };
  }));
  const buttons = samples.map((sample) => {
    const image = document.createElement('img');
    image.src = URL.createObjectURL(sample.blob);
    image.draggable = false;
    const button = document.createElement('button');
    button.type = 'button';
    button.dataset.sample = sample.sample;
    button.setAttribute('aria-pressed', 'false');
    button.append(image);
    button.addEventListener('click', () => take([sample]));
    const item = document.createElement('li');
    item.append(button);
    const call = () => {
      image.alt = nameOf(sample);
    };
    call();
    onLanguage(call);
    return item;
  });
  $.samples.replaceChildren(...buttons);
  return samples;
}

/**
 * Several pictures that came together, to choose from; one alone needs no list.
 * @param {Picture[]} pictures @param {(picture: Picture) => void} choose
 */
export function showStrip(pictures, choose) {
  for (const image of $.strip.querySelectorAll('img')) URL.revokeObjectURL(image.src);
  $.strip.hidden = pictures.length < 2;
  $.strip.replaceChildren(...(pictures.length < 2 ? [] : pictures).map((picture) => {
    const image = document.createElement('img');
    image.loading = 'lazy';
    image.decoding = 'async';
    image.src = URL.createObjectURL(picture.blob);
    image.alt = picture.name;
    const button = document.createElement('button');
    button.type = 'button';
    button.setAttribute('aria-pressed', 'false');
    button.append(image);
    button.addEventListener('click', () => choose(picture));
    const item = document.createElement('li');
    item.append(button);
    return item;
  }));
}

/** Marks the picture in use in the strip. @param {number} index */
export function markStrip(index) {
  [...$.strip.querySelectorAll('button')].forEach((button, i) => button.setAttribute('aria-pressed', String(i === index)));
}

/** Marks the thumbnail of the sample in use, if one is. @param {Picture} [picture] */
export function markSample(picture) {
  for (const button of $.samples.querySelectorAll('button')) {
    button.setAttribute('aria-pressed', String(button.dataset.sample === picture?.sample));
  }
}
