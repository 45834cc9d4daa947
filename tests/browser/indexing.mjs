// How many pictures a second SiglipIndex takes in, decoding included:
//   node indexing.mjs FOLDER [DTYPE]     FOLDER: a checkpoint; after ./build.sh
// Prints a row for JPEGs of 0.3 and of 12 megapixels, with one thread and with all that the machine has, and what the parts cost by themselves.
import { measureIn } from "./harness.mjs";
import { photographs } from "./photographs.mjs";
import { serve } from "../../tools/serve.mjs";

const [folder, dtype = "q8"] = process.argv.slice(2);
if (!folder) throw new Error("usage: node indexing.mjs FOLDER [DTYPE]");
const SIZES = { 0.3: [640, 480], 12: [4000, 3000] };
/** How many of them. */
const COUNTS = { 0.3: 160, 12: 50 };

const drawn = (await photographs(SIZES, ["image/jpeg"])).map(({ megapixels, bytes }) => [megapixels, COUNTS[megapixels], bytes.toString("base64")]);
const files = await serve(folder);
console.log("| megapixels | threads | pictures a second | the tower alone, ms | decoding and resizing alone, ms |\n|---|---|---|---|---|");
for (const isolated of [false, true]) {
  const rows = await measureIn({ browser: "chromium", isolated }, (page) => page.evaluate(rates, [files.url, dtype, drawn]));
  for (const row of rows) console.log(`| ${row.join(" | ")} |`);
}
await files.close();

/** Runs in the page. */
async function rates([address, dtype, drawn]) {
  const { SiglipIndex } = await import("/lib/siglip-index.js");
  const classifier = await SiglipClassifier.load(address, { backend: "cpu", dtype });
  const threads = Number(/(\d+) threads/.exec(classifier.info.adapter)?.[1] ?? 1);
  const least = async (times, work) => {
    const took = [];
    for (let i = 0; i < times; i++) {
      const began = performance.now();
      await work(i);
      took.push(performance.now() - began);
    }
    return Math.min(...took);
  };
  const rows = [];
  /** Others each time: the same pixels aren't embedded twice. */
  const variants = async (text, count) => {
    const photograph = await createImageBitmap(new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))]));
    const { width, height } = photograph;
    const context = new OffscreenCanvas(width, height).getContext("2d");
    const list = [];
    for (let i = 0; i < count; i++) {
      context.drawImage(photograph, 0, 0);
      context.fillStyle = `hsl(${(360 * i) / count} 80% 50%)`;
      context.fillRect(0, 0, width / 3, height / 3);
      list.push({ id: `${i}.jpg`, image: await context.canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 }) });
    }
    return list;
  };
  const side = 256;
  for (const [megapixels, count, text] of drawn) {
    const pictures = await variants(text, count);
    const alone = pictures.splice(0, 5);
    const grey = (i) => new ImageData(new Uint8ClampedArray(4 * side * side).fill(20 * rows.length + i), side, side);
    const tower = await least(5, (i) => classifier.embedImage(grey(i)));
    const whole = await least(5, (i) => classifier.embedImage(alone[i].image));
    const index = await SiglipIndex.open(classifier, { name: `of ${megapixels}`, memory: true });
    const began = performance.now();
    const { added } = await index.add(pictures);
    const seconds = (performance.now() - began) / 1000;
    rows.push([megapixels, threads, (added / seconds).toFixed(1), tower.toFixed(0), (whole - tower).toFixed(0)]);
  }
  return rows;
}
