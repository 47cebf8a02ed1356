//! Compiled kernels in the user's cache directory: the second start does not compile.

use crate::digest::hex;
use crate::files;
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};

/// Of one kernel; ours have some tens of thousands.
const LARGEST_BYTES: u64 = 64 << 20;

/// `flatnce/kernels` in `XDG_CACHE_HOME` or `~/.cache`; `None` without either.
pub fn directory() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    cache.map(|cache| cache.join("flatnce/kernels"))
}

/// The file's name for everything that a result depends on.
pub fn name(source: &str, options: &str, compiler: (i32, i32)) -> String {
    let mut hash = Sha256::new();
    for part in [source, options, &format!("{compiler:?}")] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..16]) + ".cubin"
}

/// What is kept under a name, if it is whole.
pub fn read(directory: &Path, name: &str) -> Option<Vec<u8>> {
    let kept = files::read(&directory.join(name), LARGEST_BYTES).ok()?;
    let (digest, cubin) = kept.split_at_checked(32)?;
    (Sha256::digest(cubin).as_slice() == digest).then(|| cubin.to_owned())
}

/// Keeps it, whole or not at all; several processes may do so at a time.
///
/// Errors: the directory cannot be made or written.
pub fn write(directory: &Path, name: &str, cubin: &[u8]) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let unfinished = directory.join(format!("{name}.{}", std::process::id()));
    let kept = [Sha256::digest(cubin).as_slice(), cubin].concat();
    let written = std::fs::write(&unfinished, kept).and_then(|()| std::fs::rename(&unfinished, directory.join(name)));
    if written.is_err() {
        let _ = std::fs::remove_file(&unfinished);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_whole_is_found_again() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("not/there/yet");
        assert_eq!(read(&directory, "a.cubin"), None);
        write(&directory, "a.cubin", b"machine code").unwrap();
        assert_eq!(read(&directory, "a.cubin").as_deref(), Some(&b"machine code"[..]));
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "nothing unfinished is left");
        let file = directory.join("a.cubin");
        let whole = std::fs::read(&file).unwrap();
        for length in [0, 31, 32, whole.len() - 1] {
            std::fs::write(&file, &whole[..length]).unwrap();
            assert_eq!(read(&directory, "a.cubin"), None, "{length} bytes");
        }
    }

    #[test]
    fn whatever_a_result_depends_on_changes_the_name() {
        let names = [
            name("source", "-O3", (13, 0)),
            name("source ", "-O3", (13, 0)),
            name("source", " -O3", (13, 0)),
            name("source", "-O3", (13, 1)),
        ];
        let different: std::collections::HashSet<&String> = names.iter().collect();
        assert_eq!((different.len(), names[0].len()), (4, 38));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(write(&file, "a.cubin", b"code").is_err());
    }
}
