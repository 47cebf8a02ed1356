//! Weights alone, whichever program wrote them: checkpoints (ours, upstream's),
//! whatever else `torch.save` wrote with tensors in it, and safetensors files.
//! Which of these a file is, its content says, not its name.

use super::{Checkpoint, Notes, safetensors_file, to_tensor};
use crate::state::StateDict;
use crate::torch_file::{self, Value};
use anyhow::{Context, Result, bail};
use std::path::Path;

/// What kind of file it was.
#[derive(Debug)]
pub enum WeightsFile {
    /// A checkpoint of this program, whose weights have moved out.
    Checkpoint(Box<Checkpoint>),
    /// Another program's file. What it says of its run, where it is laid out as upstream's checkpoints are.
    Foreign(Option<Box<Checkpoint>>),
    /// With the file's own notes (`__metadata__`).
    Safetensors(Notes),
}

/// Named tensors and where they come from.
#[derive(Debug)]
pub struct Weights {
    /// Those of the network, of a checkpoint of this program. Of another file all tensors in it, each called by the way
    /// to it: `state_dict.module.conv1.weight`.
    pub state: StateDict,
    pub file: WeightsFile,
}

/// Reads weights.
///
/// Errors: the file and what is wrong with it; a file without tensors, with what it has.
pub fn read_weights(path: &Path) -> Result<Weights> {
    if safetensors_file::is_safetensors(path)? {
        let (state, notes) = safetensors_file::read(path)?;
        return Ok(Weights { state, file: WeightsFile::Safetensors(notes) });
    }
    let value = torch_file::read(path)?;
    let ours = ["flatnce", "flatnce_evaluation"].iter().any(|entry| value.get(entry).is_some());
    let checkpoint = value.get("model_state_dict").map(|_| Checkpoint::from_value(&value, path));
    if ours && let Some(checkpoint) = checkpoint {
        let mut checkpoint = checkpoint.with_context(|| format!("{} cannot be understood", path.display()))?;
        let state = std::mem::take(&mut checkpoint.model);
        return Ok(Weights { state, file: WeightsFile::Checkpoint(Box::new(checkpoint)) });
    }
    let mut state = StateDict::new();
    let held =
        gather("", &value, &mut state).and_then(|()| if state.is_empty() { bail!(no_tensors(&value)) } else { Ok(()) });
    held.with_context(|| format!("{} holds no weights", path.display()))?;
    let run = checkpoint.and_then(Result::ok).map(|checkpoint| Checkpoint { model: StateDict::new(), ..checkpoint });
    Ok(Weights { state, file: WeightsFile::Foreign(run.map(Box::new)) })
}

/// Puts every tensor below `value`, to which `way` leads, into `state`.
fn gather(way: &str, value: &Value, state: &mut StateDict) -> Result<()> {
    match value {
        Value::Tensor(_) if state.get(way).is_some() => bail!("two of its tensors are called {way}"),
        Value::Tensor(tensor) => state.push(way, to_tensor(tensor)?),
        Value::Inert(object) => gather(way, &object.state, state)?,
        Value::Dict(entries) => {
            for (key, entry) in entries.iter() {
                let key = key.as_str().map_or_else(|| key.as_int().unwrap_or_default().to_string(), str::to_owned);
                gather(&if way.is_empty() { key } else { format!("{way}.{key}") }, entry, state)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn no_tensors(root: &Value) -> String {
    let entries = root.as_dict().map(|entries| {
        let names: Vec<&str> = entries.iter().filter_map(|(key, _)| key.as_str()).take(8).collect();
        format!("a dictionary of {}", names.join(", "))
    });
    format!(
        "it is {}; wanted are tensors by name, as torch.save(model.state_dict()) writes them, in dictionaries or not",
        entries.unwrap_or_else(|| root.kind().to_owned())
    )
}
