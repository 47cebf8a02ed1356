//! How a run begins: afresh, from weights, or where a checkpoint left it. First it
//! is planned, with everything opened, read and checked and nothing written: that
//! is what `--dry-run` prints. Then it is given a directory and a log.

use super::Session;
use super::earlier::{Earlier, name_within_longer_run};
use crate::checkpoint::{self, Checkpoint};
use crate::clock;
use crate::config::{Config, Engine, Precision, Pretrain, ScheduleConfig, ScheduleName, Start};
use crate::data::{BadImage, Part, Split};
use crate::durable;
use crate::loader::{Loader, Order, Rendering};
use crate::model::{Encoder, HeadKind};
use crate::native::{self, cuda};
use crate::optim::{self, Rate, Scaler, Schedule};
use crate::report::{self, Console, RunLog};
use crate::run_dir::{self, Lineage};
use crate::train::encoder_source::load_weights;
use crate::train::pretrain::crowded::Crowd;
use crate::train::pretrain::memory_check::MemoryCheck;
use crate::train::pretrain::numbers::numbers;
use crate::train::pretrain::online::{Asked, OnlineEvaluator};
use crate::train::pretrain::recorded::Recorder;
use crate::train::pretrain::restore::{Counters, restore};
use crate::train::pretrain::saver::Saver;
use crate::train::pretrain::statistics::Statistics;
use crate::train::pretrain::temperature::Temperature;
use crate::train::pretrain::warnings::{self, Watch};
use crate::train::ranks::Ranks;
use crate::train::readable::{self, Readable};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tch::Device;

/// A run that is ready to begin.
pub struct Plan {
    /// Without a directory; it says and writes nothing.
    pub session: Session,
    config: Config,
    left_out: Vec<BadImage>,
    /// That of the run to be continued, or the one below which a new run gets its own.
    pub place: PathBuf,
    /// What was taken of another run's weights.
    pub taken: Option<String>,
    /// What the user should know, with the next step in it.
    pub warnings: Vec<String>,
    /// How many checkpoints there will be, their size, and the room for them.
    pub checkpoints: String,
    /// Of a run that is continued.
    pub earlier: Option<Earlier>,
}

impl Plan {
    /// Opens everything that `config` names; `saved` is the checkpoint of the run to be continued, where it has been read
    /// already. Of several ranks all come here.
    ///
    /// Errors: data that are missing or too small, weights that do not fit, a directory that cannot be written.
    pub fn make(
        config: &Config,
        pretrain: &Pretrain,
        saved: Option<Checkpoint>,
        device: Device,
        console: &Console,
        ranks: &Ranks,
    ) -> Result<Plan> {
        let mut warnings = Vec::new();
        // Before the first tensor: what is recorded must not be on the device's default stream.
        if let Device::Cuda(index) = device
            && cuda::part().is_ok()
            && let Err(error) = cuda::own_stream(index)
        {
            warnings.push(format!(
                "work on cuda:{index} stays on its default stream, where no step can be recorded: {error:#}"
            ));
        }
        let start = ranks.start(&config.start, console)?;
        let saved = saved.filter(|_| start == config.start);
        let config = Config { start, ..config.clone() };
        let Readable { split, left_out } = readable::load(&pretrain.data, Part::Unlabelled, console)?;
        let loader = loader(&config, pretrain, split, device, ranks)?;
        let mut session = Session::new(&config, pretrain, loader, device, ranks)?;
        warnings.extend(session.memory.foresee(&session.parameters, config.memory_check, ranks)?);
        warnings.extend(warnings::before(pretrain, &session.loader, ranks));
        let (mut taken, mut earlier) = (None, None);
        match &config.start {
            Start::Fresh => {}
            Start::Pretrained(path) => {
                let key = config.checkpoint_key.as_deref();
                taken = Some(load_weights(&session.encoder, &pretrain.model, path, key)?);
            }
            Start::Resume(path) => {
                let saved = saved.map_or_else(|| checkpoint::read(path), Ok)?;
                let step = saved.step;
                let warned = session.resume(saved, path);
                warnings.extend(warned.with_context(|| format!("cannot continue from {}", path.display()))?);
                earlier = Some(Earlier::find(durable::parent(path), path, &session, step)?);
            }
        }
        // Nobody touches the directory before everybody has read the checkpoint.
        ranks.check_data(&session.data)?;
        ranks.check_equal("steps trained", session.at.step)?;
        ranks.broadcast_state(&session.encoder)?;
        session.online = online_evaluator(pretrain, console, &mut warnings, ranks)?;
        warnings.extend(session.online.as_ref().and_then(OnlineEvaluator::warning));
        let place = match &session.last_saved {
            Some(path) => durable::parent(path).to_owned(),
            None => new_runs(&config, pretrain),
        };
        if ranks.writes() {
            session.claim = session.last_saved.is_some().then(|| run_dir::claim(&place)).transpose()?;
            run_dir::check_place(&place, session.last_saved.is_some())?;
            if let Some(name) = config.name.as_deref().filter(|_| session.last_saved.is_none()) {
                run_dir::check_name(&place, name)?;
            }
        }
        let mut plan = Plan { session, config, left_out, place, taken, warnings, checkpoints: String::new(), earlier };
        if ranks.writes() {
            plan.checkpoints = plan.room(pretrain)?;
        }
        Ok(plan)
    }

    /// Starts the results directory or goes on in it.
    ///
    /// Errors: a directory that cannot be written.
    pub fn begin(self, console: &Console) -> Result<Session> {
        let Plan { mut session, config, left_out, place, taken, warnings, checkpoints, earlier } = self;
        let ranks = session.ranks.clone();
        let resumed = session.last_saved.take();
        session.directory = match &resumed {
            Some(_) => place,
            None => ranks.directory(|| {
                let directory = match &config.name {
                    Some(name) => run_dir::create_with_name(&place, name)?,
                    None => run_dir::create(&place, clock::now().naive_local())?,
                };
                let settings = serde_json::to_value(&config)?;
                session.lineage = Lineage::default().branch(0);
                run_dir::write_run_config(&directory, &settings, &config.command, &session.lineage)?;
                Ok(directory)
            })?,
        };
        let directory = session.directory.clone();
        ranks.remember_directory(&directory)?;
        let mut notes = Vec::new();
        let extent = report::Plan { resumed: resumed.is_some(), ..session.extent() };
        if session.writes {
            if session.claim.is_none() {
                session.claim = Some(run_dir::claim(&directory)?);
            }
            readable::write_names(&directory, &left_out)?;
            if let Some((path, earlier)) = resumed.zip(earlier) {
                notes.push(format!("goes on from {}", path.display()));
                run_dir::remove_half_written(&directory)?;
                notes.extend(earlier.go_on(&mut session, &config)?);
                session.last_saved = Some(name_within_longer_run(path, &session, console)?);
            }
            session.log = RunLog::create(Some(&directory), extent, numbers(), console.clone())?;
        } else {
            session.last_saved = resumed;
            session.log = RunLog::create(None, extent, numbers(), console.clone())?;
        }
        session.saver = Saver::new(&directory, session.pretrain.checkpoints);
        session.started = Instant::now();

        let log = &mut session.log;
        log.detail(&format!("command: {}", config.command.join(" ")));
        notes.iter().for_each(|note| log.note(note));
        log.note(&session.loader.split().describe());
        log.note(&session.loader.describe());
        taken.iter().for_each(|text| log.note(text));
        log.note(&format!("results go to {}", directory.display()));
        log.note(&format!("checkpoints: {checkpoints}"));
        ranks.describe(&session.pretrain).iter().for_each(|text| log.note(text));
        let online = session.online.iter().flat_map(OnlineEvaluator::describe);
        online.for_each(|(name, about)| log.note(&format!("{name} {about}")));
        session.recorder.describe().iter().for_each(|text| log.note(text));
        warnings.iter().for_each(|warning| log.warn(warning));
        let settings = run_dir::to_yaml(&serde_json::to_value(&config)?);
        log.events().text("configuration", session.at.step, &format!("```\n{settings}\n```"));
        Ok(session)
    }
}

impl Session {
    /// Drawn from the seed; says and writes nothing yet.
    fn new(config: &Config, pretrain: &Pretrain, loader: Loader, device: Device, ranks: &Ranks) -> Result<Session> {
        let memory = MemoryCheck::before(config, pretrain, device, ranks);
        let encoder = Encoder::new(&pretrain.model, HeadKind::Projection, device, pretrain.seed);
        let (parameters, loss) = (encoder.parameters(), pretrain.objective.loss(encoder.projected_width(), device));
        // What a step changes besides the parameters.
        let mut changed = encoder.running_statistics();
        changed.extend(loss.state().iter().map(|(_, tensor)| tensor.shallow_clone()));
        let (steps_per_epoch, epochs) = (loader.batches() as u64, u64::from(pretrain.epochs));
        let quiet = Console::silent();
        let extent = report::Plan { first_epoch: 0, epochs, steps_per_epoch, first_batch: 0, resumed: false };
        Ok(Session {
            pretrain: pretrain.clone(),
            encoder,
            loss,
            optimizer: optim::build(&pretrain.optimizer, parameters.clone())?,
            parameters,
            scaler: (pretrain.precision == Precision::Fp16).then(|| Scaler::new(device, changed)),
            rate: Rate::on(device),
            schedule: Schedule::new(pretrain.schedule, pretrain.optimizer.lr, steps_per_epoch, epochs),
            statistics: Statistics::new(pretrain.precision, device),
            data: loader.split().marks(),
            recorder: Recorder::new(config.cuda.graph, pretrain, device, ranks.count()),
            loader,
            ranks: ranks.clone(),
            temperature: Temperature::new(pretrain.temperature, pretrain.ess_target),
            log: RunLog::create(None, extent, numbers(), quiet)?,
            at: Counters::default(),
            memory,
            last_saved: None,
            continues_ours: false,
            lineage: Lineage::default(),
            earlier_rows: None,
            saver: Saver::new(Path::new(""), pretrain.checkpoints),
            watch: Watch::default(),
            online: None,
            workers: config.workers as usize,
            crowd: if ranks.count() == 1 { Crowd::new(device, pretrain.numerics) } else { None },
            last_begun: None,
            directory: PathBuf::new(),
            writes: ranks.writes(),
            claim: None,
            device,
            first_step: 0,
            started: Instant::now(),
        })
    }

    /// Takes up what the checkpoint of a file holds, and says what will differ from an uninterrupted run.
    ///
    /// Errors: it does not fit, or was trained on other images.
    fn resume(&mut self, saved: Checkpoint, path: &Path) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        if let Some(difference) = saved.data.and_then(|earlier| earlier.differ(&self.data)) {
            if saved.data.is_some_and(|earlier| earlier.same_images(self.data)) {
                warnings.push(format!(
                    "{difference}: the training goes on as it was, since it does not use them; --knn-every and --probe-every do"
                ));
            } else {
                bail!(
                    "the images are not those that the run was trained on: {difference}; bring them back (they may lie \
                     elsewhere: --data), or begin a new run with these weights (--from-pretrained)"
                );
            }
        }
        self.at = restore(&saved, &self.encoder, self.optimizer.as_mut(), self.loader.batches() as u64)?;
        self.loss.state().copy_from(&saved.loss).context("the state of its objective")?;
        if let (Some(scaler), Some(state)) = (&mut self.scaler, saved.scaler) {
            scaler.restore(state)?;
        }
        if let Some(state) = &saved.temperature {
            self.temperature.restore(state);
        }
        self.earlier_rows = saved.epoch_rows;
        self.first_step = self.at.step;
        self.last_saved = Some(path.to_owned());
        self.continues_ours = saved.config.is_some();
        self.lineage = saved.lineage;
        let threads = tch::get_num_threads() as u32;
        let before = saved.threads.filter(|&before| self.device == Device::Cpu && before != threads);
        warnings.extend(before.map(|before| {
            format!(
                "libtorch computes with {threads} threads, and had {before} before: sums are added up in another order, and \
                 the last digits of the weights will differ from those of an uninterrupted run; OMP_NUM_THREADS={before} \
                 keeps them the same"
            )
        }));
        Ok(warnings)
    }

    pub fn extent(&self) -> report::Plan {
        report::Plan {
            first_epoch: self.at.epoch,
            epochs: u64::from(self.pretrain.epochs),
            steps_per_epoch: self.loader.batches() as u64,
            first_batch: self.at.batch,
            resumed: false,
        }
    }

    /// Steps yet to be taken.
    pub fn steps_left(&self) -> u64 {
        let report::Plan { epochs, steps_per_epoch, .. } = self.extent();
        (epochs * steps_per_epoch).saturating_sub(self.at.step)
    }

    /// Before a run has begun, for steps that are thrown away: epochs without an end, of batches of `images` images in
    /// `parts`. Nothing is written.
    ///
    /// Errors: the system's null device cannot be opened.
    pub fn practise(&mut self, images: usize, parts: u32) -> Result<()> {
        let run = &mut self.pretrain;
        (run.batch_size, run.grad_cache, run.epochs) = (images as u32, parts, u32::MAX);
        if self.loader.batch_size() != images {
            self.recorder.begin_again();
            self.loader = self.loader.in_batches_of(images);
        }
        // Weights that stay as they are do not diverge.
        self.schedule = Schedule::new(ScheduleConfig { name: ScheduleName::Constant, warmup_epochs: 0 }, 0.0, 1, 1);
        self.at = Counters { epoch: 0, batch: 0, step: self.at.step };
        (self.writes, self.online, self.earlier_rows) = (false, None, None);
        self.log = RunLog::create(None, self.extent(), numbers(), self.log.console().clone())?;
        if let Device::Cuda(index) = self.device {
            native::forget_cuda_peak(index)?;
        }
        Ok(())
    }
}

/// The directory of all runs like this one.
pub fn new_runs(config: &Config, pretrain: &Pretrain) -> PathBuf {
    let (dataset, batch_size) = (pretrain.data.dataset, pretrain.batch_size);
    run_dir::pretrain_parent(&config.save_dir, dataset, batch_size, pretrain.objective)
}

/// Batches of views for this rank, on the device.
fn loader(config: &Config, pretrain: &Pretrain, split: Split, device: Device, ranks: &Ranks) -> Result<Loader> {
    let rendering =
        Rendering::Views { recipe: pretrain.augmentation.clone(), size_px: pretrain.data.image_size_px as usize };
    let (batch, workers) = (pretrain.batch_size as usize, config.workers as usize);
    let loader = Loader::new(Arc::new(split), rendering, Order::Shuffled, batch, pretrain.seed, workers)?;
    let loader = loader.with_share(ranks.share_of_batch());
    match pretrain.engine {
        Engine::Cpu => Ok(loader.deliver_to(device)),
        Engine::Tensor => loader.on_device(device, config.data_on_device),
    }
}

/// Who evaluates during training; of several ranks all of them or none, because they do it together.
fn online_evaluator(
    pretrain: &Pretrain,
    console: &Console,
    warnings: &mut Vec<String>,
    ranks: &Ranks,
) -> Result<Option<OnlineEvaluator>> {
    let asked = Asked::of(pretrain);
    let evaluator = asked.and_then(|asked| {
        let evaluator = OnlineEvaluator::new(asked, &pretrain.data, console);
        evaluator.map_err(|error| warnings.push(asked.refused(&error))).ok()
    });
    Ok(if ranks.any(asked.is_some() && evaluator.is_none())? { None } else { evaluator })
}
