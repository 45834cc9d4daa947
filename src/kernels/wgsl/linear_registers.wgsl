
// Each invocation computes 8 × 4 outputs in registers; no barriers, which software adapters pay for dearly.
fn product_{{ part }}(row: u32, column: u32) {
    let rows = sizes.x;
    // Rows past the end compute the last one again and are not stored.
    let r1 = min(row + 1u, rows - 1u);
    let r2 = min(row + 2u, rows - 1u);
    let r3 = min(row + 3u, rows - 1u);
    let r4 = min(row + 4u, rows - 1u);
    let r5 = min(row + 5u, rows - 1u);
    let r6 = min(row + 6u, rows - 1u);
    let r7 = min(row + 7u, rows - 1u);
    let first = sizes.y + 4u * column;
    let last = sizes.y + OUTPUT - 1u;
    let w1 = min(first + 1u, last);
    let w2 = min(first + 2u, last);
    let w3 = min(first + 3u, last);
    var s0 = bias4_{{ part }}(column);
    var s1 = s0;
    var s2 = s0;
    var s3 = s0;
    var s4 = s0;
    var s5 = s0;
    var s6 = s0;
    var s7 = s0;
    for (var start = 0u; start < INPUTS; start += BLOCK) {
        let c0 = scale_{{ part }}(first, start);
        let c1 = scale_{{ part }}(w1, start);
        let c2 = scale_{{ part }}(w2, start);
        let c3 = scale_{{ part }}(w3, start);
        let end = min(start + BLOCK, INPUTS);
        for (var k = start; k < end; k++) {
            let a0 = x4(row, k);
            let a1 = x4(r1, k);
            let a2 = x4(r2, k);
            let a3 = x4(r3, k);
            let a4 = x4(r4, k);
            let a5 = x4(r5, k);
            let a6 = x4(r6, k);
            let a7 = x4(r7, k);
            // Transposed, so that the sums grow by whole vectors.
            let b = transpose(mat4x4<f32>(
                weight4_{{ part }}(first, k, c0),
                weight4_{{ part }}(w1, k, c1),
                weight4_{{ part }}(w2, k, c2),
                weight4_{{ part }}(w3, k, c3),
            ));
            s0 += b * a0;
            s1 += b * a1;
            s2 += b * a2;
            s3 += b * a3;
            s4 += b * a4;
            s5 += b * a5;
            s6 += b * a6;
            s7 += b * a7;
        }
    }
    store({{ part }}u, row, column, s0);
    store({{ part }}u, row + 1u, column, s1);
    store({{ part }}u, row + 2u, column, s2);
    store({{ part }}u, row + 3u, column, s3);
    store({{ part }}u, row + 4u, column, s4);
    store({{ part }}u, row + 5u, column, s5);
    store({{ part }}u, row + 6u, column, s6);
    store({{ part }}u, row + 7u, column, s7);
}
