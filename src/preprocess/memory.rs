//! Memory that is asked for before it is used: an allocation that fails would abort.

use crate::error::{Error, Result};

/// An empty vector that has room for `bytes` bytes.
pub(super) fn allocate(bytes: u64) -> Result<Vec<u8>> {
    let mut vec = Vec::new();
    usize::try_from(bytes)
        .ok()
        .and_then(|bytes| vec.try_reserve_exact(bytes).ok())
        .ok_or_else(|| {
            Error::out_of_memory(format!(
                "no {} MiB of memory left to decode the picture; make it smaller",
                bytes >> 20
            ))
        })?;
    Ok(vec)
}
