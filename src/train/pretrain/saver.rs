//! Writes checkpoints beside the training: the state is copied, the training
//! goes on, a thread writes the copy. One at a time: a save that comes before
//! the last one is done waits for it, so memory holds one copy at most.

use crate::checkpoint::{self, Checkpoint, Snapshot};
use crate::config::CheckpointPolicy;
use crate::run_dir::{self, CheckpointName};
use crate::threads;
use anyhow::{Context, Result, anyhow};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A checkpoint that has reached the disk.
#[derive(Debug)]
pub struct Written {
    pub path: PathBuf,
    pub bytes: u64,
    pub took: Duration,
}

/// The writer of one run's checkpoints. Dropping it waits for the file under way.
pub struct Saver {
    directory: PathBuf,
    policy: CheckpointPolicy,
    under_way: Option<JoinHandle<Result<Written>>>,
    /// Time that training has stood still for copies and for files that were not done yet.
    pub paused: Duration,
    /// Checkpoints begun.
    pub saves: u64,
}

impl Saver {
    pub fn new(directory: &Path, policy: CheckpointPolicy) -> Saver {
        Saver { directory: directory.to_owned(), policy, under_way: None, paused: Duration::ZERO, saves: 0 }
    }

    /// Copies the state and begins to write it. The answer is of the save before, if it was still under way.
    ///
    /// Errors: those of the save before; a state that cannot be copied.
    pub fn begin(&mut self, name: CheckpointName, checkpoint: &Checkpoint) -> Result<Option<Written>> {
        let before = self.finish()?;
        let start = Instant::now();
        let snapshot = checkpoint.snapshot()?;
        let (directory, policy) = (self.directory.clone(), self.policy);
        let write = move || write(&directory, name, &snapshot, policy);
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(write);
        self.under_way = Some(thread.with_context(|| threads::refused("the thread that writes checkpoints"))?);
        self.paused += start.elapsed();
        self.saves += 1;
        Ok(before)
    }

    /// What became of the save under way, if it is done by now; never waits.
    ///
    /// Errors: the checkpoint could not be written.
    pub fn poll(&mut self) -> Result<Option<Written>> {
        if self.under_way.as_ref().is_some_and(JoinHandle::is_finished) { self.finish() } else { Ok(None) }
    }

    /// Waits for the save under way, if there is one.
    ///
    /// Errors: the checkpoint could not be written.
    pub fn finish(&mut self) -> Result<Option<Written>> {
        let Some(thread) = self.under_way.take() else { return Ok(None) };
        let start = Instant::now();
        let outcome = thread.join().map_err(|_| anyhow!("the thread that writes checkpoints died"));
        self.paused += start.elapsed();
        outcome?.map(Some)
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        // The run has failed for another reason; a file half-way is still worth its end.
        if let Some(thread) = self.under_way.take() {
            let _ = thread.join();
        }
    }
}

fn write(directory: &Path, name: CheckpointName, snapshot: &Snapshot, policy: CheckpointPolicy) -> Result<Written> {
    let (start, path) = (Instant::now(), directory.join(name.to_string()));
    let bytes = snapshot.write(&path)?;
    remove_superseded(directory, name, policy)?;
    Ok(Written { path, bytes, took: start.elapsed() })
}

/// Removes what `newest` supersedes, after it has been read back and found whole.
///
/// Errors: it is damaged.
pub fn remove_superseded(directory: &Path, newest: CheckpointName, policy: CheckpointPolicy) -> Result<()> {
    let mut names: Vec<CheckpointName> =
        run_dir::list_checkpoints(directory)?.into_iter().map(|(name, _)| name).collect();
    // Whatever is later has come from elsewhere since the run began.
    names.retain(|name| *name <= newest);
    let superseded = run_dir::superseded(&names, policy.keep_last, policy.keep_every);
    if superseded.is_empty() {
        return Ok(());
    }
    checkpoint::verify(&directory.join(newest.to_string()))
        .context("the checkpoint just written is damaged; no older one was removed; look at the disk")?;
    for name in superseded {
        // One file too many harms nobody.
        let _ = std::fs::remove_file(directory.join(name.to_string()));
    }
    Ok(())
}
