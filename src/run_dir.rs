//! Where results lie: `results/{dataset}/{batch}_FlatCLR|SimCLR/{dd-mm-YYYY-HH-MM-SS}/`, or a name in the place of the time,
//! for pre-training; for evaluation `evaluations/{dataset}_{epoch}_fc|_ft/{date}/` in there, or, where `--save-dir` asks for a
//! place, `{dataset}/{clr}/{batch}_{epoch}_fc|_ft/{date}/` as upstream's README has it; and the names of checkpoints.

mod config_file;
mod continuation;
mod lineage;
mod name;
mod retention;
mod room;

pub use config_file::{read_config, read_config_file, shell_words, to_yaml, write_config};
pub use continuation::{Continuation, amend_config, read_lineage, write_run_config};
pub use lineage::{Branch, Lineage};
pub use name::{check_name, create_with_name, run_name};
pub use retention::superseded;
pub use room::{free_files, free_room};

use crate::config::{DatasetName, Objective, TransferMode};
use crate::durable;
use anyhow::{Context, Result, bail};
use chrono::NaiveDateTime;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The directory that holds all pre-training runs of one set-up.
pub fn pretrain_parent(results: &Path, dataset: DatasetName, batch_size: u32, objective: Objective) -> PathBuf {
    results.join(dataset.name()).join(format!("{batch_size}_{}", objective.directory_suffix()))
}

/// Whether a directory is that of a pre-training run.
pub fn is_run(directory: &Path) -> bool {
    read_config(directory).is_ok_and(|settings| settings.pointer("/job/pretrain").is_some())
}

/// The directory in that of a run that holds all evaluations of one of its checkpoints on a data set; `epoch` is as the
/// checkpoint's name has it.
pub fn evaluation_inside(run: &Path, dataset: DatasetName, epoch: u32, mode: TransferMode) -> PathBuf {
    run.join("evaluations").join(format!("{dataset}_{epoch}_{}", suffix(mode)))
}

fn suffix(mode: TransferMode) -> &'static str {
    match mode {
        TransferMode::LinearEval => "fc",
        TransferMode::Finetune => "ft",
    }
}

/// The directory that holds all evaluations of one checkpoint as upstream has it: `batch_size` and `epoch` are those of the
/// pre-training, `epoch` as the checkpoint's name has it.
pub fn evaluation_parent(
    results: &Path,
    dataset: DatasetName,
    objective: Objective,
    batch_size: u32,
    epoch: u32,
    mode: TransferMode,
) -> PathBuf {
    let name = format!("{batch_size}_{epoch}_{}", suffix(mode));
    results.join(dataset.name()).join(objective.name()).join(name)
}

/// Creates a directory of its own for a run that `started` now: the date, or the date with `-2`, `-3`, ...
/// where another run took the name first. Two runs never share one, however close they start.
///
/// # Errors
/// The directory or one above it cannot be created.
pub fn create(parent: &Path, started: NaiveDateTime) -> Result<PathBuf> {
    std::fs::create_dir_all(parent)
        .with_context(|| format!("cannot create {}; choose another place with --save-dir", parent.display()))?;
    create_named(parent, "", started, "; choose another place with --save-dir")
}

/// What the names of directories begin with that hold what a run has left behind.
pub const ABANDONED: &str = "abandoned-";

/// Creates a directory in that of a run, for what it leaves behind `now`.
///
/// # Errors
/// The directory cannot be created.
pub fn create_abandoned(directory: &Path, now: NaiveDateTime) -> Result<PathBuf> {
    create_named(directory, ABANDONED, now, "")
}

fn create_named(parent: &Path, prefix: &str, time: NaiveDateTime, advice: &str) -> Result<PathBuf> {
    let name = format!("{prefix}{}", time.format("%d-%m-%Y-%H-%M-%S"));
    for number in 1u64.. {
        let directory = parent.join(if number == 1 { name.clone() } else { format!("{name}-{number}") });
        // `create_dir` is the test and the claim in one.
        match std::fs::create_dir(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot create {}{advice}", directory.display()));
            }
        }
    }
    unreachable!("the numbers do not end")
}

/// Checks that files can be written into a directory, which may not be there yet; leaves nothing behind. A run
/// that is `continued` can have no other place.
///
/// # Errors
/// Nothing can be written there, or the directory cannot be created.
pub fn check_place(directory: &Path, continued: bool) -> Result<()> {
    let there = directory.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(Path::new("."));
    let probe = there.join(format!(".flatnce-{}", std::process::id()));
    let probed = match std::fs::create_dir(&probe) {
        // Of a process with the same number on another machine, or one that was killed: it could write here.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| std::fs::remove_dir(&probe)),
    };
    let what = if there == directory { "cannot write into" } else { "cannot create" };
    let advice = if continued { "make it writable" } else { "choose another place with --save-dir" };
    probed.with_context(|| format!("{what} {}; {advice}", directory.display()))
}

/// When within its epoch a checkpoint was written; earlier sorts first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckpointKind {
    /// In the middle of the epoch, so many steps after the start of the run: `checkpoint_0026_step_00001300.pth.tar`.
    Within { step: u64 },
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

    /// That of a checkpoint after `epochs` whole epochs and `batch` batches more, which are `step` steps; the last one of a
    /// complete run has the name that it would have in a longer run.
    pub fn at(epochs: u64, batch: u64, step: u64) -> Self {
        match epochs.checked_sub(1).filter(|_| batch == 0) {
            Some(last) => CheckpointName::finished(last as u32),
            None => CheckpointName { epoch: epochs as u32, kind: CheckpointKind::Within { step } },
        }
    }

    /// Reads a file name; `None` for one that is no checkpoint's (temporaries among them).
    pub fn parse(file_name: &str) -> Option<Self> {
        let stem = file_name.strip_prefix("checkpoint_")?.strip_suffix(".pth.tar")?;
        let number = |digits: &str, width: usize| -> Option<u64> {
            let plain = digits.len() >= width && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        };
        let (epoch, kind) = match stem.split_once("_step_") {
            Some((epoch, step)) => (epoch, CheckpointKind::Within { step: number(step, 8)? }),
            None => (stem, CheckpointKind::Finished),
        };
        Some(CheckpointName { epoch: u32::try_from(number(epoch, 4)?).ok()?, kind })
    }
}

impl std::fmt::Display for CheckpointName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            CheckpointKind::Within { step } => write!(f, "checkpoint_{:04}_step_{step:08}.pth.tar", self.epoch),
            CheckpointKind::Finished => write!(f, "checkpoint_{:04}.pth.tar", self.epoch),
        }
    }
}

/// Claims a run's directory for this process until the handle is dropped (or the process dies).
///
/// # Errors
/// Another process has it. A file system that knows no locks is no error.
pub fn claim(directory: &Path) -> Result<File> {
    let handle = File::open(directory).with_context(|| format!("cannot open {}", directory.display()))?;
    if let Err(TryLockError::WouldBlock) = handle.try_lock() {
        bail!(
            "another process is training in {}; wait for it, or stop it first: two of them would overwrite each \
             other's checkpoints",
            directory.display()
        );
    }
    Ok(handle)
}

/// Removes what a process that died left half-written. The directory must be claimed.
///
/// # Errors
/// The directory cannot be read. A file that cannot be removed is none.
pub fn remove_half_written(directory: &Path) -> Result<()> {
    for (name, path) in names(directory)? {
        if durable::target_of_temporary(&name).and_then(CheckpointName::parse).is_some() {
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(())
}

/// The checkpoints of a directory, oldest first, with their paths.
///
/// # Errors
/// The directory cannot be read.
pub fn list_checkpoints(directory: &Path) -> Result<Vec<(CheckpointName, PathBuf)>> {
    let named = |(name, path): (String, PathBuf)| Some((CheckpointName::parse(&name)?, path));
    let mut found: Vec<_> = names(directory)?.into_iter().filter_map(named).collect();
    found.sort();
    Ok(found)
}

/// Names and paths of what lies in a directory, as far as they are text.
fn names(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = std::fs::read_dir(directory).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = entries.with_context(|| format!("cannot list {}", directory.display()))?;
    Ok(entries.iter().filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect())
}
