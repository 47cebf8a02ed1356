//! How much room a file system has.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that this user may still write below a directory, which need not be there yet; `None` where the system does not
/// tell. Quotas are not seen.
pub fn free_room(directory: &Path) -> Option<u64> {
    let told = file_system(directory)?;
    // Some file systems over a network know neither size nor room.
    (told.f_blocks > 0).then(|| told.f_bavail.saturating_mul(told.f_frsize))
}

/// Files that this user may still make below a directory; `None` where the file system does not count them.
pub fn free_files(directory: &Path) -> Option<u64> {
    file_system(directory).filter(|told| told.f_files > 0).map(|told| told.f_favail)
}

/// Of the directory, or the nearest one above that is there.
fn file_system(directory: &Path) -> Option<libc::statvfs> {
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    let path = CString::new(there.as_os_str().as_bytes()).ok()?;
    // SAFETY: all zeros is a valid `statvfs`.
    let mut told: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in a zero byte, and both outlive the call.
    (unsafe { libc::statvfs(path.as_ptr(), &mut told) } == 0).then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_yet_has_the_room_of_the_one_above() {
        let place = tempfile::tempdir().unwrap();
        let above = free_room(place.path()).unwrap();
        let below = free_room(&place.path().join("not/yet")).unwrap();
        // Others write there too.
        assert!(above > 0 && above.abs_diff(below) < above / 2 + (1 << 30));
        assert!(free_room(Path::new("not/yet")).is_some());
        assert_ne!(free_files(place.path()), Some(0), "the directory has just been made");
    }
}
