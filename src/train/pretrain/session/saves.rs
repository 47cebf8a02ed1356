//! A run's checkpoints: when they are due, what goes into them, what became of them.

use super::{Ended, Session};
use crate::checkpoint::{Checkpoint, SavedOptimizer};
use crate::optim::Scaler;
use crate::run_dir::{CheckpointKind, CheckpointName};
use crate::train::pretrain::saver::Written;
use crate::train::pretrain::tally::Tally;
use anyhow::Result;
use tch::Device;

impl Session {
    /// Whether `--save-every-n-steps` asks for a checkpoint after this step.
    pub fn save_due(&self) -> bool {
        self.pretrain.checkpoints.every_n_steps.is_some_and(|every| self.at.step.is_multiple_of(u64::from(every)))
    }

    /// Begins a checkpoint in the middle of an epoch, after a look at its losses.
    pub fn save_within_epoch(&mut self, tally: &mut Tally) -> Result<()> {
        self.check_loss(tally)?;
        self.log.record_steps(&tally.new_records());
        let kind = CheckpointKind::Within { step: self.at.step };
        self.begin_save(CheckpointName { epoch: self.at.epoch as u32, kind }, Some(tally))
    }

    /// Ends a run that was asked to stop and whose state is being saved.
    pub fn stopped(&mut self) -> Result<Ended> {
        self.wait_for_save()?;
        self.log.note(&format!("stopped on request; continue with: flatnce --resume {}", self.directory.display()));
        Ok(Ended::Stopped)
    }

    pub(super) fn begin_save(&mut self, name: CheckpointName, tally: Option<&Tally>) -> Result<()> {
        self.sync_batch_norm_statistics()?;
        if !self.writes {
            self.last_begun = Some(name);
            return Ok(());
        }
        let checkpoint = Checkpoint {
            epochs_done: self.at.epoch as u32,
            step: self.at.step,
            batch_in_epoch: self.at.batch,
            model: self.encoder.state_dict(),
            optimizer: SavedOptimizer::of(
                self.optimizer.state(),
                self.parameters.len(),
                self.schedule.lr(self.at.step),
            ),
            config: Some(self.pretrain.clone()),
            model_name: Some(self.pretrain.model.depth.name().to_owned()),
            batch_size: Some(self.pretrain.batch_size),
            image_size_px: Some(self.pretrain.data.image_size_px),
            epoch_rows: tally.map(Tally::saved),
            temperature: self.temperature.state(),
            scaler: self.scaler.as_ref().map(Scaler::state),
            loss: self.loss.state(),
            lineage: self.lineage.clone(),
            data: Some(self.data),
            threads: (self.device == Device::Cpu).then(|| tch::get_num_threads() as u32),
        };
        let before = self.saver.begin(name, &checkpoint)?;
        self.last_begun = Some(name);
        self.note_written(before);
        Ok(())
    }

    /// Looks, without waiting, what became of the save under way.
    pub fn poll_save(&mut self) -> Result<()> {
        let written = self.saver.poll()?;
        self.note_written(written);
        Ok(())
    }

    /// Waits for the save under way.
    pub fn wait_for_save(&mut self) -> Result<()> {
        let written = self.saver.finish()?;
        self.note_written(written);
        Ok(())
    }

    fn note_written(&mut self, written: Option<Written>) {
        let Some(Written { path, bytes, took }) = written else { return };
        let mib = bytes as f64 / 1048576.0;
        self.log.detail(&format!("saved {} ({mib:.1} MiB in {:.2} s)", path.display(), took.as_secs_f64()));
        self.last_saved = Some(path);
    }
}
