//! Numbers to a device and back.

use std::future::ready;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

#[cfg(feature = "webgpu")]
use burn::backend::Cube;
use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::backend::{Dispatch, Flex};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

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
/// `device-lost` if the device can't answer any more.
pub async fn to_vec<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    if tensor.dtype() == DType::F32 {
        #[cfg(feature = "webgpu")]
        if let Ok(primitive) = tensor.clone().try_into_primitive::<Cube>() {
            drop(tensor);
            return super::wgsl::read(primitive).await.map_err(|e| lost(&e));
        }
        if let Ok(primitive) = tensor.clone().try_into_primitive::<Flex>() {
            return Ok(primitive.to_contiguous().storage().to_vec());
        }
    }
    other_to_vec(tensor).await
}

/// [`to_vec`] that tells the device at once: other work can be done before the future is waited for.
pub fn begin_to_vec<const D: usize>(
    tensor: Tensor<D>,
) -> Pin<Box<dyn Future<Output = Result<Vec<f32>>>>> {
    let mut values = Box::pin(to_vec(tensor));
    // Up to where it waits; whoever waits for it asks again.
    match values
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(values) => Box::pin(ready(values)),
        Poll::Pending => values,
    }
}

fn lost(error: &dyn std::fmt::Debug) -> Error {
    Error::device_lost(format!(
        "the device did not return its results ({error:?}); load the model again, with backend \"cpu\" if it happens again"
    ))
}

/// Of another type than f32, or with gradients.
#[cfg(not(target_family = "wasm"))]
async fn other_to_vec<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor.into_data_async().await.map_err(|e| lost(&e))?;
    data.convert::<f32>().try_to_vec().map_err(|e| lost(&e))
}

#[cfg(target_family = "wasm")]
async fn other_to_vec<const D: usize>(_: Tensor<D>) -> Result<Vec<f32>> {
    Err(lost(&"not an f32 tensor of a known device"))
}
