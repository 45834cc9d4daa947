//! The rows of the token table that texts ask for, read one by one from where the table is.
//!
//! The table is a third of a model and more, and a text needs a handful of its rows. Rows read are cached in memory as f32 and persisted
//! in blocks of [`BLOCK`]; the last, partial block is rewritten as it fills.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;

use twox_hash::XxHash3_128;

use super::entry::{Entry, Kind, seal};
use super::files::{Identity, Manifest, ManifestFile, open};
use super::sink::{Encoding, words};
use super::tensors::not_finite;
use crate::checkpoint::format::TOKEN_TABLE;
use crate::checkpoint::safetensors::{append_f32, size_of_number};
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
    /// Of its first row.
    pub offset: u64,
    pub encoding: Encoding,
    pub hidden: usize,
}

impl RemoteTable {
    fn row_bytes(&self) -> usize {
        match self.encoding {
            Encoding::Numbers(format) => self.hidden * size_of_number(format),
            Encoding::Packed(dtype) => 4 * dtype.row_words(self.hidden),
        }
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
        let row_bytes = self.table.row_bytes() as u64;
        let start = |id: u32| self.table.offset + u64::from(id) * row_bytes;
        let mut reads: Vec<(u64, u64)> = Vec::new();
        for id in ids {
            match reads.last_mut() {
                Some((offset, length)) if start(*id) <= *offset + *length + GAP => {
                    *length = start(*id) + row_bytes - *offset;
                }
                _ => reads.push((start(*id), row_bytes)),
            }
        }
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.open().await?,
        };
        reader.plan(&reads);
        let first_new = self.order.len();
        let mut ids = ids.iter().peekable();
        for (offset, length) in reads {
            let bytes = reader.read_at(offset, length as usize).await?;
            if bytes.len() as u64 != length || reader.validator() != self.table.about.validator {
                return Err(self.changed().await);
            }
            let end = offset + length;
            while let Some(id) =
                ids.next_if(|id| self.table.offset + u64::from(**id) * row_bytes < end)
            {
                let at = (self.table.offset + u64::from(*id) * row_bytes - offset) as usize;
                let row = &bytes[at..at + row_bytes as usize];
                let mut values = Vec::with_capacity(self.table.hidden);
                match self.table.encoding {
                    Encoding::Numbers(format) => append_f32(format, row, &mut values),
                    Encoding::Packed(dtype) => {
                        values.resize(self.table.hidden, 0.0);
                        unpack_row(dtype, &words(row).collect::<Vec<u32>>(), &mut values);
                    }
                }
                if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                    let index = *id as usize * self.table.hidden + at;
                    return Err(not_finite(&self.table.about.name, TOKEN_TABLE, index));
                }
                self.known.insert(*id, values);
                self.order.push(*id);
            }
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
            let words = ids.iter().copied().chain(rows);
            let count = ids.len() * (1 + self.table.hidden);
            let kind = Kind::Numbers(Dtype::F32);
            let entry = seal(kind, self.table.hidden, identity, &[], count, words);
            self.store.put(&Self::key(block), &entry).await;
        }
    }

    /// Takes what the store has.
    async fn restore(&mut self) {
        let (kind, hidden) = (Kind::Numbers(Dtype::F32), self.table.hidden);
        for block in 0.. {
            let Some(words) = self.store.get_words(&Self::key(block)).await else {
                return;
            };
            let Some(entry) = Entry::open(words, kind, hidden)
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
