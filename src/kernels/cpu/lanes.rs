//! Vectors of four f32: WebAssembly's SIMD128, and the same operations spelled out for the native tests.
//!
//! Built with the target feature `relaxed-simd`, [`multiply_add`] is one instruction that rounds once.

#[cfg(target_family = "wasm")]
pub use wasm::*;

#[cfg(not(target_family = "wasm"))]
pub use portable::*;

/// Numbers in a vector.
pub const WIDTH: usize = 4;

#[cfg(target_family = "wasm")]
#[allow(unsafe_code)]
mod wasm {
    use std::arch::wasm32::*;

    pub type Lanes = v128;

    #[inline(always)]
    pub fn splat(value: f32) -> Lanes {
        f32x4_splat(value)
    }

    /// The four numbers from `i` on.
    #[inline(always)]
    pub fn load(slice: &[f32], i: usize) -> Lanes {
        let four: &[f32; 4] = slice[i..].first_chunk().expect("four numbers");
        // SAFETY: there are four numbers, and the instruction takes any alignment.
        unsafe { v128_load(four.as_ptr().cast()) }
    }

    /// # Safety
    /// The slice must have four numbers from `i` on.
    #[inline(always)]
    pub unsafe fn load_unchecked(slice: &[f32], i: usize) -> Lanes {
        debug_assert!(i + 4 <= slice.len());
        unsafe { v128_load(slice.as_ptr().add(i).cast()) }
    }

    /// # Safety
    /// The slice must have four numbers from `i` on.
    #[inline(always)]
    pub unsafe fn store_unchecked(slice: &mut [f32], i: usize, lanes: Lanes) {
        debug_assert!(i + 4 <= slice.len());
        unsafe { v128_store(slice.as_mut_ptr().add(i).cast(), lanes) }
    }

    #[inline(always)]
    pub fn store(slice: &mut [f32], i: usize, lanes: Lanes) {
        let four: &mut [f32; 4] = slice[i..].first_chunk_mut().expect("four numbers");
        // SAFETY: as in `load`.
        unsafe { v128_store(four.as_mut_ptr().cast(), lanes) }
    }

    #[inline(always)]
    pub fn add(a: Lanes, b: Lanes) -> Lanes {
        f32x4_add(a, b)
    }

    #[inline(always)]
    pub fn subtract(a: Lanes, b: Lanes) -> Lanes {
        f32x4_sub(a, b)
    }

    /// `a · b + c`
    #[inline(always)]
    pub fn multiply_add(a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        #[cfg(target_feature = "relaxed-simd")]
        return f32x4_relaxed_madd(a, b, c);
        #[cfg(not(target_feature = "relaxed-simd"))]
        return f32x4_add(f32x4_mul(a, b), c);
    }

    /// Rows to columns.
    #[inline(always)]
    pub fn transpose([a, b, c, d]: [Lanes; 4]) -> [Lanes; 4] {
        let ab = i32x4_shuffle::<0, 4, 1, 5>(a, b);
        let cd = i32x4_shuffle::<0, 4, 1, 5>(c, d);
        let ab_high = i32x4_shuffle::<2, 6, 3, 7>(a, b);
        let cd_high = i32x4_shuffle::<2, 6, 3, 7>(c, d);
        [
            i64x2_shuffle::<0, 2>(ab, cd),
            i64x2_shuffle::<1, 3>(ab, cd),
            i64x2_shuffle::<0, 2>(ab_high, cd_high),
            i64x2_shuffle::<1, 3>(ab_high, cd_high),
        ]
    }
}

#[cfg(not(target_family = "wasm"))]
mod portable {
    pub type Lanes = [f32; 4];

    pub fn splat(value: f32) -> Lanes {
        [value; 4]
    }

    pub fn load(slice: &[f32], i: usize) -> Lanes {
        *slice[i..].first_chunk().expect("four numbers")
    }

    /// # Safety
    /// None is needed here.
    #[allow(unsafe_code)]
    pub unsafe fn load_unchecked(slice: &[f32], i: usize) -> Lanes {
        load(slice, i)
    }

    /// # Safety
    /// None is needed here.
    #[allow(unsafe_code)]
    pub unsafe fn store_unchecked(slice: &mut [f32], i: usize, lanes: Lanes) {
        store(slice, i, lanes)
    }

    pub fn store(slice: &mut [f32], i: usize, lanes: Lanes) {
        slice[i..i + 4].copy_from_slice(&lanes);
    }

    pub fn add(a: Lanes, b: Lanes) -> Lanes {
        std::array::from_fn(|i| a[i] + b[i])
    }

    pub fn subtract(a: Lanes, b: Lanes) -> Lanes {
        std::array::from_fn(|i| a[i] - b[i])
    }

    pub fn multiply_add(a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    pub fn transpose(rows: [Lanes; 4]) -> [Lanes; 4] {
        std::array::from_fn(|c| std::array::from_fn(|r| rows[r][c]))
    }
}
