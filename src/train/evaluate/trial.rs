//! An evaluation under way, whatever it trains: its plan, a results directory and its log.

use super::doubts::doubts;
use super::early_stop;
use super::feature_cache::FeatureCache;
use super::outcome::{Outcome, Protocol};
use super::plan::{Images, Plan};
use crate::augment::EvalTransform;
use crate::checkpoint::{self, Best, EvaluationCheckpoint};
use crate::clock;
use crate::config::{EncoderSource, Evaluate, OptimizerName, TransferMode};
use crate::report::{Console, EvalRecord, Log, short};
use crate::run_dir::{self, CheckpointName};
use crate::train::encoder_source::Source;
use crate::train::{Stop, readable};
use anyhow::{Context, Result};
use std::path::PathBuf;

/// One evaluation of one encoder, under way.
pub struct Trial<'a> {
    pub plan: &'a Plan,
    pub run: &'a Evaluate,
    pub images: &'a Images,
    pub directory: PathBuf,
    pub log: Log,
    /// Where features under transforms that are not random are kept.
    pub cache: Option<FeatureCache>,
    pub stop: Stop<'a>,
    /// File name of the newest checkpoint.
    saved: Option<String>,
    /// Of the epoch before.
    last_loss: Option<f64>,
}

impl<'a> Trial<'a> {
    /// Creates the results directory, or opens the one that is to be continued.
    ///
    /// Errors: a directory that cannot be written.
    pub fn begin(plan: &'a Plan, source: &Source, stop: Stop<'a>, console: &Console) -> Result<Trial<'a>> {
        let (config, run) = (&plan.config, &plan.run);
        let mut directory = plan.place(source);
        if plan.resumed.is_none() {
            directory = run_dir::create(&directory, clock::now().naive_local())?;
            run_dir::write_config(&directory, &serde_json::to_value(config)?, &config.command)?;
        }
        readable::write_names(&directory, &plan.images.left_out)?;
        let mut log = Log::create(Some(&directory), u64::from(plan.first_epoch()), console.clone())?;
        log.detail(&format!("command: {}", config.command.join(" ")));
        log.note(&format!("encoder: {}", source.name()));
        log.note(&format!("results go to {}", directory.display()));
        plan.warnings(source)?.iter().for_each(|warning| log.warn(warning));
        if plan.resumed.is_some() && run.optimizer.name == OptimizerName::Lbfgs {
            log.note("LBFGS begins again and takes the same steps");
        }
        if let Some(text) = early_stop::describe(run, &plan.images.train, plan.held_out.as_deref()) {
            log.note(&format!("early stop: {text}"));
        }
        Ok(Trial {
            plan,
            run,
            images: &plan.images,
            cache: config.feature_cache.as_deref().map(FeatureCache::new),
            directory,
            log,
            stop,
            saved: run.resume.as_ref().map(|(_, file)| file.clone()),
            last_loss: None,
        })
    }

    pub fn test_transform(&self) -> EvalTransform {
        EvalTransform::evaluation(self.run.data.dataset, self.run.data.image_size_px as usize)
    }

    /// Saves when it is due: every `save_every_n_epochs`, and after the last epoch under the number of epochs.
    ///
    /// Errors: the file cannot be written.
    pub fn save(&mut self, last: bool, checkpoint: impl FnOnce() -> EvaluationCheckpoint, epoch: u32) -> Result<()> {
        let due = epoch.is_multiple_of(self.run.save_every_n_epochs.max(1));
        if !last && !due {
            return Ok(());
        }
        self.keep(CheckpointName::finished(if last { epoch + 1 } else { epoch }), checkpoint)
    }

    /// Saves, unless the newest file has this name.
    ///
    /// Errors: the file cannot be written.
    pub fn keep(&mut self, name: CheckpointName, checkpoint: impl FnOnce() -> EvaluationCheckpoint) -> Result<()> {
        let name = name.to_string();
        if self.saved.as_ref() != Some(&name) {
            checkpoint::write_evaluation(&self.directory.join(&name), &checkpoint())?;
            self.saved = Some(name);
        }
        Ok(())
    }

    /// Says how an evaluation goes on that was stopped on request.
    pub fn stopped(&mut self) {
        let text = match &self.saved {
            Some(file) => format!(
                "stopped on request; continue with the same command and --fc-log-dir {} --fc-train-from {file}",
                self.directory.display()
            ),
            None if self.cache.is_some() => "stopped on request before anything was trained; the same command begins \
                                             again, with the features that are complete"
                .to_owned(),
            None => "stopped on request before anything was trained; the same command begins again".to_owned(),
        };
        self.log.note(&text);
    }

    /// Reports a finished epoch.
    pub fn epoch(&mut self, record: &EvalRecord) {
        self.last_loss = Some(record.loss);
        self.log.evaluation_epoch(record, u64::from(self.run.epochs));
    }

    /// An outcome with everything that is known before training.
    pub fn outcome(&self, source: &Source, trunk_hash: String, batch_size: usize) -> Outcome {
        let protocol = match (self.run.mode, &self.run.source) {
            (TransferMode::LinearEval, _) => Protocol::LinearEval,
            (TransferMode::Finetune, EncoderSource::Scratch(_)) => Protocol::Supervised,
            (TransferMode::Finetune, _) => Protocol::Finetune,
        };
        Outcome {
            protocol,
            dataset: self.run.data.dataset.to_string(),
            checkpoint: source.path.clone(),
            checkpoint_epoch: source.epoch,
            train_images: self.images.train.len(),
            test_images: self.images.test.len(),
            test_images_held_out: self.images.held_out,
            bad_images_left_out: self.images.left_out.len(),
            classes: self.images.classes(),
            label_ratio: self.run.label_ratio,
            batch_size,
            trunk_hash,
            features_standardized: self.run.standardize && self.run.mode == TransferMode::LinearEval,
            optimizer: self.run.optimizer.name.to_string(),
            lr: self.plan.lr(),
            epochs: self.run.epochs,
            image_size_px: self.run.data.image_size_px,
            precision: self.run.precision.to_string(),
            seed: self.run.seed,
            program: format!("flatnce {}", env!("CARGO_PKG_VERSION")),
            ..Outcome::default()
        }
    }

    /// Writes the outcome's file and prints its table.
    ///
    /// Errors: the file cannot be written.
    pub fn finish(&mut self, outcome: &Outcome) -> Result<()> {
        outcome.write(&self.directory)?;
        self.log.result_table("result", &outcome.table());
        let labels = self.images.test.labels.as_deref().unwrap_or_default();
        doubts(outcome, labels, self.last_loss).iter().for_each(|doubt| self.log.warn(doubt));
        Ok(())
    }
}

/// Keeps the best epoch.
pub fn better(best: Option<Best>, candidate: Best) -> Best {
    match best {
        Some(best) if best.top1 >= candidate.top1 => best,
        _ => candidate,
    }
}

/// Says when fewer images than a batch are there, and what that makes of the learning rate. One that was given is a
/// warning of the [`Plan`]'s.
pub fn note_clamped_batch(log: &mut Log, plan: &Plan) {
    let (asked, images) = (plan.run.batch_size, plan.kept.len());
    if asked as usize > images {
        let rate = match plan.run.rate_follows_batch {
            true => {
                format!("; the learning rate in proportion, {} instead of {}", short(plan.lr()), plan.run.optimizer.lr)
            }
            false => String::new(),
        };
        log.note(&format!("batch: all {images} training images (a batch of {asked} is larger){rate}"));
    }
}

/// Context for errors that stop an evaluation: which one.
pub fn naming<T>(outcome: Result<T>, source: &Source) -> Result<T> {
    outcome.with_context(|| format!("the evaluation of {} stopped", source.name()))
}
