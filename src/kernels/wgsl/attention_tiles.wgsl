// softmax(query · keyᵀ / √head_size) · value for 16 queries of one head per workgroup. Keys and values pass through workgroup
// memory, KEYS at a time. Four invocations share a query: each takes every fourth key with a running maximum and sum (Milakov
// and Gimelshein, 2018), and in the end they add up what they have.

const KEYS = {{ keys }}u;
const INVOCATIONS = 64u;
const SHARERS = 4u;
// One more than needed, so that neighbouring keys lie in different banks.
const STRIDE = SIZE + 1u;

var<workgroup> tile_keys: array<Numbers, KEYS * STRIDE>;
var<workgroup> tile_values: array<Numbers, KEYS * STRIDE>;
var<workgroup> parts: array<Numbers, INVOCATIONS>;
var<workgroup> maxima: array<f32, INVOCATIONS>;
var<workgroup> totals: array<f32, INVOCATIONS>;

@compute @workgroup_size(64, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let queries = sizes.x;
    let keys = sizes.y;
    let row = group.x * (INVOCATIONS / SHARERS) + index / SHARERS;
    let sharer = index % SHARERS;
    // Rows past the end compute the last one again and are not stored.
    let here = ((group.z * queries + min(row, queries - 1u)) * HEADS + group.y) * SIZE;
    let scale = inverseSqrt(f32({{ head_size }}u));
    var q: array<Numbers, SIZE>;
    var sum: array<Numbers, SIZE>;
    for (var d = 0u; d < SIZE; d++) {
        q[d] = query[here + d] * scale;
        sum[d] = Numbers();
    }
    var largest = -1e30;
    var total = 0.0;
    for (var start = 0u; start < keys; start += KEYS) {
        let count = min(KEYS, keys - start);
        workgroupBarrier();
        for (var i = index; i < count * SIZE; i += INVOCATIONS) {
            let there = ((group.z * keys + start + i / SIZE) * HEADS + group.y) * SIZE + i % SIZE;
            let at = i / SIZE * STRIDE + i % SIZE;
            tile_keys[at] = key[there];
            tile_values[at] = value[there];
        }
        workgroupBarrier();
        for (var j = sharer; j < count; j += SHARERS) {
            var products = Numbers();
            for (var d = 0u; d < SIZE; d++) {
                products += q[d] * tile_keys[j * STRIDE + d];
            }
            let score = sum_of(products);
            let maximum = max(largest, score);
            let shrink = exp(largest - maximum);
            let p = exp(score - maximum);
            largest = maximum;
            total = total * shrink + p;
            for (var d = 0u; d < SIZE; d++) {
                sum[d] = sum[d] * shrink + p * tile_values[j * STRIDE + d];
            }
        }
    }
    maxima[index] = largest;
    totals[index] = total;
    workgroupBarrier();
    let first = index - sharer;
    var overall = maxima[first];
    for (var i = 1u; i < SHARERS; i++) {
        overall = max(overall, maxima[first + i]);
    }
    var whole = 0.0;
    for (var i = 0u; i < SHARERS; i++) {
        whole += totals[first + i] * exp(maxima[first + i] - overall);
    }
    let share = exp(largest - overall) / whole;
    for (var d = 0u; d < SIZE; d++) {
        workgroupBarrier();
        parts[index] = sum[d] * share;
        workgroupBarrier();
        if sharer == 0u && row < queries {
            y[here + d] = parts[first] + parts[first + 1u] + parts[first + 2u] + parts[first + 3u];
        }
    }
}
