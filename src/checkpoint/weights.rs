//! Weights alone, whichever program wrote them: checkpoints (ours, upstream's),
//! plain state dicts of `torch.save`, and safetensors files. Which of these a
//! file is, its content says, not its name.

use super::{Checkpoint, model_state, safetensors_file};
use crate::state::StateDict;
use crate::torch_file::{self, Value};
use anyhow::{Context, Result, anyhow};
use std::collections::BTreeMap;
use std::path::Path;

/// What kind of file it was.
#[derive(Debug)]
pub enum WeightsFile {
    /// A pre-training checkpoint of this program or of upstream's, whose weights have moved out.
    Checkpoint(Box<Checkpoint>),
    /// A dictionary of tensors, as `torch.save(model.state_dict())` writes it, perhaps inside another dictionary.
    StateDict,
    /// With the file's own notes (`__metadata__`).
    Safetensors(BTreeMap<String, String>),
}

/// Named tensors and where they come from.
#[derive(Debug)]
pub struct Weights {
    /// Without the prefix `module.` of multi-GPU runs.
    pub state: StateDict,
    pub file: WeightsFile,
}

/// Entries under which training programs keep the weights of a model.
const WRAPPERS: [&str; 4] = ["state_dict", "model", "model_state", "model_ema"];

/// Reads weights.
///
/// Errors: the file and what is wrong with it; a file without weights, with what it has.
pub fn read_weights(path: &Path) -> Result<Weights> {
    if safetensors_file::is_safetensors(path)? {
        let (state, notes) = safetensors_file::read(path)?;
        return Ok(Weights { state, file: WeightsFile::Safetensors(notes) });
    }
    let value = torch_file::read(path)?;
    if value.get("model_state_dict").is_some() {
        let mut checkpoint =
            Checkpoint::from_value(&value, path).with_context(|| format!("{} cannot be understood", path.display()))?;
        let state = std::mem::take(&mut checkpoint.model);
        return Ok(Weights { state, file: WeightsFile::Checkpoint(Box::new(checkpoint)) });
    }
    let state = plain_state(&value).with_context(|| format!("{} holds no weights", path.display()))?;
    Ok(Weights { state, file: WeightsFile::StateDict })
}

fn plain_state(root: &Value) -> Result<StateDict> {
    let holds_tensors =
        |value: &&Value| value.as_dict().is_some_and(|entries| entries.iter().any(|(_, v)| v.as_tensor().is_some()));
    let found =
        WRAPPERS.iter().filter_map(|key| root.get(key)).find(holds_tensors).or(Some(root).filter(holds_tensors));
    model_state(found.ok_or_else(|| {
        let entries = root.as_dict().map(|entries| {
            let names: Vec<&str> = entries.iter().filter_map(|(key, _)| key.as_str()).take(8).collect();
            format!("a dictionary of {}", names.join(", "))
        });
        anyhow!(
            "it is {}; wanted are tensors by name, or such a dictionary under one of {}",
            entries.unwrap_or_else(|| root.kind().to_string()),
            ["model_state_dict"].iter().chain(&WRAPPERS).copied().collect::<Vec<_>>().join(", ")
        )
    })?)
}
