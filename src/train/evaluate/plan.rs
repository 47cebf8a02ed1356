//! An evaluation before anything of it is written: images, encoder and the
//! checkpoint of an earlier part opened, read and checked, a place for its results
//! found. The evaluation is begun with it; `--dry-run` prints what it says of itself.

use super::early_stop;
use super::fit::{batch_size, peak_lr};
use super::libtorch_failed;
use crate::augment::EvalTransform;
use crate::checkpoint::{self, EvaluationCheckpoint};
use crate::config::{Config, DataConfig, Evaluate, Job, Objective, OptimizerName, TransferMode, differences};
use crate::data::{self, BadImage, Split, grouped};
use crate::device;
use crate::model::footprint::{self, StepSize};
use crate::model::{Encoder, HeadKind};
use crate::native;
use crate::report::{Console, short};
use crate::run_dir;
use crate::train::encoder_source::{self, Origin, Reading, Source};
use crate::train::features::{Extractor, trunk_hash};
use crate::train::labelled::Labelled;
use crate::train::ranks::Ranks;
use crate::train::shortage::Memory;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::Device;

/// The labelled images of an evaluation.
#[derive(Clone, Debug)]
pub struct Images {
    pub train: Arc<Split>,
    pub test: Arc<Split>,
    /// Broken images that are in neither.
    pub left_out: Arc<Vec<BadImage>>,
    /// The test images are a part of the training images, which is kept from training.
    pub held_out: bool,
}

impl Images {
    /// Loads both parts; of the training part the share of labels that is asked for.
    ///
    /// Errors: data that is missing, unlabelled, or whose parts have different classes.
    pub fn load(run: &Evaluate, console: &Console) -> Result<Images> {
        let Labelled { mut train, test, left_out, held_out } = Labelled::load(&run.data, console)?;
        if run.label_ratio < 1.0 {
            let listed = data::list_for(run.data.dataset, &run.data.root, run.label_ratio);
            train = data::semi_subset(&train, run.label_ratio, run.seed, listed.as_deref())?;
        }
        Ok(Images { train: Arc::new(train), test: Arc::new(test), left_out: Arc::new(left_out), held_out })
    }

    pub fn classes(&self) -> usize {
        self.train.classes.len()
    }
}

/// What an evaluation begins with.
pub struct Plan {
    pub(super) config: Config,
    pub(super) run: Evaluate,
    pub(super) device: Device,
    pub(super) ranks: Ranks,
    pub(super) images: Images,
    /// Images to train on, and of those to train on the part that is kept from it, where that decides when to stop.
    pub(super) kept: Arc<Split>,
    pub(super) held_out: Option<Arc<Split>>,
    /// Checkpoints before the newest, of which the first is evaluated first; not read yet.
    pub(super) earlier: Vec<Origin>,
    /// All checkpoints of a directory are evaluated.
    pub(super) several: bool,
    /// Where the size of the images is from.
    pub(super) size_from: &'static str,
    /// The encoder, of several the newest that can be read.
    pub(super) newest: Opened,
    /// What an earlier part of this evaluation saved.
    pub(super) resumed: Option<EvaluationCheckpoint>,
    /// What fine-tuning may have too little memory for, if it may.
    memory: Option<String>,
    _scrap: Option<Scrap>,
}

/// An encoder that has been read, and built with a new classifier on top.
pub(super) struct Opened {
    pub source: Source,
    pub encoder: Encoder,
    pub trunk_hash: String,
}

impl Plan {
    /// Opens everything that `config` names. Nothing of it is written; of several ranks all come here.
    ///
    /// Errors: data, checkpoints or settings that cannot be used, a directory that cannot be written. Of several
    /// checkpoints, those that cannot be read are named and passed over.
    pub fn make(config: &Config, run: &Evaluate, device: Device, console: &Console, ranks: &Ranks) -> Result<Plan> {
        Plan::on(Images::load(run, console)?, config, run, device, console, ranks)
    }

    /// [`Plan::make`] on images that are loaded already.
    pub fn on(
        images: Images,
        config: &Config,
        run: &Evaluate,
        device: Device,
        console: &Console,
        ranks: &Ranks,
    ) -> Result<Plan> {
        let free = device::free_memory(device);
        let mut run = run.clone();
        let mut earlier = encoder_source::origins(&run.source)?;
        let (count, several) = (earlier.len(), earlier.len() > 1);
        if several && run.resume.is_some() {
            bail!("an evaluation of all checkpoints is not continued; give one with --transfer-from-epoch N");
        }
        let newest = loop {
            let Some(origin) = earlier.pop() else {
                bail!("none of the {count} checkpoints can be evaluated; their faults are named above");
            };
            match Opened::open(&origin, config, &run, &images, device, console) {
                Err(error) if several => console.warn(&format!("passed over: {error:#}")),
                opened => break opened?,
            }
        };
        let resumed = run.resume.as_ref().map(|(directory, file)| -> Result<EvaluationCheckpoint> {
            let mut saved = checkpoint::read_evaluation(&directory.join(file))?;
            let directory = directory.display();
            if saved.run.mode != run.mode {
                bail!("{directory} continues a {} with --transfer-mode {}", saved.run.mode, run.mode);
            }
            if saved.trunk_hash != newest.trunk_hash {
                let (now, then) = (&newest.trunk_hash, &saved.trunk_hash);
                bail!(
                    "the encoder (trunk {now}) is not the one (trunk {then}) with which the evaluation in {directory} \
                     began"
                );
            }
            if run.optimizer.name == OptimizerName::Lbfgs {
                // It saves no state: from the same start it takes the same steps.
                saved.epochs_done = 0;
            }
            Ok(saved)
        });
        let resumed = resumed.transpose()?;
        let mut size_from;
        (run.data.image_size_px, size_from) = newest.source.image_size(&run.data);
        if let Some(saved) = &resumed {
            // What nobody asked for is as the evaluation began.
            if run.data.size_is_default {
                (run.data.image_size_px, size_from) = (saved.run.data.image_size_px, "as the evaluation began");
            }
            if run.rate_follows_batch {
                run.optimizer.lr = saved.run.optimizer.lr;
                run.rate_follows_batch = saved.run.rate_follows_batch;
            }
            run.augment = run.augment.or(saved.run.augment);
        }
        let (kept, held_out) = early_stop::parts(&run, &images.train);
        let memory = match run.mode {
            TransferMode::Finetune => foresee(&run, &newest, kept.len(), device, free, config.memory_check)?,
            TransferMode::LinearEval => None,
        };
        // Every rank trains the same small classifier, so that none has to wait for another's; one result is enough.
        let scrap = (!ranks.writes()).then(Scrap::create).transpose()?;
        let save_dir = scrap.as_ref().map_or(&config.save_dir, |scrap| &scrap.0).clone();
        let plan = Plan {
            config: Config {
                save_dir,
                save_dir_is_default: config.save_dir_is_default && scrap.is_none(),
                job: Job::Evaluate(Box::new(run.clone())),
                ..config.clone()
            },
            run,
            device,
            ranks: ranks.clone(),
            images,
            kept,
            held_out,
            earlier,
            several,
            size_from,
            newest,
            resumed,
            memory,
            _scrap: scrap,
        };
        run_dir::check_place(&plan.place(&plan.newest.source), plan.run.resume.is_some())?;
        Ok(plan)
    }

    /// Opens another of the checkpoints.
    pub(super) fn open(&self, origin: &Origin, console: &Console) -> Result<Opened> {
        Opened::open(origin, &self.config, &self.run, &self.images, self.device, console)
    }

    /// The directory of an evaluation that is continued; else that which gets a new one: in the directory of the encoder's
    /// run, unless `--save-dir` asks for another place, where it is as upstream has it, `{dataset}/{clr}/{batch}_{epoch}_fc|_ft`;
    /// without pre-training `{dataset}/scratch/{batch}_{epochs}_fc|_ft`.
    pub(super) fn place(&self, source: &Source) -> PathBuf {
        if let Some((directory, _)) = &self.run.resume {
            return directory.clone();
        }
        let (run, save_dir, dataset) = (&self.run, &self.config.save_dir, self.run.data.dataset);
        let home = source.path.as_deref().and_then(Path::parent).filter(|_| self.config.save_dir_is_default);
        if let Some(home) = home.filter(|home| run_dir::is_run(home)) {
            return run_dir::evaluation_inside(home, dataset, source.epoch, run.mode);
        }
        let objective = source.objective.unwrap_or(Objective::FlatClr);
        let parent = |batch, epoch| run_dir::evaluation_parent(save_dir, dataset, objective, batch, epoch, run.mode);
        if source.path.is_some() {
            return parent(source.batch_size.unwrap_or(0), source.epoch);
        }
        let named = parent(run.batch_size, run.epochs);
        save_dir.join(dataset.name()).join("scratch").join(named.file_name().unwrap_or_default())
    }

    pub(super) fn batch(&self) -> usize {
        batch_size(&self.run, self.kept.len())
    }

    /// The peak learning rate.
    pub(super) fn lr(&self) -> f64 {
        peak_lr(&self.run, self.kept.len())
    }

    /// How often the training images go through the trunk of a linear evaluation, and what the other way would cost.
    pub(super) fn through_trunk(&self) -> String {
        let (images, epochs) = (self.kept.len(), self.run.epochs as usize);
        let (once, anew) = (grouped(images), grouped(images * epochs));
        match (self.training_transform().is_random(), self.run.optimizer.name) {
            (true, OptimizerName::Lbfgs) => format!(
                "{once} through the trunk, once: LBFGS needs the same features in every iteration, so nothing is random"
            ),
            (true, _) => format!(
                "{once}, drawn anew in every epoch: {anew} through the trunk; --fc-augment none makes it {once}"
            ),
            (false, _) => format!(
                "{once} through the trunk, once for all epochs; random crops (--fc-augment crop-flip) would make it {anew}"
            ),
        }
    }

    /// Optimiser steps in an epoch; a last batch of one image is none where the whole network is trained.
    pub(super) fn steps_per_epoch(&self) -> usize {
        let (images, batch) = (self.kept.len(), self.batch());
        match self.run.mode {
            _ if self.run.optimizer.name == OptimizerName::Lbfgs => 1,
            TransferMode::Finetune if images > batch && images % batch == 1 => images / batch,
            _ => images.div_ceil(batch),
        }
    }

    /// The first epoch to train, counted from 0.
    pub(super) fn first_epoch(&self) -> u32 {
        self.resumed.as_ref().map_or(0, |saved| saved.epochs_done)
    }

    /// An earlier part that has trained all of the `epochs` must say what the last one gave.
    ///
    /// Errors: it does not, because an older version saved it.
    pub(super) fn check_last_epoch(&self, epochs: u32) -> Result<()> {
        match &self.resumed {
            Some(saved) if saved.epochs_done > 0 && saved.epochs_done >= epochs && saved.last.is_none() => bail!(
                "nothing is left to train: all {} epochs are done, and the checkpoint, of an older version, does not say \
                 what the last one gave; go on with more --fc-epochs, or begin the evaluation anew",
                saved.epochs_done
            ),
            _ => Ok(()),
        }
    }

    /// Of several ranks all share the making of features.
    pub(super) fn extractor<'a>(&'a self, encoder: &'a Encoder, console: &'a Console) -> Extractor<'a> {
        let (compute, workers) = (device::compute_kind(self.run.precision), self.config.workers as usize);
        Extractor { encoder, compute, seed: self.run.seed, workers, console, ranks: &self.ranks }
    }

    pub(super) fn training_transform(&self) -> EvalTransform {
        EvalTransform::training(self.run.data.dataset, self.run.data.image_size_px as usize, self.run.augment)
    }

    /// What the user should know about an encoder and these settings.
    ///
    /// Errors: a setting that cannot be written down: a bug.
    pub(super) fn warnings(&self, source: &Source) -> Result<Vec<String>> {
        let mut warnings: Vec<String> =
            source.assumed.iter().cloned().chain(source.mismatches(&self.run.data)).collect();
        if source.path.is_some() && source.objective.is_none() {
            let text = "nothing says with which objective the encoder was trained; the results lie under flatclr";
            warnings.push(text.to_owned());
        }
        warnings.extend(self.memory.clone());
        warnings.extend(self.of_sizes());
        if let Some(saved) = &self.resumed {
            // What changes no result: where the data and the encoder lie, which is checked by itself, and what is saved.
            let run = Evaluate { save_every_n_epochs: saved.run.save_every_n_epochs, ..self.run.clone() };
            let Evaluate { source, stated, resume, .. } = saved.run.clone();
            let DataConfig { root, more_roots, .. } = saved.run.data.clone();
            let data = DataConfig { root, more_roots, ..run.data.clone() };
            let now = serde_json::to_value(Evaluate { source, stated, resume, data, ..run })?;
            for (setting, before, now) in differences(&serde_json::to_value(&saved.run)?, &now) {
                warnings.push(format!(
                    "{setting} {now} differs from the evaluation that is continued, which began with {before}: another \
                     result than without a stop"
                ));
            }
        }
        if early_stop::holds_out(&self.run) && self.held_out.is_none() {
            warnings.push(format!(
                "no class has two labelled images: none is held out, and all {} epochs are trained; --early-stop-on test \
                 stops by the test images, --patience-epochs 0 asks for no early stop",
                self.run.epochs
            ));
        }
        Ok(warnings)
    }
}

/// Looks whether a step of fine-tuning on `images` images fits into `free` bytes; the answer is a warning, if one is due.
///
/// Errors: it does not, and `check` asks for that to be seen.
fn foresee(
    run: &Evaluate,
    opened: &Opened,
    images: usize,
    device: Device,
    free: Option<u64>,
    check: bool,
) -> Result<Option<String>> {
    let step = StepSize {
        device,
        stem: opened.source.model.stem,
        image_size_px: run.data.image_size_px,
        views: batch_size(run, images) as u64,
        precision: run.precision,
        optimizer: run.optimizer.name,
    };
    let parameters = opened.encoder.parameters();
    let needed = footprint::estimate(&parameters, step).needed();
    Memory { device, needed, free }.foresee(check, || {
        // It counts images of two views.
        match free.and_then(|free| footprint::largest_batch(&parameters, step, free, false)).map(|pairs| 2 * pairs) {
            Some(fits) if run.rate_follows_batch => {
                let lr = run.optimizer.lr * fits as f64 / f64::from(run.batch_size);
                format!("--fc-batch-size {fits} should fit, with --fc-lr {} in proportion", short(lr))
            }
            Some(fits) => format!("--fc-batch-size {fits} should fit"),
            None => "no batch size fits: free some memory, or take a smaller --model or --image-size".to_owned(),
        }
    })
}

impl Opened {
    fn open(
        origin: &Origin,
        config: &Config,
        run: &Evaluate,
        images: &Images,
        device: Device,
        console: &Console,
    ) -> Result<Opened> {
        let reading = Reading { key: config.checkpoint_key.as_deref(), images: Some(run.data.dataset) };
        let source = origin.open(reading, &mut |warning| console.warn(&warning))?.as_stated(&run.stated)?;
        if let Some(taken) = &source.taken {
            console.note(&format!("{}: {taken}", source.name()));
        }
        let build = || {
            let encoder = source
                .build(HeadKind::Classifier(images.classes() as i64), device, run.seed)
                .with_context(|| format!("{} cannot be evaluated", source.name()))?;
            let trunk_hash = trunk_hash(&encoder)?;
            Ok((encoder, trunk_hash))
        };
        let (encoder, trunk_hash) =
            native::caught(build).unwrap_or_else(|error| Err(libtorch_failed(run, device, error)))?;
        Ok(Opened { source, encoder, trunk_hash })
    }
}

/// A directory that goes when it is no longer needed.
struct Scrap(PathBuf);

impl Scrap {
    fn create() -> Result<Scrap> {
        let path = std::env::temp_dir().join(format!("flatnce-rank-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Scrap(path))
    }
}

impl Drop for Scrap {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
