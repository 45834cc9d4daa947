// A workgroup normalises one row: mean, then variance about it, then scale and offset.

const INVOCATIONS = 64u;

var<workgroup> parts: array<f32, INVOCATIONS>;

// The sum over the workgroup. Each invocation adds up all parts, which takes less time than waiting for each other to share it.
fn shared_sum(index: u32, part: f32) -> f32 {
    workgroupBarrier();
    parts[index] = part;
    workgroupBarrier();
    var sum = vec4<f32>();
    for (var i = 0u; i < INVOCATIONS; i += 4u) {
        sum += vec4<f32>(parts[i], parts[i + 1u], parts[i + 2u], parts[i + 3u]);
    }
    return (sum.x + sum.y) + (sum.z + sum.w);
}

@compute @workgroup_size(64, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let row = group.y * groups.x + group.x;
    if row >= sizes.x {
        return;
    }
    let start = row * VECTORS;
    var total = Numbers();
    for (var i = index; i < VECTORS; i += INVOCATIONS) {
        total += x[start + i];
    }
    let mean = shared_sum(index, sum_of(total)) / f32(HIDDEN);
    total = Numbers();
    for (var i = index; i < VECTORS; i += INVOCATIONS) {
        let centred = x[start + i] - mean;
        total += centred * centred;
    }
    let scale = inverseSqrt(shared_sum(index, sum_of(total)) / f32(HIDDEN) + EPSILON);
    for (var i = index; i < VECTORS; i += INVOCATIONS) {
        y[start + i] = (x[start + i] - mean) * scale * gamma[i] + beta[i];
    }
}
