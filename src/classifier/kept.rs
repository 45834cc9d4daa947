//! What the text tower made, kept in the store from one load to the next: labels that were asked about before cost nothing.
//!
//! Embeddings lie there by the hashes of their texts, in blocks of [`BLOCK`]; the last, partial block is rewritten as it fills, and after
//! [`BLOCKS`] a new one takes the place of the oldest. A block is a sealed [`Entry`] of `number of the block, keys (4 words each),
//! embeddings`, bound to what computed them.

use std::pin::Pin;

use twox_hash::XxHash3_128;

use super::Embedding;
use crate::checkpoint::{Entry, Kind, MaybeSend, Store, seal};
use crate::device::Backend;
use crate::kernels::Dtype;

/// Raised whenever the same text would get another embedding: how it becomes tokens, or how the text tower computes. Those of another
/// version are computed again.
const PIPELINE: u32 = 1;

/// Embeddings in a block.
const BLOCK: usize = 256;
/// Blocks that are kept.
const BLOCKS: u32 = 8;
/// Words of a key.
const KEY: usize = 4;

/// An embedding with the hash of its text.
pub type Known = (u128, Embedding);
type Later<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// [`Blocks`], whatever their store.
pub trait Kept: MaybeSend {
    /// What was kept, the oldest first.
    fn recall(&mut self) -> Later<'_, Vec<Known>>;
    /// Keeps these as well.
    fn keep(&mut self, new: Vec<Known>) -> Later<'_, ()>;
}

/// The blocks of one model in a store.
struct Blocks<T> {
    store: T,
    /// What computed the embeddings: of anything else none is taken.
    identity: [u8; 16],
    /// Numbers in an embedding.
    size: usize,
    /// Of the block that fills.
    number: u32,
    block: Vec<Known>,
}

/// What `store` keeps of the model that was loaded through it; none unless it has the whole model. `described` is the hash of its small files.
pub async fn open(
    store: impl Store,
    described: u128,
    backend: Backend,
    size: usize,
) -> Option<Box<dyn Kept>> {
    // Which files the weights came from, what they hash to, and the dtype.
    let manifest = store.manifest().await?;
    let mut hash = XxHash3_128::new();
    hash.write(manifest.as_bytes());
    // A tokenizer or an activation that was corrected beside the same weights gives others.
    hash.write(&described.to_le_bytes());
    hash.write(backend.as_str().as_bytes());
    // The kernels of other instructions add in another order.
    hash.write(&[u8::from(cfg!(target_feature = "relaxed-simd"))]);
    hash.write(&PIPELINE.to_le_bytes());
    hash.write(env!("CARGO_PKG_VERSION").as_bytes());
    Some(Box::new(Blocks {
        store,
        identity: hash.finish_128().to_le_bytes(),
        size,
        number: 0,
        block: Vec::new(),
    }))
}

impl<T: Store> Kept for Blocks<T> {
    fn recall(&mut self) -> Later<'_, Vec<Known>> {
        Box::pin(async {
            let mut blocks = Vec::new();
            for place in 0..BLOCKS {
                let key = key(place);
                let Some(words) = self.store.get_words(&key).await else {
                    // They fill in order.
                    break;
                };
                blocks.extend(self.parse(&key, words));
            }
            blocks.sort_by_key(|(number, _)| *number);
            if let Some((number, last)) = blocks.last() {
                match last.len() < BLOCK {
                    true => (self.number, self.block) = (*number, last.clone()),
                    false => self.number = number.wrapping_add(1),
                }
            }
            blocks.into_iter().flat_map(|(_, block)| block).collect()
        })
    }

    fn keep(&mut self, new: Vec<Known>) -> Later<'_, ()> {
        Box::pin(async {
            let mut written = true;
            for known in new {
                self.block.push(known);
                written = self.block.len() == BLOCK;
                if written {
                    self.write().await;
                    self.number = self.number.wrapping_add(1);
                    self.block.clear();
                }
            }
            if !written {
                self.write().await;
            }
        })
    }
}

impl<T: Store> Blocks<T> {
    /// The number and the embeddings of an undamaged block of this model.
    fn parse(&self, key: &str, words: Vec<u32>) -> Option<(u32, Vec<Known>)> {
        let entry = Entry::open(key, words, KIND, self.size)?;
        let (number, rest) = entry.words.split_first()?;
        let count = rest.len() / (KEY + self.size);
        let whole = entry.before == self.identity && rest.len() == count * (KEY + self.size);
        let (keys, numbers) = rest.split_at(KEY * count);
        let keys = keys.as_chunks::<KEY>().0.iter();
        let known = keys
            .zip(numbers.chunks_exact(self.size))
            .map(|(key, numbers)| {
                let embedding = numbers.iter().copied().map(f32::from_bits).collect();
                (u128::from_le_bytes(bytemuck::cast(*key)), embedding)
            });
        whole.then(|| (*number, known.collect()))
    }

    async fn write(&self) {
        let keys = self
            .block
            .iter()
            .flat_map(|(key, _)| bytemuck::cast::<[u8; 16], [u32; KEY]>(key.to_le_bytes()));
        let numbers = self.block.iter().flat_map(|(_, embedding)| embedding);
        let words = [self.number].into_iter().chain(keys);
        let words: Vec<u32> = words.chain(numbers.map(|value| value.to_bits())).collect();
        let key = key(self.number % BLOCKS);
        let entry = seal(&key, KIND, self.size, &self.identity, &[], &words);
        self.store.put_parts(&key, &entry.parts()).await;
    }
}

const KIND: Kind = Kind::Numbers(Dtype::F32);

fn key(place: u32) -> String {
    format!("texts/{place}")
}
