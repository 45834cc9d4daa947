//! A position table for pictures of another shape, as NaFlex resizes it: PyTorch's antialiased bilinear interpolation
//! (`interpolate(…, mode="bilinear", antialias=True)`), along each axis for itself.

/// A square table `[side, side, hidden]` as `[rows, columns, hidden]`.
pub fn resized(table: &[f32], side: usize, [rows, columns]: [usize; 2]) -> Vec<f32> {
    if [rows, columns] == [side, side] {
        return table.to_vec();
    }
    let hidden = table.len() / (side * side);
    let across = taps(side, columns);
    let mut wide = Vec::with_capacity(side * columns * hidden);
    for row in table.chunks_exact(side * hidden) {
        for (first, weights) in &across {
            mix(&row[first * hidden..], hidden, weights, &mut wide);
        }
    }
    let stride = columns * hidden;
    let mut values = Vec::with_capacity(rows * stride);
    for (first, weights) in taps(side, rows) {
        mix(&wide[first * stride..], stride, &weights, &mut values);
    }
    values
}

/// The sum of `rows [.., width]`, each times its weight, after what is in `out`.
fn mix(rows: &[f32], width: usize, weights: &[f64], out: &mut Vec<f32>) {
    let sum = |i| {
        let products = weights.iter().enumerate();
        let products = products.map(|(row, weight)| weight * f64::from(rows[row * width + i]));
        products.sum::<f64>() as f32
    };
    out.extend((0..width).map(sum));
}

/// For every place of the output the first of the input, and the weights of this and those that follow; they sum to 1.
fn taps(input: usize, output: usize) -> Vec<(usize, Vec<f64>)> {
    let scale = input as f64 / output as f64;
    // A triangle, as wide as what is put together where the table shrinks.
    let reach = scale.max(1.0);
    let place = |index| {
        let center = (index as f64 + 0.5) * scale;
        // `as` cuts towards zero; the half makes it round.
        let first = (center - reach + 0.5).max(0.0) as usize;
        let end = ((center + reach + 0.5) as usize).min(input);
        let weight = |at: usize| (1.0 - ((at as f64 - center + 0.5) / reach).abs()).max(0.0);
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        (first, weights.iter().map(|weight| weight / sum).collect())
    };
    (0..output).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_the_same_shape_stays_and_an_even_one_stays_even() {
        let table: Vec<f32> = (0..32).map(|i| (i * 7 % 11) as f32).collect();
        assert_eq!(resized(&table, 4, [4, 4]), table);
        for shape in [[1, 1], [1, 10], [10, 1], [7, 3], [9, 9]] {
            let even = resized(&[2.5; 32], 4, shape);
            assert_eq!(even.len(), shape[0] * shape[1] * 2);
            assert!(even.iter().all(|value| (value - 2.5).abs() < 1e-6));
        }
    }

    #[test]
    fn a_ramp_is_what_pytorch_makes_of_it() {
        // torch.nn.functional.interpolate(torch.arange(16.).reshape(1, 1, 4, 4), size=(2, 6), mode="bilinear", antialias=True)
        let ramp: Vec<f32> = (0..16).map(|i| i as f32).collect();
        let expected = [
            2.857143, 3.357143, 4.023809, 4.690476, 5.357143, 5.857143, 9.142858, 9.642857,
            10.309524, 10.976192, 11.642858, 12.142858,
        ];
        let got = resized(&ramp, 4, [2, 6]);
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!(
                (got - expected).abs() < 1e-5,
                "{got}, PyTorch has {expected}"
            );
        }
    }
}
