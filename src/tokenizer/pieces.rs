//! A vocabulary in a handful of allocations: 256 000 pieces as 256 000 strings would fill a tab's memory with headers.

/// The pieces, numbered in the order of their file, and their ids.
#[derive(Default)]
pub(super) struct Pieces {
    /// All pieces, one after the other.
    text: String,
    /// Where each piece ends in `text`.
    ends: Vec<u32>,
    ids: Vec<u32>,
    /// Open addressing: the number of a piece plus one, or 0. A power of two of them, at least half of them 0.
    slots: Vec<u32>,
    /// Bytes of the longest piece.
    longest: usize,
}

/// Slots that a piece may be away from its own, on average. It is one where pieces are what people write; only pieces that were made to
/// collide need more, and would take hours.
const MOST_STEPS: usize = 32;

/// Why pieces can't be indexed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum IndexError {
    /// The piece with this number is there twice.
    Twice(u32),
    Collisions,
}

/// FNV-1a, which can be read off after every byte, and a last multiplication that spreads it.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Hash(0xcbf2_9ce4_8422_2325)
    }

    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn slot(self, slots: usize) -> usize {
        let spread = (self.0 ^ (self.0 >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (spread >> 32) as usize & (slots - 1)
    }
}

impl Pieces {
    /// Appends a piece; [`index`](Self::index) makes the pieces findable. `None` if there are 4 GiB of them.
    pub(super) fn push(&mut self, piece: &str, id: u32) -> Option<()> {
        let end = u32::try_from(self.text.len() + piece.len()).ok()?;
        self.text.push_str(piece);
        self.ends.push(end);
        self.ids.push(id);
        self.longest = self.longest.max(piece.len());
        Some(())
    }

    /// Indexes what was pushed.
    pub(super) fn index(&mut self) -> Result<(), IndexError> {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.ids.shrink_to_fit();
        self.slots = vec![0; (2 * self.len()).next_power_of_two().max(2)];
        let mut steps = 0;
        for number in 0..self.len() as u32 {
            let piece = self.piece(number);
            let mut hash = Hash::new();
            hash.push(piece.as_bytes());
            match self.look_up(hash, piece.as_bytes(), &[]) {
                Ok(_) => return Err(IndexError::Twice(number)),
                Err(slot) => {
                    let wanted = hash.slot(self.slots.len());
                    steps += slot.wrapping_sub(wanted) & (self.slots.len() - 1);
                    self.slots[slot] = number + 1;
                }
            }
            if steps > MOST_STEPS * self.len() {
                return Err(IndexError::Collisions);
            }
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the longest piece.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// The piece with this number.
    pub(super) fn piece(&self, number: u32) -> &str {
        let number = number as usize;
        let start = if number == 0 {
            0
        } else {
            self.ends[number - 1] as usize
        };
        &self.text[start..self.ends[number] as usize]
    }

    /// The id of the piece with this number.
    pub(super) fn id(&self, number: u32) -> u32 {
        self.ids[number as usize]
    }

    /// The number of `piece`.
    pub(super) fn get(&self, piece: &str) -> Option<u32> {
        self.get_joined(piece, "")
    }

    /// The number of the piece that is `left` and then `right`.
    pub(super) fn get_joined(&self, left: &str, right: &str) -> Option<u32> {
        let mut hash = Hash::new();
        hash.push(left.as_bytes());
        hash.push(right.as_bytes());
        self.look_up(hash, left.as_bytes(), right.as_bytes()).ok()
    }

    /// The lengths and numbers of the pieces that `text` starts with, the shortest first.
    pub(super) fn prefixes<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, u32)> {
        let bytes = text.as_bytes();
        let mut hash = Hash::new();
        let mut start = 0;
        text.char_indices()
            .map(|(at, c)| at + c.len_utf8())
            .take_while(|&end| end <= self.longest)
            .filter_map(move |end| {
                hash.push(&bytes[start..end]);
                start = end;
                Some((end, self.look_up(hash, &bytes[..end], &[]).ok()?))
            })
    }

    /// The pieces and their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        (0..self.len() as u32).map(|number| (self.piece(number), self.id(number)))
    }

    /// The number of the piece `left` + `right`, whose hash is `hash`, or the slot where it would go.
    fn look_up(&self, hash: Hash, left: &[u8], right: &[u8]) -> Result<u32, usize> {
        let mut slot = hash.slot(self.slots.len());
        loop {
            let Some(number) = self.slots[slot].checked_sub(1) else {
                return Err(slot);
            };
            let piece = self.piece(number).as_bytes();
            if piece.len() == left.len() + right.len()
                && piece.starts_with(left)
                && piece.ends_with(right)
            {
                return Ok(number);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }
}

/// The pieces `<0x00>` to `<0xFF>`, in which text without pieces of its own can be spelt.
pub(super) struct Bytes([Option<u32>; 256]);

impl Bytes {
    pub(super) fn new(pieces: &Pieces) -> Self {
        Self(std::array::from_fn(|byte| {
            pieces.get(&format!("<0x{byte:02X}>"))
        }))
    }

    /// The numbers of the pieces for the bytes of `text`, if each has one.
    pub(super) fn spell(&self, text: &str) -> Option<impl Iterator<Item = u32>> {
        let piece = |byte: u8| self.0[byte as usize];
        let spelt = text.bytes().all(|byte| piece(byte).is_some());
        spelt.then(move || text.bytes().filter_map(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(list: &[&str]) -> Pieces {
        let mut pieces = Pieces::default();
        for (piece, id) in list.iter().zip(10..) {
            pieces.push(piece, id).unwrap();
        }
        pieces.index().unwrap();
        pieces
    }

    #[test]
    fn pieces_are_found_whole_joined_and_as_prefixes() {
        let pieces = pieces(&["b", "", "bär", "bä", "x", "är"]);
        assert_eq!(pieces.get("bär"), Some(2));
        assert_eq!(pieces.id(2), 12);
        assert_eq!(pieces.get(""), Some(1));
        assert_eq!(pieces.get("bären"), None);
        assert_eq!(pieces.get_joined("b", "är"), Some(2));
        assert_eq!(pieces.get_joined("b", "x"), None);
        let prefixes: Vec<_> = pieces.prefixes("bären").collect();
        assert_eq!(prefixes, [(1, 0), (3, 3), (4, 2)]);
    }

    #[test]
    fn a_piece_that_is_there_twice_is_found() {
        let mut pieces = Pieces::default();
        for piece in ["a", "b", "a"] {
            pieces.push(piece, 0).unwrap();
        }
        assert_eq!(pieces.index(), Err(IndexError::Twice(2)));
    }

    #[test]
    fn pieces_that_were_made_to_collide_are_refused() {
        let slot = |piece: &str| {
            let mut hash = Hash::new();
            hash.push(piece.as_bytes());
            hash.slot(2048)
        };
        let mut pieces = Pieces::default();
        let colliding = (0u32..)
            .map(|n| n.to_string())
            .filter(|piece| slot(piece) == 0);
        for (piece, id) in colliding.take(1000).zip(0..) {
            pieces.push(&piece, id).unwrap();
        }
        assert_eq!(pieces.index(), Err(IndexError::Collisions));
    }
}
