// data: addresses, read by hand: under a strict Content-Security-Policy fetch refuses them.

/** @param {URL} address @returns {Uint8Array<ArrayBuffer>} throws an Error that says what is wrong with it */
export function bytesOf({ pathname, search }) {
  const text = pathname + search;
  const comma = text.indexOf(",");
  if (comma < 0) throw new TypeError("it has no comma");
  const raw = text.slice(comma + 1).replace(/%([\da-f]{2})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16)));
  const characters = /;\s*base64\s*$/i.test(text.slice(0, comma)) ? atob(raw) : raw;
  return Uint8Array.from(characters, (character) => character.charCodeAt(0));
}
