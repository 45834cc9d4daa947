//! One step of Strassen's algorithm ("Gaussian elimination is not optimal", 1969): two matrices in quarters are multiplied in seven products instead of
//! eight.
//! ```text
//! m₁ = (a₁₁ + a₂₂)(b₁₁ + b₂₂)   m₂ = (a₂₁ + a₂₂) b₁₁   m₃ = a₁₁ (b₁₂ − b₂₂)   m₄ = a₂₂ (b₂₁ − b₁₁)
//! m₅ = (a₁₁ + a₁₂) b₂₂   m₆ = (a₂₁ − a₁₁)(b₁₁ + b₁₂)   m₇ = (a₁₂ − a₂₂)(b₂₁ + b₂₂)
//! c₁₁ = m₁ + m₄ − m₅ + m₇   c₁₂ = m₃ + m₅   c₂₁ = m₂ + m₄   c₂₂ = m₁ − m₂ + m₃ + m₆
//! ```

use super::panel::PANEL;

/// What is multiplied: a quarter, or one and another times a sign. They are numbered 11, 12, 21, 22.
#[derive(Clone, Copy)]
pub enum Operand {
    Quarter(usize),
    Sum(usize, f32, usize),
}

/// One of the seven products.
pub struct Product {
    pub left: Operand,
    pub right: Operand,
    /// The quarters of the result that get it, with the sign.
    pub outputs: &'static [(usize, f32)],
}

pub const PRODUCTS: [Product; 7] = {
    use Operand::{Quarter, Sum};
    const fn product(left: Operand, right: Operand, outputs: &'static [(usize, f32)]) -> Product {
        Product {
            left,
            right,
            outputs,
        }
    }
    [
        product(Sum(0, 1.0, 3), Sum(0, 1.0, 3), &[(0, 1.0), (3, 1.0)]),
        product(Sum(2, 1.0, 3), Quarter(0), &[(2, 1.0), (3, -1.0)]),
        product(Quarter(0), Sum(1, -1.0, 3), &[(1, 1.0), (3, 1.0)]),
        product(Quarter(3), Sum(2, -1.0, 0), &[(0, 1.0), (2, 1.0)]),
        product(Sum(0, 1.0, 1), Quarter(3), &[(0, -1.0), (1, 1.0)]),
        product(Sum(2, -1.0, 0), Sum(0, 1.0, 1), &[(3, 1.0)]),
        product(Sum(1, -1.0, 3), Sum(2, 1.0, 3), &[(0, 1.0)]),
    ]
};

/// The sums of a panel of the weight's first half and of one of its second half, `[2, rows, PANEL]`, in the quarters of `half` rows each; and
/// what is left of each where there is an odd row.
pub fn quarters(sums: &mut [f32], half: usize) -> ([&mut [f32]; 4], [&mut [f32]; 2]) {
    let (left, right) = sums.split_at_mut(sums.len() / 2);
    let (c11, left) = left.split_at_mut(half * PANEL);
    let (c21, left) = left.split_at_mut(half * PANEL);
    let (c12, right) = right.split_at_mut(half * PANEL);
    let (c22, right) = right.split_at_mut(half * PANEL);
    ([c11, c12, c21, c22], [left, right])
}

/// `a + sign · b` in place of `sum`.
#[inline(always)]
pub fn add(a: &[f32], sign: f32, b: &[f32], sum: &mut [f32]) {
    for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
        *sum = a + sign * b;
    }
}
