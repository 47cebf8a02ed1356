//! Opening files that others may have put there.
//!
//! A FIFO keeps whoever opens it waiting, a device may never end, and a file with
//! holes claims more than any disk holds. Whatever the program reads comes through
//! here: regular files alone, and no more of them than their kind can have.

use std::fs::{File, FileType, OpenOptions};
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Most bytes of a text that people write: settings, results.
pub const SETTINGS_BYTES: u64 = 1 << 20;
/// Most bytes of a list of files or of results over epochs.
pub const LIST_BYTES: u64 = 256 << 20;
/// Most bytes of one line of a log.
pub const LINE_BYTES: u64 = 1 << 20;

/// Opens a regular file, or a link to one, for reading.
///
/// # Errors
/// What the system says; anything but a regular file, by its kind.
pub fn open(path: &Path) -> Result<File> {
    open_as(path, OpenOptions::new().read(true), |kind| kind.is_file())
}

/// Opens a log for writing at its end; it is created where it is not there. A device is let through: what goes to
/// `/dev/null` is to go nowhere.
///
/// # Errors
/// As [`open`].
pub fn append(path: &Path) -> Result<File> {
    open_as(path, OpenOptions::new().create(true).append(true), |kind| kind.is_file() || kind.is_char_device())
}

fn open_as(path: &Path, options: &mut OpenOptions, wanted: fn(FileType) -> bool) -> Result<File> {
    let check = |kind: FileType| if wanted(kind) { Ok(()) } else { Err(not_regular(kind)) };
    // Some devices act on being opened.
    if let Ok(about) = std::fs::metadata(path) {
        check(about.file_type())?;
    }
    // It may be another one by now: without waiting for the other end of a FIFO.
    let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
    check(file.metadata()?.file_type())?;
    Ok(file)
}

fn not_regular(kind: FileType) -> Error {
    let name = match kind {
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a FIFO (named pipe)",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "no file",
    };
    Error::new(ErrorKind::InvalidInput, format!("it is {name}; a regular file is needed"))
}

/// Reads a whole regular file of at most `most` bytes.
///
/// # Errors
/// As [`open`]; a longer file, before anything of it is read.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    check_length(length, most)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX))?;
    // It may grow, and files of /proc say that they are empty.
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    check_length(bytes.len() as u64, most)?;
    Ok(bytes)
}

/// The first `bytes` bytes of a regular file of at most `most` bytes; fewer where it is shorter.
///
/// # Errors
/// As [`read`].
pub fn beginning(path: &Path, bytes: usize, most: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    check_length(length, most)?;
    let mut beginning = vec![0; bytes.min(usize::try_from(length).unwrap_or(usize::MAX))];
    let mut filled = 0;
    while let Some(rest) = beginning.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64)? {
            0 => break,
            more => filled += more,
        }
    }
    beginning.truncate(filled);
    Ok(beginning)
}

/// Refuses a length above `most` bytes.
///
/// # Errors
/// Both numbers.
pub fn check_length(length: u64, most: u64) -> Result<()> {
    if length <= most {
        return Ok(());
    }
    let found =
        format!("it has {length} bytes, and no file of this kind has more than {most}: it is damaged or another one");
    Err(Error::new(ErrorKind::FileTooLarge, found))
}

/// [`read`], as UTF-8.
///
/// # Errors
/// As [`read`]; bytes that are no text.
pub fn read_text(path: &Path, most: u64) -> Result<String> {
    let bytes = read(path, most)?;
    String::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::InvalidData, "it is no text (UTF-8)"))
}

/// The whole lines of a file, however long the file is.
pub struct Lines(BufReader<File>);

impl Lines {
    /// # Errors
    /// As [`open`].
    pub fn of(path: &Path) -> Result<Lines> {
        Ok(Lines(BufReader::new(open(path)?)))
    }

    /// Reads the next line with its line break into `line`; false at the end. A last line that is torn comes without.
    ///
    /// # Errors
    /// What the system says; a line of more than [`LINE_BYTES`].
    pub fn next(&mut self, line: &mut Vec<u8>) -> Result<bool> {
        line.clear();
        (&mut self.0).take(LINE_BYTES + 1).read_until(b'\n', line)?;
        if line.len() as u64 > LINE_BYTES {
            let what = format!("a line has more than {LINE_BYTES} bytes: the file is damaged or another one");
            return Err(Error::new(ErrorKind::FileTooLarge, what));
        }
        Ok(!line.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn only_regular_files_are_opened_and_nothing_is_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let fifo = place.path().join("fifo");
        let name = std::ffi::CString::new(fifo.as_os_str().as_bytes()).unwrap();
        // SAFETY: a string that ends in zero.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let zeros = place.path().join("zeros");
        std::os::unix::fs::symlink("/dev/zero", &zeros).unwrap();
        for (path, kind) in [(fifo.as_path(), "FIFO"), (&zeros, "device"), (place.path(), "directory")] {
            for error in [open(path).unwrap_err(), read(path, 9).unwrap_err()] {
                assert!(error.to_string().contains(kind), "{error}");
            }
            assert_eq!(append(path).is_ok(), path == zeros, "{kind}");
        }
        assert_eq!(open(&place.path().join("absent")).unwrap_err().kind(), ErrorKind::NotFound);
        // /proc knows no lengths.
        assert!(read_text(Path::new("/proc/self/status"), SETTINGS_BYTES).unwrap().starts_with("Name:"));
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        std::fs::write(&path, b"0123456789").unwrap();
        assert_eq!(read(&path, 10).unwrap(), b"0123456789");
        let error = read(&path, 9).unwrap_err().to_string();
        assert!(error.contains("10 bytes") && error.contains("more than 9"), "{error}");
        std::fs::write(&path, b"\xff").unwrap();
        assert!(read_text(&path, 10).unwrap_err().to_string().contains("no text"));
        // A hole of a terabyte is no line.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(read(&path, LIST_BYTES).is_err());
        let error = Lines::of(&path).unwrap().next(&mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("a line has more than"), "{error}");
        std::fs::write(&path, b"one\ntorn").unwrap();
        let (mut lines, mut line) = (Lines::of(&path).unwrap(), Vec::new());
        assert!(lines.next(&mut line).unwrap() && line == b"one\n");
        assert!(lines.next(&mut line).unwrap() && line == b"torn");
        assert!(!lines.next(&mut line).unwrap());
    }
}
