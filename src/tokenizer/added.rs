//! Special tokens that stand in a label literally.

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

/// Tokens to be found in a text: the leftmost first, and of several at one place the longest.
pub(super) struct AddedTokens {
    tokens: Vec<AddedToken>,
    /// The bytes that a token begins with.
    first: [bool; 256],
}

impl AddedTokens {
    /// Tokens without content are left out.
    pub(super) fn new(mut tokens: Vec<AddedToken>) -> Self {
        tokens.retain(|token| !token.content.is_empty());
        let mut first = [false; 256];
        for token in &tokens {
            first[token.content.as_bytes()[0] as usize] = true;
        }
        Self { tokens, first }
    }

    pub(super) fn tokens(&self) -> &[AddedToken] {
        &self.tokens
    }

    /// Cuts `text` at the tokens. No part is empty.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        // What comes before is in `parts`.
        let mut done = 0;
        let mut at = 0;
        while at < text.len() {
            let Some(token) = self.find(&text.as_bytes()[at..]) else {
                at += 1;
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

    fn find(&self, rest: &[u8]) -> Option<&AddedToken> {
        if !self.first[rest[0] as usize] {
            return None;
        }
        self.tokens
            .iter()
            .filter(|token| rest.starts_with(token.content.as_bytes()))
            .max_by_key(|token| token.content.len())
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
