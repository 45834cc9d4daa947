//! Weights in the module's own memory, where a device reads them best in an order of its own.

use std::sync::{Arc, Mutex, MutexGuard};

use burn::module::Module;

#[cfg(target_family = "wasm")]
use super::cpu;
use super::packed::{Dtype, PackedMatrix};

/// The weight of a product on the browser's CPU. Its second product lays it out as products read it, which takes longer than to do it once: neither a
/// load nor who asks but one thing waits for that.
#[derive(Module, Debug)]
pub struct HeldWeight {
    #[module(skip)]
    words: Arc<Mutex<Words>>,
    /// How its numbers are held.
    #[module(skip)]
    pub dtype: Dtype,
    /// `[output, input]`.
    #[module(skip)]
    pub dims: [usize; 2],
}

/// A held weight's words.
#[derive(Debug)]
pub(crate) enum Words {
    /// Row by row, see [`packed`](super::packed); and whether there was a product.
    #[cfg_attr(not(target_family = "wasm"), expect(dead_code))] // The browser's.
    Rows(Vec<u32>, bool),
    /// Panel by panel.
    #[cfg(target_family = "wasm")]
    LaidOut(cpu::LaidOut),
}

impl HeldWeight {
    /// Whether weights are to be held so, those in f32 too, if products read them whole and they [can be packed](super::takes_packed).
    pub const fn are_all() -> bool {
        cfg!(all(target_family = "wasm", not(feature = "webgpu")))
    }

    /// Holds `matrix`.
    pub fn new(matrix: PackedMatrix) -> Self {
        let (dtype, dims) = (matrix.dtype(), [matrix.rows(), matrix.input()]);
        Self {
            words: Arc::new(Mutex::new(Words::Rows(matrix.into_words(), false))),
            dtype,
            dims,
        }
    }

    /// The words as they are now; whoever reads them may put them in another order.
    #[cfg_attr(not(target_family = "wasm"), expect(dead_code))] // The browser's.
    pub(crate) fn words(&self) -> MutexGuard<'_, Words> {
        self.words.lock().expect("no product panics")
    }
}
