// SigLIP's towers in jax-js, which brings kernels but no models. Weights and arithmetic are f32.
import { defaultDevice, init, jit, nn, numpy as np, tree } from "@jax-js/jax";

/**
 * The tensors whose names begin with `prefix`, without it. Matrices come transposed, [in, out]: jax-js multiplies these twice as fast on WebAssembly.
 * @param {string} folder of a checkpoint in one file @param {string} prefix
 */
async function weightsOf(folder, prefix) {
  const response = await fetch(`${folder}model.safetensors`);
  if (!response.ok) throw new Error(`model.safetensors: HTTP ${response.status}; jax-js's towers take a checkpoint of one file`);
  const file = await response.blob();
  const begin = 8 + Number(new BigUint64Array(await file.slice(0, 8).arrayBuffer())[0]);
  const weights = {};
  for (const [name, entry] of Object.entries(JSON.parse(await file.slice(8, begin).text()))) {
    if (!name.startsWith(prefix)) continue;
    const { dtype, shape: [rows, ...rest], data_offsets: [from, to] } = entry;
    if (dtype !== "F32") throw new Error(`${name} is ${dtype}; jax-js's towers take a checkpoint in F32`);
    const values = new Float32Array(await file.slice(begin + from, begin + to).arrayBuffer());
    const isMatrix = /(in_proj_|proj\.|fc\d\.|head\.|patch_embedding\.)weight$/.test(name);
    weights[name.slice(prefix.length)] = isMatrix ? transposed(values, rows) : np.array(values).reshape([rows, ...rest]);
  }
  return weights;
}

function transposed(values, rows) {
  const columns = values.length / rows;
  const result = new Float32Array(values.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) result[j * rows + i] = values[i * columns + j];
  return np.array(result).reshape([columns, rows]);
}

/**
 * A tower → {embed(pixel values or token ids, their shape) → its output, close()}.
 * @param {{folder: string, tower: "image"|"text", device: "wasm"|"webgpu"}} settings
 */
export async function loadTower({ folder, tower, device }) {
  if (!(await init(device)).includes(device)) throw new Error(`jax-js offers no ${device} here`);
  defaultDevice(device);
  const config = (await (await fetch(`${folder}config.json`)).json())[tower === "image" ? "vision_config" : "text_config"];
  // What the Hub's files leave out.
  const { num_attention_heads: heads = 12, num_hidden_layers: layers = 12, layer_norm_eps: epsilon = 1e-6, patch_size: patch = 16 } = config;
  const weights = await weightsOf(folder, tower === "image" ? "vision_model." : "text_model.");

  // Each use of an array takes a reference to it; `.ref` makes one more.
  const run = jit((weights, input) => {
    const the = (name) => weights[name].ref;
    const linear = (x, name) => np.matmul(x, the(`${name}.weight`)).add(the(`${name}.bias`));
    const norm = (x, name) => nn.standardize(x, -1, { epsilon }).mul(the(`${name}.weight`)).add(the(`${name}.bias`));
    const mlp = (x, name) => linear(nn.gelu(linear(x, `${name}.fc1`)), `${name}.fc2`);
    const attention = (name, ...parts) => {
      const [query, key, value] = parts.map((part) => part.reshape([part.shape[0], heads, -1]));
      const [rows] = query.shape;
      return linear(nn.dotProductAttention(query, key, value).reshape([rows, -1]), `${name}.out_proj`);
    };
    const encode = (x) => {
      for (let i = 0; i < layers; i++) {
        const layer = `encoder.layers.${i}`;
        const normed = norm(x.ref, `${layer}.layer_norm1`);
        x = x.add(attention(`${layer}.self_attn`, ...["q", "k", "v"].map((part) => linear(normed.ref, `${layer}.self_attn.${part}_proj`))));
        normed.dispose();
        x = x.ref.add(mlp(norm(x, `${layer}.layer_norm2`), `${layer}.mlp`));
      }
      return x;
    };
    const positions = the("embeddings.position_embedding.weight");
    if (tower === "text") {
      const x = np.take(the("embeddings.token_embedding.weight"), input.reshape([-1]), 0).add(positions);
      return linear(norm(encode(x), "final_layer_norm").slice([-1]), "head");
    }
    const [, channels, height, width] = input.shape;
    const squares = input.reshape([channels, height / patch, patch, width / patch, patch]).transpose([1, 3, 0, 2, 4]).reshape([-1, channels * patch * patch]);
    const x = norm(encode(linear(squares, "embeddings.patch_embedding").add(positions)), "post_layernorm");
    const size = x.shape[1];
    const third = (x, i) => {
      const [weight, bias] = [the("head.attention.in_proj_weight"), the("head.attention.in_proj_bias")];
      return np.matmul(x, weight.slice([], [i * size, (i + 1) * size])).add(bias.slice([i * size, (i + 1) * size]));
    };
    const pooled = attention("head.attention", third(the("head.probe").reshape([1, size]), 0), third(x.ref, 1), third(x, 2));
    return pooled.ref.add(mlp(norm(pooled, "head.layernorm"), "head.mlp"));
  });

  return {
    embed: (values, shape) => run(tree.ref(weights), np.array(values).reshape(shape)).data(),
    close() {
      tree.dispose(weights);
      run.dispose();
    },
  };
}
