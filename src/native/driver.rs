//! What NVIDIA's driver says, asked of the driver itself (`libcuda.so.1`), which
//! needs no CUDA library: so a machine with a GPU and a CPU-only libtorch can be
//! told apart from one without a GPU.

use super::NativeError;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

/// A GPU as its driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    pub memory_bytes: u64,
}

/// The driver and its devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// The newest CUDA that it serves, major and minor.
    pub cuda: (i32, i32),
    pub gpus: Vec<Gpu>,
}

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR`.
pub(super) const CAPABILITY: [c_int; 2] = [75, 76];

/// A library, open for as long as the process runs.
#[derive(Debug)]
pub(super) struct Library {
    /// What errors call it.
    name: &'static str,
    handle: *mut c_void,
}

// SAFETY: the handle is only given to dlsym, which any thread may call.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// One that is open.
    pub fn of(name: &'static str, handle: *mut c_void) -> Library {
        Library { name, handle }
    }

    /// `None` where the loader does not find the file, or the library that it knows by this name.
    ///
    /// # Safety
    /// The library's initialisers do no harm.
    pub unsafe fn named(name: &'static str, file: &CStr) -> Option<Library> {
        // SAFETY: a C string; the caller vouches for the library.
        let handle = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
        (!handle.is_null()).then_some(Library { name, handle })
    }

    /// One of its functions.
    ///
    /// Errors: it has none of that name.
    ///
    /// # Safety
    /// `F` is a function pointer (`unsafe extern "C" fn(...) -> ...`) of the signature that `name` has there.
    pub unsafe fn function<F: Copy>(&self, name: &CStr) -> Result<F, NativeError> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>(), "F is a function pointer") };
        // SAFETY: the handle is open and the name a C string.
        let address = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        if address.is_null() {
            let (library, name) = (self.name, name.to_string_lossy());
            return Err(NativeError(format!("{library} has no function {name}: install it again")));
        }
        // SAFETY: a function's address, of the type that the caller vouches for.
        Ok(unsafe { std::mem::transmute_copy(&address) })
    }
}

/// `cuLaunchKernel`.
pub type Launch = unsafe extern "C" fn(
    *mut c_void,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    *mut c_void,
    *mut *mut c_void,
    *mut *mut c_void,
) -> c_int;
/// `cuGetErrorString`.
pub type ErrorText = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;
/// `cuCtxGetCurrent`.
pub type GetContext = unsafe extern "C" fn(*mut *mut c_void) -> c_int;
/// `cuCtxSetCurrent`.
pub type SetContext = unsafe extern "C" fn(*mut c_void) -> c_int;

/// The driver's functions that are used.
pub(super) struct Functions {
    pub init: unsafe extern "C" fn(c_uint) -> c_int,
    pub version: unsafe extern "C" fn(*mut c_int) -> c_int,
    pub count: unsafe extern "C" fn(*mut c_int) -> c_int,
    pub device: unsafe extern "C" fn(*mut c_int, c_int) -> c_int,
    pub name: unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int,
    pub attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int,
    pub memory: unsafe extern "C" fn(*mut usize, c_int) -> c_int,
    pub retain: unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int,
    pub push: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub pop: unsafe extern "C" fn(*mut *mut c_void) -> c_int,
    pub load: unsafe extern "C" fn(*mut *mut c_void, *const c_void) -> c_int,
    pub function: unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *const c_char) -> c_int,
    pub set: unsafe extern "C" fn(*mut c_void, c_int, c_int) -> c_int,
    pub get_context: GetContext,
    pub set_context: SetContext,
    pub launch: Launch,
    pub error_text: ErrorText,
}

impl Functions {
    /// `None` where there is no driver.
    ///
    /// Errors: it lacks a function.
    pub fn open() -> Result<Option<Functions>, NativeError> {
        // SAFETY: the driver's initialisers start nothing before cuInit.
        let library = unsafe { Library::named("NVIDIA's driver (libcuda.so.1)", c"libcuda.so.1") };
        let Some(library) = library else { return Ok(None) };
        // SAFETY: the types are those of cuda.h, the same since CUDA 11; `_v2` where the plain name is an older form.
        unsafe {
            Ok(Some(Functions {
                init: library.function(c"cuInit")?,
                version: library.function(c"cuDriverGetVersion")?,
                count: library.function(c"cuDeviceGetCount")?,
                device: library.function(c"cuDeviceGet")?,
                name: library.function(c"cuDeviceGetName")?,
                attribute: library.function(c"cuDeviceGetAttribute")?,
                memory: library.function(c"cuDeviceTotalMem_v2")?,
                retain: library.function(c"cuDevicePrimaryCtxRetain")?,
                push: library.function(c"cuCtxPushCurrent_v2")?,
                pop: library.function(c"cuCtxPopCurrent_v2")?,
                load: library.function(c"cuModuleLoadData")?,
                function: library.function(c"cuModuleGetFunction")?,
                set: library.function(c"cuFuncSetAttribute")?,
                get_context: library.function(c"cuCtxGetCurrent")?,
                set_context: library.function(c"cuCtxSetCurrent")?,
                launch: library.function(c"cuLaunchKernel")?,
                error_text: library.function(c"cuGetErrorString")?,
            }))
        }
    }

    /// Errors: the driver's words for `code`, its answer to `what`.
    pub fn checked(&self, what: &str, code: c_int) -> Result<(), NativeError> {
        if code == 0 {
            return Ok(());
        }
        let mut text = std::ptr::null();
        // SAFETY: the driver writes a constant C string, or leaves null.
        let words = unsafe {
            (self.error_text)(code, &mut text);
            if text.is_null() { "unknown error".into() } else { CStr::from_ptr(text).to_string_lossy() }
        };
        Err(NativeError(format!("NVIDIA's driver answers {what} with {words} ({code})")))
    }

    /// A device, with attributes of it.
    ///
    /// Errors: there is no such device.
    pub fn device<const N: usize>(&self, index: c_int, which: [c_int; N]) -> Result<(c_int, [c_int; N]), NativeError> {
        let (mut device, mut attributes) = (0, [0; N]);
        // SAFETY: every pointer is to a variable that outlives its call, of the type that the driver writes.
        unsafe {
            self.checked("cuDeviceGet", (self.device)(&mut device, index))?;
            for (number, which) in attributes.iter_mut().zip(which) {
                self.checked("cuDeviceGetAttribute", (self.attribute)(number, which, device))?;
            }
        }
        Ok((device, attributes))
    }
}

/// Asks the driver; `Ok(None)` where there is none.
///
/// Errors: the driver's words, when it is there and does not start.
pub fn driver() -> Result<Option<Driver>, String> {
    let Some(functions) = Functions::open()? else { return Ok(None) };
    let (mut cuda, mut count) = (0, 0);
    // SAFETY: every pointer is to a variable that outlives its call, of the type that the driver writes.
    unsafe {
        functions.checked("cuInit", (functions.init)(0))?;
        functions.checked("cuDriverGetVersion", (functions.version)(&mut cuda))?;
        functions.checked("cuDeviceGetCount", (functions.count)(&mut count))?;
    }
    let gpus = (0..count).map(|index| {
        let (device, [major, minor]) = functions.device(index, CAPABILITY)?;
        let (mut text, mut memory) = ([0 as c_char; 256], 0);
        // SAFETY: as above; the last byte of the text stays 0.
        let name = unsafe {
            let longest = text.len() as c_int - 1;
            functions.checked("cuDeviceGetName", (functions.name)(text.as_mut_ptr(), longest, device))?;
            functions.checked("cuDeviceTotalMem", (functions.memory)(&mut memory, device))?;
            CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
        };
        Ok(Gpu { name, capability: (major, minor), memory_bytes: memory as u64 })
    });
    let gpus = gpus.collect::<Result<Vec<Gpu>, NativeError>>()?;
    Ok(Some(Driver { cuda: (cuda / 1000, cuda % 1000 / 10), gpus }))
}
