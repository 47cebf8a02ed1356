//! From a checkpoint into a network and an optimiser: a run continued.

use crate::checkpoint::{Checkpoint, OptimizerState};
use crate::model::Encoder;
use crate::optim::{Optimizer, keeps_state};
use anyhow::{Result, bail};

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
    complete(&saved.optimizer.state, parameters)?;
    encoder.load(&saved.model)?;
    optimizer.load(&|index, name| saved.optimizer.get(index, name))?;
    let Some(config) = &saved.config else {
        // Written by PyTorch. The schedule's step count says how far the run came, if it fits this data and batch
        // size; else the file's name does.
        let whole = saved.step > 0 && saved.step.is_multiple_of(steps_per_epoch);
        let epoch = if whole { saved.step / steps_per_epoch } else { u64::from(saved.epochs_done) };
        return Ok(Counters { epoch, batch: 0, step: epoch * steps_per_epoch });
    };
    let at = Counters { epoch: u64::from(saved.epochs_done), batch: saved.batch_in_epoch, step: saved.step };
    // Where every step of fp16 so far has overflowed, none has been taken.
    let none_taken = saved.scaler.as_ref().is_some_and(|scaler| scaler.growth_tracker == 0);
    if at.step > 0 && saved.optimizer.state.is_empty() && keeps_state(&config.optimizer) && !none_taken {
        bail!("its optimiser has no state after {} steps; continue from another checkpoint", at.step);
    }
    if at.batch >= steps_per_epoch {
        bail!("it is {} steps into an epoch, and an epoch has {steps_per_epoch}", at.batch);
    }
    if at.step != at.epoch * steps_per_epoch + at.batch {
        bail!(
            "it was saved after {} steps in epochs of another length than today's {steps_per_epoch}; the data set has \
             changed",
            at.step
        );
    }
    Ok(at)
}

/// Every parameter has been in every step: what the optimiser keeps of one it keeps of all.
///
/// Errors: of some it is missing.
fn complete(state: &OptimizerState, parameters: usize) -> Result<()> {
    let mut names: Vec<&str> = state.iter().map(|(_, name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let there = state.iter().filter(|(_, other, _)| other == name).count();
        if there != parameters {
            bail!(
                "its optimiser's {name} is there for {there} of {parameters} parameters; the file is incomplete: continue \
                 from another checkpoint"
            );
        }
    }
    Ok(())
}
