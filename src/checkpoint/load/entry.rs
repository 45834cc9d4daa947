//! What is kept of a tensor in a [`Store`](crate::checkpoint::Store): its numbers as they are held, with a checksum, and where the hash of its
//! file stood before and after it, so that a load that goes on later can still check the whole file.
//!
//! An entry is `magic, kind, row length, lengths of both states (u32 each), state before, state after, numbers, checksum`, all
//! little-endian, each state filled up with zeros to whole words; the checksum is also of the key that the entry is put under.
//! So it can be read into the very words that the numbers will live in: a model that comes from the store needs no memory beside its weights.
//! A torn, damaged or foreign entry is as good as none.

use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest, Sha256};
use twox_hash::XxHash3_128;

use crate::kernels::Dtype;

/// Format of an entry, with its version as the last byte. Raise it when entries of the old version would be read wrongly.
const MAGIC: u32 = u32::from_le_bytes(*b"slw4");
/// Words before the states.
const FIXED: usize = 5;
/// Words after the numbers.
const CHECKSUM: usize = 4;

/// The running hash of a file that is read in order; none once something was left out.
#[derive(Clone)]
pub struct FileHash(Option<Sha256>);

impl FileHash {
    /// Before the first byte.
    pub fn new() -> Self {
        Self(Some(Sha256::new()))
    }

    /// Of a file that is not read whole.
    pub fn none() -> Self {
        Self(None)
    }

    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(hash) = &mut self.0 {
            hash.update(bytes);
        }
    }

    /// What goes into an entry; empty for none.
    pub fn state(&self) -> Vec<u8> {
        self.0
            .as_ref()
            .map_or_else(Vec::new, |hash| hash.serialize().to_vec())
    }

    /// Back from [`state`](Self::state).
    pub fn resume(state: &[u8]) -> Option<Self> {
        if state.is_empty() {
            return Some(Self(None));
        }
        let state = state.try_into().ok()?;
        Sha256::deserialize(&state)
            .ok()
            .map(|hash| Self(Some(hash)))
    }

    /// In lower-case hexadecimal, after the last byte.
    pub fn finish(self) -> Option<String> {
        let hash = self.0?.finalize();
        Some(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, for example a header.
    Bytes,
    /// Numbers held so.
    Numbers(Dtype),
}

impl Kind {
    fn code(self) -> u32 {
        match self {
            Kind::Bytes => 0,
            Kind::Numbers(Dtype::F32) => 1,
            Kind::Numbers(Dtype::F16) => 2,
            Kind::Numbers(Dtype::Q8) => 3,
            Kind::Numbers(Dtype::Q4) => 4,
        }
    }
}

/// An entry to put into a store, its numbers where they are.
pub struct Sealed<'a> {
    /// What comes before the numbers.
    head: Vec<u8>,
    numbers: &'a [u8],
    checksum: [u8; 4 * CHECKSUM],
}

impl Sealed<'_> {
    /// What the entry is made of, in order.
    pub fn parts(&self) -> [&[u8]; 3] {
        [&self.head, self.numbers, &self.checksum]
    }
}

/// The entry of `kind` with rows of `input` numbers that is put under `key`.
pub fn seal<'a>(
    key: &str,
    kind: Kind,
    input: usize,
    before: &[u8],
    after: &[u8],
    words: &'a [u32],
) -> Sealed<'a> {
    let states = [before, after];
    let sizes = states.map(|state| state.len() as u32);
    let fixed: [u32; FIXED] = [MAGIC, kind.code(), input as u32, sizes[0], sizes[1]];
    let mut head = bytemuck::cast_slice(&fixed).to_vec();
    for state in states {
        head.extend_from_slice(state);
        head.resize(head.len().next_multiple_of(4), 0);
    }
    let numbers = bytemuck::cast_slice(words);
    Sealed {
        checksum: checksum(key, &[&head, numbers]),
        head,
        numbers,
    }
}

/// Of the key too: an entry that came under another one is the wrong tensor.
fn checksum(key: &str, parts: &[&[u8]]) -> [u8; 4 * CHECKSUM] {
    let mut hash = XxHash3_128::new();
    hash.write(key.as_bytes());
    for part in parts {
        hash.write(part);
    }
    hash.finish_128().to_le_bytes()
}

/// An undamaged entry.
pub struct Entry {
    /// The state of the file's hash before the tensor.
    pub before: Vec<u8>,
    /// The state of the file's hash after the tensor.
    pub after: Vec<u8>,
    /// The numbers.
    pub words: Vec<u32>,
}

impl Entry {
    /// Opens what [`seal`] made for this key; none if it is anything else.
    pub fn open(key: &str, mut words: Vec<u32>, kind: Kind, input: usize) -> Option<Self> {
        let end = words
            .len()
            .checked_sub(CHECKSUM)
            .filter(|end| *end >= FIXED)?;
        let (content, sum) = bytemuck::cast_slice::<u32, u8>(&words).split_at(4 * end);
        if checksum(key, &[content]) != sum {
            return None;
        }
        if words[..3] != [MAGIC, kind.code(), input as u32] {
            return None;
        }
        let mut start = 4 * FIXED;
        let mut state = |length: u32| {
            let state = content.get(start..start.checked_add(length as usize)?)?;
            start += state.len().next_multiple_of(4);
            Some(state.to_vec())
        };
        let (before, after) = (state(words[3])?, state(words[4])?);
        if start > content.len() {
            return None;
        }
        // In place: there may be no room for them twice.
        words.truncate(end);
        words.drain(..start / 4);
        Some(Self {
            before,
            after,
            words,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::ports::words_of;

    #[test]
    fn any_damage_is_found() {
        let kind = Kind::Numbers(Dtype::Q8);
        let whole = seal("key", kind, 7, b"before", b"after", &[1, 2]);
        let whole = whole.parts().concat();
        let open = |bytes: &[u8], kind, input| Entry::open("key", words_of(bytes)?, kind, input);
        let entry = open(&whole, kind, 7).unwrap();
        assert_eq!(
            (&*entry.before, &*entry.after, &*entry.words),
            (&b"before"[..], &b"after"[..], &[1, 2][..])
        );
        for length in 0..whole.len() {
            assert!(open(&whole[..length], kind, 7).is_none());
        }
        for i in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[i] ^= 1;
            assert!(open(&damaged, kind, 7).is_none(), "byte {i}");
        }
        assert!(open(&whole, Kind::Bytes, 7).is_none());
        assert!(open(&whole, kind, 8).is_none());
        assert!(Entry::open("another", words_of(&whole).unwrap(), kind, 7).is_none());
    }

    #[test]
    fn the_numbers_stay_where_they_were_read() {
        let (state, kind) = ([7; 121], Kind::Numbers(Dtype::F32));
        let numbers: Vec<u32> = (0..1000).collect();
        let whole = seal("key", kind, 1000, &state, &state, &numbers)
            .parts()
            .concat();
        let words = words_of(&whole).unwrap();
        let (address, capacity) = (words.as_ptr(), words.capacity());
        let entry = Entry::open("key", words, kind, 1000).unwrap();
        assert_eq!(entry.words, numbers);
        assert_eq!(
            (entry.words.as_ptr(), entry.words.capacity()),
            (address, capacity)
        );
    }

    #[test]
    fn a_hash_goes_on_from_its_state() {
        let mut whole = FileHash::new();
        whole.update(&[7; 100]);
        let mut resumed = FileHash::resume(&whole.state()).unwrap();
        for hash in [&mut whole, &mut resumed] {
            hash.update(b"abc");
        }
        assert_eq!(whole.state(), resumed.state());
        let expected = whole.finish().unwrap();
        assert_eq!(resumed.finish().unwrap(), expected);
        let mut abc = FileHash::new();
        abc.update(b"abc");
        assert_eq!(
            abc.finish().unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(FileHash::none().finish().is_none());
        assert!(FileHash::resume(b"nonsense").is_none());
    }
}
