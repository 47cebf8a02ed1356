//! The whole network trained with labels: from a checkpoint (fine-tuning,
//! transfer, semi-supervised) or from random weights (supervised). Upstream:
//! `main_transfer_ft`, `main_supervised`, which test in training mode; here
//! BatchNorm uses its running statistics on the test images.
//!
//! A new linear classifier sits on the trunk; every parameter learns at the same
//! rate. A last batch of a single image is left out, because BatchNorm would
//! normalise it by itself alone. When to stop is [`early_stop`]'s part.

use super::accuracy::{Accuracy, Hits};
use super::early_stop;
use super::losses::Losses;
use super::outcome::Outcome;
use super::plan::Opened;
use super::trial::{self, Trial};
use crate::checkpoint::{Best, EpochPart, EvaluationCheckpoint, SavedOptimizer};
use crate::config::{EarlyStopOn, Evaluate, Precision};
use crate::device;
use crate::loader::{Loader, Order, Rendering};
use crate::model::{Encoder, Pass};
use crate::optim::{self, Optimizer, Rate, Scaler, Schedule, Update};
use crate::report::EvalRecord;
use crate::run_dir::{CheckpointKind, CheckpointName};
use crate::state::Parameter;
use crate::train::StopRequested;
use crate::train::features::BATCH_IMAGES;
use anyhow::{Result, bail};
use std::sync::Arc;
use std::time::Instant;
use tch::{Device, Kind, Reduction, Tensor};

/// Trains the network and tests it after every epoch.
///
/// Errors: images that cannot be read, a loss that is not finite, files that cannot be written; [`StopRequested`], after
/// the state has been saved.
pub fn train(trial: &mut Trial, opened: &Opened) -> Result<Outcome> {
    let mut network = Network::open(trial, opened)?;
    let mut outcome = trial.outcome(&opened.source, network.trunk_hash.clone(), network.batch);
    outcome.held_out_images = network.held_out.as_ref().map_or(0, |images| images.split().len());
    if let Some(saved) = &trial.plan.resumed {
        outcome.take_up(saved);
    }
    let (first, started) = (trial.plan.first_epoch(), Instant::now());
    // An earlier part may have run out of patience in its last epoch.
    let over = first > 0 && network.out_of_patience(trial.run, first - 1, &outcome);
    let epochs = if over { first } else { trial.run.epochs };
    trial.plan.check_last_epoch(epochs)?;
    let mut begun = trial.plan.resumed.as_ref().and_then(|saved| saved.part);
    for epoch in first..epochs {
        let epoch_started = Instant::now();
        let mut part = Part::from(begun.take().unwrap_or_default(), network.step, trial.plan.device);
        let judged = network.train_epoch(trial, epoch, &mut part).and_then(|()| network.judge_all(trial));
        let (on_test, on_held_out) = match judged {
            Err(error) if error.is::<StopRequested>() => {
                let (name, part) = (CheckpointKind::Within { step: network.step }, Some(part.saved()?));
                trial.keep(CheckpointName { epoch, kind: name }, || {
                    network.checkpoint(trial.run, epoch, part, &outcome)
                })?;
                return Err(error);
            }
            judged => judged?,
        };
        let (loss, on_train) = (part.losses.mean()?, part.hits.accuracy());
        outcome.set_best(trial::better(outcome.best(), Best { top1: on_test.top1, top5: on_test.top5, epoch }));
        outcome.chosen = on_held_out.map(|held_out| early_stop::better(outcome.chosen, held_out, on_test, epoch));
        outcome.set_last(on_test);
        outcome.train_top1 = on_train.top1;
        outcome.epochs_trained = epoch + 1;
        let record = EvalRecord {
            epoch: u64::from(epoch),
            loss,
            train_top1: on_train.top1,
            test_top1: on_test.top1,
            test_top5: on_test.top5,
            held_out_top1: on_held_out.map(|held_out| held_out.top1),
            lr: network.schedule.lr(network.step.saturating_sub(1)),
            epoch_seconds: epoch_started.elapsed().as_secs_f64(),
        };
        trial.epoch(&record);
        let run = trial.run;
        let out_of_patience = network.out_of_patience(run, epoch, &outcome);
        let last = out_of_patience || epoch + 1 == epochs;
        trial.save(last, || network.checkpoint(run, epoch + 1, None, &outcome), epoch)?;
        if !last && trial.stop.requested()? {
            let name = CheckpointName::finished(epoch);
            trial.keep(name, || network.checkpoint(run, epoch + 1, None, &outcome))?;
            bail!(StopRequested);
        }
        if out_of_patience && epoch + 1 < epochs {
            let images = if outcome.chosen.is_some() { "held-out" } else { "test" };
            let best_epoch = best_epoch(&outcome);
            trial
                .log
                .note(&format!("stopped early: no better top-1 on the {images} images since epoch {}", best_epoch + 1));
            break;
        }
    }
    outcome.seconds_training = started.elapsed().as_secs_f64();
    Ok(outcome)
}

/// The network, its optimiser and its batches.
struct Network<'a> {
    encoder: &'a Encoder,
    parameters: Vec<Parameter>,
    optimizer: Box<dyn Optimizer>,
    rate: Rate,
    /// With fp16 only.
    scaler: Option<Scaler>,
    schedule: Schedule,
    training: Loader,
    testing: Loader,
    /// Training images that decide when to stop.
    held_out: Option<Loader>,
    stops_early: bool,
    step: u64,
    batch: usize,
    /// Of the weights that training begins with.
    trunk_hash: String,
    compute: Kind,
}

/// The epoch that decides when to stop, counted from 0.
fn best_epoch(outcome: &Outcome) -> u32 {
    outcome.chosen.map_or(outcome.best_epoch, |chosen| chosen.chosen_epoch)
}

/// An epoch under way.
struct Part {
    /// Of training, behind it.
    batches: usize,
    losses: Losses,
    hits: Hits,
}

impl Part {
    /// Goes on from what was saved of it after `step` steps in all.
    fn from(saved: EpochPart, step: u64, device: Device) -> Part {
        Part {
            batches: saved.batches as usize,
            losses: Losses::continued(step, saved.loss_sum, saved.losses),
            hits: Hits::continued(saved.counted, device),
        }
    }

    /// Errors: a loss among the last ones that is not finite.
    fn saved(&mut self) -> Result<EpochPart> {
        let (loss_sum, losses) = self.losses.sum()?;
        Ok(EpochPart { batches: self.batches as u64, loss_sum, losses, counted: self.hits.counted() })
    }
}

/// What a step leaves, on the device.
struct Stepped {
    /// `[]`.
    loss: Tensor,
    /// `[B, C]`.
    logits: Tensor,
    /// `[B]`.
    labels: Tensor,
    /// What [`Update::finish`] gave.
    scaling: Option<Tensor>,
}

impl<'a> Network<'a> {
    fn open(trial: &mut Trial, opened: &'a Opened) -> Result<Network<'a>> {
        let (plan, run) = (trial.plan, trial.run);
        let (encoder, batch) = (&opened.encoder, plan.batch());
        trial::note_clamped_batch(&mut trial.log, plan);
        let loader = |split, transform, order, batch| {
            Loader::new(
                Arc::clone(split),
                Rendering::Single(transform),
                order,
                batch,
                run.seed,
                trial.plan.config.workers as usize,
            )
            .map(|loader| loader.deliver_to(trial.plan.device))
        };
        let training = loader(&plan.kept, plan.training_transform(), Order::ShuffledWhole, batch)?;
        let judging = |split| loader(split, trial.test_transform(), Order::Sequential, BATCH_IMAGES);
        let (testing, held_out) = (judging(&plan.images.test)?, plan.held_out.as_ref().map(judging).transpose()?);
        let stops_early = run.patience_epochs > 0 && (held_out.is_some() || run.early_stop_on == EarlyStopOn::Test);
        let parameters = encoder.parameters();
        let mut optimizer = optim::build(&run.optimizer, parameters.clone())?;
        let steps_per_epoch = training.batches() as u64;
        let schedule = Schedule::new(run.schedule, plan.lr(), steps_per_epoch, u64::from(run.epochs));
        let mut scaler =
            (run.precision == Precision::Fp16).then(|| Scaler::new(trial.plan.device, encoder.running_statistics()));
        let mut step = 0;
        if let Some(saved) = &trial.plan.resumed {
            if let (Some(scaler), Some(state)) = (&mut scaler, saved.scaler) {
                scaler.restore(state)?;
            }
            encoder.load(&saved.state)?;
            optimizer.load(&|index, name| saved.optimizer.get(index, name))?;
            step = saved.step;
        }
        let compute = device::compute_kind(run.precision);
        Ok(Network {
            encoder,
            parameters,
            optimizer,
            rate: Rate::on(trial.plan.device),
            scaler,
            schedule,
            training,
            testing,
            held_out,
            stops_early,
            step,
            batch,
            trunk_hash: opened.trunk_hash.clone(),
            compute,
        })
    }

    /// The rest of a pass over the training images; counts their losses, and how they are classified as they are trained
    /// on.
    fn train_epoch(&mut self, trial: &Trial, epoch: u32, part: &mut Part) -> Result<()> {
        let batches = self.training.batches();
        if part.batches >= batches {
            return Ok(());
        }
        let title = format!("epoch {}/{}", epoch + 1, trial.run.epochs);
        let bar = trial.log.console().progress(&title, batches as u64, "steps");
        let mut bar = bar.beginning_at(part.batches as u64);
        for batch in self.training.epoch(u64::from(epoch), part.batches) {
            let batch = batch?;
            part.batches += 1;
            if batch.samples.len() == 1 && batches > 1 {
                continue;
            }
            let lr = self.schedule.lr(self.step);
            let stepped = self.train_step(&batch.images, batch.labels.as_ref(), lr);
            part.losses.push(&stepped.loss, stepped.scaling.as_ref(), lr)?;
            part.hits.add(&stepped.logits, &stepped.labels);
            self.step += 1;
            bar.advance(1);
            if part.batches < batches {
                trial.stop.check()?;
            }
        }
        Ok(())
    }

    /// Accuracy on the test images, and on those held out if there are any.
    fn judge_all(&self, trial: &Trial) -> Result<(Accuracy, Option<Accuracy>)> {
        let on_test = self.judge(trial, &self.testing, "test")?;
        let held_out = self.held_out.as_ref().map(|images| self.judge(trial, images, "held-out images"));
        Ok((on_test, held_out.transpose()?))
    }

    /// One optimiser step.
    fn train_step(&mut self, images: &Tensor, labels: Option<&Tensor>, lr: f64) -> Stepped {
        self.rate.set(lr);
        let images = self.encoder.prepare(images);
        let labels = labels.expect("unlabelled data were refused before").shallow_clone();
        let update = Update::begin(self.optimizer.as_mut(), &self.parameters, self.scaler.as_mut());
        let logits = self.encoder.forward(&images, Pass::train(self.compute)).projected;
        let loss = logits.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0);
        update.scaled(&loss).backward();
        let scaling = update.finish(&self.rate);
        Stepped { loss: loss.detach(), logits: logits.detach(), labels, scaling }
    }

    /// Accuracy on images that are not trained on, in evaluation mode.
    fn judge(&self, trial: &Trial, images: &Loader, title: &str) -> Result<Accuracy> {
        let _guard = tch::no_grad_guard();
        let mut hits = Hits::none(trial.plan.device);
        let mut bar = trial.log.console().progress(title, images.batches() as u64, "batches");
        for batch in images.epoch(0, 0) {
            let batch = batch?;
            let labels = batch.labels.as_ref().expect("unlabelled data were refused before");
            let images = self.encoder.prepare(&batch.images);
            hits.add(&self.encoder.forward(&images, Pass::eval(self.compute)).projected, labels);
            bar.advance(1);
            trial.stop.check()?;
        }
        Ok(hits.accuracy())
    }

    /// Whether no epoch has been better for as long as is waited for, after `epoch`.
    fn out_of_patience(&self, run: &Evaluate, epoch: u32, outcome: &Outcome) -> bool {
        self.stops_early && epoch.saturating_sub(best_epoch(outcome)) >= run.patience_epochs
    }

    /// After `epochs_done` epochs, which gave `outcome`, and `part` of the next.
    fn checkpoint(
        &self,
        run: &Evaluate,
        epochs_done: u32,
        part: Option<EpochPart>,
        outcome: &Outcome,
    ) -> EvaluationCheckpoint {
        let lr = self.schedule.lr(self.step);
        EvaluationCheckpoint {
            run: run.clone(),
            epochs_done,
            part,
            step: self.step,
            state: self.encoder.state_dict(),
            scaler: self.scaler.as_ref().map(Scaler::state),
            optimizer: SavedOptimizer::of(self.optimizer.state(), self.parameters.len(), lr),
            best: outcome.best().unwrap_or_default(),
            chosen: outcome.chosen,
            last: outcome.last(),
            reg_weight: 0.0,
            trunk_hash: self.trunk_hash.clone(),
        }
    }
}
