//! What a linear layer does to its sums, in one pass over them: bias, activation or residual.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::functions::{gelu, gelu_tanh};
use super::lanes::{Lanes, WIDTH, add, load, to_array};
use super::memory::room;
use super::panel::PANEL;
use super::parallel::{for_each, for_threads};
use crate::kernels::Activation;

const VECTORS: usize = PANEL / WIDTH;

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
    /// How many rows were written.
    written: usize,
    /// `[output]`
    bias: &'a [f32],
    epilogue: EpilogueRef<'a>,
}

/// The output `[rows, output]` of a layer with `bias [output]` and `epilogue`, if `sum` writes all of its rows.
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
    assert_eq!(output.written, rows, "all rows are written");
    // SAFETY: all numbers were written.
    unsafe { y.set_len(length) };
    y
}

/// What a thread sums up and its own memory, see [`LayerOutput::write`].
pub struct Summing<S> {
    sums: Vec<f32>,
    memory: S,
}

impl<S> Summing<S> {
    pub const fn new(memory: S) -> Self {
        Self {
            sums: Vec::new(),
            memory,
        }
    }
}

impl LayerOutput<'_> {
    /// Writes the next rows: of each part its columns, which are one panel's or some panels'. `sum` gets the number of a part and its sums to fill,
    /// `[rows, PANEL]` for each panel, with whatever numbers are there. They are written while the thread's cache holds them.
    pub fn write<S: Send>(
        &mut self,
        rows: usize,
        parts: &[Vec<Range<usize>>],
        threads: &mut [Summing<S>],
        sum: impl Fn(&mut S, usize, &mut [f32]) + Sync,
    ) {
        let target = self.next_rows(rows, parts);
        for_each(parts.len(), threads, |Summing { sums, memory }, i| {
            let sums = room(sums, parts[i].len() * rows * PANEL);
            sum(memory, i, sums);
            target.write(&parts[i], sums);
        });
    }

    /// The same with sums that are there, those of one part after the other.
    pub fn write_sums(&mut self, rows: usize, parts: &[Vec<Range<usize>>], sums: &[f32]) {
        let target = self.next_rows(rows, parts);
        let panels = parts.iter().flatten().cloned();
        let panels: Vec<_> = panels.zip(sums.chunks_exact(rows * PANEL)).collect();
        for_each(panels.len(), &mut for_threads(|| ()), |(), i| {
            let (columns, sums) = &panels[i];
            target.write(std::slice::from_ref(columns), sums);
        });
    }

    fn next_rows(&mut self, rows: usize, parts: &[Vec<Range<usize>>]) -> Target<'_> {
        let width = self.bias.len();
        let mut columns: Vec<_> = parts.iter().flatten().collect();
        columns.sort_by_key(|range| range.start);
        let end = columns
            .iter()
            .try_fold(0, |end, range| (range.start == end).then_some(range.end));
        assert_eq!(end, Some(width), "each column is one part's");
        let all = self.written * width..(self.written + rows) * width;
        self.written += rows;
        let epilogue = match self.epilogue {
            EpilogueRef::Add(residual) => EpilogueRef::Add(&residual[all.clone()]),
            other => other,
        };
        let y = &mut self.y[all];
        Target {
            y: y.as_mut_ptr(),
            length: y.len(),
            width,
            bias: self.bias,
            epilogue,
            lives: PhantomData,
        }
    }
}

/// Where threads write columns of their own.
struct Target<'a> {
    /// `[rows, width]`
    y: *mut MaybeUninit<f32>,
    length: usize,
    width: usize,
    bias: &'a [f32],
    epilogue: EpilogueRef<'a>,
    lives: PhantomData<&'a mut [MaybeUninit<f32>]>,
}

// SAFETY: parts have no columns in common, as `LayerOutput::next_rows` checks, and one thread has a part.
#[allow(unsafe_code)]
unsafe impl Sync for Target<'_> {}

impl Target<'_> {
    /// `sums [columns.len(), rows, PANEL]`
    fn write(&self, columns: &[Range<usize>], sums: &[f32]) {
        let panels = sums.chunks_exact(sums.len() / columns.len());
        for (columns, sums) in columns.iter().cloned().zip(panels) {
            match self.epilogue {
                EpilogueRef::None => self.write_as(columns, sums, None, |sum, _| sum),
                EpilogueRef::Activation(Activation::GeluTanh) => {
                    self.write_as(columns, sums, None, |sum, _| gelu_tanh(sum));
                }
                EpilogueRef::Activation(Activation::Gelu) => {
                    self.write_as(columns, sums, None, |sum, _| gelu(sum));
                }
                EpilogueRef::Add(residual) => self.write_as(columns, sums, Some(residual), add),
            }
        }
    }

    /// `output` gets a sum with its bias, and the residual.
    #[inline(always)]
    #[allow(unsafe_code)]
    fn write_as(
        &self,
        columns: Range<usize>,
        sums: &[f32],
        residual: Option<&[f32]>,
        output: impl Fn(Lanes, Lanes) -> Lanes,
    ) {
        let (from, count) = (columns.start, columns.len());
        let bias = padded(&self.bias[columns]);
        let bias: [Lanes; VECTORS] = std::array::from_fn(|v| load(&bias, v * WIDTH));
        for (row, sums) in sums.chunks_exact(PANEL).enumerate() {
            let at = row * self.width + from;
            assert!(at + count <= self.length);
            // SAFETY: within `y`, and no other thread has these columns.
            let y = unsafe { std::slice::from_raw_parts_mut(self.y.add(at), count) };
            let residual = residual.map(|residual| &residual[at..][..count]);
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
}

/// At most `PANEL` numbers, filled up.
fn padded(numbers: &[f32]) -> [f32; PANEL] {
    let mut all = [0.0; PANEL];
    all[..numbers.len()].copy_from_slice(numbers);
    all
}
