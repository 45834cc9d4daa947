
@compute @workgroup_size(8, 8, 1)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if 8u * id.y >= sizes.x || id.x >= OUTPUTS {
        return;
    }
    switch id.z {
        {{ cases }}
    }
}
