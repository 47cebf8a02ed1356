//! What a run that is continued finds in its directory, and what of it stays its own.

use super::Session;
use crate::config::Config;
use crate::report::keep_later_lines;
use crate::run_dir::{self, CheckpointName, Continuation, Lineage};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// The directory of a run that is continued.
pub struct Earlier {
    /// The branches that it is on, where it says so.
    recorded: Option<Lineage>,
    /// Those of the checkpoint, and its steps.
    saved: Lineage,
    step: u64,
    /// Checkpoints beyond that one.
    pub later: Vec<PathBuf>,
    /// Why `config.yml` cannot be understood.
    damage: Option<String>,
}

impl Earlier {
    /// Of the run in `place` that goes on from the checkpoint at `path`, taken up by `session`, which the file says was
    /// saved after `step` steps.
    ///
    /// Errors: the checkpoint is of another run; the directory cannot be read.
    pub fn find(place: &Path, path: &Path, session: &Session, step: u64) -> Result<Earlier> {
        let (recorded, damage) = match run_dir::read_lineage(place) {
            Ok(recorded) => (recorded, None),
            Err(error) => (None, Some(format!("{error:#}; it is written anew, the old one is config.yml.damaged"))),
        };
        let saved = session.lineage.clone();
        if let Some(reason) = recorded.as_ref().and_then(|run| run.stranger(&saved, step)) {
            bail!(
                "{} cannot be continued in {}: {reason}; continue it in a directory of its own (--log-dir), or begin a new \
                 run with its weights (--from-pretrained)",
                path.display(),
                place.display()
            );
        }
        let at = session.at;
        let here = CheckpointName::at(at.epoch, at.batch, at.step);
        let later = run_dir::list_checkpoints(place)?.into_iter().filter(|(name, file)| *name > here && file != path);
        // PyTorch counts the steps of a run otherwise where its images were others.
        let later = later.map(|(_, file)| file).collect();
        Ok(Earlier { recorded, saved, step: step.max(at.step), later, damage })
    }

    /// Makes the directory that of the run which goes on here: `config.yml` says so first, and a process that dies from
    /// then on leaves a directory that is continued here too. What is later goes into a directory of its own. The answer
    /// is what there is to say of it.
    ///
    /// Errors: files that cannot be written or moved.
    pub fn go_on(self, session: &mut Session, config: &Config) -> Result<Vec<String>> {
        let directory = session.directory.clone();
        let aside = (!self.later.is_empty())
            .then(|| run_dir::create_abandoned(&directory, crate::clock::now().naive_local()))
            .transpose()?;
        let on_branch = aside.is_none() && self.recorded.as_ref().is_some_and(|run| run.tip() == self.saved.tip());
        session.lineage = if on_branch { self.saved } else { self.saved.branch(self.step) };
        let name = aside.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy());
        let changes = run_dir::amend_config(
            &directory,
            &Continuation {
                config: &serde_json::to_value(config)?,
                adopted: &config.adopted,
                lineage: &session.lineage,
                after_step: session.at.step,
                set_aside: name.as_deref(),
            },
        )?;
        let mut said: Vec<String> = self.damage.into_iter().collect();
        if !changes.is_empty() {
            said.push(format!("settings that change from here on, and in config.yml: {}", changes.join(", ")));
        }
        let Some(aside) = aside else { return Ok(said) };
        keep_later_lines(&directory, session.at.epoch, &aside)?;
        for path in &self.later {
            let to = aside.join(path.file_name().unwrap_or_default());
            std::fs::rename(path, &to).with_context(|| format!("cannot move {} into {}", path.display(), aside.display()))?;
        }
        let (count, what) = (self.later.len(), if self.later.len() == 1 { "checkpoint" } else { "checkpoints" });
        said.push(format!("{count} later {what} and the numbers of later epochs are set aside in {}", aside.display()));
        Ok(said)
    }
}
