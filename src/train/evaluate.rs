//! Evaluates encoders: one, or every checkpoint of a run (upstream: `main_eval`,
//! `main_transfer`, `main_transfer_ft`, `main_supervised`).

pub mod accuracy;
mod classifier;
mod doubts;
mod early_stop;
mod facts;
mod feature_cache;
mod finetune;
pub mod fit;
mod linear_eval;
mod losses;
pub mod outcome;
pub mod penalty;
mod plan;
pub mod probe;
mod sizes;
mod standardise;
mod sweep;
pub mod trial;

use crate::config::{Evaluate, TransferMode};
use crate::native::{self, NativeError};
use crate::report::Console;
use crate::train::{Stop, StopRequested};
use anyhow::Result;
use outcome::Outcome;
use plan::Opened;
use std::sync::atomic::AtomicBool;
use tch::Device;
use trial::Trial;

pub use facts::tell;
pub use plan::{Images, Plan};

/// What came of evaluations.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// One per encoder, oldest first.
    pub outcomes: Vec<Outcome>,
    /// A request to stop ended them before the last was done; what there was is saved.
    pub stopped: bool,
}

/// Does what is planned, or what there is time for until `stop` is set: then the state is saved after the step of
/// fine-tuning, the epoch of a linear classifier or the batch of features under way.
///
/// Errors: a loss that is not finite; results that cannot be written. Of several checkpoints, those that cannot be read
/// are named and passed over.
pub fn run(plan: &Plan, console: &Console, stop: &AtomicBool) -> Result<Evaluated> {
    let stop = Stop { flag: stop, ranks: &plan.ranks };
    console.note(&plan.images.train.describe());
    console.note(&plan.images.test.describe());
    let size = plan.run.data.image_size_px;
    console.note(&format!("images: {size}x{size} pixels to the encoder, {}", plan.size_from));
    let mut outcomes = Vec::with_capacity(1 + plan.earlier.len());
    for origin in &plan.earlier {
        match plan.open(origin, console) {
            Err(error) => console.warn(&format!("passed over: {error:#}")),
            Ok(opened) => match evaluate_one(plan, &opened, stop, console)? {
                Some(outcome) => outcomes.push(outcome),
                None => return Ok(stopped(plan, outcomes, console)),
            },
        }
    }
    match evaluate_one(plan, &plan.newest, stop, console)? {
        Some(outcome) => outcomes.push(outcome),
        None => return Ok(stopped(plan, outcomes, console)),
    }
    if plan.several {
        let parent = sweep::parent(&plan.place(&plan.newest.source));
        sweep::report(&plan.config, &plan.run, &outcomes, &parent, console)?;
    }
    Ok(Evaluated { outcomes, stopped: false })
}

fn stopped(plan: &Plan, outcomes: Vec<Outcome>, console: &Console) -> Evaluated {
    if plan.several {
        console.note(&format!(
            "{} of {} checkpoints are evaluated, each in a directory of its own; the others, and the one under way, go on \
             with --transfer-from-epoch N instead of all of them",
            outcomes.len(),
            1 + plan.earlier.len()
        ));
    }
    Evaluated { outcomes, stopped: true }
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

/// `None`: stopped on request.
fn evaluate_one(plan: &Plan, opened: &Opened, stop: Stop, console: &Console) -> Result<Option<Outcome>> {
    let mut trial = Trial::begin(plan, &opened.source, stop, console)?;
    let outcome = native::caught(|| match plan.run.mode {
        TransferMode::LinearEval => linear_eval::evaluate(&mut trial, opened),
        TransferMode::Finetune => finetune::train(&mut trial, opened),
    })
    .unwrap_or_else(|error| Err(libtorch_failed(&plan.run, plan.device, error)));
    match outcome {
        Ok(outcome) => {
            trial.finish(&outcome)?;
            Ok(Some(outcome))
        }
        Err(error) if error.is::<StopRequested>() => {
            trial.stopped();
            Ok(None)
        }
        Err(error) => {
            trial.log.failed(&format!("{error:#}"));
            trial::naming(Err(error), &opened.source)
        }
    }
}
