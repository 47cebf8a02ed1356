//! What a plan says of itself: a table of facts that `--dry-run` prints.

use crate::config::{OptimizerConfig, OptimizerName, ScheduleConfig, ScheduleName};
use crate::data::grouped;
use crate::model::Encoder;
use crate::model::footprint::Estimate;
use crate::optim::Schedule;
use crate::report::short;
use serde_json::{Map, Value};

/// Lines under names, in the order in which they were said.
#[derive(Debug, Default)]
pub struct Facts {
    lines: Vec<(&'static str, String)>,
}

impl Facts {
    /// A fact under its name; line breaks in it are kept.
    pub fn say(&mut self, name: &'static str, fact: impl AsRef<str>) {
        self.lines.extend(fact.as_ref().lines().map(|line| (name, line.to_owned())));
    }

    /// For programs: in `facts` every fact under its name, its lines with their breaks.
    pub fn record(&self) -> Map<String, Value> {
        let mut facts: Map<String, Value> = Map::new();
        for (name, line) in &self.lines {
            let text = match facts.get(*name).and_then(Value::as_str) {
                Some(before) => format!("{before}\n{line}"),
                None => line.clone(),
            };
            facts.insert((*name).to_owned(), text.into());
        }
        Map::from_iter([("facts".to_owned(), facts.into())])
    }

    pub fn optimizer(&mut self, config: &OptimizerConfig) {
        let decay = format!("weight decay {}", short(config.weight_decay));
        let momentum = format!("momentum {}", short(config.momentum));
        let text = match config.name {
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
        };
        self.say("optimiser", text);
    }

    /// The course of the learning rate; `steps_per_epoch` where the data are there.
    pub fn schedule(&mut self, config: ScheduleConfig, peak: f64, steps_per_epoch: Option<u64>, epochs: u32) {
        let Some(steps_per_epoch) = steps_per_epoch else { return };
        if config.name != ScheduleName::Cosine {
            return self.say("schedule", format!("{}: {} throughout", config.name, short(peak)));
        }
        let schedule = Schedule::new(config, peak, steps_per_epoch, u64::from(epochs));
        let warmup = u64::from(config.warmup_epochs) * steps_per_epoch;
        let last = (u64::from(epochs) * steps_per_epoch).saturating_sub(1);
        let (first_lr, last_lr) = (short(schedule.lr(0)), short(schedule.lr(last)));
        let (warmup_end, end) = (grouped(warmup as usize), grouped(last as usize));
        self.say(
            "schedule",
            if warmup > last {
                format!("cosine, still in its warm-up of {warmup_end} steps at the end: {first_lr} to {last_lr}")
            } else {
                let rise = if warmup == 0 { String::new() } else { format!("{first_lr} rises to ") };
                format!("cosine: {rise}{} at step {warmup_end},\nfalls to {last_lr} at step {end}", short(peak))
            },
        );
    }

    /// `free` bytes there are, where the system tells.
    pub fn memory(&mut self, estimate: Estimate, free: Option<u64>, place: &str) {
        let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
        let free = free.map_or(String::new(), |free| format!(", {} are free", gib(free)));
        let (total, model, activations) = (gib(estimate.total()), gib(estimate.model), gib(estimate.activations));
        self.say(
            "memory",
            format!(
                "about {total} {place}{free}, an estimate:\n{model} weights and optimiser, {activations} activations"
            ),
        );
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

/// The number of weights, in groups of digits.
pub fn weights(encoder: &Encoder) -> String {
    grouped(encoder.parameters().iter().map(|p| p.tensor.numel()).sum())
}

/// Seconds.
pub const HOUR: f64 = 3_600.0;
pub const DAY: f64 = 86_400.0;

/// A time in the unit that fits.
pub fn about(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} seconds"),
        s if s < 5_400.0 => format!("{:.0} minutes", s / 60.0),
        s if s < 2.0 * DAY => format!("{:.1} hours", s / 3_600.0),
        s => format!("{:.1} days ({} hours)", s / DAY, grouped((s / 3_600.0).round() as usize)),
    }
}

pub fn per_second(images: f64) -> String {
    if images < 10.0 {
        format!("{images:.1} images a second")
    } else {
        format!("{} images a second", grouped(images.round() as usize))
    }
}
