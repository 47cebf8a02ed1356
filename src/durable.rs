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
pub fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let temporary = temporary_beside(path);
    let attempt = || -> Result<()> {
        let mut file = BufWriter::new(File::create(&temporary)?);
        write(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
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
