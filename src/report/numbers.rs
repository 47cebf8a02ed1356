//! The numbers that travel from a training loop to its reports: no tensors, units in the names.

use super::format::short;
use super::plots::Panel;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One epoch or one step: a line of `metrics.jsonl` or `steps.jsonl`.
///
/// An absent number is left out of the line; one that is not finite is written
/// as null, named in the line's `non_finite`, and read back as NaN.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The epoch just finished, or that the step belongs to; counted from 0.
    pub epoch: u64,
    /// Steps finished since the start of training, this one included.
    pub step: u64,
    /// Key and number; keys that no [`Number`] has are passed on all the same.
    #[serde(flatten)]
    pub numbers: Map<String, Value>,
}

impl Record {
    pub fn new(epoch: u64, step: u64) -> Record {
        Record { epoch, step, numbers: Map::new() }
    }

    pub fn get(&self, key: &str) -> Option<f64> {
        match self.numbers.get(key)? {
            Value::Null => Some(f64::NAN),
            value => value.as_f64(),
        }
    }

    /// A number that every such record has; NaN where it is missing all the same.
    pub fn number(&self, key: &str) -> f64 {
        self.get(key).unwrap_or(f64::NAN)
    }

    pub fn set(&mut self, key: &str, number: impl Into<Value>) {
        self.numbers.insert(key.to_owned(), number.into());
    }

    /// [`Record::set`], for a record under construction.
    pub fn with(mut self, key: &str, number: impl Into<Value>) -> Record {
        self.set(key, number);
        self
    }
}

/// What all reports have to know about one number.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// Its name in a [`Record`].
    pub key: &'static str,
    /// What it says, and in which unit.
    pub meaning: &'static str,
    /// The curve of the epochs in TensorBoard.
    pub tag: &'static str,
    /// The curve of the steps, for a number that `steps.jsonl` has too.
    pub step_tag: Option<&'static str>,
    /// Its words in the line of an epoch and, with a `step_tag`, beside the bar; `None` where it is not worth telling.
    pub words: fn(f64) -> Option<String>,
    pub chart: Option<Chart>,
    /// For a number that is not in the record, because it follows from others.
    pub derived: Option<fn(&Record) -> Option<f64>>,
}

impl Number {
    /// Its value in `record`, if it is there.
    pub fn of(&self, record: &Record) -> Option<f64> {
        self.derived.map_or_else(|| record.get(self.key), |derived| derived(record))
    }
}

/// How a number is drawn over the epochs.
#[derive(Clone, Copy, Debug)]
pub struct Chart {
    pub title: &'static str,
    /// With the unit.
    pub y_label: &'static str,
    pub scale: Scale,
    /// Keys of thin lines beside the bold one: percentiles.
    pub faint: &'static [&'static str],
    /// Key of a level to compare with.
    pub dashed: Option<&'static str>,
}

/// What an axis covers at least, and what it cannot leave, whatever the margin.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub range: Option<(f64, f64)>,
    pub limits: Option<(f64, f64)>,
}

impl Scale {
    pub const FREE: Scale = Scale { range: None, limits: None };
    pub const FROM_ZERO: Scale = Scale { range: Some((0.0, 0.0)), limits: Some((0.0, f64::MAX)) };
    pub const SHARE: Scale = Scale::within(0.0, 1.0);
    /// So that a share of next to nothing looks like it.
    pub const SMALL_SHARE: Scale = Scale { range: Some((0.0, 0.1)), ..Scale::SHARE };
    pub const PERCENT: Scale = Scale::within(0.0, 100.0);
    pub const COSINE: Scale = Scale::within(-1.0, 1.0);

    pub const fn within(low: f64, high: f64) -> Scale {
        Scale { range: None, limits: Some((low, high)) }
    }
}

impl Chart {
    /// Axes over epochs, without a curve.
    pub fn panel(&self) -> Panel {
        Panel {
            title: self.title.into(),
            x_label: "epochs trained".into(),
            y_label: self.y_label.into(),
            x_whole: true,
            y_range: self.scale.range,
            y_limits: self.scale.limits,
            ..Panel::default()
        }
    }
}

/// One epoch of an evaluation: a line of its `metrics.jsonl`. Accuracies are percent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EvalRecord {
    /// The epoch just finished, counted from 0.
    pub epoch: u64,
    /// Cross-entropy in nats plus the penalty, mean over the epoch.
    pub loss: f64,
    /// Of the training images, after the epoch (linear) or as they were trained on (fine-tuning).
    pub train_top1: f64,
    pub test_top1: f64,
    pub test_top5: f64,
    /// Of the training images that are kept from training to decide when to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_top1: Option<f64>,
    /// Learning rate of the epoch's last step.
    pub lr: f64,
    pub epoch_seconds: f64,
}

impl EvalRecord {
    /// `epoch   3/100  loss 0.431  train 85.2%  held out 84.0%  test 83.1%  top-5 99.0%  lr 0.6`
    pub(super) fn line(&self, epochs: u64) -> String {
        let held_out = self.held_out_top1.map_or(String::new(), |top1| format!("held out {top1:.2}%  "));
        format!(
            "epoch {:>width$}/{epochs}  loss {:.3}  train {:.2}%  {held_out}test {:.2}%  top-5 {:.2}%  lr {}",
            self.epoch + 1,
            self.loss,
            self.train_top1,
            self.test_top1,
            self.test_top5,
            short(self.lr),
            width = epochs.to_string().len(),
        )
    }
}
