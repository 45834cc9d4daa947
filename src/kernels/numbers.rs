//! Numbers without a pattern that are the same everywhere: for the check of a device, tests and benchmarks.

use std::ops::RangeInclusive;

/// A linear congruential generator, begun with any number.
#[derive(Clone, Debug)]
pub struct Numbers(pub u32);

impl Numbers {
    /// The next 24 bits.
    pub fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    /// The next `count` numbers in −1…1.
    pub fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count)
            .map(|_| self.bits() as f32 / (1 << 23) as f32 - 1.0)
            .collect()
    }

    /// One of a range.
    pub fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        let count = range.end() - range.start() + 1;
        range.start() + self.bits() as usize % count
    }

    /// One of `choices`.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.bits() as usize % choices.len()]
    }
}
