//! What `tokenizer.json` asks to be done to a text before its pieces are looked up: `normalizer` changes it,
//! `pre_tokenizer` cuts it into words.

use std::ops::Range;

use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;

use super::charsmap::Charsmap;

/// One step of `normalizer`.
pub(super) enum Normalize {
    Charsmap(Charsmap),
    /// A Unicode normalisation form.
    Unicode(UnicodeForm),
    /// Character by character: a final sigma is not looked for.
    Lowercase,
    Replace {
        pattern: Pattern,
        content: String,
    },
    Strip {
        left: bool,
        right: bool,
    },
    /// Put before a text that is not empty.
    Prepend(String),
}

/// The forms of Unicode's annex 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnicodeForm {
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
}

impl Normalize {
    pub(super) fn apply(&self, text: String) -> String {
        match self {
            Normalize::Charsmap(map) => map.apply(&text),
            Normalize::Unicode(UnicodeForm::Nfc) => text.nfc().collect(),
            Normalize::Unicode(UnicodeForm::Nfd) => text.nfd().collect(),
            Normalize::Unicode(UnicodeForm::Nfkc) => text.nfkc().collect(),
            Normalize::Unicode(UnicodeForm::Nfkd) => text.nfkd().collect(),
            Normalize::Lowercase => text.chars().flat_map(char::to_lowercase).collect(),
            Normalize::Replace { pattern, content } => {
                let mut out = String::with_capacity(text.len());
                let mut end = 0;
                for found in pattern.find(&text) {
                    out.push_str(&text[end..found.start]);
                    out.push_str(content);
                    end = found.end;
                }
                out.push_str(&text[end..]);
                out
            }
            Normalize::Strip { left, right } => {
                let mut rest = text.as_str();
                if *left {
                    rest = rest.trim_start();
                }
                if *right {
                    rest = rest.trim_end();
                }
                rest.to_string()
            }
            Normalize::Prepend(prefix) if !text.is_empty() => format!("{prefix}{text}"),
            Normalize::Prepend(_) => text,
        }
    }
}

/// What is looked for in a text.
#[derive(Debug, PartialEq)]
pub(super) enum Pattern {
    /// This very text, which is not empty.
    Text(String),
    /// A run of so many or more of these characters.
    Run {
        characters: String,
        /// Whether white space belongs to them.
        white_space: bool,
        at_least: u32,
    },
}

impl Pattern {
    /// Reads a regular expression, of which SigLIP's tokenizers have but one, ` {2,}`: here it may be plain text, or
    /// one character or `[…]` set of characters with `+` or `{n,}`. `None` for all others.
    pub(super) fn from_regex(regex: &str) -> Option<Self> {
        let mut chars = regex.chars().peekable();
        let (mut characters, mut white_space) = (String::new(), false);
        let escaped = |c: char, characters: &mut String, white_space: &mut bool| match c {
            's' => {
                *white_space = true;
                Some(())
            }
            // These two are assertions.
            '<' | '>' => None,
            _ if c.is_ascii_punctuation() => {
                characters.push(c);
                Some(())
            }
            _ => None,
        };
        match chars.next()? {
            '\\' => escaped(chars.next()?, &mut characters, &mut white_space)?,
            '[' => loop {
                match chars.next()? {
                    ']' if !characters.is_empty() || white_space => break,
                    '\\' => escaped(chars.next()?, &mut characters, &mut white_space)?,
                    // Ranges, exclusions, classes and set operations.
                    '-' | '^' | '[' | ']' | '&' | '~' => return None,
                    c => characters.push(c),
                }
            },
            '.' | '^' | '$' | '*' | '+' | '?' | '(' | ')' | '|' | '{' | '}' => return None,
            c => characters.push(c),
        }
        let rest: String = chars.collect();
        let at_least = match rest.as_str() {
            "" => {
                // A character alone: as many of it are as many matches.
                let mut only = characters.chars();
                let text = only.next().filter(|_| !white_space)?.to_string();
                return only.next().is_none().then_some(Pattern::Text(text));
            }
            "+" => 1,
            _ if rest.starts_with('{') => {
                let digits = rest[1..].strip_suffix(",}")?;
                let digits = Some(digits).filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
                digits.parse().ok()?
            }
            _ => {
                let plain = regex.chars().all(|c| c.is_alphanumeric() || c == ' ');
                return plain.then(|| Pattern::Text(regex.to_string()));
            }
        };
        (at_least > 0).then_some(Pattern::Run {
            characters,
            white_space,
            at_least,
        })
    }

    /// Where the pattern is found, from left to right, without overlaps.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        match self {
            Pattern::Text(pattern) => text
                .match_indices(pattern.as_str())
                .map(|(at, found)| at..at + found.len())
                .collect(),
            Pattern::Run {
                characters,
                white_space,
                at_least,
            } => {
                let mut found = Vec::new();
                let mut run = (0..0, 0);
                for (at, c) in text.char_indices() {
                    if characters.contains(c) || *white_space && c.is_whitespace() {
                        if run.1 == 0 {
                            run.0.start = at;
                        }
                        run = (run.0.start..at + c.len_utf8(), run.1 + 1);
                    } else if std::mem::take(&mut run.1) >= *at_least {
                        found.push(run.0.clone());
                    }
                }
                if run.1 >= *at_least {
                    found.push(run.0);
                }
                found
            }
        }
    }
}

/// One step of `pre_tokenizer`.
pub(super) enum PreTokenize {
    WhitespaceSplit,
    Metaspace {
        /// What is written for a space; words are cut before it.
        replacement: char,
        /// Whether a word gets one in front if it has none.
        prepend: bool,
        /// Whether words are cut at all.
        split: bool,
    },
    Split {
        pattern: Pattern,
        behavior: Behavior,
        /// Whether what is found is what is kept.
        invert: bool,
    },
}

/// What becomes of the text at which [`PreTokenize::Split`] cuts.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(super) enum Behavior {
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

impl PreTokenize {
    /// Appends the words of `text`, none of them empty.
    pub(super) fn apply(&self, text: String, words: &mut Vec<String>) {
        match self {
            PreTokenize::WhitespaceSplit => {
                words.extend(text.split_whitespace().map(str::to_string));
            }
            PreTokenize::Metaspace {
                replacement,
                prepend,
                split,
            } => {
                let mut text = text.replace(' ', replacement.encode_utf8(&mut [0; 4]));
                if *prepend && !text.starts_with(*replacement) {
                    text.insert(0, *replacement);
                }
                if *split {
                    let found = text.match_indices(*replacement);
                    let found = found.map(|(at, found)| at..at + found.len()).collect();
                    cut(&text, found, Behavior::MergedWithNext, false, words);
                } else {
                    words.push(text);
                }
            }
            PreTokenize::Split {
                pattern,
                behavior,
                invert,
            } => cut(&text, pattern.find(&text), *behavior, *invert, words),
        }
    }
}

/// Cuts `text` at what was `found` in it.
fn cut(
    text: &str,
    found: Vec<Range<usize>>,
    behavior: Behavior,
    invert: bool,
    words: &mut Vec<String>,
) {
    // All of the text, in stretches that are delimiters or not.
    let mut stretches = Vec::with_capacity(2 * found.len() + 1);
    let mut end = 0;
    for found in found {
        if end < found.start {
            stretches.push((end..found.start, invert));
        }
        end = found.end;
        stretches.push((found, !invert));
    }
    if end < text.len() {
        stretches.push((end..text.len(), invert));
    }

    let join = |joins: &dyn Fn(bool, bool) -> bool, stretches: Vec<(Range<usize>, bool)>| {
        let mut joined: Vec<Range<usize>> = Vec::with_capacity(stretches.len());
        let mut previous = false;
        for (stretch, delimiter) in stretches {
            match joined.last_mut() {
                Some(last) if joins(previous, delimiter) => {
                    *last = last.start.min(stretch.start)..last.end.max(stretch.end);
                }
                _ => joined.push(stretch),
            }
            previous = delimiter;
        }
        joined
    };
    // A delimiter after another one is a word of its own.
    let merged = |previous: bool, delimiter: bool| delimiter && !previous;
    let ranges = match behavior {
        Behavior::Isolated => join(&|_, _| false, stretches),
        Behavior::Removed => {
            stretches.retain(|(_, delimiter)| !delimiter);
            join(&|_, _| false, stretches)
        }
        Behavior::Contiguous => join(&|previous, delimiter| previous == delimiter, stretches),
        Behavior::MergedWithPrevious => join(&merged, stretches),
        Behavior::MergedWithNext => {
            stretches.reverse();
            let mut ranges = join(&merged, stretches);
            ranges.reverse();
            ranges
        }
    };
    words.extend(ranges.into_iter().map(|range| text[range].to_string()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_replaced_as_a_whole() {
        let replace = |regex: &str, text: &str| {
            let pattern = Pattern::from_regex(regex).unwrap();
            let content = "_".to_string();
            Normalize::Replace { pattern, content }.apply(text.to_string())
        };
        assert_eq!(replace(" {2,}", "a b  c   "), "a b_c_");
        assert_eq!(replace(r"\s+", "\ta \u{3000}b"), "_a_b");
        assert_eq!(replace("x", "xx"), "__");
        assert_eq!(replace(r"[a\]\s]+", "ba] c"), "b_c");
        assert_eq!(replace("ab", "aabb"), "a_b");
    }

    #[test]
    fn other_regular_expressions_are_not_guessed_at() {
        for regex in [
            "", "(a|b", "a|b", "a*", "[a-z]+", "[^a]+", r"\w+", "ab+", ".", "a{2}", "[ab]",
            "a{0,}", r"\d", r"\<", "a{2,3}", "a{+2,}", "[]a]+", "^a", "a.", "é?",
        ] {
            assert_eq!(Pattern::from_regex(regex), None, "{regex:?}");
        }
    }
}
