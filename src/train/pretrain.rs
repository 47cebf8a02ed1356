//! Contrastive pre-training (upstream: `simclr.py`, `flatclr.py`).
//!
//! A step: two views of every image, one forward pass over both, features
//! scaled to unit length in float32, the objective's gradient, one backward
//! pass, one optimiser step with the schedule's learning rate. Statistics stay
//! on the device for some seconds, then `steps.jsonl` has them.
//!
//! The loop is here; `session` carries what it works on, `step` has the forward
//! and backward pass of a batch, `recorded` the CUDA graph, `tally` the numbers.

pub mod budget;
mod checkpoint_room;
mod crowded;
pub mod curves;
mod facts;
mod memory_check;
pub mod numbers;
mod online;
mod pace;
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
use crate::model::Pass;
use crate::native;
use crate::optim::Update;
use crate::report::Console;
use anyhow::Result;
pub use facts::tell;
pub use pace::{foresee, rate};
use session::Session;
pub use session::{Ended, Plan};
use std::sync::atomic::AtomicBool;
use tch::{Kind, Tensor};

/// Trains what is planned to the end, or until `stop` is set: then the state is saved after the step under way. Of a run that
/// is complete nothing is written again.
///
/// Errors: files that cannot be written, a loss that is not finite, too little memory.
pub fn run(plan: Plan, console: &Console, stop: &AtomicBool) -> Result<Ended> {
    if plan.is_complete() {
        return plan.close(console).map(|()| Ended::Finished);
    }
    let mut session = plan.begin(console)?;
    let ended = native::caught(|| train(&mut session, stop))
        .unwrap_or_else(|error| Err(session.memory.explain(error, &session.parameters, session.at.step + 1)));
    match ended {
        Ok(Ended::Finished) => session.finish().map(|()| Ended::Finished),
        Ok(Ended::Stopped) => Ok(Ended::Stopped),
        Err(error) => {
            session.recorder.warning().iter().for_each(|text| session.log.warn(text));
            // A checkpoint under way is finished; what went wrong first is what counts.
            let _ = session.wait_for_save();
            session.log.failed(&format!("{error:#}"));
            Err(error)
        }
    }
}

/// Trains epoch by epoch, to the end or until `stop` is set.
fn train(run: &mut Session, stop: &AtomicBool) -> Result<Ended> {
    while run.at.epoch < u64::from(run.pretrain.epochs) {
        if train_epoch(run, stop)? == Ended::Stopped {
            return Ok(Ended::Stopped);
        }
    }
    Ok(Ended::Finished)
}

/// The method: the steps of an epoch, or of what is left of it. Where the device is waited for, a comment says so;
/// `tests/precision.rs` reads what a step runs through for others.
fn train_epoch(run: &mut Session, stop: &AtomicBool) -> Result<Ended> {
    let (mut batches, mut tally, mut last) = (run.batches(), run.start_tally()?, None);
    for batch in batches.by_ref() {
        let images = batch?.images; // Two views of each image: u8 [2B, S, S, 3], view-major.
        let (lr, temperature) = (run.set_learning_rate(), run.temperature.value());
        let Session { pretrain, ranks, encoder, loss, parameters, optimizer, scaler, rate, statistics, .. } = run;
        let pass = ranks.pass(Pass::train(device::compute_kind(pretrain.precision)), pretrain.sync_bn);
        // On a GPU this is recorded once and replayed from then on: nothing in it waits for the device.
        let step = |images: &Tensor| {
            let update = Update::begin(optimizer.as_mut(), parameters, scaler.as_mut()); // Sets the gradients to 0.
            let views = step::forward(encoder, images, pass, pretrain.grad_cache); // Unit features [2B, P].
            let (contrast, unit) = ranks.contrast(loss.as_mut(), &views.unit, temperature)?;
            views.backward(&update.scaled(&contrast.gradient)); // From the features to the parameters.
            ranks.sum_gradients(parameters)?;
            let scaling = update.finish(rate); // The optimiser's step; left out where fp16 has overflowed.
            Ok(statistics.measure(contrast, views.hidden, unit, scaling, parameters))
        };
        let output = run.recorder.take(&images, encoder, step)?; // Replayed: waits for the fourth step before.
        let ends_epoch = run.count_step(&images)?; // A process's first step: waits, to show its views.
        tally.add(&output.row, &output.contrast.anchors.ness, lr);
        if ends_epoch || run.closer_look_due() {
            tally.add_look(&run.statistics.closer_look(&output, &run.parameters));
        }
        run.temperature.observe(|| output.contrast.anchors.ness.mean(Kind::Float)); // --ess-target: every 10 steps.
        run.log.step(u64::from(run.pretrain.batch_size), || tally.latest()); // The bar waits once a second at most.
        let stops = !ends_epoch && run.stop_requested(stop)?; // Several ranks ask each other, when a check is due.
        if run.check_due() {
            run.check_loss(&mut tally)?; // Waits: once in 50 steps of a GPU.
        }
        run.write_steps_when_due(&mut tally); // Waits: once in some seconds.
        if stops || (!ends_epoch && run.save_due()) {
            run.save_within_epoch(&mut tally)?; // Waits: the loss is checked and the state copied.
        }
        if stops {
            return run.stopped();
        }
        last = ends_epoch.then_some(output);
    }
    run.finish_epoch(tally, last.as_deref(), batches.waited(), stop) // Waits for the epoch's numbers.
}
