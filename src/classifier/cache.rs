//! A small cache by content: what was computed last is kept, what was used longest ago goes.

use std::collections::{BTreeMap, HashMap};

use twox_hash::XxHash3_128;

use super::Embedding;

/// A key for these parts, in this order. 128 bits: two different contents don't meet.
pub fn key(parts: &[&[u8]]) -> u128 {
    let mut hasher = XxHash3_128::new();
    for part in parts {
        // Lengths keep ["ab", "c"] and ["a", "bc"] apart.
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
    hasher.finish_128()
}

/// What an entry takes beside its numbers: keys, ages and what maps hold free.
const OVERHEAD: usize = 128;

fn size(embedding: &Embedding) -> usize {
    OVERHEAD + size_of_val(embedding.as_slice())
}

/// Embeddings of at most so many bytes together.
pub struct Cache {
    limit: usize,
    bytes: usize,
    clock: u64,
    entries: HashMap<u128, (u64, Embedding)>,
    /// Keys by when they were used last.
    ages: BTreeMap<u64, u128>,
}

impl Cache {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: 0,
            clock: 0,
            entries: HashMap::new(),
            ages: BTreeMap::new(),
        }
    }

    pub fn contains(&self, key: u128) -> bool {
        self.entries.contains_key(&key)
    }

    pub fn get(&mut self, key: u128) -> Option<&Embedding> {
        let (used, embedding) = self.entries.get_mut(&key)?;
        self.ages.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.ages.insert(self.clock, key);
        Some(embedding)
    }

    pub fn put(&mut self, key: u128, embedding: Embedding) {
        self.remove(key);
        if size(&embedding) > self.limit {
            return;
        }
        while self.bytes + size(&embedding) > self.limit
            && let Some((_, oldest)) = self.ages.first_key_value()
        {
            self.remove(*oldest);
        }
        self.clock += 1;
        self.bytes += size(&embedding);
        self.ages.insert(self.clock, key);
        self.entries.insert(key, (self.clock, embedding));
    }

    fn remove(&mut self, key: u128) {
        if let Some((used, embedding)) = self.entries.remove(&key) {
            self.ages.remove(&used);
            self.bytes -= size(&embedding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room for `count` embeddings of one number.
    fn room_for(count: usize) -> Cache {
        Cache::new(count * size(&vec![0.0]))
    }

    fn kept(cache: &mut Cache, key: u128) -> Option<f32> {
        cache.get(key).map(|embedding| embedding[0])
    }

    #[test]
    fn keeps_what_was_used_last() {
        let mut cache = room_for(2);
        cache.put(1, vec![0.1]);
        cache.put(2, vec![0.2]);
        assert_eq!(kept(&mut cache, 1), Some(0.1));
        cache.put(3, vec![0.3]);
        assert_eq!(kept(&mut cache, 2), None);
        assert_eq!(kept(&mut cache, 1), Some(0.1));
        assert_eq!(kept(&mut cache, 3), Some(0.3));
    }

    #[test]
    fn replacing_a_value_drops_no_other() {
        let mut cache = room_for(2);
        cache.put(1, vec![0.1]);
        cache.put(2, vec![0.2]);
        cache.put(2, vec![0.3]);
        assert_eq!(
            (kept(&mut cache, 1), kept(&mut cache, 2)),
            (Some(0.1), Some(0.3))
        );
    }

    #[test]
    fn bytes_are_what_is_limited() {
        let mut cache = Cache::new(4 * size(&vec![0.0; 100]));
        for key in 0..100 {
            cache.put(key, vec![0.0; 100]);
        }
        let kept = (0..100).filter(|key| cache.contains(*key));
        assert_eq!(kept.collect::<Vec<_>>(), [96, 97, 98, 99]);
        // One that takes half of it all, and one that takes more than there is.
        cache.put(100, vec![0.0; 250]);
        assert!(cache.contains(100) && !cache.contains(96) && cache.bytes <= cache.limit);
        cache.put(101, vec![0.0; 1000]);
        assert!(!cache.contains(101) && cache.contains(100));
    }

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
        assert_eq!(key(&[b"ab", b"c"]), key(&[b"ab", b"c"]));
    }
}
