// A file of more than 4 GiB, as SigLIP 2 So400m is in f32: past what 32 bits count, which is all that a browser's WebAssembly has for sizes. The server makes the
// bytes up; the engine reads, converts and computes with all of them but the picture's tower, which would take minutes.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { importLibrary, openSite } from "./harness.mjs";

const VOCABULARY = 256_000;
const HIDDEN = 1152;
const INTERMEDIATE = 4304;
const LAYERS = 27;
const TABLE = "text_model.embeddings.token_embedding.weight";

/** The parameters of SigLIP 2 So400m/16-512, the token table last: as transformers writes them, the table's rows would lie before 4 GiB. */
function shapes() {
  const linear = (name, output, input) => [[`${name}.weight`, [output, input]], [`${name}.bias`, [output]]];
  const norm = (name) => [[`${name}.weight`, [HIDDEN]], [`${name}.bias`, [HIDDEN]]];
  const mlp = (name) => [...linear(`${name}.fc1`, INTERMEDIATE, HIDDEN), ...linear(`${name}.fc2`, HIDDEN, INTERMEDIATE)];
  const layer = (name) => [
    ...norm(`${name}.layer_norm1`), ...norm(`${name}.layer_norm2`), ...mlp(`${name}.mlp`),
    ...["q", "k", "v", "out"].flatMap((part) => linear(`${name}.self_attn.${part}_proj`, HIDDEN, HIDDEN)),
  ];
  const layers = (tower) => Array.from({ length: LAYERS }, (_, i) => layer(`${tower}.encoder.layers.${i}`)).flat();
  return [
    ["logit_bias", [1]], ["logit_scale", [1]],
    ["text_model.embeddings.position_embedding.weight", [64, HIDDEN]], ...layers("text_model"), ...norm("text_model.final_layer_norm"), ...linear("text_model.head", HIDDEN, HIDDEN),
    ["vision_model.embeddings.patch_embedding.weight", [HIDDEN, 3, 16, 16]], ["vision_model.embeddings.patch_embedding.bias", [HIDDEN]],
    ["vision_model.embeddings.position_embedding.weight", [1024, HIDDEN]], ...layers("vision_model"), ...norm("vision_model.post_layernorm"),
    ["vision_model.head.probe", [1, 1, HIDDEN]], ["vision_model.head.attention.in_proj_weight", [3 * HIDDEN, HIDDEN]], ["vision_model.head.attention.in_proj_bias", [3 * HIDDEN]],
    ...linear("vision_model.head.attention.out_proj", HIDDEN, HIDDEN), ...norm("vision_model.head.layernorm"), ...mlp("vision_model.head.mlp"),
    [TABLE, [VOCABULARY, HIDDEN]],
  ];
}

/** The smallest fixture's tokenizer with as many pieces, its own ones the last. */
async function tokenizer() {
  const json = JSON.parse(await readFile(new URL("../fixtures/model/tiny/tokenizer.json", import.meta.url), "utf8"));
  const { vocab } = json.model;
  const more = Array.from({ length: VOCABULARY - vocab.length }, (_, i) => [`▁piece${i}`, -20]);
  json.model.vocab = [...vocab.slice(0, 3), ...more, ...vocab.slice(3)];
  return JSON.stringify(json);
}

describe("a file of more than 4 GiB", { timeout: 900_000 }, () => {
  const close = [];
  let site;
  const asked = [];
  let header;
  let size;
  let table;
  before(async () => {
    let at = 0;
    header = Buffer.from(JSON.stringify(Object.fromEntries(shapes().map(([name, shape]) => [name, { dtype: "F32", shape, data_offsets: [at, at += 4 * shape.reduce((a, b) => a * b)] }]))));
    size = 8 + header.length + at;
    table = size - 4 * VOCABULARY * HIDDEN;
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    const beginning = Buffer.concat([length, header]);
    // 0.01, and where a number begins depends on the header's length.
    const number = Buffer.alloc(4);
    number.writeFloatLE(0.01);
    const numbers = Buffer.alloc(8 * 2 ** 20, number);
    const serve = (request, response) => {
      const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
      const start = Number(first ?? 0);
      const end = Math.min(size, last ? Number(last) + 1 : size);
      if (request.method === "GET") asked.push({ start, end });
      response.writeHead(first === undefined ? 200 : 206, {
        "Content-Type": "application/octet-stream", "Content-Length": end - start, "Accept-Ranges": "bytes", ETag: '"large"', "Cache-Control": "no-store",
        ...(first !== undefined && { "Content-Range": `bytes ${start}-${end - 1}/${size}` }),
      });
      if (request.method === "HEAD") return response.end();
      assert.ok(end - start <= 64 * 2 ** 20, `a range of ${end - start} bytes`);
      for (let at = start; at < end;) {
        const part = at < beginning.length
          ? beginning.subarray(at, Math.min(end, beginning.length))
          : numbers.subarray((at - beginning.length) % 4, Math.min(numbers.length, end - at + (at - beginning.length) % 4));
        response.write(part);
        at += part.length;
      }
      response.end();
    };
    const sizes = { hidden_size: HIDDEN, intermediate_size: INTERMEDIATE, num_attention_heads: 16, num_hidden_layers: LAYERS, layer_norm_eps: 1e-6, hidden_act: "gelu_pytorch_tanh" };
    site = await openSite({ after: (hook) => close.push(hook) }, {
      overlay: {
        "/large/model.safetensors": serve,
        "/large/config.json": JSON.stringify({ model_type: "siglip", text_config: { ...sizes, vocab_size: VOCABULARY, max_position_embeddings: 64 }, vision_config: { ...sizes, image_size: 512, patch_size: 16 } }),
        "/large/preprocessor_config.json": JSON.stringify({ image_processor_type: "SiglipImageProcessor", do_resize: true, do_rescale: true, do_normalize: true, rescale_factor: 1 / 255, image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5], resample: 3, size: { height: 512, width: 512 } }),
        "/large/tokenizer.json": await tokenizer(),
        "/large/tokenizer_config.json": new URL("../fixtures/model/tiny/tokenizer_config.json", import.meta.url),
      },
    });
  });
  after(async () => {
    for (const hook of close.reverse()) await hook();
  });

  test("is loaded in the browser, and rows beyond are read where they are", async () => {
    assert.ok(table < 2 ** 32 && size > 4.5e9, `${table} of ${size}`);
    const page = await importLibrary(await site.page(), site.library);
    page.setDefaultTimeout(0);
    const loaded = await page.evaluate(() => outcome(async () => {
      window.large = await SiglipClassifier.load("/large/", { backend: "cpu", dtype: "q8", cache: false });
      return large.info;
    }));
    assert.equal(loaded.code, undefined, loaded.message);
    assert.equal(loaded.value.parameters, (size - 8 - header.length) / 4);
    // All but the table, each byte once.
    const ranges = asked.filter(({ end }) => end <= table).sort((a, b) => a.start - b.start);
    assert.ok(asked.every(({ start }) => start < table), "the table stays where it is");
    ranges.reduce((reached, { start, end }) => {
      assert.ok(start <= reached, `nothing between ${reached} and ${start}`);
      return Math.max(reached, end);
    }, 0);
    asked.length = 0;
    const { value, ...error } = await page.evaluate(() => outcome(async () => (await large.embedText(["abab"])).map((embedding) => [...embedding])));
    assert.ok(value, JSON.stringify(error));
    assert.ok(Math.abs(Math.hypot(...value[0]) - 1) < 1e-5, "of unit length");
    const beyond = asked.filter(({ start }) => start > 2 ** 32);
    assert.ok(beyond.length > 0, JSON.stringify(asked));
    for (const { start, end } of asked) assert.ok(start >= table && (start - table) % (4 * HIDDEN) === 0 && end <= size, `${start} to ${end}`);
    await page.close();
  });
});
