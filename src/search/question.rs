//! What is looked for, and in which order pictures answer it.

use super::Rows;

/// Words and pictures to look for, as unit vectors.
#[derive(Clone, Debug)]
pub struct Question {
    /// The embedding of each text, and whether pictures that it describes come last.
    pub words: Vec<(Vec<f32>, bool)>,
    /// The mean of pictures to be like, less that of those not to be like.
    pub pictures: Option<Vec<f32>>,
    /// `exp(logit_scale)` of the model.
    pub scale: f64,
    /// The model's `logit_bias`.
    pub bias: f64,
}

/// The rows that may be the best ones.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// Which they are, the likeliest first.
    pub rows: Vec<usize>,
    /// How the words' and the pictures' parts are spread over all rows.
    spreads: [Spread; 2],
}

/// A row that was scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Which it is.
    pub row: usize,
    /// The probability that the picture shows all words but the minus ones; without words the cosine, at least 0.
    pub score: f64,
    /// The score's log-odds; without words what the model's scale and bias make of the cosine.
    pub logit: f64,
    /// With the pictures; without any the mean over plus words.
    pub cosine: f64,
}

/// Mean and standard deviation.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    mean: f64,
    deviation: f64,
}

impl Spread {
    fn of(values: impl ExactSizeIterator<Item = f64> + Clone) -> Self {
        let count = values.len().max(1) as f64;
        let mean = values.clone().sum::<f64>() / count;
        let squares: f64 = values.map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / count).sqrt();
        Self { mean, deviation }
    }

    /// In standard deviations above the mean.
    fn standard(self, value: f64) -> f64 {
        match self.deviation > 0.0 {
            true => (value - self.mean) / self.deviation,
            false => 0.0,
        }
    }
}

/// What a picture's cosines come to.
#[derive(Clone, Copy)]
struct Parts {
    /// Logarithm of the probability that it shows the words.
    chance: f64,
    /// With the pictures.
    likeness: f64,
}

impl Question {
    /// The `count` rows with the greatest estimates.
    pub fn candidates(&self, rows: &Rows, count: usize) -> Candidates {
        let words: Vec<_> = self.words.iter().map(|(w, _)| rows.estimates(w)).collect();
        let pictures = self.pictures.as_deref().map(|p| rows.estimates(p));
        let free = |row: usize| {
            let first = words.first().or(pictures.as_ref());
            first.is_none_or(|estimates| estimates[row] == f32::NEG_INFINITY)
        };
        let likeness = |row: usize| pictures.as_ref().map_or(0.0, |all| f64::from(all[row]));
        let parts = |row: usize| Parts {
            chance: self.chance(words.iter().map(|all| f64::from(all[row]))),
            likeness: likeness(row),
        };
        let taken = (0..rows.len()).filter(|row| !free(*row));
        let mut spreads = Default::default();
        let mut best = Best::new(count);
        match (&self.words[..], &pictures) {
            // The order of cosines is that of probabilities, and costs no logarithms.
            ([(_, minus)], None) => {
                let sign = if *minus { -1.0 } else { 1.0 };
                taken.for_each(|row| best.offer(sign * f64::from(words[0][row]), row));
            }
            _ if self.is_mixed() => {
                // The spreads are of all, so they come before any is ordered.
                let all: Vec<(usize, Parts)> = taken.map(|row| (row, parts(row))).collect();
                spreads = [
                    Spread::of(all.iter().map(|(_, parts)| parts.chance)),
                    Spread::of(all.iter().map(|(_, parts)| parts.likeness)),
                ];
                for (row, parts) in all {
                    best.offer(self.order(parts, spreads), row);
                }
            }
            _ => taken.for_each(|row| best.offer(self.order(parts(row), spreads), row)),
        }
        Candidates {
            rows: best.into_rows(),
            spreads,
        }
    }

    /// Scores candidates, the best first; of equal ones the earlier row first. Those whose embedding `embedding` doesn't have are left out.
    pub fn rank<'a>(
        &self,
        candidates: &Candidates,
        embedding: impl Fn(usize) -> Option<&'a [f32]>,
    ) -> Vec<Found> {
        let mut found: Vec<(f64, Found)> = (candidates.rows.iter())
            .filter_map(|row| Some((*row, embedding(*row)?)))
            .map(|(row, embedding)| self.found(row, embedding, candidates.spreads))
            .collect();
        found.sort_by(|(a, x), (b, y)| b.total_cmp(a).then(x.row.cmp(&y.row)));
        found.into_iter().map(|(_, found)| found).collect()
    }

    fn found(&self, row: usize, embedding: &[f32], spreads: [Spread; 2]) -> (f64, Found) {
        let cosines: Vec<f64> = self.words.iter().map(|(w, _)| dot(w, embedding)).collect();
        let likeness = self.pictures.as_deref().map(|p| dot(p, embedding));
        let chance = self.chance(cosines.iter().copied());
        let plus = cosines.iter().zip(&self.words).filter(|(_, (_, m))| !m);
        let mean = plus.clone().map(|(c, _)| c).sum::<f64>() / plus.count().max(1) as f64;
        let cosine = likeness.unwrap_or(mean);
        let (logit, score) = match (&self.words[..], &cosines[..]) {
            ([], _) => (self.logit(cosine), cosine.max(0.0)),
            ([(_, minus)], [cosine]) => {
                let logit = self.logit(*cosine) * if *minus { -1.0 } else { 1.0 };
                (logit, 1.0 / (1.0 + (-logit).exp()))
            }
            _ => (chance - (-chance.exp_m1()).ln(), chance.exp()),
        };
        let order = match (&self.words[..], likeness) {
            ([_], None) => logit,
            _ => {
                let likeness = likeness.unwrap_or(0.0);
                self.order(Parts { chance, likeness }, spreads)
            }
        };
        let found = Found {
            row,
            score,
            logit,
            cosine,
        };
        (order, found)
    }

    /// Whether there are both words and pictures. How far apart cosines lie differs between the two: each part counts in its standard deviations.
    fn is_mixed(&self) -> bool {
        !self.words.is_empty() && self.pictures.is_some()
    }

    /// What rows are ordered by.
    fn order(&self, parts: Parts, [chances, likenesses]: [Spread; 2]) -> f64 {
        if self.is_mixed() {
            chances.standard(parts.chance) + likenesses.standard(parts.likeness)
        } else if self.pictures.is_some() {
            parts.likeness
        } else {
            parts.chance
        }
    }

    fn logit(&self, cosine: f64) -> f64 {
        self.scale * cosine + self.bias
    }

    /// Logarithm of the probability that all plus words fit and no minus one does.
    fn chance(&self, cosines: impl Iterator<Item = f64>) -> f64 {
        let each = self.words.iter().zip(cosines).map(|((_, minus), cosine)| {
            let logit = self.logit(cosine) * if *minus { -1.0 } else { 1.0 };
            logit.min(0.0) - (-logit.abs()).exp().ln_1p()
        });
        each.sum()
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum()
}

/// The greatest of many.
struct Best {
    count: usize,
    /// At most twice as many as wanted: then the lesser half goes.
    list: Vec<(f64, usize)>,
    /// What is not above this is none of them.
    least: f64,
}

impl Best {
    fn new(count: usize) -> Self {
        Self {
            count,
            list: Vec::new(),
            least: f64::NEG_INFINITY,
        }
    }

    fn offer(&mut self, value: f64, row: usize) {
        if value > self.least {
            self.list.push((value, row));
            if self.list.len() >= 2 * self.count.max(32) {
                self.shorten();
            }
        }
    }

    fn shorten(&mut self) {
        if self.list.len() > self.count && self.count > 0 {
            let last = self.count - 1;
            let (_, least, _) = self
                .list
                .select_nth_unstable_by(last, |(a, x), (b, y)| b.total_cmp(a).then(x.cmp(y)));
            self.least = least.0;
        }
        self.list.truncate(self.count);
    }

    fn into_rows(mut self) -> Vec<usize> {
        self.shorten();
        self.list
            .sort_by(|(a, x), (b, y)| b.total_cmp(a).then(x.cmp(y)));
        self.list.into_iter().map(|(_, row)| row).collect()
    }
}
