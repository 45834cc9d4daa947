// softmax(query · keyᵀ / √head_size) · value for 16 queries of one head per workgroup (FlashAttention; Dao et al., 2022). Keys
// and values pass through workgroup memory, 16 at a time, one after the other through the same tile. Each of the 64 invocations
// scores two queries with two keys; the softmax keeps a running maximum and sum for each query (Milakov and Gimelshein, 2018).
// Then it adds what those 16 values give to its part of the two queries' results: every eighth vector.

const INVOCATIONS = 64u;
const QUERIES = 16u;
const KEYS = 16u;
// Invocations that share two queries.
const SHARERS = 8u;
// Odd, so that neighbouring keys lie in different banks.
const STRIDE = SIZE | 1u;

var<workgroup> tile_query: array<Numbers, QUERIES * SIZE>;
// A few rows more than KEYS where the invocations bring more than those.
var<workgroup> tile: array<Numbers, {{ tile_rows }}u * STRIDE>;
// exp(score − maximum)
var<workgroup> weights: array<f32, QUERIES * KEYS>;
var<workgroup> parts: array<f32, QUERIES * SHARERS>;

fn largest_of(query: u32) -> f32 {
    let at = query * SHARERS;
    let first = max(max(parts[at], parts[at + 1u]), max(parts[at + 2u], parts[at + 3u]));
    return max(first, max(max(parts[at + 4u], parts[at + 5u]), max(parts[at + 6u], parts[at + 7u])));
}

fn sum_of_parts(query: u32) -> f32 {
    let at = query * SHARERS;
    let first = parts[at] + parts[at + 1u] + parts[at + 2u] + parts[at + 3u];
    return first + parts[at + 4u] + parts[at + 5u] + parts[at + 6u] + parts[at + 7u];
}

@compute @workgroup_size(64, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let queries = sizes.x;
    let keys = sizes.y;
    let scale = inverseSqrt(f32({{ head_size }}u));
    let first_query = group.x * QUERIES;
    for (var i = index; i < QUERIES * SIZE; i += INVOCATIONS) {
        // Queries past the end compute the last one again and are not stored.
        tile_query[i] = query[place_of(group, first_query + i / SIZE, queries) + i % SIZE] * scale;
    }
    // This invocation's queries and keys: these and those eight further on.
    let q0 = index / SHARERS;
    let q1 = q0 + 8u;
    let sharer = index % SHARERS;
    var largest0 = -1e30;
    var largest1 = -1e30;
    var total0 = 0.0;
    var total1 = 0.0;
    var sum0_{{ i }} = Numbers(); // each
    var sum1_{{ i }} = Numbers(); // each
    // What it brings: these vectors of the tile of keys, then of values, each on its way while the other is computed with.
    let token_{{ i }} = (index + {{ i }}u * INVOCATIONS) / SIZE; // brought
    let part_{{ i }} = (index + {{ i }}u * INVOCATIONS) % SIZE; // brought
    let to_{{ i }} = token_{{ i }} * STRIDE + part_{{ i }}; // brought
    var key_{{ i }} = key[place_of(group, token_{{ i }}, keys) + part_{{ i }}]; // brought
    for (var start = 0u; start < keys; start += KEYS) {
        workgroupBarrier();
        tile[to_{{ i }}] = key_{{ i }}; // brought
        workgroupBarrier();
        let value_{{ i }} = value[place_of(group, start + token_{{ i }}, keys) + part_{{ i }}]; // brought
        var s00 = Numbers();
        var s01 = Numbers();
        var s10 = Numbers();
        var s11 = Numbers();
        for (var d = 0u; d < SIZE; d++) {
            let a0 = tile_query[q0 * SIZE + d];
            let a1 = tile_query[q1 * SIZE + d];
            let b0 = tile[sharer * STRIDE + d];
            let b1 = tile[(sharer + SHARERS) * STRIDE + d];
            s00 = fma(a0, b0, s00);
            s01 = fma(a0, b1, s01);
            s10 = fma(a1, b0, s10);
            s11 = fma(a1, b1, s11);
        }
        // Keys past the end weigh nothing.
        let there0 = start + sharer < keys;
        let there1 = start + sharer + SHARERS < keys;
        let score00 = select(-1e30, sum_of(s00), there0);
        let score01 = select(-1e30, sum_of(s01), there1);
        let score10 = select(-1e30, sum_of(s10), there0);
        let score11 = select(-1e30, sum_of(s11), there1);
        parts[q0 * SHARERS + sharer] = max(score00, score01);
        parts[q1 * SHARERS + sharer] = max(score10, score11);
        workgroupBarrier();
        tile[to_{{ i }}] = value_{{ i }}; // brought
        key_{{ i }} = key[place_of(group, start + KEYS + token_{{ i }}, keys) + part_{{ i }}]; // brought
        let maximum0 = max(largest0, largest_of(q0));
        let maximum1 = max(largest1, largest_of(q1));
        let shrink0 = exp(largest0 - maximum0);
        let shrink1 = exp(largest1 - maximum1);
        largest0 = maximum0;
        largest1 = maximum1;
        let p00 = exp(score00 - maximum0);
        let p01 = exp(score01 - maximum0);
        let p10 = exp(score10 - maximum1);
        let p11 = exp(score11 - maximum1);
        total0 = total0 * shrink0 + p00 + p01;
        total1 = total1 * shrink1 + p10 + p11;
        weights[q0 * KEYS + sharer] = p00;
        weights[q0 * KEYS + sharer + SHARERS] = p01;
        weights[q1 * KEYS + sharer] = p10;
        weights[q1 * KEYS + sharer + SHARERS] = p11;
        sum0_{{ i }} *= shrink0; // each
        sum1_{{ i }} *= shrink1; // each
        workgroupBarrier();
        for (var j = 0u; j < KEYS; j++) {
            let weight0 = weights[q0 * KEYS + j];
            let weight1 = weights[q1 * KEYS + j];
            let v_{{ i }} = tile[j * STRIDE + min(sharer + {{ i }}u * SHARERS, SIZE - 1u)]; // each
            sum0_{{ i }} = fma(Numbers(weight0), v_{{ i }}, sum0_{{ i }}); // each
            sum1_{{ i }} = fma(Numbers(weight1), v_{{ i }}, sum1_{{ i }}); // each
        }
    }
    workgroupBarrier();
    parts[q0 * SHARERS + sharer] = total0;
    parts[q1 * SHARERS + sharer] = total1;
    workgroupBarrier();
    let share0 = 1.0 / sum_of_parts(q0);
    let share1 = 1.0 / sum_of_parts(q1);
    store(group, first_query + q0, sharer + {{ i }}u * SHARERS, sum0_{{ i }} * share0); // each
    store(group, first_query + q1, sharer + {{ i }}u * SHARERS, sum1_{{ i }} * share1); // each
}

// Where this head's part of a token begins, of as many tokens; past the end, that of the last one.
fn place_of(group: vec3<u32>, token: u32, tokens: u32) -> u32 {
    return ((group.z * tokens + min(token, tokens - 1u)) * HEADS + group.y) * SIZE;
}

fn store(group: vec3<u32>, token: u32, d: u32, result: Numbers) {
    if token < sizes.x && d < SIZE {
        y[place_of(group, token, sizes.x) + d] = result;
    }
}
