//! Tensors from a file, or from the store, to where they will live, one after the other: each is converted while it arrives,
//! and no more than the largest one is ever held besides the weights themselves.

use std::collections::HashMap;

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use safetensors::tensor::Dtype as NumberFormat;
use twox_hash::XxHash3_128;

use super::entry::{Entry, FileHash, Kind, seal};
use super::rows::{Encoding, RemoteTable};
use crate::checkpoint::format::Packing;
use crate::checkpoint::safetensors::{append_f32, size_of_number};
use crate::checkpoint::{
    FileHeader, HeldTensor, Pace, Progress, Reader, Source, Stage, Store, held,
};
use crate::error::{Error, Result};
use crate::kernels::packed::{Packer, unpack_row};
use crate::kernels::{self, Dtype, PackedMatrix, PackedWeight};
use crate::model::{ParameterSpec, Weight, Weights};

/// Token tables above this stay in the CPU's memory: WebGPU promises bindings of 128 MiB and no more.
const LARGEST_BINDING: usize = 128 << 20;

/// A token table of at least this many bytes is left where it is, if its rows can be read one by one.
pub const SMALLEST_REMOTE_TABLE: usize = 16 << 20;

/// Files are read in pieces of this many bytes.
const PIECE: usize = 4 << 20;

/// After so many bytes a caller who wants to stop is heard: packing them takes some milliseconds.
const BREATH: usize = 1 << 20;

/// Numbers are converted so many bytes at a time, so that what lies between two forms stays small.
const STEP: usize = 64 << 10;

/// The token table's parameter.
pub const TOKEN_TABLE: &str = "text_model.embeddings.token_embedding.weight";

/// The embeddings of a fixed-label checkpoint.
pub const LABEL_EMBEDDINGS: &str = "label_embeddings";

/// A file with its header, opened where something must be read from it.
pub struct File<R> {
    pub name: String,
    pub header_bytes: Vec<u8>,
    pub header: FileHeader,
    pub packing: Packing,
    pub reader: Option<R>,
    pub sha256: Option<String>,
    /// Whether rows of it can be read one by one.
    pub random_access: bool,
}

/// Why a file wasn't loaded.
pub enum Failure {
    /// What the store has belongs to another version of the file.
    Stale,
    /// Anything else.
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// What a tensor becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing: it is read for the file's hash only.
    Nothing,
    /// f32 on the device.
    Plain,
    /// A packed weight on the device.
    Packed(Dtype),
    /// The token table in the host's memory.
    Table(Dtype),
    /// The token table, left where it is.
    Remote,
    /// The label embeddings, in the host's memory.
    Labels,
}

/// A tensor's numbers as they are held.
pub enum Numbers {
    None,
    Plain(Vec<f32>),
    Packed(PackedMatrix),
}

/// Tensors that have arrived, until the model takes them.
pub struct Loader<'a> {
    device: &'a Device,
    dtype: Dtype,
    whole_table: bool,
    expected: HashMap<String, ParameterSpec>,
    plain: HashMap<String, Tensor<1>>,
    packed: HashMap<String, PackedWeight>,
    /// The token table, where the host holds it.
    pub table: Option<PackedMatrix>,
    /// Where the token table was left.
    pub remote: Option<RemoteTable>,
    /// The label embeddings, one after the other.
    pub labels: Option<Vec<f32>>,
    /// What has arrived.
    arrived: Vec<String>,
    /// Bytes that the weights take.
    pub bytes: usize,
}

impl<'a> Loader<'a> {
    pub fn new(
        device: &'a Device,
        dtype: Dtype,
        whole_table: bool,
        specs: &[ParameterSpec],
    ) -> Self {
        Self {
            device,
            dtype,
            whole_table,
            expected: specs
                .iter()
                .map(|spec| (spec.name.clone(), spec.clone()))
                .collect(),
            plain: HashMap::new(),
            packed: HashMap::new(),
            table: None,
            remote: None,
            labels: None,
            arrived: Vec::new(),
            bytes: 0,
        }
    }

    /// How the weights are held.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Loads the tensors of one file; `alone` if it must have every parameter.
    pub async fn read_file<S: Source>(
        &mut self,
        source: &S,
        file: &mut File<S::Reader>,
        alone: bool,
        store: &impl Store,
        pace: &impl Pace,
        progress: &mut impl FnMut(Progress),
    ) -> Result<(), Failure> {
        for tensor in &file.header.tensors {
            self.check(file, tensor)?;
        }
        if alone {
            for name in self.expected.keys() {
                if !file
                    .header
                    .tensors
                    .iter()
                    .any(|tensor| &tensor.name == name)
                {
                    return Err(Error::bad_model(format!(
                        "{} doesn't have the tensor {name}",
                        file.name
                    ))
                    .into());
                }
            }
        }
        let tensors = file.header.tensors.clone();
        let targets: Vec<Target> = tensors.iter().map(|t| self.target(file, t)).collect();
        let left_out: u64 = tensors
            .iter()
            .zip(&targets)
            .filter(|(_, target)| **target == Target::Remote)
            .map(|(tensor, _)| tensor.bytes as u64)
            .sum();
        let total = file.header.file_size() - left_out;
        let mut hash = match left_out == 0 && (file.sha256.is_some() || store.keeps()) {
            true => FileHash::new(),
            false => FileHash::none(),
        };
        hash.update(&file.header_bytes);
        // Which file an entry is of, beyond what its own bytes say.
        let identity = {
            let mut hasher = XxHash3_128::new();
            hasher.write(&file.header_bytes);
            hasher.write(file.sha256.as_deref().unwrap_or_default().as_bytes());
            hasher.finish_128().to_le_bytes()
        };
        let mut run = Run {
            loader: self,
            file,
            identity,
            loaded: 0,
            total,
            hash: &mut hash,
        };
        run.loaded = run.file.header.data_start;
        run.report(progress, false);
        let mut next = 0;
        while next < tensors.len() {
            // As many as have to be read, up to the first that the store has.
            let start = next;
            let mut stored = None;
            while next < tensors.len() && targets[next] != Target::Remote {
                if store.keeps() {
                    stored = run.stored(&tensors[next], targets[next], store).await;
                    if stored.is_some() {
                        break;
                    }
                }
                next += 1;
            }
            if start < next {
                run.read(
                    source,
                    &tensors[start..next],
                    &targets[start..next],
                    store,
                    pace,
                    progress,
                )
                .await?;
            }
            let Some(tensor) = tensors.get(next) else {
                break;
            };
            if targets[next] == Target::Remote {
                run.loader.leave(run.file, tensor);
                next += 1;
                continue;
            }
            let entry = stored.expect("the search ends at a stored tensor, the table or the end");
            let (tensor, target) = (&tensors[next..=next], &targets[next..=next]);
            if run.restore(&tensor[0], target[0], entry) {
                run.report(progress, true);
            } else {
                // It is of another version of the file.
                run.read(source, tensor, target, store, pace, progress)
                    .await?;
            }
            pace.step().await?;
            next += 1;
        }
        if let Some(reader) = &mut file.reader
            && reader.size().is_none()
            && left_out == 0
            && !reader.read_at(file.header.file_size(), 1).await?.is_empty()
        {
            return Err(Error::bad_model(format!(
                "{} goes on after its last tensor; it is damaged: get it again",
                file.name
            ))
            .into());
        }
        if let (Some(got), Some(stated)) = (hash.finish(), &file.sha256)
            && got != *stated
        {
            // Nothing that came from it can be trusted.
            for tensor in &tensors {
                store.put(&key(self.dtype, &tensor.name), &[]).await;
            }
            return Err(Error::bad_model(format!(
                "{} has the SHA-256 {got}, its publisher states {stated}; it was damaged on the way: load it again",
                file.name
            ))
            .into());
        }
        Ok(())
    }

    /// Is this tensor one of the model's, with the shape it has there?
    fn check<R>(&self, file: &File<R>, tensor: &HeldTensor) -> Result<()> {
        // Position numbers 0, 1, 2… that older versions of transformers saved.
        if tensor.name.ends_with(".embeddings.position_ids") {
            return Ok(());
        }
        let name = &file.name;
        let Some(spec) = self.expected.get(&tensor.name) else {
            return Err(Error::bad_model(format!(
                "{name} has the tensor {}, which a model of this config.json doesn't have",
                tensor.name
            )));
        };
        Self::check_one(file, tensor, spec)?;
        if self.arrived.contains(&tensor.name) {
            return Err(Error::bad_model(format!(
                "{name} has the tensor {}, which another shard has too",
                tensor.name
            )));
        }
        Ok(())
    }

    /// Has this tensor the shape of the parameter, in a format that can be read?
    pub fn check_one<R>(file: &File<R>, tensor: &HeldTensor, spec: &ParameterSpec) -> Result<()> {
        let name = &file.name;
        let packed = file.packing.of(&tensor.name);
        let expected = match packed {
            Some(dtype) => {
                let [rows, input] = spec.matrix();
                if tensor.dtype != NumberFormat::U32 {
                    return Err(Error::bad_model(format!(
                        "{name}: the packed tensor {} holds {:?} instead of U32; convert the checkpoint again",
                        tensor.name, tensor.dtype
                    )));
                }
                vec![rows, dtype.row_words(input)]
            }
            None => spec.shape.clone(),
        };
        if expected != tensor.shape {
            return Err(Error::bad_model(format!(
                "{name}: the tensor {} has the shape {:?}, config.json asks for {expected:?}: the two files belong to different checkpoints",
                tensor.name, tensor.shape
            )));
        }
        match packed {
            Some(_) => Ok(()),
            None => tensor.check_dtype(name),
        }
    }

    pub fn check_complete(&self, files: &str) -> Result<()> {
        match self
            .expected
            .keys()
            .find(|name| !self.arrived.contains(name))
        {
            None => Ok(()),
            Some(name) => Err(Error::bad_model(format!(
                "{files} don't have the tensor {name}"
            ))),
        }
    }

    fn target<R>(&self, file: &File<R>, tensor: &HeldTensor) -> Target {
        let Some(spec) = self.expected.get(&tensor.name) else {
            return Target::Nothing;
        };
        if tensor.name == LABEL_EMBEDDINGS {
            return Target::Labels;
        }
        if tensor.name == TOKEN_TABLE {
            let dims = spec.matrix();
            if file.random_access && !self.whole_table && tensor.bytes >= SMALLEST_REMOTE_TABLE {
                return Target::Remote;
            }
            let dtype = held(self.dtype, spec);
            let bytes = dims[0] * dims[1] * size_of::<f32>();
            let on_cpu = *self.device == Device::flex();
            return match dtype == Dtype::F32 && (on_cpu || bytes <= LARGEST_BINDING) {
                true => Target::Plain,
                false => Target::Table(dtype),
            };
        }
        match spec.is_weight.then(|| held(self.dtype, spec)) {
            None | Some(Dtype::F32) => Target::Plain,
            Some(dtype) => Target::Packed(dtype),
        }
    }

    /// How the file has this tensor's rows.
    pub fn encoding<R>(file: &File<R>, tensor: &HeldTensor) -> Encoding {
        match file.packing.of(&tensor.name) {
            Some(dtype) => Encoding::Packed(dtype),
            None => Encoding::Numbers(tensor.dtype),
        }
    }

    fn leave<R>(&mut self, file: &File<R>, tensor: &HeldTensor) {
        let [_, hidden] = self.expected[&tensor.name].matrix();
        self.remote = Some(RemoteTable {
            file: file.name.clone(),
            file_size: file.header.file_size(),
            offset: tensor.offset,
            encoding: Self::encoding(file, tensor),
            hidden,
        });
        self.arrived.push(tensor.name.clone());
    }

    /// Puts a tensor where it will live.
    fn place(&mut self, name: &str, target: Target, numbers: Numbers) {
        self.arrived.push(name.to_owned());
        match numbers {
            Numbers::None => {}
            Numbers::Plain(values) => {
                self.bytes += size_of_val(values.as_slice());
                if target == Target::Labels {
                    self.labels = Some(values);
                    return;
                }
                let shape = [values.len()];
                let tensor = kernels::from_vec(values, shape, self.device);
                self.plain.insert(name.to_owned(), tensor);
            }
            Numbers::Packed(matrix) => {
                self.bytes += size_of_val(matrix.words());
                match target {
                    Target::Table(_) => self.table = Some(matrix),
                    _ => {
                        let weight = PackedWeight::new(matrix, self.device);
                        self.packed.insert(name.to_owned(), weight);
                    }
                }
            }
        }
    }
}

impl Weights for Loader<'_> {
    fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<D> {
        let tensor =
            (self.plain.remove(name)).expect("every expected tensor was checked to have arrived");
        kernels::reshape(tensor, shape)
    }

    fn weight<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Weight {
        match self.packed.remove(name) {
            Some(weight) => Weight::Packed(weight),
            None => {
                let matrix = [shape[0], shape[1..].iter().product()];
                Weight::Plain(Param::from_tensor(self.tensor(name, matrix)))
            }
        }
    }

    fn table(&mut self, name: &str, shape: [usize; 2]) -> Option<Tensor<2>> {
        let here = self.table.is_none() && self.remote.is_none();
        here.then(|| self.tensor(name, shape))
    }
}

/// Under which name the store has a tensor.
fn key(dtype: Dtype, name: &str) -> String {
    format!("{}/{name}", dtype.as_str())
}

/// The work on one file.
struct Run<'a, 'l, R> {
    loader: &'a mut Loader<'l>,
    file: &'a mut File<R>,
    identity: [u8; 16],
    hash: &'a mut FileHash,
    loaded: u64,
    total: u64,
}

impl<R: Reader> Run<'_, '_, R> {
    fn report(&self, progress: &mut impl FnMut(Progress), from_store: bool) {
        progress(Progress {
            stage: Stage::Download,
            file: Some(&self.file.name),
            loaded: self.loaded,
            total: self.total,
            from_store,
        });
    }

    fn dims(&self, tensor: &HeldTensor) -> [usize; 2] {
        self.loader
            .expected
            .get(&tensor.name)
            .map_or([0, 0], ParameterSpec::matrix)
    }

    fn kind(target: Target) -> Kind {
        match target {
            Target::Nothing | Target::Remote => Kind::Bytes,
            Target::Plain | Target::Labels => Kind::Numbers(Dtype::F32),
            Target::Packed(dtype) | Target::Table(dtype) => Kind::Numbers(dtype),
        }
    }

    /// The hash of the file so far, and of which file.
    fn state(&self) -> Vec<u8> {
        [&self.identity[..], &self.hash.state()].concat()
    }

    async fn stored(
        &self,
        tensor: &HeldTensor,
        target: Target,
        store: &impl Store,
    ) -> Option<Entry> {
        let key = key(self.loader.dtype, &tensor.name);
        let entry = store.get_words(&key).await?;
        let [rows, input] = self.dims(tensor);
        let kind = Self::kind(target);
        let count = match kind {
            Kind::Bytes => 0,
            Kind::Numbers(Dtype::F32) if !matches!(target, Target::Table(_)) => rows * input,
            Kind::Numbers(dtype) => rows * dtype.row_words(input),
        };
        Entry::open(entry, kind, input).filter(|entry| entry.words.len() == count)
    }

    /// Takes a tensor from the store, unless it is of another file.
    fn restore(&mut self, tensor: &HeldTensor, target: Target, entry: Entry) -> bool {
        let after = entry.after.strip_prefix(&self.identity[..]);
        let Some(after) = after.and_then(FileHash::resume) else {
            return false;
        };
        if entry.before != self.state() {
            return false;
        }
        *self.hash = after;
        let [_, input] = self.dims(tensor);
        let words = entry.words;
        let numbers = match target {
            Target::Nothing | Target::Remote => Numbers::None,
            // In place, too.
            Target::Plain | Target::Labels => Numbers::Plain(bytemuck::cast_vec(words)),
            Target::Packed(dtype) | Target::Table(dtype) => {
                Numbers::Packed(PackedMatrix::from_words(dtype, input, words))
            }
        };
        self.loader.place(&tensor.name, target, numbers);
        self.loaded += tensor.bytes as u64;
        true
    }

    /// Reads neighbouring tensors.
    async fn read<S: Source<Reader = R>>(
        &mut self,
        source: &S,
        tensors: &[HeldTensor],
        targets: &[Target],
        store: &impl Store,
        pace: &impl Pace,
        progress: &mut impl FnMut(Progress),
    ) -> Result<(), Failure> {
        let (first, last) = (&tensors[0], &tensors[tensors.len() - 1]);
        let end = last.offset + last.bytes as u64;
        let pieces: Vec<(u64, u64)> = (first.offset..end)
            .step_by(PIECE)
            .map(|start| (start, (end - start).min(PIECE as u64)))
            .collect();
        if self.file.reader.is_none() {
            let opened = crate::checkpoint::open(source, &self.file.name).await?;
            let same_size = opened
                .size()
                .is_none_or(|size| size == self.file.header.file_size());
            if !same_size || opened.sha256() != self.file.sha256 {
                return Err(Failure::Stale);
            }
            self.file.reader = Some(opened);
        }
        let reader = self.file.reader.as_mut().expect("opened above");
        reader.plan(&pieces);
        let mut waiting = tensors.iter().zip(targets);
        let mut current: Option<Arriving> = None;
        for (offset, length) in pieces {
            let reader = self.file.reader.as_mut().expect("opened above");
            let piece = reader.read_at(offset, length as usize).await?;
            for mut rest in piece.chunks(BREATH) {
                while !rest.is_empty() {
                    let arriving = match &mut current {
                        Some(arriving) => arriving,
                        None => {
                            let (tensor, target) =
                                waiting.next().expect("pieces end with the last");
                            current.insert(self.begin(tensor, *target))
                        }
                    };
                    let (part, after) = rest.split_at(rest.len().min(arriving.left));
                    rest = after;
                    arriving.left -= part.len();
                    arriving.sink.push(part);
                    self.hash.update(part);
                    self.loaded += part.len() as u64;
                    if arriving.left == 0 {
                        let arrived = current.take().expect("it is the current one");
                        self.end(arrived, store).await;
                    }
                }
                self.report(progress, false);
                pace.step().await?;
            }
            if piece.len() < length as usize {
                let name = current.map_or("a tensor", |arriving| &arriving.tensor.name);
                return Err(Error::bad_model(format!(
                    "{} ends after {} bytes, in the middle of {name}; it should have {}. It was cut off: get it again",
                    self.file.name,
                    offset + piece.len() as u64,
                    self.file.header.file_size(),
                ))
                .into());
            }
        }
        // Tensors without numbers.
        for (tensor, target) in waiting {
            let arriving = self.begin(tensor, *target);
            self.end(arriving, store).await;
        }
        Ok(())
    }

    fn begin<'t>(&self, tensor: &'t HeldTensor, target: Target) -> Arriving<'t> {
        let encoding = Loader::encoding(self.file, tensor);
        Arriving {
            tensor,
            target,
            before: self.state(),
            left: tensor.bytes,
            sink: Sink::new(encoding, target, self.dims(tensor)),
        }
    }

    async fn end(&mut self, arrived: Arriving<'_>, store: &impl Store) {
        let Arriving {
            tensor,
            target,
            before,
            sink,
            ..
        } = arrived;
        let numbers = sink.finish();
        if store.keeps() {
            let [_, input] = self.dims(tensor);
            let (kind, after) = (Self::kind(target), self.state());
            let entry = match &numbers {
                Numbers::None => seal(kind, input, &before, &after, 0, std::iter::empty()),
                Numbers::Plain(values) => {
                    let words = values.iter().map(|v| v.to_bits());
                    seal(kind, input, &before, &after, values.len(), words)
                }
                Numbers::Packed(matrix) => {
                    let words = matrix.words();
                    seal(
                        kind,
                        input,
                        &before,
                        &after,
                        words.len(),
                        words.iter().copied(),
                    )
                }
            };
            store
                .put(&key(self.loader.dtype, &tensor.name), &entry)
                .await;
        }
        self.loader.place(&tensor.name, target, numbers);
    }
}

/// A tensor of which the beginning is here.
struct Arriving<'t> {
    tensor: &'t HeldTensor,
    target: Target,
    before: Vec<u8>,
    /// Bytes to come.
    left: usize,
    sink: Sink,
}

/// Converts bytes to numbers as they are held.
pub struct Sink {
    encoding: Encoding,
    /// Bytes of the smallest part that can be converted.
    unit: usize,
    /// The beginning of such a part.
    carry: Vec<u8>,
    out: Out,
    scratch: Vec<f32>,
}

enum Out {
    Nothing,
    Plain(Vec<f32>),
    Packer(Packer),
    /// The file has the words as they are held.
    Words(Dtype, usize, Vec<u32>),
}

impl Sink {
    pub fn new(encoding: Encoding, target: Target, [rows, input]: [usize; 2]) -> Self {
        let out = match target {
            Target::Nothing | Target::Remote => Out::Nothing,
            Target::Plain | Target::Labels => Out::Plain(Vec::with_capacity(rows * input)),
            Target::Packed(dtype) | Target::Table(dtype) => match encoding {
                Encoding::Packed(same) if same == dtype => Out::Words(
                    dtype,
                    input,
                    Vec::with_capacity(rows * dtype.row_words(input)),
                ),
                _ => Out::Packer(Packer::new(dtype, rows, input)),
            },
        };
        let unit = match (encoding, &out) {
            (_, Out::Nothing) => 1,
            (_, Out::Words(..)) => 4,
            (Encoding::Packed(dtype), _) => 4 * dtype.row_words(input),
            (Encoding::Numbers(format), _) => size_of_number(format),
        };
        let scratch = match encoding {
            Encoding::Packed(_) => vec![0.0; input],
            Encoding::Numbers(_) => Vec::new(),
        };
        Self {
            encoding,
            unit,
            carry: Vec::new(),
            out,
            scratch,
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        if !self.carry.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(self.unit - self.carry.len()));
            self.carry.extend_from_slice(now);
            bytes = rest;
            if self.carry.len() < self.unit {
                return;
            }
            let whole = std::mem::take(&mut self.carry);
            self.convert(&whole);
        }
        let (whole, rest) = bytes.split_at(bytes.len() / self.unit * self.unit);
        for step in whole.chunks(STEP.max(self.unit) / self.unit * self.unit) {
            self.convert(step);
        }
        self.carry.extend_from_slice(rest);
    }

    /// Takes whole units.
    fn convert(&mut self, bytes: &[u8]) {
        let words = |bytes: &[u8]| -> Vec<u32> {
            let words = bytes.chunks_exact(4);
            words
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect()
        };
        match (&mut self.out, self.encoding) {
            (Out::Nothing, _) => {}
            (Out::Words(_, _, out), _) => out.extend(words(bytes)),
            (Out::Plain(out), Encoding::Numbers(format)) => append_f32(format, bytes, out),
            (Out::Packer(packer), Encoding::Numbers(format)) => {
                self.scratch.clear();
                append_f32(format, bytes, &mut self.scratch);
                packer.push(&self.scratch);
            }
            (out, Encoding::Packed(dtype)) => {
                for row in bytes.chunks_exact(self.unit) {
                    unpack_row(dtype, &words(row), &mut self.scratch);
                    match out {
                        Out::Plain(values) => values.extend_from_slice(&self.scratch),
                        Out::Packer(packer) => packer.push(&self.scratch),
                        Out::Nothing | Out::Words(..) => {}
                    }
                }
            }
        }
    }

    /// The numbers, after the last byte.
    pub fn finish(self) -> Numbers {
        match self.out {
            Out::Nothing => Numbers::None,
            Out::Plain(values) => Numbers::Plain(values),
            Out::Packer(packer) => Numbers::Packed(packer.finish()),
            Out::Words(dtype, input, words) => {
                Numbers::Packed(PackedMatrix::from_words(dtype, input, words))
            }
        }
    }
}
