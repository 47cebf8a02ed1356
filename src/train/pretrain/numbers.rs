//! One row a number: everything that pre-training says of a step or an epoch, for `metrics.jsonl`, `steps.jsonl`,
//! TensorBoard, the terminal, curves.png, the HTML report and checkpoints.
//!
//! A new monitor is a function and a row, in two files:
//!
//! 1. `src/monitor/geometry.rs` (or a file beside it): a function of features, `&Tensor` to `Tensor` of shape `[]`, with
//!    its test. It must not wait for the device.
//! 2. Here: a row with its key, its meaning, its TensorBoard tag, and how it is made: [`How::EachStep`] if it costs
//!    next to nothing, [`How::CloserLook`] if it costs a little (it is taken every `--log-every` steps and at an
//!    epoch's end), [`How::Epoch`] if it costs more. `.step(tag)` puts it into `steps.jsonl`, `.words(..)` into the
//!    epoch's line, `.chart(..)` into the report.
//!
//! Rows may be added anywhere; files keep the names of their columns.

use super::step::StepFeatures;
use crate::config::Precision;
use crate::loss::{Contrast, mutual_information_ceiling};
use crate::monitor::geometry;
use crate::optim;
use crate::report::{Chart, Number, Record, Scale, short};
use crate::state::Parameter;
use How::{CloserLook, Derived, EachStep, Epoch, Given};
use std::sync::LazyLock;
use tch::{Kind, Tensor};

/// A number, and how it comes about.
#[derive(Clone, Copy)]
pub struct Row {
    pub number: Number,
    pub how: How,
}

#[derive(Clone, Copy)]
pub enum How {
    /// Made in every step: `[]` float32 on the device, without waiting for it. Then what the epoch has of it.
    EachStep(fn(&Look) -> Tensor, Over),
    /// Made in the steps that are looked at closely; the epoch has the mean.
    CloserLook(fn(&Look) -> Tensor),
    /// Made at the epoch's end; `None` leaves it out.
    Epoch(fn(&EpochEnd) -> Option<f64>),
    /// Put into the record by the code that has it.
    Given,
    /// Follows from the epoch's other numbers, so it is shown and not written.
    Derived(fn(&Record) -> Option<f64>),
}

/// What an epoch says of its steps' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Mean,
    /// How many steps it is 1 in; nothing without loss scaling.
    Count,
    /// That of the last step; nothing where it is NaN.
    Last,
}

/// A step as it is measured.
pub struct Look<'a> {
    pub contrast: &'a Contrast,
    pub features: &'a StepFeatures,
    /// With the gradients that the step left.
    pub parameters: &'a [Parameter],
    /// `[2]` float32: 1 if the step overflowed and was left out, else 0; the loss scale, NaN without one.
    pub scaling: &'a Tensor,
    pub precision: Precision,
}

/// What is known when an epoch ends.
pub struct EpochEnd<'a> {
    /// Mean over the epoch.
    pub loss: f64,
    /// The trunk's features of all ranks in the last step, `[2B, D]`; none after an overflow.
    pub hidden: Option<&'a Tensor>,
    /// A quantile of the NESS of the last step's anchors.
    pub ness_quantile: &'a dyn Fn(f64) -> Option<f64>,
    pub images_per_step: f64,
    /// Of this process, as the times are.
    pub steps: f64,
    pub seconds: f64,
    pub waited_seconds: f64,
    /// Of the last step.
    pub lr: f64,
    pub temperature: f64,
    pub memory_peak_mib: Option<f64>,
}

impl EpochEnd<'_> {
    fn ceiling(&self) -> f64 {
        mutual_information_ceiling(2.0 * self.images_per_step)
    }
}

const fn row(key: &'static str, tag: &'static str, how: How, meaning: &'static str) -> Row {
    let derived = if let Derived(of) = how { Some(of) } else { None };
    Row { number: Number { key, meaning, tag, step_tag: None, words: |_| None, chart: None, derived }, how }
}

impl Row {
    /// In `steps.jsonl` too, and under `tag` in TensorBoard.
    const fn step(mut self, tag: &'static str) -> Row {
        self.number.step_tag = Some(tag);
        self
    }

    /// In the epoch's line and, of a number of each step, beside the bar.
    const fn words(mut self, words: fn(f64) -> Option<String>) -> Row {
        self.number.words = words;
        self
    }

    const fn chart(self, title: &'static str, y_label: &'static str, scale: Scale) -> Row {
        self.chart_with(title, y_label, scale, &[], None)
    }

    /// A chart with thin lines and a dashed one, each by its key.
    const fn chart_with(
        mut self,
        title: &'static str,
        y_label: &'static str,
        scale: Scale,
        faint: &'static [&'static str],
        dashed: Option<&'static str>,
    ) -> Row {
        self.number.chart = Some(Chart { title, y_label, scale, faint, dashed });
        self
    }
}

/// The rows, in the order in which they are written and drawn.
pub static TABLE: &[Row] = &[
    row(
        "loss_infonce",
        "loss",
        EachStep(|look| look.contrast.value(), Over::Mean),
        "The value of InfoNCE whichever objective is trained, so that runs compare. Dashed: collapsed features.",
    )
    .step("step/loss")
    .words(|loss| Some(format!("loss {loss:.3}")))
    .chart_with("Contrastive loss", "InfoNCE value (nats)", Scale::FROM_ZERO, &[], Some("mi_ceiling_nats")),
    row(
        "contrastive_top1",
        "acc/top1",
        EachStep(|look| look.contrast.anchors.top(1) * 100.0, Over::Mean),
        "Anchors whose other view is more similar than every negative. It falls with the batch size: compare runs of one \
         batch size.",
    )
    .step("step/acc/top1")
    .words(|top1| Some(format!("top-1 {top1:.1}%")))
    .chart("Contrastive accuracy", "top-1 (%)", Scale::PERCENT),
    row(
        "contrastive_top5",
        "acc/top5",
        EachStep(|look| look.contrast.anchors.top(5) * 100.0, Over::Mean),
        "Percent of anchors whose other view is among the five most similar.",
    ),
    row(
        "ness_mean",
        "ness/mean",
        EachStep(|look| look.contrast.anchors.ness.mean(Kind::Float), Over::Mean),
        "How many of the negatives take part in the gradient. 1: all alike, as when nothing is learned or all has \
         collapsed; near 0: one hard negative rules. Thin: the 10th and 90th percentile of the anchors in the epoch's last step.",
    )
    .step("step/ness")
    .words(|ness| Some(format!("NESS {ness:.3}")))
    .chart_with(
        "Effective sample size of the negatives",
        "NESS (share of negatives)",
        Scale::SHARE,
        &["ness_p10", "ness_p90"],
        None,
    ),
    row("ness_p10", "ness/p10", Epoch(|end| (end.ness_quantile)(0.1)), "NESS that a tenth of the last step's anchors stay below."),
    row("ness_p50", "ness/p50", Epoch(|end| (end.ness_quantile)(0.5)), "Median of the NESS of the last step's anchors."),
    row("ness_p90", "ness/p90", Epoch(|end| (end.ness_quantile)(0.9)), "NESS that a tenth of the last step's anchors exceed."),
    row(
        "mi_estimate_nats",
        "mutual_information/estimate_nats",
        Epoch(|end| Some(end.ceiling() - end.loss)),
        "Ceiling minus loss. Dashed: the ceiling log(2N-1). InfoNCE close to it has little left to learn from; a larger \
         batch raises it, FlatNCE does not depend on it.",
    )
    .chart_with("Mutual-information estimate", "estimate (nats)", Scale::FREE, &[], Some("mi_ceiling_nats")),
    row(
        "mi_ceiling_nats",
        "mutual_information/ceiling_nats",
        Epoch(|end| Some(end.ceiling())),
        "log(2N - 1) for N images in a batch: what the estimate cannot exceed, and the loss of collapsed features.",
    ),
    row(
        "positive_similarity",
        "similarity/positive",
        EachStep(|look| look.contrast.anchors.positive.mean(Kind::Float), Over::Mean),
        "The gap to different images is what is learned; both begin close to 1, as all features are alike at first.",
    )
    .chart("Similarity of the two views", "mean cosine of positives", Scale::COSINE),
    row(
        "negative_similarity",
        "similarity/negative",
        EachStep(|look| look.contrast.anchors.negative.mean(Kind::Float), Over::Mean),
        "Should fall away from 1. When it stays there with the positives, the features have collapsed.",
    )
    .chart("Similarity of different images", "mean cosine of negatives", Scale::COSINE),
    row(
        "mi_share_of_ceiling",
        "mutual_information/share_of_ceiling",
        Derived(|record| Some(record.get("mi_estimate_nats")? / record.get("mi_ceiling_nats")?)),
        "The mutual-information estimate as a share of its ceiling.",
    ),
    row(
        "vanished_pull_share",
        "pull/vanished_share",
        EachStep(vanished_pull_share, Over::Mean),
        "Anchors for which 1 + ξ rounds to 1 in the run's precision: there InfoNCE computed in that precision would not \
         pull at all.",
    )
    .chart("Vanished pull", "share of anchors", Scale::SMALL_SHARE),
    row(
        "gradient_norm",
        "gradient_norm",
        CloserLook(|look| optim::gradient_norm(look.parameters)),
        "Over all parameters. InfoNCE's shrinks as its pull vanishes, FlatNCE's does not; spikes ask for a smaller \
         learning rate.",
    )
    .step("step/gradient_norm")
    .chart("Gradient norm", "Euclidean norm", Scale::FROM_ZERO),
    row(
        "alignment",
        "features/alignment",
        CloserLook(|look| geometry::alignment(&look.features.unit)),
        "Distance of the two views on the unit sphere: smaller is better, if uniformity does not pay for it.",
    )
    .step("step/alignment")
    .chart("Alignment", "mean squared distance", Scale::FROM_ZERO),
    row(
        "uniformity",
        "features/uniformity",
        CloserLook(|look| geometry::uniformity(&look.features.unit)),
        "How evenly the images fill the sphere: smaller is better, 0 is collapse.",
    )
    .step("step/uniformity")
    .chart("Uniformity", "log mean exp(-2 d²)", Scale::FREE),
    row(
        "feature_std",
        "features/std",
        CloserLook(|look| geometry::spread(&look.features.unit)),
        "Of the normalised projections: 1 when spread evenly, 0 when collapsed.",
    )
    .step("step/feature_std")
    .chart("Spread of the features", "std × √dimensions", Scale::within(0.0, 1.1)),
    row(
        "effective_rank",
        "features/effective_rank",
        Epoch(|end| end.hidden.map(geometry::effective_rank)),
        "How many dimensions the trunk's features use, in the epoch's last batch; a fall warns of dimensional collapse.",
    )
    .chart("Effective rank", "RankMe (dimensions)", Scale::FROM_ZERO),
    row("lr", "learning_rate", Epoch(|end| Some(end.lr)), "Warm-up, then the schedule.")
        .step("step/learning_rate")
        .words(|lr| Some(format!("lr {}", short(lr))))
        .chart("Learning rate", "lr of the last step", Scale::FROM_ZERO),
    row("temperature", "temperature", Epoch(|end| Some(end.temperature)), "Constant, or steered by --ess-target.")
        .chart("Temperature", "temperature t", Scale::FROM_ZERO),
    row(
        "images_per_second",
        "speed/images_per_second",
        Epoch(|end| Some(end.steps * end.images_per_step / end.seconds)),
        "Both views of an image count as one.",
    )
    .words(|speed| Some(format!("{} img/s", short(speed))))
    .chart("Speed", "images/s", Scale::FROM_ZERO),
    row(
        "data_wait_share",
        "speed/data_wait_share",
        Epoch(|end| Some((end.waited_seconds / end.seconds).min(1.0))),
        "Above a few percent, more --workers or a faster disk help.",
    )
    .chart("Waiting for data", "share of the time", Scale::SMALL_SHARE),
    row("epoch_seconds", "speed/epoch_seconds", Epoch(|end| Some(end.seconds)), "Time that the epoch's steps took."),
    row(
        "memory_peak_mib",
        "memory/peak_mib",
        Epoch(|end| end.memory_peak_mib),
        "Resident memory of the process, or of the device.",
    )
    .chart("Memory", "highest so far (MiB)", Scale::FROM_ZERO),
    row(
        "overflow_steps",
        "overflow_steps",
        EachStep(|look| look.scaling.select(0, 0), Over::Count),
        "Steps of fp16 that were left out, because a scaled gradient was not finite.",
    )
    .words(|count| (count > 0.0).then(|| format!("overflows {count}"))),
    row(
        "loss_scale",
        "loss_scale",
        EachStep(|look| look.scaling.select(0, 1), Over::Last),
        "What fp16 multiplies the gradients by on their way back.",
    ),
    row("knn_top1", "knn/top1", Given, "On up to 2,000 test images: a quick look, not the number to quote.")
        .words(|top1| Some(format!("kNN {top1:.1}%")))
        .chart("Nearest neighbours during training", "weighted kNN top-1 (%)", Scale::PERCENT),
    row("knn_plain_top1", "knn_plain_top1", Given, "As knn_top1, with one vote for each of the 20 nearest."),
    row("knn_seconds", "knn_seconds", Given, "Time that this evaluation took."),
    row(
        "probe_top1",
        "probe/top1",
        Given,
        "A linear classifier on the standardised features of up to 10,000 labelled images, on up to 2,000 test images: a \
         quick look, not the number to quote.",
    )
    .words(|top1| Some(format!("probe {top1:.1}%")))
    .chart("Linear probe during training", "linear probe top-1 (%)", Scale::PERCENT),
    row(
        "probe_seconds",
        "probe_seconds",
        Given,
        "Time that the probe took; the features count where they were not made for the neighbours.",
    ),
];

/// What reports know of every number.
pub fn numbers() -> &'static [Number] {
    static NUMBERS: LazyLock<Vec<Number>> = LazyLock::new(|| TABLE.iter().map(|row| row.number).collect());
    &NUMBERS
}

/// In a precision with so many bits behind the point, 1 + xi rounds to 1 for xi of half its last bit and below.
fn vanished_pull_share(look: &Look) -> Tensor {
    let bits = match look.precision {
        Precision::Fp32 => 24.0,
        Precision::Fp16 => 11.0,
        Precision::Bf16 => 8.0,
    };
    let vanished = look.contrast.anchors.log_xi.le(-bits * std::f64::consts::LN_2);
    vanished.to_kind(Kind::Float).mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_explained() {
        for (place, Number { key, meaning, tag, step_tag, chart, .. }) in numbers().iter().enumerate() {
            let before = &numbers()[..place];
            assert!(before.iter().all(|other| other.key != *key && other.tag != *tag), "{key}, {tag} twice");
            assert!(step_tag.is_none_or(|tag| before.iter().all(|other| other.step_tag != Some(tag))), "{step_tag:?}");
            assert!(meaning.len() > 20 && meaning.ends_with('.'), "{key}: {meaning}");
            let compared = chart.iter().flat_map(|chart| chart.faint.iter().chain(&chart.dashed));
            compared.into_iter().for_each(|key| assert!(numbers().iter().any(|other| other.key == *key), "{key}"));
        }
    }
}
