//! What a load needs from the world around it: files, a place to keep what was made of them, a say in when to stop, and someone
//! to tell how far it is.

use crate::error::{Error, Result};

/// `Send` natively, so that a model can move between a server's threads; in the browser, where everything lives on one, nothing.
#[cfg(not(target_family = "wasm"))]
pub trait MaybeSend: Send {}
#[cfg(not(target_family = "wasm"))]
impl<T: Send> MaybeSend for T {}

/// `Send` natively, so that a model can move between a server's threads; in the browser, where everything lives on one, nothing.
#[cfg(target_family = "wasm")]
pub trait MaybeSend {}
#[cfg(target_family = "wasm")]
impl<T> MaybeSend for T {}

/// Where a checkpoint's files are.
///
/// [`Folder`](super::Folder) and [`Memory`](super::Memory) are two. A third, files from anywhere under other names:
///
/// ```
/// use siglip_web::checkpoint::{Memory, Source};
/// use siglip_web::Result;
///
/// /// The files whose names begin with `prefix`.
/// #[derive(Clone)]
/// struct Below<S> {
///     prefix: String,
///     files: S,
/// }
///
/// impl<S: Source> Source for Below<S> {
///     type Reader = S::Reader;
///
///     async fn read_all(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
///         self.files.read_all(&format!("{}{file}", self.prefix), limit).await
///     }
///
///     async fn open(&self, file: &str) -> Result<Option<S::Reader>> {
///         self.files.open(&format!("{}{file}", self.prefix)).await
///     }
/// }
///
/// let files = Memory::new([("siglip/config.json", b"{}".to_vec())]);
/// let source = Below { prefix: "siglip/".into(), files };
/// assert_eq!(pollster::block_on(source.read_all("config.json", 100))?, Some(b"{}".to_vec()));
/// assert_eq!(pollster::block_on(source.read_all("tokenizer.json", 100))?, None);
/// # Ok::<(), siglip_web::Error>(())
/// ```
#[allow(async_fn_in_trait)] // One thread: the browser's, or a native caller that blocks.
pub trait Source: Clone + MaybeSend + 'static {
    /// An open safetensors file.
    type Reader: Reader + 'static;

    /// The whole of a small file of at most `limit` bytes, or `None` if there is no such file.
    ///
    /// # Errors
    /// `bad-model`, best from [`too_large`], for a larger file, before it is read where its size is known; `network` if the file may be
    /// there but can't be read.
    async fn read_all(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>>;

    /// Opens a large file, or `None` if there is no such file.
    ///
    /// # Errors
    /// `network` if the file may be there but can't be read.
    async fn open(&self, file: &str) -> Result<Option<Self::Reader>>;

    /// Every file that [`read_all`](Self::read_all) gave so far could be parsed: a source that keeps copies for later loads may do so now.
    async fn keep(&self) {}

    /// Drops the copies that [`read_all`](Self::read_all) gave: one of them can't be parsed. True if there were any, so that reading the
    /// files once more may give others.
    async fn forget(&self) -> bool {
        false
    }
}

/// What a [`Source`] says of a small file of more than `limit` bytes.
pub fn too_large(file: &str, size: u64, limit: u64) -> Error {
    Error::bad_model(format!(
        "{file} has {size} bytes, more than the {limit} that such a file ever needs; it belongs to something else or is damaged: get it again"
    ))
}

/// A file that is read by ranges. Retries, resuming and consistency between ranges are its own business: it gives the bytes or
/// one final error.
///
/// ```
/// use siglip_web::checkpoint::{Memory, Reader, Source};
///
/// let source = Memory::new([("model.safetensors", b"0123456789".to_vec())]);
/// let mut reader = pollster::block_on(source.open("model.safetensors"))?.expect("it is there");
/// assert_eq!(reader.size(), Some(10));
/// reader.plan(&[(2, 3), (8, 5)]);
/// assert_eq!(pollster::block_on(reader.read_at(2, 3))?, b"234");
/// assert_eq!(pollster::block_on(reader.read_at(8, 5))?, b"89");
/// # Ok::<(), siglip_web::Error>(())
/// ```
#[allow(async_fn_in_trait)]
pub trait Reader: MaybeSend {
    /// Size of the whole file in bytes, where it is known.
    fn size(&self) -> Option<u64>;

    /// Whether any range can be read at any time. Otherwise reads must ascend, and bytes between two of them are read too and
    /// dropped.
    fn random_access(&self) -> bool;

    /// The SHA-256 of the whole file that its publisher states, in lower-case hexadecimal, where it is known.
    fn sha256(&self) -> Option<String>;

    /// What tells this version of the file from others of the same name, where that is known: an HTTP validator (`ETag`, `Last-Modified`),
    /// a commit, a date. Asked for after a read; it is the same after each, or the file has changed.
    fn validator(&self) -> Option<String> {
        None
    }

    /// The reads to come, `(offset, length)` each, in order; a reader may fetch ahead.
    fn plan(&mut self, reads: &[(u64, u64)]);

    /// The bytes from `offset` on: `length` of them, fewer only where the file ends.
    ///
    /// # Errors
    /// `network` if the reading fails.
    async fn read_at(&mut self, offset: u64, length: usize) -> Result<Vec<u8>>;
}

/// Where loaded tensors are kept from one load to the next, in the form in which they are used.
///
/// Entries are as they were put or absent, or else found to be damaged when they are read: each carries a checksum.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::{Arc, Mutex};
///
/// use siglip_web::checkpoint::Store;
///
/// /// Keeps entries in memory, for any number of loads.
/// #[derive(Clone, Default)]
/// struct Kept(Arc<Mutex<HashMap<String, Vec<u8>>>>);
///
/// impl Store for Kept {
///     async fn get(&self, key: &str) -> Option<Vec<u8>> {
///         self.0.lock().unwrap().get(key).cloned()
///     }
///
///     async fn put(&self, key: &str, bytes: &[u8]) {
///         self.0.lock().unwrap().insert(key.into(), bytes.into());
///     }
///
///     async fn commit(&self, manifest: &str) {
///         self.put("manifest", manifest.as_bytes()).await;
///     }
///
///     async fn manifest(&self) -> Option<String> {
///         String::from_utf8(self.get("manifest").await?).ok()
///     }
/// }
///
/// let store = Kept::default();
/// pollster::block_on(store.put("q8/logit_bias", &[0, 0, 128, 63]));
/// assert_eq!(pollster::block_on(store.get_words("q8/logit_bias")), Some(vec![1_f32.to_bits()]));
/// ```
#[allow(async_fn_in_trait)]
pub trait Store: MaybeSend + 'static {
    /// Whether it keeps anything at all; if not, nothing is prepared for it.
    fn keeps(&self) -> bool {
        true
    }

    /// What was put under `key`, if it is still there.
    async fn get(&self, key: &str) -> Option<Vec<u8>>;

    /// The same, read as little-endian words; nothing if it is not whole ones.
    ///
    /// Weights are read by this, and stay in what it gives: a store that can fill the words without other memory of that size should.
    async fn get_words(&self, key: &str) -> Option<Vec<u32>> {
        words_of(&self.get(key).await?)
    }

    /// Keeps `bytes` under `key`. A store that can't goes on without; it never fails a load.
    async fn put(&self, key: &str, bytes: &[u8]);

    /// The same of bytes that lie in several places, as one entry.
    ///
    /// Weights are put by this, from where they are used: a store that can take them without other memory of that size should.
    async fn put_parts(&self, key: &str, parts: &[&[u8]]) {
        self.put(key, &parts.concat()).await;
    }

    /// The last step of a load: everything that `manifest` (JSON) speaks of was put.
    async fn commit(&self, manifest: &str);

    /// What was last committed.
    async fn manifest(&self) -> Option<String>;
}

/// Little-endian words, if `bytes` are whole ones.
pub(super) fn words_of(bytes: &[u8]) -> Option<Vec<u32>> {
    let (words, rest) = bytes.as_chunks();
    let words = words.iter().copied().map(u32::from_le_bytes);
    rest.is_empty().then(|| words.collect())
}

/// Keeps nothing.
impl Store for () {
    fn keeps(&self) -> bool {
        false
    }

    async fn get(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    async fn put(&self, _: &str, _: &[u8]) {}

    async fn commit(&self, _: &str) {}

    async fn manifest(&self) -> Option<String> {
        None
    }
}

/// A cooperative yield point, awaited between units of work: one tensor, one encoder layer.
///
/// It may let the browser's event loop run, and cancels the work by returning an error.
#[allow(async_fn_in_trait)]
pub trait Pace {
    /// Goes on, or stops with the error.
    ///
    /// # Errors
    /// `aborted`.
    async fn step(&self) -> Result<()>;
}

/// Never stops.
impl Pace for () {
    async fn step(&self) -> Result<()> {
        Ok(())
    }
}

/// What a load is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Files are arriving; counted in bytes.
    Download,
    /// The model is put together; counted in bytes.
    Load,
    /// The device runs for the first time.
    Warmup,
    /// Done.
    Ready,
}

impl Stage {
    /// The word of the JavaScript API.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Download => "download",
            Stage::Load => "load",
            Stage::Warmup => "warmup",
            Stage::Ready => "ready",
        }
    }
}

/// One step of a load: `loaded` of `total`, which is 0 where the size isn't known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// What is going on.
    pub stage: Stage,
    /// With which file.
    pub file: Option<&'a str>,
    /// Done so far.
    pub loaded: u64,
    /// When finished.
    pub total: u64,
    /// Whether the bytes counted last came from the [`Store`].
    pub from_store: bool,
}
