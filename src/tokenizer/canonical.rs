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

/// open_clip's `_clean_canonicalize`: `_` to a space, then punctuation deleted, then lower case, then as above.
///
/// Of what ftfy mends before that, quotation marks and full-width forms of ASCII are; not accents apart from their letters, control
/// characters, text in a wrong encoding and HTML's entities.
pub(super) fn canonicalize_for_open_clip(text: &str) -> String {
    let plain = text.chars().map(|c| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from((u32::from(c) - 0xfee0) as u8),
        '\u{2bc}' | '\u{2018}'..='\u{201f}' => '"',
        c => c,
    });
    let words = plain.map(|c| if c == '_' { ' ' } else { c });
    let words: String = words.filter(|c| !c.is_ascii_punctuation()).collect();
    canonicalize(&words, true)
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
    fn labels_for_open_clip_are_those_of_its_own_function() {
        // `_clean_canonicalize` of open_clip_torch 3.3.0.
        for (label, expected) in [
            ("a_red house", "a red house"),
            (
                "It’s the “real” mountain's view!",
                "its the real mountains view",
            ),
            ("ＡＢＣ！＿d", "abc d"),
            ("ΟΔΟΣ. ΣΑΣ", "οδος σας"),
            ("  x\u{a0}y\u{3000}z  ", "x y z"),
            ("</s> <unk>", "s unk"),
            ("café – 50 %", "café – 50"),
            ("_", ""),
            ("İstanbul", "i\u{307}stanbul"),
        ] {
            assert_eq!(canonicalize_for_open_clip(label), expected, "{label:?}");
        }
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
