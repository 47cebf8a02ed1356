//! Settings as the flags that ask for them: those of a file that `--config` names, and of a run that is continued. They
//! stand in for the flags that were not typed ([`Typed::over`]), so that whatever follows from a flag follows from the
//! setting too.

use super::flags::Flag;
use super::{Typed, flag_name, table};
use crate::config::{CheckpointChoice, EncoderSource, Evaluate, Job, Normalisation, Settings, TrainMode};
use crate::run_dir;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A flag, and what is typed for it: several values where it is given several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagValues {
    /// Its name with underscores.
    pub id: &'static str,
    pub values: Vec<String>,
}

impl FlagValues {
    fn one(id: &'static str, value: impl ToString) -> FlagValues {
        FlagValues { id, values: vec![value.to_string()] }
    }

    /// As words of a command line.
    pub fn words(&self) -> impl Iterator<Item = String> {
        self.values.iter().map(|value| format!("{}={value}", flag_name(self.id)))
    }
}

/// A file of settings.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    job: Job,
    flags: Vec<FlagValues>,
}

impl File {
    /// Reads the `config.yml` that `--config` of this command names, or that of the directory.
    ///
    /// Errors: it cannot be read, is no YAML, or has settings that no job can have; it is of another job than the command.
    pub fn read(path: &Path, typed: &Typed) -> Result<File> {
        let path = if path.is_dir() { path.join("config.yml") } else { path.to_owned() };
        if !path.exists() {
            bail!("--config {}: there is no such file; give a run's directory, or its config.yml", path.display());
        }
        let all = run_dir::read_config_file(&path).context("--config has to be what a run leaves as config.yml")?;
        let unusable = || format!("--config {} cannot be used", path.display());
        let job = all.get("job").filter(|job| job.get("pretrain").is_some() || job.get("evaluate").is_some());
        let Some(job) = job.cloned() else {
            bail!(
                "--config {} has no job of this program: neither job.pretrain nor job.evaluate; give the config.yml of \
                 one of its runs",
                path.display()
            );
        };
        let job: Job = serde_json::from_value(job).with_context(unusable)?;
        let asked = typed.has("train_mode").then_some(typed.args.evaluation.train_mode);
        let mut flags = match &job {
            Job::Pretrain(run) => {
                if let Some(mode) = asked.filter(|mode| *mode != TrainMode::Ssl) {
                    bail!(
                        "--config {} is of a pre-training, and --train-mode {mode} is none; leave one of them out",
                        path.display()
                    );
                }
                run.check().with_context(unusable)?;
                of_pretraining(&serde_json::to_value(run)?)
            }
            Job::Evaluate(run) => {
                if asked == Some(TrainMode::Ssl) {
                    bail!(
                        "--config {} is of an evaluation, and --train-mode ssl is none; leave one of them out",
                        path.display()
                    );
                }
                run.check().with_context(unusable)?;
                of_evaluation(run, asked.unwrap_or_else(|| mode_of(run)))?
            }
        };
        flags.extend(from_paths(&all, |row| row.command));
        if all.get("feature_cache").is_some_and(Value::is_null) {
            flags.push(FlagValues::one("feature_cache", "off"));
        }
        Ok(File { path, job, flags })
    }

    /// The command, with the settings of the file for whatever was not typed.
    ///
    /// Errors: a setting of the file that its flag does not take; a typed flag that goes with none of the file.
    pub fn under(&self, typed: &Typed) -> Result<Typed> {
        typed.over(&self.flags).with_context(|| format!("--config {} cannot be used", self.path.display()))
    }

    /// Keeps of the file what no flag asks for: the normalisation, unless other images are.
    pub fn complete(&self, typed: &Typed, job: &mut Job) {
        if typed.has("dataset_name") || typed.has("transfer_dataset_name") {
            return;
        }
        if let (Some(ours), Some(theirs)) = (normalisation(job), normalisation(&mut self.job.clone())) {
            *ours = *theirs;
        }
    }

    /// What the typed flags have changed, in a line; `job` is what came of them.
    pub fn told(&self, typed: &Typed, job: &Job) -> Result<String> {
        let inner = |job: &Job| match job {
            Job::Pretrain(run) => serde_json::to_value(run),
            Job::Evaluate(run) => serde_json::to_value(run),
        };
        let (old, new) = (inner(&self.job)?, inner(job)?);
        let path = |row: &Flag| if matches!(job, Job::Pretrain(_)) { row.pretraining() } else { row.evaluation };
        let mut changes = Vec::new();
        for row in table().filter(|row| typed.has(row.id)) {
            let wanted: Vec<String> = typed.words(row.id).iter().map(|word| word.replacen('=', " ", 1)).collect();
            if path(row).is_some_and(|path| shown(&old, path) == shown(&new, path)) {
                continue;
            }
            let decided: Vec<_> = self.flags.iter().filter(|flag| decides(row, flag.id)).collect();
            if decided.is_empty() && (path(row).is_some() || row.command.is_some()) {
                let has = path(row).map_or_else(|| "none".to_owned(), |path| shown(&old, path));
                changes.push(format!("{} instead of {has}", wanted.join(" ")));
            }
            for flag in decided {
                let (name, has) = (flag_name(flag.id), flag.values.join(", "));
                if wanted.last().is_none_or(|last| *last != format!("{name} {has}")) {
                    let has = if flag.id == row.id { has } else { format!("{name} {has}") };
                    changes.push(format!("{} instead of {has}", wanted.join(" ")));
                }
            }
        }
        let what = if changes.is_empty() { "its settings as they are".to_owned() } else { changes.join(", ") };
        Ok(format!("--config {}: {what}", self.path.display()))
    }
}

/// That of the network of a job that makes one.
fn normalisation(job: &mut Job) -> Option<&mut Normalisation> {
    match job {
        Job::Pretrain(run) => Some(&mut run.model.normalisation),
        Job::Evaluate(run) => match &mut run.source {
            EncoderSource::Scratch(model) => Some(&mut model.normalisation),
            _ => None,
        },
    }
}

/// Whether the flag of this row, where it is typed, settles what flag `other` of a file asks for.
pub fn decides(row: &Flag, other: &str) -> bool {
    let also: &[&str] = match row.id {
        "blur" | "faster_version" => &["blur_prob"],
        "checkpoint" => &["checkpoint_dir", "transfer_from_epoch"],
        "checkpoint_dir" => &["checkpoint"],
        _ => &[],
    };
    let same = |path: fn(&Flag) -> Option<&'static str>| {
        path(row).is_some_and(|path_of_row| table().any(|flag| flag.id == other && path(flag) == Some(path_of_row)))
    };
    row.id == other
        || also.contains(&other)
        || same(Flag::pretraining)
        || same(|flag| flag.evaluation)
        || same(|flag| flag.command)
}

/// The flags that ask for a pre-training run's settings.
pub fn of_pretraining(run: &Value) -> Vec<FlagValues> {
    let mut flags = from_paths(run, Flag::pretraining);
    if run["online_knn"].is_null() {
        flags.push(FlagValues::one("knn_every", 0));
    }
    flags
}

/// The mode of an evaluation. That of a transfer is `eval` where nothing is said of the encoder's own images: the same is
/// done.
fn mode_of(run: &Evaluate) -> TrainMode {
    match &run.source {
        EncoderSource::Scratch(_) => TrainMode::Supervised,
        _ if run.label_ratio < 1.0 => TrainMode::Semi,
        _ if run.stated.dataset.is_some() => TrainMode::Transfer,
        _ => TrainMode::Eval,
    }
}

/// The flags that ask for an evaluation's settings under this mode; one that is continued is begun anew.
///
/// Errors: it cannot be written as JSON.
fn of_evaluation(run: &Evaluate, mode: TrainMode) -> Result<Vec<FlagValues>> {
    let mut flags = from_paths(&serde_json::to_value(run)?, |row| row.evaluation);
    if run.rate_follows_batch {
        flags.retain(|flag| flag.id != "fc_lr");
    }
    flags.push(FlagValues::one("train_mode", mode));
    let others = mode == TrainMode::Transfer || (mode == TrainMode::Semi && run.stated.dataset.is_some());
    flags.push(FlagValues::one(if others { "transfer_dataset_name" } else { "dataset_name" }, run.data.dataset));
    if others && let Some(dataset) = run.stated.dataset {
        flags.push(FlagValues::one("dataset_name", dataset));
    }
    match &run.source {
        EncoderSource::Scratch(model) => flags.push(FlagValues::one("model", model.depth)),
        EncoderSource::File(path) => flags.push(FlagValues::one("checkpoint", path.display())),
        EncoderSource::Directory { directory, which } => {
            flags.push(FlagValues::one("checkpoint_dir", directory.display()));
            match which {
                CheckpointChoice::Last => {}
                CheckpointChoice::All => flags.push(FlagValues::one("transfer_from_epoch", "all")),
                CheckpointChoice::Epoch(epoch) => flags.push(FlagValues::one("transfer_from_epoch", epoch)),
                CheckpointChoice::Every { epochs, until } => {
                    flags.extend([FlagValues::one("save_every_n_epochs", epochs), FlagValues::one("epochs", until)]);
                }
            }
        }
    }
    Ok(flags)
}

/// The flags whose settings have the paths that `path_of` knows. Of two with one path the first asks for it.
fn from_paths(settings: &Value, path_of: impl Fn(&Flag) -> Option<&'static str>) -> Vec<FlagValues> {
    let mut known = BTreeSet::new();
    let of = |row: &Flag| {
        let path = path_of(row).filter(|path| known.insert(*path))?;
        Some(FlagValues { id: row.id, values: values(settings, path)? })
    };
    table().filter_map(of).collect()
}

/// A setting as it is typed; `None` where there is none, or no setting of that name.
fn values(settings: &Value, path: &str) -> Option<Vec<String>> {
    match path {
        "data.root" => {
            let more = at(settings, MORE_ROOTS).as_array().into_iter().flatten();
            Some(std::iter::once(at(settings, path)).chain(more).filter_map(Value::as_str).map(str::to_owned).collect())
        }
        "optimizer.lars_exclude" => Some(vec![shown(settings, path)]),
        _ => match at(settings, path) {
            Value::Null => None,
            Value::Array(items) => Some(vec![items.iter().map(text).collect::<Vec<_>>().join(",")]),
            value => Some(vec![text(value)]),
        },
    }
}

fn at<'a>(settings: &'a Value, path: &str) -> &'a Value {
    path.split('.').try_fold(settings, |value, key| value.get(key)).unwrap_or(&Value::Null)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => number.as_f64().unwrap_or(f64::NAN).to_string(),
        other => other.to_string(),
    }
}

/// Where the images lie that join those of `data.root`.
pub const MORE_ROOTS: &str = "data.more_roots";

/// A setting as text, so that flag and run can be compared and shown. Three flags are of more than one setting.
pub fn shown(run: &Value, path: &str) -> String {
    match path {
        "augmentation.blur" => (at(run, "augmentation.blur_prob").as_f64() > Some(0.0)).to_string(),
        "data.root" => values(run, path).unwrap_or_default().join(", "),
        "optimizer.lars_exclude" => {
            let is = |part: &str| at(run, &format!("{path}_{part}")) == true;
            let parts: Vec<&str> = ["bn", "bias"].into_iter().filter(|part| is(part)).collect();
            if parts.is_empty() { "none".to_owned() } else { parts.join(",") }
        }
        _ => match at(run, path) {
            Value::Null => match path {
                "data.train_images" => "all",
                // Left out of the settings where it is the usual one.
                "data.orientation" => "stored",
                // Which is not the setting of that name.
                "data.labels" => "the default",
                _ => "none",
            }
            .to_owned(),
            value => text(value),
        },
    }
}
