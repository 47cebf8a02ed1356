//! Accuracy over the epochs of the pre-training: every checkpoint of a run
//! evaluated the same way (upstream: `main_eval`).

use super::outcome::Outcome;
use crate::clock;
use crate::config::{Config, Evaluate};
use crate::durable;
use crate::report::plots::{Figure, Panel, Series, Stroke, curves};
use crate::report::{Console, Table};
use crate::run_dir;
use anyhow::{Context, Result};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Numbers over the epochs: name and value of each outcome, where it has one.
type Curve = (&'static str, fn(&Outcome) -> Option<f64>);

const CURVES: [Curve; 4] = [
    ("test top-1, last epoch", |o| Some(o.test_top1_last_epoch)),
    ("test top-1, best epoch", |o| Some(o.test_top1_best_epoch)),
    ("kNN, weighted", |o| o.knn.map(|knn| knn.knn_weighted_top1)),
    ("kNN, plain", |o| o.knn.map(|knn| knn.knn_plain_top1)),
];

/// Prints the table and writes it, the outcomes and the picture into a directory of their own beside those of the
/// single evaluations: `{batch}_all_fc/{date}/accuracy_over_epochs.{md,json,png}`, as [`parent`] has it.
///
/// Errors: a file cannot be written.
pub fn report(config: &Config, run: &Evaluate, outcomes: &[Outcome], parent: &Path, console: &Console) -> Result<()> {
    let directory = run_dir::create(parent, clock::now().naive_local())?;
    run_dir::write_config(&directory, &serde_json::to_value(config)?, &config.command)?;
    let table = table(outcomes).to_string();
    let all: Vec<Value> = outcomes.iter().map(Outcome::to_json).collect::<Result<_>>()?;
    let json = serde_json::to_string_pretty(&all)?;
    for (extension, text) in [("md", &table), ("json", &json)] {
        let path = directory.join(format!("accuracy_over_epochs.{extension}"));
        durable::replace(&path, |file| Ok(writeln!(file, "{}", text.trim_end())?))?;
    }
    let picture = directory.join("accuracy_over_epochs.png");
    curves(&picture, &figure(run, outcomes)).context("the evaluations themselves are complete")?;
    console.result(&table);
    console.note(&format!("table and curve: {}", directory.display()));
    Ok(())
}

/// `.../{batch}_{epoch}_fc` of one evaluation to `.../{batch}_all_fc`, or `{dataset}_{epoch}_fc` to `{dataset}_all_fc`.
pub fn parent(of_one: &Path) -> PathBuf {
    let name = of_one.file_name().unwrap_or_default().to_string_lossy();
    let mut parts: Vec<&str> = name.rsplitn(3, '_').collect();
    if let [_, epoch, _] = parts.as_mut_slice() {
        *epoch = "all";
    }
    parts.reverse();
    of_one.with_file_name(parts.join("_"))
}

/// The curves that these outcomes have.
fn present(outcomes: &[Outcome]) -> impl Iterator<Item = &'static Curve> + '_ {
    CURVES.iter().filter(|(_, value)| outcomes.iter().any(|outcome| value(outcome).is_some()))
}

fn table(outcomes: &[Outcome]) -> Table {
    let header = std::iter::once("checkpoint").chain(present(outcomes).map(|(name, _)| *name));
    let mut table = Table::new(header);
    for outcome in outcomes {
        let file = outcome.checkpoint.as_ref().and_then(|path| path.file_name()).unwrap_or_default();
        let numbers = present(outcomes).map(|(_, value)| value(outcome).map_or("-".into(), |v| format!("{v:.2}")));
        table.row(std::iter::once(file.to_string_lossy().into_owned()).chain(numbers));
    }
    table
}

fn figure(run: &Evaluate, outcomes: &[Outcome]) -> Figure {
    let series = present(outcomes).enumerate().map(|(colour, (name, value))| Series {
        name: (*name).into(),
        colour,
        stroke: Stroke::Bold,
        points: outcomes.iter().filter_map(|o| Some((f64::from(o.checkpoint_epoch), value(o)?))).collect(),
    });
    let panel = Panel {
        title: String::new(),
        x_label: "checkpoint (epoch of pre-training)".into(),
        y_label: "test accuracy (%)".into(),
        x_whole: true,
        y_limits: Some((0.0, 100.0)),
        series: series.collect(),
        ..Panel::default()
    };
    Figure { title: format!("{} on {}", outcomes[0].protocol.name(), run.data.dataset), panels: vec![panel] }
}
