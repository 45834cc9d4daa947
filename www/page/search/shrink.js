// A picture's file → a small picture.

/** Pixels of its shorter side. */
const SMALL = 240;

/** @param {Blob} file @returns {Promise<ImageBitmap>} */
export async function shrink(file) {
  const whole = await createImageBitmap(file);
  const zoom = Math.min(1, SMALL / Math.min(whole.width, whole.height));
  if (zoom === 1) return whole;
  const bitmap = await createImageBitmap(whole, { resizeWidth: Math.ceil(whole.width * zoom), resizeHeight: Math.ceil(whole.height * zoom), resizeQuality: 'medium' });
  whole.close();
  return bitmap;
}
