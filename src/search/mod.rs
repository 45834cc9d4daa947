//! Search over many embeddings, exact: a query is compared with all of them.
//!
//! [`Rows`] holds them in 8 bits a number, a quarter of what must be read of f32: comparing is as fast as memory is. The best by that
//! are scored again from f32 by [`Question::rank`]. Natively, `Index` is both, with what the pictures are, as a safetensors file.

#[cfg(not(target_family = "wasm"))]
mod index;
mod question;
mod rows;

#[cfg(not(target_family = "wasm"))]
pub use index::{Entry, Hit, Index};
pub use question::{Candidates, Found, Question};
pub use rows::{CHUNK, Rows, checksum};

/// Raised whenever the same picture would get another embedding: how it is decoded, scaled or run through the model. An index of another version isn't used.
pub const PIPELINE: u32 = 1;

/// Candidates that are scored beyond those that are wanted: embeddings that 8 bits rank lower than they are.
pub const MARGIN: usize = 200;
