// Photographs of any size, for measuring.
import { measureIn } from "./harness.mjs";

/**
 * Pictures with the detail of a photograph: a drawing of the page with noise at several scales, as a camera's JPEG (quality 0.92, 4:2:0) or as PNG.
 * @param {Record<string, [width: number, height: number]>} sizes by megapixels @param {string[]} types
 */
export const photographs = (sizes, types) => measureIn({ browser: "chromium" }, async (page) => {
  const list = [];
  for (const [megapixels, [width, height]] of Object.entries(sizes)) {
    for (const type of types) {
      const text = await page.evaluate(async ([width, height, type]) => {
        const canvas = new OffscreenCanvas(width, height);
        const context = canvas.getContext("2d");
        const sample = await createImageBitmap(await (await fetch("/samples/ladybug.png")).blob());
        context.drawImage(sample, 0, 0, width, height);
        let state = 1;
        const random = () => (state = (state * 48271) % 0x7fffffff) / 0x7fffffff;
        for (const [side, alpha] of [[64, 0.5], [512, 0.25], [2048, 0.1]]) {
          const noise = new ImageData(side, side);
          for (let i = 0; i < noise.data.length; i++) noise.data[i] = i % 4 === 3 ? 255 : 256 * random();
          context.globalAlpha = alpha;
          context.drawImage(await createImageBitmap(noise), 0, 0, width, height);
        }
        const blob = await canvas.convertToBlob({ type, quality: 0.92 });
        const bytes = new Uint8Array(await blob.arrayBuffer());
        let text = "";
        for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
        return btoa(text);
      }, [width, height, type]);
      list.push({ megapixels, type, bytes: Buffer.from(text, "base64") });
    }
  }
  return list;
});
