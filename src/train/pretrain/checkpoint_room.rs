//! The room that a run's checkpoints will take, told before its first step.

use super::session::Plan;
use crate::config::{OptimizerName, Pretrain};
use crate::data::grouped;
use crate::model::Encoder;
use crate::run_dir::{self, CheckpointKind, CheckpointName};
use crate::train::shortage::gib;
use anyhow::{Result, bail};
use std::path::Path;

/// What a checkpoint has beside the tensors: their names and places, the settings.
const FRAME_BYTES: u64 = 256 << 10;

/// How many checkpoints there will be, and how large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRoom {
    /// Of one file.
    bytes: u64,
    /// Those of the finished run, with those that lie there already.
    kept: usize,
    /// Those that lie there already.
    there: usize,
    /// Files beyond the kept ones, for a time: the newest is written before an older one goes.
    beside: usize,
    free: Option<u64>,
}

impl CheckpointRoom {
    /// Of a run that has `epochs_done` behind it and goes, or went, into `place`.
    pub fn of(run: &Pretrain, encoder: &Encoder, epochs_done: u64, steps_per_epoch: u64, place: &Path) -> Self {
        let size = |tensor: &tch::Tensor| tensor.numel() as u64 * tensor.kind().elt_size_in_bytes() as u64;
        let state: u64 = encoder.state_dict().iter().map(|(_, tensor)| size(tensor)).sum();
        let weights: u64 = encoder.parameters().iter().map(|p| size(&p.tensor)).sum();
        let moments = match run.optimizer.name {
            OptimizerName::Adam => 2,
            OptimizerName::Sgd if run.optimizer.momentum == 0.0 => 0,
            _ => 1,
        };
        let there: Vec<CheckpointName> = if epochs_done == 0 {
            Vec::new()
        } else {
            // Later ones are of a branch that the run leaves.
            let found = run_dir::list_checkpoints(place).unwrap_or_default().into_iter().map(|(name, _)| name);
            found.filter(|name| u64::from(name.epoch) <= epochs_done).collect()
        };
        let mut all = [there.clone(), names(run, epochs_done)].concat();
        all.sort_unstable();
        all.dedup();
        let policy = run.checkpoints;
        let kept = all.len() - run_dir::superseded(&all, policy.keep_last, policy.keep_every).len();
        let within = policy.every_n_steps.is_some_and(|steps| u64::from(steps) < steps_per_epoch);
        CheckpointRoom {
            bytes: state + moments * weights + FRAME_BYTES,
            kept,
            there: there.len(),
            beside: usize::from(policy.keep_last.is_some_and(|last| all.len() > last as usize))
                + 2 * usize::from(within),
            free: run_dir::free_room(place),
        }
    }

    /// What there will be, in words.
    pub fn describe(&self) -> String {
        let free = self.free.map_or(String::new(), |free| format!("; {} are free there", gib(free)));
        let (kept, each) = (grouped(self.kept), mib(self.bytes));
        match self.kept {
            1 => format!("1 will be kept, {each}{free}"),
            _ => format!("{kept} will be kept, {each} each, {} in all{free}", gib(self.bytes * self.kept as u64)),
        }
    }

    /// Whether all fit; `keep_last` is what the run asks for.
    ///
    /// Errors: they cannot all lie in `place`.
    pub fn check(&self, keep_last: Option<u32>, place: &Path) -> Result<()> {
        let Some(free) = self.free else { return Ok(()) };
        let fit = (free / self.bytes) as usize;
        let wanted = self.kept.saturating_sub(self.there) + self.beside;
        if wanted <= fit {
            return Ok(());
        }
        let here = fit + self.there;
        // One is written while the others lie there.
        let last = here.saturating_sub(1).min(3);
        let fewer = if last >= 1 && keep_last.is_none_or(|now| now as usize > last) {
            format!("keep the newest only with --keep-last {last}, save less often with --save-every-n-epochs, ")
        } else {
            String::new()
        };
        bail!(
            "the checkpoints cannot all be written: room for {} of {} each is wanted, {}, and {} are free at {}; {fewer}free \
             some, or choose another place with --save-dir",
            grouped(wanted),
            mib(self.bytes),
            gib(self.bytes * wanted as u64),
            gib(free),
            place.display(),
        );
    }
}

/// Those that the run will write after whole epochs, the ones that go again included.
fn names(run: &Pretrain, epochs_done: u64) -> Vec<CheckpointName> {
    let epochs = u64::from(run.epochs);
    if epochs_done >= epochs && epochs > 0 {
        return Vec::new();
    }
    let due = |epoch: &u64| epoch.is_multiple_of(u64::from(run.save_every_n_epochs));
    let within = (epochs_done..epochs.saturating_sub(1)).filter(due).chain([epochs]);
    within.map(|epoch| CheckpointName { epoch: epoch as u32, kind: CheckpointKind::Finished }).collect()
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

impl Plan {
    /// What its checkpoints will take.
    ///
    /// Errors: more than there is.
    pub fn room(&self, run: &Pretrain) -> Result<String> {
        let session = &self.session;
        let steps_per_epoch = session.loader.batches() as u64;
        let room = CheckpointRoom::of(run, &session.encoder, session.at.epoch, steps_per_epoch, &self.place);
        if session.steps_left() > 0 {
            room.check(run.checkpoints.keep_last, &self.place)?;
        }
        Ok(room.describe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(kept: usize, there: usize, beside: usize, free: u64) -> CheckpointRoom {
        CheckpointRoom { bytes: 100 << 20, kept, there, beside, free: Some(free) }
    }

    #[test]
    fn what_just_fits_is_allowed() {
        let check = |room: CheckpointRoom| room.check(None, Path::new("somewhere"));
        assert!(check(room(10, 0, 0, 1000 << 20)).is_ok());
        assert!(check(room(10, 9, 0, 100 << 20)).is_ok(), "nine lie there already");
        assert!(check(room(2, 2, 1, 100 << 20)).is_ok(), "one is written before one goes");
        assert!(check(room(2, 2, 1, 99 << 20)).is_err());
        let error = check(room(10, 0, 0, 999 << 20)).unwrap_err().to_string();
        assert!(error.contains("room for 10 of 100.0 MiB") && error.contains("--keep-last 3"), "{error}");
        let error = check(room(10, 0, 0, 99 << 20)).unwrap_err().to_string();
        assert!(!error.contains("--keep-last") && error.contains("--save-dir"), "{error}");
    }
}
