//! Is this device to be trusted? Small known cases of everything the towers call, against plain loops on the host.
//!
//! A GPU or driver that computes wrongly, and a shader that failed to compile and was silently skipped, both show here,
//! before anything is shown to a person.

use burn::tensor::{Device, Tensor};

use super::{Activation, Dtype, Epilogue, HeldWeight, Matrix, Numbers, PackedMatrix, PackedWeight};
use super::{add_rows, attention, from_ids, from_vec, gather, layer_norm, linear};
use super::{patches, projections, reshape, take_rows, to_vec};
use crate::error::{Error, Result};

/// Largest difference that rounding explains in cases of this size, on values of order 1.
const TOLERANCE: f32 = 1e-3;
/// The same where the CPU rounds the other operand to 8 bits: half a step of 1/127, times the square root of 72, and outliers.
const TOLERANCE_8_BITS: f32 = 1e-1;

// Sizes that no tile or workgroup divides evenly.
const TOKENS: usize = 37;
const INPUT: usize = 72;
const OUTPUT: usize = 132;
const HEADS: usize = 3;

/// Compares what `device` computes with what it should.
///
/// # Errors
/// `device-lost`, naming the operation and the difference, if the device fails or computes something else.
pub async fn check(device: &Device) -> Result<()> {
    #[cfg(feature = "webgpu")]
    super::pipelines::begin(device, || {
        drop(cases(device));
        // What comes with every result.
        super::Receipt::alone(device).count();
    })
    .await;
    // All have been started before the first is waited for.
    for (name, expected, got) in cases(device) {
        let eight_bits = *device == Device::flex() && name.contains("with q");
        let tolerance = if eight_bits {
            TOLERANCE_8_BITS
        } else {
            TOLERANCE
        };
        differ(name, &expected, &to_vec(got).await?, tolerance)?;
    }
    Ok(())
}

/// Of each case its name, what should come out, and what will.
fn cases(device: &Device) -> Vec<(&'static str, Vec<f32>, Tensor<1>)> {
    let mut cases: Vec<(&str, Vec<f32>, Tensor<1>)> = Vec::new();
    let mut compare = |name, expected: &[f32], got: Tensor<3>| {
        let [a, b, c] = got.dims();
        cases.push((name, expected.to_vec(), reshape(got, [a * b * c])));
    };
    let mut numbers = Numbers(1);
    let mut numbers = |count| numbers.values(count);
    let rows = 2 * TOKENS;
    let (x, residual) = (numbers(rows * INPUT), numbers(rows * OUTPUT));
    let (weight, bias) = (numbers(OUTPUT * INPUT), numbers(OUTPUT));
    let (queries, gamma, beta) = (numbers(2 * 5 * INPUT), numbers(INPUT), numbers(INPUT));
    let tensor = |values: &[f32], shape| from_vec::<3>(values.to_vec(), shape, device);
    let matrix = |values: &[f32], shape| from_vec::<2>(values.to_vec(), shape, device);
    let vector = |values: &[f32]| from_vec(values.to_vec(), [values.len()], device);
    let xs = tensor(&x, [2, TOKENS, INPUT]);
    let (w, b) = (matrix(&weight, [OUTPUT, INPUT]), vector(&bias));

    let product = host::linear(&x, &weight, &bias);
    let plain = |epilogue| linear(xs.clone(), w.clone(), b.clone(), epilogue);
    compare("matrix product", &product, plain(Epilogue::None));
    let expected: Vec<f32> = product.iter().map(|v| host::gelu_tanh(*v)).collect();
    let gelu = Epilogue::Activation(Activation::GeluTanh);
    compare("GELU", &expected, plain(gelu));
    let expected: Vec<f32> = product.iter().zip(&residual).map(|(y, r)| y + r).collect();
    let addend = tensor(&residual, [2, TOKENS, OUTPUT]);
    compare("residual sum", &expected, plain(Epilogue::add(addend)));
    // Which GPUs divide otherwise.
    let few = tensor(&x[..5 * INPUT], [1, 5, INPUT]);
    let y = linear(few, w.clone(), b.clone(), Epilogue::None);
    compare("matrix product of few rows", &product[..5 * OUTPUT], y);
    // Each bound once: WebGPU takes no buffer twice that a shader may write to, and all are declared so.
    let ws = [(); 3].map(|()| matrix(&weight, [OUTPUT, INPUT]));
    for part in projections(xs.clone(), ws, [(); 3].map(|()| vector(&bias))) {
        compare("three matrix products at once", &product, part);
    }
    let is_held = HeldWeight::are_all() && *device == Device::flex();
    // Elsewhere they are held as those above.
    let f32 = is_held.then_some(("matrix product with f32 weights", Dtype::F32));
    for (name, dtype) in f32.into_iter().chain([
        ("matrix product with f16 weights", Dtype::F16),
        ("matrix product with q8 weights", Dtype::Q8),
        ("matrix product with q4 weights", Dtype::Q4),
    ]) {
        let packed = PackedMatrix::pack(dtype, INPUT, &weight);
        let expected = host::linear(&x, &packed.unpack(), &bias);
        let weight: Matrix = match is_held {
            true => (&HeldWeight::new(packed)).into(),
            false => (&PackedWeight::new(packed, device)).into(),
        };
        // The second product with a held weight is another one.
        for _ in 0..if is_held { 2 } else { 1 } {
            let y = linear(xs.clone(), weight.clone(), b.clone(), Epilogue::None);
            compare(name, &expected, y);
        }
    }

    let expected = host::attention(&queries, &x, &x);
    let query = tensor(&queries, [2, 5, INPUT]);
    let values = tensor(&x, [2, TOKENS, INPUT]);
    let y = attention(query, xs.clone(), values, HEADS);
    compare("attention", &expected, y);
    let expected = host::layer_norm(&x, &gamma, &beta, 1e-6);
    let y = layer_norm(xs.clone(), vector(&gamma), vector(&beta), 1e-6);
    compare("layer norm", &expected, y);

    let table = matrix(&x, [rows, INPUT]);
    let picked = [5, 0, 73, 40];
    let expected: Vec<f32> = (picked.iter().flat_map(|row| &x[row * INPUT..][..INPUT]))
        .copied()
        .collect();
    let ids = from_ids(picked.map(|row| row as i32).to_vec(), [2, 2], device);
    compare("token table", &expected, gather(table.clone(), ids));
    let expected = [1, 37 + 1].map(|row| &x[row * INPUT..][..INPUT]).concat();
    let copied = reshape(take_rows(table, 1, TOKENS, 2), [1, 2, INPUT]);
    compare("row copy", &expected, copied);
    let addend = &x[..TOKENS * INPUT];
    let expected: Vec<f32> = (x.iter().zip(addend.iter().cycle()))
        .map(|(a, b)| a + b)
        .collect();
    let y = add_rows(xs, matrix(addend, [TOKENS, INPUT]));
    compare("sum", &expected, y);
    // One channel of 6 × 7 pixels in patches of 3.
    let pixels = from_vec(x[..42].to_vec(), [1, 1, 6, 7], device);
    let corners = [0, 3, 21, 24];
    let expected: Vec<f32> = (corners.iter())
        .flat_map(|corner| [0, 1, 2, 7, 8, 9, 14, 15, 16].map(|pixel| x[corner + pixel]))
        .collect();
    compare("patches", &expected, patches(pixels, 3));
    cases
}

/// What the device should compute, in plain loops.
mod host {
    use super::{HEADS, INPUT, TOKENS};

    pub fn linear(x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let rows = x.chunks_exact(INPUT);
        rows.flat_map(|x| {
            let outputs = weight.chunks_exact(INPUT).zip(bias);
            outputs.map(|(weight, bias)| dot(x, weight) + bias)
        })
        .collect()
    }

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    pub fn gelu_tanh(x: f32) -> f32 {
        0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044715 * x * x * x)).tanh())
    }

    pub fn attention(queries: &[f32], keys: &[f32], values: &[f32]) -> Vec<f32> {
        let size = INPUT / HEADS;
        let scale = (size as f32).sqrt().recip();
        let mut y = vec![0.0; queries.len()];
        let batch = keys.len() / (TOKENS * INPUT);
        for (row, query) in queries.chunks_exact(INPUT).enumerate() {
            let first = row / (queries.len() / INPUT / batch) * TOKENS;
            for head in (0..INPUT).step_by(size) {
                let at = |x, token: usize| -> &[f32] {
                    let x: &[f32] = x;
                    &x[(first + token) * INPUT + head..][..size]
                };
                let score = |token| scale * dot(&query[head..head + size], at(keys, token));
                let weights: Vec<f32> = (0..TOKENS).map(|token| score(token).exp()).collect();
                let total: f32 = weights.iter().sum();
                for (token, weight) in weights.iter().enumerate() {
                    let y = &mut y[row * INPUT + head..][..size];
                    for (y, value) in y.iter_mut().zip(at(values, token)) {
                        *y += weight / total * value;
                    }
                }
            }
        }
        y
    }

    pub fn layer_norm(x: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32) -> Vec<f32> {
        let rows = x.chunks_exact(INPUT);
        rows.flat_map(|x| {
            let mean = x.iter().sum::<f32>() / INPUT as f32;
            let squares = x.iter().map(|v| (v - mean) * (v - mean));
            let deviation = (squares.sum::<f32>() / INPUT as f32 + epsilon).sqrt();
            let scales = gamma.iter().zip(beta);
            (x.iter().zip(scales)).map(move |(v, (g, b))| (v - mean) / deviation * g + b)
        })
        .collect()
    }
}

/// Fails unless `got` is `expected` up to rounding.
fn differ(name: &str, expected: &[f32], got: &[f32], tolerance: f32) -> Result<()> {
    let difference = largest_difference(expected, got);
    match difference <= tolerance {
        true => Ok(()),
        false => Err(wrong(name, difference, tolerance)),
    }
}

/// Between two results; NaN if there is one among them, or if they are not as long.
pub(crate) fn largest_difference(expected: &[f32], got: &[f32]) -> f32 {
    if expected.len() != got.len() {
        return f32::NAN;
    }
    let differences = expected.iter().zip(got).map(|(e, g)| (e - g).abs());
    // NaN must not get lost in a maximum.
    differences.fold(
        0.0,
        |worst: f32, d| if d > worst || d.is_nan() { d } else { worst },
    )
}

/// A device that computes something else than the CPU.
pub(crate) fn wrong(what: &str, difference: f32, tolerance: f32) -> Error {
    Error::device_lost(format!(
        "this device computes wrongly: its {what} is off by {difference:e} in a test, where rounding explains {tolerance:e}. \
         Use the CPU (backend \"cpu\"), or try again after updating the graphics driver"
    ))
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn the_cpu_agrees_with_itself() {
        pollster::block_on(check(&Device::flex())).unwrap();
    }

    #[test]
    fn wrong_stale_or_missing_results_are_found() {
        assert!(differ("x", &[1.0, 2.0], &[1.0, 2.0005], TOLERANCE).is_ok());
        for got in [
            &[1.0, 2.01][..],
            &[1.0, f32::NAN],
            &[f32::NAN, 2.0],
            &[1.0],
            &[0.0, 0.0],
        ] {
            let error = differ("matrix product", &[1.0, 2.0], got, TOLERANCE).unwrap_err();
            assert_eq!(error.code(), Code::DeviceLost);
            assert!(error.message().contains("matrix product"));
        }
    }
}
