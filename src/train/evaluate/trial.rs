//! What every evaluation needs whatever it trains: the labelled images, a
//! results directory, its log, and what an earlier part of it saved.

use super::feature_cache::FeatureCache;
use super::outcome::{Outcome, Protocol};
use crate::augment::EvalTransform;
use crate::checkpoint::{self, Best, Chosen, EvaluationCheckpoint};
use crate::config::{Config, DatasetName, EncoderSource, Evaluate, Objective, OptimizerName, TransferMode};
use crate::data::{self, BadImage, Part, Split};
use crate::model::HeadKind;
use crate::report::{Console, EvalLog};
use crate::run_dir::{self, CheckpointName};
use crate::train::encoder_source::Source;
use crate::train::ranks::Ranks;
use crate::train::readable;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::sync::Arc;
use tch::Device;

/// The labelled images of an evaluation.
#[derive(Clone, Debug)]
pub struct Images {
    pub train: Arc<Split>,
    pub test: Arc<Split>,
    /// Broken images that are in neither.
    pub left_out: Arc<Vec<BadImage>>,
}

impl Images {
    /// Loads both parts; of the training part the share of labels that is asked for.
    ///
    /// Errors: data that is missing, unlabelled, or whose parts have different classes.
    pub fn load(run: &Evaluate, console: &Console) -> Result<Images> {
        let train = readable::load(&run.data, Part::Train, console)?;
        let test = readable::load(&run.data, Part::Test, console)?;
        let left_out: Vec<BadImage> = train.left_out.into_iter().chain(test.left_out).collect();
        let (mut train, test) = (train.split, test.split);
        for split in [&train, &test] {
            if split.labels.is_none() {
                bail!("{} has no labels: there is nothing to evaluate on; choose a labelled data set", split.name);
            }
        }
        if train.classes != test.classes {
            bail!(
                "{} has {} classes and {} has {}, or they differ in name: both parts need the same classes",
                train.name,
                train.classes.len(),
                test.name,
                test.classes.len()
            );
        }
        if run.label_ratio < 1.0 {
            // Only ImageNet has published lists.
            let listed =
                (run.data.dataset == DatasetName::Imagenet).then(|| data::list_for(&run.data.root, run.label_ratio));
            train = data::semi_subset(&train, run.label_ratio, run.seed, listed.flatten().as_deref())?;
        }
        Ok(Images { train: Arc::new(train), test: Arc::new(test), left_out: Arc::new(left_out) })
    }

    pub fn classes(&self) -> usize {
        self.train.classes.len()
    }
}

/// One evaluation of one encoder, under way.
pub struct Trial<'a> {
    pub run: &'a Evaluate,
    pub images: &'a Images,
    pub device: Device,
    pub workers: usize,
    pub directory: PathBuf,
    pub log: EvalLog,
    /// Where features under transforms that are not random are kept.
    pub cache: Option<FeatureCache>,
    /// The processes that share the making of features.
    pub ranks: Ranks,
    /// What an earlier part of this evaluation saved.
    pub resumed: Option<EvaluationCheckpoint>,
}

impl<'a> Trial<'a> {
    /// Creates the results directory, or opens the one that is to be continued.
    ///
    /// Errors: a directory that cannot be written, a checkpoint that is no evaluation's or of another kind.
    pub fn open(
        config: &Config,
        run: &'a Evaluate,
        images: &'a Images,
        source: &Source,
        device: Device,
        console: &Console,
        ranks: &Ranks,
    ) -> Result<Trial<'a>> {
        let (directory, mut resumed) = match &run.resume {
            Some((directory, file)) => {
                let saved = checkpoint::read_evaluation(&directory.join(file))?;
                (directory.clone(), Some(saved))
            }
            None => {
                let directory =
                    run_dir::create(&results_parent(config, run, source), chrono::Local::now().naive_local())?;
                run_dir::write_config(&directory, &serde_json::to_value(config)?, &config.command)?;
                (directory, None)
            }
        };
        if let Some(saved) = &resumed
            && saved.run.mode != run.mode
        {
            bail!("{} continues a {} with --transfer-mode {}", directory.display(), saved.run.mode, run.mode);
        }
        readable::write_names(&directory, &images.left_out)?;
        // LBFGS saves no state: from the same start it takes the same steps.
        let repeated = run.optimizer.name == OptimizerName::Lbfgs;
        let first_epoch = resumed.as_ref().filter(|_| !repeated).map_or(0, |saved| saved.epochs_done);
        let mut log = EvalLog::create(&directory, u64::from(first_epoch), console.clone())?;
        log.detail(&format!("command: {}", config.command.join(" ")));
        log.note(&format!("encoder: {}", source.name()));
        log.note(&format!("results go to {}", directory.display()));
        if let Some(assumed) = &source.assumed {
            log.warn(assumed);
        }
        for mismatch in source.mismatches(&run.data) {
            log.warn(&mismatch);
        }
        if source.path.is_some() && source.objective.is_none() {
            log.warn("nothing says with which objective the encoder was trained; the results lie under flatclr");
        }
        for setting in resumed.iter().flat_map(|saved| differences(&saved.run, run)) {
            log.warn(&format!(
                "{setting} differs from the evaluation that is continued: another result than without a stop"
            ));
        }
        if let Some(saved) = resumed.as_mut().filter(|_| repeated) {
            log.note("LBFGS begins again and takes the same steps");
            saved.epochs_done = 0;
        }
        let workers = config.workers as usize;
        let cache = config.feature_cache.as_deref().map(FeatureCache::new);
        Ok(Trial { run, images, device, workers, directory, log, cache, ranks: ranks.clone(), resumed })
    }

    /// The head of a classifier over this data.
    pub fn head(&self) -> HeadKind {
        HeadKind::Classifier(self.images.classes() as i64)
    }

    /// The first epoch to train, counted from 0.
    pub fn first_epoch(&self) -> u32 {
        self.resumed.as_ref().map_or(0, |saved| saved.epochs_done)
    }

    /// The best epoch of the earlier part; of LBFGS, which begins again, none.
    pub fn best_so_far(&self) -> Option<Best> {
        self.resumed.as_ref().filter(|saved| saved.epochs_done > 0).map(|saved| saved.best)
    }

    /// The epoch that held-out images liked best in the earlier part.
    pub fn chosen_so_far(&self) -> Option<Chosen> {
        self.resumed.as_ref().and_then(|saved| saved.chosen)
    }

    pub fn training_transform(&self) -> EvalTransform {
        EvalTransform::training(self.run.data.dataset, self.run.data.image_size_px as usize, self.run.augment)
    }

    pub fn test_transform(&self) -> EvalTransform {
        EvalTransform::evaluation(self.run.data.dataset, self.run.data.image_size_px as usize)
    }

    /// Errors: the trunk is not the one that the earlier part of this evaluation began with.
    pub fn check_same_encoder(&self, hash: &str) -> Result<()> {
        match &self.resumed {
            Some(saved) if saved.trunk_hash != hash => bail!(
                "the encoder (trunk {hash}) is not the one (trunk {}) with which the evaluation in {} began",
                saved.trunk_hash,
                self.directory.display()
            ),
            _ => Ok(()),
        }
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

/// `results/{dataset}/{clr}/{batch}_{epoch}_fc|_ft`; without pre-training `results/{dataset}/scratch/{batch}_{epochs}_fc|_ft`.
pub fn results_parent(config: &Config, run: &Evaluate, source: &Source) -> PathBuf {
    let (dataset, objective) = (run.data.dataset, source.objective.unwrap_or(Objective::FlatClr));
    let parent =
        |batch, epoch| run_dir::evaluation_parent(&config.save_dir, dataset, objective, batch, epoch, run.mode);
    if source.path.is_some() {
        return parent(source.batch_size.unwrap_or(0), source.epoch);
    }
    let named = parent(run.batch_size, run.epochs);
    config.save_dir.join(dataset.name()).join("scratch").join(named.file_name().unwrap_or_default())
}

/// The settings that two parts of one evaluation should share and do not.
fn differences(before: &Evaluate, now: &Evaluate) -> Vec<String> {
    let fields = |run: &Evaluate| serde_json::to_value(Evaluate { resume: None, ..run.clone() }).ok();
    let (Some(before), Some(now)) = (fields(before), fields(now)) else { return Vec::new() };
    let Some(fields) = before.as_object() else { return Vec::new() };
    fields.iter().filter(|(name, value)| now.get(name) != Some(value)).map(|(name, _)| name.clone()).collect()
}

/// Keeps the best epoch.
pub fn better(best: Option<Best>, candidate: Best) -> Best {
    match best {
        Some(best) if best.top1 >= candidate.top1 => best,
        _ => candidate,
    }
}

/// Says when fewer images than a batch are there.
pub fn note_clamped_batch(log: &mut EvalLog, asked: u32, images: usize) {
    if asked as usize > images {
        log.note(&format!("batch: all {images} training images (--fc-batch-size {asked} is larger)"));
    }
}

/// Context for errors that stop an evaluation: which one.
pub fn naming<T>(outcome: Result<T>, source: &Source) -> Result<T> {
    outcome.with_context(|| format!("the evaluation of {} stopped", source.name()))
}
