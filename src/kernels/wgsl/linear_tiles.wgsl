
// A workgroup computes 64 rows × 32 columns, 16 numbers of the sums at a time: tiles of x and of the weight, unpacked once, lie in
// workgroup memory twice, one to compute with and one to fill for the next step; what is needed after that is on its way. Half of
// the 128 invocations add up one half of each step's products, the others the other half, so that even one label keeps a GPU busy;
// each computes 8 rows × 4 columns.
const ROWS = 64u;
const COLUMNS = 32u;
const HALF = 64u;
// In vectors: what a step takes of a row, and the distance between rows, odd so that neighbours lie in different banks.
const STEP = 4u;
const STRIDE = 5u;
const TILES = (ROWS + COLUMNS) * STRIDE;

var<workgroup> tiles: array<vec4<f32>, 2u * TILES>;

// No branch around what is read: a GPU would wait there for the number to come.
fn x_or_nothing(row: u32, k: u32) -> vec4<f32> {
    return select(vec4<f32>(), x4(row, min(k, INPUTS - 1u)), k < INPUTS);
}

// sum + b · a
fn add_product(sum: vec4<f32>, b: mat4x4<f32>, a: vec4<f32>) -> vec4<f32> {
    let first = fma(b[1], vec4<f32>(a.y), fma(b[0], vec4<f32>(a.x), sum));
    return fma(b[3], vec4<f32>(a.w), fma(b[2], vec4<f32>(a.z), first));
}
