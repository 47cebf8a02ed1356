//! Files that are finished or not there: temporary, fsync, rename, fsync of the directory. A file by itself
//! ([`replace`]), or several that belong together ([`Together`]).

use anyhow::{Context, Result, bail};
use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Replaces (or creates) `path` with what `write` writes. After a crash or an error the old content is
/// still there, whole. The temporary beside it has a name that nobody can guess and is locked as long as it is written;
/// what a process that was killed left there of the same file is removed. A device or a pipe is written as it is.
///
/// # Errors
/// The temporary cannot be written, synced or renamed: that names `path`. Any other error of `write`, as it is.
pub fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<Streaming>) -> Result<()>) -> Result<()> {
    let cannot = || cannot_write(path);
    if std::fs::metadata(path).is_ok_and(|about| !about.is_file() && !about.is_dir()) {
        return fill(OpenOptions::new().write(true).open(path).with_context(cannot)?, path, write).map(drop);
    }
    remove_left_overs(path);
    let (file, temporary) = fresh_beside(path).with_context(cannot)?;
    let attempt = || -> Result<()> {
        let file = fill(file, path, write)?;
        file.sync_all().and_then(|()| std::fs::rename(&temporary, path)).with_context(cannot)?;
        sync_directory(parent(path)).with_context(cannot)
    };
    let outcome = attempt();
    if outcome.is_err() {
        // Half a file helps nobody; the error that counts is the first one.
        let _ = std::fs::remove_file(&temporary);
    }
    outcome
}

/// Files that appear in a directory together or not at all, and take the place of those that were there before. The
/// directory is locked meanwhile.
pub struct Together {
    directory: PathBuf,
    /// Where the files grow, inside the directory.
    stage: PathBuf,
    names: Vec<String>,
    _lock: File,
}

/// Takes a directory for this process, until the handle is dropped or the process dies.
///
/// # Errors
/// Another process has it. A file system that knows no locks is no error.
pub fn lock(directory: &Path) -> Result<File> {
    let lock = File::open(directory).with_context(|| format!("cannot write into {}", directory.display()))?;
    if let Err(TryLockError::WouldBlock) = lock.try_lock() {
        bail!("another process is writing into {}; wait for it, or choose another directory", directory.display());
    }
    Ok(lock)
}

/// How the directories in which files grow begin.
const STAGE: &str = "unfinished";

impl Together {
    /// Makes the directory if it is not there, and takes it for this process.
    ///
    /// # Errors
    /// It cannot be made or written, or another process has it. A file system that knows no locks is no error.
    pub fn begin(directory: &Path) -> Result<Together> {
        let cannot = || format!("cannot write into {}", directory.display());
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let lock = lock(directory)?;
        let all = directory.join(STAGE);
        temporaries(&all).for_each(|left_over| {
            let _ = std::fs::remove_dir_all(left_over);
        });
        let stage = temporary_beside(&all);
        std::fs::create_dir(&stage).with_context(cannot)?;
        Ok(Together { directory: directory.to_path_buf(), stage, names: Vec::new(), _lock: lock })
    }

    /// Writes one of the files.
    ///
    /// # Errors
    /// As [`replace`].
    pub fn write(&mut self, name: &str, write: impl FnOnce(&mut BufWriter<Streaming>) -> Result<()>) -> Result<()> {
        let path = self.directory.join(name);
        let cannot = || cannot_write(&path);
        if path.is_dir() {
            bail!("{}: a directory is in its place", cannot());
        }
        let file = OpenOptions::new().write(true).create_new(true).open(self.stage.join(name)).with_context(cannot)?;
        fill(file, &path, write)?.sync_all().with_context(cannot)?;
        self.names.push(name.to_owned());
        Ok(())
    }

    /// Puts the files in their places, the one that was written last at the end: where it is, all are. Those of `set`,
    /// the names that such files can have, that were not written are removed.
    ///
    /// # Errors
    /// A file cannot be moved or removed.
    pub fn finish(self, set: &[&str]) -> Result<()> {
        let Some((last, others)) = self.names.split_last() else { return Ok(()) };
        let place = |name: &str| self.directory.join(name);
        let remove = |name: &str| match std::fs::remove_file(place(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| cannot_write(&place(name))),
            _ => Ok(()),
        };
        // From here until the last one is in its place, what is there says of itself that it is incomplete.
        remove(last)?;
        set.iter().filter(|name| !others.iter().any(|written| written == *name)).try_for_each(|name| remove(name))?;
        for name in others.iter().chain([last]) {
            std::fs::rename(self.stage.join(name), place(name)).with_context(|| cannot_write(&place(name)))?;
        }
        sync_directory(&self.directory).with_context(|| cannot_write(&self.directory))
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.stage);
    }
}

/// The file that a temporary of this program, or of an older version of it, was to become; `None` for other names.
pub fn target_of_temporary(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".tmp")?;
    match name.rsplit_once('.') {
        Some((target, token)) if is_token(token) => Some(target),
        _ => Some(name),
    }
}

/// Files beyond the limit of their size (`ulimit -f`) are errors like those of a full disk; the system would end the
/// program.
///
/// # Errors
/// The system refuses.
pub fn let_writes_fail() -> Result<()> {
    // SAFETY: a plain system call; no handler of ours is involved.
    if unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(std::io::Error::last_os_error()).context("SIGXFSZ cannot be ignored");
    }
    Ok(())
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// The directory that a file lies in.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Lets `write` fill `file`. An error of the file itself names `path`, whose content it is to be; one that has another
/// cause is left as it is, for it is not the file's fault.
fn fill(file: File, path: &Path, write: impl FnOnce(&mut BufWriter<Streaming>) -> Result<()>) -> Result<File> {
    let mut out = BufWriter::new(Streaming { file, written: 0, under_way: 0, failed: false });
    let filled = write(&mut out).and_then(|()| Ok(out.flush()?));
    let (stream, _) = out.into_parts();
    match filled {
        Err(error) if stream.failed => Err(error.context(cannot_write(path))),
        Err(error) => Err(error),
        Ok(()) => Ok(stream.file),
    }
}

/// A new file beside `path`, and its path. It is locked: that tells it from a left-over.
fn fresh_beside(path: &Path) -> std::io::Result<(File, PathBuf)> {
    loop {
        let temporary = temporary_beside(path);
        let made = OpenOptions::new().write(true).create_new(true).custom_flags(libc::O_NOFOLLOW).open(&temporary);
        let file = match made {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            made => made?,
        };
        // Before it was locked, another process may have taken it for a left-over.
        let taken = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        if !taken && file.metadata()?.nlink() > 0 {
            return Ok((file, temporary));
        }
    }
}

/// The whole name, 16 digits that cannot be guessed, and `.tmp`.
fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", token()));
    name.into()
}

/// 16 hexadecimal digits that nobody can guess, other ones every time.
pub fn token() -> String {
    // The keys of a hash table are random.
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

fn is_token(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What lies beside `path` under a name of [`temporary_beside`].
fn temporaries(path: &Path) -> impl Iterator<Item = PathBuf> {
    let name = path.file_name().unwrap_or_default().to_owned();
    let is_one = move |other: &std::ffi::OsStr| {
        let rest = other.as_encoded_bytes().strip_prefix(name.as_encoded_bytes());
        let token = rest.and_then(|rest| rest.strip_prefix(b".")?.strip_suffix(b".tmp"));
        token.is_some_and(|token| std::str::from_utf8(token).is_ok_and(is_token))
    };
    let entries = std::fs::read_dir(parent(path)).into_iter().flatten().flatten();
    entries.filter(move |entry| is_one(&entry.file_name())).map(|entry| entry.path())
}

/// Removes the temporaries of `path` that nobody writes any more.
fn remove_left_overs(path: &Path) {
    for left_over in temporaries(path) {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&left_over);
        if file.is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = std::fs::remove_file(left_over);
        }
    }
}

/// A file whose bytes are on their way to the disk while later ones are still being written, so that the sync at its
/// end finds little to wait for.
pub struct Streaming {
    file: File,
    written: u64,
    /// Bytes that the disk has been told to begin with.
    under_way: u64,
    /// Whether a write has failed.
    failed: bool,
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
        let count =
            self.file.write(bytes).inspect_err(|error| self.failed |= error.kind() != ErrorKind::Interrupted)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn count(directory: &Path) -> usize {
        std::fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn a_failure_leaves_the_old_content_and_no_temporary() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file.txt");
        replace(&path, |file| Ok(file.write_all(b"old")?)).unwrap();
        let error = replace(&path, |file| {
            file.write_all(b"half of the new")?;
            anyhow::bail!("out of numbers")
        });
        // It is not the file's fault.
        assert_eq!(format!("{:#}", error.unwrap_err()), "out of numbers");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        replace(&path, |file| Ok(file.write_all(b"new")?)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(count(directory.path()), 1);
        let error = replace(&directory.path().join("absent/file"), |_| Ok(())).unwrap_err();
        assert!(error.to_string().starts_with("cannot write ") && error.to_string().ends_with("absent/file"));
        let error = replace(Path::new("/dev/full"), |file| Ok(file.write_all(b"text")?)).unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot write /dev/full: No space left"), "{error:#}");
    }

    #[test]
    fn left_overs_go_and_what_another_writes_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.csv");
        let beside = |name: &str| directory.path().join(name);
        let victim = beside("victim");
        std::fs::write(&victim, "precious").unwrap();
        // Links under the old name and under a possible one are nobody's temporaries.
        for name in ["x.csv.tmp", "x.csv.0123456789abcdef.tmp"] {
            std::os::unix::fs::symlink(&victim, beside(name)).unwrap();
        }
        std::fs::write(beside("x.csv.00000000000000aa.tmp"), "of a process that was killed").unwrap();
        std::fs::write(beside("y.csv.00000000000000aa.tmp"), "of another file").unwrap();
        let (_alive, at_work) = fresh_beside(&path).unwrap();
        replace(&path, |file| Ok(file.write_all(b"new")?)).unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
        assert!(at_work.exists() && !beside("x.csv.00000000000000aa.tmp").exists());
        assert!(beside("y.csv.00000000000000aa.tmp").exists() && path.symlink_metadata().unwrap().is_file());
        assert_ne!(temporary_beside(&path), temporary_beside(&path));
        for (name, target) in [
            ("checkpoint_0001.pth.tar.0123456789abcdef.tmp", Some("checkpoint_0001.pth.tar")),
            ("checkpoint_0001.pth.tar.tmp", Some("checkpoint_0001.pth.tar")),
            ("checkpoint_0001.pth.tar", None),
        ] {
            assert_eq!(target_of_temporary(name), target);
        }
    }

    #[test]
    fn files_come_together_and_take_the_place_of_all_before() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("out");
        let set = ["data", "labels", "about"];
        let text = |text: &'static str| move |file: &mut BufWriter<Streaming>| Ok(file.write_all(text.as_bytes())?);
        let mut files = Together::begin(&directory).unwrap();
        set.iter().for_each(|name| files.write(name, text("old")).unwrap());
        let refused = Together::begin(&directory).err().unwrap().to_string();
        assert!(refused.contains("another process is writing into"), "{refused}");
        assert!(set.iter().all(|name| !directory.join(name).exists()));
        files.finish(&set).unwrap();
        // One that fails, and one that is killed, change nothing.
        std::fs::write(directory.join("other"), "of somebody else").unwrap();
        let mut files = Together::begin(&directory).unwrap();
        files.write("data", text("new")).unwrap();
        assert!(files.write("about", |_| anyhow::bail!("no")).is_err());
        std::mem::forget(std::mem::replace(&mut files.stage, PathBuf::new()));
        drop(files);
        assert_eq!(count(&directory), 5);
        assert!(set.iter().all(|name| std::fs::read(directory.join(name)).unwrap() == b"old"));
        let mut files = Together::begin(&directory).unwrap();
        ["data", "about"].iter().for_each(|name| files.write(name, text("new")).unwrap());
        files.finish(&set).unwrap();
        assert!(!directory.join("labels").exists() && directory.join("other").exists());
        assert_eq!((count(&directory), std::fs::read(directory.join("data")).unwrap()), (3, b"new".to_vec()));
    }
}
