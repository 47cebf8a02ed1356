//! The facts of an evaluation.

use super::{Facts, memory_line, optimizer_line, parameters, schedule_line};
use crate::augment::EvalTransform;
use crate::checkpoint::{self, Checkpoint};
use crate::cli::Resolved;
use crate::config::{
    CheckpointChoice, EarlyStopOn, EncoderSource, Evaluate, ModelConfig, OptimizerName, Pretrain, TransferMode,
};
use crate::data::{Part, grouped};
use crate::model::{Encoder, HeadKind, feature_dim, footprint};
use crate::report::short;
use crate::run_dir::{self, CheckpointName};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use tch::Device;

pub fn tell(facts: &mut Facts, resolved: &Resolved, run: &Evaluate) {
    let linear = run.mode == TransferMode::LinearEval;
    facts.say(
        "job",
        if linear { "train a linear classifier on the frozen trunk" } else { "train the whole network with labels" },
    );
    let (model, name) = encoder(facts, run);
    let train = facts.data("training data", &run.data, Part::Train);
    facts.data("test data", &run.data, Part::Test);
    let all = train.as_ref().map(|split| split.len());
    let used = all.map(|all| (all as f64 * run.label_ratio).round() as u64);
    if let Some(used) = used.filter(|_| run.label_ratio < 1.0) {
        let percent = short(run.label_ratio * 100.0);
        facts.say("labels", format!("{} images, {percent}% of the training data", grouped(used as usize)));
    }

    let batch = used.map_or(u64::from(run.batch_size), |used| used.min(u64::from(run.batch_size)));
    facts.say("batch", format!("{} images of {1}x{1} pixels", grouped(batch as usize), run.data.image_size_px));
    let whole = run.optimizer.name == OptimizerName::Lbfgs;
    let per_epoch = used.map(|used| if whole { 1 } else { used.div_ceil(batch.max(1)) });
    if let Some(per_epoch) = per_epoch {
        let total = grouped((per_epoch * u64::from(run.epochs)) as usize);
        facts.say(
            "steps",
            format!("{} per epoch, at most {total} in {} epochs", grouped(per_epoch as usize), run.epochs),
        );
    }
    facts.say("optimiser", optimizer_line(&run.optimizer));
    facts.say("schedule", schedule_line(run.schedule, run.optimizer.lr, per_epoch, run.epochs));
    facts.say(
        "training images",
        drawn(EvalTransform::training(run.data.dataset, run.data.image_size_px as usize, run.augment)),
    );
    if run.patience_epochs > 0 && !linear {
        let judges = match run.early_stop_on {
            EarlyStopOn::HeldOut => "a tenth of the training images, which are not trained on",
            EarlyStopOn::Test => "the test images, which flatters the result",
        };
        facts.say("stop", format!("after {} epochs without a better top-1 on {judges}", run.patience_epochs));
    }
    if linear {
        let weights: Vec<String> = run.reg_weights.iter().map(|&weight| short(weight)).collect();
        facts.say("L2 penalty", weights.join(", "));
        let knn = run.knn;
        facts.say("kNN", format!("{} neighbours, temperature {}", knn.neighbours, short(knn.temperature)));
    }
    let classes = train.as_ref().map(|split| split.classes.len() as i64).filter(|&classes| classes > 0);
    if let (Some(model), Some(classes)) = (model, classes) {
        let encoder = Encoder::new(&model, HeadKind::Classifier(classes), Device::Cpu, run.seed);
        let width = feature_dim(model.depth);
        let weights = grouped(parameters(&encoder));
        facts.say(
            "model",
            format!("{}, {} stem, features of width {width}, {weights} weights", model.depth, model.stem),
        );
        if !linear {
            let step = footprint::StepSize {
                stem: model.stem,
                image_size_px: run.data.image_size_px,
                views: batch,
                precision: run.precision,
                optimizer: run.optimizer.name,
            };
            facts.say("memory", memory_line(footprint::estimate(&encoder.parameters(), step), resolved.device));
        }
    }
    if let Some((pretrain, epoch)) = name {
        let (dataset, save_dir) = (run.data.dataset, &resolved.config.save_dir);
        let parent =
            run_dir::evaluation_parent(save_dir, dataset, pretrain.objective, pretrain.batch_size, epoch, run.mode);
        facts.say("results", parent.join("{dd-mm-YYYY-HH-MM-SS}").display().to_string());
    }
}

/// How training images are drawn, in words.
fn drawn(transform: EvalTransform) -> &'static str {
    match transform {
        EvalTransform::Plain { .. } | EvalTransform::ResizeCenterCrop { .. } => "as the test images, nothing random",
        EvalTransform::RandomCropFlip { .. } => "random crops of 8 to 100% of the area, mirrored half of the time",
        EvalTransform::RandomShiftFlip { .. } => "moved by up to an eighth of the side, mirrored half of the time",
    }
}

/// Says where the encoder comes from. Its model where that is known, and the run and epoch that name the results.
fn encoder(facts: &mut Facts, run: &Evaluate) -> (Option<ModelConfig>, Option<(Pretrain, u32)>) {
    if let EncoderSource::Scratch(model) = &run.source {
        facts.say("encoder", "random weights");
        return (Some(model.clone()), None);
    }
    match chosen(&run.source, &mut |warning| facts.lines.push(("encoder", warning))) {
        Ok((path, checkpoint)) => {
            facts.say("encoder", path.display().to_string());
            if let EncoderSource::Directory { which: CheckpointChoice::All, directory } = &run.source {
                let count = run_dir::list_checkpoints(directory).map_or(0, |found| found.len());
                facts.say("encoder", format!("and the {} before it", count.saturating_sub(1)));
            }
            let Some(config) = checkpoint.config else {
                facts.say("encoder", "written by PyTorch");
                return (None, None);
            };
            let dataset = config.data.dataset;
            facts.say("encoder", format!("{} epochs of {} on {dataset}", checkpoint.epochs_done, config.objective));
            (
                Some(config.model.clone()),
                Some((config, named_epoch(&path).unwrap_or(checkpoint.epochs_done.saturating_sub(1)))),
            )
        }
        Err(error) => {
            facts.say("encoder", "cannot be used, see below");
            facts.hinder(error);
            (None, None)
        }
    }
}

/// The checkpoint to evaluate; of several the newest.
fn chosen(source: &EncoderSource, warn: &mut dyn FnMut(String)) -> Result<(PathBuf, Checkpoint)> {
    let path = match source {
        EncoderSource::Directory { directory, which: CheckpointChoice::Epoch(epoch) } => {
            directory.join(CheckpointName::finished(*epoch).to_string())
        }
        EncoderSource::Directory { directory, .. } => return checkpoint::newest_good(directory, warn),
        EncoderSource::File(path) => path.clone(),
        EncoderSource::Scratch(_) => unreachable!("random weights come from no file"),
    };
    let read = checkpoint::read(&path).context("the encoder cannot be read")?;
    Ok((path, read))
}

fn named_epoch(path: &Path) -> Option<u32> {
    Some(CheckpointName::parse(path.file_name()?.to_str()?)?.epoch)
}
