//! What a run that is continued finds in its directory, and what of it stays its own.

use super::ending::without_encoder;
use super::{Plan, Session};
use crate::config::Config;
use crate::own::{ENCODER_DESCRIPTION, ENCODER_WEIGHTS};
use crate::report::{Console, keep_later_lines};
use crate::run_dir::{self, CheckpointName, Continuation, Lineage};
use crate::train::encoder_file;
use crate::train::pretrain::saver::remove_superseded;
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
        let mut later = self.later.clone();
        if encoder_file::epochs_of(&directory).is_some_and(|epochs| epochs > session.at.epoch) {
            later.extend([ENCODER_DESCRIPTION, ENCODER_WEIGHTS].map(|name| directory.join(name)));
        }
        for path in &later {
            let to = aside.join(path.file_name().unwrap_or_default());
            std::fs::rename(path, &to)
                .with_context(|| format!("cannot move {} into {}", path.display(), aside.display()))?;
        }
        let (count, what) = (self.later.len(), if self.later.len() == 1 { "checkpoint" } else { "checkpoints" });
        said.push(format!("{count} later {what} and the numbers of later epochs are set aside in {}", aside.display()));
        Ok(said)
    }
}

impl Plan {
    /// Whether the run that was to be continued is complete.
    pub fn is_complete(&self) -> bool {
        self.earlier.is_some() && self.session.steps_left() == 0
    }

    /// Says that a complete run is complete, and how it could go on. What a process that died at the very end left undone is
    /// done; nothing else changes.
    ///
    /// Errors: the directory cannot be read or written.
    pub fn close(self, console: &Console) -> Result<()> {
        let Plan { mut session, place, earlier, .. } = self;
        let Some((path, earlier)) = session.last_saved.clone().zip(earlier) else { return Ok(()) };
        let epochs = session.pretrain.epochs;
        let (place, shown) = (place.display().to_string(), path.display());
        let again = if earlier.later.is_empty() {
            format!("--resume {place}")
        } else {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            format!("--log-dir {place} --train-from {name}")
        };
        let name = path.file_name().and_then(|name| CheckpointName::parse(name.to_str()?));
        if let Some(name) = name.filter(|_| session.writes && earlier.later.is_empty()) {
            session.directory = PathBuf::from(&place);
            run_dir::remove_half_written(&session.directory)?;
            remove_superseded(&session.directory, name, session.pretrain.checkpoints)?;
            if encoder_file::epochs_of(&session.directory) != Some(u64::from(epochs))
                && let Err(error) = session.write_encoder(&path)
            {
                console.warn(&without_encoder(&session.directory, &path, &error));
            }
            if !session.directory.join("curves.png").exists() {
                session.draw_curves();
            }
        }
        console.result(&format!(
            "nothing is left to train: all {epochs} epochs are done ({shown}); a longer run goes on with: flatnce {again} \
             --epochs {}",
            2 * epochs.max(1)
        ));
        Ok(())
    }
}

/// A complete run's last checkpoint carries the number of epochs, which is also the name of the epoch that comes next if
/// the run goes on. It takes the name that it would have had in the longer run.
pub fn name_within_longer_run(path: PathBuf, session: &Session, console: &Console) -> Result<PathBuf> {
    let at = session.at;
    if !session.continues_ours || at.epoch >= u64::from(session.pretrain.epochs) {
        return Ok(path);
    }
    let name = path.file_name().and_then(|name| CheckpointName::parse(name.to_str()?));
    if name != Some(CheckpointName::finished(at.epoch as u32)) || at.batch != 0 {
        return Ok(path);
    }
    let earlier = CheckpointName::at(at.epoch, at.batch, at.step);
    let renamed = path.with_file_name(earlier.to_string());
    std::fs::rename(&path, &renamed)
        .with_context(|| format!("cannot rename {} to {earlier}, its name in a longer run", path.display()))?;
    console.note(&format!("{} is {earlier} in the longer run, and was renamed", path.display()));
    Ok(renamed)
}
