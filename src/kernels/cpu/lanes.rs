//! Vectors of four numbers of 32 bits: WebAssembly's SIMD128, and the same operations spelled out for the native tests.
//!
//! Built with the target feature `relaxed-simd`, [`multiply_add`] is one instruction that rounds once, and there is
//! [`dot_bytes`].

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

    /// Four f32.
    pub type Lanes = v128;
    /// Four u32.
    pub type Words = v128;

    #[derive(Clone, Copy)]
    #[repr(C, packed)]
    struct Unaligned(v128);

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

    /// From memory even where the compiler knows the numbers: it would keep them in registers that others need more.
    ///
    /// # Safety
    /// The slice must have four numbers from `i` on.
    #[inline(always)]
    pub unsafe fn load_anew(slice: &[f32], i: usize) -> Lanes {
        debug_assert!(i + 4 <= slice.len());
        // SAFETY: there are four numbers, and compilers take any alignment from this type.
        unsafe { std::ptr::read_volatile(slice.as_ptr().add(i).cast::<Unaligned>()).0 }
    }

    /// # Safety
    /// The slice must have four numbers from `i` on.
    #[inline(always)]
    pub unsafe fn store_unchecked(slice: &mut [f32], i: usize, lanes: Lanes) {
        debug_assert!(i + 4 <= slice.len());
        unsafe { v128_store(slice.as_mut_ptr().add(i).cast(), lanes) }
    }

    /// A constant, read from memory: browsers make one that they know anew at each use, also within loops, which takes three instructions on x86.
    #[inline(always)]
    pub fn constant(four: &'static [f32; 4]) -> Lanes {
        // SAFETY: as in `load_anew`.
        unsafe { load_anew(four, 0) }
    }

    #[inline(always)]
    pub fn constant_word(four: &'static [u32; 4]) -> Words {
        // SAFETY: as in `load_anew`.
        unsafe { std::ptr::read_volatile(four.as_ptr().cast::<Unaligned>()).0 }
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

    #[inline(always)]
    pub fn multiply(a: Lanes, b: Lanes) -> Lanes {
        f32x4_mul(a, b)
    }

    #[inline(always)]
    pub fn divide(a: Lanes, b: Lanes) -> Lanes {
        f32x4_div(a, b)
    }

    #[inline(always)]
    pub fn splat_word(value: u32) -> Words {
        u32x4_splat(value)
    }

    /// # Safety
    /// The slice must have four words from `i` on.
    #[inline(always)]
    pub unsafe fn load_words(slice: &[u32], i: usize) -> Words {
        debug_assert!(i + 4 <= slice.len());
        unsafe { v128_load(slice.as_ptr().add(i).cast()) }
    }

    /// # Safety
    /// The slice must have four words from `i` on.
    #[inline(always)]
    pub unsafe fn store_words(slice: &mut [u32], i: usize, words: Words) {
        debug_assert!(i + 4 <= slice.len());
        unsafe { v128_store(slice.as_mut_ptr().add(i).cast(), words) }
    }

    /// Four halves as words.
    ///
    /// # Safety
    /// The slice must have four halves from `i` on.
    #[inline(always)]
    pub unsafe fn load_halves(slice: &[u16], i: usize) -> Words {
        debug_assert!(i + 4 <= slice.len());
        unsafe { u32x4_load_extend_u16x4(slice.as_ptr().add(i)) }
    }

    /// All bits of a word where `a ≥ b`, none elsewhere.
    #[inline(always)]
    pub fn at_least(a: Lanes, b: Lanes) -> Words {
        f32x4_ge(a, b)
    }

    #[inline(always)]
    pub fn and(a: Words, b: Words) -> Words {
        v128_and(a, b)
    }

    #[inline(always)]
    pub fn or(a: Words, b: Words) -> Words {
        v128_or(a, b)
    }

    #[inline(always)]
    pub fn xor(a: Words, b: Words) -> Words {
        v128_xor(a, b)
    }

    #[inline(always)]
    pub fn shift_left(a: Words, bits: u32) -> Words {
        u32x4_shl(a, bits)
    }

    #[inline(always)]
    pub fn shift_right(a: Words, bits: u32) -> Words {
        u32x4_shr(a, bits)
    }

    /// Of signed words.
    #[inline(always)]
    pub fn shift_right_signed(a: Words, bits: u32) -> Words {
        i32x4_shr(a, bits)
    }

    /// The lesser of each, `a` where `b` is no number.
    #[inline(always)]
    pub fn lesser(a: Lanes, b: Lanes) -> Lanes {
        f32x4_pmin(a, b)
    }

    /// The greater of each, `a` where `b` is no number.
    #[inline(always)]
    pub fn greater(a: Lanes, b: Lanes) -> Lanes {
        f32x4_pmax(a, b)
    }

    #[inline(always)]
    pub fn to_array(a: Lanes) -> [f32; 4] {
        let mut four = [0.0; 4];
        store(&mut four, 0, a);
        four
    }

    /// Signed words as halves.
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    pub fn narrow(low: Words, high: Words) -> Words {
        i16x8_narrow_i32x4(low, high)
    }

    /// The lower two words of each, and the upper two.
    #[inline(always)]
    pub fn regroup(a: Words, b: Words) -> [Words; 2] {
        [i64x2_shuffle::<0, 2>(a, b), i64x2_shuffle::<1, 3>(a, b)]
    }

    #[inline(always)]
    pub fn shift_halves_left(a: Words, bits: u32) -> Words {
        i16x8_shl(a, bits)
    }

    /// Of signed halves.
    #[inline(always)]
    pub fn shift_halves_right(a: Words, bits: u32) -> Words {
        i16x8_shr(a, bits)
    }

    #[inline(always)]
    pub fn sum_halves(a: Words, b: Words) -> Words {
        i16x8_add(a, b)
    }

    /// The sums of two neighbouring bytes.
    #[inline(always)]
    pub fn sum_byte_pairs(a: Words) -> Words {
        u16x8_extadd_pairwise_u8x16(a)
    }

    #[inline(always)]
    pub fn difference_halves(a: Words, b: Words) -> Words {
        i16x8_sub(a, b)
    }

    /// Products of signed halves, divided by 2¹⁵ and rounded. No half of `b` may be −2¹⁵.
    #[inline(always)]
    pub fn multiply_halves(a: Words, b: Words) -> Words {
        #[cfg(target_feature = "relaxed-simd")]
        return i16x8_relaxed_q15mulr(a, b);
        #[cfg(not(target_feature = "relaxed-simd"))]
        return i16x8_q15mulr_sat(a, b);
    }

    /// Signed halves as bytes.
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    pub fn narrow_halves(low: Words, high: Words) -> Words {
        i8x16_narrow_i16x8(low, high)
    }

    /// The f32 that are nearest to signed words.
    #[inline(always)]
    pub fn to_f32(a: Words) -> Lanes {
        f32x4_convert_i32x4(a)
    }

    /// The f32 with these bits.
    #[inline(always)]
    pub fn from_bits(a: Words) -> Lanes {
        a
    }

    #[inline(always)]
    pub fn to_bits(a: Lanes) -> Words {
        a
    }

    #[inline(always)]
    pub fn sum_words(a: Words, b: Words) -> Words {
        i32x4_add(a, b)
    }

    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    pub fn multiply_words(a: Words, b: Words) -> Words {
        i32x4_mul(a, b)
    }

    /// Adds to each word of `c` the products of two signed halves of `a` and `b`.
    #[inline(always)]
    pub fn dot_halves(a: Words, b: Words, c: Words) -> Words {
        i32x4_add(c, i32x4_dot_i16x8(a, b))
    }

    /// Adds to each word of `c` the products of four signed bytes of `a` and bytes of `b`. What a byte of `b` above 127 stands for
    /// depends on the machine.
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    pub fn dot_bytes(a: Words, b: Words, c: Words) -> Words {
        i32x4_relaxed_dot_i8x16_i7x16_add(a, b, c)
    }

    #[inline(always)]
    pub fn transpose_words(words: [Words; 4]) -> [Words; 4] {
        transpose(words)
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
    pub type Words = [u32; 4];

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
    pub unsafe fn load_anew(slice: &[f32], i: usize) -> Lanes {
        load(slice, i)
    }

    /// # Safety
    /// None is needed here.
    #[allow(unsafe_code)]
    pub unsafe fn store_unchecked(slice: &mut [f32], i: usize, lanes: Lanes) {
        store(slice, i, lanes)
    }

    pub fn constant(four: &'static [f32; 4]) -> Lanes {
        *four
    }

    pub fn constant_word(four: &'static [u32; 4]) -> Words {
        *four
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

    pub fn multiply(a: Lanes, b: Lanes) -> Lanes {
        std::array::from_fn(|i| a[i] * b[i])
    }

    pub fn divide(a: Lanes, b: Lanes) -> Lanes {
        std::array::from_fn(|i| a[i] / b[i])
    }

    pub fn splat_word(value: u32) -> Words {
        [value; 4]
    }

    /// # Safety
    /// None is needed here.
    #[allow(unsafe_code)]
    pub unsafe fn load_words(slice: &[u32], i: usize) -> Words {
        *slice[i..].first_chunk().expect("four words")
    }

    /// # Safety
    /// None is needed here.
    #[allow(unsafe_code)]
    pub unsafe fn store_words(slice: &mut [u32], i: usize, words: Words) {
        slice[i..i + 4].copy_from_slice(&words);
    }

    /// # Safety
    /// None is needed here.
    #[allow(unsafe_code)]
    pub unsafe fn load_halves(slice: &[u16], i: usize) -> Words {
        std::array::from_fn(|lane| u32::from(slice[i + lane]))
    }

    pub fn at_least(a: Lanes, b: Lanes) -> Words {
        std::array::from_fn(|i| if a[i] >= b[i] { u32::MAX } else { 0 })
    }

    pub fn and(a: Words, b: Words) -> Words {
        std::array::from_fn(|i| a[i] & b[i])
    }

    pub fn or(a: Words, b: Words) -> Words {
        std::array::from_fn(|i| a[i] | b[i])
    }

    pub fn xor(a: Words, b: Words) -> Words {
        std::array::from_fn(|i| a[i] ^ b[i])
    }

    pub fn shift_left(a: Words, bits: u32) -> Words {
        a.map(|word| word << bits)
    }

    pub fn shift_right(a: Words, bits: u32) -> Words {
        a.map(|word| word >> bits)
    }

    pub fn shift_right_signed(a: Words, bits: u32) -> Words {
        a.map(|word| (word as i32 >> bits) as u32)
    }

    pub fn lesser(a: Lanes, b: Lanes) -> Lanes {
        std::array::from_fn(|i| if b[i] < a[i] { b[i] } else { a[i] })
    }

    pub fn greater(a: Lanes, b: Lanes) -> Lanes {
        std::array::from_fn(|i| if b[i] > a[i] { b[i] } else { a[i] })
    }

    pub fn to_array(a: Lanes) -> [f32; 4] {
        a
    }

    pub fn narrow(low: Words, high: Words) -> Words {
        let all = [low, high].concat();
        let half = |word: u32| (word as i32).clamp(-0x8000, 0x7fff) as u32 & 0xffff;
        std::array::from_fn(|i| half(all[2 * i]) | half(all[2 * i + 1]) << 16)
    }

    fn for_halves(a: Words, f: impl Fn(i16) -> i16) -> Words {
        let of = |word: u32, bits: u32| u32::from(f((word >> bits) as i16) as u16) << bits;
        a.map(|word| of(word, 0) | of(word, 16))
    }

    pub fn regroup([a, b, c, d]: Words, [e, f, g, h]: Words) -> [Words; 2] {
        [[a, b, e, f], [c, d, g, h]]
    }

    pub fn shift_halves_left(a: Words, bits: u32) -> Words {
        for_halves(a, |half| half << bits)
    }

    pub fn shift_halves_right(a: Words, bits: u32) -> Words {
        for_halves(a, |half| half >> bits)
    }

    /// What `f` makes of each two halves.
    fn for_pairs(a: Words, b: Words, f: impl Fn(i16, i16) -> i16) -> Words {
        let of = |a: u32, b: u32| u32::from(f(a as i16, b as i16) as u16);
        std::array::from_fn(|i| of(a[i], b[i]) | of(a[i] >> 16, b[i] >> 16) << 16)
    }

    pub fn sum_halves(a: Words, b: Words) -> Words {
        for_pairs(a, b, i16::wrapping_add)
    }

    pub fn difference_halves(a: Words, b: Words) -> Words {
        for_pairs(a, b, i16::wrapping_sub)
    }

    pub fn multiply_halves(a: Words, b: Words) -> Words {
        let of = |a, b| ((i32::from(a) * i32::from(b) + 0x4000) >> 15) as i16;
        for_pairs(a, b, of)
    }

    pub fn sum_byte_pairs(a: Words) -> Words {
        a.map(|word| (word & 0x00ff_00ff) + (word >> 8 & 0x00ff_00ff))
    }

    pub fn narrow_halves(low: Words, high: Words) -> Words {
        let all = [low, high].concat();
        let byte = |half: u32| i32::from(half as i16).clamp(-128, 127) as u32 & 0xff;
        let two = |word: u32| byte(word) | byte(word >> 16) << 8;
        std::array::from_fn(|i| two(all[2 * i]) | two(all[2 * i + 1]) << 16)
    }

    pub fn to_f32(a: Words) -> Lanes {
        a.map(|word| word as i32 as f32)
    }

    pub fn from_bits(a: Words) -> Lanes {
        a.map(f32::from_bits)
    }

    pub fn to_bits(a: Lanes) -> Words {
        a.map(f32::to_bits)
    }

    pub fn sum_words(a: Words, b: Words) -> Words {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }

    pub fn multiply_words(a: Words, b: Words) -> Words {
        std::array::from_fn(|i| a[i].wrapping_mul(b[i]))
    }

    pub fn dot_halves(a: Words, b: Words, c: Words) -> Words {
        let half = |word: u32, i: u32| i32::from((word >> (16 * i)) as i16);
        std::array::from_fn(|lane| {
            let products = (0..2).map(|i| half(a[lane], i) * half(b[lane], i));
            products.fold(c[lane], |sum, product| sum.wrapping_add(product as u32))
        })
    }

    pub fn transpose_words(rows: [Words; 4]) -> [Words; 4] {
        std::array::from_fn(|c| std::array::from_fn(|r| rows[r][c]))
    }

    pub fn transpose(rows: [Lanes; 4]) -> [Lanes; 4] {
        std::array::from_fn(|c| std::array::from_fn(|r| rows[r][c]))
    }
}
