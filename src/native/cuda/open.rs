//! A shared object that lies in memory, opened as if it were a file.

use std::ffi::{CStr, CString, c_int, c_void};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;

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
    open(&format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn from_file(name: &str, bytes: &[u8]) -> Result<*mut c_void, String> {
    let path = std::env::temp_dir().join(format!("{name}-{}.so", std::process::id()));
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    // A file of a process that was killed while it had our number.
    let _ = std::fs::remove_file(&path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path).map_err(told)?;
    let written = file.write_all(bytes).map_err(told);
    drop(file);
    let opened = written.and_then(|()| open(&String::from_utf8_lossy(&path.clone().into_os_string().into_vec())));
    let _ = std::fs::remove_file(&path);
    opened
}

/// Errors: the loader's words, without the path that they begin with.
fn open(path: &str) -> Result<*mut c_void, String> {
    let c_path = CString::new(path).map_err(|error| error.to_string())?;
    // SAFETY: the path is a C string, and the object's initialisers only set up what libtorch's headers declare.
    let handle = unsafe { libc::dlopen(c_path.as_ptr(), HOW) };
    if !handle.is_null() {
        return Ok(handle);
    }
    // SAFETY: dlerror returns null or a C string that lives until the thread's next dl* call.
    let text = unsafe {
        let text = libc::dlerror();
        if text.is_null() { "unknown reason".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    };
    Err(text.strip_prefix(path).and_then(|rest| rest.strip_prefix(": ")).map_or(text.clone(), str::to_owned))
}
