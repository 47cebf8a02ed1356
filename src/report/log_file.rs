//! A file that grows by whole records and never stops a run.
//!
//! A write that fails (disk full, quota, file server gone) is warned about
//! once. The file is cut back to its last whole record before the next
//! attempt, so what is in it can always be read.

use super::console::Console;
use super::format::plain;
use crate::clock;
use crate::files;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    good_bytes: u64,
    torn: bool,
    warned: bool,
}

/// A file of a run; without a directory one that keeps nothing, because another process of the run's writes.
pub(super) fn file_in(directory: Option<&Path>, name: &str) -> PathBuf {
    directory.map_or_else(|| PathBuf::from("/dev/null"), |directory| directory.join(name))
}

impl LogFile {
    /// Opens `path` for appending, or creates it.
    ///
    /// # Errors
    /// The file cannot be opened: better known before the first epoch than after it.
    pub fn append(path: &Path) -> Result<Self> {
        let open = || -> std::io::Result<(File, u64)> {
            let file = files::append(path)?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        };
        let (file, good_bytes) = open().with_context(|| format!("cannot open {} for writing", path.display()))?;
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

    /// Appends `text`, each line behind the time and the level.
    pub fn stamped(&mut self, level: &str, text: &str, console: &Console) {
        let time = clock::now().format("%Y-%m-%dT%H:%M:%S%:z");
        for line in text.lines() {
            self.write(format!("{time} {level:<7} {}\n", plain(line)).as_bytes(), console);
        }
    }

    fn try_write(&mut self, record: &[u8]) -> std::io::Result<()> {
        if self.torn {
            self.file.set_len(self.good_bytes)?;
            self.torn = false;
        }
        self.file.write_all(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verbosity;

    #[test]
    fn half_a_record_is_cut_off_before_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("training.log");
        let console = Console::to_writers(Verbosity::Normal, std::io::sink(), std::io::sink());
        std::fs::write(&path, "old\n").unwrap();
        let mut file = LogFile::append(&path).unwrap();
        file.write(b"one\n", &console);
        // As a write does that runs out of space after three bytes.
        file.file.write_all(b"tw").unwrap();
        file.torn = true;
        file.write(b"three\n", &console);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old\none\nthree\n");
    }
}
