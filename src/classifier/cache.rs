//! A small cache by content: what was computed last is kept, what was used longest ago goes.

use std::collections::HashMap;

use twox_hash::XxHash3_128;

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

/// At most `capacity` values.
pub struct Cache<V> {
    capacity: usize,
    clock: u64,
    entries: HashMap<u128, (u64, V)>,
}

impl<V> Cache<V> {
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            clock: 0,
            entries: HashMap::new(),
        }
    }

    pub fn get(&mut self, key: u128) -> Option<&V> {
        self.clock += 1;
        let (used, value) = self.entries.get_mut(&key)?;
        *used = self.clock;
        Some(value)
    }

    pub fn put(&mut self, key: u128, value: V) {
        if self.entries.len() >= self.capacity
            && !self.entries.contains_key(&key)
            && let Some(oldest) = self
                .entries
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(key, _)| *key)
        {
            self.entries.remove(&oldest);
        }
        self.clock += 1;
        self.entries.insert(key, (self.clock, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_was_used_last() {
        let mut cache = Cache::new(2);
        cache.put(1, 'a');
        cache.put(2, 'b');
        assert_eq!(cache.get(1), Some(&'a'));
        cache.put(3, 'c');
        assert_eq!(cache.get(2), None);
        assert_eq!(cache.get(1), Some(&'a'));
        assert_eq!(cache.get(3), Some(&'c'));
    }

    #[test]
    fn replacing_a_value_drops_no_other() {
        let mut cache = Cache::new(2);
        cache.put(1, 'a');
        cache.put(2, 'b');
        cache.put(2, 'c');
        assert_eq!(
            (cache.get(1).copied(), cache.get(2).copied()),
            (Some('a'), Some('c'))
        );
    }

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
        assert_eq!(key(&[b"ab", b"c"]), key(&[b"ab", b"c"]));
    }
}
