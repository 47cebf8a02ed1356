//! A file that grows by whole records and never stops a run.
//!
//! A write that fails (disk full, quota, file server gone) is warned about
//! once. The file is cut back to its last whole record before the next
//! attempt, so what is in it can always be read.

use super::console::Console;
use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    good_bytes: u64,
    torn: bool,
    warned: bool,
}

impl LogFile {
    /// Opens `path` for appending, or creates it.
    ///
    /// # Errors
    /// The file cannot be opened: better known before the first epoch than after it.
    pub fn append(path: &Path) -> Result<Self> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open {} for writing", path.display()))?;
        let good_bytes =
            file.seek(SeekFrom::End(0)).with_context(|| format!("cannot find the end of {}", path.display()))?;
        Ok(LogFile { path: path.to_path_buf(), file, good_bytes, torn: false, warned: false })
    }

    /// Appends one record (or several whole ones). A failure loses them and warns once.
    pub fn write(&mut self, record: &[u8], console: &Console) {
        match self.try_write(record) {
            Ok(()) => self.good_bytes += record.len() as u64,
            Err(error) => {
                self.torn = true;
                if !self.warned {
                    self.warned = true;
                    console.warn(&format!(
                        "cannot write to {} ({error}); the run goes on, this file has gaps from here on",
                        self.path.display()
                    ));
                }
            }
        }
    }

    fn try_write(&mut self, record: &[u8]) -> std::io::Result<()> {
        if self.torn {
            self.file.set_len(self.good_bytes)?;
            self.file.seek(SeekFrom::Start(self.good_bytes))?;
            self.torn = false;
        }
        self.file.write_all(record)
    }
}

/// Replaces a file's content in one step: a crash leaves the old content or the new one.
///
/// # Errors
/// The file, or a temporary beside it, cannot be written.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        match path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
