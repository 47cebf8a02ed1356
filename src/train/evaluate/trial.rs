//! An evaluation under way, whatever it trains: its plan, a results directory and its log.

use super::early_stop;
use super::feature_cache::FeatureCache;
use super::outcome::{Outcome, Protocol};
use super::plan::{Images, Plan};
use crate::augment::EvalTransform;
use crate::checkpoint::{self, Best, Chosen, EvaluationCheckpoint};
use crate::clock;
use crate::config::{EncoderSource, Evaluate, OptimizerName, TransferMode};
use crate::report::{Console, Log};
use crate::run_dir::{self, CheckpointName};
use crate::train::encoder_source::Source;
use crate::train::readable;
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
}

impl<'a> Trial<'a> {
    /// Creates the results directory, or opens the one that is to be continued.
    ///
    /// Errors: a directory that cannot be written.
    pub fn begin(plan: &'a Plan, source: &Source, console: &Console) -> Result<Trial<'a>> {
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
        })
    }

    /// The best epoch of the earlier part; of LBFGS, which begins again, none.
    pub fn best_so_far(&self) -> Option<Best> {
        self.plan.resumed.as_ref().filter(|saved| saved.epochs_done > 0).map(|saved| saved.best)
    }

    /// The epoch that held-out images liked best in the earlier part.
    pub fn chosen_so_far(&self) -> Option<Chosen> {
        self.plan.resumed.as_ref().and_then(|saved| saved.chosen)
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
        let name = CheckpointName::finished(if last { epoch + 1 } else { epoch });
        checkpoint::write_evaluation(&self.directory.join(name.to_string()), &checkpoint())
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
            bad_images_left_out: self.images.left_out.len(),
            classes: self.images.classes(),
            label_ratio: self.run.label_ratio,
            batch_size,
            trunk_hash,
            features_standardized: self.run.standardize && self.run.mode == TransferMode::LinearEval,
            optimizer: self.run.optimizer.name.to_string(),
            lr: self.run.optimizer.lr,
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
        self.log.result(&outcome.table().to_string());
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

/// Says when fewer images than a batch are there.
pub fn note_clamped_batch(log: &mut Log, asked: u32, images: usize) {
    if asked as usize > images {
        log.note(&format!("batch: all {images} training images (a batch of {asked} is larger)"));
    }
}

/// Context for errors that stop an evaluation: which one.
pub fn naming<T>(outcome: Result<T>, source: &Source) -> Result<T> {
    outcome.with_context(|| format!("the evaluation of {} stopped", source.name()))
}
