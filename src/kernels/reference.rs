//! The plain burn form of each operation: slow to run, quick to check against the paper.

use burn::tensor::{Tensor, activation};

use super::{Activation, Epilogue};

/// See [`linear`](super::linear).
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    epilogue: Epilogue,
) -> Tensor<D> {
    let y = burn::tensor::module::linear(x, weight.transpose(), Some(bias));
    match epilogue {
        Epilogue::None => y,
        Epilogue::Activation(activation) => activate(y, activation),
        Epilogue::Add(residual) => Tensor::<2>::from_dispatch(residual).reshape(y.dims()) + y,
    }
}

/// See [`Activation`].
pub fn activate<const D: usize>(x: Tensor<D>, kind: Activation) -> Tensor<D> {
    match kind {
        Activation::GeluTanh => activation::gelu_approximate(x),
        Activation::Gelu => activation::gelu(x),
    }
}

/// See [`attention`](super::attention). One head after the other, so that only one head's scores exist at a time.
pub fn attention(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>, heads: usize) -> Tensor<3> {
    let [batch, queries, hidden] = query.dims();
    let keys = key.dims()[1];
    let head_size = hidden / heads;
    let scale = (head_size as f64).powf(-0.5);
    let head = |h: usize| {
        let columns = h * head_size..(h + 1) * head_size;
        let q = query.clone().slice([0..batch, 0..queries, columns.clone()]);
        let k = key.clone().slice([0..batch, 0..keys, columns.clone()]);
        let v = value.clone().slice([0..batch, 0..keys, columns]);
        activation::softmax(q.matmul(k.swap_dims(1, 2)) * scale, 2).matmul(v)
    };
    Tensor::cat((0..heads).map(head).collect(), 2)
}

/// See [`layer_norm`](super::layer_norm).
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let centred = x.clone() - x.mean_dim(D - 1);
    let variance = centred.clone().square().mean_dim(D - 1);
    centred / (variance + epsilon).sqrt() * gamma.unsqueeze() + beta.unsqueeze()
}
