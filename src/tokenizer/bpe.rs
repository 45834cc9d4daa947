//! The BPE model of SigLIP 2: characters, of which neighbours are merged in the order of the list of merges.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::pieces::{Bytes, Pieces};

pub(super) struct Bpe {
    pub pieces: Pieces,
    merges: Merges,
    pub unknown: Option<u32>,
    pub fuse_unknown: bool,
    pub bytes: Option<Bytes>,
    /// Whether text that is a piece as a whole is taken as it is.
    pub ignore_merges: bool,
}

/// Which neighbours are merged, by the numbers of their pieces.
#[derive(Default)]
pub(super) struct Merges(Vec<Merge>);

/// The list is sorted by `pair`.
struct Merge {
    /// `left << 32 | right`
    pair: u64,
    /// The place in the list of the file: the lowest is merged first.
    rank: u32,
    piece: u32,
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl Merges {
    /// `merges` are the left, the right and the merged piece, in the order of the file. Where a pair is there twice, the later one counts.
    pub(super) fn new(merges: Vec<[u32; 3]>) -> Self {
        let merges = merges.into_iter().zip(0..);
        let merges = merges.map(|([left, right, piece], rank)| Merge {
            pair: pair(left, right),
            rank,
            piece,
        });
        let mut merges: Vec<_> = merges.collect();
        merges.sort_unstable_by_key(|merge| (merge.pair, Reverse(merge.rank)));
        merges.dedup_by_key(|merge| merge.pair);
        Self(merges)
    }

    fn get(&self, left: u32, right: u32) -> Option<&Merge> {
        let at = self.0.binary_search_by_key(&pair(left, right), |m| m.pair);
        Some(&self.0[at.ok()?])
    }
}

/// A piece of the text being merged. Merged ones leave a hole, so that places keep their meaning.
struct Symbol {
    piece: u32,
    previous: Option<usize>,
    next: Option<usize>,
    gone: bool,
}

impl Bpe {
    pub(super) fn new(
        pieces: Pieces,
        merges: Merges,
        unknown: Option<u32>,
        fuse_unknown: bool,
        byte_fallback: bool,
        ignore_merges: bool,
    ) -> Self {
        Self {
            bytes: byte_fallback.then(|| Bytes::new(&pieces)),
            pieces,
            merges,
            unknown,
            fuse_unknown,
            ignore_merges,
        }
    }

    /// Appends the numbers of the pieces of `text`.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) {
        if self.ignore_merges
            && let Some(piece) = self.pieces.get(text)
        {
            out.push(piece);
            return;
        }
        out.extend(self.merge(&self.characters(text)));
    }

    /// The pieces that `text` starts from.
    fn characters(&self, text: &str) -> Vec<u32> {
        let mut pieces = Vec::with_capacity(text.len());
        let mut pending = None;
        for (at, c) in text.char_indices() {
            let c = &text[at..at + c.len_utf8()];
            if let Some(piece) = self.pieces.get(c) {
                pieces.extend(pending.take());
                pieces.push(piece);
            } else if let Some(spelt) = self.bytes.as_ref().and_then(|bytes| bytes.spell(c)) {
                // As `tokenizers` does, which lets bytes overtake an unknown character before them.
                pieces.extend(spelt);
            } else if let Some(unknown) = self.unknown {
                if !self.fuse_unknown {
                    pieces.extend(pending);
                }
                pending = Some(unknown);
            }
        }
        pieces.extend(pending);
        pieces
    }

    /// Merges neighbours until no merge is left, the one of lowest rank and then the leftmost first.
    fn merge(&self, pieces: &[u32]) -> impl Iterator<Item = u32> {
        let mut symbols: Vec<_> = pieces
            .iter()
            .enumerate()
            .map(|(at, &piece)| Symbol {
                piece,
                previous: at.checked_sub(1),
                next: Some(at + 1).filter(|&next| next < pieces.len()),
                gone: false,
            })
            .collect();
        let candidate = |at: usize, left: u32, right: u32| {
            let merge = self.merges.get(left, right)?;
            Some(Reverse((merge.rank, at, merge.piece)))
        };
        let mut queue: BinaryHeap<_> = (pieces.windows(2).enumerate())
            .filter_map(|(at, pair)| candidate(at, pair[0], pair[1]))
            .collect();
        while let Some(Reverse((_, at, merged))) = queue.pop() {
            let symbol = &symbols[at];
            let Some(right) = symbol.next.filter(|_| !symbol.gone) else {
                continue;
            };
            // One of the two may have been merged since; `tokenizers` asks whether the result is still the same.
            let now = self.merges.get(symbol.piece, symbols[right].piece);
            if now.is_none_or(|merge| merge.piece != merged) {
                continue;
            }
            let next = symbols[right].next;
            symbols[right].gone = true;
            if let Some(next) = next {
                symbols[next].previous = Some(at);
                queue.extend(candidate(at, merged, symbols[next].piece));
            }
            symbols[at].piece = merged;
            symbols[at].next = next;
            if let Some(previous) = symbols[at].previous {
                queue.extend(candidate(previous, symbols[previous].piece, merged));
            }
        }
        symbols
            .into_iter()
            .filter(|symbol| !symbol.gone)
            .map(|symbol| symbol.piece)
    }
}
