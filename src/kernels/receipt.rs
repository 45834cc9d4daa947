//! Whether a device did all the work of an answer.
//!
//! A queue that drops what it is given says nothing of it, and buffers are used again: what is read then is an earlier answer, as
//! plausible as any. So with an answer's input a number goes to the GPU, in the same buffer, that no answer before had. It is counted
//! up there after each layer, and comes back with the result. The runtime submits up to 32 kernels at a time and a layer is seven:
//! whatever submission is dropped, one step of the count is dropped with it.

use burn::tensor::{Device, Int, Tensor};

use super::{from_ids, from_vec};
use crate::error::Result;

/// Proof that a device did its work: see the module. On the CPU, which has no queue, there is nothing to prove.
pub struct Receipt {
    #[cfg(feature = "webgpu")]
    counter: Option<gpu::Counter>,
}

impl Receipt {
    /// Puts numbers on a device.
    pub fn with_floats<const D: usize>(
        values: Vec<f32>,
        shape: [usize; D],
        device: &Device,
    ) -> (Tensor<D>, Self) {
        #[cfg(feature = "webgpu")]
        if *device != Device::flex() {
            let words = bytemuck::cast_vec(values);
            let (counter, tensor) = gpu::Counter::with_words(words, device);
            let counter = Some(counter);
            return (tensor.floats(shape), Self { counter });
        }
        (from_vec(values, shape, device), Self::of_the_cpu())
    }

    /// Puts token ids on a device.
    pub fn with_ids<const D: usize>(
        ids: Vec<i32>,
        shape: [usize; D],
        device: &Device,
    ) -> (Tensor<D, Int>, Self) {
        #[cfg(feature = "webgpu")]
        if *device != Device::flex() {
            let words = bytemuck::cast_vec(ids);
            let (counter, tensor) = gpu::Counter::with_words(words, device);
            let counter = Some(counter);
            return (tensor.ids(shape), Self { counter });
        }
        (from_ids(ids, shape, device), Self::of_the_cpu())
    }

    fn of_the_cpu() -> Self {
        Self {
            #[cfg(feature = "webgpu")]
            counter: None,
        }
    }

    /// Counts what the device has been told since the last time: at most the work of one layer.
    pub fn count(&mut self) {
        #[cfg(feature = "webgpu")]
        if let Some(counter) = &mut self.counter {
            counter.count();
        }
    }

    /// Reads a result back; the device is told at once.
    ///
    /// # Errors
    /// `device-lost` if the device can't answer any more, or left out work.
    #[cfg(feature = "webgpu")]
    pub async fn read<const D: usize>(self, tensor: Tensor<D>) -> Result<Vec<f32>> {
        use burn::backend::Cube;
        if self.counter.is_none() {
            return super::transfer::host_to_vec(tensor).await;
        }
        let primitive = tensor.try_into_primitive::<Cube>();
        let primitive =
            primitive.map_err(|_| super::transfer::lost("they are on no known device"))?;
        self.read_words(primitive).await.map(bytemuck::cast_vec)
    }

    /// Reads a result back; the device is told at once.
    ///
    /// # Errors
    /// As [`to_vec`](super::to_vec).
    #[cfg(not(feature = "webgpu"))]
    pub async fn read<const D: usize>(self, tensor: Tensor<D>) -> Result<Vec<f32>> {
        super::transfer::host_to_vec(tensor).await
    }
}

#[cfg(feature = "webgpu")]
impl Receipt {
    /// For a result that has no input of its own.
    pub fn alone(device: &Device) -> Self {
        Self::with_floats::<1>(Vec::new(), [0], device).1
    }

    /// [`read`](Self::read) of numbers of any kind.
    pub(super) async fn read_words(
        mut self,
        tensor: burn::backend::wgpu::CubeTensor,
    ) -> Result<Vec<u32>> {
        self.count();
        let counter = self.counter.expect("a GPU's tensor");
        counter.read(tensor).await
    }
}

#[cfg(feature = "webgpu")]
mod gpu {
    use std::sync::atomic::{AtomicU32, Ordering};

    use burn::backend::ops::IntTensorOps;
    use burn::backend::wgpu::CubeTensor;
    use burn::backend::{Cube, Dispatch};
    use burn::tensor::{DType, Device, Int, Shape, Tensor, TensorData};

    use crate::error::{Error, Result};
    use crate::kernels::transfer::lost;
    use crate::kernels::{add_rows, wgsl};

    /// The answers of this program.
    static ANSWERS: AtomicU32 = AtomicU32::new(0);
    /// Steps of an answer's count are fewer: an encoder has at most some forty layers.
    const STEPS: u32 = 128;
    /// Answers whose counts differ: f32 holds all of them exactly.
    const NUMBERS: u32 = (1 << 24) / STEPS;
    /// Numbers of the counter, of which one would do: kernels take four at a time.
    const WIDTH: usize = 4;

    /// A number that is counted up on the GPU, and here.
    pub struct Counter {
        /// `[1, 1, WIDTH]`
        there: Tensor<3>,
        /// Ones, `[1, WIDTH]`.
        step: Tensor<2>,
        expected: f32,
    }

    /// An answer's input on the GPU.
    pub struct Input(CubeTensor);

    impl Input {
        pub fn floats<const D: usize>(self, shape: [usize; D]) -> Tensor<D> {
            let tensor = wgsl::of_shape(&self.0, Shape::new(shape), DType::F32);
            Tensor::from_primitive::<Cube>(tensor)
        }

        pub fn ids<const D: usize>(self, shape: [usize; D]) -> Tensor<D, Int> {
            let tensor = wgsl::of_shape(&self.0, Shape::new(shape), DType::I32);
            Tensor::from_primitive::<Cube>(tensor)
        }
    }

    impl Counter {
        /// A counter that reaches `device` together with `words`.
        pub fn with_words(words: Vec<u32>, device: &Device) -> (Self, Input) {
            let answer = ANSWERS.fetch_add(1, Ordering::Relaxed) % NUMBERS;
            // Not 0, which memory holds that nobody wrote to.
            let first = (answer * STEPS + 1) as f32;
            let [number, step] = [first, 1.0].map(|value: f32| vec![value.to_bits(); WIDTH]);
            let [input, there, step] = upload([words, number, step], device).map(Input);
            let counter = Self {
                there: there.floats([1, 1, WIDTH]),
                step: step.floats([1, WIDTH]),
                expected: first,
            };
            (counter, input)
        }

        pub fn count(&mut self) {
            self.there = add_rows(self.there.clone(), self.step.clone());
            self.expected += 1.0;
        }

        /// Reads a result and the count, which must be as it is here.
        pub async fn read(self, tensor: CubeTensor) -> Result<Vec<u32>> {
            let there = self.there.try_into_primitive::<Cube>();
            let there = there.map_err(|_| lost("they are on no known device"))?;
            let [words, count] = wgsl::read([tensor, there]).await.map_err(lost)?;
            let count: Vec<f32> = count.into_iter().map(f32::from_bits).collect();
            match count.iter().all(|count| *count == self.expected) {
                true => Ok(words),
                false => Err(Error::device_lost(format!(
                    "the GPU left out some of its work (a count came to {}, not {}), and its results would be those of something else; \
                     load the model again, with backend \"cpu\" if it happens again",
                    count[0], self.expected
                ))),
            }
        }
    }

    /// Words in one buffer, as tensors that each begin where bindings may.
    fn upload<const N: usize>(parts: [Vec<u32>; N], device: &Device) -> [CubeTensor; N] {
        const APART: usize = wgsl::ALIGNMENT / size_of::<u32>();
        let mut parts = parts.into_iter();
        // The first is much the longest.
        let mut words = parts.next().unwrap_or_default();
        let mut ranges = Vec::with_capacity(N);
        ranges.push(0..words.len());
        for part in parts {
            words.resize(words.len().next_multiple_of(APART), 0);
            ranges.push(words.len()..words.len() + part.len());
            words.extend(part);
        }
        let shape = [words.len()];
        let data = TensorData::new(words, shape);
        let whole = Dispatch::int_from_data(data, device.as_dispatch());
        let whole = Tensor::<1, Int>::from_dispatch(whole).try_into_primitive::<Cube>();
        let whole = whole.expect("a GPU's tensor");
        std::array::from_fn(|i| wgsl::part(&whole, ranges[i].clone()))
    }

    #[cfg(all(test, not(target_family = "wasm")))]
    mod tests {
        use crate::device::{self, Backend};
        use crate::error::Code;
        use crate::kernels::Receipt;

        #[test]
        fn input_and_count_arrive_and_a_step_that_was_left_out_is_an_error() {
            let device = device::open(Backend::WebGpu).unwrap();
            for length in [0, 1, 4, 63, 64, 300] {
                let values: Vec<f32> = (0..length).map(|i| i as f32).collect();
                let (x, mut receipt) = Receipt::with_floats(values.clone(), [length], &device);
                receipt.count();
                receipt.count();
                if length > 0 {
                    assert_eq!(pollster::block_on(receipt.read(x)).unwrap(), values);
                }
            }
            let (x, mut receipt) = Receipt::with_floats(vec![1.0], [1], &device);
            receipt.counter.as_mut().unwrap().expected += 1.0;
            let error = pollster::block_on(receipt.read(x)).unwrap_err();
            assert_eq!(error.code(), Code::DeviceLost);
            assert!(error.message().contains("left out"), "{error}");
        }
    }
}
