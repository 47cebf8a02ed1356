//! Evaluates encoders: one, or every checkpoint of a run (upstream: `main_eval`,
//! `main_transfer`, `main_transfer_ft`, `main_supervised`).

pub mod accuracy;
mod classifier;
mod early_stop;
mod feature_cache;
mod finetune;
pub mod fit;
mod hold_out;
mod linear_eval;
mod losses;
pub mod outcome;
pub mod penalty;
mod standardise;
mod sweep;
pub mod trial;

use super::encoder_source::{self, Source};
use super::ranks::Ranks;
use crate::config::{Config, Evaluate, TransferMode};
use crate::native::{self, NativeError};
use crate::report::Console;
use anyhow::{Context, Result, bail};
use outcome::Outcome;
use std::path::PathBuf;
use tch::Device;
use trial::{Images, Trial};

/// Does what `evaluate` says, and answers with one outcome per encoder, oldest first.
///
/// Errors: data, checkpoints or settings that cannot be used; a loss that is not finite; results that cannot be
/// written. Of several checkpoints, those that cannot be read are named and passed over.
pub fn run(
    config: &Config,
    evaluate: &Evaluate,
    device: Device,
    console: &Console,
    ranks: &Ranks,
) -> Result<Vec<Outcome>> {
    let images = Images::load(evaluate, console)?;
    console.note(&images.train.describe());
    console.note(&images.test.describe());
    run_on(config, evaluate, &images, device, console, ranks)
}

/// [`run`] by several processes: all make features, rank 0 alone leaves results.
///
/// Errors: as [`run`]; what several processes cannot share.
pub fn together(
    config: &Config,
    evaluate: &Evaluate,
    device: Device,
    console: &Console,
    ranks: &Ranks,
) -> Result<Vec<Outcome>> {
    if ranks.count() > 1 && evaluate.mode == TransferMode::Finetune {
        bail!("fine-tuning and supervised training are done by one process, and this is one of {}", ranks.count());
    }
    if ranks.count() > 1 && evaluate.resume.is_some() {
        bail!("an evaluation is continued by one process, and this is one of {}", ranks.count());
    }
    if ranks.writes() {
        return run(config, evaluate, device, console, ranks);
    }
    // Every rank trains the same small classifier, so that none has to wait for another's; one result is enough.
    let scrap = Scrap::create()?;
    run(&Config { save_dir: scrap.0.clone(), ..config.clone() }, evaluate, device, console, ranks)
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

/// [`run`] on images that are loaded already.
pub fn run_on(
    config: &Config,
    evaluate: &Evaluate,
    images: &Images,
    device: Device,
    console: &Console,
    ranks: &Ranks,
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
        outcomes.push(evaluate_one(config, evaluate, images, &source, device, console, ranks)?);
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
    ranks: &Ranks,
) -> Result<Outcome> {
    let mut trial = Trial::open(config, evaluate, images, source, device, console, ranks)?;
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
