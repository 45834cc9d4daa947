//! Is this device to be trusted? Small known cases of everything the towers call, against the CPU.
//!
//! A GPU or driver that computes wrongly, and a shader that failed to compile and was silently skipped, both show here,
//! before anything is shown to a person.

use burn::tensor::{Device, Tensor, TensorData};

use super::packed::Dtype;
use super::{PackedMatrix, PackedWeight, attention, layer_norm, linear, linear_packed, reference};
use crate::error::{Error, Result};
use crate::model::Activation;

/// Largest difference that rounding explains in cases of this size, on values of order 1.
const TOLERANCE: f32 = 1e-3;
/// The same where the CPU rounds the other operand to 8 bits: half a step of 1/127, times the square root of 72, and outliers.
const TOLERANCE_8_BITS: f32 = 1e-1;

/// Compares `device` with the CPU's plain forms.
///
/// # Errors
/// `device-lost`, naming the operation and the difference, if the device fails or computes something else.
pub async fn check(device: &Device) -> Result<()> {
    let cpu = Device::flex();
    let mut seed = 1;
    let mut case = |shape: &[usize]| {
        let values = pseudo_random(&mut seed, shape.iter().product());
        TensorData::new(values, shape.to_vec())
    };
    // Sizes that no tile or workgroup divides evenly.
    let x = case(&[2, 37, 72]);
    let (weight, bias) = (case(&[132, 72]), case(&[132]));
    let residual = case(&[2, 37, 132]);
    let (query, key, value) = (case(&[2, 5, 72]), case(&[2, 37, 72]), case(&[2, 37, 72]));
    let (gamma, beta) = (case(&[72]), case(&[72]));

    type Case<'a> = (&'static str, Box<dyn Fn(&Device, bool) -> Tensor<3> + 'a>);
    let linear_case = |device: &Device, plain: bool, activation, residual| {
        let arguments = (
            Tensor::from_data(x.clone(), device),
            Tensor::from_data(weight.clone(), device),
            Tensor::from_data(bias.clone(), device),
        );
        let form = if plain { reference::linear } else { linear };
        form(arguments.0, arguments.1, arguments.2, activation, residual)
    };
    let values = weight
        .as_slice::<f32>()
        .expect("the case's numbers are f32")
        .to_vec();
    let packed_case = |device: &Device, plain: bool, dtype| {
        let weight = PackedWeight::new(PackedMatrix::pack(dtype, 72, &values), device);
        let x = Tensor::<3>::from_data(x.clone(), device);
        let bias = Tensor::from_data(bias.clone(), device);
        match plain {
            true => reference::linear(x, weight.unpack(), bias, None, None),
            false => linear_packed(x, &weight, bias, None, None),
        }
    };
    let cases: [Case; 8] = [
        (
            "matrix product",
            Box::new(|d, plain| linear_case(d, plain, None, None)),
        ),
        (
            "GELU",
            Box::new(|d, plain| linear_case(d, plain, Some(Activation::GeluTanh), None)),
        ),
        (
            "residual sum",
            Box::new(|d, plain| {
                linear_case(d, plain, None, Some(Tensor::from_data(residual.clone(), d)))
            }),
        ),
        (
            "matrix product with f16 weights",
            Box::new(|d, plain| packed_case(d, plain, Dtype::F16)),
        ),
        (
            "matrix product with q8 weights",
            Box::new(|d, plain| packed_case(d, plain, Dtype::Q8)),
        ),
        (
            "matrix product with q4 weights",
            Box::new(|d, plain| packed_case(d, plain, Dtype::Q4)),
        ),
        (
            "attention",
            Box::new(|d, plain| {
                let form = if plain {
                    reference::attention
                } else {
                    attention
                };
                let [q, k, v] = [&query, &key, &value].map(|t| Tensor::from_data(t.clone(), d));
                form(q, k, v, 3)
            }),
        ),
        (
            "layer norm",
            Box::new(|d, plain| {
                let form = if plain {
                    reference::layer_norm
                } else {
                    layer_norm
                };
                let [gamma, beta] = [&gamma, &beta].map(|t| Tensor::from_data(t.clone(), d));
                form(Tensor::from_data(x.clone(), d), gamma, beta, 1e-6)
            }),
        ),
    ];
    for (name, case) in &cases {
        let expected = read(case(&cpu, true)).await?;
        let got = read(case(device, false)).await?;
        let eight_bits = *device == cpu && name.contains("with q");
        let tolerance = if eight_bits {
            TOLERANCE_8_BITS
        } else {
            TOLERANCE
        };
        compare(name, &expected, &got, tolerance)?;
    }
    Ok(())
}

/// Fails unless `got` is `expected` up to rounding.
fn compare(name: &str, expected: &[f32], got: &[f32], tolerance: f32) -> Result<()> {
    let difference = expected
        .iter()
        .zip(got)
        .map(|(e, g)| (e - g).abs())
        // NaN must not get lost in a maximum.
        .fold(
            0.0,
            |worst: f32, d| if d > worst || d.is_nan() { d } else { worst },
        );
    if expected.len() == got.len() && difference <= tolerance {
        return Ok(());
    }
    Err(Error::device_lost(format!(
        "this device computes wrongly: its {name} is off by {difference:e} in a small test, where rounding explains {tolerance:e}. \
         Use the CPU (backend \"cpu\"), or try again after updating the graphics driver"
    )))
}

async fn read(tensor: Tensor<3>) -> Result<Vec<f32>> {
    crate::kernels::to_vec(tensor).await
}

/// Numbers in −1…1 that are the same everywhere (a linear congruential generator).
fn pseudo_random(seed: &mut u32, count: usize) -> Vec<f32> {
    (0..count)
        .map(|_| {
            *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (*seed >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn the_cpu_agrees_with_itself() {
        pollster::block_on(check(&Device::flex())).unwrap();
    }

    #[test]
    fn wrong_stale_or_missing_results_are_found() {
        assert!(compare("x", &[1.0, 2.0], &[1.0, 2.0005], TOLERANCE).is_ok());
        for got in [
            &[1.0, 2.01][..],
            &[1.0, f32::NAN],
            &[f32::NAN, 2.0],
            &[1.0],
            &[0.0, 0.0],
        ] {
            let error = compare("matrix product", &[1.0, 2.0], got, TOLERANCE).unwrap_err();
            assert_eq!(error.code(), Code::DeviceLost);
            assert!(error.message().contains("matrix product"));
        }
    }
}
