//! SigLIP's training loss: each pair of a picture and a caption is a yes-or-no question of its own.
//!
//! Zhai et al., *Sigmoid Loss for Language Image Pre-Training* (2023), equation 1, for a batch `B` of pictures with unit-length
//! embeddings `x` and captions with unit-length embeddings `y`:
//!
//! ```text
//! L = −1/|B| · Σ_i Σ_j log σ(z_ij · (t · x_i·y_j + b)),   t = exp(t′)
//! ```
//!
//! with `z_ij` = 1 where the caption belongs to the picture and −1 where it doesn't. In the paper only the diagonal belongs
//! together ([`paired`]). In a small data set one caption is true of several pictures, and of some pairs nobody knows whether
//! they match, so here `z` is any matrix of 1, −1 and 0, where 0 leaves the pair out.

use burn::tensor::{Device, Tensor};

/// `t′` at the start of training: ln 10 (section 3.2 of the paper, "we initialize t′ … to log 10").
pub const INITIAL_LOGIT_SCALE: f32 = std::f32::consts::LN_10;

/// `b` at the start of training (section 3.2): most pairs don't match, and the loss begins near that prior.
pub const INITIAL_LOGIT_BIAS: f32 = -10.0;

/// The loss of a batch, `[1]`.
///
/// `logits [images, texts]` are those of [`Siglip::logits`](crate::model::Siglip::logits), `targets [images, texts]` the `z`
/// above. The sum is divided by the number of images.
pub fn sigmoid_loss(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let [images, _] = logits.dims();
    let asked = targets.clone().square();
    (softplus(-targets * logits) * asked).sum() / images as f64
}

/// The paper's `z` for a batch of pictures with one caption each: 1 on the diagonal, −1 elsewhere, `[batch, batch]`.
pub fn paired(batch: usize, device: &Device) -> Tensor<2> {
    Tensor::eye(batch, device) * 2.0 - 1.0
}

/// `ln(1 + eˣ) = −log σ(−x)`, without overflow and without losing small results beside 1.
///
/// The positive part is written as `(x + |x|) / 2`, which has the right gradient, one half, at 0 too.
fn softplus(x: Tensor<2>) -> Tensor<2> {
    let size = x.clone().abs();
    (x + size.clone()) * 0.5 + (-size).exp().log1p()
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    const IMAGES: usize = 3;
    const TEXTS: usize = 4;
    const HIDDEN: usize = 5;

    /// Embeddings, scale and bias one after the other, as one vector of parameters.
    const SIZE: usize = (IMAGES + TEXTS) * HIDDEN + 2;
    const TARGETS: [f64; IMAGES * TEXTS] = [1., -1., -1., 1., -1., 1., 0., -1., -1., 0., 1., -1.];

    fn parameters(bias: f64) -> Vec<f64> {
        let mut p: Vec<f64> = (0..SIZE - 2)
            .map(|i| ((i * 37 + 11) % 41) as f64 / 20.0 - 1.0)
            .collect();
        for row in p.chunks_exact_mut(HIDDEN) {
            let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            row.iter_mut().for_each(|v| *v /= length);
        }
        p.extend([10_f64.ln(), bias]);
        p
    }

    /// Equation 1 as it is printed, in f64.
    fn equation(p: &[f64]) -> f64 {
        let (x, rest) = p.split_at(IMAGES * HIDDEN);
        let (y, rest) = rest.split_at(TEXTS * HIDDEN);
        let (t, b) = (rest[0].exp(), rest[1]);
        let mut sum = 0.0;
        for i in 0..IMAGES {
            for j in 0..TEXTS {
                let dot: f64 = (0..HIDDEN)
                    .map(|k| x[i * HIDDEN + k] * y[j * HIDDEN + k])
                    .sum();
                let z = TARGETS[i * TEXTS + j];
                if z != 0.0 {
                    sum -= (1.0 / (1.0 + (-z * (t * dot + b)).exp())).ln();
                }
            }
        }
        sum / IMAGES as f64
    }

    fn tensor<const D: usize>(values: &[f64], shape: [usize; D], device: &Device) -> Tensor<D> {
        let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn value(loss: Tensor<1>) -> f64 {
        f64::from(loss.into_data().as_slice::<f32>().unwrap()[0])
    }

    #[test]
    fn equals_the_paper() {
        let device = Device::flex();
        for bias in [-10.0, -4.4, 0.0, 3.0] {
            let p = parameters(bias);
            let x = tensor(&p[..15], [IMAGES, HIDDEN], &device);
            let y = tensor(&p[15..35], [TEXTS, HIDDEN], &device);
            let logits = x.matmul(y.transpose()) * 10.0 + bias;
            let got = value(sigmoid_loss(
                logits,
                tensor(&TARGETS, [IMAGES, TEXTS], &device),
            ));
            let expected = equation(&p);
            assert!(
                (got - expected).abs() < 1e-6 * expected.max(1.0),
                "bias {bias}: {got}, not {expected}"
            );
        }
    }

    /// `torch.nn.functional.logsigmoid` in float64: `-(F.logsigmoid(z * logits) * (z != 0)).sum() / 2`.
    #[test]
    fn equals_torch_from_the_smallest_to_the_largest_logits() {
        let device = Device::flex();
        let check = |logits: [f64; 6], expected: f64| {
            let z = tensor(&[1., -1., -1., -1., 1., 0.], [2, 3], &device);
            let got = value(sigmoid_loss(tensor(&logits, [2, 3], &device), z));
            assert!(
                (got - expected).abs() <= 2e-6 * expected,
                "{logits:?}: {got:e}, not {expected:e}"
            );
        };
        check([1.5, -2.0, 0.25, -9.75, -3.0, 100.0], 2.101463176721487);
        check(
            [20.0, -30.0, -25.0, -21.0, 22.0, 0.0],
            1.5561689960803192e-9,
        );
        check([-90.0, 200.0, 50.0, 0.0, -1e4, 0.0], 5170.34657359028);
    }

    #[test]
    fn the_paper_s_pairs_are_the_diagonal() {
        let z = paired(3, &Device::flex()).into_data();
        assert_eq!(
            z.as_slice::<f32>().unwrap(),
            [1., -1., -1., -1., 1., -1., -1., -1., 1.]
        );
    }

    #[cfg(feature = "train")]
    #[test]
    fn gradients_are_those_of_the_paper_s_equation() {
        let device = Device::flex().autodiff();
        for bias in [-10.0, -2.0, 1.0] {
            let p = parameters(bias);
            let x = tensor(&p[..15], [IMAGES, HIDDEN], &device).require_grad();
            let y = tensor(&p[15..35], [TEXTS, HIDDEN], &device).require_grad();
            let t = tensor(&p[35..36], [1], &device).require_grad();
            let b = tensor(&p[36..], [1], &device).require_grad();
            let logits = x.clone().matmul(y.clone().transpose()) * t.clone().exp().unsqueeze()
                + b.clone().unsqueeze();
            let targets = tensor(&TARGETS, [IMAGES, TEXTS], &device);
            let grads = sigmoid_loss(logits, targets).backward();
            let flat = |g: Option<Tensor<1>>| g.unwrap().into_data().try_to_vec::<f32>().unwrap();
            let got = [
                flat(x.grad(&grads).map(|g| g.reshape([15]))),
                flat(y.grad(&grads).map(|g| g.reshape([20]))),
                flat(t.grad(&grads)),
                flat(b.grad(&grads)),
            ]
            .concat();
            assert_eq!(got.len(), SIZE);
            for (i, got) in got.into_iter().enumerate() {
                let moved = |by: f64| {
                    let mut p = p.clone();
                    p[i] += by;
                    equation(&p)
                };
                let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!(
                    (f64::from(got) - expected).abs() < 1e-5 * expected.abs().max(1.0),
                    "bias {bias}: the gradient of parameter {i} is {got}, not {expected}"
                );
            }
        }
    }

    #[cfg(feature = "train")]
    #[test]
    fn an_undecided_logit_is_pushed_both_ways_alike() {
        let device = Device::flex().autodiff();
        let logits = Tensor::<2>::zeros([1, 2], &device).require_grad();
        let z = tensor(&[1., -1.], [1, 2], &device);
        let grads = sigmoid_loss(logits.clone(), z).backward();
        let grad = logits.grad(&grads).unwrap().into_data();
        assert_eq!(grad.as_slice::<f32>().unwrap(), [-0.5, 0.5]);
    }
}
