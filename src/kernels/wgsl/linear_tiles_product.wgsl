
fn transposed_w_{{ part }}(column: u32, k: u32) -> mat4x4<f32> {
    if k >= INPUTS {
        return mat4x4<f32>();
    }
    let last = sizes.y + OUTPUT - 1u;
    let first = sizes.y + column;
    let w0 = min(first, last);
    let w1 = min(first + 1u, last);
    let w2 = min(first + 2u, last);
    let w3 = min(first + 3u, last);
    return transpose(mat4x4<f32>(
        weight4_{{ part }}(w0, k, scale_{{ part }}(w0, k)),
        weight4_{{ part }}(w1, k, scale_{{ part }}(w1, k)),
        weight4_{{ part }}(w2, k, scale_{{ part }}(w2, k)),
        weight4_{{ part }}(w3, k, scale_{{ part }}(w3, k)),
    ));
}

fn product_{{ part }}(group: vec2<u32>, index: u32) {
    // The blocks of 4 × 4 numbers that this invocation brings: half of the invocations bring the weight's, the others x's.
    let block_k = index % STEP;
    let block = (index / STEP) % WIDTH;
    let brings_w = index < STEP * WIDTH;
    let brings_x = !brings_w && block < HEIGHT;
    let from_row = (group.y * HEIGHT + block) * 4u;
    let from_column = (group.x * WIDTH + block) * 4u;
    // The sums that it computes: this column, these rows of each group of eight vectors.
    let column = index % WIDTH;
    let row = index / WIDTH;
    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    var s4 = vec4<f32>(); // second group
    var s5 = vec4<f32>(); // second group
    var s6 = vec4<f32>(); // second group
    var s7 = vec4<f32>(); // second group
    var next = mat4x4<f32>();
    if brings_w {
        next = transposed_w_{{ part }}(from_column, block_k);
    } else if brings_x {
        next = transposed_x(from_row, block_k);
    }
    for (var k = 0u; k < INPUTS; k += STEP) {
        workgroupBarrier();
        if brings_w {
            tile_w[(block_k * 4u) * WIDTH + block] = next[0];
            tile_w[(block_k * 4u + 1u) * WIDTH + block] = next[1];
            tile_w[(block_k * 4u + 2u) * WIDTH + block] = next[2];
            tile_w[(block_k * 4u + 3u) * WIDTH + block] = next[3];
        } else if brings_x {
            tile_x[(block_k * 4u) * HEIGHT + block] = next[0];
            tile_x[(block_k * 4u + 1u) * HEIGHT + block] = next[1];
            tile_x[(block_k * 4u + 2u) * HEIGHT + block] = next[2];
            tile_x[(block_k * 4u + 3u) * HEIGHT + block] = next[3];
        }
        workgroupBarrier();
        if brings_w {
            next = transposed_w_{{ part }}(from_column, k + STEP + block_k);
        } else if brings_x {
            next = transposed_x(from_row, k + STEP + block_k);
        }
        for (var i = 0u; i < 16u; i++) {
            let b = tile_w[i * WIDTH + column];
            let a = tile_x[i * HEIGHT + row];
            s0 += a.x * b;
            s1 += a.y * b;
            s2 += a.z * b;
            s3 += a.w * b;
            let c = tile_x[i * HEIGHT + 8u + row]; // second group
            s4 += c.x * b; // second group
            s5 += c.y * b; // second group
            s6 += c.z * b; // second group
            s7 += c.w * b; // second group
        }
    }
    let y_column = group.x * WIDTH + column;
    if y_column >= OUTPUTS {
        return;
    }
    let bias = bias4_{{ part }}(y_column);
    let y_row = (group.y * HEIGHT + row) * 4u;
    store({{ part }}u, y_row, y_column, bias + s0);
    store({{ part }}u, y_row + 1u, y_column, bias + s1);
    store({{ part }}u, y_row + 2u, y_column, bias + s2);
    store({{ part }}u, y_row + 3u, y_column, bias + s3);
    store({{ part }}u, y_row + 32u, y_column, bias + s4); // second group
    store({{ part }}u, y_row + 33u, y_column, bias + s5); // second group
    store({{ part }}u, y_row + 34u, y_column, bias + s6); // second group
    store({{ part }}u, y_row + 35u, y_column, bias + s7); // second group
}
