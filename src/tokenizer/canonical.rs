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

/// A stretch of a label: text, or a special token that stands in it literally.
#[derive(Debug, PartialEq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Special(u32),
}

/// Cuts `text` at the special tokens, the leftmost and then the longest first, as transformers' trie.
pub(super) fn split_special<'a>(text: &'a str, special: &[(String, u32)]) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let found = special
            .iter()
            .filter(|(token, _)| rest.starts_with(token.as_str()))
            .max_by_key(|(token, _)| token.len());
        if let Some((token, id)) = found {
            if start < at {
                parts.push(Part::Text(&text[start..at]));
            }
            parts.push(Part::Special(*id));
            at += token.len();
            start = at;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    if start < text.len() {
        parts.push(Part::Text(&text[start..]));
    }
    parts
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

    #[test]
    fn special_tokens_cut_the_text() {
        let special = [("</s>".to_string(), 1), ("</s>x".to_string(), 7)];
        assert_eq!(
            split_special("é</s></s>xy", &special),
            [
                Part::Text("é"),
                Part::Special(1),
                Part::Special(7),
                Part::Text("y")
            ]
        );
        assert_eq!(split_special("", &special), []);
    }
}
