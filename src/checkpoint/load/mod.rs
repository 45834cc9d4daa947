//! From a checkpoint's files, or what is kept of them, to weights on a device.

mod entry;
mod files;
mod layout;
#[cfg(feature = "webgpu")]
mod outline;
mod rows;
mod sink;
mod tensors;

use burn::tensor::Device;

pub use entry::{Entry, Kind, seal};
pub use files::{
    Fresh, Hashed, INDEX, Manifest, SINGLE_FILE, WeightsFile, optional, parsed, required,
    shard_names,
};
pub use layout::{Assembly, Part, Share, channels_last};
#[cfg(feature = "webgpu")]
pub use outline::prepare;
pub use rows::TokenRows;
pub use sink::{Fault, Numbers, Sink, Target};
pub use tensors::{Loader, Ports, check_part, encoding, parts_of, unheld};

use super::{Pace, Progress, Source, Store};
use crate::error::{Error, Result};
use crate::kernels::Dtype;
use crate::model::ParameterSpec;
#[cfg(all(target_family = "wasm", not(feature = "webgpu")))]
use crate::{checkpoint::weight_dtype, kernels, model::Role};
use files::{Failure, Listed, ManifestFile};

/// In which form weights are loaded.
pub struct Wish {
    /// As the caller says.
    pub dtype: Option<Dtype>,
    /// Where neither the caller nor the checkpoint says anything.
    pub auto: Dtype,
    /// The token table too, rather than its rows when they are needed.
    pub whole_table: bool,
    pub hints: Hints,
}

/// What the configuration says of the files with the weights.
#[derive(Clone, Copy, Debug)]
pub struct Hints {
    /// Whether weights are quantized, as MLX does it.
    pub quantized: bool,
    /// Whether the folder is open_clip's.
    pub open_clip: bool,
    /// Whether the model is a NaFlex one.
    pub naflex: bool,
    /// A model of the Hub with the same architecture.
    pub published: Option<&'static str>,
}

impl Hints {
    /// Is the folder in the form of transformers, which whoever is to do `what` needs?
    ///
    /// # Errors
    /// `unsupported`, with what to take instead.
    pub fn check_transformers(&self, what: &str) -> Result<()> {
        if !self.open_clip {
            return Ok(());
        }
        let instead = self
            .published
            .map_or(String::new(), |name| format!(", for example {name}"));
        Err(Error::unsupported(format!(
            "the checkpoint is open_clip's, which can only be loaded as it is; {what} one in the form of transformers{instead}"
        )))
    }
}

/// Everything that was loaded.
pub struct Loaded<'a, R> {
    /// The tensors.
    pub loader: Loader<'a>,
    /// The file that has the token table, if that was left there.
    pub reader: Option<R>,
    files: Vec<ManifestFile>,
}

/// Has the browser make fast code of the kernels that a model with these parameters takes, loaded as `dtype` on the CPU.
#[cfg(not(feature = "webgpu"))]
#[cfg_attr(not(target_family = "wasm"), allow(unused_variables))]
pub fn prepare(specs: &[ParameterSpec], dtype: Dtype) {
    #[cfg(target_family = "wasm")]
    {
        let multiplied =
            |spec: &&ParameterSpec| !matches!(spec.role, Role::TokenTable | Role::Other);
        let held = |form: &Dtype| {
            let mut matrices = specs.iter().filter(multiplied);
            matrices.any(|spec| weight_dtype(dtype, spec) == *form)
        };
        let forms = [Dtype::F32, Dtype::F16, Dtype::Q8, Dtype::Q4];
        kernels::cpu::warm_up(forms.into_iter().filter(held));
    }
}

/// Loads the parameters `specs` onto `device`, from the store as far as it has them; a store that proves to be of other files is
/// filled anew, once. `prepare` is told the dtype as soon as it is known and awaited at the end, to make ready what the weights will need.
///
/// # Errors
/// As [`Checkpoint::load_async`](super::Checkpoint::load_async).
pub async fn load_weights<'a, S: Source, T: Store, P: Pace, F: FnMut(Progress), W: Future>(
    manifest: Option<Manifest>,
    wish: &Wish,
    specs: &[ParameterSpec],
    device: &'a Device,
    prepare: impl Fn(Dtype) -> W,
    ports: &mut Ports<'_, S, T, P, F>,
) -> Result<Loaded<'a, S::Reader>> {
    let trusting = manifest.is_some();
    let mut loaded = load_files(manifest, wish, specs, device, &prepare, ports).await;
    if trusting && matches!(loaded, Err(Failure::Stale)) {
        loaded = load_files(None, wish, specs, device, &prepare, ports).await;
    }
    let loaded = loaded.map_err(|failure| match failure {
        Failure::Stale => {
            Error::network("the model's files changed while they were read; load the model again")
        }
        Failure::Error(error) => error,
    })?;
    if ports.store.keeps() {
        let dtype = loaded.loader.dtype().as_str();
        let manifest = Manifest::new(dtype, loaded.files.clone());
        ports.store.commit(&manifest.to_json()).await;
    }
    Ok(loaded)
}

/// The same, believing what `manifest` says.
async fn load_files<'a, S: Source, T: Store, P: Pace, F: FnMut(Progress), W: Future>(
    manifest: Option<Manifest>,
    wish: &Wish,
    specs: &[ParameterSpec],
    device: &'a Device,
    prepare: &impl Fn(Dtype) -> W,
    ports: &mut Ports<'_, S, T, P, F>,
) -> Result<Loaded<'a, S::Reader>, Failure> {
    let listed = Listed::list(manifest.as_ref(), ports.source, specs, &wish.hints).await?;
    let alone = listed.len() == 1;
    let mut listed = listed.into_iter();
    let first = listed.next().ok_or(Failure::Stale)?;
    let mut file = first.open(ports.source, ports.store).await?;
    let dtype = wish.dtype.or(file.packing.dtype).unwrap_or(wish.auto);
    if manifest.is_some_and(|manifest| manifest.dtype != dtype.as_str()) {
        return Err(Failure::Stale);
    }
    let prepared = prepare(dtype);
    let mut loader = Loader::new(device, dtype, wish, specs);
    let (mut reader, mut files) = (None, Vec::new());
    loop {
        let before = loader.remote.is_some();
        loader.read_file(&mut file, alone, ports).await?;
        if loader.remote.is_some() && !before {
            reader = file.reader;
        }
        files.push(file.about);
        match listed.next() {
            Some(next) => file = next.open(ports.source, ports.store).await?,
            None => break,
        }
    }
    loader.check_complete()?;
    prepared.await;
    Ok(Loaded {
        loader,
        reader,
        files,
    })
}
