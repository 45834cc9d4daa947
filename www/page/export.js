// Results as files.

/** A field of CSV (RFC 4180). A leading = + - or @ would be a formula to spreadsheets. @param {string | number | undefined} value */
function field(value) {
  const text = typeof value === 'string' && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? '');
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** @typedef {{image: string, results?: import('../lib/siglip-web.js').LabelScore[], error?: string}} Line what came of a picture */

/**
 * @param {Line[]} pictures
 * @returns {string}
 */
export function toCsv(pictures) {
  /** @type {(string | number | undefined)[][]} */
  const lines = [['image', 'label', 'probability', 'logit', 'error']];
  for (const { image, results, error } of pictures) {
    if (results) lines.push(...results.map(({ label, score, logit }) => [image, label, score, logit, '']));
    else lines.push([image, '', '', '', error]);
  }
  return csv(lines);
}

/** @param {(string | number | undefined)[][]} lines */
export const csv = (lines) => lines.map((line) => `${line.map(field).join(',')}\r\n`).join('');

/** @param {object} about the model and the question @param {Line[]} pictures */
export const toJson = (about, pictures) => `${JSON.stringify({ ...about, pictures }, null, 2)}\n`;

/** Hands a file to the browser's downloads. @param {string} name @param {string} type @param {BlobPart} content */
export function download(name, type, content) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // some browsers read it only after asking where to put it
}
