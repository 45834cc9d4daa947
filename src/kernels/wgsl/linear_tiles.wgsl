
// A workgroup computes GROUPS · 32 rows × 64 columns, 16 numbers of the sums at a time: tiles of x and of the weight, unpacked
// once, lie in workgroup memory while its 128 invocations each compute GROUPS · 4 rows × 4 columns. What the next step needs is
// on its way while this one is computed.
const GROUPS = {{ groups }}u;
// In vectors: of a step, of a tile's columns, of a tile's rows.
const STEP = 4u;
const WIDTH = 16u;
const HEIGHT = GROUPS * 8u;

// [number along the input][vector of rows or columns]
var<workgroup> tile_x: array<vec4<f32>, 16u * HEIGHT>;
var<workgroup> tile_w: array<vec4<f32>, 16u * WIDTH>;

fn transposed_x(row: u32, k: u32) -> mat4x4<f32> {
    if k >= INPUTS {
        return mat4x4<f32>();
    }
    let last = sizes.x - 1u;
    return transpose(mat4x4<f32>(
        x4(min(row, last), k),
        x4(min(row + 1u, last), k),
        x4(min(row + 2u, last), k),
        x4(min(row + 3u, last), k),
    ));
}
