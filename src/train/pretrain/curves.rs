//! The picture of a training run: loss and normalised effective sample size.

use super::numbers::numbers;
use crate::report::Record;
use crate::report::plots::{Figure, Panel, Series, Stroke};

/// Two panels side by side over epochs: InfoNCE value (every step thin, epoch means bold, the value of
/// collapsed features dashed), and NESS (steps thin, epoch means bold). A mean stands in the middle of its
/// epoch. `steps` may be empty.
pub fn training_figure(title: &str, epochs: &[Record], steps: &[Record]) -> Figure {
    let steps_per_epoch = epochs.last().map_or(1.0, |last| last.step as f64 / (last.epoch as f64 + 1.0)).max(1.0);
    let first_epoch = epochs.iter().chain(steps).map(|record| record.epoch).min().unwrap_or(0) as f64;
    let x_range = epochs.last().map(|last| (first_epoch, last.epoch as f64 + 1.0));
    let panel = |key: &str| {
        let chart = numbers().iter().find(|number| number.key == key).and_then(|number| number.chart);
        let chart = chart.unwrap_or_else(|| panic!("{key} has a chart"));
        let line = |name: &str, colour, stroke, points| Series { name: name.into(), colour, stroke, points };
        let thin: Vec<_> = steps.iter().map(|step| (step.step as f64 / steps_per_epoch, step.number(key))).collect();
        let bold = epochs.iter().filter_map(|epoch| Some((epoch.epoch as f64 + 0.5, epoch.get(key)?))).collect();
        let mut series = vec![line("each step", 0, Stroke::Faint, thin), line("epoch mean", 0, Stroke::Bold, bold)];
        if let (Some((from, to)), Some(last), Some(dashed)) = (x_range, epochs.last(), chart.dashed) {
            let level = last.number(dashed);
            series.push(line("collapsed features", 1, Stroke::Dashed, vec![(from, level), (to, level)]));
        }
        series.retain(|series| series.stroke != Stroke::Faint || !series.points.is_empty());
        // As close as the steps allow.
        Panel { x_range, y_range: None, series, ..chart.panel() }
    };
    let panels = vec![panel("loss_infonce"), panel("ness_mean")];
    Figure { title: title.into(), panels }
}
