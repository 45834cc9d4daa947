
// One of the weights: four neighbouring numbers of its row `row`, given the factor and offset of their block.
fn weight4_{{ part }}(row: u32, k: u32, scale: vec2<f32>) -> vec4<f32> {
    {{ weight4 }}
}

fn scale_{{ part }}(row: u32, k: u32) -> vec2<f32> {
    {{ scale }}
}

fn bias4_{{ part }}(column: u32) -> vec4<f32> {
    {{ bias4 }}
}
