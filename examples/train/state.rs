//! What a run saves: its whole state to resume from, and the trained checkpoint.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use siglip_web::checkpoint::{StoredDtype, write_file, write_safetensors};
use siglip_web::model::ParameterSpec;
use siglip_web::{Code, Error, Result};

use crate::bad_input;
use crate::parameters::{Parameters, flat};

/// The file in the output folder that a run resumes from.
pub const STATE: &str = "training-state.safetensors";

/// What the tokenizer and its like consist of, in any of the Hub's checkpoints.
const COPIED: [&str; 9] = [
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "tokenizer.model",
    "LICENSE",
];

const SETS: [&str; 3] = ["value", "moment_1", "moment_2"];

/// Saves the parameters and moments after `step` steps of a run that is described by `run`.
///
/// Everything random follows from the seed, which `run` has, and the step: there is no other state.
pub fn save(out: &Path, parameters: &Parameters, step: usize, run: &Value) -> Result<()> {
    let mut tensors = Vec::new();
    for parameter in &parameters.list {
        let mut add = |set: &str, tensor: &Tensor<1>| {
            let spec = ParameterSpec {
                name: format!("{set}/{}", parameter.spec.name),
                ..parameter.spec.clone()
            };
            tensors.push((spec, tensor.clone()));
        };
        if parameter.trained {
            add(SETS[0], &parameter.value);
        }
        if let Some([first, second]) = &parameter.moments {
            add(SETS[1], first);
            add(SETS[2], second);
        }
    }
    let metadata = json!({"step": step, "run": run}).to_string();
    let metadata = HashMap::from([("training".to_owned(), metadata)]);
    write_safetensors(&out.join(STATE), &tensors, StoredDtype::F32, metadata)
}

/// Puts the saved state into `parameters`; returns the number of steps done, or `None` if nothing was saved.
///
/// # Errors
/// `bad-input` if the state can't be read or is that of another run than `run` describes.
pub fn resume(
    out: &Path,
    parameters: &mut Parameters,
    run: &Value,
    device: &Device,
) -> Result<Option<usize>> {
    let path = out.join(STATE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(&path, &error)),
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| unusable(&path, &e))?;
    let training: Value = header
        .metadata()
        .as_ref()
        .and_then(|metadata| serde_json::from_str(metadata.get("training")?).ok())
        .ok_or_else(|| unusable(&path, &"it has no description of a run"))?;
    // Written and read as the other one was: numbers may come back as a neighbour of what they were.
    let run: Value = serde_json::from_str(&run.to_string()).expect("JSON again");
    if let (Some(was), Some(is)) = (training["run"].as_object(), run.as_object()) {
        for (key, is) in is {
            let was = was.get(key).unwrap_or(&Value::Null);
            if was != is {
                return Err(bad_input(format!(
                    "{} holds a run with another {key} ({was}, now {is}); resume with the same or choose another --out",
                    out.display()
                )));
            }
        }
    }
    let step = training["step"]
        .as_u64()
        .ok_or_else(|| unusable(&path, &"it has no step"))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| unusable(&path, &e))?;
    for parameter in parameters.list.iter_mut().filter(|p| p.trained) {
        let read = |set: &str| -> Result<Option<Tensor<1>>> {
            let name = format!("{set}/{}", parameter.spec.name);
            let Ok(view) = tensors.tensor(&name) else {
                return Ok(None);
            };
            if view.shape() != parameter.spec.shape {
                return Err(unusable(&path, &format!("{name} has another shape")));
            }
            let values = view.data().as_chunks::<4>().0;
            let values = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
            Ok(Some(flat(values, device)))
        };
        let [value, first, second] = SETS.map(read);
        parameter.value = value?
            .ok_or_else(|| unusable(&path, &format!("{} is missing", parameter.spec.name)))?;
        parameter.moments = match (first?, second?) {
            (Some(first), Some(second)) => Some([first, second]),
            _ => None,
        };
    }
    Ok(Some(step as usize))
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> Error {
    bad_input(format!(
        "{} can't be resumed from: {why}; move it away to begin again",
        path.display()
    ))
}

/// Writes the trained checkpoint as the Hub has it, with the `config.json` and the files of `model` around it.
pub fn write_checkpoint(
    model: &Path,
    mut config: Map<String, Value>,
    out: &Path,
    parameters: &Parameters,
    dtype: StoredDtype,
) -> Result<()> {
    let read = |name: &str| {
        std::fs::read(model.join(name)).map_err(|error| {
            Error::new(
                Code::BadModel,
                format!("{} can't be read: {error}", model.join(name).display()),
            )
        })
    };
    let tensors: Vec<_> = parameters
        .list
        .iter()
        .map(|parameter| (parameter.spec.clone(), parameter.value.clone()))
        .collect();
    // transformers refuses files that don't say so.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    write_safetensors(&out.join("model.safetensors"), &tensors, dtype, metadata)?;
    for name in COPIED {
        if model.join(name).is_file() {
            write_file(&out.join(name), &read(name)?)?;
        }
    }
    for section in ["text_config", "vision_config"] {
        if let Some(section) = config.get_mut(section).and_then(Value::as_object_mut) {
            section.remove("dtype");
            section.remove("torch_dtype");
        }
    }
    config.remove("torch_dtype");
    config.insert("dtype".into(), dtype.as_str().into());
    let config = serde_json::to_vec_pretty(&config).expect("JSON again");
    write_file(&out.join("config.json"), &config)
}
