//! The Python half of `SiglipTokenizer`: what happens to a label before sentencepiece sees it.

/// Sentencepiece's visible space, U+2581.
pub(super) const UNDERLINE: char = '\u{2581}';

/// `SiglipTokenizer.canonicalize_text`: lower-case, ASCII punctuation deleted, runs of white space
/// made one space, no white space at either end.
///
/// Lower-casing comes first, because a final sigma depends on what follows it.
pub(super) fn canonicalize(text: &str, lower_case: bool) -> String {
    let lowered;
    let text = if lower_case {
        lowered = text.to_lowercase();
        lowered.as_str()
    } else {
        text
    };
    let mut canonical = String::with_capacity(text.len());
    let mut space = false;
    for c in text.chars().filter(|c| !c.is_ascii_punctuation()) {
        if is_space(c) {
            space = true;
        } else {
            if space && !canonical.is_empty() {
                canonical.push(' ');
            }
            space = false;
            canonical.push(c);
        }
    }
    canonical
}

/// Python's `str.isspace`, which counts the four ASCII separators as well.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_pythons() {
        let text = "\u{1c}a\u{1f}\u{85}b\u{a0}\u{3000}c\u{200b}d\u{2028}";
        assert_eq!(canonicalize(text, true), "a b c\u{200b}d");
    }

    #[test]
    fn punctuation_goes_without_leaving_a_gap() {
        assert_eq!(
            canonicalize(" It's – \"OK\" - (x_y)… ", true),
            "its – ok xy…"
        );
        assert_eq!(canonicalize("Ab, C.", false), "Ab C");
        assert_eq!(canonicalize("?!", true), "");
    }

    #[test]
    fn lower_case_follows_unicode() {
        // Final sigma before the punctuation is gone, İ as i and a dot above, ẞ as ß.
        assert_eq!(canonicalize("ΟΔΟΣ. ΣΑΣ İẞ", true), "οδος σας i\u{307}ß");
    }
}
