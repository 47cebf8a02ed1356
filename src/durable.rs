//! Files that are finished or not there: temporary, fsync, rename, fsync of the directory.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Replaces (or creates) `path` with what `write` writes. After a crash or an error the old content is
/// still there, whole; the temporary beside it ends in `.tmp`.
///
/// # Errors
/// `write` fails, or the temporary cannot be written, synced or renamed.
pub fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<Streaming>) -> Result<()>) -> Result<()> {
    let temporary = temporary_beside(path);
    let attempt = || -> Result<()> {
        let mut file = BufWriter::new(Streaming { file: File::create(&temporary)?, written: 0, under_way: 0 });
        write(&mut file)?;
        file.flush()?;
        file.get_ref().file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()?;
        Ok(())
    };
    let outcome = attempt().with_context(|| format!("cannot write {}", path.display()));
    if outcome.is_err() {
        // Half a file helps nobody; the error that counts is the first one.
        let _ = std::fs::remove_file(&temporary);
    }
    outcome
}

/// A file whose bytes are on their way to the disk while later ones are still being written, so that the sync at its
/// end finds little to wait for.
pub struct Streaming {
    file: File,
    written: u64,
    /// Bytes that the disk has been told to begin with.
    under_way: u64,
}

/// Told to begin this often; less would be many small requests.
const STRETCH_BYTES: u64 = 8 << 20;

impl Streaming {
    /// The temporary itself, for what is to hold of the finished file, such as who may read it.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Write for Streaming {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.written += count as u64;
        if self.written - self.under_way >= STRETCH_BYTES {
            begin_writing(&self.file, self.under_way, self.written - self.under_way);
            self.under_way = self.written;
        }
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// A hint: where the system knows none, or refuses, the sync at the end does all of it.
fn begin_writing(file: &File, offset: u64, length: u64) {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        // SAFETY: plain numbers, and a descriptor that `file` keeps open.
        unsafe {
            libc::sync_file_range(file.as_raw_fd(), offset as i64, length as i64, libc::SYNC_FILE_RANGE_WRITE);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, length);
}

/// The whole name plus `.tmp`: `checkpoint_0001.pth.tar` and `checkpoint_0001.txt` do not share one.
fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_leaves_the_old_content_and_no_temporary() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file.txt");
        replace(&path, |file| Ok(file.write_all(b"old")?)).unwrap();
        let error = replace(&path, |file| {
            file.write_all(b"half of the new")?;
            anyhow::bail!("out of numbers")
        });
        assert!(format!("{:#}", error.unwrap_err()).contains("file.txt: out of numbers"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        replace(&path, |file| Ok(file.write_all(b"new")?)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(replace(&directory.path().join("absent/file"), |_| Ok(())).is_err());
    }
}
