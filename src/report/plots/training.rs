//! The picture of a training run: loss and normalised effective sample size.

use super::{Arrangement, Figure, Panel, Series, Stroke};
use crate::report::numbers::{EpochReport, StepRecord};

/// Two panels side by side over epochs: InfoNCE value (every step thin, epoch means bold, the value of
/// collapsed features dashed), and NESS (steps thin, epoch means bold). A mean stands in the middle of its
/// epoch. `steps` may be empty.
pub fn training_figure(title: &str, epochs: &[EpochReport], steps: &[StepRecord]) -> Figure {
    let place = StepPlace::new(epochs);
    let thin = |name: &str, value: fn(&StepRecord) -> f64| {
        let points: Vec<(f64, f64)> = steps.iter().map(|record| (place.epochs(record), value(record))).collect();
        (!points.is_empty()).then(|| Series { name: name.into(), colour: 0, stroke: Stroke::Faint, points })
    };
    let bold = |value: fn(&EpochReport) -> Option<f64>| Series {
        name: "epoch mean".into(),
        colour: 0,
        stroke: Stroke::Bold,
        points: epochs.iter().filter_map(|report| Some((report.epoch as f64 + 0.5, value(report)?))).collect(),
    };
    let mut loss: Vec<Series> = thin("each step", |record| record.loss_infonce).into_iter().collect();
    loss.push(bold(|report| Some(report.loss_infonce)));
    let x_range = epochs.last().map(|last| {
        let first_epoch = epochs[0].epoch.min(steps.first().map_or(u64::MAX, |record| record.epoch));
        (first_epoch as f64, last.epoch as f64 + 1.0)
    });
    if let (Some((from, to)), Some(last)) = (x_range, epochs.last()) {
        let points = vec![(from, last.mi_ceiling_nats), (to, last.mi_ceiling_nats)];
        loss.push(Series { name: "collapsed features".into(), colour: 1, stroke: Stroke::Dashed, points });
    }
    let mut ness: Vec<Series> = thin("each step", |record| record.ness_mean).into_iter().collect();
    ness.push(bold(|report| report.ness_mean));
    let panel = |title: &str, y_label: &str, y_limits, series| Panel {
        title: title.into(),
        x_label: "epochs trained".into(),
        y_label: y_label.into(),
        x_range,
        x_whole: true,
        y_range: None,
        y_limits: Some(y_limits),
        series,
    };
    Figure {
        title: title.into(),
        panels: vec![
            panel("Contrastive loss", "InfoNCE value (nats)", (0.0, f64::MAX), loss),
            panel("Effective sample size of the negatives", "NESS (share of negatives)", (0.0, 1.0), ness),
        ],
        arrangement: Arrangement::SideBySide,
    }
}

/// Puts a step on the axis of epochs.
struct StepPlace {
    steps_per_epoch: f64,
}

impl StepPlace {
    fn new(epochs: &[EpochReport]) -> Self {
        let whole = epochs.last().map_or(1.0, |last| last.step as f64 / (last.epoch as f64 + 1.0));
        StepPlace { steps_per_epoch: whole.max(1.0) }
    }

    fn epochs(&self, record: &StepRecord) -> f64 {
        record.step as f64 / self.steps_per_epoch
    }
}
