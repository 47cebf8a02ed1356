//! Contrastive pre-training (upstream: `simclr.py`, `flatclr.py`).
//!
//! A step: two views of every image, one forward pass over both, features
//! scaled to unit length in float32, the objective's gradient, one backward
//! pass, one optimiser step with the schedule's learning rate. Statistics stay
//! on the device until an epoch ends (or the progress bar asks).

mod facts;
mod online_knn;
mod out_of_memory;
mod pace;
mod plan;
mod recorded;
mod restore;
mod saver;
mod session;
mod similarities;
mod statistics;
pub mod step;
mod tally;
mod temperature;
mod warnings;

use crate::device;
use crate::loader::Batch;
use crate::model::Pass;
use crate::native;
use crate::report::Console;
use anyhow::{Result, bail};
use restore::Counters;
use session::{Session, Stepped};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use step::{Step, Taken};
use tally::Tally;
use tch::{Device, Kind, Tensor};

pub use facts::tell;
pub use plan::Plan;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Finished,
    /// Asked to stop; everything is saved.
    Stopped,
}

/// Trains what is planned to the end, or until `stop` is set: then the state is saved after the step under way.
///
/// Errors: files that cannot be written, a loss that is not finite, too little memory.
pub fn run(plan: Plan, console: &Console, stop: &AtomicBool) -> Result<Ended> {
    let mut session = Session::begin(plan, console)?;
    let ended = native::caught(|| train(&mut session, stop))
        .unwrap_or_else(|error| Err(session.room.explain(error, &session.parameters, session.at.step + 1)));
    match ended {
        Ok(Ended::Finished) => session.finish().map(|()| Ended::Finished),
        Ok(Ended::Stopped) => Ok(Ended::Stopped),
        Err(error) => {
            // A checkpoint under way is finished; what went wrong first is what counts.
            let _ = session.wait_for_save();
            session.log.failed(&format!("{error:#}"));
            Err(error)
        }
    }
}

/// Epochs of batches of steps.
///
/// A GPU is waited for in these places alone: for the words of the bar, at most once a second; in [`verify`], every 50
/// steps and before a save; with `--ess-target` for the temperature, every 10 steps; for checkpoints, the first views,
/// and at an epoch's end; where steps are replayed, each for the fourth before it. `tests/precision.rs` reads what a step
/// runs through for others.
fn train(session: &mut Session, stop: &AtomicBool) -> Result<Ended> {
    let mut first_of_process = true;
    while session.at.epoch < u64::from(session.pretrain.epochs) {
        let Counters { epoch, batch: first, .. } = session.at;
        let mut batches = session.loader.epoch(epoch, first as usize);
        session.log.start_epoch(epoch);
        let mut last = None;
        let mut tally = Tally::start(&session.pretrain, epoch, session.at.step, session.device());
        if let Some(rows) = session.earlier_rows.take() {
            tally.continue_from(&rows, &session.schedule)?;
        }
        for batch in batches.by_ref() {
            let lr = session.schedule.lr(session.at.step);
            let batch = batch?;
            let first = std::mem::take(&mut first_of_process);
            if first {
                session.show_views(&batch.images)?;
            }
            let stepped = step(session, &batch, lr)?;
            if first {
                session.forget_peak()?;
            }
            let Taken { contrast, features, .. } = &stepped.taken;
            tally.add(&stepped.row, &contrast.anchors.ness, lr);
            session.at.step += 1;
            session.at.batch += 1;
            let ends_epoch = session.at.batch == session.loader.batches() as u64;
            if ends_epoch || session.looks_closer() {
                tally.look_closer(features, &session.parameters);
            }
            session.temperature.observe(|| contrast.anchors.ness.mean(Kind::Float));
            session.log.step(u64::from(session.pretrain.batch_size), || tally.latest());
            if session.looks_now() {
                verify(session, &mut tally, lr)?;
            }
            session.poll_save()?;
            if ends_epoch {
                last = Some(stepped);
                continue; // The epoch's end has its own checkpoint.
            }
            let stops = session.stops_now(stop)?;
            if stops || session.saves_now() {
                verify(session, &mut tally, lr)?;
            }
            if stops {
                session.save_stopped(Some(&tally))?;
                return Ok(Ended::Stopped);
            }
            if session.saves_now() {
                session.save_within_epoch(&tally)?;
            }
        }
        let lr = session.schedule.lr(session.at.step.saturating_sub(1));
        verify(session, &mut tally, lr)?;
        session.finish_epoch(tally, last.as_ref().map(|last| &last.taken.features), batches.waited())?;
        if session.ranks.any(stop.load(Ordering::Relaxed))? && session.at.epoch < u64::from(session.pretrain.epochs) {
            session.save_stopped(None)?;
            return Ok(Ended::Stopped);
        }
    }
    Ok(Ended::Finished)
}

/// One optimiser step on one batch. Nothing here waits for the device.
fn step(session: &mut Session, batch: &Batch, lr: f64) -> Result<Rc<Stepped>> {
    let Session { pretrain, encoder, parameters, optimizer, scaler, rate, ranks, statistics, recorder, log, .. } =
        session;
    let temperature = session.temperature.value();
    let pass = ranks.pass(Pass::train(device::compute_kind(pretrain.precision)), pretrain.sync_bn);
    rate.set(lr);
    let work = |images: &Tensor| {
        let step = Step {
            encoder,
            parameters,
            optimizer: optimizer.as_mut(),
            scaler: scaler.as_mut(),
            objective: pretrain.objective,
            temperature,
            pass,
            ranks,
            chunks: i64::from(pretrain.grad_cache),
        };
        let taken = step.take(images, rate)?;
        let row = statistics.row(&taken.contrast, taken.scaling.as_ref());
        Ok(Stepped { taken, row })
    };
    recorder.take(&batch.images, encoder, work, |text| log.warn(text))
}

/// Stops a run that has diverged, before anything of it is saved. Waits for the device.
fn verify(session: &mut Session, tally: &mut Tally, lr: f64) -> Result<()> {
    let Some(fault) = tally.fault() else { return Ok(()) };
    session.wait_for_save()?;
    let last = match &session.last_saved {
        Some(path) => format!("the last good checkpoint is {}", path.display()),
        None => "no checkpoint had been written yet".to_owned(),
    };
    bail!(
        "{fault}, at a learning rate of {lr:.3e}; {last}; try a smaller --lr, a longer --warmup-epochs, or --precision fp32"
    )
}

/// Device tensors as numbers, one after the other, read in one transfer.
fn read_scalars(scalars: &[Tensor]) -> Vec<f64> {
    if scalars.is_empty() {
        return Vec::new();
    }
    let joined = Tensor::stack(scalars, 0).to_kind(Kind::Double).to_device(Device::Cpu);
    Vec::<f64>::try_from(joined.contiguous().view(-1)).expect("a vector of doubles")
}
