//! How a run begins: afresh, from weights, or where a checkpoint left it.

use super::Session;
use crate::checkpoint;
use crate::config::{Config, Engine, Precision, Pretrain, Start};
use crate::data::{Part, Split};
use crate::loader::{Loader, Order, Rendering};
use crate::loss::Loss;
use crate::model::{Encoder, HeadKind};
use crate::optim::{self, Optimizer, Rate, Scaler, Schedule};
use crate::report::{Console, Plan, RunLog};
use crate::run_dir::{self, CheckpointKind, CheckpointName};
use crate::train::encoder_source::load_weights;
use crate::train::pretrain::memory_check::MemoryCheck;
use crate::train::pretrain::online_knn::Judge;
use crate::train::pretrain::recorded::Recorder;
use crate::train::pretrain::restore::{Counters, restore};
use crate::train::pretrain::saver::Saver;
use crate::train::pretrain::statistics::Statistics;
use crate::train::pretrain::temperature::Temperature;
use crate::train::pretrain::warnings::Watch;
use crate::train::ranks::Ranks;
use crate::train::readable::{self, Readable};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tch::{Device, Tensor};

/// What training changes, as a run begins with it.
struct State {
    encoder: Encoder,
    loss: Box<dyn Loss>,
    optimizer: Box<dyn Optimizer>,
    scaler: Option<Scaler>,
    temperature: Temperature,
    at: Counters,
    earlier_rows: Option<Tensor>,
    /// The checkpoint that it was read from, where a run is continued.
    resumed: Option<PathBuf>,
    /// That checkpoint is this program's, not PyTorch's.
    ours: bool,
}

impl State {
    /// Drawn from the seed.
    fn fresh(pretrain: &Pretrain, encoder: Encoder) -> Result<State> {
        let device = encoder.device();
        let loss = pretrain.objective.loss(encoder.projected_width(), device);
        // What a step changes besides the parameters.
        let mut changed = encoder.running_statistics();
        changed.extend(loss.state().iter().map(|(_, tensor)| tensor.shallow_clone()));
        Ok(State {
            loss,
            optimizer: optim::build(&pretrain.optimizer, encoder.parameters())?,
            scaler: (pretrain.precision == Precision::Fp16).then(|| Scaler::new(device, changed)),
            temperature: Temperature::new(pretrain.temperature, pretrain.ess_target),
            at: Counters::default(),
            earlier_rows: None,
            resumed: None,
            ours: false,
            encoder,
        })
    }

    /// Takes up what a checkpoint holds.
    ///
    /// Errors: a file that cannot be read or does not fit.
    fn resume(&mut self, path: &Path, steps_per_epoch: u64) -> Result<()> {
        let saved = checkpoint::read(path)?;
        let refused = || format!("cannot continue from {}", path.display());
        self.at = restore(&saved, &self.encoder, self.optimizer.as_mut(), steps_per_epoch).with_context(refused)?;
        self.loss.state().copy_from(&saved.loss).context("the state of its objective").with_context(refused)?;
        if let (Some(scaler), Some(state)) = (&mut self.scaler, saved.scaler) {
            scaler.restore(state).with_context(refused)?;
        }
        if let Some(state) = &saved.temperature {
            self.temperature.restore(state);
        }
        (self.earlier_rows, self.ours) = (saved.epoch_rows, saved.config.is_some());
        self.resumed = Some(path.to_owned());
        Ok(())
    }
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
        ranks.check_settings(pretrain)?;
        let Readable { split, left_out } = readable::load(&pretrain.data, Part::Unlabelled, console)?;
        console.note(&split.describe());
        let loader = loader(config, pretrain, split, device, ranks)?;
        console.note(&loader.describe());
        let (steps_per_epoch, epochs) = (loader.batches() as u64, u64::from(pretrain.epochs));

        let mut memory = MemoryCheck::before(pretrain, device);
        let encoder = Encoder::new(&pretrain.model, HeadKind::Projection, device, pretrain.seed);
        let parameters = encoder.parameters();
        let short_of_memory = memory.foresee(&parameters);
        let mut state = State::fresh(pretrain, encoder)?;
        match &config.start {
            Start::Fresh => {}
            Start::Pretrained(path) => console.note(&load_weights(&state.encoder, &pretrain.model, path)?),
            Start::Resume(path) => state.resume(path, steps_per_epoch)?,
        }
        // Nobody touches the directory before everybody has read the checkpoint.
        ranks.check_equal("images", loader.split().len() as u64)?;
        ranks.check_equal("steps trained", state.at.step)?;
        ranks.broadcast_state(&state.encoder)?;
        let directory = match &state.resumed {
            Some(path) => path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned(),
            None => ranks.directory(|| new_directory(config, pretrain))?,
        };
        ranks.remember_directory(&directory)?;
        let claim = ranks.writes().then(|| run_dir::claim(&directory)).transpose()?;
        if ranks.writes() {
            readable::write_names(&directory, &left_out)?;
        }
        let mut last_saved = state.resumed;
        if last_saved.is_some() && ranks.writes() {
            run_dir::remove_half_written(&directory)?;
            if state.ours && state.at.epoch < epochs {
                last_saved = last_saved.map(|path| name_within_longer_run(path, state.at, console)).transpose()?;
            }
        }

        let plan = Plan { first_epoch: state.at.epoch, epochs, steps_per_epoch };
        let mut log = match ranks.writes() {
            true => RunLog::create(&directory, plan, console.clone())?,
            false => RunLog::silent(plan, console.clone())?,
        };
        log.detail(&format!("command: {}", config.command.join(" ")));
        log.note(&format!("results go to {}", directory.display()));
        ranks.describe(pretrain).iter().for_each(|text| log.note(text));
        short_of_memory.iter().for_each(|warning| log.warn(warning));
        let settings = run_dir::to_yaml(&serde_json::to_value(config)?);
        let step = state.at.epoch * steps_per_epoch + state.at.batch;
        log.events().text("configuration", step, &format!("```\n{settings}\n```"));
        let judge = judge(pretrain, console, &mut log, ranks)?;
        let recorder = Recorder::new(config.cuda.graph, pretrain, device, ranks.count());
        recorder.describe().iter().for_each(|text| log.note(text));
        Ok(Session {
            pretrain: pretrain.clone(),
            encoder: state.encoder,
            loss: state.loss,
            parameters,
            optimizer: state.optimizer,
            scaler: state.scaler,
            rate: Rate::on(device),
            statistics: Statistics::new(pretrain.precision, device),
            recorder,
            schedule: Schedule::new(pretrain.schedule, pretrain.optimizer.lr, steps_per_epoch, epochs),
            loader,
            ranks: ranks.clone(),
            temperature: state.temperature,
            log,
            at: state.at,
            last_saved,
            earlier_rows: state.earlier_rows,
            saver: Saver::new(&directory, pretrain.checkpoints),
            watch: Watch::default(),
            judge,
            workers: config.workers as usize,
            last_begun: None,
            directory,
            _claim: claim,
            device,
            first_step: state.at.step,
            started: Instant::now(),
            memory,
        })
    }
}

/// Batches of views for this rank, on the device.
fn loader(config: &Config, pretrain: &Pretrain, split: Split, device: Device, ranks: &Ranks) -> Result<Loader> {
    let rendering =
        Rendering::Views { recipe: pretrain.augmentation.clone(), size_px: pretrain.data.image_size_px as usize };
    let (batch, workers) = (pretrain.batch_size as usize, config.workers as usize);
    let share = ranks.share_of_batch(pretrain.batch_size)?;
    let loader = Loader::new(Arc::new(split), rendering, Order::Shuffled, batch, pretrain.seed, workers)?;
    let loader = loader.with_share(share);
    match pretrain.engine {
        Engine::Cpu => Ok(loader.deliver_to(device)),
        Engine::Tensor => loader.on_device(device, config.data_on_device),
    }
}

/// A results directory of the paper's layout, with the configuration in it.
fn new_directory(config: &Config, pretrain: &Pretrain) -> Result<PathBuf> {
    let parent =
        run_dir::pretrain_parent(&config.save_dir, pretrain.data.dataset, pretrain.batch_size, pretrain.objective);
    let directory = run_dir::create(&parent, chrono::Local::now().naive_local())?;
    run_dir::write_config(&directory, &serde_json::to_value(config)?, &config.command)?;
    Ok(directory)
}

/// Who evaluates by nearest neighbours during training; of several ranks all of them or none, because they do it together.
fn judge(pretrain: &Pretrain, console: &Console, log: &mut RunLog, ranks: &Ranks) -> Result<Option<Judge>> {
    // A run that ends before the first evaluation needs no labels.
    let asked = pretrain.online_knn.filter(|knn| knn.every_epochs <= pretrain.epochs);
    let judge = asked.and_then(|knn| match Judge::new(knn, &pretrain.data, console) {
        Ok(judge) => {
            log.note(&judge.describe());
            Some(judge)
        }
        Err(error) => {
            log.warn(&format!("no kNN evaluation during training: {error:#} (--knn-every 0 asks for none)"));
            None
        }
    });
    Ok(if ranks.any(asked.is_some() && judge.is_none())? { None } else { judge })
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
