//! Which curves a report has, and how each is read.

use super::gather::{Evaluation, Found, Run};
use crate::report::EpochReport;
use crate::report::plots::{Panel, Series, Stroke};
use crate::run_dir::CheckpointName;
use crate::train::evaluate::outcome::Protocol;

/// One chart: all runs overlaid, run by run in the palette's order.
pub struct Chart {
    pub panel: Panel,
    /// How to read it, in a sentence or two.
    pub reading: &'static str,
}

type Value = fn(&EpochReport) -> Option<f64>;

/// A number of `metrics.jsonl` as a chart.
struct Metric {
    title: &'static str,
    y_label: &'static str,
    limits: Option<(f64, f64)>,
    /// What the axis covers at least.
    range: Option<(f64, f64)>,
    bold: Value,
    /// Thin lines beside the bold one: percentiles.
    faint: &'static [Value],
    /// A level to compare with.
    dashed: Option<Value>,
    reading: &'static str,
}

const POSITIVE: Option<(f64, f64)> = Some((0.0, f64::MAX));
const SHARE: Option<(f64, f64)> = Some((0.0, 1.0));
const PERCENT: Option<(f64, f64)> = Some((0.0, 100.0));
const FROM_ZERO: Option<(f64, f64)> = Some((0.0, 0.0));
/// So that a share of next to nothing looks like it.
const SMALL_SHARE: Option<(f64, f64)> = Some((0.0, 0.1));
const COSINE: Option<(f64, f64)> = Some((-1.0, 1.0));

const METRICS: [Metric; 18] = [
    Metric {
        title: "Contrastive loss",
        y_label: "InfoNCE value (nats)",
        limits: POSITIVE,
        range: FROM_ZERO,
        bold: |r| Some(r.loss_infonce),
        faint: &[],
        dashed: Some(|r| Some(r.mi_ceiling_nats)),
        reading: "The value of InfoNCE whichever objective is trained, so that runs compare. Dashed: collapsed features.",
    },
    Metric {
        title: "Effective sample size of the negatives",
        y_label: "NESS (share of negatives)",
        limits: SHARE,
        range: None,
        bold: |r| r.ness_mean,
        faint: &[|r| r.ness_p10, |r| r.ness_p90],
        dashed: None,
        reading: "How many of the negatives take part in the gradient. 1: all alike, as when nothing is learned or all has \
                  collapsed; near 0: one hard negative rules. Thin: the 10th and 90th percentile of the anchors in the epoch's last step.",
    },
    Metric {
        title: "Mutual-information estimate",
        y_label: "estimate (nats)",
        limits: None,
        range: None,
        bold: |r| Some(r.mi_estimate_nats),
        faint: &[],
        dashed: Some(|r| Some(r.mi_ceiling_nats)),
        reading: "Ceiling minus loss. Dashed: the ceiling log(2N-1). InfoNCE close to it has little left to learn from; a \
                  larger batch raises it, FlatNCE does not depend on it.",
    },
    Metric {
        title: "Contrastive accuracy",
        y_label: "top-1 (%)",
        limits: PERCENT,
        range: None,
        bold: |r| Some(r.contrastive_top1),
        faint: &[],
        dashed: None,
        reading: "Anchors whose other view is more similar than every negative. It falls with the batch size: compare \
                  runs of one batch size.",
    },
    Metric {
        title: "Similarity of the two views",
        y_label: "mean cosine of positives",
        limits: COSINE,
        range: None,
        bold: |r| Some(r.positive_similarity),
        faint: &[],
        dashed: None,
        reading: "The gap to different images is what is learned; both begin close to 1, as all features are alike at first.",
    },
    Metric {
        title: "Similarity of different images",
        y_label: "mean cosine of negatives",
        limits: COSINE,
        range: None,
        bold: |r| Some(r.negative_similarity),
        faint: &[],
        dashed: None,
        reading: "Should fall away from 1. When it stays there with the positives, the features have collapsed.",
    },
    Metric {
        title: "Alignment",
        y_label: "mean squared distance",
        limits: POSITIVE,
        range: FROM_ZERO,
        bold: |r| r.alignment,
        faint: &[],
        dashed: None,
        reading: "Distance of the two views on the unit sphere: smaller is better, if uniformity does not pay for it.",
    },
    Metric {
        title: "Uniformity",
        y_label: "log mean exp(-2 d²)",
        limits: None,
        range: None,
        bold: |r| r.uniformity,
        faint: &[],
        dashed: None,
        reading: "How evenly the images fill the sphere: smaller is better, 0 is collapse.",
    },
    Metric {
        title: "Spread of the features",
        y_label: "std × √dimensions",
        limits: Some((0.0, 1.1)),
        range: None,
        bold: |r| r.feature_std,
        faint: &[],
        dashed: None,
        reading: "Of the normalised projections: 1 when spread evenly, 0 when collapsed.",
    },
    Metric {
        title: "Effective rank",
        y_label: "RankMe (dimensions)",
        limits: POSITIVE,
        range: FROM_ZERO,
        bold: |r| r.effective_rank,
        faint: &[],
        dashed: None,
        reading: "How many dimensions the trunk's features use, in the epoch's last batch; a fall warns of dimensional \
                  collapse.",
    },
    Metric {
        title: "Gradient norm",
        y_label: "Euclidean norm",
        limits: POSITIVE,
        range: FROM_ZERO,
        bold: |r| r.gradient_norm,
        faint: &[],
        dashed: None,
        reading: "Over all parameters. InfoNCE's shrinks as its pull vanishes, FlatNCE's does not; spikes ask for a smaller \
                  learning rate.",
    },
    Metric {
        title: "Vanished pull",
        y_label: "share of anchors",
        limits: SHARE,
        range: SMALL_SHARE,
        bold: |r| r.vanished_pull_share,
        faint: &[],
        dashed: None,
        reading: "Anchors for which 1 + ξ rounds to 1 in the run's precision: there InfoNCE computed in that precision \
                  would not pull at all.",
    },
    Metric {
        title: "Nearest neighbours during training",
        y_label: "weighted kNN top-1 (%)",
        limits: PERCENT,
        range: None,
        bold: |r| r.knn_top1,
        faint: &[],
        dashed: None,
        reading: "On up to 2,000 test images: a quick look, not the number to quote.",
    },
    Metric {
        title: "Learning rate",
        y_label: "lr of the last step",
        limits: POSITIVE,
        range: FROM_ZERO,
        bold: |r| Some(r.lr),
        faint: &[],
        dashed: None,
        reading: "Warm-up, then the schedule.",
    },
    Metric {
        title: "Temperature",
        y_label: "temperature t",
        limits: POSITIVE,
        range: FROM_ZERO,
        bold: |r| Some(r.temperature),
        faint: &[],
        dashed: None,
        reading: "Constant, or steered by --ess-target.",
    },
    Metric {
        title: "Speed",
        y_label: "images/s",
        limits: POSITIVE,
        range: FROM_ZERO,
        bold: |r| Some(r.images_per_second),
        faint: &[],
        dashed: None,
        reading: "Both views of an image count as one.",
    },
    Metric {
        title: "Waiting for data",
        y_label: "share of the time",
        limits: SHARE,
        range: SMALL_SHARE,
        bold: |r| Some(r.data_wait_share),
        faint: &[],
        dashed: None,
        reading: "Above a few percent, more --workers or a faster disk help.",
    },
    Metric {
        title: "Memory",
        y_label: "highest so far (MiB)",
        limits: POSITIVE,
        range: FROM_ZERO,
        bold: |r| r.memory_peak_mib,
        faint: &[],
        dashed: None,
        reading: "Resident memory of the process, or of the device.",
    },
];

/// The charts that any of the runs has numbers for. `names` are the runs' names.
pub fn charts(found: &Found, names: &[String]) -> Vec<Chart> {
    METRICS.iter().filter_map(|metric| chart(metric, found, names)).collect()
}

fn chart(metric: &Metric, found: &Found, names: &[String]) -> Option<Chart> {
    let mut series = Vec::new();
    for (colour, (run, name)) in found.runs.iter().zip(names).enumerate() {
        let mut add = |value: Value, stroke| {
            // A number stands at the end of its epoch.
            let points: Vec<(f64, f64)> =
                run.epochs.iter().filter_map(|report| Some((report.epoch as f64 + 1.0, value(report)?))).collect();
            if !points.is_empty() {
                series.push(Series { name: name.clone(), colour, stroke, points });
            }
        };
        add(metric.bold, Stroke::Bold);
        metric.faint.iter().for_each(|value| add(*value, Stroke::Faint));
        if let Some(value) = metric.dashed {
            add(value, Stroke::Dashed);
        }
    }
    let drawn = series.iter().any(|series| series.stroke == Stroke::Bold);
    let panel = || Panel { y_range: metric.range, ..panel(metric.title, metric.y_label, metric.limits, series) };
    drawn.then(|| Chart { panel: panel(), reading: metric.reading })
}

fn panel(title: &str, y_label: &str, y_limits: Option<(f64, f64)>, series: Vec<Series>) -> Panel {
    Panel {
        title: title.into(),
        x_label: "epochs trained".into(),
        y_label: y_label.into(),
        x_range: None,
        x_whole: true,
        y_range: None,
        y_limits,
        series,
    }
}

/// Accuracy over the epochs of pre-training: linear evaluation bold, weighted kNN of the evaluations dashed, kNN during
/// training thin. `None` where nothing was evaluated.
pub fn accuracy(found: &Found, names: &[String]) -> Option<Panel> {
    let mut series = Vec::new();
    for (colour, (run, name)) in found.runs.iter().zip(names).enumerate() {
        let evaluated = |value: fn(&Evaluation) -> Option<f64>| -> Vec<(f64, f64)> {
            let linear = run.evaluations.iter().filter(|one| one.outcome.protocol == Protocol::LinearEval);
            let mut points: Vec<(f64, f64)> =
                linear.filter_map(|one| Some((epochs_trained(run, one), value(one)?))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            points
        };
        let online = run.epochs.iter().filter_map(|report| Some((report.epoch as f64 + 1.0, report.knn_top1?)));
        let lines = [
            ("linear", Stroke::Bold, evaluated(|one| Some(one.outcome.test_top1_last_epoch))),
            ("kNN", Stroke::Dashed, evaluated(|one| Some(one.outcome.knn?.knn_weighted_top1))),
            ("kNN while training", Stroke::Faint, online.collect()),
        ];
        for (what, stroke, points) in lines {
            if !points.is_empty() {
                series.push(Series { name: format!("{name}, {what}"), colour, stroke, points });
            }
        }
    }
    (!series.is_empty()).then(|| panel("Accuracy", "test top-1 (%)", PERCENT, series))
}

/// How long the evaluated encoder was trained: files are named after the epoch that they end, the last one after the
/// number of epochs.
fn epochs_trained(run: &Run, evaluation: &Evaluation) -> f64 {
    let named = f64::from(evaluation.outcome.checkpoint_epoch);
    let asked = run.settings.as_ref().and_then(|all| all.pointer("/epochs")?.as_f64());
    let within = evaluation.outcome.checkpoint.as_ref().and_then(|path| {
        let name = CheckpointName::parse(path.file_name()?.to_str()?)?;
        (name != CheckpointName::finished(name.epoch)).then_some(())
    });
    match asked {
        // A checkpoint of the middle of an epoch belongs to that epoch's beginning, to the nearest whole number.
        _ if within.is_some() => named,
        Some(asked) if named >= asked => asked,
        _ => named + 1.0,
    }
}

/// Short names, each its own: what tells the runs apart, or else the end of the directory's path.
pub fn names(found: &Found) -> Vec<String> {
    let facts: Vec<Vec<String>> = found.runs.iter().map(facts).collect();
    let count = facts.iter().map(Vec::len).max().unwrap_or(0);
    let telling: Vec<usize> = (0..count).filter(|&i| facts.iter().any(|all| all.get(i) != facts[0].get(i))).collect();
    let of = |all: &[String]| -> String {
        // The objective is always said.
        let wanted = (0..all.len()).filter(|i| *i == 0 || telling.contains(i));
        wanted.map(|i| all[i].as_str()).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ")
    };
    let mut names: Vec<String> = facts.iter().map(|all| of(all)).collect();
    let twice = |name: &String, names: &[String]| names.iter().filter(|other| *other == name).count() > 1;
    let before = names.clone();
    for (name, run) in names.iter_mut().zip(&found.runs) {
        if twice(name, &before) {
            let end = run.directory.file_name().map_or_else(String::new, |end| end.to_string_lossy().into_owned());
            *name = format!("{name}, {end}");
        }
    }
    let before = names.clone();
    for (number, name) in names.iter_mut().enumerate() {
        if twice(name, &before) {
            *name = format!("{name} ({})", number + 1);
        }
    }
    names
}

/// What runs are told apart by, the most telling first; empty where a run does not say.
fn facts(run: &Run) -> Vec<String> {
    let says = |pointer: &str, before: &str, after: &str| {
        let value = run.settings.as_ref().and_then(|all| all.pointer(pointer)).filter(|value| !value.is_null());
        value.map_or(String::new(), |value| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{before}{text}{after}")
        })
    };
    vec![
        says("/objective", "", ""),
        says("/model/depth", "", ""),
        says("/data/dataset", "", ""),
        says("/batch_size", "batch ", ""),
        says("/epochs", "", " epochs"),
        says("/temperature", "t ", ""),
        says("/optimizer/lr", "lr ", ""),
        says("/precision", "", ""),
        says("/seed", "seed ", ""),
    ]
}
