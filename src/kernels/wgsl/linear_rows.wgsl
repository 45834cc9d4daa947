
// A workgroup computes four columns of one row, for so few rows that tiles would be empty: its invocations share the row's vectors.
const INVOCATIONS = 128u;
// Of which these add up what the others have.
const ADDERS = 8u;

var<workgroup> sums: array<vec4<f32>, INVOCATIONS>;
