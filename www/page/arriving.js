// Pictures that come by address, by drop or by paste, on both of the pages that take any.

import { download } from '../lib/client/image.js';
import { texts } from './language.js';

/** @typedef {import('./page.d.ts').Picture} Picture */

/** A reason the person at the page can act on, in the page's language. */
export class Problem extends Error {
  /** @param {() => string} tell */
  constructor(tell) {
    super(tell());
    this.tell = tell;
  }
}

/** Fetches a picture from another site, if that site lets pages read it. @param {string} address @param {AbortSignal} signal @returns {Promise<Picture>} */
export async function fetchPicture(address, signal) {
  let url;
  try {
    url = new URL(/^[a-z][a-z0-9+.-]*:/i.test(address) ? address : `https://${address}`);
  } catch {
    throw new Problem(() => texts.noAddress(address));
  }
  if (!['https:', 'http:', 'data:', 'blob:'].includes(url.protocol)) {
    throw new Problem(() => texts.wrongProtocol(url.protocol));
  }
  if (url.protocol === 'http:' && url.origin !== location.origin) url.protocol = 'https:'; // all that the page's policy lets through
  const blob = await download(url, { signal });
  return { blob, name: (url.host && url.pathname.split('/').pop()) || texts.linkedPicture };
}

/** Whether something is pasted where one types. @param {ClipboardEvent} event */
export const isTyping = ({ target }) => target instanceof Element && Boolean(target.closest('input, textarea'));

/** Whether that is ordinary text: office programs put a picture of it beside it. @param {ClipboardEvent} event */
export const isText = (event) => isTyping(event) && Boolean(event.clipboardData?.types.includes('text/plain'));
