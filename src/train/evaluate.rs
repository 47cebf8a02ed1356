//! Evaluates encoders: one, or every checkpoint of a run (upstream: `main_eval`,
//! `main_transfer`, `main_transfer_ft`, `main_supervised`).

pub mod accuracy;
mod classifier;
mod early_stop;
mod facts;
mod feature_cache;
mod finetune;
pub mod fit;
mod hold_out;
mod linear_eval;
mod losses;
pub mod outcome;
pub mod penalty;
mod plan;
mod standardise;
mod sweep;
pub mod trial;

use crate::config::{Evaluate, TransferMode};
use crate::native::{self, NativeError};
use crate::report::Console;
use anyhow::Result;
use outcome::Outcome;
use plan::Opened;
use tch::Device;
use trial::Trial;

pub use facts::tell;
pub use plan::{Images, Plan};

/// Does what is planned, and answers with one outcome per encoder, oldest first.
///
/// Errors: a loss that is not finite; results that cannot be written. Of several checkpoints, those that cannot be read
/// are named and passed over.
pub fn run(plan: &Plan, console: &Console) -> Result<Vec<Outcome>> {
    console.note(&plan.images.train.describe());
    console.note(&plan.images.test.describe());
    let mut outcomes = Vec::with_capacity(1 + plan.earlier.len());
    for origin in &plan.earlier {
        match plan.open(origin, console) {
            Err(error) => console.warn(&format!("passed over: {error:#}")),
            Ok(opened) => outcomes.push(evaluate_one(plan, &opened, console)?),
        }
    }
    outcomes.push(evaluate_one(plan, &plan.newest, console)?);
    if plan.several {
        let parent = sweep::parent(&plan.place(&plan.newest.source));
        sweep::report(&plan.config, &plan.run, &outcomes, &parent, console)?;
    }
    Ok(outcomes)
}

/// An evaluation that libtorch stopped, in words.
fn libtorch_failed(evaluate: &Evaluate, device: Device, error: NativeError) -> anyhow::Error {
    let text = if error.is_out_of_memory() {
        let place = if device == Device::Cpu { "in main memory" } else { "on the GPU" };
        let (batch, precision) = (evaluate.batch_size, evaluate.precision);
        format!("out of memory {place} with a batch of {batch} in {precision}: try half of it with --fc-batch-size")
    } else {
        "libtorch failed in the evaluation".to_owned()
    };
    anyhow::Error::new(error).context(text)
}

fn evaluate_one(plan: &Plan, opened: &Opened, console: &Console) -> Result<Outcome> {
    let mut trial = Trial::begin(plan, &opened.source, console)?;
    let outcome = native::caught(|| match plan.run.mode {
        TransferMode::LinearEval => linear_eval::evaluate(&mut trial, opened),
        TransferMode::Finetune => finetune::train(&mut trial, opened),
    })
    .unwrap_or_else(|error| Err(libtorch_failed(&plan.run, plan.device, error)));
    match outcome {
        Ok(outcome) => {
            trial.finish(&outcome)?;
            Ok(outcome)
        }
        Err(error) => {
            trial.log.failed(&format!("{error:#}"));
            trial::naming(Err(error), &opened.source)
        }
    }
}
