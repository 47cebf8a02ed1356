//! Compiled kernels on a GPU, through NVIDIA's driver.

use super::{cache, nvrtc::Compiler, source};
use crate::native::NativeError;
use crate::native::driver::{CAPABILITY, Functions};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

pub use crate::native::driver::{ErrorText, GetContext, Launch, SetContext};

/// `CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN`.
const MOST_SHARED_BYTES: c_int = 97;
/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const MOST_DYNAMIC_BYTES: c_int = 8;
/// Two blocks of views at a time on a multiprocessor of an A100 or an H100, and one of any GPU since Turing.
const WANTED_SHARED_BYTES: c_int = 80 << 10;
/// The kernel that takes shared memory by its launch.
const SHARES: &str = "render_views";

/// What a thread needs before it launches anything.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Context {
    pub context: *mut c_void,
    pub get: GetContext,
    pub set: SetContext,
}

/// Kernels, and how they are launched.
pub struct Loaded {
    pub launch: Launch,
    pub error_text: ErrorText,
    /// `None` where there are no contexts: on the CPU.
    pub context: Option<Context>,
    /// Shared memory that a launch may ask for, in bytes.
    pub most_shared_bytes: u32,
    /// In the order of [`names`].
    pub functions: Vec<*mut c_void>,
}

/// [`Loaded`] as C++ has it.
#[repr(C)]
struct RawLoaded {
    launch: Launch,
    error_text: ErrorText,
    context: *const Context,
    most_shared_bytes: c_uint,
    functions: *const *mut c_void,
}

unsafe extern "C" {
    fn flatnce_kernel_count() -> usize;
    fn flatnce_kernel_name(kernel: usize) -> *const c_char;
    fn flatnce_kernels_load(loaded: *const RawLoaded);
}

/// The kernels that C++ launches, in its order.
pub fn names() -> Vec<CString> {
    // SAFETY: constant C strings, as many as are counted.
    unsafe {
        (0..flatnce_kernel_count()).map(|kernel| CStr::from_ptr(flatnce_kernel_name(kernel)).to_owned()).collect()
    }
}

impl Loaded {
    /// Gives them to C++, which copies them.
    pub(super) fn hand_over(&self) {
        assert_eq!(self.functions.len(), names().len(), "every kernel");
        let Loaded { launch, error_text, context, most_shared_bytes, functions } = self;
        let raw = RawLoaded {
            launch: *launch,
            error_text: *error_text,
            context: context.as_ref().map_or(std::ptr::null(), std::ptr::from_ref),
            most_shared_bytes: *most_shared_bytes,
            functions: functions.as_ptr(),
        };
        // SAFETY: as many functions as C++ counts.
        unsafe { flatnce_kernels_load(&raw) };
    }
}

/// The kernels of a cubin, in the current context.
fn kernels(driver: &Functions, cubin: &[u8], most_shared: c_int) -> Result<Vec<*mut c_void>, NativeError> {
    let mut module = std::ptr::null_mut();
    // SAFETY: a whole cubin, whose header says how long it is; the driver copies it.
    driver.checked("cuModuleLoadData", unsafe { (driver.load)(&mut module, cubin.as_ptr().cast()) })?;
    let mut functions = Vec::new();
    for name in names() {
        let mut function = std::ptr::null_mut();
        // SAFETY: a live module and a C string.
        let found = unsafe { (driver.function)(&mut function, module, name.as_ptr()) };
        driver.checked(&format!("cuModuleGetFunction({})", name.to_string_lossy()), found)?;
        if name.to_str() == Ok(SHARES) {
            // SAFETY: a live function.
            let set = unsafe { (driver.set)(function, MOST_DYNAMIC_BYTES, most_shared) };
            driver.checked("cuFuncSetAttribute", set)?;
        }
        functions.push(function);
    }
    Ok(functions)
}

/// The kernels on the CUDA device `index`: those kept from an earlier start, or compiled now.
///
/// Errors: no driver, no such device, no NVRTC, and whatever they say.
pub fn load(index: usize) -> Result<Loaded, String> {
    let driver = Functions::open()?.ok_or("NVIDIA's driver (libcuda.so.1) is not there")?;
    let number = c_int::try_from(index).map_err(|_| format!("there is no CUDA device {index}"))?;
    // SAFETY: it starts the driver.
    driver.checked("cuInit", unsafe { (driver.init)(0) })?;
    let [major, minor] = CAPABILITY;
    let (device, [major, minor, most_shared]) = driver.device(number, [major, minor, MOST_SHARED_BYTES])?;
    let most_shared = most_shared.min(WANTED_SHARED_BYTES);
    let cubin = compiled((major, minor))?;
    let mut context = std::ptr::null_mut();
    // SAFETY: the context that libtorch uses as well, for as long as the process runs; it is current on this thread only
    // in between.
    let functions = unsafe {
        driver.checked("cuDevicePrimaryCtxRetain", (driver.retain)(&mut context, device))?;
        driver.checked("cuCtxPushCurrent", (driver.push)(context))?;
        let functions = kernels(&driver, &cubin, most_shared);
        let mut popped = std::ptr::null_mut();
        driver.checked("cuCtxPopCurrent", (driver.pop)(&mut popped))?;
        functions?
    };
    Ok(Loaded {
        launch: driver.launch,
        error_text: driver.error_text,
        context: Some(Context { context, get: driver.get_context, set: driver.set_context }),
        most_shared_bytes: most_shared.unsigned_abs(),
        functions,
    })
}

/// The kernels for a compute capability. A cache that cannot be written only costs the next start its time.
fn compiled(capability: (i32, i32)) -> Result<Vec<u8>, String> {
    let compiler = Compiler::open()?;
    let source = source();
    let options = format!("{:?}", Compiler::options(capability));
    let name = cache::name(&source, &options, compiler.version());
    let directory = cache::directory();
    if let Some(kept) = directory.as_ref().and_then(|directory| cache::read(directory, &name)) {
        return Ok(kept);
    }
    let cubin = compiler.compile(&source, capability)?.cubin;
    if let Some(directory) = directory {
        let _ = cache::write(&directory, &name, &cubin);
    }
    Ok(cubin)
}
