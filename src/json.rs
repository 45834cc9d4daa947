//! The JSON files of a checkpoint, and what servers and clones deliver in their stead.

use serde::Deserialize;

use crate::error::{Error, Result};

/// Parses `bytes` as JSON of the form `T`.
///
/// # Errors
/// `bad-model`, naming `file` and saying whether it is empty, cut off, damaged, or something else altogether.
pub(crate) fn parse<'a, T: Deserialize<'a>>(file: &str, bytes: &'a [u8]) -> Result<T> {
    check_not_a_stand_in(file, bytes)?;
    let bytes = without_mark(bytes);
    if bytes.trim_ascii().is_empty() {
        return Err(Error::bad_model(format!("{file} is empty; get it again")));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Eof => "is cut off; get it again",
            serde_json::error::Category::Data => {
                "doesn't hold what it should; it may belong to another kind of model"
            }
            _ => "can't be read as JSON; get it again",
        };
        Error::bad_model(format!("{file} {what} ({error})"))
    })
}

/// The bytes after a byte order mark, which JSON must not have but files do.
pub(crate) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Fails if a file that begins like `start` is a web page or a placeholder.
///
/// # Errors
/// `bad-model`, naming `file` and saying what to do.
pub(crate) fn check_not_a_stand_in(file: &str, start: &[u8]) -> Result<()> {
    let text = start.trim_ascii_start();
    if text.starts_with(b"<") {
        return Err(Error::bad_model(format!(
            "{file} looks like a web page, not the file itself; check the address, and whether the server asks for a sign-in"
        )));
    }
    if text.starts_with(b"version ") {
        return Err(Error::bad_model(format!(
            "{file} is a Git LFS pointer, not the file itself; run `git lfs pull` in the checkpoint's folder"
        )));
    }
    Ok(())
}
