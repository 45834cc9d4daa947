
fn weight_or_nothing_{{ part }}(row: u32, k: u32) -> vec4<f32> {
    let at = min(k, INPUTS - 1u);
    return select(vec4<f32>(), weight4_{{ part }}(row, at, scale_{{ part }}(row, at)), k < INPUTS);
}

fn product_{{ part }}(group: vec2<u32>, index: u32) {
    // What this invocation brings: a vector of two rows of x and of one row of the weight.
    let brought = index % STEP;
    let place = index / STEP;
    let last_row = sizes.x - 1u;
    let x_row_0 = min(group.y * ROWS + place, last_row);
    let x_row_1 = min(group.y * ROWS + 32u + place, last_row);
    let w_row = sizes.y + min(group.x * COLUMNS + place, OUTPUT - 1u);
    let to_x = place * STRIDE + brought;
    // Of four neighbouring columns, which one invocation takes, each lies eight rows behind the one before.
    let to_w = (ROWS + place % 4u * 8u + place / 4u) * STRIDE + brought;
    // What it computes: every other vector of a step, four columns, every eighth row.
    let half = index / HALF;
    let column = index % 8u;
    let row = index % HALF / 8u;
    let from_x = row * STRIDE + half;
    let from_w = (ROWS + column) * STRIDE + half;
    var s0 = vec4<f32>();
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    var s4 = vec4<f32>();
    var s5 = vec4<f32>();
    var s6 = vec4<f32>();
    var s7 = vec4<f32>();
    tiles[to_x] = x_or_nothing(x_row_0, brought);
    tiles[to_x + 32u * STRIDE] = x_or_nothing(x_row_1, brought);
    tiles[to_w] = weight_or_nothing_{{ part }}(w_row, brought);
    var x_0 = x_or_nothing(x_row_0, STEP + brought);
    var x_1 = x_or_nothing(x_row_1, STEP + brought);
    var w = weight_or_nothing_{{ part }}(w_row, STEP + brought);
    var tile = 0u;
    for (var k = 0u; k < INPUTS; k += STEP) {
        workgroupBarrier();
        // On its way while this step and the next are computed.
        let next = k + 2u * STEP + brought;
        let next_x_0 = x_or_nothing(x_row_0, next);
        let next_x_1 = x_or_nothing(x_row_1, next);
        let next_w = weight_or_nothing_{{ part }}(w_row, next);
        for (var i = 0u; i < STEP; i += 2u) {
            let at_x = tile + from_x + i;
            let at_w = tile + from_w + i;
            // Transposed, so that the sums grow by whole vectors.
            let b = transpose(mat4x4<f32>(
                tiles[at_w],
                tiles[at_w + 8u * STRIDE],
                tiles[at_w + 16u * STRIDE],
                tiles[at_w + 24u * STRIDE],
            ));
            s0 = add_product(s0, b, tiles[at_x]);
            s1 = add_product(s1, b, tiles[at_x + 8u * STRIDE]);
            s2 = add_product(s2, b, tiles[at_x + 16u * STRIDE]);
            s3 = add_product(s3, b, tiles[at_x + 24u * STRIDE]);
            s4 = add_product(s4, b, tiles[at_x + 32u * STRIDE]);
            s5 = add_product(s5, b, tiles[at_x + 40u * STRIDE]);
            s6 = add_product(s6, b, tiles[at_x + 48u * STRIDE]);
            s7 = add_product(s7, b, tiles[at_x + 56u * STRIDE]);
        }
        tile = TILES - tile;
        tiles[tile + to_x] = x_0;
        tiles[tile + to_x + 32u * STRIDE] = x_1;
        tiles[tile + to_w] = w;
        x_0 = next_x_0;
        x_1 = next_x_1;
        w = next_w;
    }
    // The second half hands its sums to the first.
    let mine = index % HALF;
    workgroupBarrier();
    if half == 1u {
        tiles[mine] = s0;
        tiles[mine + HALF] = s1;
        tiles[mine + 2u * HALF] = s2;
        tiles[mine + 3u * HALF] = s3;
        tiles[mine + 4u * HALF] = s4;
        tiles[mine + 5u * HALF] = s5;
        tiles[mine + 6u * HALF] = s6;
        tiles[mine + 7u * HALF] = s7;
    }
    workgroupBarrier();
    let y_column = group.x * (COLUMNS / 4u) + column;
    if half == 1u || y_column >= OUTPUTS {
        return;
    }
    let bias = bias4_{{ part }}(y_column);
    let y_row = group.y * ROWS + row;
    store({{ part }}u, y_row, y_column, bias + s0 + tiles[mine]);
    store({{ part }}u, y_row + 8u, y_column, bias + s1 + tiles[mine + HALF]);
    store({{ part }}u, y_row + 16u, y_column, bias + s2 + tiles[mine + 2u * HALF]);
    store({{ part }}u, y_row + 24u, y_column, bias + s3 + tiles[mine + 3u * HALF]);
    store({{ part }}u, y_row + 32u, y_column, bias + s4 + tiles[mine + 4u * HALF]);
    store({{ part }}u, y_row + 40u, y_column, bias + s5 + tiles[mine + 5u * HALF]);
    store({{ part }}u, y_row + 48u, y_column, bias + s6 + tiles[mine + 6u * HALF]);
    store({{ part }}u, y_row + 56u, y_column, bias + s7 + tiles[mine + 7u * HALF]);
}
