//! A shared object that lies in memory, opened as if it were a file.

use crate::native::loader_error;
use std::ffi::{CStr, CString, c_int, c_void};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Everything is bound now, so that a missing symbol is an error here and not the end of the process later.
const HOW: c_int = libc::RTLD_NOW | libc::RTLD_LOCAL;

/// Whether a library of this name is in the process.
pub(super) fn is_loaded(library: &CStr) -> bool {
    // SAFETY: the name is a C string; nothing is loaded.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if !handle.is_null() {
        // SAFETY: gives back the reference that dlopen counted; the library stays.
        unsafe { libc::dlclose(handle) };
    }
    !handle.is_null()
}

/// Opens the shared object from memory; where the system refuses that, from a temporary file, which is removed again.
///
/// Errors: the loader's words on both ways.
pub(super) fn shared_object(name: &str, bytes: &[u8]) -> Result<*mut c_void, String> {
    let memory = match from_memory(name, bytes) {
        Ok(handle) => return Ok(handle),
        Err(error) => error,
    };
    from_file(name, bytes).map_err(|file| match file == memory {
        true => file,
        false => format!("{memory}; from a temporary file: {file}"),
    })
}

fn from_memory(name: &str, bytes: &[u8]) -> Result<*mut c_void, String> {
    let name = CString::new(name).map_err(|error| error.to_string())?;
    // SAFETY: the name is a C string.
    let descriptor = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(format!("memfd_create: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: the descriptor is new and ours alone.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    file.write_all(bytes).map_err(|error| format!("a file in memory: {error}"))?;
    let handle = open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))?;
    // The loader knows an object by its path: while the descriptor is open, no other can get the same.
    let _ = file.into_raw_fd();
    Ok(handle)
}

fn from_file(name: &str, bytes: &[u8]) -> Result<*mut c_void, String> {
    let path = std::env::temp_dir().join(format!("{name}-{}.so", std::process::id()));
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    // A file of a process that was killed while it had our number.
    let _ = std::fs::remove_file(&path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path).map_err(told)?;
    let written = file.write_all(bytes).map_err(told);
    drop(file);
    let opened = written.and_then(|()| open(&path));
    let _ = std::fs::remove_file(&path);
    opened
}

/// Errors: the loader's words, without the path that they begin with.
fn open(path: &Path) -> Result<*mut c_void, String> {
    let c_path = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: the path is a C string, and the object's initialisers only set up what libtorch's headers declare.
    let handle = unsafe { libc::dlopen(c_path.as_ptr(), HOW) };
    if !handle.is_null() {
        return Ok(handle);
    }
    let text = loader_error();
    let path = format!("{}: ", path.display());
    Err(text.strip_prefix(&path).unwrap_or(&text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_behind(name: &str) -> bool {
        let entries = std::fs::read_dir(std::env::temp_dir()).unwrap();
        entries.into_iter().any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with(name))
    }

    #[test]
    fn an_object_in_memory_opens_both_ways() {
        // A library that every process has: its bytes as a second copy.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libm = maps.lines().find(|line| line.contains("/libm.so")).expect("the mathematics of C");
        let bytes = std::fs::read(&libm[libm.find('/').unwrap()..]).unwrap();
        let name = "flatnce_test_of_both_ways";
        for opened in [from_memory(name, &bytes), from_file(name, &bytes), shared_object(name, &bytes)] {
            // SAFETY: the handle is open; the address is the function of that name and type.
            let cosine = unsafe { libc::dlsym(opened.unwrap(), c"cos".as_ptr()) };
            assert!(!cosine.is_null());
            // SAFETY: as above.
            let cosine: extern "C" fn(f64) -> f64 = unsafe { std::mem::transmute(cosine) };
            assert_eq!(cosine(0.0), 1.0);
        }
        assert!(!left_behind(name));
        assert!(is_loaded(c"libtorch_cpu.so") && !is_loaded(c"libflatnce_nowhere.so"));
    }

    #[test]
    fn what_the_loader_refuses_is_told_once() {
        let name = "flatnce_test_of_refusal";
        let error = shared_object(name, &[b'x'; 4096]).unwrap_err();
        assert!(error.contains("ELF") && !error.contains("temporary") && !error.contains("/proc"), "{error}");
        assert!(!left_behind(name));
    }
}
