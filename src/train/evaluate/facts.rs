//! What an evaluation says of itself before it begins.

use super::early_stop;
use super::plan::Plan;
use crate::augment::EvalTransform;
use crate::config::{Config, Evaluate, TransferMode};
use crate::data::{counted, grouped};
use crate::device;
use crate::model::{feature_dim, footprint};
use crate::report::{Console, short};
use crate::train::facts::{Facts, about, per_second, weights};
use crate::train::ranks::Ranks;
use anyhow::Result;
use std::sync::Arc;
use std::time::Instant;
use tch::Device;

/// Makes the plan and says what it is, then makes a few features for the time. `processes` will share that work.
///
/// Errors: those of the evaluation until then; what follows from the configuration alone is said all the same.
pub fn tell(
    facts: &mut Facts,
    config: &Config,
    run: &Evaluate,
    device: Device,
    processes: u32,
    console: &Console,
) -> Result<()> {
    let plan = Plan::make(config, run, device, console, &Ranks::alone());
    let linear = run.mode == TransferMode::LinearEval;
    let job =
        if linear { "train a linear classifier on the frozen trunk" } else { "train the whole network with labels" };
    facts.say("job", job);
    if let Ok(plan) = &plan {
        plan.warnings(&plan.newest.source)?.iter().for_each(|warning| console.warn(warning));
        plan.tell(facts);
    }
    let run = plan.as_ref().map_or(run, |plan| &plan.run);
    let drawn = match EvalTransform::training(run.data.dataset, run.data.image_size_px as usize, run.augment) {
        EvalTransform::Plain { .. } | EvalTransform::ResizeCenterCrop { .. } => "as the test images, nothing random",
        EvalTransform::RandomCropFlip { .. } => "random crops of 8 to 100% of the area, mirrored half of the time",
        EvalTransform::RandomShiftFlip { .. } => "moved by up to an eighth of the side, mirrored half of the time",
    };
    facts.say("training images", drawn);
    if let Some(plan) = plan.as_ref().ok().filter(|_| linear) {
        facts.say("training images", plan.through_trunk().replace("; ", ";\n"));
    }
    facts.optimizer(&run.optimizer);
    let steps_per_epoch = plan.as_ref().ok().map(|plan| plan.steps_per_epoch() as u64);
    let lr = plan.as_ref().map_or(run.optimizer.lr, Plan::lr);
    if lr != run.optimizer.lr {
        facts.say("learning rate", format!("{}, {} in proportion to the batch", short(lr), short(run.optimizer.lr)));
    }
    facts.schedule(run.schedule, lr, steps_per_epoch, run.epochs);
    if linear {
        let weights: Vec<String> = run.reg_weights.iter().map(|&weight| short(weight)).collect();
        facts.say("L2 penalty", weights.join(", "));
        let knn = run.knn;
        facts.say(
            "kNN",
            format!("{}, temperature {}", counted(knn.neighbours as usize, "neighbour"), short(knn.temperature)),
        );
    }
    plan?.tell_costs(facts, processes, console)
}

impl Plan {
    /// What images, encoder and an earlier part come to.
    fn tell(&self, facts: &mut Facts) {
        let (run, source) = (&self.run, &self.newest.source);
        facts.say("encoder", source.name());
        if self.several {
            facts.say("encoder", format!("and the {} before it", self.earlier.len()));
        }
        if let Some(data) = &source.data {
            let objective = source.objective.map_or("an unknown objective", |objective| objective.name());
            facts.say(
                "encoder",
                format!("{} of {objective} on {}", counted(source.epochs_done as usize, "epoch"), data.dataset),
            );
        } else if source.path.is_some() {
            facts.say("encoder", "weights without the settings of their run");
        }
        let (model, weights) = (&source.model, weights(&self.newest.encoder));
        let width = feature_dim(model.depth);
        facts.say(
            "model",
            format!("{}, {} stem, features of width {width}, {weights} weights", model.depth, model.stem),
        );
        let train = &self.images.train;
        facts.say("training data", train.describe());
        facts.say("test data", self.images.test.describe());
        if run.label_ratio < 1.0 {
            let percent = short(run.label_ratio * 100.0);
            facts.say("labels", format!("{}, {percent}% of the training data", counted(train.len(), "image")));
        }
        let size = run.data.image_size_px;
        facts.say("images", format!("{size}x{size} pixels to the encoder, {}", self.size_from));
        facts.say("batch", format!("{} of {size}x{size} pixels", counted(self.batch(), "image")));
        let (per_epoch, epochs) = (self.steps_per_epoch(), run.epochs);
        let total = grouped(per_epoch * epochs as usize);
        facts.say(
            "steps",
            format!("{} per epoch, at most {total} in {}", grouped(per_epoch), counted(epochs as usize, "epoch")),
        );
        match self.first_epoch() {
            0 => {}
            done if done >= epochs => facts.say("steps", "nothing is left to train"),
            done => facts.say("steps", format!("{} to go", counted((epochs - done) as usize, "epoch"))),
        }
        let stop = early_stop::describe(run, train, self.held_out.as_deref());
        facts.say("stop", stop.unwrap_or_default().replace("; ", ";\n"));
        let place = self.place(source);
        let place = if run.resume.is_some() { place } else { place.join("{dd-mm-YYYY-HH-MM-SS}") };
        facts.say("results", place.display().to_string());
    }

    /// Memory and time; for the time, features of a few training images are made.
    fn tell_costs(&self, facts: &mut Facts, processes: u32, console: &Console) -> Result<()> {
        let (run, encoder) = (&self.run, &self.newest.encoder);
        if run.mode == TransferMode::Finetune {
            let step = footprint::StepSize {
                device: self.device,
                stem: self.newest.source.model.stem,
                image_size_px: run.data.image_size_px,
                views: self.batch() as u64,
                precision: run.precision,
                optimizer: run.optimizer.name,
            };
            let place = if self.device == Device::Cpu { "in main memory" } else { "on the GPU" };
            facts.memory(footprint::estimate(&encoder.parameters(), step), device::free_memory(self.device), place);
        }
        let quiet = Console::silent();
        let extractor = self.extractor(encoder, &quiet);
        let waiting = console.waiting("making a few features");
        let (mut images, mut speed) = (8, 0.0);
        while speed == 0.0 {
            images = (4 * images).min(self.kept.len());
            let few = Arc::new(self.kept.subset(&(0..images).collect::<Vec<_>>()));
            let started = Instant::now();
            extractor.extract(&few, self.training_transform(), 0)?;
            let seconds = started.elapsed().as_secs_f64();
            if seconds > 0.5 || images == self.kept.len() || images >= 8192 {
                speed = images as f64 / seconds;
            }
        }
        drop(waiting);
        // A step goes forward and, at twice the cost, backward.
        let (kept, test) = (self.kept.len(), self.images.test.len());
        let held_out = self.held_out.as_ref().map_or(0, |images| images.len());
        let (epochs, random) =
            ((run.epochs - self.first_epoch().min(run.epochs)) as usize, self.training_transform().is_random());
        let all = match run.mode {
            TransferMode::Finetune => epochs * (3 * kept + test + held_out),
            TransferMode::LinearEval if random => kept + test + epochs * kept,
            TransferMode::LinearEval => kept + test,
        };
        let seconds = all as f64 * (1 + self.earlier.len()) as f64 / speed / f64::from(processes.max(1));
        let speed = per_second(speed);
        facts.say("time", format!("about {} in the network, at {speed} forward", about(seconds)));
        facts.say("time", format!("measured just now: {}, thrown away", counted(images, "image")));
        Ok(())
    }
}
