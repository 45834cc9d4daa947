//! How much a `tokenizer.json` may ask for. Doubling a text forty times takes forty short lines, so every step of a normalizer says what it
//! can make of a text before it is let.

/// Steps of a normalizer or pre-tokenizer; published ones have up to six.
pub const STEPS: usize = 64;

/// Bytes that a text of so many may have after each step of a normalizer. SigLIP's character map makes up to 33 of 3.
pub fn allowed(original: usize) -> usize {
    (1 << 20) + 64 * original
}

/// The most bytes that replacing each match of a pattern by `content` makes of `length`: a pattern may match nothing, before and after every byte.
pub fn replaced(length: usize, content: usize) -> usize {
    length.saturating_add(length.saturating_add(1).saturating_mul(content))
}

/// What is wrong with a step that could make `most` bytes of a text that had `original`.
pub fn check(most: usize, original: usize) -> Result<(), String> {
    if most <= allowed(original) {
        return Ok(());
    }
    Err(format!(
        "`normalizer` could make a text of {original} bytes one of {most}"
    ))
}
