//! Memory that is asked for before it is used: an allocation that fails would abort.

use std::fmt;
use std::hint::black_box;

use crate::error::{Error, Result};

/// Most bytes that decoding may hold beside the file: what a 32-bit heap can give next to a model.
const MAX_DECODE_BYTES: u64 = 768 << 20;

/// Refuses a picture of `size` that takes more than [`MAX_DECODE_BYTES`], or more than there are.
pub(super) fn check_memory(kind: impl fmt::Display, size: (u32, u32), needed: u64) -> Result<()> {
    if needed > MAX_DECODE_BYTES {
        return Err(Error::bad_image(format!(
            "the {kind} picture of {} × {} pixels needs {} MiB to decode, and the limit is {} MiB; make it smaller",
            size.0,
            size.1,
            needed >> 20,
            MAX_DECODE_BYTES >> 20,
        )));
    }
    // Decoders abort when an allocation fails, so ask first.
    drop(black_box(allocate(needed)?));
    Ok(())
}

/// An empty vector that has room for `bytes` bytes.
pub(super) fn allocate(bytes: u64) -> Result<Vec<u8>> {
    let mut vec = Vec::new();
    reserve(&mut vec, bytes)?;
    Ok(vec)
}

/// Room for `bytes` bytes in all.
pub(super) fn reserve(vec: &mut Vec<u8>, bytes: u64) -> Result<()> {
    usize::try_from(bytes)
        .ok()
        .and_then(|bytes| vec.try_reserve_exact(bytes.saturating_sub(vec.len())).ok())
        .ok_or_else(|| no_memory(bytes))
}

pub(super) fn no_memory(bytes: u64) -> Error {
    Error::out_of_memory(format!(
        "no {} MiB of memory left to decode the picture; make it smaller",
        bytes >> 20
    ))
}
