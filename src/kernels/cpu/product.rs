//! The matrix product of a linear layer, `x · weightᵀ`, on 128-bit SIMD: what WebAssembly has.
//!
//! Rows of the weight, 24 at a time, are laid out as a *panel*, summed dimension first, so that a tile of 2 × 24 outputs
//! grows by twelve vector multiply-adds for each number of the two rows of `x`: sums and operands fill the fifteen vector registers
//! that browsers have for them on x86. A model's weights are [laid out](lay_out) once; what isn't, is at each product. Large
//! products save an eighth of the multiplications with one step of [Strassen's](strassen) algorithm, panel by panel, so that its sums of
//! weights never leave the cache. Natively burn-flex's product, with wider vectors, is faster.

use std::ops::Range;
use std::sync::Mutex;

use super::epilogue::LayerOutput;
use super::laid_out::LaidOut;
use super::lanes::{Lanes, WIDTH, load, load_unchecked, multiply_add, splat, store};
use super::memory::room;
use super::panel::{MatrixView, PANEL, VECTORS, columns, columns_of_halves, pack};
use super::parallel::{for_chunks, for_parts, for_threads};
use super::strassen::{self, Operand, PRODUCTS};
use crate::kernels::packed::Dtype;

/// Rows of a tile.
const ROWS: usize = 2;
/// Longest panel: 36 KiB. (A smaller one, with room in the first-level cache for the rows of `x`, is no faster.)
const LENGTH: usize = 384;
/// Rows of `x` that pass by a panel: with `LENGTH` numbers each they stay in the second-level cache.
const CHUNK: usize = 256;
/// Rows of an operand that a thread adds at a time.
const SHARE: usize = 16;

/// The weight of a linear layer.
#[derive(Clone, Copy)]
pub enum WeightView<'a> {
    F32(MatrixView<'a>),
    F16(MatrixView<'a, u16>),
    /// As [`lay_out`] has it.
    LaidOut(&'a LaidOut),
}

impl<'a> WeightView<'a> {
    /// `[rows, length]` in f32.
    pub fn of(values: &'a [f32], length: usize) -> Self {
        Self::F32(MatrixView::of(values, length))
    }

    /// `[rows, words]`, packed as `f16` with `length` numbers a row.
    pub fn of_halves(words: &'a [u32], length: usize) -> Self {
        let row_words = Dtype::F16.row_words(length);
        Self::F16(MatrixView {
            values: bytemuck::cast_slice(words),
            stride: 2 * row_words,
            rows: words.len() / row_words,
            length,
        })
    }

    fn rows(self) -> usize {
        match self {
            Self::F32(weight) => weight.rows,
            Self::F16(weight) => weight.rows,
            Self::LaidOut(weight) => weight.rows,
        }
    }

    /// A panel's rows, with some of their numbers: there, or in `memory`.
    fn panel<'p>(
        self,
        rows: &Range<usize>,
        numbers: Range<usize>,
        memory: &'p mut [f32],
    ) -> &'p [f32]
    where
        'a: 'p,
    {
        match self {
            Self::F32(weight) => {
                let weight = weight.columns(numbers.start, numbers.len());
                pack::<VECTORS, f32>(weight.rows(rows.start, rows.len()), memory);
            }
            Self::F16(weight) => {
                let weight = weight.columns(numbers.start, numbers.len());
                pack::<VECTORS, u16>(weight.rows(rows.start, rows.len()), memory);
            }
            Self::LaidOut(weight) => {
                let panel = weight.panel(place_of(rows.start, weight.rows));
                return bytemuck::cast_slice(&panel[numbers.start * PANEL..numbers.end * PANEL]);
            }
        }
        memory
    }
}

/// Panels `[input, PANEL]` in the order of [`columns_of_halves`], of a weight in f32.
pub fn lay_out(weight: MatrixView) -> LaidOut {
    /// Numbers of each row that are laid out at a time: the first-level cache holds as much.
    const LENGTH: usize = 256;
    let panels: Vec<_> = columns_of_halves(weight.rows)
        .into_iter()
        .flatten()
        .collect();
    let size = weight.length * PANEL;
    LaidOut::new(
        weight.rows,
        panels.len(),
        size,
        || (),
        |(), i, panel| {
            let rows = weight.rows(panels[i].start, panels[i].len());
            for (part, panel) in panel.chunks_mut(LENGTH * PANEL).enumerate() {
                let numbers = rows.columns(part * LENGTH, panel.len() / PANEL);
                pack::<VECTORS, f32>(numbers, bytemuck::cast_slice_mut(panel));
            }
        },
    )
}

/// Which of the panels that [`columns_of_halves`] makes of so many rows begins with this one.
fn place_of(first: usize, rows: usize) -> usize {
    let half = rows / 2;
    match first {
        _ if first < half => 2 * (first / PANEL),
        _ if first < 2 * half => 2 * ((first - half) / PANEL) + 1,
        _ => 2 * half.div_ceil(PANEL),
    }
}

/// Memory that one product after the other uses.
#[derive(Default)]
struct Workspace {
    operands: Vec<f32>,
    sums: Vec<f32>,
    /// Of each thread.
    memories: Vec<Vec<f32>>,
}

static WORKSPACE: Mutex<Workspace> = Mutex::new(Workspace {
    operands: Vec::new(),
    sums: Vec::new(),
    memories: Vec::new(),
});

/// A linear layer with a weight in f32 or f16.
pub fn linear(x: MatrixView, weight: WeightView, y: &mut LayerOutput) {
    let mut workspace = WORKSPACE.lock().expect("no product panics");
    let Workspace {
        operands,
        sums,
        memories,
    } = &mut *workspace;
    if memories.is_empty() {
        *memories = for_threads(Vec::new);
    }
    let input = x.length;
    let large = x.rows >= 48 && input >= 256 && weight.rows() >= 4 * PANEL;
    let strassen = large && input.is_multiple_of(2);
    let longest = match strassen {
        true => 2 * LENGTH,
        // Where time hardly matters, sums of short sums, which round less.
        false if input < 256 => 32,
        false => LENGTH,
    };
    // Equal pieces, a multiple of 8 long, so that their halves can be read by whole vectors.
    let length = input.div_ceil(input.div_ceil(longest)).next_multiple_of(8);
    let chunks = x.rows.div_ceil(CHUNK);
    let chunk = x.rows.div_ceil(chunks.max(1)).next_multiple_of(2).max(2);
    for row in (0..x.rows).step_by(chunk) {
        let x = x.rows(row, chunk.min(x.rows - row));
        let parts = match strassen || matches!(weight, WeightView::LaidOut(_)) {
            true => columns_of_halves(weight.rows()),
            false => columns(0..weight.rows()),
        };
        // With Strassen's algorithm the columns of both halves, of which those that are left over take the last parts.
        let left = if strassen { weight.rows() / 2 * 2 } else { 0 };
        let panels: Vec<_> = parts.iter().flatten().cloned().collect();
        let of_halves = panels.iter().filter(|panel| panel.end <= left).count();
        let size = x.rows * PANEL;
        let sums = room(sums, panels.len() * size);
        let (of_halves_sums, rest) = sums.split_at_mut(of_halves * size);
        for start in (0..input).step_by(length) {
            let numbers = start..input.min(start + length);
            let x = x.columns(start, numbers.len());
            let afresh = start == 0;
            if strassen {
                add_strassen(
                    x,
                    weight,
                    numbers.clone(),
                    afresh,
                    of_halves_sums,
                    operands,
                    memories,
                );
            }
            add_plain(
                x,
                weight,
                numbers,
                &panels[of_halves..],
                afresh,
                rest,
                memories,
            );
        }
        y.write_sums(x.rows, &parts, sums);
    }
}

/// Adds the product with some panels of the weight to `sums`, panel by panel, or begins them `afresh`. `x` has these of its numbers.
fn add_plain(
    x: MatrixView,
    weight: WeightView,
    numbers: Range<usize>,
    panels: &[Range<usize>],
    afresh: bool,
    sums: &mut [f32],
    memories: &mut [Vec<f32>],
) {
    let size = x.length * PANEL;
    for_parts(sums, x.rows * PANEL, memories, |memory, i, sums| {
        let panel = weight.panel(&panels[i], numbers.clone(), room(memory, size));
        if afresh {
            sums.fill(0.0);
        }
        add_product(x, panel, &mut [sums], &[(0, 1.0)]);
    });
}

/// The product by one step of Strassen's algorithm.
fn add_strassen(
    x: MatrixView,
    weight: WeightView,
    numbers: Range<usize>,
    afresh: bool,
    sums: &mut [f32],
    operands: &mut Vec<f32>,
    memories: &mut [Vec<f32>],
) {
    let (rows, length, outputs) = (x.rows / 2, x.length / 2, weight.rows() / 2);
    let quarters = [(0, 0), (0, length), (rows, 0), (rows, length)]
        .map(|(row, column)| x.rows(row, rows).columns(column, length));
    let added: Vec<_> = (PRODUCTS.iter())
        .filter_map(|product| match product.left {
            Operand::Sum(a, sign, b) => Some((quarters[a], sign, quarters[b])),
            Operand::Quarter(_) => None,
        })
        .collect();
    let size = rows * length;
    let operands = room(operands, added.len() * size);
    for_chunks(operands, SHARE * length, |i, part| {
        for (j, sums) in part.chunks_exact_mut(length).enumerate() {
            let row = i * SHARE + j;
            let (a, sign, b) = added[row / rows];
            strassen::add(a.row(row % rows), sign, b.row(row % rows), sums);
        }
    });
    let mut operands = operands.chunks_exact(size);
    let lefts = PRODUCTS.each_ref().map(|product| match product.left {
        Operand::Quarter(quarter) => quarters[quarter],
        Operand::Sum(..) => MatrixView::of(operands.next().expect("one for each sum"), length),
    });
    // What halves leave over: a last row, and a last column.
    let last = x.rows(2 * rows, x.rows - 2 * rows);
    let panel_size = length * PANEL;
    for_parts(sums, 2 * x.rows * PANEL, memories, |memory, i, sums| {
        let (low, others) = room(memory, 5 * panel_size).split_at_mut(2 * panel_size);
        let (high, sum) = others.split_at_mut(2 * panel_size);
        let upper = i * PANEL..outputs.min((i + 1) * PANEL);
        let lower = outputs + upper.start..outputs + upper.end;
        // Whole rows at once, as they lie in memory: b₁₁ then b₂₁, b₁₂ then b₂₂.
        let low = weight.panel(&upper, numbers.clone(), low);
        let high = weight.panel(&lower, numbers.clone(), high);
        let (b11, b21) = low.split_at(panel_size);
        let (b12, b22) = high.split_at(panel_size);
        let panels = [b11, b12, b21, b22];
        if afresh {
            sums.fill(0.0);
        }
        let (mut blocks, [left, right]) = strassen::quarters(sums, rows);
        for (product, x) in PRODUCTS.iter().zip(lefts) {
            let panel = match product.right {
                Operand::Quarter(quarter) => panels[quarter],
                // One after the other in the same memory, which the cache then holds for the product.
                Operand::Sum(a, sign, b) => {
                    strassen::add(panels[a], sign, panels[b], sum);
                    &*sum
                }
            };
            add_product(x, panel, &mut blocks, product.outputs);
        }
        for (first, low, high) in [(0, b11, b12), (length, b21, b22)] {
            let x = last.columns(first, length);
            add_product(x, low, &mut [&mut *left], &[(0, 1.0)]);
            add_product(x, high, &mut [&mut *right], &[(0, 1.0)]);
        }
    });
}

/// Adds a product to some of `blocks`, `[rows, PANEL]` each, times 1 or −1.
///
/// By itself: within a larger function its loops would have to share the registers.
#[inline(never)]
fn add_product(x: MatrixView, panel: &[f32], blocks: &mut [&mut [f32]], outputs: &[(usize, f32)]) {
    for_tiles::<ROWS, VECTORS>(x, panel, |row, vector, lanes| {
        let at = row * PANEL + vector * WIDTH;
        for (block, sign) in outputs {
            let block = &mut blocks[*block];
            let sum = multiply_add(splat(*sign), lanes, load(block, at));
            store(block, at, sum);
        }
    });
}

/// The product of `x` with a panel, in tiles of `ROWS` rows and, where fewer are left, of two and one: `put` gets row, vector and sums.
#[inline(always)]
pub fn for_tiles<const ROWS: usize, const VECTORS: usize>(
    x: MatrixView,
    panel: &[f32],
    mut put: impl FnMut(usize, usize, Lanes),
) {
    let mut row = 0;
    while row + ROWS <= x.rows {
        put_tile::<ROWS, VECTORS>(x, row, panel, &mut put);
        row += ROWS;
    }
    while ROWS > 2 && row + 2 <= x.rows {
        put_tile::<2, VECTORS>(x, row, panel, &mut put);
        row += 2;
    }
    if row < x.rows {
        put_tile::<1, VECTORS>(x, row, panel, &mut put);
    }
}

#[inline(always)]
fn put_tile<const R: usize, const V: usize>(
    x: MatrixView,
    first: usize,
    panel: &[f32],
    put: &mut impl FnMut(usize, usize, Lanes),
) {
    for (r, sums) in tile::<R, V>(x, first, panel).into_iter().enumerate() {
        for (v, lanes) in sums.into_iter().enumerate() {
            put(first + r, v, lanes);
        }
    }
}

/// The sums of `R` rows of `x` with a panel of `V` vectors.
///
/// Loads the smaller side up front and streams the larger, so that `R · V` accumulators and `min(R, V) + 1` operands are live. The
/// build has the compiler keep this order (`pre-RA-sched` in tools/wasm.sh).
#[inline(always)]
#[allow(unsafe_code)]
fn tile<const R: usize, const V: usize>(
    x: MatrixView,
    first: usize,
    panel: &[f32],
) -> [[Lanes; V]; R] {
    let rows: [&[f32]; R] = std::array::from_fn(|r| x.row(first + r));
    let (length, width) = (x.length, V * WIDTH);
    assert!(panel.len() >= length * width && rows.iter().all(|row| row.len() == length));
    let mut sums = [[splat(0.0); V]; R];
    for k in 0..length {
        // SAFETY: k is below `length`, for which the slices were checked above; the compiler can't see it for products of k.
        let number = |r: usize| splat(unsafe { *rows[r].get_unchecked(k) });
        let vector = |v: usize| unsafe { load_unchecked(panel, k * width + v * WIDTH) };
        if R < V {
            let numbers: [Lanes; R] = std::array::from_fn(number);
            for v in 0..V {
                let w = vector(v);
                for (sums, a) in sums.iter_mut().zip(numbers) {
                    sums[v] = multiply_add(a, w, sums[v]);
                }
            }
        } else {
            let vectors: [Lanes; V] = std::array::from_fn(vector);
            for (r, sums) in sums.iter_mut().enumerate() {
                let a = number(r);
                for (sum, w) in sums.iter_mut().zip(vectors) {
                    *sum = multiply_add(a, w, *sum);
                }
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::PackedMatrix;
    use crate::kernels::cpu::epilogue::{self, EpilogueRef};

    #[test]
    fn equals_the_definition_on_sizes_that_no_tile_panel_or_half_divides() {
        for (rows, input, output) in [
            (1, 4, 4),
            (2, 8, 13),
            (2, 37, 5),
            (3, 1028, 20),
            (5, 2052, 1),
            (7, 64, 36),
            // Strassen's: odd rows and columns, more than one piece and more than one chunk.
            (48, 256, 144),
            (49, 516, 151),
            (50, 2052, 190),
            (515, 260, 146),
        ] {
            let number = |i: usize| ((i * 7919) % 1009) as f32 / 504.5 - 1.0;
            let x: Vec<f32> = (0..rows * input).map(number).collect();
            let weight: Vec<f32> = (0..output * input).map(|i| number(i + 31)).collect();
            let bias: Vec<f32> = (0..output).map(|i| number(i + 5)).collect();
            let residual: Vec<f32> = (0..rows * output).map(|i| number(i + 9)).collect();
            let x = MatrixView::of(&x, input);
            let halves = PackedMatrix::pack(Dtype::F16, input, &weight);
            let laid_out = lay_out(MatrixView::of(&weight, input));
            let cases = [
                (WeightView::of(&weight, input), weight.clone()),
                (WeightView::LaidOut(&laid_out), weight.clone()),
                (
                    WeightView::of_halves(halves.words(), input),
                    halves.unpack(),
                ),
            ];
            for (given, weight) in cases {
                let added = EpilogueRef::Add(&residual);
                let y = epilogue::output(rows, &bias, added, |y| linear(x, given, y));
                for row in 0..rows {
                    for column in 0..output {
                        let products = (x.row(row).iter().zip(&weight[column * input..]))
                            .map(|(x, w)| f64::from(*x) * f64::from(*w));
                        let added = bias[column] + residual[row * output + column];
                        let expected = products.sum::<f64>() + f64::from(added);
                        let got = f64::from(y[row * output + column]);
                        assert!(
                            (got - expected).abs() < 1e-3,
                            "{rows}×{input}→{output} at {row}, {column}: {got}, not {expected}"
                        );
                    }
                }
            }
        }
    }
}
