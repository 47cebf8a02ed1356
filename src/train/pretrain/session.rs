//! What a pre-training run carries from step to step: opened fresh or from a
//! checkpoint (`plan`), saved into checkpoints (`saves`), finished into a results
//! directory (`ending`).

mod earlier;
mod ending;
mod plan;
mod saves;

use super::crowded::Crowd;
use super::memory_check::MemoryCheck;
use super::online::{Judged, OnlineEvaluator};
use super::recorded::Recorder;
use super::restore::Counters;
use super::saver::Saver;
use super::similarities;
use super::statistics::Statistics;
use super::step::StepOutput;
use super::tally::Tally;
use super::temperature::Temperature;
use super::warnings::{Setting, Watch};
use crate::checkpoint::EpochRows;
use crate::config::Pretrain;
use crate::device;
use crate::loader::{Epoch, Loader};
use crate::loss::Loss;
use crate::model::Encoder;
use crate::native;
use crate::optim::{Optimizer, Rate, Scaler, Schedule};
use crate::pixels::RgbImage;
use crate::report::{Record, RunLog, contact_sheet, enlarged};
use crate::run_dir::{CheckpointName, Lineage};
use crate::state::{DataMarks, Parameter};
use crate::train::diverged::STEPS_BETWEEN_LOOKS;
use crate::train::ranks::Ranks;
use anyhow::{Result, bail};
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

pub use plan::{Plan, new_runs};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Finished,
    /// Asked to stop; everything is saved.
    Stopped,
}

/// A run under way.
pub struct Session {
    pub pretrain: Pretrain,
    pub encoder: Encoder,
    pub loss: Box<dyn Loss>,
    pub parameters: Vec<Parameter>,
    pub optimizer: Box<dyn Optimizer>,
    /// With fp16 only.
    pub scaler: Option<Scaler>,
    pub rate: Rate,
    pub schedule: Schedule,
    pub statistics: Statistics,
    pub recorder: Recorder<StepOutput>,
    pub loader: Loader,
    pub ranks: Ranks,
    pub temperature: Temperature,
    pub log: RunLog,
    pub at: Counters,
    pub memory: MemoryCheck,
    /// The newest checkpoint known to be on the disk.
    last_saved: Option<PathBuf>,
    /// It is this program's, not PyTorch's.
    continues_ours: bool,
    /// The run's branches, up to where it is.
    lineage: Lineage,
    /// What the images are that it trains on.
    data: DataMarks,
    /// Statistics of the steps of the epoch under way that were trained before this process began.
    earlier_rows: Option<EpochRows>,
    saver: Saver,
    watch: Watch,
    pub online: Option<OnlineEvaluator>,
    workers: usize,
    /// Of one process alone: ranks with other numbers of threads would drift apart.
    crowd: Option<Crowd>,
    /// Whether this process writes files: one of several does, and none in a rehearsal.
    writes: bool,
    last_begun: Option<CheckpointName>,
    directory: PathBuf,
    /// Held for as long as the run lasts, by the rank that writes.
    claim: Option<File>,
    pub device: Device,
    /// Where this process began.
    first_step: u64,
    started: Instant,
}

impl Session {
    /// Lets another process go on in the directory of a run that is only planned.
    pub fn release(&mut self) {
        self.claim = None;
    }

    /// What is left of the epoch, batch by batch.
    pub fn batches(&mut self) -> Epoch {
        self.log.start_epoch(self.at.epoch);
        self.loader.epoch(self.at.epoch, self.at.batch as usize)
    }

    /// The epoch's numbers, with those of its steps that were trained before this process began.
    pub fn start_tally(&mut self) -> Result<Tally> {
        let mut tally = Tally::start(self.pretrain.batch_size, self.at.epoch, self.at.step, self.device);
        if let Some(rows) = self.earlier_rows.take() {
            tally.continue_from(&rows, |step| self.schedule.lr(step))?;
        }
        Ok(tally)
    }

    /// Sets the learning rate of the step that comes next, and tells it.
    pub fn set_learning_rate(&mut self) -> f64 {
        let lr = self.schedule.lr(self.at.step);
        self.rate.set(lr);
        lr
    }

    /// Counts a step on `images`, u8 `[2B, S, S, 3]`, and says whether it was its epoch's last.
    pub fn count_step(&mut self, images: &Tensor) -> Result<bool> {
        if let Some(text) = self.recorder.warning() {
            self.log.warn(&text);
        }
        if self.at.step == self.first_step {
            self.show_views(images)?;
            self.forget_peak()?;
        }
        self.at.step += 1;
        self.at.batch += 1;
        self.poll_save()?;
        Ok(self.at.batch == self.loader.batches() as u64)
    }

    /// After a process's first step on a GPU: cuDNN has tried its algorithms in it, with memory that training never takes
    /// again.
    pub fn forget_peak(&self) -> Result<()> {
        match self.device {
            Device::Cuda(index) => Ok(native::forget_cuda_peak(index)?),
            _ => Ok(()),
        }
    }

    /// Whether the losses are to be looked at after this step.
    pub fn check_due(&self) -> bool {
        self.device == Device::Cpu || self.at.step.is_multiple_of(STEPS_BETWEEN_LOOKS)
    }

    /// Whether this step is one of those that are looked at closely.
    pub fn closer_look_due(&self) -> bool {
        let every = u64::from(self.pretrain.log_every);
        every > 0 && self.at.step.is_multiple_of(every)
    }

    /// Writes the numbers of the steps so far, if those before are some seconds old. Waits for the device then.
    pub fn write_steps_when_due(&mut self, tally: &mut Tally) {
        if let Some(text) = self.crowd.as_mut().filter(|_| self.writes).and_then(Crowd::look) {
            self.log.warn(&text);
        }
        if self.writes && self.log.steps_due() {
            self.log.record_steps(&tally.new_records());
        }
    }

    /// Stops a run that has diverged, before anything of it is saved. Waits for the device.
    pub fn check_loss(&mut self, tally: &mut Tally) -> Result<()> {
        let Some(fault) = tally.fault() else { return Ok(()) };
        // The steps that led there.
        self.log.record_steps(&tally.new_records());
        self.wait_for_save()?;
        let lr = self.schedule.lr(self.at.step.saturating_sub(1));
        let last = match &self.last_saved {
            Some(path) => format!("the last good checkpoint is {}", path.display()),
            None => "no checkpoint had been written yet".to_owned(),
        };
        bail!(
            "{fault}, at a learning rate of {lr:.3e}; {last}; try a smaller --lr, a longer --warmup-epochs, or \
             --precision fp32"
        )
    }

    /// Reports a finished epoch, `last` being its last step, and saves when that is due or a stop is asked for.
    pub fn finish_epoch(
        &mut self,
        mut tally: Tally,
        last: Option<&StepOutput>,
        waited: Duration,
        stop: &AtomicBool,
    ) -> Result<Ended> {
        self.check_loss(&mut tally)?;
        let finished = self.at.epoch;
        // After an overflow of fp16 the last step has no features to speak of.
        let last = last.map(|last| &last.features).filter(|last| last.unit.isfinite().all().int64_value(&[]) != 0);
        self.at.epoch += 1;
        self.at.batch = 0;
        self.log.record_steps(&tally.new_records());
        let hidden = last.map(|features| self.ranks.gather_views(&features.hidden)).transpose()?;
        let mut record = tally.report(waited, self.temperature.value(), hidden.as_ref());
        self.sync_batch_norm_statistics()?;
        self.evaluate(&mut record)?;
        self.log.epoch(&record);
        if let Some(features) = last {
            similarities::record(self.log.events(), record.step, &features.unit);
        }
        let setting = Setting {
            objective: self.pretrain.objective,
            batch_size: self.pretrain.batch_size,
            precision: self.pretrain.precision,
            warmup_epochs: self.pretrain.schedule.warmup_epochs,
        };
        for warning in self.watch.look(&record, setting) {
            self.log.warn(&warning);
        }
        let (complete, name) =
            (self.at.epoch == u64::from(self.pretrain.epochs), CheckpointName::finished(finished as u32));
        // The last epoch's state goes into the final checkpoint, once.
        if !complete && finished.is_multiple_of(u64::from(self.pretrain.save_every_n_epochs)) {
            self.begin_save(name, None)?;
        }
        if !self.ranks.any(stop.load(Ordering::Relaxed))? || complete {
            return Ok(Ended::Finished);
        }
        if self.last_begun != Some(name) {
            self.begin_save(name, None)?;
        }
        self.stopped()
    }

    /// Shows TensorBoard the first pairs of views that this process trains on: `images` is a batch's u8 `[2B, S, S, 3]`.
    fn show_views(&mut self, images: &Tensor) -> Result<()> {
        const PAIRS: usize = 16;
        let (views, size) = (images.size()[0] as usize, images.size()[1] as usize);
        let picture = |number: usize| -> Result<RgbImage> {
            let mut tile = RgbImage::new(size, size);
            let tensor = images.get(number as i64).to_device(Device::Cpu).contiguous();
            tensor.f_copy_data_u8(&mut tile.pixels, size * size * 3)?;
            Ok(enlarged(tile.as_ref(), 64))
        };
        let pairs: Result<Vec<Vec<RgbImage>>> =
            (0..(views / 2).min(PAIRS)).map(|first| Ok(vec![picture(first)?, picture(first + views / 2)?])).collect();
        self.log.events().image("views", self.at.step, contact_sheet(&pairs?, 4).as_ref())
    }

    /// Nearest neighbours and a linear probe, when the epoch just finished has its turn.
    fn evaluate(&self, record: &mut Record) -> Result<()> {
        let Some(online) = &self.online else { return Ok(()) };
        let judged = Judged {
            encoder: &self.encoder,
            compute: device::compute_kind(self.pretrain.precision),
            workers: self.workers,
            console: self.log.console(),
            ranks: &self.ranks,
        };
        online.evaluate(self.at.epoch, &judged, record)
    }

    /// Whether a stop was asked for, of any rank. Asking the others waits for the device, so on a GPU it is done now and
    /// then.
    pub fn stop_requested(&self, stop: &AtomicBool) -> Result<bool> {
        let own = stop.load(Ordering::Relaxed);
        match self.ranks.group() {
            Some(_) if !self.check_due() => Ok(false),
            _ => self.ranks.any(own),
        }
    }

    /// BatchNorm statistics of each rank's own images drift apart: rank 0's are those that are saved and judged.
    fn sync_batch_norm_statistics(&self) -> Result<()> {
        if self.pretrain.sync_bn { Ok(()) } else { self.ranks.broadcast_state(&self.encoder) }
    }
}
