//! What is kept of a tensor in a [`Store`](super::Store): its numbers as they are held, with a checksum, and where the hash of its
//! file stood before and after it, so that a load that goes on later can still check the whole file.
//!
//! An entry is `magic, kind, row length, lengths of both states (u32 each), state before, state after, numbers, checksum`, all
//! little-endian. A torn, damaged or foreign one is as good as none.

use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest, Sha256};
use twox_hash::XxHash3_128;

use crate::kernels::Dtype;

/// Changes with the format.
const MAGIC: u32 = u32::from_le_bytes(*b"slw1");
const FIXED: usize = 5 * 4;
const CHECKSUM: usize = 16;

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

/// An entry of `kind` with rows of `input` numbers, in `count` words.
pub fn seal(
    kind: Kind,
    input: usize,
    before: &[u8],
    after: &[u8],
    count: usize,
    words: impl Iterator<Item = u32>,
) -> Vec<u8> {
    let length = FIXED + before.len() + after.len() + 4 * count + CHECKSUM;
    let mut bytes = Vec::with_capacity(length);
    let sizes = [before.len(), after.len()].map(|length| length as u32);
    for word in [MAGIC, kind.code(), input as u32, sizes[0], sizes[1]] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend_from_slice(before);
    bytes.extend_from_slice(after);
    for word in words {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(XxHash3_128::oneshot(&bytes).to_le_bytes());
    bytes
}

/// An undamaged entry.
pub struct Entry {
    /// The state of the file's hash before the tensor.
    pub before: Vec<u8>,
    /// The state of the file's hash after the tensor.
    pub after: Vec<u8>,
    /// The numbers.
    pub numbers: Vec<u8>,
}

impl Entry {
    /// Opens what [`seal`] made; none if it is anything else.
    pub fn open(mut bytes: Vec<u8>, kind: Kind, input: usize) -> Option<Self> {
        let end = bytes
            .len()
            .checked_sub(CHECKSUM)
            .filter(|end| *end >= FIXED)?;
        let (content, checksum) = bytes.split_at(end);
        if XxHash3_128::oneshot(content).to_le_bytes() != checksum {
            return None;
        }
        let word = |i: usize| {
            let bytes = content[4 * i..][..4].try_into().expect("4 bytes");
            u32::from_le_bytes(bytes)
        };
        if [word(0), word(1), word(2)] != [MAGIC, kind.code(), input as u32] {
            return None;
        }
        let (before, after) = (word(3) as usize, word(4) as usize);
        let start = FIXED.checked_add(before)?.checked_add(after)?;
        let (before, after) = (
            content.get(FIXED..FIXED + before)?.to_vec(),
            content.get(FIXED + before..start)?.to_vec(),
        );
        // In place: numbers can be large.
        bytes.truncate(end);
        bytes.drain(..start);
        Some(Self {
            before,
            after,
            numbers: bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_damage_is_found() {
        let kind = Kind::Numbers(Dtype::Q8);
        let whole = seal(kind, 7, b"before", b"after", 2, [1, 2].into_iter());
        let entry = Entry::open(whole.clone(), kind, 7).unwrap();
        assert_eq!(
            (&*entry.before, &*entry.after, &*entry.numbers),
            (&b"before"[..], &b"after"[..], &[1, 0, 0, 0, 2, 0, 0, 0][..])
        );
        for length in 0..whole.len() {
            assert!(Entry::open(whole[..length].to_vec(), kind, 7).is_none());
        }
        for i in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[i] ^= 1;
            assert!(Entry::open(damaged, kind, 7).is_none(), "byte {i}");
        }
        assert!(Entry::open(whole.clone(), Kind::Bytes, 7).is_none());
        assert!(Entry::open(whole, kind, 8).is_none());
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
