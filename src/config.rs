//! What a run means: every setting resolved, none optional unless its absence
//! means something. `cli::resolve` builds it from what the user typed; it is
//! written to `config.yml` and into every checkpoint, and read back on resume.
//!
//! Knows neither clap nor tch; which objectives there are, `loss` says. Units are in the names.

#[macro_use]
mod choices;
mod compare;
mod jobs;
mod parts;
mod ranges;

/// Which objectives can be asked for is said where they are.
pub use crate::loss::Objective;
pub use choices::{
    BadImages, ClassifierAugment, CudaGraph, DataOnDevice, DatasetName, Depth, DeviceChoice, EarlyStopOn, EmbedFormat,
    Engine, ExportFormat, HeadMode, KeyPrefix, Labels, LearningRateScaling, Listing, LogFormat, OptimizerName,
    Orientation, Part, Precision, PrecisionAsked, ReportFormat, ScheduleName, Shell, Stem, TrainMode, TransferMode,
};
pub use compare::{Setting, differences, side_by_side};
pub use jobs::{CheckpointChoice, EncoderSource, Evaluate, KnnConfig, OnlineKnn, OnlineProbe, Pretrain, StatedEncoder};
pub use parts::{
    Augmentation, CheckpointPolicy, DataConfig, EvalTransform, Filter, HeadConfig, ModelConfig, Normalisation,
    Numerics, OptimizerConfig, ScheduleConfig,
};
pub use ranges::{Range, Settings};

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a run begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    Fresh,
    /// Continue the run that wrote this checkpoint, in its directory.
    Resume(PathBuf),
    /// A new run from these weights.
    Pretrained(PathBuf),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    Pretrain(Box<Pretrain>),
    Evaluate(Box<Evaluate>),
}

/// How much the program says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verbosity {
    /// Errors and the final result.
    Quiet,
    #[default]
    Normal,
    /// Details too.
    Verbose,
}

/// What `--distributed-timeout` is by default.
fn distributed_timeout_seconds() -> u32 {
    600
}

/// What commands of older versions did not ask.
fn yes() -> bool {
    true
}

/// How a GPU is told its work. Results do not depend on it beyond rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CudaSettings {
    #[serde(default)]
    pub graph: CudaGraph,
    /// Kernels of this program's own for BatchNorm and augmentation.
    #[serde(default)]
    pub fused_kernels: bool,
}

/// A command line, resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub job: Job,
    pub start: Start,
    pub device: DeviceChoice,
    /// Threads that load and augment.
    pub workers: u32,
    #[serde(default)]
    pub data_on_device: DataOnDevice,
    #[serde(default)]
    pub cuda: CudaSettings,
    /// A step that cannot fit into memory is an error before anything is written.
    #[serde(default = "yes")]
    pub memory_check: bool,
    /// Results go below this directory.
    pub save_dir: PathBuf,
    /// Nobody asked for that place: an evaluation may lie in the directory of its encoder's run.
    #[serde(skip)]
    pub save_dir_is_default: bool,
    /// Of a new run's directory; `None` = the time when it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What stands before the names of the network in another program's weights, or words of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_key: Option<String>,
    /// Processes to start on this machine, where this program is to start them itself.
    #[serde(default)]
    pub nproc: Option<u32>,
    /// How long the processes of a group wait for each other.
    #[serde(default = "distributed_timeout_seconds")]
    pub distributed_timeout_seconds: u32,
    /// Where evaluations keep features for the next one; `None` = nowhere.
    #[serde(default)]
    pub feature_cache: Option<PathBuf>,
    pub talk: Verbosity,
    pub log_format: LogFormat,
    /// Resolve and print everything, train nothing.
    pub dry_run: bool,
    /// The command line as typed, word by word, to be repeated.
    pub command: Vec<String>,
    /// Of a run that is continued: the flags in it that change the run's settings from here on.
    #[serde(skip)]
    pub adopted: Vec<String>,
}

impl Config {
    /// The arithmetic that the job asks of the device.
    pub fn numerics(&self) -> Numerics {
        match &self.job {
            Job::Pretrain(run) => run.numerics,
            Job::Evaluate(run) => run.numerics,
        }
    }
}

#[cfg(test)]
mod tests {
    /// Ranks compare their settings as JSON, and a run those of its checkpoint.
    #[test]
    fn a_rate_that_is_written_and_read_again_is_the_same() {
        for batch in 1..=4096 {
            let rate = 0.3 * f64::from(batch) / 256.0;
            let text = serde_json::to_string(&rate).unwrap();
            assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), rate.to_bits(), "{text}");
        }
    }
}
