//! Why a file could not be written, where the system's own words do not lead on.

use crate::durable;
use crate::run_dir;
use crate::torch_file;
use std::io;
use std::path::Path;

/// An error of writing `path` with what to do about it, where the error itself does not say it; `bytes` is what the file
/// needs, where that can be told.
pub(super) fn explained(error: anyhow::Error, path: &Path, bytes: impl FnOnce() -> Option<u64>) -> anyhow::Error {
    match advice(&error, path, bytes) {
        Some(advice) => error.context(advice),
        None => error,
    }
}

fn advice(error: &anyhow::Error, path: &Path, bytes: impl FnOnce() -> Option<u64>) -> Option<String> {
    let code = error.chain().find_map(|cause| {
        let within = cause.downcast_ref::<torch_file::Error>().and_then(|error| error.source.as_ref());
        cause.downcast_ref::<io::Error>().or(within)?.raw_os_error()
    })?;
    let directory = durable::parent(path);
    match code {
        libc::ENOENT if !directory.exists() => Some(format!("the directory {} does not exist", directory.display())),
        libc::ENOSPC if run_dir::free_files(directory) == Some(0) => Some(format!(
            "the file system of {} has room for no more files, whatever their size; remove some (a training goes on with \
             --resume)",
            directory.display()
        )),
        libc::ENOSPC | libc::EDQUOT | libc::EFBIG => Some(format!(
            "the file needs {:.1} MiB at {}; make room and run it again (a training goes on with --resume)",
            bytes()? as f64 / 1048576.0,
            path.display()
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lack_of_room_asks_for_room() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        let said = |code: i32, path: &Path| {
            let error = anyhow::Error::new(io::Error::from_raw_os_error(code)).context("cannot write");
            advice(&error, path, || Some(3 << 20))
        };
        for code in [libc::ENOSPC, libc::EDQUOT, libc::EFBIG] {
            let text = said(code, &path).unwrap();
            assert!(text.contains("needs 3.0 MiB") && text.contains("make room"), "{text}");
        }
        for code in [libc::EMFILE, libc::EACCES, libc::EROFS, libc::EIO, libc::ENOENT] {
            assert_eq!(said(code, &path), None, "{code}");
        }
        let text = said(libc::ENOENT, &place.path().join("absent/file")).unwrap();
        assert!(text.ends_with("absent does not exist"), "{text}");
        assert_eq!(advice(&anyhow::anyhow!("no error of the system"), &path, || Some(1)), None);
    }
}
