@group(0) @binding(0) var<storage, read_write> x: array<Numbers>;
@group(0) @binding(1) var<storage, read_write> gamma: array<Numbers>;
@group(0) @binding(2) var<storage, read_write> beta: array<Numbers>;
@group(0) @binding(3) var<storage, read_write> y: array<Numbers>;
// rows
@group(0) @binding(4) var<uniform> sizes: vec4<u32>;

const VECTORS = {{ hidden_vectors }}u;
const HIDDEN = {{ hidden }}u;
const EPSILON = {{ epsilon }};

