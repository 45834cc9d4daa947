//! Functions of single numbers, four at a time.

#[cfg(any(target_family = "wasm", test, feature = "train"))]
use super::lanes::splat;
use super::lanes::{
    Lanes, WIDTH, Words, add, and, at_least, constant, constant_word, divide, from_bits, greater,
    lesser, load, load_halves, multiply, multiply_add, or, shift_left, store, subtract, sum_words,
    to_array, to_bits,
};
use crate::kernels::plain::{GELU_CUBE, GELU_SCALE};

/// Replaces all values by what `f` makes of them.
#[inline(always)]
pub fn map(values: &mut [f32], f: impl Fn(Lanes) -> Lanes) {
    let mut fours = values.chunks_exact_mut(WIDTH);
    for four in &mut fours {
        store(four, 0, f(load(four, 0)));
    }
    let rest = fours.into_remainder();
    let mut four = [0.0; WIDTH];
    four[..rest.len()].copy_from_slice(rest);
    rest.copy_from_slice(&to_array(f(load(&four, 0)))[..rest.len()]);
}

/// Four f16 by their bits as f32, see [`halves`].
#[inline(always)]
pub fn halves_to_f32(four: &[u16; WIDTH]) -> [f32; WIDTH] {
    // SAFETY: there are four.
    #[allow(unsafe_code)]
    to_array(halves(unsafe { load_halves(four, 0) }))
}

/// f16 by their bits. What is not finite becomes infinite or NaN: packing makes no such number, damage may.
#[inline(always)]
pub fn halves(bits: Words) -> Lanes {
    // The exponent's bias differs by 112; multiplying by 2¹¹² also makes subnormal numbers right.
    const SCALE: f32 = f32::from_bits((127 + 112) << 23);
    let shifted = shift_left(and(bits, constant_word(&[0x7fff; WIDTH])), 13);
    let magnitude = multiply(from_bits(shifted), constant(&[SCALE; WIDTH]));
    let infinite = and(
        at_least(magnitude, constant(&[65536.0; WIDTH])),
        constant_word(const { &[f32::INFINITY.to_bits(); WIDTH] }),
    );
    let sign = shift_left(and(bits, constant_word(&[0x8000; WIDTH])), 16);
    from_bits(or(or(to_bits(magnitude), infinite), sign))
}

/// Without their signs.
#[cfg(any(target_family = "wasm", test))]
#[inline(always)]
pub fn magnitude(v: Lanes) -> Lanes {
    from_bits(and(to_bits(v), constant_word(&[0x7fff_ffff; WIDTH])))
}

/// 1.5·2²³: a number below 2²² added to it is rounded to the nearest integer, which the lowest bits then hold.
pub const MIDDLE: f32 = 12_582_912.0;

/// eˣ after Cephes' `expf`: x = n·ln 2 + r, a polynomial for eʳ, 2ⁿ written into the exponent bits.
#[inline(always)]
pub fn exp(x: Lanes) -> Lanes {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    static POLYNOMIAL: [[f32; WIDTH]; 6] = [
        [1.987_569_1e-4; WIDTH],
        [1.398_199_9e-3; WIDTH],
        [8.333_452e-3; WIDTH],
        [4.166_579_6e-2; WIDTH],
        [1.666_666_5e-1; WIDTH],
        [0.5; WIDTH],
    ];
    let x = lesser(
        greater(x, constant(&[-87.0; WIDTH])),
        constant(&[88.0; WIDTH]),
    );
    let middle = constant(&[MIDDLE; WIDTH]);
    let rounded = multiply_add(x, constant(&[std::f32::consts::LOG2_E; WIDTH]), middle);
    let n = subtract(rounded, middle);
    let r = multiply_add(n, constant(&[-LN_2_HIGH; WIDTH]), x);
    let r = multiply_add(n, constant(&[-LN_2_LOW; WIDTH]), r);
    let polynomial = polynomial(&POLYNOMIAL, r);
    let exp_r = add(
        multiply_add(polynomial, multiply(r, r), r),
        constant(&[1.0; WIDTH]),
    );
    let exponent = sum_words(
        shift_left(to_bits(rounded), 23),
        constant_word(&[127 << 23; WIDTH]),
    );
    multiply(exp_r, from_bits(exponent))
}

/// A polynomial by its coefficients, the highest first.
#[inline(always)]
fn polynomial(coefficients: &'static [[f32; WIDTH]], x: Lanes) -> Lanes {
    let (first, others) = coefficients.split_first().expect("a coefficient");
    others.iter().fold(constant(first), |sum, coefficient| {
        multiply_add(sum, x, constant(coefficient))
    })
}

/// `x/2 · (1 + tanh(u))` with `u = √(2/π) · (x + 0.044715 x³)`, which is `x / (1 + exp(−2u))`; within 2 ulp of libm's.
#[inline(always)]
pub fn gelu_tanh(x: Lanes) -> Lanes {
    const SCALE: f32 = -GELU_SCALE as f32;
    const CUBE: f32 = -(GELU_SCALE * GELU_CUBE) as f32;
    let factor = multiply_add(
        multiply(x, x),
        constant(&[CUBE; WIDTH]),
        constant(&[SCALE; WIDTH]),
    );
    divide(x, add(constant(&[1.0; WIDTH]), exp(multiply(x, factor))))
}

/// `x/2 · (1 + erf(x / √2))`
#[inline(always)]
pub fn gelu(x: Lanes) -> Lanes {
    let erf = erf(multiply(
        x,
        constant(&[std::f32::consts::FRAC_1_SQRT_2; WIDTH]),
    ));
    multiply(
        multiply(x, constant(&[0.5; WIDTH])),
        add(constant(&[1.0; WIDTH]), erf),
    )
}

/// erf as Eigen has it: an odd polynomial by an even one, up to 4, where erf is 1 to the last bit.
#[inline(always)]
fn erf(x: Lanes) -> Lanes {
    static NUMERATOR: [[f32; WIDTH]; 7] = [
        [-2.726_142_3e-10; WIDTH],
        [2.770_681_5e-8; WIDTH],
        [-2.101_024e-6; WIDTH],
        [-5.692_506_5e-5; WIDTH],
        [-7.349_906_4e-4; WIDTH],
        [-2.954_6e-3; WIDTH],
        [-1.609_603_3e-2; WIDTH],
    ];
    static DENOMINATOR: [[f32; WIDTH]; 5] = [
        [-1.456_607_15e-5; WIDTH],
        [-2.133_740_5e-4; WIDTH],
        [-1.682_827e-3; WIDTH],
        [-7.373_329_3e-3; WIDTH],
        [-1.426_473_9e-2; WIDTH],
    ];
    let x = lesser(
        greater(x, constant(&[-4.0; WIDTH])),
        constant(&[4.0; WIDTH]),
    );
    let square = multiply(x, x);
    divide(
        multiply(x, polynomial(&NUMERATOR, square)),
        polynomial(&DENOMINATOR, square),
    )
}

/// The derivative of [`gelu`]: `Φ(x) + x·φ(x)` with the normal distribution and its density.
#[cfg(all(feature = "train", not(target_family = "wasm")))]
#[inline(always)]
pub fn gelu_slope(x: Lanes) -> Lanes {
    const HEIGHT: f32 = 0.398_942_3;
    let erf = erf(multiply(x, splat(std::f32::consts::FRAC_1_SQRT_2)));
    let distribution = multiply(splat(0.5), add(splat(1.0), erf));
    let density = exp(multiply(multiply(x, x), splat(-0.5)));
    multiply_add(multiply(x, splat(HEIGHT)), density, distribution)
}

/// The derivative of [`gelu_tanh`]: `x·s(v)` with `v = 2u` has the slope `s + x·s·(1 − s)·v′`.
#[cfg(all(feature = "train", not(target_family = "wasm")))]
#[inline(always)]
pub fn gelu_tanh_slope(x: Lanes) -> Lanes {
    const SCALE: f32 = GELU_SCALE as f32;
    const CUBE: f32 = (GELU_SCALE * GELU_CUBE) as f32;
    let (one, square) = (splat(1.0), multiply(x, x));
    let factor = multiply_add(square, splat(-CUBE), splat(-SCALE));
    let s = divide(one, add(one, exp(multiply(x, factor))));
    let slope = multiply_add(square, splat(3.0 * CUBE), splat(SCALE));
    multiply(s, multiply_add(multiply(x, subtract(one, s)), slope, one))
}

/// Replaces scores by `exp(scale · (score − largest))`; the sum of these, which is NaN if a score is not finite: the exponentials then
/// look like any others.
#[cfg(any(target_family = "wasm", test, feature = "train"))]
#[inline(always)]
pub fn exponentials(scores: &mut [f32], scale: f32) -> f32 {
    let whole = scores.len() / WIDTH * WIDTH;
    // Nothing times infinity is NaN.
    let (zero, least) = (splat(0.0), splat(f32::NEG_INFINITY));
    let (largest, nothing) = (0..whole)
        .step_by(WIDTH)
        .map(|i| load(scores, i))
        .fold((least, zero), |(largest, nothing), score| {
            (greater(largest, score), multiply_add(score, zero, nothing))
        });
    let rest = &scores[whole..];
    let nothing = rest
        .iter()
        .fold(to_array(nothing).iter().sum(), |nothing: f32, score| {
            nothing + score * 0.0
        });
    // `f32::max` would be a call.
    let largest = (to_array(largest).iter())
        .chain(rest)
        .fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
    map(scores, |score| {
        exp(multiply(subtract(score, splat(largest)), splat(scale)))
    });
    sum(scores) + nothing
}

/// `(x − mean) / √(variance + epsilon) · gamma + beta`
#[cfg(any(target_family = "wasm", test))]
#[inline(always)]
pub fn layer_norm(x: &[f32], gamma: &[f32], beta: &[f32], epsilon: f32, y: &mut [f32]) {
    let count = x.len() as f32;
    let mean = sum(x) / count;
    y.copy_from_slice(x);
    map(y, |x| subtract(x, splat(mean)));
    let variance = sum_of(y, |x| multiply(x, x)) / count;
    let factor = (variance + epsilon).sqrt().recip();
    for ((y, gamma), beta) in y.iter_mut().zip(gamma).zip(beta) {
        *y = *y * factor * gamma + beta;
    }
}

/// Their sum.
#[cfg(any(target_family = "wasm", test, feature = "train"))]
#[inline(always)]
pub fn sum(values: &[f32]) -> f32 {
    sum_of(values, |lanes| lanes)
}

/// The sum of what `f` makes of them; of zero it makes zero.
#[cfg(any(target_family = "wasm", test, feature = "train"))]
#[inline(always)]
pub fn sum_of(values: &[f32], f: impl Fn(Lanes) -> Lanes) -> f32 {
    let mut eights = values.chunks_exact(2 * WIDTH);
    let mut sums = [splat(0.0); 2];
    for eight in &mut eights {
        sums = std::array::from_fn(|i| add(sums[i], f(load(eight, i * WIDTH))));
    }
    let mut rest = [0.0; 2 * WIDTH];
    rest[..eights.remainder().len()].copy_from_slice(eights.remainder());
    let low = add(sums[0], f(load(&rest, 0)));
    let high = add(sums[1], f(load(&rest, WIDTH)));
    to_array(add(low, high)).iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::cpu::lanes::splat_word;

    #[test]
    fn every_half_is_what_it_stands_for() {
        for bits in 0..=u16::MAX {
            let got = to_array(halves(splat_word(bits.into())))[0];
            let expected = half::f16::from_bits(bits).to_f32();
            match expected.is_finite() {
                true => assert_eq!(got.to_bits(), expected.to_bits(), "{bits:#x}"),
                false => assert!(!got.is_finite(), "{bits:#x}: {got}"),
            }
        }
    }

    fn of(f: impl Fn(Lanes) -> Lanes, x: f32) -> f32 {
        let mut values = [x];
        map(&mut values, f);
        values[0]
    }

    #[test]
    fn exponentials_of_scores_that_are_not_finite_have_no_sum() {
        for count in 1..=9 {
            for at in 0..count {
                for score in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                    let mut scores = vec![1.0; count];
                    assert!((exponentials(&mut scores.clone(), 0.1) - count as f32).abs() < 1e-5);
                    scores[at] = score;
                    assert!(
                        exponentials(&mut scores, 0.1).is_nan(),
                        "{score} at {at} of {count}"
                    );
                }
            }
        }
    }

    #[test]
    fn exp_is_accurate_over_its_range() {
        for i in -8_700..=8_800 {
            let x = i as f32 / 100.0;
            let expected = f64::from(x).exp();
            let relative = (f64::from(of(exp, x)) - expected).abs() / expected;
            assert!(relative < 3e-7, "exp({x}): relative error {relative:e}");
        }
        assert_eq!(of(exp, 0.0), 1.0);
    }

    #[test]
    fn gelu_tanh_follows_its_definition_and_saturates() {
        for i in -1_200..=1_200 {
            let x = f64::from(i) / 100.0;
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            let expected = x / 2.0 * (1.0 + u.tanh());
            let got = f64::from(of(gelu_tanh, x as f32));
            assert!(
                (got - expected).abs() < 1e-6 * x.abs().max(1.0),
                "gelu({x}) = {got}, not {expected}"
            );
        }
        assert_eq!(of(gelu_tanh, 1e4), 1e4);
        assert!(of(gelu_tanh, -1e4).abs() < 1e-30);
        assert!(of(gelu_tanh, f32::NAN).is_nan());
    }

    #[test]
    fn gelu_is_the_area_under_the_bell_curve() {
        // Simpson's rule over the normal distribution's density, from 0 on.
        let distribution = |x: f64| {
            let density = |t: f64| (-t * t / 2.0).exp() / std::f64::consts::TAU.sqrt();
            let (steps, step) = (200, x / 400.0);
            let area: f64 = (0..steps)
                .map(|i| f64::from(2 * i))
                .map(|i| {
                    density(i * step) + 4.0 * density((i + 1.0) * step) + density((i + 2.0) * step)
                })
                .sum();
            0.5 + area * step / 3.0
        };
        for i in -1200..1200 {
            let x = f64::from(i) * 0.01;
            let (expected, got) = (x * distribution(x), f64::from(of(gelu, x as f32)));
            assert!(
                (got - expected).abs() < 1e-6 * x.abs().max(1.0),
                "gelu({x}) = {got}, not {expected}"
            );
        }
        assert_eq!(of(gelu, 1e4), 1e4);
        assert!(of(gelu, -1e4).abs() < 1e-3);
        assert!(of(gelu, f32::NAN).is_nan());
    }

    #[test]
    fn layer_norm_follows_its_definition() {
        for length in [1, 3, 8, 21] {
            let x: Vec<f32> = (0..length).map(|i| ((i * 7) % 11) as f32 + 50.0).collect();
            let gamma: Vec<f32> = (0..length).map(|i| i as f32 - 2.0).collect();
            let beta: Vec<f32> = (0..length).map(|i| 0.5 * i as f32).collect();
            let mut y = vec![0.0; length];
            layer_norm(&x, &gamma, &beta, 1e-6, &mut y);
            let count = length as f64;
            let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
            let squares = x.iter().map(|x| (f64::from(*x) - mean).powi(2));
            let deviation = (squares.sum::<f64>() / count + 1e-6).sqrt();
            for i in 0..length {
                let normed = (f64::from(x[i]) - mean) / deviation;
                let expected = normed * f64::from(gamma[i]) + f64::from(beta[i]);
                assert!(
                    (f64::from(y[i]) - expected).abs() < 1e-4,
                    "{}, not {expected}",
                    y[i]
                );
            }
        }
    }

    #[test]
    fn exponentials_keep_to_the_values_given() {
        for length in 1..20 {
            let mut scores: Vec<f32> = (0..length).map(|i| ((i * 7) % 11) as f32 - 100.0).collect();
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let expected: Vec<f32> = scores.iter().map(|s| ((s - largest) * 0.5).exp()).collect();
            let sum = exponentials(&mut scores, 0.5);
            for (got, expected) in scores.iter().zip(&expected) {
                assert!((got - expected).abs() < 1e-6, "{got}, not {expected}");
            }
            assert!((sum - expected.iter().sum::<f32>()).abs() < 1e-5);
        }
        assert!(exponentials(&mut [1.0, f32::NAN], 1.0).is_nan());
    }
}
