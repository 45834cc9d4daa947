//! Numbers to a device and back.

use std::future::ready;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

#[cfg(feature = "webgpu")]
use burn::backend::Cube;
use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::backend::{Dispatch, Flex};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

#[cfg(feature = "webgpu")]
use super::Receipt;
use crate::error::{Error, Result};

/// Puts numbers on a device.
pub fn from_vec<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    let data = TensorData::new(values, shape);
    // Past Tensor::from_data, which comes with the conversions between all of burn's types.
    Tensor::from_dispatch(Dispatch::float_from_data(data, device.as_dispatch()))
}

/// Puts token ids on a device.
pub fn from_ids<const D: usize>(
    ids: Vec<i32>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D, Int> {
    let data = TensorData::new(ids, shape);
    Tensor::from_dispatch(Dispatch::int_from_data(data, device.as_dispatch()))
}

/// Reads a tensor back from its device.
///
/// # Errors
/// `device-lost` if the device can't answer any more, or answers with something else than what it was last told to compute.
pub async fn to_vec<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    #[cfg(feature = "webgpu")]
    if tensor.dtype() == DType::F32 && tensor.clone().try_into_primitive::<Cube>().is_ok() {
        let receipt = Receipt::alone(&tensor.device());
        return receipt.read(tensor).await;
    }
    host_to_vec(tensor).await
}

/// Reads the words of a packed weight back from their device.
///
/// # Errors
/// As [`to_vec`].
pub async fn to_words(words: Tensor<2, Int>) -> Result<Vec<u32>> {
    #[cfg(feature = "webgpu")]
    if let Ok(primitive) = words.clone().try_into_primitive::<Cube>() {
        let receipt = Receipt::alone(&words.device());
        drop(words);
        return receipt.read_words(primitive).await;
    }
    let primitive = words.try_into_primitive::<Flex>();
    let primitive = primitive.map_err(|_| lost("its words are on no known device"))?;
    Ok(primitive.to_contiguous().storage().to_vec())
}

/// Does of `future` all that it can do without waiting; whoever awaits it gets the rest.
pub fn begin<'a, T: 'a>(
    future: impl Future<Output = T> + 'a,
) -> Pin<Box<dyn Future<Output = T> + 'a>> {
    let mut future = Box::pin(future);
    let waker = &mut Context::from_waker(Waker::noop());
    match future.as_mut().poll(waker) {
        Poll::Ready(value) => Box::pin(ready(value)),
        Poll::Pending => future,
    }
}

/// The device gave no results, for the reason that a runtime's error has.
pub(super) fn lost(reason: impl ToString) -> Error {
    let reason = reason.to_string();
    // The GPU's runtime ends its errors with a backtrace, or with the words that there is none.
    let reason = reason.split("Backtrace:").next().unwrap_or_default();
    let reason: Vec<&str> = reason.split_whitespace().collect();
    Error::device_lost(format!(
        "the device did not return its results ({}); load the model again, with backend \"cpu\" if it happens again",
        reason.join(" ")
    ))
}

/// Of a tensor on the CPU.
pub(super) async fn host_to_vec<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    if tensor.dtype() == DType::F32
        && let Ok(primitive) = tensor.clone().try_into_primitive::<Flex>()
    {
        return Ok(primitive.to_contiguous().storage().to_vec());
    }
    other_to_vec(tensor).await
}

/// Of another type than f32, or with gradients.
#[cfg(not(target_family = "wasm"))]
async fn other_to_vec<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.into_data_async().await.map_err(lost)?;
    data.convert::<f32>()
        .try_to_vec()
        .map_err(|e| lost(format!("{e:?}")))
}

#[cfg(target_family = "wasm")]
async fn other_to_vec<const D: usize>(_: Tensor<D>) -> Result<Vec<f32>> {
    Err(lost("not an f32 tensor of a known device"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtimes_error_is_told_without_its_backtrace() {
        let error = lost(
            "An error happened during execution\nCaused by:\n  the map failed\nBacktrace:\nNo backtrace available",
        );
        let message = error.message();
        assert!(
            message.contains("(An error happened during execution Caused by: the map failed);"),
            "{message}"
        );
        assert!(!message.to_lowercase().contains("backtrace"), "{message}");
    }
}
