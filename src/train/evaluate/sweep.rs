//! Accuracy over the epochs of the pre-training: every checkpoint of a run
//! evaluated the same way (upstream: `main_eval`).

use super::outcome::Outcome;
use crate::clock;
use crate::config::{Config, Evaluate};
use crate::durable;
use crate::report::plots::{Figure, Panel, Series, Stroke, curves};
use crate::report::{Cell, Console, Table};
use crate::run_dir;
use anyhow::{Context, Result};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Numbers over the epochs: name, field of an [`Outcome`], and its value in each, where it has one.
type Curve = (&'static str, &'static str, fn(&Outcome) -> Option<f64>);

const CURVES: [Curve; 4] = [
    ("test top-1, last epoch", "test_top1_last_epoch", |o| Some(o.test_top1_last_epoch)),
    ("test top-1, best epoch", "test_top1_best_epoch", |o| Some(o.test_top1_best_epoch)),
    ("kNN, weighted", "knn_weighted_top1", |o| o.knn.map(|knn| knn.knn_weighted_top1)),
    ("kNN, plain", "knn_plain_top1", |o| o.knn.map(|knn| knn.knn_plain_top1)),
];

/// What files of this are called, and lines for programs.
const NAME: &str = "accuracy_over_epochs";

/// Prints the table and writes it, the outcomes and the picture into a directory of their own beside those of the
/// single evaluations: `{batch}_all_fc/{date}/accuracy_over_epochs.{md,json,png}`, as [`parent`] has it.
///
/// Errors: a file cannot be written.
pub fn report(config: &Config, run: &Evaluate, outcomes: &[Outcome], parent: &Path, console: &Console) -> Result<()> {
    let directory = run_dir::create(parent, clock::now().naive_local())?;
    run_dir::write_config(&directory, &serde_json::to_value(config)?, &config.command)?;
    let table = table(outcomes);
    let text = table.to_string();
    let all: Vec<Value> = outcomes.iter().map(Outcome::to_json).collect::<Result<_>>()?;
    let json = serde_json::to_string_pretty(&all)?;
    for (extension, content) in [("md", &text), ("json", &json)] {
        let path = directory.join(format!("{NAME}.{extension}"));
        durable::replace(&path, |file| Ok(writeln!(file, "{}", content.trim_end())?))?;
    }
    let picture = directory.join(format!("{NAME}.png"));
    curves(&picture, &figure(run, outcomes)).context("the evaluations themselves are complete")?;
    console.results(NAME, table.records(), &text);
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
    CURVES.iter().filter(|(.., value)| outcomes.iter().any(|outcome| value(outcome).is_some()))
}

fn table(outcomes: &[Outcome]) -> Table {
    let numbers = present(outcomes).map(|(name, field, _)| (*name, *field));
    let columns: Vec<(&str, &str)> = std::iter::once(("checkpoint", "checkpoint")).chain(numbers).collect();
    let mut table = Table::with_fields(&columns);
    for outcome in outcomes {
        let file = outcome.checkpoint.as_ref().and_then(|path| path.file_name()).unwrap_or_default();
        let numbers = present(outcomes).map(|(.., value)| Cell::number(value(outcome), 2));
        table.row(std::iter::once(Cell::from(file.to_string_lossy())).chain(numbers));
    }
    table
}

fn figure(run: &Evaluate, outcomes: &[Outcome]) -> Figure {
    let series = present(outcomes).enumerate().map(|(colour, (name, _, value))| Series {
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
