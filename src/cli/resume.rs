//! A run that is continued: its own settings, read from its checkpoint, apply. What the [table of flags](super::flags)
//! calls its identity must agree with them; what it calls adopted changes them from here on.

use super::flags::Resume;
use super::settings::{self, MORE_ROOTS, shown};
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
    let began = serde_json::to_value(config)?;
    // What follows from other flags follows from the run's, where they were not typed.
    let filled = typed.over(&settings::of_pretraining(&began))?;
    let asked = pretrain::from_flags(&filled, precision, device)?;
    let (mut run, asked) = (began, serde_json::to_value(&asked)?);
    let mut contradictions = Vec::new();
    for flag in table().filter(|flag| typed.has(flag.id)) {
        let Some(path) = flag.pretraining() else { continue };
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
