// Makes small pictures beside the page.
//   in {id, file}   out {id, bitmap}, or {id} where the file can't be shown

import { shrink } from './shrink.js';

addEventListener('message', async (/** @type {MessageEvent<{id: number, file: Blob}>} */ { data: { id, file } }) => {
  const bitmap = await shrink(file).catch(() => undefined);
  postMessage({ id, bitmap }, { transfer: bitmap ? [bitmap] : [] });
});
