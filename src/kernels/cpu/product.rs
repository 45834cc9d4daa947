//! The matrix product of a linear layer, `x · weightᵀ`, on 128-bit SIMD: what WebAssembly has.
//!
//! Both operands lie along the summed dimension already, so nothing is packed: a tile of 3 × 3 outputs keeps nine sums of
//! four lanes in registers and adds its lanes up at the end. Natively burn-flex's product, with wider vectors, is faster.

use std::ops::Range;

#[cfg(target_family = "wasm")]
use wasm as lanes;

#[cfg(not(target_family = "wasm"))]
use portable as lanes;

use lanes::{Lanes, load, multiply_add, sum, zero};

/// Outputs of a tile along the rows of `x`, and along those of `weight`. Nine sums and four operands fill the sixteen vector
/// registers of x86.
const ROWS: usize = 3;
const COLUMNS: usize = 3;
/// Weight rows that stay in the first-level cache while all rows of `x` pass by.
const BLOCK: usize = 9;
/// Length of the pieces that long sums are cut into, for the same reason.
const LENGTH: usize = 1024;

/// `x [rows, input]`, `weight [output, input]` → `[rows, output]`; `input` is a multiple of 4.
pub fn product(x: &[f32], weight: &[f32], input: usize, output: usize) -> Vec<f32> {
    let mut y = vec![0.0; x.len() / input * output];
    product_into(x, weight, input, &mut y, output, 0);
    y
}

/// The same for some rows of a weight, added to `y [rows, output]` from column `first` on.
pub fn product_into(
    x: &[f32],
    weight: &[f32],
    input: usize,
    y: &mut [f32],
    output: usize,
    first: usize,
) {
    let (rows, outputs) = (x.len() / input, weight.len() / input);
    for start in (0..input).step_by(LENGTH) {
        let piece = start..input.min(start + LENGTH);
        let x_row = |row: usize| &x[row * input..][piece.clone()];
        let w_row = |column: usize| &weight[column * input..][piece.clone()];
        for block in (0..outputs).step_by(BLOCK) {
            let columns = block..outputs.min(block + BLOCK);
            let mut row = 0;
            while row + ROWS <= rows {
                let x = std::array::from_fn::<_, ROWS, _>(|i| x_row(row + i));
                strip(x, w_row, columns.clone(), |r, column, sum| {
                    y[(row + r) * output + first + column] += sum;
                });
                row += ROWS;
            }
            for row in row..rows {
                strip([x_row(row)], w_row, columns.clone(), |_, column, sum| {
                    y[row * output + first + column] += sum;
                });
            }
        }
    }
}

/// Some rows of `x` with a range of weight rows; `put` gets each sum with its row among those of `x` and its column.
#[inline(always)]
fn strip<'a, const R: usize>(
    x: [&[f32]; R],
    w_row: impl Fn(usize) -> &'a [f32],
    columns: Range<usize>,
    mut put: impl FnMut(usize, usize, f32),
) {
    let mut column = columns.start;
    while column + COLUMNS <= columns.end {
        let w = std::array::from_fn::<_, COLUMNS, _>(|i| w_row(column + i));
        for (r, sums) in tile(x, w).into_iter().enumerate() {
            for (c, sum) in sums.into_iter().enumerate() {
                put(r, column + c, sum);
            }
        }
        column += COLUMNS;
    }
    for column in column..columns.end {
        for (r, [sum]) in tile(x, [w_row(column)]).into_iter().enumerate() {
            put(r, column, sum);
        }
    }
}

/// The dot products of each `x` with each `w`; all slices have the same length, a multiple of 4.
#[inline(always)]
fn tile<const R: usize, const C: usize>(x: [&[f32]; R], w: [&[f32]; C]) -> [[f32; C]; R] {
    let length = w[0].len();
    assert!(x.iter().chain(&w).all(|slice| slice.len() == length) && length.is_multiple_of(4));
    let mut sums = [[zero(); C]; R];
    let mut k = 0;
    while k < length {
        let a: [Lanes; R] = std::array::from_fn(|r| load(x[r], k));
        for (c, w) in w.iter().enumerate() {
            let b = load(w, k);
            for (sums, a) in sums.iter_mut().zip(a) {
                sums[c] = multiply_add(a, b, sums[c]);
            }
        }
        k += 4;
    }
    sums.map(|row| row.map(sum))
}

#[cfg(target_family = "wasm")]
mod wasm {
    use std::arch::wasm32::{
        f32x4_add, f32x4_extract_lane, f32x4_mul, f32x4_splat, v128, v128_load,
    };

    pub type Lanes = v128;

    pub fn zero() -> Lanes {
        f32x4_splat(0.0)
    }

    /// The four numbers from `k` on.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub fn load(slice: &[f32], k: usize) -> Lanes {
        debug_assert!(k + 4 <= slice.len());
        // SAFETY: the one caller, `tile`, has checked that every slice has the same length, a multiple of 4, and stays below
        // it in steps of 4.
        unsafe { v128_load(slice.as_ptr().add(k).cast()) }
    }

    #[inline(always)]
    pub fn multiply_add(a: Lanes, b: Lanes, sum: Lanes) -> Lanes {
        f32x4_add(sum, f32x4_mul(a, b))
    }

    #[inline(always)]
    pub fn sum(v: Lanes) -> f32 {
        (f32x4_extract_lane::<0>(v) + f32x4_extract_lane::<2>(v))
            + (f32x4_extract_lane::<1>(v) + f32x4_extract_lane::<3>(v))
    }
}

/// The same operations for the native tests.
#[cfg(not(target_family = "wasm"))]
mod portable {
    pub type Lanes = [f32; 4];

    pub fn zero() -> Lanes {
        [0.0; 4]
    }

    pub fn load(slice: &[f32], k: usize) -> Lanes {
        std::array::from_fn(|i| slice[k + i])
    }

    pub fn multiply_add(a: Lanes, b: Lanes, sum: Lanes) -> Lanes {
        std::array::from_fn(|i| sum[i] + a[i] * b[i])
    }

    pub fn sum(v: Lanes) -> f32 {
        (v[0] + v[2]) + (v[1] + v[3])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_definition_on_sizes_that_no_tile_or_block_divides() {
        for (rows, input, output) in [
            (1, 4, 4),
            (2, 8, 13),
            (3, 1028, 20),
            (5, 2052, 1),
            (7, 64, 36),
        ] {
            let number = |i: usize| ((i * 7919) % 1009) as f32 / 504.5 - 1.0;
            let x: Vec<f32> = (0..rows * input).map(number).collect();
            let weight: Vec<f32> = (0..output * input).map(|i| number(i + 31)).collect();
            let y = product(&x, &weight, input, output);
            assert_eq!(y.len(), rows * output);
            for row in 0..rows {
                for column in 0..output {
                    let expected: f64 = (0..input)
                        .map(|k| {
                            f64::from(x[row * input + k]) * f64::from(weight[column * input + k])
                        })
                        .sum();
                    let got = f64::from(y[row * output + column]);
                    assert!(
                        (got - expected).abs() < 1e-3,
                        "{rows}×{input}→{output}: {got}, not {expected}"
                    );
                }
            }
        }
    }
}
