//! Which curves a report has, and how each is read.

use super::gather::{Evaluation, Found, Run};
use crate::report::plots::{Panel, Series, Stroke};
use crate::report::{Number, Record, Scale};
use crate::run_dir::CheckpointName;
use crate::train::evaluate::outcome::Protocol;
use crate::train::pretrain::numbers::numbers;

/// One chart: all runs overlaid, run by run in the palette's order.
pub struct Chart {
    pub panel: Panel,
    /// How to read it, in a sentence or two.
    pub reading: &'static str,
}

/// The charts that any of the runs has numbers for. `names` are the runs' names.
pub fn charts(found: &Found, names: &[String]) -> Vec<Chart> {
    numbers().iter().filter_map(|number| chart(number, found, names)).collect()
}

fn chart(number: &Number, found: &Found, names: &[String]) -> Option<Chart> {
    let chart = number.chart?;
    let mut series = Vec::new();
    for (colour, (run, name)) in found.runs.iter().zip(names).enumerate() {
        let faint = chart.faint.iter().map(|key| (*key, Stroke::Faint));
        let dashed = chart.dashed.into_iter().map(|key| (key, Stroke::Dashed));
        for (key, stroke) in std::iter::once((number.key, Stroke::Bold)).chain(faint).chain(dashed) {
            let points = over_epochs(run, key);
            if !points.is_empty() {
                series.push(Series { name: name.clone(), colour, stroke, points });
            }
        }
    }
    let drawn = series.iter().any(|series| series.stroke == Stroke::Bold);
    drawn.then(|| Chart { panel: Panel { series, ..chart.panel() }, reading: number.meaning })
}

/// A number stands at the end of its epoch.
fn over_epochs(run: &Run, key: &str) -> Vec<(f64, f64)> {
    run.epochs.iter().filter_map(|epoch: &Record| Some((epoch.epoch as f64 + 1.0, epoch.get(key)?))).collect()
}

/// Accuracy over the epochs of pre-training: linear evaluation bold, weighted kNN of the evaluations dashed, kNN during
/// training thin, a linear probe during training as dots. `None` where nothing was evaluated.
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
        let lines = [
            ("linear", Stroke::Bold, evaluated(|one| Some(one.outcome.test_top1_last_epoch))),
            ("kNN", Stroke::Dashed, evaluated(|one| Some(one.outcome.knn?.knn_weighted_top1))),
            ("kNN while training", Stroke::Faint, over_epochs(run, "knn_top1")),
            ("probe while training", Stroke::Dots, over_epochs(run, "probe_top1")),
        ];
        for (what, stroke, points) in lines {
            if !points.is_empty() {
                series.push(Series { name: format!("{name}, {what}"), colour, stroke, points });
            }
        }
    }
    let (title, y_label, scale) = ("Accuracy", "test top-1 (%)", Scale::PERCENT);
    let chart = crate::report::Chart { title, y_label, scale, faint: &[], dashed: None };
    (!series.is_empty()).then(|| Panel { series, ..chart.panel() })
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
    let end = |place: usize| found.runs[place].directory.file_name().unwrap_or_default().to_string_lossy();
    tell_apart(&mut names, |place| format!(", {}", end(place)));
    tell_apart(&mut names, |place| format!(" ({})", place + 1));
    names
}

/// Adds something to the names that are there twice.
fn tell_apart(names: &mut [String], more: impl Fn(usize) -> String) {
    let before = names.to_vec();
    for (place, name) in names.iter_mut().enumerate() {
        if before.iter().filter(|other| *other == name).count() > 1 {
            name.push_str(&more(place));
        }
    }
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
