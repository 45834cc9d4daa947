
fn product_{{ part }}(group: vec2<u32>, index: u32) {
    let row = group.y;
    let column = group.x;
    let first = sizes.y + 4u * column;
    let last = sizes.y + OUTPUT - 1u;
    let w1 = min(first + 1u, last);
    let w2 = min(first + 2u, last);
    let w3 = min(first + 3u, last);
    var sum = vec4<f32>();
    for (var k = index; k < INPUTS; k += INVOCATIONS) {
        let a = x4(row, k);
        sum += vec4<f32>(
            dot(a, weight4_{{ part }}(first, k, scale_{{ part }}(first, k))),
            dot(a, weight4_{{ part }}(w1, k, scale_{{ part }}(w1, k))),
            dot(a, weight4_{{ part }}(w2, k, scale_{{ part }}(w2, k))),
            dot(a, weight4_{{ part }}(w3, k, scale_{{ part }}(w3, k))),
        );
    }
    sums[index] = sum;
    workgroupBarrier();
    if index < ADDERS {
        for (var i = index + ADDERS; i < INVOCATIONS; i += ADDERS) {
            sum += sums[i];
        }
        sums[index] = sum;
    }
    workgroupBarrier();
    if index == 0u {
        for (var i = 1u; i < ADDERS; i++) {
            sum += sums[i];
        }
        store({{ part }}u, row, column, bias4_{{ part }}(column) + sum);
    }
}
