//! The two jobs: a pre-training run, an evaluation.

use super::choices::{ClassifierAugment, DatasetName, Depth, EarlyStopOn, Engine, Precision, TransferMode};
use super::parts::{
    Augmentation, CheckpointPolicy, DataConfig, ModelConfig, Numerics, OptimizerConfig, ScheduleConfig,
};
use crate::loss::Objective;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One pre-training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pretrain {
    pub data: DataConfig,
    pub augmentation: Augmentation,
    pub engine: Engine,
    pub objective: Objective,
    /// Of the similarities; with `ess_target` that of the first steps.
    pub temperature: f64,
    /// Steer the temperature so that the mean normalised effective sample size is this, in (0, 1).
    #[serde(default)]
    pub ess_target: Option<f64>,
    pub model: ModelConfig,
    pub optimizer: OptimizerConfig,
    pub schedule: ScheduleConfig,
    pub batch_size: u32,
    pub epochs: u32,
    pub seed: u64,
    pub precision: Precision,
    #[serde(default)]
    pub numerics: Numerics,
    /// Parts in which a batch goes through the encoder, one after the other.
    #[serde(default = "one")]
    pub grad_cache: u32,
    /// With several processes: BatchNorm's statistics are of the images of all.
    #[serde(default = "yes")]
    pub sync_bn: bool,
    /// Steps between two close looks at features and gradients; 0 = only at the end of an epoch.
    #[serde(default)]
    pub log_every: u32,
    pub save_every_n_epochs: u32,
    #[serde(default)]
    pub checkpoints: CheckpointPolicy,
    /// `None` = not.
    #[serde(default)]
    pub online_knn: Option<OnlineKnn>,
    /// `None` = not, as in older versions.
    #[serde(default)]
    pub online_probe: Option<OnlineProbe>,
    /// Threads that load and augment, where so many were asked for; `None` = as the machine has cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
}

/// What runs of older versions did.
fn one() -> u32 {
    1
}

/// What runs of older versions did, which knew one process.
fn yes() -> bool {
    true
}

/// Which checkpoint of a directory to evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointChoice {
    /// The newest.
    Last,
    /// `checkpoint_{epoch:04}.pth.tar`.
    Epoch(u32),
    /// Every one, oldest first: accuracy over epochs.
    All,
    /// Every so many epochs and the last of them, as upstream's `main_eval` counts.
    Every { epochs: u32, until: u32 },
}

impl CheckpointChoice {
    /// Whether the checkpoint of this number is among them.
    pub fn takes(self, number: u32) -> bool {
        match self {
            CheckpointChoice::Epoch(wanted) => number == wanted,
            CheckpointChoice::Every { epochs, until } => {
                number == until || (number > 0 && number < until && number.is_multiple_of(epochs))
            }
            CheckpointChoice::Last | CheckpointChoice::All => true,
        }
    }
}

/// Where the encoder of an evaluation comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderSource {
    /// Checkpoints of a directory.
    Directory { directory: PathBuf, which: CheckpointChoice },
    /// One checkpoint file.
    File(PathBuf),
    /// Random weights: supervised training from scratch.
    Scratch(ModelConfig),
}

/// How the trunk's features are judged by their nearest neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KnnConfig {
    pub neighbours: u32,
    /// Of the weighted vote, exp(similarity / temperature).
    pub temperature: f64,
}

/// Nearest neighbours while pre-training goes on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnlineKnn {
    pub every_epochs: u32,
    pub knn: KnnConfig,
}

/// A linear classifier on the trunk's features while pre-training goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnlineProbe {
    pub every_epochs: u32,
}

/// What the command says of a checkpoint's encoder. The checkpoint must agree, and need not say it itself then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatedEncoder {
    pub dataset: Option<DatasetName>,
    pub objective: Option<Objective>,
    pub depth: Option<Depth>,
    /// Of the pre-training.
    pub batch_size: Option<u32>,
}

/// One evaluation: a classifier on frozen features, or the whole network trained with labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluate {
    pub source: EncoderSource,
    #[serde(default)]
    pub stated: StatedEncoder,
    pub mode: TransferMode,
    /// The labelled data.
    pub data: DataConfig,
    /// Share of the training labels that is used, in (0, 1].
    pub label_ratio: f64,
    pub optimizer: OptimizerConfig,
    pub schedule: ScheduleConfig,
    pub batch_size: u32,
    pub epochs: u32,
    /// `optimizer.lr` was not asked for: where all training images are fewer than a batch, it shrinks with the batch.
    #[serde(default)]
    pub rate_follows_batch: bool,
    /// Stop after so many epochs without a better top-1 on the images of `early_stop_on` (fine-tuning); 0 = never.
    pub patience_epochs: u32,
    #[serde(default = "stop_by_the_test_images")]
    pub early_stop_on: EarlyStopOn,
    /// `None`: as an evaluation that is continued began; of older versions as the data set's own protocol has it.
    #[serde(default)]
    pub augment: Option<ClassifierAugment>,
    /// Linear evaluation: bring every feature to mean 0 and variance 1 over the training images first.
    #[serde(default)]
    pub standardize: bool,
    /// L2 penalties on the classifier to choose from, on a split of the training data.
    pub reg_weights: Vec<f64>,
    pub knn: KnnConfig,
    pub save_every_n_epochs: u32,
    /// Directory and checkpoint file of an evaluation to continue.
    pub resume: Option<(PathBuf, String)>,
    pub seed: u64,
    pub precision: Precision,
    #[serde(default)]
    pub numerics: Numerics,
}

/// What evaluations of older versions did.
fn stop_by_the_test_images() -> EarlyStopOn {
    EarlyStopOn::Test
}
