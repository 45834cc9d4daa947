//! What a linear layer does to its sums, in one pass over them: bias, activation or residual.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::functions::{gelu, gelu_tanh};
use super::lanes::{Lanes, WIDTH, add, load, to_array};
use super::memory::room;
use super::panel::PANEL;
use super::parallel::for_chunks;
use crate::kernels::Activation;

const VECTORS: usize = PANEL / WIDTH;
/// Rows that a thread finishes at a time.
const ROWS: usize = 16;

/// Outputs while they are summed: those of `PANEL` weight rows after the other, `[rows, PANEL]` each, so that what threads write
/// lies together.
pub struct Sums<'a> {
    pub values: &'a mut [f32],
    pub rows: usize,
    /// Which weight rows each panel's columns are, at most `PANEL`.
    pub columns: Vec<Range<usize>>,
}

impl<'a> Sums<'a> {
    /// In `memory`, with whatever numbers are there.
    pub fn new(memory: &'a mut Vec<f32>, rows: usize, columns: Vec<Range<usize>>) -> Self {
        Self {
            values: room(memory, columns.len() * rows * PANEL),
            rows,
            columns,
        }
    }
}

/// Adds what was taken from the rows of `x`, times the sums of a weight's numbers, to `sums [rows, PANEL]`.
pub fn add_middles<'a>(
    middles: impl Iterator<Item = &'a f32>,
    totals: &[f32; PANEL],
    sums: &mut [f32],
) {
    for (sums, middle) in sums.chunks_exact_mut(PANEL).zip(middles) {
        for (sum, total) in sums.iter_mut().zip(totals) {
            *sum += middle * total;
        }
    }
}

/// What is done to each output, see [`Epilogue`](crate::kernels::Epilogue).
#[derive(Clone, Copy)]
pub enum EpilogueRef<'a> {
    None,
    #[cfg_attr(not(target_family = "wasm"), expect(dead_code))] // The browser's.
    Activation(Activation),
    /// `[rows, output]`
    Add(&'a [f32]),
}

/// A linear layer's output, and what makes it of the sums.
pub struct LayerOutput<'a> {
    /// `[rows, output]`
    y: &'a mut [MaybeUninit<f32>],
    /// How many numbers were written.
    written: usize,
    /// `[output]`
    bias: &'a [f32],
    epilogue: EpilogueRef<'a>,
}

/// The output `[rows, output]` of a layer with `bias [output]` and `epilogue`, if `sum` writes the sums for all of it.
#[allow(unsafe_code)]
pub fn output(
    rows: usize,
    bias: &[f32],
    epilogue: EpilogueRef,
    sum: impl FnOnce(&mut LayerOutput),
) -> Vec<f32> {
    let length = rows * bias.len();
    let mut y = Vec::with_capacity(length);
    let mut output = LayerOutput {
        y: &mut y.spare_capacity_mut()[..length],
        written: 0,
        bias,
        epilogue,
    };
    sum(&mut output);
    assert_eq!(output.written, length, "each output is written once");
    // SAFETY: all numbers were written.
    unsafe { y.set_len(length) };
    y
}

impl LayerOutput<'_> {
    /// Writes the outputs whose sums are there: rows from `first_row` on.
    pub fn write(&mut self, first_row: usize, sums: &Sums) {
        match self.epilogue {
            EpilogueRef::None => self.write_as(first_row, sums, None, |sum, _| sum),
            EpilogueRef::Activation(Activation::GeluTanh) => {
                self.write_as(first_row, sums, None, |sum, _| gelu_tanh(sum));
            }
            EpilogueRef::Activation(Activation::Gelu) => {
                self.write_as(first_row, sums, None, |sum, _| gelu(sum));
            }
            EpilogueRef::Add(residual) => self.write_as(first_row, sums, Some(residual), add),
        }
    }

    /// `output` gets a sum with its bias, and the residual.
    #[inline(always)]
    fn write_as(
        &mut self,
        first_row: usize,
        sums: &Sums,
        residual: Option<&[f32]>,
        output: impl Fn(Lanes, Lanes) -> Lanes + Sync,
    ) {
        self.written += sums.rows * sums.columns.iter().map(Range::len).sum::<usize>();
        let width = self.bias.len();
        let start = first_row * width;
        let y = &mut self.y[start..][..sums.rows * width];
        let residual = residual.map(|residual| &residual[start..][..y.len()]);
        for_chunks(y, ROWS * width, |chunk, y| {
            // A few rows of one panel after the other: what is read and what is written stay in the first-level cache.
            let panels = sums.values.chunks_exact(sums.rows * PANEL);
            for (panel, columns) in panels.zip(&sums.columns) {
                let (from, count) = (columns.start, columns.len());
                let bias = padded(&self.bias[from..][..count]);
                let bias: [Lanes; VECTORS] = std::array::from_fn(|v| load(&bias, v * WIDTH));
                let panel = panel[chunk * ROWS * PANEL..].chunks_exact(PANEL);
                for (row, (y, sums)) in y.chunks_exact_mut(width).zip(panel).enumerate() {
                    let y = &mut y[from..][..count];
                    let residual = residual
                        .map(|residual| &residual[(chunk * ROWS + row) * width + from..][..count]);
                    let of = |v: usize, residual: Option<&[f32]>| {
                        let sum = add(load(sums, v * WIDTH), bias[v]);
                        let residual = residual.map_or(sum, |residual| load(residual, v * WIDTH));
                        to_array(output(sum, residual))
                    };
                    if count == PANEL {
                        for (v, y) in y.chunks_exact_mut(WIDTH).enumerate() {
                            y.write_copy_of_slice(&of(v, residual));
                        }
                    } else {
                        let residual = residual.map(padded);
                        for (v, y) in y.chunks_mut(WIDTH).enumerate() {
                            let residual = residual.as_ref().map(|residual| residual.as_slice());
                            y.write_copy_of_slice(&of(v, residual)[..y.len()]);
                        }
                    }
                }
            }
        });
    }
}

/// At most `PANEL` numbers, filled up.
fn padded(numbers: &[f32]) -> [f32; PANEL] {
    let mut all = [0.0; PANEL];
    all[..numbers.len()].copy_from_slice(numbers);
    all
}
