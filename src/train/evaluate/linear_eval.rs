//! Linear evaluation: a linear classifier on the features of a frozen trunk
//! (upstream: `linear_eval.py`).
//!
//! The trunk runs in evaluation mode and nothing of it changes, which a hash
//! before and after proves. Where the training transform is not random, features
//! are made once and every epoch is a few matrix products; where it is, each
//! epoch makes them anew. The number to quote is that of the last epoch; the
//! best epoch, which the test images choose, is reported beside it.

use super::accuracy::accuracy_of;
use super::fit::{self, Fit};
use super::outcome::{Knn, Outcome};
use super::penalty;
use super::plan::Opened;
use super::standardise::Standardiser;
use super::trial::{self, Trial};
use crate::augment::EvalTransform;
use crate::checkpoint::{Best, EvaluationCheckpoint};
use crate::config::{Evaluate, OptimizerName};
use crate::data::Split;
use crate::monitor::knn::{Bank, PLAIN_NEIGHBOURS, Vote};
use crate::report::EvalRecord;
use crate::run_dir::CheckpointName;
use crate::train::features::{Extractor, Features, trunk_hash};
use crate::train::{Stop, StopRequested};
use anyhow::{Result, bail};
use std::sync::Arc;
use std::time::Instant;

/// Evaluates one encoder.
///
/// Errors: images that cannot be read, a loss or features that are not finite, a trunk that changed, files that cannot
/// be written; [`StopRequested`], after what there is has been saved.
pub fn evaluate(trial: &mut Trial, opened: &Opened) -> Result<Outcome> {
    let run = trial.run;
    let Opened { source, encoder, trunk_hash: hash } = opened;
    let console = trial.log.console().clone();
    let extractor = trial.plan.extractor(encoder, &console);
    let mut outcome = trial.outcome(source, hash.clone(), fit::batch_size(run, trial.images.train.len()));

    let started = Instant::now();
    let (test_split, test_transform) = (Arc::clone(&trial.images.test), trial.test_transform());
    let test = deterministic(trial, &extractor, &test_split, test_transform, &mut outcome)?;
    let training = TrainingFeatures::new(trial, &extractor, &mut outcome)?;
    let bank = training.plain(trial, &extractor, &mut outcome)?;
    outcome.knn = Some(neighbours(run, &bank, &test, trial.images.classes() as i64));
    let scaling = run.standardize.then(|| Standardiser::fit(&bank));
    drop(bank);
    let training = training.standardised(&scaling);
    let test = scaling.as_ref().map_or_else(|| test.share(), |scaling| scaling.apply(&test));
    outcome.seconds_features = started.elapsed().as_secs_f64();

    let started = Instant::now();
    outcome.reg_weight = match &trial.plan.resumed {
        Some(saved) => saved.reg_weight,
        None => {
            let stop = trial.stop;
            penalty::choose(trial, &|epoch| stop.check().and_then(|()| training.at(epoch)))?
        }
    };
    train(trial, &training, &test, &mut outcome)?;
    outcome.seconds_training = started.elapsed().as_secs_f64();

    let after = trunk_hash(encoder)?;
    if after != *hash {
        bail!(
            "the trunk changed during linear evaluation ({hash} before, {after} after): the result would be worthless"
        );
    }
    trial.log.note(&format!("trunk frozen: {hash} before and after"));
    Ok(outcome)
}

/// Features under a transform that is not random: from the disk if they are there.
fn deterministic(
    trial: &mut Trial,
    extractor: &Extractor,
    split: &Arc<Split>,
    transform: EvalTransform,
    outcome: &mut Outcome,
) -> Result<Features> {
    let stop = trial.stop;
    let Some(cache) = &trial.cache else { return extractor.extract_while(split, transform, 0, &|| stop.check()) };
    let (features, read) = cache.features(extractor, split, transform, stop, &mut trial.log)?;
    outcome.features_from_cache += usize::from(read);
    Ok(features)
}

/// Epochs of the classifier, the test images counted after each.
fn train(trial: &mut Trial, training: &TrainingFeatures, test: &Features, outcome: &mut Outcome) -> Result<()> {
    let (run, epochs) = (trial.run, trial.run.epochs);
    let classes = trial.images.classes() as i64;
    let mut fit = Fit::new(run, outcome.reg_weight, training.images(), test.width(), classes, trial.plan.device)?;
    if let Some(saved) = trial.plan.resumed.as_ref().filter(|saved| saved.epochs_done > 0) {
        fit.classifier.load(&saved.state)?;
        fit.restore(&saved.optimizer, saved.step)?;
        outcome.take_up(saved);
        trial.plan.check_last_epoch(epochs)?;
    }
    if run.optimizer.name != OptimizerName::Lbfgs {
        trial::note_clamped_batch(&mut trial.log, trial.plan);
    }
    let bar = trial.log.console().progress("linear classifier", u64::from(epochs), "epochs");
    let mut bar = bar.beginning_at(u64::from(trial.plan.first_epoch()));
    for epoch in trial.plan.first_epoch()..epochs {
        let started = Instant::now();
        let features = match training.at(u64::from(epoch)) {
            Err(error) if error.is::<StopRequested>() && epoch > trial.plan.first_epoch() => {
                // The epoch that has not begun is made of nothing yet.
                let done = epoch - 1;
                trial.keep(CheckpointName::finished(done), || checkpoint(run, &fit, done, outcome))?;
                return Err(error);
            }
            features => features?,
        };
        let fitted = fit.epoch(&features, u64::from(epoch))?;
        let on_train = accuracy_of(|x| fit.classifier.logits(x), &features.values, &features.labels);
        let on_test = accuracy_of(|x| fit.classifier.logits(x), &test.values, &test.labels);
        outcome.set_best(trial::better(outcome.best(), Best { top1: on_test.top1, top5: on_test.top5, epoch }));
        outcome.set_last(on_test);
        outcome.train_top1 = on_train.top1;
        outcome.epochs_trained = epoch + 1;
        trial.epoch(&EvalRecord {
            epoch: u64::from(epoch),
            loss: fitted.loss,
            train_top1: on_train.top1,
            test_top1: on_test.top1,
            test_top5: on_test.top5,
            held_out_top1: None,
            lr: fitted.lr,
            epoch_seconds: started.elapsed().as_secs_f64(),
        });
        let last = fitted.converged || epoch + 1 == epochs;
        trial.save(last, || checkpoint(run, &fit, epoch, outcome), epoch)?;
        bar.advance(1);
        if !last && trial.stop.requested()? {
            trial.keep(CheckpointName::finished(epoch), || checkpoint(run, &fit, epoch, outcome))?;
            bail!(StopRequested);
        }
        if fitted.converged {
            trial.log.note(&format!("LBFGS converged after {} iterations", epoch + 1));
            break;
        }
        if run.optimizer.name == OptimizerName::Lbfgs && epoch + 1 == epochs {
            trial.log.warn(&format!("LBFGS has not converged in {epochs} iterations; give it more with --fc-epochs"));
        }
    }
    Ok(())
}

fn checkpoint(run: &Evaluate, fit: &Fit, epoch: u32, outcome: &Outcome) -> EvaluationCheckpoint {
    let (optimizer, step) = fit.saved().unwrap_or_default();
    EvaluationCheckpoint {
        scaler: None,
        run: run.clone(),
        epochs_done: epoch + 1,
        part: None,
        step,
        state: fit.classifier.state_dict().snapshot(),
        optimizer,
        best: outcome.best().unwrap_or_default(),
        chosen: None,
        last: outcome.last(),
        reg_weight: outcome.reg_weight,
        trunk_hash: outcome.trunk_hash.clone(),
    }
}

fn neighbours(run: &Evaluate, bank: &Features, test: &Features, classes: i64) -> Knn {
    let temperature = run.knn.temperature;
    let within = |neighbours: i64| neighbours.clamp(1, bank.len() as i64);
    let (weighted, plain) = (within(i64::from(run.knn.neighbours)), within(PLAIN_NEIGHBOURS));
    let bank = Bank::new(&bank.values, &bank.labels, classes);
    let top1 = |neighbours, vote| bank.top1(&test.values, &test.labels, neighbours, vote);
    Knn {
        knn_weighted_top1: top1(weighted, Vote::Weighted { temperature }),
        knn_weighted_neighbours: weighted,
        knn_weighted_temperature: temperature,
        knn_plain_top1: top1(plain, Vote::Plain),
        knn_plain_neighbours: plain,
    }
}

/// The training images' features, made once or anew in every epoch.
enum TrainingFeatures<'a> {
    Once(Features),
    EachEpoch {
        extractor: &'a Extractor<'a>,
        split: Arc<Split>,
        transform: EvalTransform,
        scaling: Option<&'a Standardiser>,
        stop: Stop<'a>,
    },
}

impl<'a> TrainingFeatures<'a> {
    /// LBFGS's objective must stay the same from iteration to iteration: it takes the test images' transform.
    fn new<'t: 'a>(trial: &mut Trial<'t>, extractor: &'a Extractor<'a>, outcome: &mut Outcome) -> Result<Self> {
        let split = Arc::clone(&trial.images.train);
        let transform = trial.plan.training_transform();
        trial.log.note(&format!("training images: {}", trial.plan.through_trunk()));
        if !transform.is_random() {
            return Ok(TrainingFeatures::Once(deterministic(trial, extractor, &split, transform, outcome)?));
        }
        if trial.run.optimizer.name == OptimizerName::Lbfgs {
            let transform = trial.test_transform();
            return Ok(TrainingFeatures::Once(deterministic(trial, extractor, &split, transform, outcome)?));
        }
        Ok(TrainingFeatures::EachEpoch { extractor, split, transform, scaling: None, stop: trial.stop })
    }

    /// The same, seen through `scaling` if there is one.
    fn standardised(self, scaling: &'a Option<Standardiser>) -> Self {
        match (self, scaling) {
            (TrainingFeatures::Once(features), Some(map)) => TrainingFeatures::Once(map.apply(&features)),
            (TrainingFeatures::EachEpoch { extractor, split, transform, stop, .. }, Some(map)) => {
                TrainingFeatures::EachEpoch { extractor, split, transform, scaling: Some(map), stop }
            }
            (unchanged, None) => unchanged,
        }
    }

    /// Number of images.
    fn images(&self) -> usize {
        match self {
            TrainingFeatures::Once(features) => features.len(),
            TrainingFeatures::EachEpoch { split, .. } => split.len(),
        }
    }

    /// The features to train on in an epoch.
    fn at(&self, epoch: u64) -> Result<Features> {
        match self {
            TrainingFeatures::Once(features) => Ok(features.share()),
            TrainingFeatures::EachEpoch { extractor, split, transform, scaling, stop } => {
                let features = extractor.extract_while(split, *transform, epoch, &|| stop.check())?;
                Ok(scaling.map_or_else(|| features.share(), |map| map.apply(&features)))
            }
        }
    }

    /// The features under the test images' transform: what the neighbours are looked for among.
    fn plain(&self, trial: &mut Trial, extractor: &Extractor, outcome: &mut Outcome) -> Result<Features> {
        match self {
            TrainingFeatures::Once(features) => Ok(features.share()),
            TrainingFeatures::EachEpoch { split, .. } => {
                let transform = trial.test_transform();
                deterministic(trial, extractor, split, transform, outcome)
            }
        }
    }
}
