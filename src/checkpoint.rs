//! Checkpoints: what a run needs to continue, in the form that `torch.save`
//! writes and upstream's scripts read (upstream: `utils.save_checkpoint`).
//!
//! ```text
//! {batch_size, epoch, model, model_state_dict,
//!  optimizer: {state: {index: {...}}, param_groups}, scheduler: {LambdaLR's},
//!  scaler: {GradScaler's, with fp16},
//!  flatnce: {format, config, step, batch_in_epoch, ...}}
//! ```
//!
//! Upstream's own files lack `flatnce` and are read all the same. Knows no
//! architecture: tensors have names and indices, no meaning.

mod evaluation;
mod optimizer;
mod room;
mod safetensors_file;
mod scaler;
mod tensors;
mod weights;

pub use evaluation::{Best, Chosen, EpochPart, EvaluationCheckpoint, LastEpoch, read_evaluation, write_evaluation};
pub use optimizer::{OptimizerState, SavedOptimizer};
pub use safetensors_file::{Notes, is_safetensors, safetensors_bytes, write_bytes, write_safetensors};
use tensors::{first_not_finite, from_state, to_state};
pub use tensors::{from_tensor, to_tensor};
pub use weights::{Weights, WeightsFile, read_weights};

use crate::config::{Evaluate, KeyPrefix, Pretrain, Range, Settings};
use crate::durable;
use crate::run_dir::{self, Lineage};
use crate::state::{DataMarks, ScalerState, StateDict};
use crate::torch_file::{self, Dict, Value};
use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// The layout of the entries `flatnce` and `flatnce_evaluation`; a reader refuses newer ones.
const FORMAT: i64 = 1;

/// Everything saved of a pre-training run. Tensors are on the CPU and belong to the checkpoint alone.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// Whole epochs done.
    pub epochs_done: u32,
    /// Steps done since the start of the run.
    pub step: u64,
    /// Batches of the epoch under way already trained; 0 after a whole epoch.
    pub batch_in_epoch: u64,
    /// State of the encoder without the prefix `module.` of multi-GPU runs.
    pub model: StateDict,
    pub optimizer: SavedOptimizer,
    /// The run's configuration; `None` in a file that PyTorch wrote.
    pub config: Option<Pretrain>,
    /// Upstream's name of the model, such as `res50`.
    pub model_name: Option<String>,
    pub batch_size: Option<u32>,
    /// Side of the images that it was trained on; a network that was fine-tuned says it too.
    pub image_size_px: Option<u32>,
    pub epoch_rows: Option<EpochRows>,
    /// State of a temperature that is steered.
    pub temperature: Option<Vec<f64>>,
    /// State of the gradient scaler of fp16.
    pub scaler: Option<ScalerState>,
    /// What the objective keeps between steps; of most it is nothing.
    pub loss: StateDict,
    /// The run's branches that led here.
    pub lineage: Lineage,
    /// What the images were that it was trained on.
    pub data: Option<DataMarks>,
    /// Of libtorch's on a CPU.
    pub threads: Option<u32>,
}

/// Statistics of the steps of the epoch under way: what its report is made of.
#[derive(Debug)]
pub struct EpochRows {
    /// Names of the columns; none in the files of older versions.
    pub columns: Vec<String>,
    /// `[steps, columns]` float32.
    pub rows: Tensor,
}

/// A checkpoint as it goes to disk: a copy of every number, so that training may go on while it is written.
#[derive(Debug)]
pub struct Snapshot(Value);

impl Checkpoint {
    /// Copies everything.
    ///
    /// Errors: a tensor of a type that PyTorch files do not have.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.to_value().map(Snapshot)
    }

    /// The tree that `torch.load` returns.
    fn to_value(&self) -> Result<Value> {
        let config =
            self.config.as_ref().ok_or_else(|| anyhow!("a checkpoint without configuration is not written"))?;
        let prefix = if config.checkpoints.prefix == KeyPrefix::Module { "module." } else { "" };
        let mut ours = own_entry(config, self.epochs_done, self.step)?;
        ours.insert("batch_in_epoch", i64::try_from(self.batch_in_epoch)?);
        if let Some(EpochRows { columns, rows }) = &self.epoch_rows {
            ours.insert("epoch_columns", Value::List(columns.iter().map(|name| name.as_str().into()).collect()));
            ours.insert("epoch_rows", from_tensor(rows)?);
        }
        if !self.loss.is_empty() {
            ours.insert("loss", from_state(&self.loss, "")?);
        }
        ours.insert("lineage", serde_json::to_string(&self.lineage)?.as_str());
        if let Some(marks) = &self.data {
            ours.insert("data", serde_json::to_string(marks)?.as_str());
        }
        if let Some(threads) = self.threads {
            ours.insert("threads", i64::from(threads));
        }
        if let Some(state) = &self.temperature {
            ours.insert("temperature", Value::List(state.iter().copied().map(Value::Float).collect()));
        }

        let mut root = Dict::new();
        root.insert("batch_size", i64::from(config.batch_size));
        // As in the file's name: the epoch just finished, counted from 0.
        root.insert("epoch", i64::from(self.epochs_done.saturating_sub(1)));
        root.insert("model", config.model.depth.name());
        root.insert("model_state_dict", from_state(&self.model, prefix)?);
        root.insert("optimizer", self.optimizer.to_value(&config.optimizer)?);
        root.insert("scheduler", self.optimizer.scheduler_value(&config.optimizer, self.step)?);
        if let Some(state) = &self.scaler {
            root.insert("scaler", scaler::to_value(state));
        }
        root.insert("flatnce", Value::Dict(ours));
        Ok(Value::Dict(root))
    }

    /// Reads the tree of one of our files, or of upstream's; `path` gives the epoch of the latter, as upstream takes it
    /// from the file's name.
    fn from_value(value: &Value, path: &Path) -> Result<Checkpoint> {
        let root = value.as_dict().ok_or_else(|| anyhow!("it holds {} instead of a dictionary", value.kind()))?;
        let model = model_state(root.get("model_state_dict").ok_or_else(|| {
            anyhow!("it has no entry model_state_dict; pre-trained weights of other programs go to --from-pretrained")
        })?)?;
        let optimizer = SavedOptimizer::from_value(root.get("optimizer"))?;
        let named_epoch =
            path.file_name().and_then(|name| run_dir::CheckpointName::parse(name.to_str()?)).map(|name| name.epoch);
        let scheduled = root.get("scheduler").and_then(|s| s.get("last_epoch")).and_then(Value::as_int);
        // Upstream saves the number of epochs asked for as `epoch`; only its file name tells how far it came.
        let (mut config, mut epochs_done, mut batch_in_epoch) = (None, named_epoch.map_or(0, |epoch| epoch + 1), 0);
        let (mut epoch_rows, mut temperature, mut loss) = (None, None, StateDict::new());
        let (mut lineage, mut data, mut threads) = (None, None, None);
        let mut step = scheduled.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        if let Some(ours) = root.get("flatnce") {
            config = Some(settings(ours)?);
            epochs_done = count(ours, "epochs_done")?;
            step = count(ours, "step")?;
            batch_in_epoch = count(ours, "batch_in_epoch")?;
            let names = ours.get("epoch_columns").and_then(Value::as_list).unwrap_or_default();
            let columns = names.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            let rows = ours.get("epoch_rows").and_then(Value::as_tensor).map(to_tensor).transpose()?;
            epoch_rows = rows.map(|rows| EpochRows { columns, rows });
            if let Some(state) = ours.get("loss") {
                loss = model_state(state).context("flatnce.loss cannot be understood")?;
            }
            (lineage, data) = (json_entry(ours, "lineage")?, json_entry(ours, "data")?);
            threads = ours.get("threads").map(|_| count(ours, "threads")).transpose()?;
            temperature = ours
                .get("temperature")
                .and_then(Value::as_list)
                .map(|state| state.iter().filter_map(Value::as_f64).collect::<Vec<f64>>());
            if let Some(state) = &temperature
                && !state.first().is_some_and(|&value| Range::ABOVE_ZERO.allows(value))
            {
                bail!("its entry temperature begins with {:?}; that has to be {}", state.first(), Range::ABOVE_ZERO);
            }
        }
        let evaluated: Option<Evaluate> = root.get("flatnce_evaluation").map(settings).transpose()?;
        let trained_on = config.as_ref().map(|run: &Pretrain| &run.data).or(evaluated.as_ref().map(|run| &run.data));
        let image_size_px = trained_on.map(|images| images.image_size_px);
        Ok(Checkpoint {
            image_size_px,
            epochs_done,
            step,
            batch_in_epoch,
            model,
            optimizer,
            config,
            model_name: root.get("model").and_then(Value::as_str).map(str::to_owned),
            batch_size: root.get("batch_size").and_then(Value::as_int).and_then(|n| u32::try_from(n).ok()),
            epoch_rows,
            temperature,
            scaler: root.get("scaler").map(scaler::from_value).transpose()?.flatten(),
            loss,
            lineage: lineage.unwrap_or_default(),
            data,
            threads,
        })
    }
}

/// How our own entry begins.
fn own_entry(config: &impl Serialize, epochs_done: u32, step: u64) -> Result<Dict> {
    Ok(Dict::from_iter([
        ("format", Value::from(FORMAT)),
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("config", serde_json::to_string(config)?.into()),
        ("epochs_done", i64::from(epochs_done).into()),
        ("step", i64::try_from(step)?.into()),
    ]))
}

/// The entry `key` of a dictionary, as `read` understands it.
fn entry<'a, T>(of: &'a Value, key: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<T> {
    of.get(key).and_then(read).ok_or_else(|| anyhow!("its entry {key} is missing or of another type"))
}

/// The entry `key` of a dictionary, a count.
fn count<T: TryFrom<i64>>(of: &Value, key: &str) -> Result<T> {
    entry(of, key, |value| T::try_from(value.as_int()?).ok())
}

/// The entry `key` of a dictionary, JSON; `None` where an older version wrote none.
fn json_entry<T: DeserializeOwned>(of: &Value, key: &str) -> Result<Option<T>> {
    let Some(_) = of.get(key) else { return Ok(None) };
    let read = serde_json::from_str(entry(of, key, Value::as_str)?);
    read.with_context(|| format!("its entry {key} cannot be understood")).map(Some)
}

/// The settings in one of our own entries, whose format is checked.
fn settings<T: Settings>(ours: &Value) -> Result<T> {
    let format: i64 = count(ours, "format")?;
    if format > FORMAT {
        bail!("its format {format} is newer than this program's {FORMAT}; use a newer flatnce");
    }
    T::from_json(entry(ours, "config", Value::as_str)?)
}

/// A dictionary of tensors, without the prefix that `torch.nn.DataParallel` puts before every name.
fn model_state(value: &Value) -> Result<StateDict> {
    let entries = value.as_dict().ok_or_else(|| anyhow!("model_state_dict is {}", value.kind()))?;
    let tensors = entries.iter().map(|(key, value)| {
        let name = key.as_str().ok_or_else(|| anyhow!("model_state_dict has a key that is {}", key.kind()))?;
        let tensor = value.as_tensor().ok_or_else(|| anyhow!("{name} is {} instead of a tensor", value.kind()))?;
        Ok((name, to_tensor(tensor)?))
    });
    to_state("model_state_dict", tensors)
}

impl Snapshot {
    /// Writes the checkpoint so that the file is whole or not there, and returns its size in bytes.
    ///
    /// Errors: a number in the model or the optimiser that is not finite (nothing is written); no space, with the size
    /// needed; no permission.
    pub fn write(&self, path: &Path) -> Result<u64> {
        check_finite(path, &self.0, &["model_state_dict", "optimizer"])?;
        write_value(path, &self.0)
    }
}

/// [`Checkpoint::snapshot`] and [`Snapshot::write`] in one.
pub fn write(path: &Path, checkpoint: &Checkpoint) -> Result<u64> {
    checkpoint.snapshot()?.write(path)
}

/// Checks that every record of a checkpoint file has the checksum it was written with.
///
/// Errors: the file and the record at fault.
pub fn verify(path: &Path) -> Result<()> {
    Ok(torch_file::verify(path)?)
}

/// Writes a plain state dict, as `torch.save(model.state_dict(), path)` does, and returns the file's size in bytes.
///
/// Errors: no space, with the size needed; no permission.
pub fn write_state_dict(path: &Path, state: &StateDict) -> Result<u64> {
    write_value(path, &from_state(state, "")?)
}

/// Errors: a number in one of these entries of what is to be written to `path` is not finite.
fn check_finite(path: &Path, root: &Value, entries: &[&str]) -> Result<()> {
    match entries.iter().find_map(|name| first_not_finite(name, root.get(name)?)) {
        Some(name) => bail!("{name} holds a number that is not finite; {} is not written", path.display()),
        None => Ok(()),
    }
}

/// Writes what `torch.load` is to return, and returns the file's size in bytes.
fn write_value(path: &Path, value: &Value) -> Result<u64> {
    // PyTorch names the folder inside the archive after the file, without its last extension.
    let archive = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("checkpoint").to_owned();
    let mut written = 0;
    let replaced = durable::replace(path, |file| {
        written = torch_file::write(file, &archive, value)?;
        Ok(())
    });
    let bytes = || torch_file::write(&mut std::io::sink(), &archive, value).ok();
    replaced.map_err(|error| room::explained(error, path, bytes))?;
    Ok(written)
}

/// Reads and verifies a checkpoint: every record's checksum before any of it is used.
///
/// Errors: the file and the entry at fault.
pub fn read(path: &Path) -> Result<Checkpoint> {
    let value = torch_file::read(path)?;
    Checkpoint::from_value(&value, path)
        .with_context(|| format!("{} is no checkpoint of a pre-training run", path.display()))
}

/// Reads the newest checkpoint of a directory's run that verifies; damaged ones, and those of another run or of a branch
/// that the run has left, are named through `warn` and passed over.
///
/// Errors: the directory has no checkpoint, or none to go on from, with the fault of each.
pub fn newest_good(directory: &Path, warn: &mut dyn FnMut(String)) -> Result<(PathBuf, Checkpoint)> {
    let found = run_dir::list_checkpoints(directory)?;
    if found.is_empty() {
        bail!("{} holds no checkpoint (checkpoint_NNNN.pth.tar)", directory.display());
    }
    let run = run_dir::read_lineage(directory).unwrap_or_else(|error| {
        warn(format!("{error:#}; every checkpoint beside it counts as the run's"));
        None
    });
    let run = run.unwrap_or_default();
    let mut faults = Vec::new();
    for (_, path) in found.into_iter().rev() {
        let fault = match read(&path) {
            Ok(checkpoint) => match run.stranger(&checkpoint.lineage, checkpoint.step) {
                None => {
                    faults.into_iter().for_each(warn);
                    return Ok((path, checkpoint));
                }
                Some(reason) => reason.to_owned(),
            },
            Err(error) => format!("{error:#}"),
        };
        faults.push(format!("{} is passed over: {fault}", path.display()));
    }
    bail!(
        "none of the {} checkpoints in {} can be continued or used:\n  {}",
        faults.len(),
        directory.display(),
        faults.join("\n  ")
    )
}
