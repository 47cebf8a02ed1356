//! What the numbers of a configuration may be: one table for flags, for
//! `config.yml` and for the settings inside checkpoints, which anybody may have
//! written. The readers of single flags (`values`) take their ranges from here.

use super::choices::{OptimizerName, TransferMode};
use super::jobs::{Evaluate, Pretrain};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;

/// The numbers that a setting may have. As text: `a number above 0`.
#[derive(Clone, Copy, Debug)]
pub enum Range {
    Whole {
        least: u32,
        most: u32,
    },
    Number {
        allowed: fn(f64) -> bool,
        said: &'static str,
    },
    /// From 1 to 255.
    Odd,
}

const fn number(allowed: fn(f64) -> bool, said: &'static str) -> Range {
    Range::Number { allowed, said }
}

const fn from_to(least: u32, most: u32) -> Range {
    Range::Whole { least, most }
}

const fn at_least(least: u32) -> Range {
    Range::Whole { least, most: u32::MAX }
}

impl Range {
    pub const ABOVE_ZERO: Range = number(|value| value > 0.0, "above 0");
    pub const NOT_NEGATIVE: Range = number(|value| value >= 0.0, "of 0 or more");
    pub const PROBABILITY: Range = number(|value| (0.0..=1.0).contains(&value), "from 0 to 1");
    pub const SHARE: Range = number(|value| value > 0.0 && value <= 1.0, "above 0 and at most 1");
    pub const INSIDE_UNIT: Range = number(|value| value > 0.0 && value < 1.0, "above 0 and below 1");
    /// At 1 and above the sum of the gradients grows without end.
    pub const MOMENTUM: Range = number(|value| (0.0..1.0).contains(&value), "of 0 or more and below 1");
    /// The hue varies by 0.2 s of a turn, and half a turn reaches every colour.
    pub const JITTER_STRENGTH: Range = number(|value| (0.0..=2.5).contains(&value), "from 0 to 2.5");
    /// Of images in [0, 1], per channel.
    pub const MEAN: Range = number(|value| (-100.0..=100.0).contains(&value), "from -100 to 100");
    pub const DEVIATION: Range = number(|value| (1e-6..=100.0).contains(&value), "from 0.000001 to 100");
    /// Side of the images that an encoder is given, in pixels.
    pub const IMAGE_SIDE: Range = from_to(8, 1024);
    /// Linear layers of a projection head, and the numbers that come out of it.
    pub const HEAD_LAYERS: Range = from_to(1, 64);
    pub const HEAD_WIDTH: Range = from_to(1, 65536);

    /// Whether it is one of them.
    pub fn allows(self, value: f64) -> bool {
        let whole = value.fract() == 0.0;
        match self {
            Range::Whole { least, most } => whole && (f64::from(least)..=f64::from(most)).contains(&value),
            Range::Number { allowed, .. } => value.is_finite() && allowed(value),
            Range::Odd => whole && (1.0..=255.0).contains(&value) && value % 2.0 == 1.0,
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Range::Whole { least, most: u32::MAX } => write!(f, "a whole number of {least} or more"),
            Range::Whole { least, most } => write!(f, "a whole number from {least} to {most}"),
            Range::Number { said, .. } => write!(f, "a number {said}"),
            Range::Odd => write!(f, "an odd number from 1 to 255, so that the kernel has a centre"),
        }
    }
}

/// Settings by their place below a part, such as `head.layers` below `model`. One that is absent or null is none.
type Rows = &'static [(&'static str, Range)];

const DATA: Rows = &[("image_size_px", Range::IMAGE_SIDE), ("train_images", from_to(2, 2_000_000_000))];

const MODEL: Rows = &[
    ("normalisation.mean", Range::MEAN),
    ("normalisation.std", Range::DEVIATION),
    ("head.layers", Range::HEAD_LAYERS),
    ("head.out_dim", Range::HEAD_WIDTH),
];

const AUGMENTATION: Rows = &[
    ("crop_scale_min", Range::SHARE),
    ("crop_scale_max", Range::SHARE),
    ("crop_ratio_min", Range::ABOVE_ZERO),
    ("crop_ratio_max", Range::ABOVE_ZERO),
    ("flip_prob", Range::PROBABILITY),
    ("jitter_prob", Range::PROBABILITY),
    ("jitter_strength", Range::JITTER_STRENGTH),
    ("grayscale_prob", Range::PROBABILITY),
    ("blur_prob", Range::PROBABILITY),
    ("blur_kernel_px", Range::Odd),
    ("blur_sigma_min", Range::ABOVE_ZERO),
    ("blur_sigma_max", Range::ABOVE_ZERO),
];

const OPTIMIZER: Rows =
    &[("lr", Range::ABOVE_ZERO), ("weight_decay", Range::NOT_NEGATIVE), ("momentum", Range::MOMENTUM)];

const KNN: Rows = &[("neighbours", at_least(1)), ("temperature", Range::ABOVE_ZERO)];

/// Settings that come from flags or from a file.
pub trait Settings: Serialize + DeserializeOwned {
    /// The numbers among them, by part; the part `""` is the whole.
    const RANGES: &'static [(&'static str, Rows)];

    /// What contradicts each other among settings of which each is allowed, in words.
    fn contradiction(&self) -> Option<String>;

    /// Checks the numbers among settings as JSON, whole or in part.
    ///
    /// Errors: a setting by its place, with its value and what it may be.
    fn in_range(settings: &Value) -> Result<()> {
        in_range(settings, Self::RANGES)
    }

    /// Checks settings that are there.
    ///
    /// Errors: as [`Settings::in_range`]; two settings that contradict each other.
    fn check(&self) -> Result<()> {
        Self::in_range(&serde_json::to_value(self)?)?;
        self.contradiction().map_or(Ok(()), |what| bail!(what))
    }

    /// Reads settings from JSON and checks them.
    ///
    /// Errors: as [`Settings::check`]; no JSON, settings that are missing or of another type.
    fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("its settings cannot be understood")?;
        // Before numbers are cut to the types of the settings.
        Self::in_range(&value)?;
        let settings: Self = serde_json::from_value(value).context("its settings cannot be understood")?;
        settings.contradiction().map_or(Ok(settings), |what| bail!(what))
    }
}

impl Settings for Pretrain {
    const RANGES: &'static [(&'static str, Rows)] = &[
        ("data", DATA),
        ("augmentation", AUGMENTATION),
        ("model", MODEL),
        ("optimizer", OPTIMIZER),
        ("online_knn.knn", KNN),
        (
            "",
            &[
                ("temperature", Range::ABOVE_ZERO),
                ("ess_target", Range::INSIDE_UNIT),
                ("schedule.warmup_epochs", at_least(0)),
                ("batch_size", at_least(2)),
                ("epochs", from_to(0, 1_000_000)),
                ("grad_cache", at_least(1)),
                ("log_every", at_least(0)),
                ("save_every_n_epochs", at_least(1)),
                ("checkpoints.every_n_steps", at_least(1)),
                ("checkpoints.keep_last", at_least(1)),
                ("checkpoints.keep_every", at_least(1)),
                ("online_knn.every_epochs", at_least(1)),
                ("online_probe.every_epochs", at_least(1)),
                ("workers", from_to(1, 1024)),
            ],
        ),
    ];

    fn contradiction(&self) -> Option<String> {
        let views = &self.augmentation;
        if self.optimizer.name == OptimizerName::Lbfgs {
            return Some("optimizer.name is LBFGS, which works on a frozen trunk only".to_owned());
        }
        ordered(["grad_cache", "batch_size"], self.grad_cache.into(), self.batch_size.into())
            .or_else(|| ordered(["crop_scale_min", "crop_scale_max"], views.crop_scale_min, views.crop_scale_max))
            .or_else(|| ordered(["crop_ratio_min", "crop_ratio_max"], views.crop_ratio_min, views.crop_ratio_max))
            .or_else(|| ordered(["blur_sigma_min", "blur_sigma_max"], views.blur_sigma_min, views.blur_sigma_max))
    }
}

impl Settings for Evaluate {
    const RANGES: &'static [(&'static str, Rows)] = &[
        ("data", DATA),
        ("source.scratch", MODEL),
        ("optimizer", OPTIMIZER),
        ("knn", KNN),
        (
            "",
            &[
                ("label_ratio", Range::SHARE),
                ("schedule.warmup_epochs", at_least(0)),
                ("batch_size", at_least(2)),
                ("epochs", at_least(1)),
                ("patience_epochs", at_least(0)),
                ("reg_weights", Range::NOT_NEGATIVE),
                ("save_every_n_epochs", at_least(1)),
            ],
        ),
    ];

    fn contradiction(&self) -> Option<String> {
        let whole = self.optimizer.name == OptimizerName::Lbfgs && self.mode == TransferMode::Finetune;
        whole.then(|| "optimizer.name is LBFGS, which works on a frozen trunk only, and mode is finetune".to_owned())
    }
}

fn ordered(names: [&str; 2], low: f64, high: f64) -> Option<String> {
    (low > high).then(|| format!("{} {low} is above {} {high}", names[0], names[1]))
}

fn in_range(settings: &Value, ranges: &[(&str, Rows)]) -> Result<()> {
    for (part, rows) in ranges {
        for (name, range) in *rows {
            let path = if part.is_empty() { (*name).to_owned() } else { format!("{part}.{name}") };
            let value = path.split('.').try_fold(settings, |value, key| value.get(key));
            let items = value.map(|value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice));
            for (place, item) in items.unwrap_or_default().iter().enumerate().filter(|(_, item)| !item.is_null()) {
                if !item.as_f64().is_some_and(|number| range.allows(number)) {
                    let of_many = value.is_some_and(Value::is_array);
                    let place = if of_many { format!("[{place}]") } else { String::new() };
                    bail!("the setting {path}{place} is {item}; it has to be {range}");
                }
            }
        }
    }
    Ok(())
}
