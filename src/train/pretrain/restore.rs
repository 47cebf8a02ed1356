//! From a checkpoint into a network and an optimiser: a run continued, or a new
//! one begun with another's weights.

use crate::checkpoint::{self, Checkpoint};
use crate::config::{HeadMode, ModelConfig, Normalisation};
use crate::model::{Encoder, HEAD_PREFIX, NORMALISATION_PREFIX};
use crate::optim::Optimizer;
use crate::train::architecture;
use anyhow::{Context, Result, bail};
use std::path::Path;

/// What is to be done next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Counted from 0.
    pub epoch: u64,
    /// Within the epoch.
    pub batch: u64,
    /// Since the start of the run.
    pub step: u64,
}

/// Puts a checkpoint's state into the network and the optimiser and answers with what comes next.
pub fn restore(
    saved: &Checkpoint,
    encoder: &Encoder,
    optimizer: &mut dyn Optimizer,
    steps_per_epoch: u64,
) -> Result<Counters> {
    let parameters = encoder.parameters().len();
    if saved.optimizer.parameters != parameters {
        bail!("its optimiser has {} parameters, the model {parameters}", saved.optimizer.parameters);
    }
    encoder.load(&saved.model)?;
    optimizer.load(&|index, name| saved.optimizer.get(index, name))?;
    if saved.config.is_none() {
        // Written by PyTorch. The schedule's step count says how far the run came, if it fits this data and batch
        // size; else the file's name does.
        let whole = saved.step > 0 && saved.step.is_multiple_of(steps_per_epoch);
        let epoch = if whole { saved.step / steps_per_epoch } else { u64::from(saved.epochs_done) };
        return Ok(Counters { epoch, batch: 0, step: epoch * steps_per_epoch });
    }
    let at = Counters { epoch: u64::from(saved.epochs_done), batch: saved.batch_in_epoch, step: saved.step };
    if at.step != at.epoch * steps_per_epoch + at.batch {
        bail!(
            "it was saved after {} steps in epochs of another length than today's {steps_per_epoch}; the data set has \
             changed",
            at.step
        );
    }
    Ok(at)
}

/// Loads another program's or run's weights: with the head where it is the same, else the trunk alone. The answer says
/// what was taken.
///
/// Errors: a file without weights; another network than the run's, with the flags that would fit; every entry that is
/// missing, unexpected or of another shape.
pub fn load_weights(encoder: &Encoder, model: &ModelConfig, path: &Path) -> Result<String> {
    let weights = checkpoint::read_weights(path)?;
    let context = || format!("cannot start from {}", path.display());
    let (depth, stem) = architecture::recognise_trunk(&weights.state).with_context(context)?;
    if (depth, stem) != (model.depth, model.stem) {
        bail!(
            "{} holds a {depth} with the {stem} stem, the run has a {} with the {} stem: give --model {depth} --stem {stem}",
            path.display(),
            model.depth,
            model.stem
        );
    }
    let state = architecture::with_flat_normalisation(&weights.state).with_context(context)?;
    let own_head = architecture::recognise_head(&state);
    if own_head.mode != HeadMode::None && own_head == model.head {
        encoder.load(&state).with_context(context)?;
        return Ok(format!("starting from {}: {depth} with its projection head", path.display()));
    }
    encoder.load_backbone(&state).with_context(context)?;
    let left_out = state.iter().filter(|(name, _)| name.starts_with(HEAD_PREFIX)).count();
    let mut said = format!("starting from {}: the trunk of a {depth}", path.display());
    if left_out > 0 {
        said.push_str(&format!("; its head ({left_out} tensors under {HEAD_PREFIX}) is left out"));
    }
    said.push_str("; the projection head is new");
    if !state.iter().any(|(name, _)| name.starts_with(NORMALISATION_PREFIX)) {
        let Normalisation { mean, std } = model.normalisation;
        said.push_str(&format!("; it names no normalisation, so the run's is kept (mean {mean:?}, std {std:?})"));
    }
    Ok(said)
}
