//! Evaluates encoders: one, or every checkpoint of a run (upstream: `main_eval`,
//! `main_transfer`, `main_transfer_ft`, `main_supervised`).

use super::encoder_source::{self, Source};
use super::outcome::Outcome;
use super::trial::{self, Images, Trial};
use super::{finetune, linear_eval, sweep};
use crate::config::{Config, Evaluate, TransferMode};
use crate::native::{self, NativeError};
use crate::report::Console;
use anyhow::{Result, bail};
use std::path::PathBuf;
use tch::Device;

/// Does what `evaluate` says, and answers with one outcome per encoder, oldest first.
///
/// Errors: data, checkpoints or settings that cannot be used; a loss that is not finite; results that cannot be
/// written. Of several checkpoints, those that cannot be read are named and passed over.
pub fn run(config: &Config, evaluate: &Evaluate, device: Device, console: &Console) -> Result<Vec<Outcome>> {
    let images = Images::load(evaluate, console)?;
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
    let several = origins.len() > 1;
    if several && evaluate.resume.is_some() {
        bail!("an evaluation of all checkpoints is not continued; give one with --transfer-from-epoch N");
    }
    let (mut outcomes, mut parent) = (Vec::with_capacity(origins.len()), PathBuf::new());
    for origin in &origins {
        let source = match origin.open(&mut |warning| console.warn(&warning)) {
            Err(error) if several => {
                console.warn(&format!("passed over: {error:#}"));
                continue;
            }
            opened => opened?,
        };
        parent = trial::results_parent(config, evaluate, &source);
        outcomes.push(evaluate_one(config, evaluate, images, &source, device, console)?);
    }
    if outcomes.is_empty() {
        bail!("none of the {} checkpoints can be evaluated; their faults are named above", origins.len());
    }
    if several {
        sweep::report(config, evaluate, &outcomes, &sweep::parent(&parent), console)?;
    }
    Ok(outcomes)
}

/// An evaluation that libtorch stopped, in words.
fn libtorch_failed(evaluate: &Evaluate, device: Device, error: NativeError) -> anyhow::Error {
    let text = if error.is_out_of_memory() {
        let place = if device == Device::Cpu { "in main memory" } else { "on the GPU" };
        let (batch, precision) = (evaluate.batch_size, evaluate.precision);
        format!("out of memory {place} with --fc-batch-size {batch} in {precision}: try half as many images")
    } else {
        "libtorch failed in the evaluation".to_owned()
    };
    anyhow::Error::new(error).context(text)
}

fn evaluate_one(
    config: &Config,
    evaluate: &Evaluate,
    images: &Images,
    source: &Source,
    device: Device,
    console: &Console,
) -> Result<Outcome> {
    let mut trial = Trial::open(config, evaluate, images, source, device, console)?;
    let outcome = native::caught(|| match evaluate.mode {
        TransferMode::LinearEval => linear_eval::evaluate(&mut trial, source),
        TransferMode::Finetune => finetune::train(&mut trial, source),
    })
    .unwrap_or_else(|error| Err(libtorch_failed(evaluate, device, error)));
    match outcome {
        Ok(outcome) => {
            trial.finish(&outcome)?;
            Ok(outcome)
        }
        Err(error) => {
            trial.log.failed(&format!("{error:#}"));
            trial::naming(Err(error), source)
        }
    }
}
