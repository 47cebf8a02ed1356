//! Where results lie: `results/{dataset}/{batch}_FlatCLR|SimCLR/{dd-mm-YYYY-HH-MM-SS}/`
//! for pre-training, `results/{dataset}/{clr}/{batch}_{epoch}_fc|_ft/{date}/` for
//! evaluation, as upstream's README has it, and the names of checkpoints in there.

mod config_file;

pub use config_file::{to_yaml, write_config};

use crate::config::{DatasetName, Objective, TransferMode};
use anyhow::{Context, Result};
use chrono::NaiveDateTime;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The directory that holds all pre-training runs of one set-up.
pub fn pretrain_parent(results: &Path, dataset: DatasetName, batch_size: u32, objective: Objective) -> PathBuf {
    results.join(dataset.name()).join(format!("{batch_size}_{}", objective.directory_suffix()))
}

/// The directory that holds all evaluations of one checkpoint: `batch_size` and `epoch` are those of the
/// pre-training, `epoch` as the checkpoint's name has it.
pub fn evaluation_parent(
    results: &Path,
    dataset: DatasetName,
    objective: Objective,
    batch_size: u32,
    epoch: u32,
    mode: TransferMode,
) -> PathBuf {
    let suffix = match mode {
        TransferMode::LinearEval => "fc",
        TransferMode::Finetune => "ft",
    };
    results.join(dataset.name()).join(objective.name()).join(format!("{batch_size}_{epoch}_{suffix}"))
}

/// Creates a directory of its own for a run that `started` now: the date, or the date with `-2`, `-3`, ...
/// where another run took the name first. Two runs never share one, however close they start.
///
/// # Errors
/// The directory or one above it cannot be created.
pub fn create(parent: &Path, started: NaiveDateTime) -> Result<PathBuf> {
    std::fs::create_dir_all(parent)
        .with_context(|| format!("cannot create {}; choose another place with --save-dir", parent.display()))?;
    let date = started.format("%d-%m-%Y-%H-%M-%S").to_string();
    for number in 1u64.. {
        let directory = parent.join(if number == 1 { date.clone() } else { format!("{date}-{number}") });
        // `create_dir` is the test and the claim in one.
        match std::fs::create_dir(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("cannot create {}; choose another place with --save-dir", directory.display())
                });
            }
        }
    }
    unreachable!("the numbers do not end")
}

/// When within its epoch a checkpoint was written; earlier sorts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckpointKind {
    /// In the middle of the epoch, when the run was asked to stop: `checkpoint_0026_interrupted.pth.tar`.
    Interrupted,
    /// After the epoch: `checkpoint_0026.pth.tar`.
    Finished,
}

/// What a checkpoint's file name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointName {
    /// Counted from 0; a complete run's last checkpoint carries the number of epochs.
    pub epoch: u32,
    pub kind: CheckpointKind,
}

impl CheckpointName {
    pub fn finished(epoch: u32) -> Self {
        CheckpointName { epoch, kind: CheckpointKind::Finished }
    }

    /// Reads a file name; `None` for one that is no checkpoint's (temporaries among them).
    pub fn parse(file_name: &str) -> Option<Self> {
        let stem = file_name.strip_prefix("checkpoint_")?.strip_suffix(".pth.tar")?;
        let (digits, kind) = match stem.strip_suffix("_interrupted") {
            Some(digits) => (digits, CheckpointKind::Interrupted),
            None => (stem, CheckpointKind::Finished),
        };
        let plain = digits.len() >= 4 && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten().map(|epoch| CheckpointName { epoch, kind })
    }
}

impl std::fmt::Display for CheckpointName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let suffix = match self.kind {
            CheckpointKind::Interrupted => "_interrupted",
            CheckpointKind::Finished => "",
        };
        write!(f, "checkpoint_{:04}{suffix}.pth.tar", self.epoch)
    }
}

/// The checkpoints of a directory, oldest first, with their paths.
///
/// # Errors
/// The directory cannot be read.
pub fn list_checkpoints(directory: &Path) -> Result<Vec<(CheckpointName, PathBuf)>> {
    let context = || format!("cannot list the checkpoints in {}", directory.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(context)? {
        let entry = entry.with_context(context)?;
        if let Some(name) = entry.file_name().to_str().and_then(CheckpointName::parse) {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}
