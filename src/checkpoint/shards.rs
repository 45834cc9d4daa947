//! Splitting a checkpoint's weights over several files: static hosts have limits for one.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::tensor::{Metadata, TensorView};
use serde_json::json;

use super::load::{INDEX, SINGLE_FILE};
use crate::error::{Error, Result};

/// Splits `model.safetensors` of `folder` into files of at most `limit` bytes with an index, as the Hub has large checkpoints, and
/// removes it. A file within the limit stays as it is. Returns how many files hold the weights then.
///
/// One shard is in memory at a time.
///
/// # Errors
/// `bad-input` if a tensor alone is larger than `limit`, or a file can't be read or written; `bad-model` if it is no safetensors file.
pub fn shard(folder: &Path, limit: u64) -> Result<usize> {
    let path = folder.join(SINGLE_FILE);
    let trouble = |error: std::io::Error| {
        Error::bad_input(format!("{} can't be split: {error}", path.display()))
    };
    let mut file = File::open(&path).map_err(trouble)?;
    if file.metadata().map_err(trouble)?.len() <= limit {
        return Ok(1);
    }
    let mut header = vec![0; 8];
    file.read_exact(&mut header).map_err(trouble)?;
    let length = u64::from_le_bytes(header[..8].try_into().expect("eight bytes"));
    let start = length.saturating_add(8);
    if start >= limit {
        return Err(Error::bad_input(format!(
            "a limit of {limit} bytes leaves no room for weights; take at least {}",
            start.saturating_mul(2)
        )));
    }
    (&mut file)
        .take(length)
        .read_to_end(&mut header)
        .map_err(trouble)?;
    let damaged = |error: &dyn Display| {
        Error::bad_model(format!(
            "{} is no safetensors file ({error})",
            path.display()
        ))
    };
    let metadata: Metadata =
        serde_json::from_slice(&header[8..]).map_err(|error| damaged(&error))?;

    // A shard's header is at most as long as that of the whole.
    let room = limit - start;
    let mut shards: Vec<(Vec<String>, u64)> = Vec::new();
    for name in metadata.offset_keys() {
        let info = metadata.info(&name).expect("the key of a tensor");
        let size = (info.data_offsets.1 - info.data_offsets.0) as u64;
        if size > room {
            return Err(Error::bad_input(format!(
                "{name} takes {:.0} MB by itself, more than a file may have here ({:.0} MB); allow larger files, or take fewer bits. \
                 A classifier of fixed labels (--labels) needs no token table",
                size as f64 / 1e6,
                limit as f64 / 1e6
            )));
        }
        match shards.last_mut() {
            Some((names, taken)) if *taken + size <= room => {
                names.push(name);
                *taken += size;
            }
            _ => shards.push((vec![name], size)),
        }
    }

    let mut weight_map = HashMap::new();
    let count = shards.len();
    for (number, (names, taken)) in shards.iter().enumerate() {
        let shard = format!("model-{:05}-of-{count:05}.safetensors", number + 1);
        let infos: Vec<_> = names
            .iter()
            .map(|name| metadata.info(name).expect("the key of a tensor"))
            .collect();
        let first = infos[0].data_offsets.0;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(start + first as u64))
            .map_err(trouble)?;
        (&mut file)
            .take(*taken)
            .read_to_end(&mut bytes)
            .map_err(trouble)?;
        let mut views = Vec::with_capacity(names.len());
        for (name, info) in names.iter().zip(infos) {
            let (from, to) = info.data_offsets;
            let data = bytes.get(from - first..to - first).ok_or_else(|| {
                Error::bad_model(format!("{} ends before {name} does", path.display()))
            })?;
            views.push((
                name,
                TensorView::new(info.dtype, info.shape.clone(), data)
                    .map_err(|error| damaged(&error))?,
            ));
            weight_map.insert(name, shard.clone());
        }
        let whole = safetensors::serialize(views, metadata.metadata().clone())
            .map_err(|error| damaged(&error))?;
        std::fs::write(folder.join(&shard), whole).map_err(trouble)?;
    }
    let index = json!({"metadata": {"total_size": metadata.data_len()}, "weight_map": weight_map});
    std::fs::write(folder.join(INDEX), format!("{index:#}\n")).map_err(trouble)?;
    // Last: a folder with both would be read from this one.
    std::fs::remove_file(&path).map_err(trouble)?;
    Ok(count)
}
