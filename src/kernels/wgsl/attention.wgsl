@group(0) @binding(0) var<storage, read_write> query: array<Numbers>;
@group(0) @binding(1) var<storage, read_write> key: array<Numbers>;
@group(0) @binding(2) var<storage, read_write> value: array<Numbers>;
@group(0) @binding(3) var<storage, read_write> y: array<Numbers>;
// queries, keys
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;

const HEADS = {{ heads }}u;
const SIZE = {{ head_vectors }}u;

