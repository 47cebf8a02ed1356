//! `--dry-run`: everything that a command resolves to, as a table of facts.
//! Looks at data and checkpoints, trains nothing, creates nothing.

mod evaluate;
mod pretrain;

use super::Resolved;
use crate::config::{DataConfig, Job, OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName};
use crate::data::{self, Part, Split, grouped};
use crate::device;
use crate::model::{Encoder, footprint};
use crate::optim::Schedule;
use crate::report::{Console, short};
use anyhow::Result;

/// What will be, line by line, and what stands in its way.
#[derive(Debug, Default)]
pub struct Facts {
    lines: Vec<(&'static str, String)>,
    /// The first obstacle: the run would fail with it.
    obstacle: Option<anyhow::Error>,
}

impl Facts {
    /// A fact under its name; line breaks in it are kept.
    fn say(&mut self, name: &'static str, fact: impl AsRef<str>) {
        self.lines.extend(fact.as_ref().lines().map(|line| (name, line.to_owned())));
    }

    fn hinder(&mut self, error: anyhow::Error) {
        self.obstacle.get_or_insert(error);
    }

    /// Loads a part of the data and says what it is; `None` where it is not there.
    fn data(&mut self, name: &'static str, config: &DataConfig, part: Part) -> Option<Split> {
        match data::load(config, part) {
            Ok(split) => {
                self.say(name, split.describe());
                Some(split)
            }
            Err(error) => {
                self.say(name, format!("{}: cannot be used, see below", config.dataset));
                self.hinder(error);
                None
            }
        }
    }
}

impl std::fmt::Display for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut previous = "";
        for (name, fact) in &self.lines {
            // A fact of several lines carries its name once.
            let shown = if *name == previous { "" } else { name };
            writeln!(f, "{shown:<width$}  {fact}")?;
            previous = name;
        }
        Ok(())
    }
}

/// Prints the facts on standard output.
///
/// Errors: what would stop the run, data that are not there for one; the facts are printed all the same.
pub fn run(resolved: &Resolved, console: &Console) -> Result<()> {
    let facts = facts(resolved);
    console.result(&facts.to_string());
    facts.obstacle.map_or(Ok(()), Err)
}

/// Collects the facts.
pub fn facts(resolved: &Resolved) -> Facts {
    let mut facts = Facts::default();
    match &resolved.config.job {
        Job::Pretrain(run) => pretrain::tell(&mut facts, resolved, run),
        Job::Evaluate(run) => evaluate::tell(&mut facts, resolved, run),
    }
    facts.say("device", &resolved.device_note);
    facts.say("precision", &resolved.precision_note);
    facts.say("workers", format!("{} threads load and augment", resolved.config.workers));
    facts
}

fn optimizer_line(config: &OptimizerConfig) -> String {
    let decay = format!("weight decay {}", short(config.weight_decay));
    let momentum = format!("momentum {}", short(config.momentum));
    match config.name {
        OptimizerName::Lars => {
            let without = match (config.lars_exclude_bn, config.lars_exclude_bias) {
                (true, true) => "\nBatchNorm and biases neither decayed nor adapted",
                (true, false) => "\nBatchNorm neither decayed nor adapted",
                (false, true) => "\nbiases neither decayed nor adapted",
                (false, false) => "",
            };
            format!("lars, {decay}, {momentum}{without}")
        }
        OptimizerName::Sgd => format!("sgd, {decay}, {momentum}"),
        OptimizerName::Adam => format!("adam, {decay}"),
        OptimizerName::Lbfgs => "LBFGS, on all images at once".to_owned(),
    }
}

/// The course of the learning rate; `steps_per_epoch` is `None` where the number of images is not known.
fn schedule_line(config: ScheduleConfig, peak: f64, steps_per_epoch: Option<u64>, epochs: u32) -> String {
    if config.name != ScheduleName::Cosine {
        return format!("{}: {} throughout", config.name, short(peak));
    }
    let Some(per_epoch) = steps_per_epoch.filter(|&steps| steps > 0) else {
        return format!("cosine: peak {} after {} epochs of warm-up", short(peak), config.warmup_epochs);
    };
    let schedule = Schedule::new(config, peak, per_epoch, u64::from(epochs));
    let warmup = u64::from(config.warmup_epochs) * per_epoch;
    let last = (u64::from(epochs) * per_epoch).saturating_sub(1);
    let (first_lr, last_lr) = (short(schedule.lr(0)), short(schedule.lr(last)));
    if warmup > last {
        let warmup = grouped(warmup as usize);
        return format!("cosine, still in its warm-up of {warmup} steps at the end: {first_lr} to {last_lr}");
    }
    let rise = if warmup == 0 { String::new() } else { format!("{first_lr} rises to ") };
    let at = grouped(warmup as usize);
    format!("cosine: {rise}{} at step {at},\nfalls to {last_lr} at step {}", short(peak), grouped(last as usize))
}

/// The number of weights.
fn parameters(encoder: &Encoder) -> usize {
    encoder.parameters().iter().map(|p| p.tensor.numel()).sum()
}

fn memory_line(estimate: footprint::Estimate, device: tch::Device) -> String {
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    let place = if device == tch::Device::Cpu { "in main memory" } else { "on the GPU" };
    let free = device::free_memory(device).map_or(String::new(), |free| format!(", {} are free", gib(free)));
    format!(
        "about {} {place}{free}, an estimate:\n{} weights and optimiser, {} activations",
        gib(estimate.total()),
        gib(estimate.model),
        gib(estimate.activations)
    )
}
