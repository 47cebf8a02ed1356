//! Checkpoints of an evaluation under way, under upstream's names.
//!
//! ```text
//! linear:       {fc_model_state_dict, fc_optimizer, fc_scheduler, best_top1_acc, best_top5_acc, best_epoch, epoch, flatnce_evaluation}
//! fine-tuning:  {model_state_dict, optimizer, scheduler, best_top1_acc, ...}
//! ```
//!
//! A fine-tuned network's file is a checkpoint of an encoder too: it can be evaluated itself.

use super::optimizer::SavedOptimizer;
use super::{model_state, scaler, tensors_of, write_value};
use crate::config::{Evaluate, TransferMode};
use crate::state::{ScalerState, StateDict};
use crate::torch_file::{self, Dict, Value};
use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The layout of the `flatnce_evaluation` entry; a reader refuses newer ones.
const FORMAT: i64 = 1;

/// The best epoch so far, by top-1 on the test images. Accuracies are percent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Best {
    pub top1: f64,
    pub top5: f64,
    /// Counted from 0.
    pub epoch: u32,
}

/// The epoch that held-out training images like best so far, and what the test images say of it. Accuracies are percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// Counted from 0.
    pub chosen_epoch: u32,
    /// Of the held-out images.
    pub held_out_top1: f64,
    pub test_top1_chosen_epoch: f64,
    pub test_top5_chosen_epoch: f64,
}

/// Everything saved of an evaluation.
#[derive(Debug)]
pub struct EvaluationCheckpoint {
    /// The evaluation's settings; its mode says what `state` is of.
    pub run: Evaluate,
    pub epochs_done: u32,
    pub step: u64,
    /// Of the classifier, or of the whole network.
    pub state: StateDict,
    pub optimizer: SavedOptimizer,
    /// Of fine-tuning in fp16.
    pub scaler: Option<ScalerState>,
    pub best: Best,
    /// Where held-out images decide when to stop.
    pub chosen: Option<Chosen>,
    /// The penalty that was chosen.
    pub reg_weight: f64,
    /// Of the encoder that the evaluation began with.
    pub trunk_hash: String,
}

/// Names of the entries for state, optimiser and schedule.
fn entry_names(mode: TransferMode) -> [&'static str; 3] {
    match mode {
        TransferMode::LinearEval => ["fc_model_state_dict", "fc_optimizer", "fc_scheduler"],
        TransferMode::Finetune => ["model_state_dict", "optimizer", "scheduler"],
    }
}

impl EvaluationCheckpoint {
    fn to_value(&self) -> Result<Value> {
        let [state, optimizer, scheduler] = entry_names(self.run.mode);
        let mut ours = Dict::new();
        ours.insert("format", FORMAT);
        ours.insert("version", env!("CARGO_PKG_VERSION"));
        ours.insert("config", serde_json::to_string(&self.run)?);
        ours.insert("epochs_done", i64::from(self.epochs_done));
        ours.insert("step", i64::try_from(self.step)?);
        ours.insert("reg_weight", self.reg_weight);
        ours.insert("trunk_hash", self.trunk_hash.as_str());
        if let Some(chosen) = &self.chosen {
            ours.insert("chosen", serde_json::to_string(chosen)?);
        }

        let mut root = Dict::new();
        root.insert("epoch", i64::from(self.epochs_done.saturating_sub(1)));
        root.insert(state, tensors_of(&self.state, "")?);
        root.insert(optimizer, self.optimizer.to_value(&self.run.optimizer)?);
        root.insert(scheduler, self.optimizer.scheduler_value(&self.run.optimizer, self.step)?);
        if let Some(state) = &self.scaler {
            root.insert("scaler", scaler::to_value(state));
        }
        root.insert("best_top1_acc", self.best.top1);
        root.insert("best_top5_acc", self.best.top5);
        root.insert("best_epoch", i64::from(self.best.epoch));
        root.insert("flatnce_evaluation", Value::Dict(ours));
        Ok(Value::Dict(root))
    }

    fn from_value(value: &Value) -> Result<EvaluationCheckpoint> {
        let ours = value.get("flatnce_evaluation").ok_or_else(|| {
            anyhow!("it has no entry flatnce_evaluation: an evaluation begun by another program cannot be continued")
        })?;
        let missing = |key: &str| anyhow!("its entry {key} is missing or of another type");
        let int = |of: &Value, key: &str| of.get(key).and_then(Value::as_int).ok_or_else(|| missing(key));
        let float = |of: &Value, key: &str| of.get(key).and_then(Value::as_f64).ok_or_else(|| missing(key));
        let text = |key: &str| ours.get(key).and_then(Value::as_str).ok_or_else(|| missing(key));
        let format = int(ours, "format")?;
        if format > FORMAT {
            bail!("its format {format} is newer than this program's {FORMAT}; use a newer flatnce");
        }
        let run: Evaluate = serde_json::from_str(text("config")?).context("its settings cannot be understood")?;
        let chosen = ours.get("chosen").and_then(Value::as_str).map(serde_json::from_str).transpose();
        let [state, optimizer, _] = entry_names(run.mode);
        Ok(EvaluationCheckpoint {
            epochs_done: int(ours, "epochs_done")?.try_into()?,
            step: int(ours, "step")?.try_into()?,
            state: model_state(value.get(state).ok_or_else(|| missing(state))?)?,
            optimizer: SavedOptimizer::from_value(value.get(optimizer))?,
            scaler: value.get("scaler").map(scaler::from_value).transpose()?.flatten(),
            best: Best {
                top1: float(value, "best_top1_acc")?,
                top5: float(value, "best_top5_acc")?,
                epoch: int(value, "best_epoch")?.try_into()?,
            },
            chosen: chosen.context("its entry chosen cannot be understood")?,
            reg_weight: float(ours, "reg_weight")?,
            trunk_hash: text("trunk_hash")?.to_owned(),
            run,
        })
    }
}

/// Writes the checkpoint so that the file is whole or not there.
///
/// Errors: a number in the state that is not finite (nothing is written); no space, no permission.
pub fn write_evaluation(path: &Path, checkpoint: &EvaluationCheckpoint) -> Result<()> {
    if let Some(name) = checkpoint.state.first_not_finite() {
        bail!("{name} holds a number that is not finite; {} is not written", path.display());
    }
    write_value(path, &checkpoint.to_value()?)?;
    Ok(())
}

/// Reads and verifies the checkpoint of an evaluation.
///
/// Errors: the file and the entry at fault.
pub fn read_evaluation(path: &Path) -> Result<EvaluationCheckpoint> {
    let value = torch_file::read(path)?;
    EvaluationCheckpoint::from_value(&value)
        .with_context(|| format!("{} is no checkpoint of an evaluation", path.display()))
}
