// One element of the result per invocation.

alias Numbers = {{ vector }};

{{ bindings }}
@group(0) @binding({{ output_binding }}) var<storage, read_write> y: array<Numbers>;
@group(0) @binding({{ sizes_binding }}) var<uniform> sizes: vec4<u32>;

// Of a row of the result.
const ROW = {{ row }}u;

@compute @workgroup_size(64, 1, 1)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let i = (group.y * groups.x + group.x) * 64u + index;
    // The first size is the number of elements.
    if i >= sizes.x {
        return;
    }
    let row = i / ROW;
    let column = i % ROW;
    {{ value }}
}
