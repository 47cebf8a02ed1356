//! A run that is continued: its own settings, read from its checkpoint, apply. What the [table of flags](super::flags)
//! calls its identity must agree with them; what it calls adopted changes them from here on.

use super::flags::Resume;
use super::{Typed, flag_name, pretrain, table};
use crate::checkpoint::{self, Checkpoint};
use crate::config::{Depth, Precision, Pretrain, Start};
use crate::run_dir;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tch::Device;

/// Which checkpoint to continue from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The newest of a directory that verifies.
    Newest(PathBuf),
    File(PathBuf),
}

/// A checkpoint to be continued.
#[derive(Debug)]
pub struct Saved {
    pub path: PathBuf,
    /// Where PyTorch wrote it, it has no `config`; the flags give the settings then.
    pub checkpoint: Checkpoint,
}

/// How a run to be continued is read: [`read_saved`], or a stand-in where there is no file.
pub type ReadSaved<'a> = dyn Fn(&Origin, &mut dyn FnMut(String)) -> Result<Saved> + 'a;

/// Reads and verifies the checkpoint; damaged ones that are passed over go to `warn`. The newest of a directory goes on with
/// the settings that the directory's run has now; another one with those that it was saved with.
pub fn read_saved(origin: &Origin, warn: &mut dyn FnMut(String)) -> Result<Saved> {
    Ok(match origin {
        Origin::Newest(directory) => {
            let (path, mut checkpoint) = checkpoint::newest_good(directory, warn)?;
            if let Some(config) = &mut checkpoint.config {
                match with_recorded(config, directory) {
                    Ok(run) => *config = run,
                    Err(error) => warn(format!(
                        "the settings are those of {}: {} has others that cannot be used: {error:#}",
                        path.display(),
                        directory.join("config.yml").display()
                    )),
                }
            }
            Saved { path, checkpoint }
        }
        Origin::File(path) => Saved { path: path.clone(), checkpoint: checkpoint::read(path)? },
    })
}

/// The settings of a checkpoint with those that were adopted since: `config.yml` has them before the first checkpoint does.
///
/// Errors: what it has are no settings.
fn with_recorded(config: &Pretrain, directory: &Path) -> Result<Pretrain> {
    // Older versions wrote it when a run began, and said of no lineage; a damaged one has been named before.
    if !matches!(run_dir::read_lineage(directory), Ok(Some(_))) {
        return Ok(config.clone());
    }
    let recorded = run_dir::read_config(directory)?;
    let recorded = recorded.pointer("/job/pretrain").context("it has none of a pre-training run")?;
    let mut run = serde_json::to_value(config)?;
    for flag in table() {
        if let Resume::Adopted { path, .. } = flag.resume
            && shown(recorded, path) != shown(&run, path)
        {
            adopt(&mut run, recorded, path);
        }
    }
    let run: Pretrain = serde_json::from_value(run)?;
    if run.epochs < config.epochs {
        bail!("{} epochs are fewer than {}, and a run may only grow", run.epochs, config.epochs);
    }
    Ok(run)
}

/// The checkpoint that the flags name.
pub fn origin(typed: &Typed) -> Result<Option<Origin>> {
    let flags = &typed.args.results;
    Ok(match (&flags.resume, &flags.log_dir, &flags.train_from) {
        (Some(path), ..) if path.is_file() => {
            bail!("--resume takes the directory of a run; for one file use --log-dir DIR --train-from FILE")
        }
        (Some(directory), ..) | (None, Some(directory), None) => Some(Origin::Newest(directory.clone())),
        (None, Some(directory), Some(file)) => Some(Origin::File(directory.join(file))),
        (None, None, _) => None,
    })
}

/// The settings of the continued run.
///
/// The flags that change settings from here on go to `adopted`.
///
/// Errors: a typed flag that contradicts the run; all of them at once, with both values.
pub fn continued(
    typed: &Typed,
    saved: &Saved,
    precision: Precision,
    device: Device,
    adopted: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<(Pretrain, Start)> {
    let Some(config) = &saved.checkpoint.config else {
        let typed = with_upstream_settings(typed, saved)?;
        let config = pretrain::from_flags(&typed, precision, device)?;
        return Ok((config, Start::Resume(saved.path.clone())));
    };
    // What follows from these three flags follows from the run's, where they were not typed.
    let mut filled = typed.clone();
    if !typed.has("dataset_name") {
        filled.args.data.dataset_name = config.data.dataset;
    }
    if !typed.has("batch_size") {
        filled.args.optimisation.batch_size = config.batch_size;
    }
    if !typed.has("engine") && !typed.args.augmentation.faster_version {
        filled.args.augmentation.engine = Some(config.engine);
    }
    let asked = pretrain::from_flags(&filled, precision, device)?;
    let (mut run, asked) = (serde_json::to_value(config)?, serde_json::to_value(&asked)?);
    let mut contradictions = Vec::new();
    for flag in table().filter(|flag| typed.has(flag.id)) {
        let (Resume::Identity(path) | Resume::Adopted { path, .. }) = flag.resume else { continue };
        let (wanted, has) = (shown(&asked, path), shown(&run, path));
        let name = flag_name(flag.id);
        match flag.resume {
            _ if wanted == has => {}
            _ if flag.id == "learning_rate_scaling" => {
                if !typed.has("lr") {
                    let rule = typed.args.optimisation.learning_rate_scaling;
                    contradictions.push(format!("  {name} {rule} (lr {wanted}): the run has lr {has}"));
                }
            }
            Resume::Adopted { .. } if flag.id == "epochs" && typed.args.optimisation.epochs < config.epochs => {
                contradictions.push(format!("  {name} {wanted}: the run has {has}, and a run may only grow"));
            }
            Resume::Adopted { changes, .. } => {
                adopt(&mut run, &asked, path);
                adopted.extend(typed.words(flag.id));
                warnings.extend(changes.map(|changes| {
                    format!(
                        "{name} {wanted}: the run began with {has}, and {changes} will differ from those of an \
                         uninterrupted run"
                    )
                }));
            }
            _ => contradictions.push(format!("  {name} {wanted}: the run has {has}")),
        }
    }
    if !contradictions.is_empty() {
        bail!(
            "the command contradicts the run that it continues ({}):\n{}\nleave these flags out, or start a new run",
            saved.path.display(),
            contradictions.join("\n")
        );
    }
    Ok((serde_json::from_value(run)?, Start::Resume(saved.path.clone())))
}

/// A setting as text, so that flag and run can be compared and shown. Three flags are of more than one setting.
pub(super) fn shown(run: &Value, path: &str) -> String {
    let at = |path: &str| path.split('.').try_fold(run, |value, key| value.get(key)).unwrap_or(&Value::Null);
    match path {
        "augmentation.blur" => (at("augmentation.blur_prob").as_f64() > Some(0.0)).to_string(),
        "data.root" => {
            let more = at(MORE_ROOTS).as_array().into_iter().flatten();
            let all: Vec<&str> = std::iter::once(at(path)).chain(more).filter_map(Value::as_str).collect();
            all.join(", ")
        }
        "optimizer.lars_exclude" => {
            let is = |part: &str| at(&format!("{path}_{part}")) == true;
            let parts: Vec<&str> = ["bn", "bias"].into_iter().filter(|part| is(part)).collect();
            if parts.is_empty() { "none".to_owned() } else { parts.join(",") }
        }
        _ => match at(path) {
            Value::Null => match path {
                "data.train_images" => "all",
                // Left out of the settings where it is the usual one.
                "data.orientation" => "stored",
                // Which is not the setting of that name.
                "data.labels" => "the default",
                _ => "none",
            }
            .to_owned(),
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_f64() => number.as_f64().unwrap_or(f64::NAN).to_string(),
            other => other.to_string(),
        },
    }
}

/// Where the images lie that join those of `data.root`.
const MORE_ROOTS: &str = "data.more_roots";

/// Takes the setting at `path` over; with what is around it where one of the two has none there.
fn adopt(run: &mut Value, asked: &Value, path: &str) {
    if path == "data.root" {
        // One flag names all of them; where there is one it has no setting.
        adopt(run, asked, MORE_ROOTS);
    }
    match path.split_once('.') {
        Some((head, rest)) if run[head].is_object() && asked[head].is_object() => {
            adopt(&mut run[head], &asked[head], rest);
        }
        found => {
            let head = found.map_or(path, |(head, _)| head);
            match (asked.get(head), run.as_object_mut()) {
                (None, Some(run)) => drop(run.remove(head)),
                (value, _) => run[head] = value.cloned().unwrap_or_default(),
            }
        }
    }
}

/// The flags, with the two settings that upstream's checkpoints hold where the user typed none.
fn with_upstream_settings(typed: &Typed, saved: &Saved) -> Result<Typed> {
    let mut filled = typed.clone();
    let name = saved.path.display();
    if let Some(model) = &saved.checkpoint.model_name {
        let depth = Depth::parse(model).with_context(|| format!("{name} holds the unknown model {model:?}"))?;
        if typed.has("model") && typed.args.objective.model != depth {
            bail!("--model {}: the checkpoint {name} has {depth}", typed.args.objective.model);
        }
        filled.args.objective.model = depth;
    }
    if let Some(batch_size) = saved.checkpoint.batch_size {
        if typed.has("batch_size") && typed.args.optimisation.batch_size != batch_size {
            bail!("--batch-size {}: the checkpoint {name} has {batch_size}", typed.args.optimisation.batch_size);
        }
        filled.args.optimisation.batch_size = batch_size;
    }
    Ok(filled)
}
