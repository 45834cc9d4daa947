//! The rows of the token table that texts ask for, read one by one from where the table is.
//!
//! The table is a third of a model and more, and a text needs a handful of its rows. Rows read are cached in memory as f32 and persisted
//! in blocks of [`BLOCK`]; the last, partial block is rewritten as it fills.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;

use twox_hash::XxHash3_128;

use super::entry::{Entry, Kind, seal};
use super::files::{Identity, Manifest, ManifestFile, open};
use super::layout::Affine;
use super::sink::{Encoding, words};
use super::tensors::not_finite;
use crate::checkpoint::format::TOKEN_TABLE;
use crate::checkpoint::safetensors::append_f32;
use crate::checkpoint::{FileHeader, MaybeSend, Reader, Source, Store};
use crate::error::{Error, Result};
use crate::kernels::packed::unpack_row;
use crate::kernels::{Dtype, PackedMatrix};

/// Where a token table was left.
#[derive(Clone, Debug)]
pub struct RemoteTable {
    /// The file, as it was when the weights were loaded.
    pub about: ManifestFile,
    /// Which file: every row in the store carries this, so that no model takes those of another version.
    pub identity: Identity,
    pub header_hash: u128,
    pub file_size: u64,
    /// A row is one stretch of each, in this order.
    pub stripes: Vec<Stripe>,
    pub rows: Rows,
    pub hidden: usize,
}

/// Where a part of every row is, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Stripe {
    /// Of the first row's part.
    pub offset: u64,
    pub row_bytes: usize,
}

/// How rows are written.
#[derive(Clone, Copy, Debug)]
pub enum Rows {
    /// In one stripe.
    Encoded(Encoding),
    /// As codes, scales and biases, in one stripe each.
    Affine(Affine),
}

impl RemoteTable {
    /// The row that consists of these bytes, one piece of each stripe.
    fn decode(&self, pieces: &[&[u8]]) -> Vec<f32> {
        let mut values = Vec::with_capacity(self.hidden);
        match (self.rows, pieces) {
            (Rows::Encoded(Encoding::Numbers(format)), [row]) => {
                append_f32(format, row, &mut values);
            }
            (Rows::Encoded(Encoding::Packed(dtype)), [row]) => {
                values.resize(self.hidden, 0.0);
                unpack_row(dtype, &words(row).collect::<Vec<u32>>(), &mut values);
            }
            (Rows::Affine(affine), &[codes, scales, biases]) => {
                values.resize(self.hidden, 0.0);
                affine.dequantize([codes, scales, biases], &mut values);
            }
            _ => {}
        }
        values
    }
}

/// Reads that are no farther apart than this many bytes are made as one: asking costs more than they do.
const GAP: u64 = 32 << 10;
/// Rows in a block of the store.
const BLOCK: usize = 256;

/// The token table, where the model itself doesn't have it.
pub struct TokenRows(Place);

enum Place {
    Memory(PackedMatrix),
    Remote(Box<dyn Fetch>),
}

impl TokenRows {
    pub(in crate::checkpoint) fn in_memory(matrix: PackedMatrix) -> Self {
        Self(Place::Memory(matrix))
    }

    /// `reader` is the file, if it is open.
    pub(in crate::checkpoint) fn remote<S: Source, T: Store>(
        table: RemoteTable,
        source: &S,
        reader: Option<S::Reader>,
        store: T,
    ) -> Self {
        Self(Place::Remote(Box::new(Remote {
            table,
            source: source.clone(),
            reader,
            store,
            known: HashMap::new(),
            order: Vec::new(),
            restored: false,
        })))
    }

    /// The rows of `ids`, one after the other, `[ids, hidden]`.
    ///
    /// # Errors
    /// `network` if rows must be read and can't be.
    pub async fn rows(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        match &mut self.0 {
            Place::Memory(matrix) => {
                Ok(ids.iter().flat_map(|id| matrix.row(*id as usize)).collect())
            }
            Place::Remote(remote) => remote.rows(ids).await,
        }
    }
}

/// [`Remote`], whatever its source.
trait Fetch: MaybeSend {
    fn rows<'a>(
        &'a mut self,
        ids: &'a [u32],
    ) -> Pin<Box<dyn Future<Output = Result<Vec<f32>>> + 'a>>;
}

struct Remote<S: Source, T> {
    table: RemoteTable,
    source: S,
    reader: Option<S::Reader>,
    store: T,
    known: HashMap<u32, Vec<f32>>,
    /// The ids of `known` as they came.
    order: Vec<u32>,
    restored: bool,
}

impl<S: Source, T: Store> Fetch for Remote<S, T> {
    fn rows<'a>(
        &'a mut self,
        ids: &'a [u32],
    ) -> Pin<Box<dyn Future<Output = Result<Vec<f32>>> + 'a>> {
        Box::pin(async move {
            if !self.restored {
                self.restore().await;
                self.restored = true;
            }
            let unknown: HashSet<u32> = ids
                .iter()
                .filter(|id| !self.known.contains_key(id))
                .copied()
                .collect();
            let mut unknown: Vec<u32> = unknown.into_iter().collect();
            unknown.sort_unstable();
            if !unknown.is_empty() {
                self.fetch(&unknown).await?;
            }
            Ok(ids
                .iter()
                .flat_map(|id| self.known[id].iter().copied())
                .collect())
        })
    }
}

impl<S: Source, T: Store> Remote<S, T> {
    /// Reads rows, in ascending order.
    async fn fetch(&mut self, ids: &[u32]) -> Result<()> {
        // Where each piece of each row is, in the order of the file.
        let mut pieces: Vec<(u64, usize, u32)> = Vec::new();
        for stripe in &self.table.stripes {
            let at = |id: u32| stripe.offset + u64::from(id) * stripe.row_bytes as u64;
            pieces.extend(ids.iter().map(|id| (at(*id), stripe.row_bytes, *id)));
        }
        pieces.sort_unstable();
        let mut reads: Vec<(u64, u64)> = Vec::new();
        for (start, length, _) in &pieces {
            let length = *length as u64;
            match reads.last_mut() {
                Some((offset, read)) if *start <= *offset + *read + GAP => {
                    *read = start + length - *offset;
                }
                _ => reads.push((*start, length)),
            }
        }
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.open().await?,
        };
        reader.plan(&reads);
        let mut arrived: HashMap<(u64, u32), Vec<u8>> = HashMap::new();
        let mut pieces = pieces.into_iter().peekable();
        for (offset, length) in reads {
            let bytes = reader.read_at(offset, length as usize).await?;
            if bytes.len() as u64 != length || reader.validator() != self.table.about.validator {
                return Err(self.changed().await);
            }
            while let Some((start, length, id)) =
                pieces.next_if(|(start, ..)| *start < offset + length)
            {
                let at = (start - offset) as usize;
                arrived.insert((start, id), bytes[at..at + length].to_vec());
            }
        }
        let first_new = self.order.len();
        for id in ids {
            let start = |stripe: &Stripe| stripe.offset + u64::from(*id) * stripe.row_bytes as u64;
            let row = self.table.stripes.iter();
            let row: Vec<&[u8]> = row.map(|stripe| &*arrived[&(start(stripe), *id)]).collect();
            let values = self.table.decode(&row);
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                let index = *id as usize * self.table.hidden + at;
                return Err(not_finite(&self.table.about.name, TOKEN_TABLE, index));
            }
            self.known.insert(*id, values);
            self.order.push(*id);
        }
        self.reader = Some(reader);
        self.keep(first_new).await;
        Ok(())
    }

    /// Opens the file and makes sure that it is the one that the weights came from.
    async fn open(&self) -> Result<S::Reader> {
        let about = &self.table.about;
        let mut reader = open(&self.source, &about.name).await?;
        let size = reader.size();
        if size.is_some_and(|size| size != self.table.file_size) || reader.sha256() != about.sha256
        {
            return Err(self.changed().await);
        }
        // Where nothing else tells versions apart, at least the header does.
        if about.sha256.is_none() && about.validator.is_none() {
            let header = FileHeader::read_bytes(&about.name, &mut reader).await?;
            if XxHash3_128::oneshot(&header) != self.table.header_hash {
                return Err(self.changed().await);
            }
        }
        Ok(reader)
    }

    /// The file is another one now. The store must not offer the old one's weights again.
    async fn changed(&self) -> Error {
        let about = &self.table.about;
        if let Some(manifest) = Manifest::recall(&self.store).await
            && manifest.files.contains(about)
        {
            self.store.commit("").await;
        }
        Error::network(format!(
            "{} has changed since the model was loaded; load the model again",
            about.name
        ))
    }

    fn key(block: usize) -> String {
        format!("token rows/{block}")
    }

    /// Puts the blocks with the rows from `first` on into the store: ids, then rows.
    async fn keep(&self, first: usize) {
        if !self.store.keeps() {
            return;
        }
        let identity = &self.table.identity;
        for (block, ids) in self.order.chunks(BLOCK).enumerate().skip(first / BLOCK) {
            let rows = ids
                .iter()
                .flat_map(|id| &self.known[id])
                .map(|v| v.to_bits());
            let words: Vec<u32> = ids.iter().copied().chain(rows).collect();
            let kind = Kind::Numbers(Dtype::F32);
            let key = Self::key(block);
            let entry = seal(&key, kind, self.table.hidden, identity, &[], &words);
            self.store.put_parts(&key, &entry.parts()).await;
        }
    }

    /// Takes what the store has.
    async fn restore(&mut self) {
        let (kind, hidden) = (Kind::Numbers(Dtype::F32), self.table.hidden);
        for block in 0.. {
            let key = Self::key(block);
            let Some(words) = self.store.get_words(&key).await else {
                return;
            };
            let Some(entry) = Entry::open(&key, words, kind, hidden)
                .filter(|entry| entry.before == self.table.identity)
            else {
                return;
            };
            let count = entry.words.len() / (1 + hidden);
            let (ids, rows) = entry.words.split_at(count);
            for (id, row) in ids.iter().zip(rows.chunks_exact(hidden)) {
                let values = row.iter().copied().map(f32::from_bits).collect();
                self.known.insert(*id, values);
                self.order.push(*id);
            }
            if count < BLOCK {
                return;
            }
        }
    }
}
