// softmax(query · keyᵀ / √head_size) · value for one query of one head per invocation, in one pass: the softmax keeps a
// running maximum and sum (Milakov and Gimelshein, 2018), so no score is ever written to memory.

@compute @workgroup_size(32, 1, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let queries = sizes.x;
    let keys = sizes.y;
    if id.x >= queries {
        return;
    }
    let here = ((id.z * queries + id.x) * HEADS + id.y) * SIZE;
    let scale = inverseSqrt(f32({{ head_size }}u));
    var q: array<Numbers, SIZE>;
    var sum: array<Numbers, SIZE>;
    for (var d = 0u; d < SIZE; d++) {
        q[d] = query[here + d] * scale;
        sum[d] = Numbers();
    }
    var largest = -1e30;
    var total = 0.0;
    for (var j = 0u; j < keys; j++) {
        let there = ((id.z * keys + j) * HEADS + id.y) * SIZE;
        var products = Numbers();
        for (var d = 0u; d < SIZE; d++) {
            products += q[d] * key[there + d];
        }
        let score = sum_of(products);
        let maximum = max(largest, score);
        let shrink = exp(largest - maximum);
        let p = exp(score - maximum);
        largest = maximum;
        total = total * shrink + p;
        for (var d = 0u; d < SIZE; d++) {
            sum[d] = sum[d] * shrink + p * value[there + d];
        }
    }
    for (var d = 0u; d < SIZE; d++) {
        y[here + d] = sum[d] / total;
    }
}
