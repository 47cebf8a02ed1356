//! How a run begins: its plan gets a directory, a log and a clock.

use super::Session;
use crate::config::{ScheduleConfig, ScheduleName};
use crate::optim::{Rate, Schedule};
use crate::report::{self, Console, RunLog, Verbosity};
use crate::run_dir::{self, CheckpointKind, CheckpointName};
use crate::train::pretrain::plan::{Place, Plan};
use crate::train::pretrain::recorded::Recorder;
use crate::train::pretrain::restore::Counters;
use crate::train::pretrain::saver::Saver;
use crate::train::pretrain::statistics::Statistics;
use crate::train::pretrain::warnings::Watch;
use crate::train::readable;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::time::Instant;

impl Session {
    /// Starts or continues the results directory of a run and its log.
    ///
    /// Errors: a directory that cannot be written.
    pub fn begin(mut plan: Plan, console: &Console) -> Result<Session> {
        let (config, ranks) = (plan.config.clone(), plan.ranks.clone());
        let directory = match &plan.place {
            Place::Here(directory, _) => directory.clone(),
            Place::Below(parent) => ranks.directory(|| {
                let directory = run_dir::create(parent, chrono::Local::now().naive_local())?;
                run_dir::write_config(&directory, &serde_json::to_value(&config)?, &config.command)?;
                Ok(directory)
            })?,
        };
        ranks.remember_directory(&directory)?;
        if ranks.writes() {
            if let Place::Below(_) = plan.place {
                plan.place = Place::Here(directory.clone(), Some(run_dir::claim(&directory)?));
            }
            readable::write_names(&directory, &plan.left_out)?;
        }
        if plan.state.resumed.is_some() && ranks.writes() {
            run_dir::remove_half_written(&directory)?;
            if plan.state.ours && plan.state.at.epoch < u64::from(plan.pretrain.epochs) {
                let resumed = plan.state.resumed.take();
                plan.state.resumed =
                    resumed.map(|path| name_within_longer_run(path, plan.state.at, console)).transpose()?;
            }
        }
        let mut log = match ranks.writes() {
            true => RunLog::create(&directory, plan.extent(), console.clone())?,
            false => RunLog::silent(plan.extent(), console.clone())?,
        };
        log.detail(&format!("command: {}", config.command.join(" ")));
        log.note(&plan.loader.split().describe());
        log.note(&plan.loader.describe());
        plan.state.taken.iter().for_each(|text| log.note(text));
        log.note(&format!("results go to {}", directory.display()));
        ranks.describe(&plan.pretrain).iter().for_each(|text| log.note(text));
        plan.judge.iter().for_each(|judge| log.note(&judge.describe()));
        plan.warnings.iter().for_each(|warning| log.warn(warning));
        let settings = run_dir::to_yaml(&serde_json::to_value(&config)?);
        log.events().text("configuration", plan.state.at.step, &format!("```\n{settings}\n```"));
        let mut session = Session::with(plan, log, &directory);
        let Session { recorder, log, .. } = &mut session;
        recorder.describe().iter().for_each(|text| log.note(text));
        Ok(session)
    }

    /// For steps that are thrown away: no directory, nothing is written, nobody is judged, nothing is said.
    ///
    /// Errors: the system's null device cannot be opened.
    pub fn rehearsal(mut plan: Plan) -> Result<Session> {
        plan.judge = None;
        let quiet = Console::to_writers(Verbosity::Quiet, std::io::sink(), std::io::sink());
        let log = RunLog::silent(plan.extent(), quiet)?;
        let mut session = Session::with(plan, log, Path::new(""));
        session.writes = false;
        // Weights that stay as they are do not diverge.
        let still = ScheduleConfig { name: ScheduleName::Constant, warmup_epochs: 0 };
        session.schedule = Schedule::new(still, 0.0, 1, 1);
        Ok(session)
    }

    /// Begins a rehearsal of epochs without an end, with batches of `images` images in `parts`.
    ///
    /// Errors: the system's null device cannot be opened.
    pub fn practise(&mut self, images: usize, parts: u32) -> Result<()> {
        let run = &mut self.pretrain;
        (run.batch_size, run.grad_cache, run.epochs) = (images as u32, parts, u32::MAX);
        if self.loader.batch_size() != images {
            self.recorder.begin_again();
            self.loader = self.loader.in_batches_of(images);
        }
        self.at = Counters { epoch: 0, batch: 0, step: self.at.step };
        self.earlier_rows = None;
        let extent = report::Plan { first_epoch: 0, epochs: 1, steps_per_epoch: self.loader.batches() as u64 };
        self.log = RunLog::silent(extent, self.log.console().clone())?;
        Ok(())
    }

    fn with(plan: Plan, log: RunLog, directory: &Path) -> Session {
        let report::Plan { epochs, steps_per_epoch, .. } = plan.extent();
        let Plan { config, pretrain, device, ranks, loader, state, judge, room, place, .. } = plan;
        let claim = if let Place::Here(_, claim) = place { claim } else { None };
        Session {
            encoder: state.encoder,
            parameters: state.parameters,
            optimizer: state.optimizer,
            scaler: state.scaler,
            rate: Rate::on(device),
            statistics: Statistics::new(pretrain.precision, device),
            recorder: Recorder::new(config.cuda.graph, &pretrain, device, ranks.count()),
            schedule: Schedule::new(pretrain.schedule, pretrain.optimizer.lr, steps_per_epoch, epochs),
            loader,
            writes: ranks.writes(),
            ranks,
            temperature: state.temperature,
            log,
            at: state.at,
            last_saved: state.resumed,
            earlier_rows: state.earlier_rows,
            saver: Saver::new(directory, pretrain.checkpoints),
            watch: Watch::default(),
            judge,
            workers: config.workers as usize,
            last_begun: None,
            directory: directory.to_owned(),
            _claim: claim,
            device,
            first_step: state.at.step,
            started: Instant::now(),
            room,
            pretrain,
        }
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
