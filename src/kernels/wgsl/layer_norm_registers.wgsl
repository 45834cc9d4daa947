// One invocation normalises one row: mean, then variance about it, then scale and offset. No sum shared by a workgroup, because
// software adapters pay dearly for each barrier.

@compute @workgroup_size(32, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= sizes.x {
        return;
    }
    let start = id.x * VECTORS;
    var total = Numbers();
    for (var i = 0u; i < VECTORS; i++) {
        total += x[start + i];
    }
    let mean = sum_of(total) / f32(HIDDEN);
    total = Numbers();
    for (var i = 0u; i < VECTORS; i++) {
        let centred = x[start + i] - mean;
        total += centred * centred;
    }
    let scale = inverseSqrt(sum_of(total) / f32(HIDDEN) + EPSILON);
    for (var i = 0u; i < VECTORS; i++) {
        y[start + i] = (x[start + i] - mean) * scale * gamma[i] + beta[i];
    }
}
