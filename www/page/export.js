// Results as files.

/** A field of CSV (RFC 4180). A leading = + - or @ would be a formula to spreadsheets. */
function field(value) {
  const text = typeof value === 'string' && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? '');
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/**
 * @param {{image: string, results?: {label: string, score: number, logit: number}[], error?: string}[]} pictures
 * @returns {string}
 */
export function toCsv(pictures) {
  const lines = pictures.flatMap(({ image, results, error }) => (results
    ? results.map(({ label, score, logit }) => [image, label, score, logit, ''])
    : [[image, '', '', '', error]]));
  return [['image', 'label', 'probability', 'logit', 'error'], ...lines].map((line) => `${line.map(field).join(',')}\r\n`).join('');
}

/** @param {object} about the model and the question @param {Parameters<typeof toCsv>[0]} pictures */
export const toJson = (about, pictures) => `${JSON.stringify({ ...about, pictures }, null, 2)}\n`;

/** Hands a file to the browser's downloads. */
export function download(name, type, text) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // some browsers read it only after asking where to put it
}
