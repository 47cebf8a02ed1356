//! The numbers that travel from a training loop to its reports: no tensors, units in the names.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// One optimiser step, as the progress bar shows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// InfoNCE value in nats, whichever objective is optimised.
    pub loss_infonce: f64,
    /// Percent of anchors whose positive ranks first.
    pub contrastive_top1: f64,
    /// Normalised effective sample size, batch mean, in [1/K, 1].
    pub ness_mean: f64,
    pub lr: f64,
}

/// One optimiser step, as `steps.jsonl` keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The epoch it belongs to, counted from 0.
    pub epoch: u64,
    /// Steps finished since the start of training, this one included.
    pub step: u64,
    #[serde(deserialize_with = "null_is_nan")]
    pub loss_infonce: f64,
    #[serde(deserialize_with = "null_is_nan")]
    pub contrastive_top1: f64,
    #[serde(deserialize_with = "null_is_nan")]
    pub ness_mean: f64,
    #[serde(deserialize_with = "null_is_nan")]
    pub lr: f64,
    /// What is looked at once in `--log-every` steps.
    #[serde(flatten)]
    pub closer: Option<CloserLook>,
}

/// Numbers of a step that cost a little; see `monitor::geometry`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CloserLook {
    /// Euclidean norm of the gradient over all parameters.
    #[serde(deserialize_with = "null_is_nan")]
    pub gradient_norm: f64,
    /// Mean squared distance of the two views of an image.
    #[serde(deserialize_with = "null_is_nan")]
    pub alignment: f64,
    /// log mean exp(-2 |a - b|^2) over pairs of images.
    #[serde(deserialize_with = "null_is_nan")]
    pub uniformity: f64,
    /// Of the normalised projections, 1 when they are spread evenly, 0 when collapsed.
    #[serde(deserialize_with = "null_is_nan")]
    pub feature_std: f64,
}

/// One epoch: a line of `metrics.jsonl`.
///
/// An absent number is left out of the line; one that is not finite is written
/// as null, named in the line's `non_finite`, and read back as NaN.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// The epoch just finished, counted from 0.
    pub epoch: u64,
    /// Steps finished since the start of training.
    pub step: u64,
    /// InfoNCE value in nats, mean over the epoch, whichever objective is optimised.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss_infonce: f64,
    /// Percent of anchors whose positive ranks first.
    #[serde(deserialize_with = "null_is_nan")]
    pub contrastive_top1: f64,
    /// Percent of anchors whose positive ranks among the first five.
    #[serde(deserialize_with = "null_is_nan")]
    pub contrastive_top5: f64,
    /// Normalised effective sample size over anchors, in [1/K, 1].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is_some_nan")]
    pub ness_mean: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is_some_nan")]
    pub ness_p10: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is_some_nan")]
    pub ness_p50: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is_some_nan")]
    pub ness_p90: Option<f64>,
    /// Mutual-information estimate: ceiling - loss.
    #[serde(deserialize_with = "null_is_nan")]
    pub mi_estimate_nats: f64,
    /// log(2N - 1) for N images in a batch.
    #[serde(deserialize_with = "null_is_nan")]
    pub mi_ceiling_nats: f64,
    /// Mean cosine similarity of the two views of an image.
    #[serde(deserialize_with = "null_is_nan")]
    pub positive_similarity: f64,
    /// Mean cosine similarity of views of different images.
    #[serde(deserialize_with = "null_is_nan")]
    pub negative_similarity: f64,
    /// Share of anchors for which 1 + xi is 1 in the run's precision, so that InfoNCE computed in it would not pull at
    /// them; in [0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is_some_nan")]
    pub vanished_pull_share: Option<f64>,
    /// Means over the steps that were looked at closely (`--log-every`); see [`CloserLook`].
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is_some_nan")]
    pub gradient_norm: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is_some_nan")]
    pub alignment: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is_some_nan")]
    pub uniformity: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is_some_nan")]
    pub feature_std: Option<f64>,
    /// RankMe of the trunk's features in the epoch's last batch, from 1 to the smaller of images and dimensions.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is_some_nan")]
    pub effective_rank: Option<f64>,
    /// Learning rate of the epoch's last step.
    #[serde(deserialize_with = "null_is_nan")]
    pub lr: f64,
    #[serde(deserialize_with = "null_is_nan")]
    pub temperature: f64,
    #[serde(deserialize_with = "null_is_nan")]
    pub images_per_second: f64,
    /// Share of the epoch's time that the loop waited for its batches, in [0, 1].
    #[serde(deserialize_with = "null_is_nan")]
    pub data_wait_share: f64,
    #[serde(deserialize_with = "null_is_nan")]
    pub epoch_seconds: f64,
    /// Highest resident memory of the process (or of the device) so far.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is_some_nan")]
    pub memory_peak_mib: Option<f64>,
    /// Percent, weighted nearest neighbours on the test images.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is_some_nan")]
    pub knn_top1: Option<f64>,
    /// Further numbers, written beside the others under their own names.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One epoch of an evaluation: a line of its `metrics.jsonl`. Accuracies are percent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// The epoch just finished, counted from 0.
    pub epoch: u64,
    /// Cross-entropy in nats plus the penalty, mean over the epoch.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Of the training images, after the epoch (linear) or as they were trained on (fine-tuning).
    #[serde(deserialize_with = "null_is_nan")]
    pub train_top1: f64,
    #[serde(deserialize_with = "null_is_nan")]
    pub test_top1: f64,
    #[serde(deserialize_with = "null_is_nan")]
    pub test_top5: f64,
    /// Of the training images that are kept from training to decide when to stop.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is_some_nan")]
    pub held_out_top1: Option<f64>,
    /// Learning rate of the epoch's last step.
    #[serde(deserialize_with = "null_is_nan")]
    pub lr: f64,
    #[serde(deserialize_with = "null_is_nan")]
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
            super::format::short(self.lr),
            width = epochs.to_string().len(),
        )
    }
}

fn null_is_nan<'de, D: Deserializer<'de>>(source: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(source)?.unwrap_or(f64::NAN))
}

/// Only called where the key is present.
fn null_is_some_nan<'de, D: Deserializer<'de>>(source: D) -> Result<Option<f64>, D::Error> {
    null_is_nan(source).map(Some)
}
