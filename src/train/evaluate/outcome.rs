//! The numbers of an evaluation: for `linear_eval.json`, `finetune.json` and
//! `supervised.json`, and for the table on the terminal.

use super::accuracy::Accuracy;
use crate::checkpoint::{Best, Chosen, EvaluationCheckpoint, LastEpoch};
use crate::durable;
use crate::report::{Cell, Table};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What was trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    #[default]
    LinearEval,
    Finetune,
    Supervised,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::LinearEval => "linear_eval",
            Protocol::Finetune => "finetune",
            Protocol::Supervised => "supervised",
        }
    }
}

/// Accuracies of the nearest neighbours, in percent of the test images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Knn {
    pub knn_weighted_top1: f64,
    pub knn_weighted_neighbours: i64,
    pub knn_weighted_temperature: f64,
    pub knn_plain_top1: f64,
    pub knn_plain_neighbours: i64,
}

/// One evaluation of one encoder. Accuracies are percent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub protocol: Protocol,
    pub dataset: String,
    /// `None`: random weights.
    pub checkpoint: Option<PathBuf>,
    /// Of the pre-training, as the checkpoint's name has it.
    pub checkpoint_epoch: u32,
    pub train_images: usize,
    /// Of these, kept from training to decide when to stop.
    #[serde(default)]
    pub held_out_images: usize,
    pub test_images: usize,
    /// They are a part of the training images, because the data set has no others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub test_images_held_out: bool,
    /// Broken files of either part, under `--bad-images skip`.
    #[serde(default)]
    pub bad_images_left_out: usize,
    pub classes: usize,
    pub label_ratio: f64,
    pub test_top1_last_epoch: f64,
    pub test_top5_last_epoch: f64,
    pub test_top1_best_epoch: f64,
    pub test_top5_best_epoch: f64,
    /// Counted from 0.
    pub best_epoch: u32,
    /// Where images are held out.
    #[serde(flatten)]
    pub chosen: Option<Chosen>,
    pub train_top1: f64,
    pub epochs_trained: u32,
    /// Images in a batch, after clamping to the number of images.
    pub batch_size: usize,
    pub reg_weight: f64,
    #[serde(flatten)]
    pub knn: Option<Knn>,
    /// CRC-32 of the trunk; of a frozen one, before and after.
    pub trunk_hash: String,
    #[serde(default)]
    pub features_standardized: bool,
    /// Splits whose features had been made by an earlier evaluation.
    #[serde(default)]
    pub features_from_cache: usize,
    #[serde(default)]
    pub optimizer: String,
    #[serde(default)]
    pub lr: f64,
    /// Asked for.
    #[serde(default)]
    pub epochs: u32,
    #[serde(default)]
    pub image_size_px: u32,
    #[serde(default)]
    pub precision: String,
    #[serde(default)]
    pub seed: u64,
    #[serde(default)]
    pub program: String,
    pub seconds_features: f64,
    pub seconds_training: f64,
}

/// What each number says.
const MEANINGS: [(&str, &str); 21] = [
    (
        "test_top1_last_epoch",
        "percent of the test images classified correctly after the last epoch: the number to quote",
    ),
    (
        "test_top5_last_epoch",
        "percent of the test images whose class is among the five likeliest, after the last epoch",
    ),
    (
        "test_top1_best_epoch",
        "the best of all epochs, chosen on the test images: optimistic, and what upstream reports",
    ),
    ("test_top5_best_epoch", "top-5 in the epoch of the best top-1"),
    ("best_epoch", "the epoch of the best top-1, counted from 0"),
    (
        "test_top1_chosen_epoch",
        "percent of the test images classified correctly after the epoch that the held-out training images liked best: the number to quote where training stops early",
    ),
    ("chosen_epoch", "the epoch of the best top-1 on the held-out training images, counted from 0"),
    ("train_top1", "percent of the training images classified correctly in the last epoch"),
    ("reg_weight", "lambda of the penalty lambda / 2 |W|^2; of several, chosen on a fifth of the training images"),
    ("knn_weighted_top1", "percent, cosine neighbours voting with exp(similarity / temperature)"),
    ("knn_plain_top1", "percent, cosine neighbours with one vote each"),
    (
        "trunk_hash",
        "CRC-32 of names, shapes and bytes of all trunk parameters and BatchNorm statistics before training; in linear_eval verified equal after it",
    ),
    (
        "features_standardized",
        "whether every feature was brought to mean 0 and variance 1 over the training images first",
    ),
    (
        "features_from_cache",
        "splits whose features had been made by an earlier evaluation of the same trunk and images",
    ),
    ("train_images", "labelled training images used"),
    ("held_out_images", "of these, kept from training to decide when to stop"),
    (
        "test_images_held_out",
        "the data set has no test images: a fifth of every class of its training images was kept from training instead",
    ),
    ("label_ratio", "share of the training labels that was asked for"),
    ("checkpoint_epoch", "epoch of the pre-training, as the checkpoint's name has it"),
    ("seconds_features", "making the features and counting the neighbours"),
    ("seconds_training", "training and testing the classifier"),
];

impl Outcome {
    pub fn set_best(&mut self, best: Best) {
        self.test_top1_best_epoch = best.top1;
        self.test_top5_best_epoch = best.top5;
        self.best_epoch = best.epoch;
    }

    /// The best epoch; `None` before there was one.
    pub fn best(&self) -> Option<Best> {
        let (top1, top5) = (self.test_top1_best_epoch, self.test_top5_best_epoch);
        (self.epochs_trained > 0).then_some(Best { top1, top5, epoch: self.best_epoch })
    }

    pub fn set_last(&mut self, test: Accuracy) {
        self.test_top1_last_epoch = test.top1;
        self.test_top5_last_epoch = test.top5;
    }

    /// What the last whole epoch gave; `None` before there was one.
    pub fn last(&self) -> Option<LastEpoch> {
        let (test_top1, test_top5) = (self.test_top1_last_epoch, self.test_top5_last_epoch);
        (self.epochs_trained > 0).then_some(LastEpoch { train_top1: self.train_top1, test_top1, test_top5 })
    }

    /// Takes up what an earlier part of the evaluation had found when it saved this.
    pub fn take_up(&mut self, saved: &EvaluationCheckpoint) {
        if saved.epochs_done == 0 {
            return;
        }
        self.epochs_trained = saved.epochs_done;
        self.set_best(saved.best);
        self.chosen = saved.chosen;
        if let Some(LastEpoch { train_top1, test_top1, test_top5 }) = saved.last {
            self.train_top1 = train_top1;
            self.set_last(Accuracy { top1: test_top1, top5: test_top5 });
        }
    }

    /// The numbers, and in `meaning` what those among them say that need words.
    pub fn to_json(&self) -> Result<Value> {
        let mut value = serde_json::to_value(self)?;
        let meaning: serde_json::Map<String, Value> = MEANINGS
            .iter()
            .filter(|(name, _)| value.get(name).is_some())
            .map(|(name, text)| ((*name).to_owned(), json!(text)))
            .collect();
        if let Value::Object(fields) = &mut value {
            fields.insert("meaning".into(), Value::Object(meaning));
        }
        Ok(value)
    }

    /// Writes `directory/{protocol}.json` in one step.
    ///
    /// Errors: the file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.to_json()?)?;
        durable::replace(&directory.join(format!("{}.json", self.protocol.name())), |file| {
            Ok(writeln!(file, "{text}")?)
        })
    }

    /// The numbers for people, one a row; programs get those of the file.
    pub fn table(&self) -> Table {
        let fields = serde_json::to_value(self).expect("outcomes are plain numbers and names");
        let record = fields.as_object().cloned().unwrap_or_default();
        let mut table = Table::of_one([self.protocol.name(), "percent"], record);
        let mut row = |name: String, percent: f64| {
            table.row([name.into(), Cell::number(percent, 2)]);
        };
        row("test top-1, last epoch".to_owned(), self.test_top1_last_epoch);
        // Of five classes or fewer every guess is among the first five.
        if self.classes > 5 {
            row("test top-5, last epoch".to_owned(), self.test_top5_last_epoch);
        }
        row(format!("test top-1, best epoch ({})", self.best_epoch + 1), self.test_top1_best_epoch);
        if let Some(chosen) = &self.chosen {
            let epoch = chosen.chosen_epoch + 1;
            let name = format!("test top-1, epoch {epoch}, chosen by {} held-out images", self.held_out_images);
            row(name, chosen.test_top1_chosen_epoch);
        }
        row("train top-1".to_owned(), self.train_top1);
        if let Some(knn) = &self.knn {
            row(format!("kNN, {} weighted", knn.knn_weighted_neighbours), knn.knn_weighted_top1);
            row(format!("kNN, {} plain", knn.knn_plain_neighbours), knn.knn_plain_top1);
        }
        table
    }
}
