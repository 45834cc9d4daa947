//! Tensors from a file, or from the store, to where they will live, one after the other: each is converted while it arrives,
//! and no more than the largest one is ever held besides the weights themselves.

use std::collections::{HashMap, HashSet};

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use safetensors::tensor::Dtype as NumberFormat;
use twox_hash::XxHash3_128;

use super::Wish;
use super::entry::{Entry, FileHash, Kind, seal};
use super::files::{Failure, Identity, WeightsFile, open};
use super::layout::{Affine, Assembly, Part, Share};
use super::rows::{RemoteTable, Rows, Stripe};
use super::sink::{Encoding, Fault, Numbers, Sink, Target};
use crate::checkpoint::format::{LABEL_EMBEDDINGS, TOKEN_TABLE};
use crate::checkpoint::safetensors::size_of_number;
use crate::checkpoint::{Pace, Progress, Reader, Source, Stage, Store, TensorInfo, weight_dtype};
use crate::error::{Error, Result};
use crate::kernels::{self, Dtype, HeldWeight, PackedMatrix, PackedWeight, takes_packed};
use crate::model::{Parameter, ParameterSpec, Role, Weight, Weights};

/// Token tables above this stay in the CPU's memory: WebGPU promises bindings of 128 MiB and no more.
const LARGEST_BINDING: usize = 128 << 20;

/// A token table of at least this many bytes is left where it is, if its rows can be read one by one.
const SMALLEST_REMOTE_TABLE: u64 = 16 << 20;

/// Files are read in pieces of this many bytes.
const PIECE: usize = 4 << 20;

/// Bytes between two yield points: packing so many takes some milliseconds.
const YIELD: usize = 1 << 20;

/// What a load talks to.
pub struct Ports<'a, S, T, P, F> {
    pub source: &'a S,
    pub store: &'a T,
    pub pace: &'a P,
    pub progress: &'a mut F,
}

/// Tensors that have arrived, until the model takes them.
pub struct Loader<'a> {
    device: &'a Device,
    dtype: Dtype,
    whole_table: bool,
    quantized: bool,
    naflex: bool,
    expected: HashMap<String, ParameterSpec>,
    plain: HashMap<String, Tensor<1>>,
    weights: HashMap<String, Weight>,
    /// The token table, where the host holds it.
    pub table: Option<PackedMatrix>,
    /// Where the token table was left.
    pub remote: Option<RemoteTable>,
    /// The label embeddings, one after the other.
    pub labels: Option<Vec<f32>>,
    /// Parameters of which parts have arrived.
    assemblies: HashMap<String, Assembly>,
    /// What has arrived.
    arrived: HashSet<String>,
    /// Tensors of the files that the model has no use for.
    pub unused: Vec<String>,
    /// Bytes that the weights take.
    pub bytes: usize,
}

/// A tensor of a file, or some rows of one, and what becomes of it.
struct Planned {
    part: Part,
    target: Target,
}

impl<'a> Loader<'a> {
    pub fn new(device: &'a Device, dtype: Dtype, wish: &Wish, specs: &[ParameterSpec]) -> Self {
        Self {
            device,
            dtype,
            whole_table: wish.whole_table,
            quantized: wish.hints.quantized,
            naflex: wish.hints.naflex,
            expected: specs
                .iter()
                .map(|spec| (spec.name.clone(), spec.clone()))
                .collect(),
            plain: HashMap::new(),
            weights: HashMap::new(),
            table: None,
            remote: None,
            labels: None,
            assemblies: HashMap::new(),
            arrived: HashSet::new(),
            unused: Vec::new(),
            bytes: 0,
        }
    }

    /// The dtype that the weights are loaded as.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Loads the tensors of one file; `alone` if it must have every parameter.
    pub async fn read_file<S: Source, T: Store, P: Pace, F: FnMut(Progress)>(
        &mut self,
        file: &mut WeightsFile<S::Reader>,
        alone: bool,
        ports: &mut Ports<'_, S, T, P, F>,
    ) -> Result<(), Failure> {
        self.check_file(file, alone)?;
        let planned = self.plan(file);
        let mut run = Run::new(self, file, &planned, ports);
        run.load(&planned).await?;
        run.check_end().await?;
        run.check_hash(&planned).await?;
        Ok(())
    }

    /// What becomes of each tensor. Neighbours of no use count as one: the store has an entry for each, and a file may be full of them.
    fn plan<R>(&self, file: &WeightsFile<R>) -> Vec<Planned> {
        let mut planned: Vec<Planned> = Vec::new();
        for part in &file.parts {
            let target = self.target(file, part);
            match planned.last_mut() {
                Some(last) if target == Target::Nothing && last.target == target => {
                    last.part.tensor.bytes += part.tensor.bytes;
                }
                _ => planned.push(Planned {
                    part: part.clone(),
                    target,
                }),
            }
        }
        planned
    }

    /// Are the tensors of this file those of the model, with their shapes there?
    fn check_file<R>(&mut self, file: &WeightsFile<R>, alone: bool) -> Result<()> {
        let name = &file.about.name;
        let mut here = HashSet::new();
        for part in &file.parts {
            let tensor = &part.tensor;
            let Some(spec) = self.expected.get(&part.parameter) else {
                // Position numbers 0, 1, 2… that older versions of transformers saved are no surprise.
                if !tensor.name.ends_with(".embeddings.position_ids") {
                    self.unused.push(tensor.name.clone());
                }
                continue;
            };
            if part.share == Share::Codes && !self.quantized {
                return Err(Error::bad_model(format!(
                    "{name}: the tensor {} holds codes of shape {:?} for weights of shape {:?}, but config.json has no \"quantization\": the two files belong to different checkpoints",
                    tensor.name, tensor.shape, spec.shape
                )));
            }
            if spec.role == Role::PatchEmbedding {
                self.check_patches(file, part, spec)?;
            }
            check_part(file, part, spec)?;
            if self.arrived.contains(&part.parameter) {
                return Err(Error::bad_model(format!(
                    "{name} has the tensor {}, which another shard has too",
                    tensor.name
                )));
            }
            here.insert(part.parameter.as_str());
        }
        let missing = self
            .expected
            .keys()
            .filter(|name| !here.contains(name.as_str()));
        match alone {
            true => self.check_missing(&format!("{name} doesn't"), missing),
            false => Ok(()),
        }
    }

    /// Are patches embedded as the configuration says: by a convolution, or in NaFlex by a matrix?
    fn check_patches<R>(
        &self,
        file: &WeightsFile<R>,
        part: &Part,
        spec: &ParameterSpec,
    ) -> Result<()> {
        let (name, tensor) = (&file.about.name, &part.tensor);
        let [hidden, input] = spec.matrix();
        // Our own files have had it as a convolution in any case.
        let expected = match (self.naflex, tensor.shape.len()) {
            (true, 4) if file.packing.dtype.is_none() => {
                format!("{:?}, as NaFlex has it", [hidden, input])
            }
            (false, 2) if part.share != Share::Whole => format!("{:?}", spec.shape),
            _ => return Ok(()),
        };
        Err(Error::bad_model(format!(
            "{name}: the tensor {} has the shape {:?}, config.json asks for {expected}: the two files belong to different checkpoints",
            tensor.name, tensor.shape
        )))
    }

    /// Have all parameters arrived?
    pub fn check_complete(&self) -> Result<()> {
        let missing = self
            .expected
            .keys()
            .filter(|name| !self.arrived.contains(*name));
        if let Some((name, assembly)) = self.assemblies.iter().min_by_key(|(name, _)| *name) {
            return Err(Error::bad_model(format!(
                "of the parameter {name} the files of the checkpoint have {}, and not the rest",
                assembly.names().join(", ")
            )));
        }
        self.check_missing("the files of the checkpoint don't", missing)
    }

    fn check_missing<'n>(
        &self,
        who: &str,
        missing: impl Iterator<Item = &'n String>,
    ) -> Result<()> {
        let Some(first) = missing.min() else {
            return Ok(());
        };
        let instead = match self.unused.first() {
            Some(other) => format!(", but {other}, which a model of this config.json doesn't have"),
            None => String::new(),
        };
        Err(Error::bad_model(format!(
            "{who} have the tensor {first}{instead}"
        )))
    }

    fn target<R>(&self, file: &WeightsFile<R>, part: &Part) -> Target {
        let Some(spec) = self.expected.get(&part.parameter) else {
            return Target::Nothing;
        };
        if spec.role == Role::TokenTable && self.stays(file, spec) {
            return Target::Remote;
        }
        match part.share {
            Share::Whole => self.resident(spec),
            _ => Target::Part,
        }
    }

    /// What becomes of a parameter that is loaded.
    fn resident(&self, spec: &ParameterSpec) -> Target {
        if spec.name == LABEL_EMBEDDINGS {
            return Target::Labels;
        }
        if spec.role == Role::TokenTable {
            let [rows, hidden] = spec.matrix();
            let dtype = weight_dtype(self.dtype, spec);
            let bytes = rows * hidden * size_of::<f32>();
            let on_cpu = *self.device == Device::flex();
            return match dtype == Dtype::F32 && (on_cpu || bytes <= LARGEST_BINDING) {
                true => Target::Plain,
                false => Target::Table(dtype),
            };
        }
        match spec.is_weight.then(|| weight_dtype(self.dtype, spec)) {
            None | Some(Dtype::F32) => Target::Plain,
            Some(dtype) => Target::Packed(dtype),
        }
    }

    /// Whether the token table is left in this file.
    fn stays<R>(&self, file: &WeightsFile<R>, spec: &ParameterSpec) -> bool {
        let parts = file.parts.iter().filter(|part| part.parameter == spec.name);
        let bytes: u64 = parts.map(|part| part.tensor.bytes).sum();
        let rows_apart = file.about.random_access && !self.whole_table;
        rows_apart && bytes >= SMALLEST_REMOTE_TABLE && stripes(file, spec).is_some()
    }

    /// Leaves the token table where it is.
    fn leave<R>(&mut self, file: &WeightsFile<R>) {
        let spec = &self.expected[TOKEN_TABLE];
        let [_, hidden] = spec.matrix();
        if let Some((stripes, rows)) = stripes(file, spec) {
            self.remote = Some(RemoteTable {
                about: file.about.clone(),
                identity: file.identity(),
                header_hash: XxHash3_128::oneshot(&file.header_bytes),
                file_size: file.header.file_size(),
                stripes,
                rows,
                hidden,
            });
        }
        self.arrived.insert(TOKEN_TABLE.into());
    }

    /// Takes a part of a parameter; puts the parameter where it will live if it was the last.
    fn assemble(&mut self, file: &str, part: &Part, words: Vec<u32>) -> Result<()> {
        let name = &part.parameter;
        let spec = &self.expected[name];
        let mut assembly = self.assemblies.remove(name).unwrap_or_default();
        if !assembly.add(part.clone(), words) {
            self.assemblies.insert(name.clone(), assembly);
            return Ok(());
        }
        let target = self.resident(spec);
        let numbers = assembly.numbers(file, spec, target)?;
        self.place(&name.clone(), target, numbers);
        Ok(())
    }

    /// Puts a tensor where it will live.
    fn place(&mut self, name: &str, target: Target, numbers: Numbers) {
        self.arrived.insert(name.to_owned());
        match numbers {
            // Parts are put together before.
            Numbers::None | Numbers::Part(_) => {}
            Numbers::Plain(values) => {
                let spec = &self.expected[name];
                if is_held(spec) {
                    let words = bytemuck::cast_vec(values);
                    let [_, input] = spec.matrix();
                    let matrix = PackedMatrix::from_words(Dtype::F32, input, words);
                    return self.place(name, target, Numbers::Packed(matrix));
                }
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
                if let Target::Table(_) = target {
                    self.table = Some(matrix);
                    return;
                }
                let weight = match is_held(&self.expected[name]) {
                    true => Weight::Held(HeldWeight::new(matrix)),
                    false => Weight::Packed(PackedWeight::new(matrix, self.device)),
                };
                self.weights.insert(name.to_owned(), weight);
            }
        }
    }
}

impl Weights for Loader<'_> {
    fn tensor<const D: usize>(&mut self, parameter: Parameter, shape: [usize; D]) -> Tensor<D> {
        let tensor = self.plain.remove(parameter.name);
        let tensor = tensor.expect("every expected tensor was checked to have arrived");
        kernels::reshape(tensor, shape)
    }

    fn weight<const D: usize>(&mut self, parameter: Parameter, shape: [usize; D]) -> Weight {
        match self.weights.remove(parameter.name) {
            Some(weight) => weight,
            None => {
                let matrix = [shape[0], shape[1..].iter().product()];
                Weight::Plain(Param::from_tensor(self.tensor(parameter, matrix)))
            }
        }
    }

    fn table(&mut self, parameter: Parameter, shape: [usize; 2]) -> Option<Tensor<2>> {
        let here = self.table.is_none() && self.remote.is_none();
        here.then(|| self.tensor(parameter, shape))
    }

    fn has_text(&self) -> bool {
        (self.expected.values()).any(|spec| spec.role == Role::TokenTable)
    }
}

/// Whether the weight of a product is held as a [`HeldWeight`], in f32 too: not where products take some of its rows.
fn is_held(spec: &ParameterSpec) -> bool {
    HeldWeight::are_all()
        && spec.is_weight
        && spec.role != Role::InProjection
        && takes_packed(spec.matrix())
}

/// Has this tensor the shape of the parameter, in a format that can be read?
pub fn check_tensor<R>(
    file: &WeightsFile<R>,
    tensor: &TensorInfo,
    spec: &ParameterSpec,
) -> Result<()> {
    let name = &file.about.name;
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
    let expected: Vec<u64> = expected.iter().map(|side| *side as u64).collect();
    if expected != tensor.shape {
        return Err(misshapen(name, tensor, spec.role, &expected));
    }
    match packed {
        Some(_) => Ok(()),
        None => tensor.check_dtype(name),
    }
}

/// Has this part the shape that its parameter asks for, in a format that can be read?
pub fn check_part<R>(file: &WeightsFile<R>, part: &Part, spec: &ParameterSpec) -> Result<()> {
    let tensor = &part.tensor;
    let shape: Vec<u64> = spec.shape.iter().map(|side| *side as u64).collect();
    let expected = match (part.share, &shape[..]) {
        (Share::Whole, _) => return check_tensor(file, tensor, spec),
        (Share::Codes | Share::Scales | Share::Biases, _) => {
            let parts: Vec<&Part> = parts_of(file, spec).collect();
            // In shards the others may be elsewhere.
            return match parts.len() < 3 {
                true => Ok(()),
                false => Affine::of(file.name(), &parts, spec).map(drop),
            };
        }
        (Share::ChannelsLast, &[out, channels, height, width]) => match tensor.shape.len() {
            2 => vec![out, height * width * channels],
            _ => vec![out, height, width, channels],
        },
        (Share::Thirds { count, .. }, &[rows, ref rest @ ..]) => {
            [&[rows / 3 * count as u64], rest].concat()
        }
        _ => shape,
    };
    if expected != tensor.shape {
        return Err(misshapen(file.name(), tensor, spec.role, &expected));
    }
    tensor.check_dtype(file.name())
}

fn misshapen(file: &str, tensor: &TensorInfo, role: Role, expected: &[u64]) -> Error {
    let rows = match role == Role::Classifier || tensor.name == "classifier.bias" {
        true => ", a row for each label of id2label",
        false => "",
    };
    Error::bad_model(format!(
        "{file}: the tensor {} has the shape {:?}, its configuration asks for {expected:?}{rows}: the two files belong to different checkpoints",
        tensor.name, tensor.shape
    ))
}

/// The parts of a parameter that a file has.
pub fn parts_of<'f, R>(
    file: &'f WeightsFile<R>,
    spec: &ParameterSpec,
) -> impl Iterator<Item = &'f Part> {
    let name = spec.name.clone();
    file.parts.iter().filter(move |part| part.parameter == name)
}

/// Where a table's rows are, each made up of one stretch of every stripe; none if the file doesn't have them so.
fn stripes<R>(file: &WeightsFile<R>, spec: &ParameterSpec) -> Option<(Vec<Stripe>, Rows)> {
    let [_, hidden] = spec.matrix();
    let parts: Vec<&Part> = parts_of(file, spec).collect();
    let stripe = |part: &Part, row_bytes| Stripe {
        offset: part.tensor.offset,
        row_bytes,
    };
    if let [part] = parts[..]
        && part.share == Share::Whole
    {
        let encoding = encoding(file, &part.tensor);
        let row_bytes = match encoding {
            Encoding::Packed(dtype) => 4 * dtype.row_words(hidden),
            Encoding::Numbers(format) => hidden * size_of_number(format),
        };
        return Some((vec![stripe(part, row_bytes)], Rows::Encoded(encoding)));
    }
    let affine = Affine::of(file.name(), &parts, spec).ok()?;
    let shares = [Share::Codes, Share::Scales, Share::Biases].into_iter();
    let stripes = shares.zip(affine.row_bytes(hidden)).map(|(share, bytes)| {
        let part = parts.iter().find(|part| part.share == share)?;
        Some(stripe(part, bytes))
    });
    Some((stripes.collect::<Option<_>>()?, Rows::Affine(affine)))
}

/// How the file has this tensor's rows.
pub fn encoding<R>(file: &WeightsFile<R>, tensor: &TensorInfo) -> Encoding {
    match file.packing.of(&tensor.name) {
        Some(dtype) => Encoding::Packed(dtype),
        None => Encoding::Numbers(tensor.dtype),
    }
}

/// The work on one file.
struct Run<'a, 'l, 'p, S: Source, T, P, F> {
    loader: &'a mut Loader<'l>,
    file: &'a mut WeightsFile<S::Reader>,
    ports: &'a mut Ports<'p, S, T, P, F>,
    /// Which file an entry of the store is of, beyond what its own bytes say.
    identity: Identity,
    hash: FileHash,
    /// Whether every tensor is read, so that the file's end is reached.
    whole: bool,
    loaded: u64,
    total: u64,
}

impl<'a, 'l, 'p, S: Source, T: Store, P: Pace, F: FnMut(Progress)> Run<'a, 'l, 'p, S, T, P, F> {
    fn new(
        loader: &'a mut Loader<'l>,
        file: &'a mut WeightsFile<S::Reader>,
        planned: &[Planned],
        ports: &'a mut Ports<'p, S, T, P, F>,
    ) -> Self {
        let left_out = planned.iter().filter(|p| p.target == Target::Remote);
        let left_out: u64 = left_out.map(|p| p.part.tensor.bytes).sum();
        let hashed = left_out == 0 && (file.about.sha256.is_some() || ports.store.keeps());
        let mut hash = match hashed {
            true => FileHash::new(),
            false => FileHash::none(),
        };
        hash.update(&file.header_bytes);
        Self {
            identity: file.identity(),
            hash,
            whole: left_out == 0,
            loaded: file.header.data_start,
            total: file.header.file_size() - left_out,
            loader,
            file,
            ports,
        }
    }

    /// Loads every tensor, from the store or from the file.
    async fn load(&mut self, planned: &[Planned]) -> Result<(), Failure> {
        self.report(false);
        let mut rest = planned;
        loop {
            let (count, entry) = self.search(rest).await;
            let (absent, after) = rest.split_at(count);
            if !absent.is_empty() {
                self.read(absent).await?;
            }
            let Some((next, after)) = after.split_first() else {
                return Ok(());
            };
            match entry {
                None => self.loader.leave(self.file),
                Some(entry) => {
                    if self.restore(next, entry)? {
                        self.report(true);
                    } else {
                        // It is of another version of the file.
                        self.read(std::slice::from_ref(next)).await?;
                    }
                    self.ports.pace.step().await?;
                }
            }
            rest = after;
        }
    }

    /// How many tensors there are before one that needs no reading: the store has it (then with its entry), or it is left where it is.
    async fn search(&self, planned: &[Planned]) -> (usize, Option<Entry>) {
        for (i, next) in planned.iter().enumerate() {
            if next.target == Target::Remote {
                return (i, None);
            }
            if let Some(entry) = self.stored(next).await {
                return (i, Some(entry));
            }
        }
        (planned.len(), None)
    }

    async fn stored(&self, next: &Planned) -> Option<Entry> {
        if !self.ports.store.keeps() {
            return None;
        }
        let key = key(self.loader.dtype, &next.part);
        let entry = self.ports.store.get_words(&key).await?;
        let [rows, input] = self.dims(&next.part);
        let kind = kind(next.target);
        let count = match kind {
            Kind::Bytes if next.target == Target::Part => {
                next.part.tensor.bytes.div_ceil(4) as usize
            }
            Kind::Bytes => 0,
            Kind::Numbers(Dtype::F32) if !matches!(next.target, Target::Table(_)) => rows * input,
            Kind::Numbers(dtype) => rows * dtype.row_words(input),
        };
        Entry::open(&key, entry, kind, input).filter(|entry| entry.words.len() == count)
    }

    /// Takes a tensor from the store, unless it is of another file.
    fn restore(&mut self, next: &Planned, entry: Entry) -> Result<bool> {
        let after = entry.after.strip_prefix(&self.identity[..]);
        let Some(after) = after.and_then(FileHash::resume) else {
            return Ok(false);
        };
        if entry.before != self.state() {
            return Ok(false);
        }
        self.hash = after;
        let [_, input] = self.dims(&next.part);
        let words = entry.words;
        let numbers = match next.target {
            Target::Nothing | Target::Remote => Numbers::None,
            Target::Part => Numbers::Part(words),
            // In place, too.
            Target::Plain | Target::Labels => Numbers::Plain(bytemuck::cast_vec(words)),
            Target::Packed(dtype) | Target::Table(dtype) => {
                Numbers::Packed(PackedMatrix::from_words(dtype, input, words))
            }
        };
        self.place(&next.part, next.target, numbers)?;
        self.loaded += next.part.tensor.bytes;
        Ok(true)
    }

    fn place(&mut self, part: &Part, target: Target, numbers: Numbers) -> Result<()> {
        match numbers {
            Numbers::Part(words) => (self.loader).assemble(self.file.name(), part, words),
            numbers => {
                self.loader.place(&part.parameter, target, numbers);
                Ok(())
            }
        }
    }

    /// Reads neighbouring tensors.
    async fn read(&mut self, planned: &[Planned]) -> Result<(), Failure> {
        let (first, last) = (
            &planned[0].part.tensor,
            &planned[planned.len() - 1].part.tensor,
        );
        let end = last.offset + last.bytes;
        let pieces: Vec<(u64, u64)> = (first.offset..end)
            .step_by(PIECE)
            .map(|start| (start, (end - start).min(PIECE as u64)))
            .collect();
        let mut reader = match self.file.reader.take() {
            Some(reader) => reader,
            None => self.open().await?,
        };
        reader.plan(&pieces);
        let mut waiting = planned.iter();
        let mut current: Option<Arriving> = None;
        for (offset, length) in pieces {
            let piece = reader.read_at(offset, length as usize).await?;
            if reader.validator() != self.file.about.validator {
                return Err(Failure::Stale);
            }
            for mut rest in piece.chunks(YIELD) {
                while !rest.is_empty() {
                    let mut arriving = match current.take() {
                        Some(arriving) => arriving,
                        None => self.begin(waiting.next().expect("pieces end with the last")),
                    };
                    let part = arriving.push(&mut rest);
                    self.hash.update(part);
                    self.loaded += part.len() as u64;
                    match arriving.left {
                        0 => self.end(arriving).await?,
                        _ => current = Some(arriving),
                    }
                }
                self.report(false);
                self.ports.pace.step().await?;
            }
            if piece.len() < length as usize {
                let name =
                    current.map_or("a tensor", |arriving| &arriving.planned.part.tensor.name);
                return Err(Error::bad_model(format!(
                    "{} ends after {} bytes, in the middle of {name}; it should have {}. It was cut off: get it again",
                    self.file.name(),
                    offset + piece.len() as u64,
                    self.file.header.file_size(),
                ))
                .into());
            }
        }
        // Tensors without numbers.
        for planned in waiting {
            let arriving = self.begin(planned);
            self.end(arriving).await?;
        }
        self.file.reader = Some(reader);
        Ok(())
    }

    /// Opens a file whose header came from the store.
    async fn open(&self) -> Result<S::Reader, Failure> {
        let reader = open(self.ports.source, self.file.name()).await?;
        let size = reader.size();
        if size.is_some_and(|size| size != self.file.header.file_size())
            || reader.sha256() != self.file.about.sha256
        {
            return Err(Failure::Stale);
        }
        Ok(reader)
    }

    fn begin<'t>(&self, planned: &'t Planned) -> Arriving<'t> {
        let (tensor, target) = (&planned.part.tensor, planned.target);
        Arriving {
            planned,
            before: self.state(),
            left: tensor.bytes,
            sink: Sink::new(
                encoding(self.file, tensor),
                target,
                self.dims(&planned.part),
            ),
        }
    }

    async fn end(&mut self, arrived: Arriving<'_>) -> Result<()> {
        let Planned { part, target } = arrived.planned;
        let numbers = (arrived.sink.finish())
            .map_err(|fault| unheld(self.file.name(), &part.tensor.name, fault))?;
        if self.ports.store.keeps() {
            let [_, input] = self.dims(part);
            let (kind, before, after) = (kind(*target), &arrived.before, self.state());
            let words = match &numbers {
                Numbers::None => &[],
                Numbers::Part(words) => words.as_slice(),
                Numbers::Plain(values) => bytemuck::cast_slice(values),
                Numbers::Packed(matrix) => matrix.words(),
            };
            let key = key(self.loader.dtype, part);
            let entry = seal(&key, kind, input, before, &after, words);
            self.ports.store.put_parts(&key, &entry.parts()).await;
        }
        self.place(part, *target, numbers)
    }

    /// Does a file that told no size end with its last tensor?
    async fn check_end(&mut self) -> Result<()> {
        if let Some(reader) = &mut self.file.reader
            && reader.size().is_none()
            && self.whole
            && !(reader.read_at(self.file.header.file_size(), 1).await?).is_empty()
        {
            return Err(Error::bad_model(format!(
                "{} goes on after its last tensor; it is damaged: get it again",
                self.file.name()
            )));
        }
        Ok(())
    }

    /// Is the file that was read the one that its publisher states?
    async fn check_hash(self, planned: &[Planned]) -> Result<()> {
        let (Some(got), Some(stated)) = (self.hash.finish(), &self.file.about.sha256) else {
            return Ok(());
        };
        if got == *stated {
            return Ok(());
        }
        // Nothing that came from it can be trusted.
        for Planned { part, .. } in planned {
            let key = key(self.loader.dtype, part);
            self.ports.store.put(&key, &[]).await;
        }
        Err(Error::bad_model(format!(
            "{} has the SHA-256 {got}, its publisher states {stated}; it was damaged on the way: load it again",
            self.file.name()
        )))
    }

    fn report(&mut self, from_store: bool) {
        (self.ports.progress)(Progress {
            stage: Stage::Download,
            file: Some(self.file.name()),
            loaded: self.loaded,
            total: self.total,
            from_store,
        });
    }

    fn dims(&self, part: &Part) -> [usize; 2] {
        self.loader
            .expected
            .get(&part.parameter)
            .map_or([0, 0], ParameterSpec::matrix)
    }

    /// The hash of the file so far, and of which file.
    fn state(&self) -> Vec<u8> {
        [&self.identity[..], &self.hash.state()].concat()
    }
}

/// What there is to say of a weight that can't be held as it is: infinite or not a number, or beyond the range of f16.
pub fn unheld(file: &str, tensor: &str, Fault { index, value }: Fault) -> Error {
    if !value.is_finite() {
        return not_finite(file, tensor, index);
    }
    Error::bad_model(format!(
        "{file}: number {index} of the tensor {tensor} is {value}, and weights in f16 reach ±65504 (as some are also in q8 and q4): load the model as f32"
    ))
}

/// What there is to say of a weight that is infinite or not a number: a softmax may turn it into a plausible answer.
pub fn not_finite(file: &str, tensor: &str, index: usize) -> Error {
    Error::bad_model(format!(
        "{file}: number {index} of the tensor {tensor} is infinite or not a number; the file is damaged, or training diverged: get it again"
    ))
}

/// Under which name the store has a tensor: several parameters may be in one of the file, and several of the file make one parameter.
fn key(dtype: Dtype, part: &Part) -> String {
    let name = match part.share {
        Share::Whole => &part.parameter,
        _ => &part.tensor.name,
    };
    format!("{}/{name}", dtype.as_str())
}

/// The kind of the store's entry.
fn kind(target: Target) -> Kind {
    match target {
        Target::Nothing | Target::Remote | Target::Part => Kind::Bytes,
        Target::Plain | Target::Labels => Kind::Numbers(Dtype::F32),
        Target::Packed(dtype) | Target::Table(dtype) => Kind::Numbers(dtype),
    }
}

/// A tensor of which the beginning is here.
struct Arriving<'t> {
    planned: &'t Planned,
    /// The state before it.
    before: Vec<u8>,
    /// Bytes to come.
    left: u64,
    sink: Sink,
}

impl Arriving<'_> {
    /// Takes what belongs to it from the front of `bytes`, and gives that back.
    fn push<'b>(&mut self, bytes: &mut &'b [u8]) -> &'b [u8] {
        let length = self.left.min(bytes.len() as u64);
        let (part, rest) = bytes.split_at(length as usize);
        *bytes = rest;
        self.left -= length;
        self.sink.push(part);
        part
    }
}
