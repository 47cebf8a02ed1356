//! The part of the program that uses CUDA: C++ against libtorch's CUDA half and
//! CUDA's runtime, compiled on machines without a GPU and carried inside the
//! program as one shared object (build.rs). It is opened only where libtorch's
//! CUDA libraries are loaded, so the program itself needs none of them.

mod graph;
pub mod kernels;
mod open;

pub use graph::{Graph, own_stream};

use super::driver::Library;
use super::{NativeError, outcome};
use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

/// The part as build.rs has made it, or why there is none.
#[cfg(flatnce_cuda_part)]
const INSIDE: Result<&[u8], &str> = Ok(include_bytes!(env!("FLATNCE_CUDA_PART")));
#[cfg(not(flatnce_cuda_part))]
const INSIDE: Result<&[u8], &str> =
    Err(concat!("this program was built without the CUDA part (", env!("FLATNCE_NO_CUDA_PART"), ")"));

/// The CUDA part, open for as long as the process runs.
#[derive(Debug)]
pub struct Part(Library);

/// Versions of what the part runs on, as NVIDIA numbers them: CUDA's are 1000 major + 10 minor; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Versions {
    /// The CUDA whose headers the part was compiled against.
    pub headers: i32,
    pub runtime: i32,
    /// The newest CUDA that the driver serves.
    pub driver: i32,
    pub nccl: i32,
    pub cudnn: i64,
}

/// Whether the part is in the program, loaded or not.
///
/// Errors: it is not, and why, in a sentence.
pub fn built() -> Result<(), &'static str> {
    INSIDE.map(|_| ())
}

/// The part, which the first call opens; to be called after libtorch's CUDA libraries have been loaded.
///
/// Errors, in a sentence: the program was built without it; the CUDA libraries are not loaded; the loader refuses it.
pub fn part() -> Result<&'static Part, &'static str> {
    static OPENED: OnceLock<Result<Part, String>> = OnceLock::new();
    let bytes = INSIDE?;
    // Not remembered: they may be loaded later.
    if !open::is_loaded(c"libtorch_cuda.so") {
        return Err("libtorch's CUDA libraries are not loaded");
    }
    OPENED.get_or_init(|| Part::open(bytes)).as_ref().map_err(String::as_str)
}

impl Part {
    fn open(bytes: &[u8]) -> Result<Part, String> {
        let handle = open::shared_object("flatnce_cuda_part", bytes)
            .map_err(|error| format!("the CUDA part cannot be loaded: {error}"))?;
        let part = Part(Library::of("the CUDA part", handle));
        // SAFETY: the type is that of part.cpp.
        let libtorch = unsafe { part.function::<unsafe extern "C" fn() -> *const c_char>(c"flatnce_part_libtorch") }?;
        // SAFETY: it answers with a constant string.
        let libtorch = unsafe { CStr::from_ptr(libtorch()) }.to_string_lossy();
        match super::version() {
            Some(loaded) if loaded != libtorch => Err(format!(
                "the CUDA part was compiled for libtorch {libtorch}, and libtorch {loaded} is loaded: build the program \
                 again with that libtorch (LIBTORCH=... ./scripts/setup.sh)"
            )),
            _ => Ok(part),
        }
    }

    /// One of the part's functions.
    ///
    /// Errors: the part has none of that name.
    ///
    /// # Safety
    /// `F` is a function pointer (`unsafe extern "C" fn(...) -> ...`) of the signature that the C++ gives to `name`.
    pub unsafe fn function<F: Copy>(&self, name: &CStr) -> Result<F, NativeError> {
        // SAFETY: the caller's promise.
        unsafe { self.0.function(name) }
    }

    /// What the part runs on. Starts no GPU.
    ///
    /// Errors: the words of the library that does not answer.
    pub fn versions(&self) -> Result<Versions, NativeError> {
        type Ask = unsafe extern "C" fn(*mut Versions) -> *mut c_char;
        let mut versions = Versions::default();
        // SAFETY: the type is that of part.cpp, and `versions` outlives the call.
        outcome(unsafe { self.function::<Ask>(c"flatnce_cuda_versions")?(&mut versions) })?;
        Ok(versions)
    }
}
