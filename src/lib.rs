//! SigLIP image classification: a picture and any labels in, a probability for each label out. Models that were fine-tuned for labels of their
//! own score these ([`Labels::Own`]).
//!
//! The same crate runs natively and, compiled to WebAssembly, inside a web page; on the GPU through WebGPU or on the CPU.
//! The modules are in the order in which data flows.
//!
//! ```no_run
//! use siglip_web::{Backend, Classifier, ClassifyOptions};
//!
//! # fn main() -> siglip_web::Result<()> {
//! let mut classifier = Classifier::load("siglip-base-patch16-224", Backend::Cpu)?;
//! let picture = std::fs::read("cats.jpg").unwrap();
//! for result in classifier.classify(&picture, &["2 cats", "2 dogs"], &ClassifyOptions::default())? {
//!     println!("{:5.1} % {}", 100.0 * result.score, result.label);
//! }
//! # Ok(())
//! # }
//! ```

#![deny(missing_docs)]
// Allowed, with a reason each, where SIMD loads and the linker ask for it.
#![deny(unsafe_code)]

pub mod preprocess;

pub mod tokenizer;

pub mod model;

#[doc(hidden)]
pub mod kernels;

pub mod loss;

pub mod checkpoint;

pub mod classifier;

pub mod search;

#[cfg(target_family = "wasm")]
pub mod web;

pub mod device;
pub mod error;
mod json;

pub use checkpoint::LoadOptions;
pub use classifier::{
    Classifier, ClassifyOptions, HeatMap, LabelScore, LabelSet, Labels, Picture, Scores, Similarity,
};
pub use device::{Backend, Device};
pub use error::{Code, Error, Result};
pub use kernels::Dtype;
