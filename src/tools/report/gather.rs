//! Finds runs and evaluations below directories, and which belong together.
//!
//! A directory is a run when its `config.yml` says so, or, where that is
//! missing, when its `metrics.jsonl` has the lines of one; it is an evaluation
//! when a `linear_eval.json`, `finetune.json` or `supervised.json` is in it.

use crate::config::Objective;
use crate::files;
use crate::report::{Console, Record, salvage_json_lines};
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

impl Found {
    /// The runs whose settings changed where they were continued, in a sentence each: tables have the last settings.
    pub fn changes(&self) -> impl Iterator<Item = String> {
        let of = |run: &Run, change: &String| format!("{} was continued {change}", run.directory.display());
        self.runs.iter().flat_map(move |run| run.changes.iter().map(move |change| of(run, change)))
    }
}

/// Gathers everything below `directories`. What belongs together is found wherever it lies: the run that an evaluation
/// names, and a run's evaluations elsewhere among its results. Damaged files are named in a warning and passed over.
///
/// Errors: a directory that does not exist; nothing found.
pub fn gather(directories: &[PathBuf], console: &Console) -> Result<Found> {
    let mut walk = Walk { console, seen: BTreeSet::new(), runs: Vec::new(), evaluations: Vec::new() };
    for directory in directories {
        std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
        walk.enter(directory);
    }
    let near = walk.elsewhere();
    let Walk { mut runs, mut evaluations, .. } = walk;
    evaluations.extend(near);
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

    /// The evaluations of the runs so far that lie elsewhere below the same results directory, where
    /// [`run_dir::evaluation_parent`] puts them.
    fn elsewhere(&mut self) -> Vec<Evaluation> {
        let results: BTreeSet<PathBuf> = self.runs.iter().filter_map(|run| results_of(&run.directory)).collect();
        let before = self.evaluations.len();
        for place in results {
            let names: Vec<&str> = Objective::ALL.iter().map(|objective| objective.name()).collect();
            let parents =
                below(&place).into_iter().flat_map(|dataset| names.iter().map(move |name| dataset.join(name)));
            for directory in parents.flat_map(|clr| below(&clr)).flat_map(|checkpoint| below(&checkpoint)) {
                if directory.canonicalize().is_ok_and(|real| self.seen.insert(real)) {
                    self.evaluations_in(&directory);
                }
            }
        }
        let mut near = self.evaluations.split_off(before);
        near.retain(|evaluation| owner_among(&self.runs, evaluation).is_some());
        near
    }

    fn look_at(&mut self, directory: &Path) {
        if !self.evaluations_in(directory) {
            let settings = settings(directory, self.console);
            if !evaluates(settings.as_ref()) {
                self.runs.extend(run(directory, settings, self.console));
            }
        }
    }

    /// Whether there are any; they are remembered.
    fn evaluations_in(&mut self, directory: &Path) -> bool {
        let protocols = [Protocol::LinearEval, Protocol::Finetune, Protocol::Supervised];
        let results = protocols.map(|protocol| directory.join(format!("{}.json", protocol.name())));
        let present: Vec<&PathBuf> = results.iter().filter(|path| path.exists()).collect();
        if present.is_empty() {
            return false;
        }
        let settings = settings(directory, self.console).and_then(|all| all.pointer("/job/evaluate").cloned());
        for path in present {
            match outcome(path) {
                Ok(outcome) => {
                    let (directory, settings) = (directory.to_path_buf(), settings.clone());
                    self.evaluations.push(Evaluation { directory, settings, outcome });
                }
                Err(error) => self.console.warn(&format!("passed over: {error:#}")),
            }
        }
        true
    }
}

/// The directories in a directory, sorted; none where it cannot be listed.
fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut below: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    below.sort();
    below
}

/// The directory that `--save-dir` named for a run that lies in it as [`run_dir::pretrain_parent`] has it.
fn results_of(run: &Path) -> Option<PathBuf> {
    let real = run.canonicalize().ok()?;
    let name = real.parent()?.file_name()?.to_str()?;
    let ours = Objective::ALL.iter().any(|objective| name.ends_with(&format!("_{}", objective.directory_suffix())));
    let results = real.ancestors().nth(3).filter(|_| ours)?;
    // As the user named it, where that is the same place.
    let typed = run.ancestors().nth(3).map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    let same = |path: &&Path| path.canonicalize().is_ok_and(|path| path == results);
    Some(typed.filter(same).unwrap_or(results).to_path_buf())
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
    let text = files::read_text(path, files::LIST_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
}

/// The run in `directory`, if there is one.
fn run(directory: &Path, settings: Option<Value>, console: &Console) -> Option<Run> {
    let changes = settings.as_ref().map(changes).unwrap_or_default();
    let settings = settings.as_ref().and_then(|all| all.pointer("/job/pretrain")).cloned();
    let metrics = directory.join("metrics.jsonl");
    let epochs = if metrics.exists() {
        let (epochs, complaint) =
            salvage_json_lines(&metrics).unwrap_or_else(|error| (Vec::new(), Some(format!("{error:#}"))));
        if let Some(text) = complaint {
            console.warn(&format!("passed over: {text}"));
        }
        epochs
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
    if let Some(place) = owner_among(runs, evaluation) {
        return Some(place);
    }
    wanted.canonicalize().ok()?;
    runs.push(run(wanted, settings(wanted, console), console)?);
    Some(runs.len() - 1)
}

/// The same, of those that are there.
fn owner_among(runs: &[Run], evaluation: &Evaluation) -> Option<usize> {
    let wanted = evaluation.outcome.checkpoint.as_ref()?.parent()?;
    let real = |directory: &Path| directory.canonicalize().ok();
    if let Some(wanted) = real(wanted)
        && ["metrics.jsonl", "config.yml"].iter().any(|name| wanted.join(name).exists())
    {
        return runs.iter().position(|run| real(&run.directory).is_some_and(|directory| directory == wanted));
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
