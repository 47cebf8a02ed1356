//! The choice of `--reg-weight` among several: by the accuracy on a fifth of
//! the training images that the candidates are not trained on. The test images
//! have no part in it. The chosen penalty is then trained on all training images.

use super::accuracy::accuracy_of;
use super::fit::Fit;
use super::trial::Trial;
use crate::config::Evaluate;
use crate::report::{Cell, Table, short};
use crate::train::features::Features;
use crate::train::labelled::hold_out;
use anyhow::{Result, bail};
use tch::Tensor;

/// One image in so many is held out.
const HELD_OUT: usize = 5;

/// Indices of the images to train on and of those held out: a fifth of every class, drawn from `seed`.
pub fn split(labels: &[i64], seed: u64) -> (Vec<i64>, Vec<i64>) {
    let (kept, held_out) = hold_out(labels, seed, 3, |members| members / HELD_OUT);
    let indices = |images: Vec<usize>| images.into_iter().map(|image| image as i64).collect();
    (indices(kept), indices(held_out))
}

/// The penalty to use, and a line about why.
///
/// Errors: too few images to hold any out, a loss that is not finite.
pub fn choose(trial: &mut Trial, features_at: &dyn Fn(u64) -> Result<Features>) -> Result<f64> {
    let run = trial.run;
    match run.reg_weights.as_slice() {
        [] => return Ok(0.0),
        [only] => return Ok(*only),
        _ => {}
    }
    let labels = trial.images.train.labels.clone().unwrap_or_default();
    let console = trial.log.console().clone();
    let mut bar = console.progress("choosing --reg-weight", u64::from(run.epochs), "epochs");
    let accuracies = held_out_accuracies(run, &labels, trial.images.classes() as i64, &mut |epoch| {
        bar.advance(u64::from(epoch > 0));
        features_at(epoch)
    })?;
    bar.finish();
    let mut table = Table::with_fields(&[("reg-weight", "reg_weight"), ("held-out top-1 (%)", "held_out_top1")]);
    for (weight, accuracy) in run.reg_weights.iter().zip(&accuracies) {
        table.row([Cell::said(*weight, short(*weight)), Cell::number(*accuracy, 2)]);
    }
    trial.log.note_table("reg_weight", &table);
    let chosen = best_of(&run.reg_weights, &accuracies);
    trial.log.note(&format!(
        "reg-weight {}: best on a fifth of the training images, which the candidates were not trained on",
        short(chosen)
    ));
    Ok(chosen)
}

/// The accuracy of every candidate on the held-out images, in percent; all take part in the same epochs.
///
/// Errors: as [`choose`].
pub fn held_out_accuracies(
    run: &Evaluate,
    labels: &[i64],
    classes: i64,
    features_at: &mut dyn FnMut(u64) -> Result<Features>,
) -> Result<Vec<f64>> {
    let (kept, held_out) = split(labels, run.seed);
    if held_out.is_empty() {
        bail!("no class has {HELD_OUT} training images: too few to choose among --reg-weight values; give one value");
    }
    let mut fits: Vec<Fit> = Vec::new();
    let mut outside = None;
    for epoch in 0..u64::from(run.epochs) {
        let all = features_at(epoch)?;
        let rows = |rows: &[i64]| Tensor::from_slice(rows).to_device(all.values.device());
        let inside = all.select(&rows(&kept));
        if fits.is_empty() {
            let (width, device) = (all.width(), all.values.device());
            for &weight in &run.reg_weights {
                fits.push(Fit::new(run, weight, kept.len(), width, classes, device)?);
            }
        }
        for fit in &mut fits {
            fit.epoch(&inside, epoch)?;
        }
        outside = Some(all.select(&rows(&held_out)));
    }
    let Some(outside) = outside else { bail!("--fc-epochs 0 trains no candidate of --reg-weight") };
    let accuracy =
        |fit: &Fit| accuracy_of(|x: &Tensor| fit.classifier.logits(x), &outside.values, &outside.labels).top1;
    Ok(fits.iter().map(accuracy).collect())
}

/// The most accurate; of equals the strongest penalty.
fn best_of(weights: &[f64], accuracies: &[f64]) -> f64 {
    let pairs = weights.iter().copied().zip(accuracies.iter().copied());
    let best = pairs.max_by(|a, b| a.1.total_cmp(&b.1).then(a.0.total_cmp(&b.0)));
    best.map_or(0.0, |(weight, _)| weight)
}
