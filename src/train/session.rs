//! What a pre-training run carries from step to step: opened fresh or from a
//! checkpoint, saved into checkpoints, finished into a results directory.

use super::restore::{Counters, load_weights, restore};
use super::tally::Tally;
use crate::checkpoint::{self, Checkpoint, SavedOptimizer};
use crate::config::{Config, Precision, Pretrain, Start};
use crate::data::{self, Part};
use crate::loader::{Loader, Order, Rendering};
use crate::model::{Encoder, HeadKind};
use crate::optim::{self, Optimizer, Schedule};
use crate::report::{Console, Plan, RunLog, duration, plots, read_json_lines};
use crate::run_dir::{self, CheckpointKind, CheckpointName};
use crate::state::Parameter;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::Device;

/// On a GPU the loss is looked at once in so many steps: looking waits for the device.
const STEPS_BETWEEN_LOOKS: u64 = 50;

/// A run under way.
pub struct Session {
    pub pretrain: Pretrain,
    pub encoder: Encoder,
    pub parameters: Vec<Parameter>,
    pub optimizer: Box<dyn Optimizer>,
    pub schedule: Schedule,
    pub loader: Loader,
    pub log: RunLog,
    pub at: Counters,
    pub last_saved: Option<PathBuf>,
    directory: PathBuf,
    device: Device,
    started: Instant,
}

impl Session {
    /// Loads the data, builds the network, and starts or continues a results directory.
    ///
    /// Errors: data that is missing or too small, weights that do not fit, a directory that cannot be written.
    pub fn open(config: &Config, pretrain: &Pretrain, device: Device, console: &Console) -> Result<Session> {
        if pretrain.precision == Precision::Fp16 {
            bail!(
                "--precision fp16 would need its gradients scaled to train; use bf16, which has the same speed, or fp32"
            );
        }
        let split = Arc::new(data::load(&pretrain.data, Part::Unlabelled)?);
        console.note(&split.describe());
        let rendering =
            Rendering::Views { recipe: pretrain.augmentation.clone(), size_px: pretrain.data.image_size_px as usize };
        let (batch, workers) = (pretrain.batch_size as usize, config.workers as usize);
        let loader = Loader::new(split, rendering, Order::Shuffled, batch, pretrain.seed, workers)?;
        let steps_per_epoch = loader.batches() as u64;

        let encoder = Encoder::new(&pretrain.model, HeadKind::Projection, device, pretrain.seed);
        let parameters = encoder.parameters();
        let mut optimizer = optim::build(&pretrain.optimizer, parameters.clone())?;
        let schedule =
            Schedule::new(pretrain.schedule, pretrain.optimizer.lr, steps_per_epoch, u64::from(pretrain.epochs));

        let (directory, at, last_saved) = match &config.start {
            Start::Fresh => (None, Counters::default(), None),
            Start::Pretrained(path) => {
                load_weights(&encoder, path)?;
                console.note(&format!("starting from the weights of {}", path.display()));
                (None, Counters::default(), None)
            }
            Start::Resume(path) => {
                let saved = checkpoint::read(path)?;
                let at = restore(&saved, &encoder, optimizer.as_mut(), steps_per_epoch)
                    .with_context(|| format!("cannot continue from {}", path.display()))?;
                let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                (Some(parent.to_owned()), at, Some(path.clone()))
            }
        };
        let directory = match directory {
            Some(directory) => directory,
            None => {
                let parent = run_dir::pretrain_parent(
                    &config.save_dir,
                    pretrain.data.dataset,
                    pretrain.batch_size,
                    pretrain.objective,
                );
                let directory = run_dir::create(&parent, chrono::Local::now().naive_local())?;
                run_dir::write_config(&directory, &serde_json::to_value(config)?, &config.command)?;
                directory
            }
        };
        let plan = Plan { first_epoch: at.epoch, epochs: u64::from(pretrain.epochs), steps_per_epoch };
        let mut log = RunLog::create(&directory, plan, console.clone())?;
        log.detail(&format!("command: {}", config.command.join(" ")));
        log.note(&format!("results go to {}", directory.display()));
        let pretrain = pretrain.clone();
        let started = Instant::now();
        Ok(Session {
            pretrain,
            encoder,
            parameters,
            optimizer,
            schedule,
            loader,
            log,
            at,
            last_saved,
            directory,
            device,
            started,
        })
    }

    /// Whether the loss is to be looked at after this step.
    pub fn looks_now(&self) -> bool {
        self.device == Device::Cpu || self.at.step.is_multiple_of(STEPS_BETWEEN_LOOKS)
    }

    /// Reports a finished epoch and saves when it is due.
    pub fn finish_epoch(&mut self, tally: Tally, waited: Duration) -> Result<()> {
        let finished = self.at.epoch;
        self.at.epoch += 1;
        self.at.batch = 0;
        self.log.record_steps(&tally.records());
        self.log.epoch(&tally.report(waited));
        let last = self.at.epoch == u64::from(self.pretrain.epochs);
        // The last epoch's state goes into the final checkpoint, once.
        if !last && finished.is_multiple_of(u64::from(self.pretrain.save_every_n_epochs)) {
            self.save(CheckpointName::finished(finished as u32))?;
        }
        Ok(())
    }

    /// Saves in the middle of an epoch.
    pub fn save_interrupted(&mut self) -> Result<()> {
        self.save(CheckpointName { epoch: self.at.epoch as u32, kind: CheckpointKind::Interrupted })?;
        self.say_how_to_continue();
        Ok(())
    }

    /// Saves between two epochs, unless that has just been done.
    pub fn save_stopped(&mut self) -> Result<()> {
        let name = CheckpointName::finished((self.at.epoch - 1) as u32);
        if self.last_saved.as_deref() != Some(&self.directory.join(name.to_string())) {
            self.save(name)?;
        }
        self.say_how_to_continue();
        Ok(())
    }

    fn say_how_to_continue(&mut self) {
        self.log.note(&format!("stopped on request; continue with: flatnce --resume {}", self.directory.display()));
    }

    /// Saves the final checkpoint, draws the curves and closes the log.
    pub fn finish(mut self) -> Result<()> {
        let name = CheckpointName::finished(self.pretrain.epochs);
        self.save(name)?;
        self.draw_curves();
        let (time, path) = (duration(self.started.elapsed()), self.directory.join(name.to_string()));
        self.log.finish(&format!("pre-training finished in {time}: {}", path.display()));
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

    fn save(&mut self, name: CheckpointName) -> Result<()> {
        let path = self.directory.join(name.to_string());
        let state = self.optimizer.state();
        let saved = Checkpoint {
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
        };
        let bytes = checkpoint::write(&path, &saved)?;
        self.log.detail(&format!("saved {} ({:.1} MiB)", path.display(), bytes as f64 / 1048576.0));
        // A whole checkpoint supersedes the one that was written when the run was stopped on its way there.
        if let Some(earlier) = self.last_saved.replace(path)
            && is_interrupted(&earlier)
            && self.last_saved.as_ref() != Some(&earlier)
        {
            let _ = std::fs::remove_file(earlier);
        }
        Ok(())
    }
}

fn is_interrupted(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(CheckpointName::parse);
    name.is_some_and(|name| name.kind == CheckpointKind::Interrupted)
}
