//! Sentencepiece's precompiled character map, applied as sentencepiece applies it.
//!
//! The `tokenizers` library has a `Precompiled` normalizer for it, which looks up whole graphemes and takes the
//! shortest match: from a letter with two accents it drops the second, and a label that starts with
//! a combining mark loses it. The ids then differ from those the model was trained with.

use base64::Engine as _;

/// `[u32: bytes of trie][trie: u32…][replacements, each ended by \0]`, where the trie is a darts-clone
/// double array from bytes to offsets into the replacements.
pub(super) struct Charsmap {
    trie: Vec<u32>,
    replacements: String,
    longest: usize,
}

impl Charsmap {
    /// Reads the map from base64, as `tokenizer.json` holds it.
    pub(super) fn from_base64(base64: &str) -> Result<Self, &'static str> {
        let damaged = "its character map is damaged";
        let map = base64::engine::general_purpose::STANDARD
            .decode(base64)
            .map_err(|_| damaged)?;
        Self::from_bytes(&map).ok_or(damaged)
    }

    /// Reads the map as sentencepiece writes it.
    pub(super) fn from_bytes(map: &[u8]) -> Option<Self> {
        let (size, rest) = map.split_first_chunk::<4>()?;
        let size = u32::from_le_bytes(*size) as usize;
        if !size.is_multiple_of(4) || size > rest.len() {
            return None;
        }
        let (trie, replacements) = rest.split_at(size);
        let longest = replacements.split(|&byte| byte == 0).map(<[u8]>::len);
        Some(Self {
            longest: longest.max().unwrap_or(0).max(1),
            trie: trie
                .chunks_exact(4)
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            replacements: String::from_utf8(replacements.to_vec()).ok()?,
        })
    }

    /// Bytes of the longest replacement, at least 1.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// `text` cut at the longest match at each position, each part with what it is replaced by; what has no match stays.
    pub(super) fn replacements<'a>(
        &'a self,
        text: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = text;
        std::iter::from_fn(move || {
            let c = rest.chars().next()?;
            // A match ends at a character, as every key of the map is a string.
            let (replacement, length) = self
                .longest_match(rest.as_bytes())
                .filter(|&(_, length)| rest.is_char_boundary(length))
                .unwrap_or((&rest[..c.len_utf8()], c.len_utf8()));
            let (part, after) = rest.split_at(length);
            rest = after;
            Some((part, replacement))
        })
    }

    /// `text` with every replacement made.
    pub(super) fn apply(&self, text: &str) -> String {
        self.replacements(text).map(|(_, new)| new).collect()
    }

    /// The replacement for the longest key that `bytes` starts with, and that key's length.
    fn longest_match(&self, bytes: &[u8]) -> Option<(&str, usize)> {
        let offset = |unit: u32| (unit >> 10) << ((unit & (1 << 9)) >> 6);
        let unit = |at: u32| self.trie.get(at as usize).copied();
        let mut at = offset(unit(0)?);
        let mut longest = None;
        for (i, &byte) in bytes.iter().enumerate() {
            at ^= u32::from(byte);
            let Some(node) = unit(at).filter(|node| node & (1 << 31 | 0xff) == u32::from(byte))
            else {
                break;
            };
            at ^= offset(node);
            if node >> 8 & 1 == 1 {
                longest = unit(at).map(|leaf| (leaf & !(1 << 31), i + 1));
            }
        }
        let (start, length) = longest?;
        let replacement = self.replacements.get(start as usize..)?;
        Some((replacement.split('\0').next()?, length))
    }
}
