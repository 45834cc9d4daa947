//! From a checkpoint's files, or what is kept of them, to weights on a device.

pub(super) mod entry;
#[cfg(feature = "webgpu")]
pub(super) mod outline;
mod rows;
pub(super) mod tensors;

pub use rows::TokenRows;
