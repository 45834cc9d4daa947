//! Search for the page: `www/lib/index` keeps the files and says what each row is.

use wasm_bindgen::prelude::*;

use super::values::to_js;
use crate::preprocess;
use crate::search::{CHUNK, Candidates, MARGIN, PIPELINE, Question, Rows, checksum};

/// Rows of embeddings, and the question that is being answered.
#[wasm_bindgen]
pub struct Search {
    rows: Rows,
    question: Option<(Question, Candidates)>,
}

#[wasm_bindgen]
impl Search {
    /// No rows yet, of embeddings with `size` numbers.
    #[wasm_bindgen(constructor)]
    pub fn new(size: usize) -> Search {
        Search {
            rows: Rows::new(size),
            question: None,
        }
    }

    /// [`PIPELINE`].
    #[wasm_bindgen(getter)]
    pub fn pipeline(&self) -> u32 {
        PIPELINE
    }

    /// Bytes of a row.
    #[wasm_bindgen(getter)]
    pub fn stride(&self) -> usize {
        self.rows.stride()
    }

    /// Rows whose memory lies together.
    #[wasm_bindgen(getter)]
    pub fn chunk(&self) -> usize {
        CHUNK
    }

    /// Free rows up to `count` in all, or fewer than there were.
    pub fn resize(&mut self, count: usize) {
        self.rows.resize(count);
    }

    /// Where the rows from `chunk · i` on are in this module's memory, to be read from a file.
    pub fn address(&mut self, i: usize) -> *mut u8 {
        self.rows.chunk(i).as_mut_ptr()
    }

    /// Rounds an embedding into a row, and gives its checksum.
    pub fn set(&mut self, row: usize, embedding: &[f32]) -> f64 {
        self.rows.set(row, embedding) as f64
    }

    /// A row's bytes, as they are kept.
    pub fn row(&self, row: usize) -> Vec<u8> {
        self.rows.row(row).to_vec()
    }

    /// Makes a row free.
    #[wasm_bindgen(js_name = freeRow)]
    pub fn free_row(&mut self, row: usize) {
        self.rows.free(row);
    }

    /// The checksum of each row's embedding from row `first` on; −1 for free and damaged ones.
    pub fn sums(&self, first: usize) -> Vec<f64> {
        let rows = first..self.rows.len();
        rows.map(|row| self.rows.sum(row).map_or(-1.0, |sum| sum as f64))
            .collect()
    }

    /// The checksums of embeddings, one after the other.
    pub fn checksums(&self, embeddings: &[f32]) -> Vec<f64> {
        let rows = embeddings.chunks_exact(self.rows.size());
        rows.map(|row| checksum(bytemuck::cast_slice(row)) as f64)
            .collect()
    }

    /// The rows that may be among the `limit` best answers, the likeliest first: `words` are the texts' embeddings, one after the other, `minus` is 1 for those that must not
    /// fit, `pictures` the vector to be like.
    pub fn ask(
        &mut self,
        words: &[f32],
        minus: &[u8],
        pictures: Option<Vec<f32>>,
        scale: f64,
        bias: f64,
        limit: usize,
    ) -> Vec<u32> {
        let words = words.chunks_exact(self.rows.size()).zip(minus);
        let question = Question {
            words: words.map(|(word, m)| (word.to_vec(), *m != 0)).collect(),
            pictures,
            scale,
            bias,
        };
        let candidates = question.candidates(&self.rows, limit.saturating_add(MARGIN));
        let rows = candidates.rows.iter().map(|row| *row as u32).collect();
        self.question = Some((question, candidates));
        rows
    }

    /// The answer to what was asked last, from the embeddings of the rows that `ask` gave, in that order: row, score, logit and cosine of each, the best
    /// first. A row whose embedding isn't the one that was put there is left out.
    pub fn answer(&mut self, embeddings: &[f32]) -> Vec<f64> {
        let Some((question, candidates)) = self.question.take() else {
            return Vec::new();
        };
        let size = self.rows.size();
        let sound: std::collections::HashMap<usize, &[f32]> = (candidates.rows.iter().copied())
            .zip(embeddings.chunks_exact(size))
            .filter(|(row, embedding)| {
                self.rows.sum(*row) == Some(checksum(bytemuck::cast_slice(embedding)))
            })
            .collect();
        let found = question.rank(&candidates, |row| sound.get(&row).copied());
        let numbers = |found: crate::search::Found| {
            [found.row as f64, found.score, found.logit, found.cosine]
        };
        found.into_iter().flat_map(numbers).collect()
    }
}

/// An encoded picture, decoded and resized to the model's input: `side · side` pixels of 4 bytes (red, green, blue, 255). The engine's result for it is that of
/// the file, and others than the engine's thread can do this part of the work.
#[wasm_bindgen]
pub fn shrink(picture: &[u8], side: u32, resample: u8) -> Result<Vec<u8>, JsValue> {
    preprocess::decode(picture)
        .and_then(|image| image.resize_with(resample, side, side))
        .map(|image| image.to_rgba())
        .map_err(to_js)
}

/// Where the sound lines of a log are: begin and end of each, in bytes. A line is its checksum in 13 hexadecimal digits, a space, and what the checksum is of.
#[wasm_bindgen(js_name = soundLines)]
pub fn sound_lines(log: &[u8]) -> Vec<u32> {
    let mut places = Vec::new();
    let mut from = 0;
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        let whole = line.strip_suffix(b"\n");
        if let Some((sum, text)) = whole.and_then(|line| line.split_at_checked(LINE_SUM + 1))
            && number(sum) == Some(checksum(text))
        {
            let begin = from + LINE_SUM + 1;
            places.extend([begin as u32, (begin + text.len()) as u32]);
        }
        from += line.len();
    }
    places
}

/// What hexadecimal digits and a space say.
fn number(sum: &[u8]) -> Option<u64> {
    let (space, digits) = sum.split_last()?;
    let digit = |digit: &u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut digits = digits.iter();
    let number = digits.try_fold(0, |number, next| {
        Some(number << 4 | u64::from(digit(next)?))
    })?;
    (*space == b' ').then_some(number)
}

/// Digits of a line's checksum.
const LINE_SUM: usize = 13;

/// The checksum of a line's text.
#[wasm_bindgen(js_name = lineSum)]
pub fn line_sum(text: &[u8]) -> String {
    format!("{:0LINE_SUM$x}", checksum(text))
}
