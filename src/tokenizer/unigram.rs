//! The Unigram model of SigLIP: of all ways to cut a word into pieces, the one with the highest sum of scores.

use super::pieces::{Bytes, Pieces};

/// How much lower than the lowest score an unknown character's is; sentencepiece's.
const UNKNOWN_PENALTY: f64 = 10.0;

pub(super) struct Unigram {
    pub pieces: Pieces,
    pub scores: Vec<f64>,
    pub unknown: u32,
    pub bytes: Option<Bytes>,
    unknown_score: f64,
}

/// The best way to cut the text up to some place.
#[derive(Clone)]
struct Best {
    score: f64,
    /// Where its last piece starts and which that is.
    last: Option<(usize, u32)>,
}

impl Best {
    /// Takes the way with `score` whose last piece is `last` if it is better. In a tie the first one stays.
    fn improve(&mut self, score: f64, last: (usize, u32)) {
        if self.last.is_none() || score > self.score {
            self.score = score;
            self.last = Some(last);
        }
    }
}

impl Unigram {
    /// `scores` has one for each piece; `unknown` is the number of the piece for characters without any.
    pub(super) fn new(pieces: Pieces, scores: Vec<f64>, unknown: u32, byte_fallback: bool) -> Self {
        let lowest = scores.iter().copied().fold(f64::INFINITY, f64::min);
        Self {
            bytes: byte_fallback.then(|| Bytes::new(&pieces)),
            pieces,
            scores,
            unknown,
            unknown_score: lowest - UNKNOWN_PENALTY,
        }
    }

    /// Appends the numbers of the pieces of `text`.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let unreached = Best {
            score: 0.0,
            last: None,
        };
        let mut best = vec![unreached; text.len() + 1];
        for (start, c) in text.char_indices() {
            let till_here = best[start].score;
            let mut has_piece = false;
            for (length, piece) in self.pieces.prefixes(&text[start..]) {
                let score = self.scores[piece as usize] + till_here;
                best[start + length].improve(score, (start, piece));
                has_piece |= length == c.len_utf8();
            }
            if !has_piece {
                best[start + c.len_utf8()]
                    .improve(self.unknown_score + till_here, (start, self.unknown));
            }
        }

        // From the end to the start, neighbouring unknown characters as one.
        let mut cuts: Vec<(usize, usize, u32)> = Vec::new();
        let mut end = text.len();
        while let Some((start, piece)) = best[end].last {
            match cuts.last_mut() {
                Some((first, _, previous))
                    if *previous == self.unknown && piece == self.unknown =>
                {
                    *first = start;
                }
                _ => cuts.push((start, end, piece)),
            }
            end = start;
        }
        for (start, end, piece) in cuts.into_iter().rev() {
            if piece != self.unknown {
                out.push(piece);
                continue;
            }
            // `tokenizers` looks the unknown text up as a whole: several characters can be a piece together
            // although each alone, as unknown, scored higher.
            let text = &text[start..end];
            if let Some(piece) = self.pieces.get(text) {
                out.push(piece);
            } else if let Some(spelt) = self.bytes.as_ref().and_then(|bytes| bytes.spell(text)) {
                out.extend(spelt);
            } else {
                out.push(self.unknown);
            }
        }
    }
}
