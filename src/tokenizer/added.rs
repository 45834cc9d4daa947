//! Special tokens that stand in a label literally.

use super::files::{self, excerpt};
use super::pieces::{IndexError, Pieces};

/// A stretch of a label: text, or a token that stands in it.
#[derive(Debug, PartialEq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Token(u32),
}

/// A token to be found.
pub(super) struct AddedToken {
    pub content: String,
    pub id: u32,
    /// Whether it takes the white space before and after it.
    pub lstrip: bool,
    pub rstrip: bool,
}

impl AddedToken {
    /// `token`, to be found as `content`.
    pub(super) fn new(token: files::AddedToken, content: String) -> Self {
        Self {
            content,
            id: token.id,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
        }
    }
}

/// Tokens to be found in a text: the leftmost first, and of several at one place the longest.
pub(super) struct AddedTokens {
    /// By the numbers that `contents` gives them.
    tokens: Vec<AddedToken>,
    contents: Pieces,
    /// The bytes that a token begins with.
    first: [bool; 256],
}

impl Default for AddedTokens {
    fn default() -> Self {
        Self::new(vec![]).expect("no token is there twice")
    }
}

impl AddedTokens {
    /// Tokens without content are left out. The error is the content of one that is there twice, or why they can't be told apart in time.
    pub(super) fn new(mut tokens: Vec<AddedToken>) -> Result<Self, String> {
        tokens.retain(|token| !token.content.is_empty());
        let mut contents = Pieces::default();
        let mut first = [false; 256];
        for (token, number) in tokens.iter().zip(0..) {
            first[token.content.as_bytes()[0] as usize] = true;
            contents
                .push(&token.content, number)
                .ok_or("more than 4 GiB of added tokens")?;
        }
        contents.index().map_err(|error| match error {
            IndexError::Twice(number) => {
                format!(
                    "the token {:?} is there twice",
                    excerpt(contents.piece(number))
                )
            }
            IndexError::Collisions => "its tokens are made to be slow to find".to_string(),
        })?;
        Ok(Self {
            tokens,
            contents,
            first,
        })
    }

    /// Cuts `text` at the tokens. No part is empty.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        // What comes before is in `parts`.
        let mut done = 0;
        let mut at = 0;
        while at < text.len() {
            let Some(token) = self.find(&text[at..]) else {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
                continue;
            };
            let (mut start, mut end) = (at, at + token.content.len());
            at = end;
            if token.lstrip {
                start = text[..start].trim_end().len().max(done);
            }
            if token.rstrip {
                end = text.len() - text[end..].trim_start().len();
            }
            if done < start {
                parts.push(Part::Text(&text[done..start]));
            }
            parts.push(Part::Token(token.id));
            // A token that lies in white space which the one before took is found all the same, and what follows
            // it is then text again; so in `tokenizers`.
            done = end;
        }
        if done < text.len() {
            parts.push(Part::Text(&text[done..]));
        }
        parts
    }

    /// The longest token that `rest` begins with.
    fn find(&self, rest: &str) -> Option<&AddedToken> {
        if !self.first[rest.as_bytes()[0] as usize] {
            return None;
        }
        let (_, number) = self.contents.prefixes(rest).last()?;
        Some(&self.tokens[number as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(list: &[(&str, u32, bool, bool)]) -> AddedTokens {
        AddedTokens::new(
            list.iter()
                .map(|&(content, id, lstrip, rstrip)| AddedToken {
                    content: content.to_string(),
                    id,
                    lstrip,
                    rstrip,
                })
                .collect(),
        )
        .unwrap()
    }

    #[test]
    fn tokens_cut_the_text() {
        let tokens = tokens(&[("</s>", 1, false, false), ("</s>x", 7, false, false)]);
        assert_eq!(
            tokens.split("é</s></s>xy"),
            [
                Part::Text("é"),
                Part::Token(1),
                Part::Token(7),
                Part::Text("y")
            ]
        );
        assert_eq!(tokens.split(""), []);
    }

    #[test]
    fn tokens_take_the_white_space_they_ask_for() {
        let tokens = tokens(&[("<l>", 1, true, false), ("<r>", 2, false, true)]);
        assert_eq!(
            tokens.split("a  <l> b <r>  <l>  c"),
            [
                Part::Text("a"),
                Part::Token(1),
                Part::Text(" b "),
                Part::Token(2),
                Part::Token(1),
                Part::Text("  c")
            ]
        );
    }
}
