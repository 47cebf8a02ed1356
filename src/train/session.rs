//! What a pre-training run carries from step to step: opened fresh or from a
//! checkpoint, saved into checkpoints, finished into a results directory.

use super::online_knn::Judge;
use super::out_of_memory::Room;
use super::ranks::Ranks;
use super::readable::{self, Readable};
use super::restore::{Counters, load_weights, restore};
use super::saver::{Saver, Written};
use super::similarities;
use super::tally::{StepFeatures, Tally};
use super::temperature::Temperature;
use super::warnings::{Setting, Watch};
use crate::checkpoint::{self, Checkpoint, SavedOptimizer};
use crate::config::{Config, Engine, Precision, Pretrain, Start};
use crate::data::Part;
use crate::device;
use crate::loader::{Loader, Order, Rendering};
use crate::model::{Encoder, HeadKind};
use crate::monitor::geometry;
use crate::optim::{self, Optimizer, Scaler, Schedule};
use crate::pixels::RgbImage;
use crate::report::{Console, EpochReport, Plan, RunLog, contact_sheet, duration, enlarged, plots, read_json_lines};
use crate::run_dir::{self, CheckpointKind, CheckpointName};
use crate::state::Parameter;
use anyhow::{Context, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

/// On a GPU the loss is looked at once in so many steps: looking waits for the device.
const STEPS_BETWEEN_LOOKS: u64 = 50;

/// A run under way.
pub struct Session {
    pub pretrain: Pretrain,
    pub encoder: Encoder,
    pub parameters: Vec<Parameter>,
    pub optimizer: Box<dyn Optimizer>,
    /// With fp16 only.
    pub scaler: Option<Scaler>,
    pub schedule: Schedule,
    pub loader: Loader,
    pub ranks: Ranks,
    pub temperature: Temperature,
    pub log: RunLog,
    pub at: Counters,
    pub room: Room,
    /// The newest checkpoint known to be on the disk.
    pub last_saved: Option<PathBuf>,
    /// Statistics of the steps of the epoch under way that were trained before this process began.
    pub earlier_rows: Option<Tensor>,
    saver: Saver,
    watch: Watch,
    judge: Option<Judge>,
    workers: usize,
    last_begun: Option<CheckpointName>,
    directory: PathBuf,
    /// Held for as long as the run lasts, by the rank that writes.
    _claim: Option<File>,
    device: Device,
    /// Where this process began.
    first_step: u64,
    started: Instant,
}

impl Session {
    /// Loads the data, builds the network, and starts or continues a results directory.
    ///
    /// Errors: data that is missing or too small, weights that do not fit, a directory that cannot be written.
    pub fn open(
        config: &Config,
        pretrain: &Pretrain,
        device: Device,
        console: &Console,
        ranks: &Ranks,
    ) -> Result<Session> {
        ranks.allow(pretrain)?;
        let Readable { split, left_out } = readable::load(&pretrain.data, Part::Unlabelled, console)?;
        let split = Arc::new(split);
        console.note(&split.describe());
        let rendering =
            Rendering::Views { recipe: pretrain.augmentation.clone(), size_px: pretrain.data.image_size_px as usize };
        let (batch, workers) = (pretrain.batch_size as usize, config.workers as usize);
        let share = ranks.share_of_batch(pretrain.batch_size)?;
        let loader = Loader::new(split, rendering, Order::Shuffled, batch, pretrain.seed, workers)?.with_share(share);
        let loader = match pretrain.engine {
            Engine::Cpu => loader.deliver_to(device),
            Engine::Tensor => loader.on_device(device, config.data_on_device)?,
        };
        console.note(&loader.describe());
        let steps_per_epoch = loader.batches() as u64;

        let mut room = Room::before(pretrain, device);
        let encoder = Encoder::new(&pretrain.model, HeadKind::Projection, device, pretrain.seed);
        let parameters = encoder.parameters();
        let short_of_memory = room.foresee(&parameters);
        let mut optimizer = optim::build(&pretrain.optimizer, parameters.clone())?;
        let mut scaler =
            (pretrain.precision == Precision::Fp16).then(|| Scaler::new(device, encoder.running_statistics()));
        let schedule =
            Schedule::new(pretrain.schedule, pretrain.optimizer.lr, steps_per_epoch, u64::from(pretrain.epochs));

        let (mut earlier_rows, mut ours) = (None, false);
        let mut temperature = Temperature::new(pretrain.temperature, pretrain.ess_target);
        let (directory, at, last_saved) = match &config.start {
            Start::Fresh => (None, Counters::default(), None),
            Start::Pretrained(path) => {
                console.note(&load_weights(&encoder, &pretrain.model, path)?);
                (None, Counters::default(), None)
            }
            Start::Resume(path) => {
                let saved = checkpoint::read(path)?;
                let at = restore(&saved, &encoder, optimizer.as_mut(), steps_per_epoch)
                    .with_context(|| format!("cannot continue from {}", path.display()))?;
                (earlier_rows, ours) = (saved.epoch_rows, saved.config.is_some());
                if let (Some(scaler), Some(state)) = (&mut scaler, saved.scaler) {
                    scaler.restore(state).with_context(|| format!("cannot continue from {}", path.display()))?;
                }
                if let Some(state) = &saved.temperature {
                    temperature.restore(state);
                }
                let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                (Some(parent.to_owned()), at, Some(path.clone()))
            }
        };
        let resumed = directory.is_some();
        // Nobody touches the directory before everybody has read the checkpoint.
        ranks.same("images", loader.split().len() as u64)?;
        ranks.same("steps trained", at.step)?;
        ranks.same_state(&encoder)?;
        let directory = match directory {
            Some(directory) => directory,
            None => ranks.directory(|| {
                let parent = run_dir::pretrain_parent(
                    &config.save_dir,
                    pretrain.data.dataset,
                    pretrain.batch_size,
                    pretrain.objective,
                );
                let directory = run_dir::create(&parent, chrono::Local::now().naive_local())?;
                run_dir::write_config(&directory, &serde_json::to_value(config)?, &config.command)?;
                Ok(directory)
            })?,
        };
        ranks.remember_directory(&directory)?;
        let claim = ranks.writes().then(|| run_dir::claim(&directory)).transpose()?;
        if ranks.writes() {
            readable::write_names(&directory, &left_out)?;
        }
        let mut last_saved = last_saved;
        if resumed && ranks.writes() {
            run_dir::remove_half_written(&directory)?;
            if ours && at.epoch < u64::from(pretrain.epochs) {
                last_saved = last_saved.map(|path| name_within_longer_run(path, at, console)).transpose()?;
            }
        }
        let plan = Plan { first_epoch: at.epoch, epochs: u64::from(pretrain.epochs), steps_per_epoch };
        let mut log = match ranks.writes() {
            true => RunLog::create(&directory, plan, console.clone())?,
            false => RunLog::silent(plan, console.clone())?,
        };
        log.detail(&format!("command: {}", config.command.join(" ")));
        log.note(&format!("results go to {}", directory.display()));
        if let Some(text) = ranks.describe(pretrain) {
            log.note(&text);
        }
        if let Some(warning) = short_of_memory {
            log.warn(&warning);
        }
        let settings = run_dir::to_yaml(&serde_json::to_value(config)?);
        let step = at.epoch * steps_per_epoch + at.batch;
        log.events().text("configuration", step, &format!("```\n{settings}\n```"));
        // A run that ends before the first evaluation needs no labels.
        let judges = pretrain.online_knn.filter(|knn| knn.every_epochs <= pretrain.epochs);
        let judge = judges.and_then(|knn| match Judge::new(knn, &pretrain.data, console) {
            Ok(judge) => {
                log.note(&judge.describe());
                Some(judge)
            }
            Err(error) => {
                log.warn(&format!("no kNN evaluation during training: {error:#} (--knn-every 0 asks for none)"));
                None
            }
        });
        // All of them, or none: they judge together.
        let judge = if ranks.any(judges.is_some() && judge.is_none())? { None } else { judge };
        let pretrain = pretrain.clone();
        let saver = Saver::new(&directory, pretrain.checkpoints);
        let started = Instant::now();
        Ok(Session {
            pretrain,
            encoder,
            parameters,
            optimizer,
            scaler,
            schedule,
            loader,
            ranks: ranks.clone(),
            temperature,
            log,
            at,
            last_saved,
            earlier_rows,
            saver,
            watch: Watch::default(),
            judge,
            workers,

            last_begun: None,
            directory,
            _claim: claim,
            device,
            first_step: at.step,
            started,
            room,
        })
    }

    pub fn device(&self) -> Device {
        self.device
    }

    /// Whether the loss is to be looked at after this step.
    pub fn looks_now(&self) -> bool {
        self.device == Device::Cpu || self.at.step.is_multiple_of(STEPS_BETWEEN_LOOKS)
    }

    /// Whether this step is one of those that are looked at closely.
    pub fn looks_closer(&self) -> bool {
        let every = u64::from(self.pretrain.log_every);
        every > 0 && self.at.step.is_multiple_of(every)
    }

    /// Reports a finished epoch, `last` being the features of its last step, and saves when it is due.
    pub fn finish_epoch(&mut self, tally: Tally, last: Option<&StepFeatures>, waited: Duration) -> Result<()> {
        let finished = self.at.epoch;
        // After an overflow of fp16 the last step has no features to speak of.
        let last = last.filter(|features| features.unit.isfinite().all().int64_value(&[]) != 0);
        self.at.epoch += 1;
        self.at.batch = 0;
        self.log.record_steps(&tally.records());
        let mut report = tally.report(waited);
        report.temperature = self.temperature.value();
        let hidden = last.map(|features| self.ranks.gather_views(&features.hidden)).transpose()?;
        report.effective_rank = hidden.map(|hidden| geometry::effective_rank(&hidden));
        self.own_statistics_agree()?;
        self.judge(&mut report)?;
        self.log.epoch(&report);
        if let Some(features) = last {
            similarities::record(self.log.events(), report.step, &features.unit);
        }
        let setting = Setting {
            objective: self.pretrain.objective,
            batch_size: self.pretrain.batch_size,
            precision: self.pretrain.precision,
            warmup_epochs: self.pretrain.schedule.warmup_epochs,
        };
        for warning in self.watch.look(&report, setting) {
            self.log.warn(&warning);
        }
        let last = self.at.epoch == u64::from(self.pretrain.epochs);
        // The last epoch's state goes into the final checkpoint, once.
        if !last && finished.is_multiple_of(u64::from(self.pretrain.save_every_n_epochs)) {
            self.begin_save(CheckpointName::finished(finished as u32), None)?;
        }
        Ok(())
    }

    /// Shows TensorBoard the first pairs of views that this process trains on: `images` is a batch's u8 `[2B, S, S, 3]`.
    pub fn show_views(&mut self, images: &Tensor) -> Result<()> {
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

    /// Nearest neighbours, when the epoch just finished has its turn.
    fn judge(&mut self, report: &mut EpochReport) -> Result<()> {
        let every = self.pretrain.online_knn.map_or(0, |knn| u64::from(knn.every_epochs));
        let Some(judge) = self.judge.as_ref().filter(|_| every > 0 && self.at.epoch.is_multiple_of(every)) else {
            return Ok(());
        };
        let compute = device::compute_kind(self.pretrain.precision);
        let found = judge.judge(&self.encoder, compute, self.workers, self.log.console(), &self.ranks)?;
        report.knn_top1 = Some(found.weighted_top1);
        report.extra.insert("knn_plain_top1".into(), found.plain_top1.into());
        report.extra.insert("knn_seconds".into(), found.took.as_secs_f64().into());
        Ok(())
    }

    /// Whether `--save-every-n-steps` asks for a checkpoint after this step.
    pub fn saves_now(&self) -> bool {
        self.pretrain.checkpoints.every_n_steps.is_some_and(|every| self.at.step.is_multiple_of(u64::from(every)))
    }

    /// Begins a checkpoint in the middle of an epoch.
    pub fn save_within_epoch(&mut self, tally: &Tally) -> Result<()> {
        let kind = CheckpointKind::Within { step: self.at.step };
        self.begin_save(CheckpointName { epoch: self.at.epoch as u32, kind }, Some(tally))
    }

    /// Saves on a request to stop: `tally` is that of the epoch under way, or `None` between two epochs.
    pub fn save_stopped(&mut self, tally: Option<&Tally>) -> Result<()> {
        match tally {
            Some(tally) => self.save_within_epoch(tally)?,
            None => {
                let name = CheckpointName::finished((self.at.epoch - 1) as u32);
                if self.last_begun != Some(name) {
                    self.begin_save(name, None)?;
                }
            }
        }
        self.wait_for_save()?;
        self.log.note(&format!("stopped on request; continue with: flatnce --resume {}", self.directory.display()));
        Ok(())
    }

    /// Saves the final checkpoint, draws the curves and closes the log.
    pub fn finish(mut self) -> Result<()> {
        let name = CheckpointName::finished(self.pretrain.epochs);
        self.begin_save(name, None)?;
        self.wait_for_save()?;
        if self.ranks.writes() {
            self.draw_curves();
        }
        let (took, path) = (self.started.elapsed(), self.directory.join(name.to_string()));
        let (saves, paused) = (self.saver.saves, self.saver.paused.as_secs_f64());
        let share = 100.0 * paused / took.as_secs_f64().max(1e-9);
        self.log.detail(&format!("{saves} checkpoints: training stood still for {paused:.2} s ({share:.2}%)"));
        if let Some(group) = self.ranks.group() {
            let traffic = group.traffic();
            let trained = (self.at.step - self.first_step).max(1) as f64;
            self.log.detail(&format!(
                "collectives: {:.1} a step with {:.2} MiB of this rank's, waited for {:.1}% of the time",
                traffic.calls as f64 / trained,
                traffic.bytes as f64 / trained / 1048576.0,
                100.0 * traffic.seconds / took.as_secs_f64().max(1e-9)
            ));
        }
        self.log.finish(&format!("pre-training finished in {}: {}", duration(took), path.display()));
        Ok(())
    }

    /// `curves.png` from the run's own files; a run without a picture is still a run.
    fn draw_curves(&mut self) {
        let draw = || -> Result<()> {
            let epochs = read_json_lines(&self.directory.join("metrics.jsonl"))?;
            let steps = read_json_lines(&self.directory.join("steps.jsonl"))?;
            let title = format!("{} on {}", self.pretrain.objective.directory_suffix(), self.pretrain.data.dataset);
            plots::curves(&self.directory.join("curves.png"), &plots::training_figure(&title, &epochs, &steps))
        };
        if let Err(error) = draw() {
            self.log.warn(&format!("curves.png was not drawn: {error:#}"));
        }
    }

    /// Whether a stop was asked for, of any rank. Asking the others waits for the device, so on a GPU it is done now and
    /// then.
    pub fn stops_now(&self, stop: &AtomicBool) -> Result<bool> {
        let own = stop.load(Ordering::Relaxed);
        match self.ranks.group() {
            Some(_) if !self.looks_now() => Ok(false),
            _ => self.ranks.any(own),
        }
    }

    /// BatchNorm statistics of each rank's own images drift apart: rank 0's are those that are saved and judged.
    fn own_statistics_agree(&self) -> Result<()> {
        if self.pretrain.sync_bn { Ok(()) } else { self.ranks.same_state(&self.encoder) }
    }

    fn begin_save(&mut self, name: CheckpointName, tally: Option<&Tally>) -> Result<()> {
        self.own_statistics_agree()?;
        if !self.ranks.writes() {
            self.last_begun = Some(name);
            return Ok(());
        }
        let state = self.optimizer.state();
        let checkpoint = Checkpoint {
            epochs_done: self.at.epoch as u32,
            step: self.at.step,
            batch_in_epoch: self.at.batch,
            model: self.encoder.state_dict(),
            optimizer: SavedOptimizer {
                state: state.into_iter().map(|(index, name, tensor)| (index, name.to_owned(), tensor)).collect(),
                parameters: self.parameters.len(),
                lr: self.schedule.lr(self.at.step),
            },
            config: Some(self.pretrain.clone()),
            model_name: Some(self.pretrain.model.depth.name().to_owned()),
            batch_size: Some(self.pretrain.batch_size),
            epoch_rows: tally.map(Tally::rows),
            temperature: self.temperature.state(),
            scaler: self.scaler.as_ref().map(Scaler::state),
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

/// A complete run's last checkpoint carries the number of epochs, which is also the name of the epoch that comes next if
/// the run goes on. It takes the name that it would have had in the longer run.
fn name_within_longer_run(path: PathBuf, at: Counters, console: &Console) -> Result<PathBuf> {
    let name = path.file_name().and_then(|name| CheckpointName::parse(name.to_str()?));
    if name != Some(CheckpointName::finished(at.epoch as u32)) || at.batch != 0 {
        return Ok(path);
    }
    let kind = if at.epoch == 0 { CheckpointKind::Within { step: 0 } } else { CheckpointKind::Finished };
    let earlier = CheckpointName { epoch: at.epoch.saturating_sub(1) as u32, kind };
    let renamed = path.with_file_name(earlier.to_string());
    std::fs::rename(&path, &renamed)
        .with_context(|| format!("cannot rename {} to {earlier}, its name in a longer run", path.display()))?;
    console.note(&format!("{} is {earlier} in the longer run, and was renamed", path.display()));
    Ok(renamed)
}
