//! Pipelines before they are needed.
//!
//! The runtime makes a pipeline when its kernel first runs, one after the other. A browser makes many side by side, and while a
//! model's weights are on their way: a compiler hook ([`set_compiler`]) receives the WGSL of all kernels that the model will run.
//! Natively no hook is set, and pipelines are made at first use.

use std::cell::RefCell;
use std::future::ready;
use std::pin::Pin;
use std::rc::Rc;

use burn::backend::Cube;
use burn::tensor::{DType, Device, Int, Shape, Tensor};

use super::packed::{Dtype, PackedWeight};
use super::{from_vec, wgsl};

/// Pipelines in the making. They are there when it ends, or are made by the runtime, which then reports what is wrong with them.
pub type Compiling = Pin<Box<dyn Future<Output = ()>>>;

/// Begins to make the pipelines of kernels given by their WGSL.
pub type Compiler = Rc<dyn Fn(Vec<String>) -> Compiling>;

thread_local! {
    static COMPILER: RefCell<Option<Compiler>> = const { RefCell::new(None) };
}

/// Has this thread's pipelines made by `compiler`.
pub fn set_compiler(compiler: Compiler) {
    COMPILER.set(Some(compiler));
}

/// Begins with the pipelines of the kernels that `work` would start on `device`, if that is a GPU; it may work on [`MetaTensors`].
pub fn begin(device: &Device, work: impl FnOnce()) -> Compiling {
    match COMPILER.with_borrow(Clone::clone) {
        Some(compiler) if *device != Device::flex() => compiler(wgsl::texts(work)),
        _ => Box::pin(ready(())),
    }
}

/// Tensors of which there is nothing but the shape.
pub struct MetaTensors(<Cube as burn::backend::BackendTypes>::FloatTensorPrimitive);

impl MetaTensors {
    /// For work on `device`, a GPU.
    pub fn new(device: &Device) -> Self {
        let tensor = from_vec(vec![0.0], [1], device);
        Self(tensor.try_into_primitive::<Cube>().expect("a GPU's tensor"))
    }

    /// An f32 tensor.
    pub fn float<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        let outline = wgsl::of_shape(&self.0, Shape::new(shape), DType::F32);
        Tensor::from_primitive::<Cube>(outline)
    }

    /// Token ids.
    pub fn ids<const D: usize>(&self, shape: [usize; D]) -> Tensor<D, Int> {
        let outline = wgsl::of_shape(&self.0, Shape::new(shape), DType::I32);
        Tensor::from_primitive::<Cube>(outline)
    }

    /// A packed weight `[output, input]`.
    pub fn packed(&self, dtype: Dtype, [output, input]: [usize; 2]) -> PackedWeight {
        let shape = Shape::new([output, dtype.row_words(input)]);
        let outline = wgsl::of_shape(&self.0, shape, DType::U32);
        let words = Tensor::from_primitive::<Cube>(outline);
        PackedWeight {
            words,
            dtype,
            input,
        }
    }
}
