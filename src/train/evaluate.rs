//! Evaluates encoders: one, or every checkpoint of a run (upstream: `main_eval`,
//! `main_transfer`, `main_transfer_ft`, `main_supervised`).

use super::encoder_source::{self, Origin};
use super::linear_eval;
use super::outcome::Outcome;
use super::trial::{self, Images, Trial};
use crate::config::{Config, Evaluate, TransferMode};
use crate::report::Console;
use anyhow::Result;
use tch::Device;

/// Does what `evaluate` says, and answers with one outcome per encoder, oldest first.
///
/// Errors: data, checkpoints or settings that cannot be used; a loss that is not finite; results that cannot be
/// written. Of several checkpoints, those that cannot be read are named and passed over.
pub fn run(config: &Config, evaluate: &Evaluate, device: Device, console: &Console) -> Result<Vec<Outcome>> {
    let images = Images::load(evaluate)?;
    console.note(&images.train.describe());
    console.note(&images.test.describe());
    run_on(config, evaluate, &images, device, console)
}

/// [`run`] on images that are loaded already.
pub fn run_on(
    config: &Config,
    evaluate: &Evaluate,
    images: &Images,
    device: Device,
    console: &Console,
) -> Result<Vec<Outcome>> {
    let origins = encoder_source::origins(&evaluate.source)?;
    let one = |origin: &Origin| evaluate_one(config, evaluate, images, origin, device, console);
    let mut outcomes = Vec::with_capacity(origins.len());
    for origin in &origins {
        outcomes.push(one(origin)?);
    }
    Ok(outcomes)
}

fn evaluate_one(
    config: &Config,
    evaluate: &Evaluate,
    images: &Images,
    origin: &Origin,
    device: Device,
    console: &Console,
) -> Result<Outcome> {
    let source = origin.open(&mut |warning| console.warn(&warning))?;
    let mut trial = Trial::open(config, evaluate, images, &source, device, console)?;
    let outcome = match evaluate.mode {
        TransferMode::LinearEval => linear_eval::evaluate(&mut trial, &source),
        TransferMode::Finetune => Err(anyhow::anyhow!("fine-tuning is not built yet")),
    };
    match outcome {
        Ok(outcome) => {
            trial.finish(&outcome)?;
            Ok(outcome)
        }
        Err(error) => {
            trial.log.failed(&format!("{error:#}"));
            trial::naming(Err(error), &source)
        }
    }
}
