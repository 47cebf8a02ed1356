//! Checkpoints of an evaluation under way, under upstream's names.
//!
//! ```text
//! linear:       {fc_model_state_dict, fc_optimizer, fc_scheduler, best_top1_acc, best_top5_acc, best_epoch, epoch, flatnce_evaluation}
//! fine-tuning:  {model_state_dict, optimizer, scheduler, best_top1_acc, ...}
//! ```
//!
//! A fine-tuned network's file is a checkpoint of an encoder too: it can be evaluated itself.

use super::optimizer::SavedOptimizer;
use super::tensors::from_state;
use super::{check_finite, count, entry, json_entry, model_state, own_entry, scaler, settings, write_value};
use crate::config::{Evaluate, Range, TransferMode};
use crate::state::{ScalerState, StateDict};
use crate::torch_file::{self, Dict, Value};
use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use std::path::Path;

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

/// What fine-tuning has counted of an epoch under way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EpochPart {
    /// Batches behind it.
    pub batches: u64,
    pub loss_sum: f64,
    pub losses: u64,
    /// Training images right in the first place, among the first five, and all of them.
    pub counted: [u64; 3],
}

/// What the last whole epoch gave, percent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastEpoch {
    pub train_top1: f64,
    pub test_top1: f64,
    pub test_top5: f64,
}

/// Everything saved of an evaluation.
#[derive(Debug)]
pub struct EvaluationCheckpoint {
    /// The evaluation's settings; its mode says what `state` is of.
    pub run: Evaluate,
    pub epochs_done: u32,
    /// Of the epoch after these, where it had begun.
    pub part: Option<EpochPart>,
    pub step: u64,
    /// Of the classifier, or of the whole network.
    pub state: StateDict,
    pub optimizer: SavedOptimizer,
    /// Of fine-tuning in fp16.
    pub scaler: Option<ScalerState>,
    pub best: Best,
    /// Where held-out images decide when to stop.
    pub chosen: Option<Chosen>,
    /// `None` before the end of the first epoch, and in files of older versions.
    pub last: Option<LastEpoch>,
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

const PART_COUNTS: [&str; 5] = ["batches", "losses", "top1", "top5", "images"];

impl EpochPart {
    /// In the order of [`PART_COUNTS`].
    fn counts(&self) -> [u64; 5] {
        let [top1, top5, images] = self.counted;
        [self.batches, self.losses, top1, top5, images]
    }

    fn from_value(value: &Value) -> Result<EpochPart> {
        let mut counts = [0; 5];
        for (name, into) in PART_COUNTS.into_iter().zip(&mut counts) {
            *into = count(value, name)?;
        }
        let [batches, losses, counted @ ..] = counts;
        Ok(EpochPart { batches, loss_sum: entry(value, "loss_sum", Value::as_f64)?, losses, counted })
    }
}

impl EvaluationCheckpoint {
    fn to_value(&self) -> Result<Value> {
        let [state, optimizer, scheduler] = entry_names(self.run.mode);
        let mut ours = own_entry(&self.run, self.epochs_done, self.step)?;
        ours.insert("reg_weight", self.reg_weight);
        ours.insert("trunk_hash", self.trunk_hash.as_str());
        if let Some(part) = &self.part {
            let mut counts = Dict::new();
            counts.insert("loss_sum", part.loss_sum);
            for (name, count) in PART_COUNTS.into_iter().zip(part.counts()) {
                counts.insert(name, count as i64);
            }
            ours.insert("epoch_part", Value::Dict(counts));
        }
        if let Some(chosen) = &self.chosen {
            ours.insert("chosen", serde_json::to_string(chosen)?);
        }
        if let Some(last) = &self.last {
            ours.insert("last_epoch", serde_json::to_string(last)?);
        }

        let mut root = Dict::new();
        root.insert("epoch", i64::from(self.epochs_done.saturating_sub(1)));
        root.insert(state, from_state(&self.state, "")?);
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
        let run: Evaluate = settings(ours)?;
        let part = ours.get("epoch_part").map(EpochPart::from_value).transpose();
        let [state, optimizer, _] = entry_names(run.mode);
        let reg_weight = entry(ours, "reg_weight", Value::as_f64)?;
        if !Range::NOT_NEGATIVE.allows(reg_weight) {
            bail!("its entry reg_weight is {reg_weight}; it has to be {}", Range::NOT_NEGATIVE);
        }
        Ok(EvaluationCheckpoint {
            epochs_done: count(ours, "epochs_done")?,
            part: part.context("its entry epoch_part cannot be understood")?,
            step: count(ours, "step")?,
            state: model_state(entry(value, state, Some)?)?,
            optimizer: SavedOptimizer::from_value(value.get(optimizer))?,
            scaler: value.get("scaler").map(scaler::from_value).transpose()?.flatten(),
            best: Best {
                top1: entry(value, "best_top1_acc", Value::as_f64)?,
                top5: entry(value, "best_top5_acc", Value::as_f64)?,
                epoch: count(value, "best_epoch")?,
            },
            chosen: json_entry(ours, "chosen")?,
            last: json_entry(ours, "last_epoch")?,
            reg_weight,
            trunk_hash: entry(ours, "trunk_hash", Value::as_str)?.to_owned(),
            run,
        })
    }
}

/// Writes the checkpoint so that the file is whole or not there.
///
/// Errors: a number in the state that is not finite (nothing is written); no space, no permission.
pub fn write_evaluation(path: &Path, checkpoint: &EvaluationCheckpoint) -> Result<()> {
    let value = checkpoint.to_value()?;
    let [state, ..] = entry_names(checkpoint.run.mode);
    check_finite(path, &value, &[state])?;
    write_value(path, &value).map(drop)
}

/// Reads and verifies the checkpoint of an evaluation.
///
/// Errors: the file and the entry at fault.
pub fn read_evaluation(path: &Path) -> Result<EvaluationCheckpoint> {
    let value = torch_file::read(path)?;
    EvaluationCheckpoint::from_value(&value)
        .with_context(|| format!("{} is no checkpoint of an evaluation", path.display()))
}
