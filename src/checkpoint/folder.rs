//! A checkpoint folder on disk.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::{Reader, Source, too_large};
use crate::error::{Error, Result};

/// A folder of the file system.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at `path`.
    ///
    /// # Errors
    /// `bad-model` if there is no such folder.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            return Ok(Self(path.to_owned()));
        }
        Err(Error::bad_model(format!(
            "{} is not a folder",
            path.display()
        )))
    }

    fn open_file(&self, file: &str) -> Result<Option<File>> {
        let path = self.0.join(file);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&path, &error)),
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::network(format!("{} can't be read: {error}", path.display()))
}

impl Source for Folder {
    type Reader = FolderReader;

    async fn read_all(&self, file: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(FolderReader {
            path,
            file: open,
            size,
        }) = self.open(file).await?
        else {
            return Ok(None);
        };
        if size > limit {
            return Err(too_large(file, size, limit));
        }
        let mut bytes = Vec::new();
        // It may have grown since.
        open.take(limit)
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(&path, &error))?;
        Ok(Some(bytes))
    }

    async fn open(&self, file: &str) -> Result<Option<FolderReader>> {
        let path = self.0.join(file);
        let Some(file) = self.open_file(file)? else {
            return Ok(None);
        };
        let size = file
            .metadata()
            .map_err(|error| unreadable(&path, &error))?
            .len();
        Ok(Some(FolderReader { path, file, size }))
    }
}

/// A file of a [`Folder`].
#[derive(Debug)]
pub struct FolderReader {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Reader for FolderReader {
    fn size(&self) -> Option<u64> {
        Some(self.size)
    }

    fn random_access(&self) -> bool {
        true
    }

    fn sha256(&self) -> Option<String> {
        None
    }

    fn validator(&self) -> Option<String> {
        let modified = self.file.metadata().ok()?.modified().ok()?;
        let since = modified.duration_since(UNIX_EPOCH).ok()?;
        Some(format!("modified {}", since.as_nanos()))
    }

    fn plan(&mut self, _: &[(u64, u64)]) {}

    async fn read_at(&mut self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length.min(1 << 20));
        self.file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| {
                self.file
                    .by_ref()
                    .take(length as u64)
                    .read_to_end(&mut bytes)
            })
            .map_err(|error| unreadable(&self.path, &error))?;
        Ok(bytes)
    }
}
