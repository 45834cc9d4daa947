//! A checkpoint whose files are in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Reader, Source, too_large};
use crate::error::Result;

/// Files in memory: for servers that fetch or embed them, and for tests. Clones share them.
///
/// ```no_run
/// use siglip_web::checkpoint::{Checkpoint, Memory};
/// use siglip_web::{Backend, LoadOptions, device};
///
/// let names = ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"];
/// let source = Memory::new(names.map(|name| (name, std::fs::read(name).unwrap())));
/// let checkpoint = Checkpoint::load(&source, &LoadOptions::default(), &device::open(Backend::Cpu)?)?;
/// # Ok::<(), siglip_web::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Memory {
    files: Arc<BTreeMap<String, Arc<[u8]>>>,
}

impl Memory {
    /// These files, each with its name in the folder.
    pub fn new<N: Into<String>, B: Into<Arc<[u8]>>>(
        files: impl IntoIterator<Item = (N, B)>,
    ) -> Self {
        let files = files.into_iter();
        let files = files.map(|(name, bytes)| (name.into(), bytes.into()));
        Self {
            files: Arc::new(files.collect()),
        }
    }
}

impl Source for Memory {
    type Reader = MemoryReader;

    async fn read_all(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        match self.files.get(file) {
            Some(bytes) if bytes.len() as u64 > limit => {
                Err(too_large(file, bytes.len() as u64, limit))
            }
            bytes => Ok(bytes.map(|bytes| bytes.to_vec())),
        }
    }

    async fn open(&self, file: &str) -> Result<Option<MemoryReader>> {
        Ok(self.files.get(file).cloned().map(MemoryReader))
    }
}

/// A file of a [`Memory`].
#[derive(Debug)]
pub struct MemoryReader(Arc<[u8]>);

impl Reader for MemoryReader {
    fn size(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }

    fn random_access(&self) -> bool {
        true
    }

    fn sha256(&self) -> Option<String> {
        None
    }

    fn plan(&mut self, _: &[(u64, u64)]) {}

    async fn read_at(&mut self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|start| self.0.get(start..));
        let rest = rest.unwrap_or_default();
        Ok(rest[..length.min(rest.len())].to_vec())
    }
}
