// One workgroup normalises one row: mean, then variance about it, then scale and offset.

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> gamma: array<f32>;
@group(0) @binding(2) var<storage, read_write> beta: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> sizes: array<u32>;

const HIDDEN = {{ hidden }}u;
const EPSILON = {{ epsilon }};
const WORKGROUP = 64u;

var<workgroup> partial: array<f32, WORKGROUP>;

fn sum_of_workgroup(lane: u32, own: f32) -> f32 {
    partial[lane] = own;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if lane < half {
            partial[lane] += partial[lane + half];
        }
        workgroupBarrier();
    }
    let sum = partial[0];
    workgroupBarrier();
    return sum;
}

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let lane = id.x;
    // A row past the end is computed as the last one and not stored: all invocations must meet at the barriers.
    let row = group.y * 1024u + group.x;
    let start = min(row, sizes[0] - 1u) * HIDDEN;
    var own = 0.0;
    for (var i = lane; i < HIDDEN; i += WORKGROUP) {
        own += x[start + i];
    }
    let mean = sum_of_workgroup(lane, own) / f32(HIDDEN);
    own = 0.0;
    for (var i = lane; i < HIDDEN; i += WORKGROUP) {
        let centred = x[start + i] - mean;
        own += centred * centred;
    }
    let scale = inverseSqrt(sum_of_workgroup(lane, own) / f32(HIDDEN) + EPSILON);
    if row < sizes[0] {
        for (var i = lane; i < HIDDEN; i += WORKGROUP) {
            y[start + i] = (x[start + i] - mean) * scale * gamma[i] + beta[i];
        }
    }
}
