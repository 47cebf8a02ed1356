//! Finds runs and evaluations below directories, and which belong together.
//!
//! A directory is a run when its `config.yml` says so, or, where that is
//! missing, when its `metrics.jsonl` has the lines of one; it is an evaluation
//! when a `linear_eval.json`, `finetune.json` or `supervised.json` is in it.

use crate::report::{Console, Record, read_json_lines};
use crate::run_dir;
use crate::train::evaluate::outcome::{Outcome, Protocol};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A pre-training run.
#[derive(Clone, Debug)]
pub struct Run {
    pub directory: PathBuf,
    /// `job.pretrain` of its `config.yml`.
    pub settings: Option<Value>,
    /// One a line of its `metrics.jsonl`, in the file's order.
    pub epochs: Vec<Record>,
    /// What changed in its settings where it was continued, in words.
    pub changes: Vec<String>,
    pub evaluations: Vec<Evaluation>,
}

/// An evaluation of one encoder.
#[derive(Clone, Debug)]
pub struct Evaluation {
    pub directory: PathBuf,
    /// `job.evaluate` of its `config.yml`.
    pub settings: Option<Value>,
    pub outcome: Outcome,
}

/// Everything found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub runs: Vec<Run>,
    /// Evaluations whose run is not there, or that have none: supervised training.
    pub others: Vec<Evaluation>,
}

/// Gathers everything below `directories`; a run that an evaluation there names belongs to it wherever it lies.
/// Damaged files are named in a warning and passed over.
///
/// Errors: a directory that does not exist; nothing found.
pub fn gather(directories: &[PathBuf], console: &Console) -> Result<Found> {
    let mut walk = Walk { console, seen: BTreeSet::new(), runs: Vec::new(), evaluations: Vec::new() };
    for directory in directories {
        std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
        walk.enter(directory);
    }
    let Walk { mut runs, evaluations, .. } = walk;
    let mut others = Vec::new();
    for evaluation in evaluations {
        match owner(&mut runs, &evaluation, console) {
            Some(place) => runs[place].evaluations.push(evaluation),
            None => others.push(evaluation),
        }
    }
    if runs.is_empty() && others.is_empty() {
        let named: Vec<String> = directories.iter().map(|directory| directory.display().to_string()).collect();
        bail!(
            "no results below {}: a run is a directory with config.yml or metrics.jsonl, an evaluation one with \
             linear_eval.json, finetune.json or supervised.json; the program writes them below --save-dir",
            named.join(", ")
        );
    }
    for run in &mut runs {
        run.evaluations
            .sort_by_key(|evaluation| (evaluation.outcome.protocol.name(), evaluation.outcome.checkpoint_epoch));
    }
    Ok(Found { runs, others })
}

struct Walk<'a> {
    console: &'a Console,
    /// Real paths: links may lead round in circles, and arguments may overlap.
    seen: BTreeSet<PathBuf>,
    runs: Vec<Run>,
    evaluations: Vec<Evaluation>,
}

impl Walk<'_> {
    fn enter(&mut self, directory: &Path) {
        let real = directory.canonicalize().unwrap_or_else(|_| directory.to_path_buf());
        if !self.seen.insert(real) {
            return;
        }
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => return self.console.warn(&format!("passed over: {}: {error}", directory.display())),
        };
        let mut below: Vec<PathBuf> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
        // What a run has left behind is no run of its own.
        below.retain(|path| {
            !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(run_dir::ABANDONED))
        });
        below.sort();
        self.look_at(directory);
        for directory in below {
            self.enter(&directory);
        }
    }

    fn look_at(&mut self, directory: &Path) {
        let settings = settings(directory, self.console);
        let protocols = [Protocol::LinearEval, Protocol::Finetune, Protocol::Supervised];
        let results = protocols.map(|protocol| directory.join(format!("{}.json", protocol.name())));
        let present: Vec<&PathBuf> = results.iter().filter(|path| path.exists()).collect();
        if present.is_empty() && !evaluates(settings.as_ref()) {
            self.runs.extend(run(directory, settings, self.console));
            return;
        }
        for path in present {
            match outcome(path) {
                Ok(outcome) => {
                    let settings = settings.as_ref().and_then(|all| all.pointer("/job/evaluate")).cloned();
                    self.evaluations.push(Evaluation { directory: directory.to_path_buf(), settings, outcome });
                }
                Err(error) => self.console.warn(&format!("passed over: {error:#}")),
            }
        }
    }
}

/// Everything that `config.yml` says, if there is one.
fn settings(directory: &Path, console: &Console) -> Option<Value> {
    if !directory.join("config.yml").exists() {
        return None;
    }
    run_dir::read_config(directory).map_err(|error| console.warn(&format!("passed over: {error:#}"))).ok()
}

fn evaluates(settings: Option<&Value>) -> bool {
    settings.is_some_and(|settings| settings.pointer("/job/evaluate").is_some())
}

fn outcome(path: &Path) -> Result<Outcome> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
}

/// The run in `directory`, if there is one.
fn run(directory: &Path, settings: Option<Value>, console: &Console) -> Option<Run> {
    let changes = settings.as_ref().map(changes).unwrap_or_default();
    let settings = settings.as_ref().and_then(|all| all.pointer("/job/pretrain")).cloned();
    let metrics = directory.join("metrics.jsonl");
    let epochs = if metrics.exists() {
        read_json_lines(&metrics).map_err(|error| console.warn(&format!("passed over: {error:#}"))).unwrap_or_default()
    } else {
        Vec::new()
    };
    let there = settings.is_some() || !epochs.is_empty();
    there.then(|| Run { directory: directory.to_path_buf(), settings, epochs, changes, evaluations: Vec::new() })
}

/// The changes in the `history` of a `config.yml`.
fn changes(all: &Value) -> Vec<String> {
    let entries = all["history"].as_array().into_iter().flatten();
    let told = entries.filter_map(|entry| {
        let changes: Vec<&str> = entry["changes"].as_array()?.iter().filter_map(Value::as_str).collect();
        Some(format!("after step {}: {}", entry["after_step"], changes.join(", ")))
    });
    told.collect()
}

/// The place among `runs` of the one that wrote the evaluation's checkpoint; it is added if it lies elsewhere.
fn owner(runs: &mut Vec<Run>, evaluation: &Evaluation, console: &Console) -> Option<usize> {
    let wanted = evaluation.outcome.checkpoint.as_ref()?.parent()?;
    if let Ok(real) = wanted.canonicalize() {
        let same = |run: &Run| run.directory.canonicalize().is_ok_and(|directory| directory == real);
        if let Some(place) = runs.iter().position(same) {
            return Some(place);
        }
        if let Some(found) = run(wanted, settings(wanted, console), console) {
            runs.push(found);
            return Some(runs.len() - 1);
        }
    }
    // Moved since, or named from another directory: the run whose path ends alike, in `{batch}_{clr}/{date}` at least.
    let alike = |run: &Run| {
        let directory = run.directory.canonicalize().unwrap_or_else(|_| run.directory.clone());
        directory.components().rev().zip(wanted.components().rev()).take_while(|(a, b)| a == b).count()
    };
    let most = runs.iter().map(alike).max().filter(|&count| count >= 2)?;
    let mut best = runs.iter().enumerate().filter(|(_, run)| alike(run) == most).map(|(place, _)| place);
    let place = best.next()?;
    best.next().is_none().then_some(place)
}
