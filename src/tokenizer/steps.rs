//! What SigLIP's and SigLIP 2's `tokenizer.json` ask to be done to a text before its pieces are looked up: `normalizer` changes it,
//! `pre_tokenizer` cuts it into words.

use super::budget;
use super::charsmap::Charsmap;

/// One step of `normalizer`.
pub(super) enum Normalize {
    Charsmap(Charsmap),
    /// Character by character: a final sigma is not looked for.
    Lowercase,
    Replace {
        pattern: Pattern,
        content: String,
    },
}

/// What is looked for in a text.
#[derive(Debug, PartialEq)]
pub(super) enum Pattern {
    /// This very text, which is not empty.
    Text(String),
    /// ` {2,}`, the one regular expression that these tokenizers have.
    Spaces,
}

impl Normalize {
    /// Applies the step to a text that was `original` bytes long before the first one.
    ///
    /// # Errors
    /// Says what is wrong with a step that could make too much of the text.
    pub(super) fn apply(&self, text: &str, original: usize) -> Result<String, String> {
        budget::check(self.most(text.len()), original)?;
        Ok(match self {
            Normalize::Charsmap(map) => map.apply(text),
            Normalize::Lowercase => text.chars().flat_map(char::to_lowercase).collect(),
            Normalize::Replace { pattern, content } => match pattern {
                Pattern::Text(pattern) => text.replace(pattern.as_str(), content),
                Pattern::Spaces => replace_spaces(text, content),
            },
        })
    }

    /// The most bytes that the step can make of `length`.
    fn most(&self, length: usize) -> usize {
        match self {
            Normalize::Charsmap(map) => length.saturating_mul(map.longest()),
            // U+0130, of two bytes, becomes three.
            Normalize::Lowercase => length.saturating_mul(2),
            Normalize::Replace { content, .. } => budget::replaced(length, content.len()),
        }
    }
}

/// `text` with `content` in the place of every run of two or more spaces.
fn replace_spaces(text: &str, content: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("  ") {
        out.push_str(&rest[..at]);
        out.push_str(content);
        rest = rest[at..].trim_start_matches(' ');
    }
    out + rest
}

/// One step of `pre_tokenizer`.
pub(super) enum PreTokenize {
    /// Writes `replacement` for a space, and cuts before each if it is to `split`.
    Metaspace { replacement: char, split: bool },
    /// Cuts after each space.
    SplitAfterSpaces,
}

impl PreTokenize {
    /// Appends the words of `text`, none of them empty.
    pub(super) fn apply(&self, text: String, words: &mut Vec<String>) {
        match self {
            PreTokenize::Metaspace { replacement, split } => {
                let text = text.replace(' ', replacement.encode_utf8(&mut [0; 4]));
                if !split {
                    words.push(text);
                    return;
                }
                let cuts = text.match_indices(*replacement).map(|(at, _)| at);
                let ends = cuts.chain([text.len()]).filter(|&end| end > 0);
                let mut start = 0;
                for end in ends {
                    words.push(text[start..end].to_string());
                    start = end;
                }
            }
            PreTokenize::SplitAfterSpaces => {
                words.extend(text.split_inclusive(' ').map(str::to_string));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_spaces_are_replaced_as_a_whole() {
        assert_eq!(replace_spaces("a b  c   ", "_"), "a b_c_");
        assert_eq!(replace_spaces("  ", ""), "");
        assert_eq!(replace_spaces("", "_"), "");
    }

    #[test]
    fn words_are_cut_where_spaces_are() {
        let cut = |step: PreTokenize, text: &str| {
            let mut words = Vec::new();
            step.apply(text.to_string(), &mut words);
            words
        };
        let metaspace = |split| PreTokenize::Metaspace {
            replacement: '▁',
            split,
        };
        assert_eq!(
            cut(metaspace(true), "▁a b  c "),
            ["▁a", "▁b", "▁", "▁c", "▁"]
        );
        assert_eq!(cut(metaspace(false), "a b"), ["a▁b"]);
        assert_eq!(
            cut(PreTokenize::SplitAfterSpaces, " a  b"),
            [" ", "a ", " ", "b"]
        );
    }

    /// Forty lines that each double a text would make terabytes of one letter.
    #[test]
    fn a_chain_of_replacements_is_stopped_before_it_is_large() {
        let double = Normalize::Replace {
            pattern: Pattern::Text("a".into()),
            content: "aa".into(),
        };
        let mut text = "a".to_string();
        let stopped = (0..40).find_map(|_| match double.apply(&text, 1) {
            Ok(longer) => {
                text = longer;
                None
            }
            Err(error) => Some(error),
        });
        assert!(stopped.unwrap().contains("normalizer"));
        assert!(text.len() <= budget::allowed(1), "{} bytes", text.len());
    }
}
