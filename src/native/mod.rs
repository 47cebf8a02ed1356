//! The part of libtorch that tch does not bind, through C++ of our own:
//! process-wide settings of its arithmetic, what it was built as, the memory of
//! CUDA devices (`libtorch.cpp`), and operations on lists of tensors
//! (`lists.cpp`). What needs CUDA itself is in [`cuda`].

mod caught;
pub mod cuda;
mod driver;
pub mod lists;

pub use caught::{caught, is_out_of_memory};
pub use driver::{Driver, Gpu, driver};

use std::ffi::{CStr, c_char, c_int};
use tch::TchError;
use thiserror::Error;

/// What libtorch said instead of doing it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct NativeError(String);

impl From<NativeError> for String {
    fn from(error: NativeError) -> String {
        error.0
    }
}

/// As tch's own errors are, so that [`caught`] knows them.
impl From<NativeError> for TchError {
    fn from(error: NativeError) -> TchError {
        TchError::Torch(error.0)
    }
}

/// Settings of the whole process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// float32 matrix products of CUDA may be rounded to TF32, 10 bits behind the point instead of 23.
    pub tf32_matmul: bool,
    /// The same of cuDNN's convolutions.
    pub tf32_convolution: bool,
    /// cuDNN tries its algorithms on the first batch and keeps the fastest.
    pub cudnn_benchmark: bool,
    /// Every operation gives the same bits each time; one that cannot is an error.
    pub deterministic: bool,
}

/// Bytes of a CUDA device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CudaMemory {
    /// In this process's tensors.
    pub allocated: u64,
    pub allocated_peak: u64,
    /// Taken from the driver by this process.
    pub reserved: u64,
    pub reserved_peak: u64,
    /// Of the device, by anybody.
    pub free: u64,
    pub total: u64,
}

unsafe extern "C" {
    fn flatnce_apply(wanted: *const Settings) -> *mut c_char;
    fn flatnce_settings(now: *mut Settings) -> *mut c_char;
    fn flatnce_build(text: *mut *mut c_char) -> *mut c_char;
    fn flatnce_cuda_forget_peak(device: c_int) -> *mut c_char;
    fn flatnce_cuda_memory(device: c_int, memory: *mut CudaMemory) -> *mut c_char;
}

/// Sets everything; before the first tensor on a device, because cuBLAS and cuDNN read it as they start.
///
/// Errors: libtorch's message.
pub fn apply(settings: Settings) -> Result<(), NativeError> {
    // SAFETY: `settings` outlives the call and has the layout that C++ reads.
    outcome(unsafe { flatnce_apply(&settings) })
}

/// What is set now.
///
/// Errors: libtorch's message.
pub fn settings() -> Result<Settings, NativeError> {
    let mut settings = Settings::default();
    // SAFETY: `settings` outlives the call and has the layout that C++ writes.
    outcome(unsafe { flatnce_settings(&mut settings) })?;
    Ok(settings)
}

/// libtorch's description of its own build: compilers, libraries, options. It asks itself about CUDA for it and
/// remembers the answer, so its CUDA libraries are loaded before, where they are to be used.
///
/// Errors: libtorch's message.
pub fn build() -> Result<String, NativeError> {
    let mut text = std::ptr::null_mut();
    // SAFETY: `text` outlives the call, which writes null's successor or fails.
    outcome(unsafe { flatnce_build(&mut text) })?;
    Ok(take(text))
}

/// The libtorch that the program is written for.
pub const LIBTORCH: &str = "2.11.0";

/// The version that the loaded libtorch says it has, such as `2.11.0`; `None` if it does not say. From [`build()`], so
/// the same holds about CUDA.
pub fn version() -> Option<String> {
    let build = build().ok()?;
    let after = build.split("TORCH_VERSION=").nth(1)?;
    Some(after.chars().take_while(|c| !c.is_whitespace() && *c != ',').collect())
}

/// Memory of the CUDA device `index`; starts CUDA there.
///
/// Errors: no CUDA library, no such device, and whatever the driver says.
pub fn cuda_memory(index: usize) -> Result<CudaMemory, NativeError> {
    let index = cuda_index(index)?;
    let mut memory = CudaMemory::default();
    // SAFETY: `memory` outlives the call and has the layout that C++ writes.
    outcome(unsafe { flatnce_cuda_memory(index, &mut memory) })?;
    Ok(memory)
}

/// Counts the peaks of a CUDA device's memory from what it holds now. The device is not asked.
///
/// Errors: libtorch's CUDA library is not loaded.
pub fn forget_cuda_peak(index: usize) -> Result<(), NativeError> {
    let index = cuda_index(index)?;
    // SAFETY: a number.
    outcome(unsafe { flatnce_cuda_forget_peak(index) })
}

/// Errors: a number that no device has.
fn cuda_index(index: usize) -> Result<c_int, NativeError> {
    c_int::try_from(index).map_err(|_| NativeError(format!("there is no CUDA device {index}")))
}

/// Why the calling thread's last dlopen failed, in the loader's words.
pub fn loader_error() -> String {
    // SAFETY: dlerror returns null or a C string that lives until the thread's next dl* call.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() { "unknown reason".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}

/// Null is success, anything else a message.
fn outcome(message: *mut c_char) -> Result<(), NativeError> {
    if message.is_null() { Ok(()) } else { Err(NativeError(take(message))) }
}

/// A C string of C++'s as ours; its memory is freed.
fn take(text: *mut c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: `text` came from strdup, is used by nobody else and not again after this.
    unsafe {
        let owned = CStr::from_ptr(text).to_string_lossy().into_owned();
        libc::free(text.cast());
        owned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_back() {
        let before = settings().unwrap();
        for (tf32, deterministic) in [(true, false), (false, true), (false, false)] {
            let wanted =
                Settings { tf32_matmul: tf32, tf32_convolution: tf32, cudnn_benchmark: !deterministic, deterministic };
            apply(wanted).unwrap();
            assert_eq!(settings().unwrap(), wanted);
        }
        apply(before).unwrap();
    }

    #[test]
    fn the_library_says_which_version_it_is() {
        assert_eq!(version().as_deref(), Some("2.11.0"));
        assert!(build().unwrap().contains("PyTorch built with"));
    }

    #[test]
    fn an_exception_becomes_an_error() {
        if !tch::Cuda::is_available() {
            let error = cuda_memory(0).unwrap_err().to_string();
            assert!(error.contains("CUDA"), "{error}");
        }
        assert!(cuda_memory(usize::MAX).is_err());
    }
}
