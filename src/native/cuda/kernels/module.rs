//! Compiled kernels on a GPU, through NVIDIA's driver.

use super::{cache, nvrtc::Compiler, source};
use crate::native::driver::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`, `_MINOR`, `_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN`.
const ATTRIBUTES: [c_int; 3] = [75, 76, 97];
/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const MOST_DYNAMIC_BYTES: c_int = 8;
/// Two blocks of views at a time on a multiprocessor of an A100 or an H100, and one of any GPU since Turing.
const WANTED_SHARED_BYTES: c_int = 80 << 10;
/// The kernel that takes shared memory by its launch.
const SHARES: &str = "render_views";

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

/// The driver's functions.
struct Driver {
    init: unsafe extern "C" fn(c_uint) -> c_int,
    device: unsafe extern "C" fn(*mut c_int, c_int) -> c_int,
    attribute: unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int,
    retain: unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int,
    push: unsafe extern "C" fn(*mut c_void) -> c_int,
    pop: unsafe extern "C" fn(*mut *mut c_void) -> c_int,
    load: unsafe extern "C" fn(*mut *mut c_void, *const c_void) -> c_int,
    function: unsafe extern "C" fn(*mut *mut c_void, *mut c_void, *const c_char) -> c_int,
    set: unsafe extern "C" fn(*mut c_void, c_int, c_int) -> c_int,
    get_context: GetContext,
    set_context: SetContext,
    launch: Launch,
    error_text: ErrorText,
}

impl Driver {
    fn open() -> Result<Driver, String> {
        let library = Library::open().ok_or_else(|| "NVIDIA's driver (libcuda.so.1) is not there".to_owned())?;
        /// # Safety
        /// `F` is the type of the function.
        unsafe fn get<F: Copy>(library: &Library, name: &CStr) -> Result<F, String> {
            let lacks = || format!("libcuda.so.1 has no {}: reinstall NVIDIA's driver", name.to_string_lossy());
            // SAFETY: the caller's promise.
            unsafe { library.function(name) }.ok_or_else(lacks)
        }
        // SAFETY: the types are those of cuda.h, the same since CUDA 11; `_v2` where the plain name is an older form.
        unsafe {
            Ok(Driver {
                init: get(&library, c"cuInit")?,
                device: get(&library, c"cuDeviceGet")?,
                attribute: get(&library, c"cuDeviceGetAttribute")?,
                retain: get(&library, c"cuDevicePrimaryCtxRetain")?,
                push: get(&library, c"cuCtxPushCurrent_v2")?,
                pop: get(&library, c"cuCtxPopCurrent_v2")?,
                load: get(&library, c"cuModuleLoadData")?,
                function: get(&library, c"cuModuleGetFunction")?,
                set: get(&library, c"cuFuncSetAttribute")?,
                get_context: get(&library, c"cuCtxGetCurrent")?,
                set_context: get(&library, c"cuCtxSetCurrent")?,
                launch: get(&library, c"cuLaunchKernel")?,
                error_text: get(&library, c"cuGetErrorString")?,
            })
        }
    }

    fn checked(&self, what: &str, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        let mut text = std::ptr::null();
        // SAFETY: the driver writes a constant C string, or leaves null.
        let words = unsafe {
            (self.error_text)(code, &mut text);
            if text.is_null() { "unknown error".into() } else { CStr::from_ptr(text).to_string_lossy() }
        };
        Err(format!("NVIDIA's driver answers {what} with {words} ({code})"))
    }

    /// The context that libtorch uses as well, for as long as the process runs; and the device's [`ATTRIBUTES`].
    fn context(&self, index: usize) -> Result<(*mut c_void, [c_int; 3]), String> {
        let index = c_int::try_from(index).map_err(|_| format!("there is no CUDA device {index}"))?;
        let (mut device, mut context, mut attributes) = (0, std::ptr::null_mut(), [0; 3]);
        // SAFETY: every pointer is to a variable that outlives its call, of the type that the driver writes.
        unsafe {
            self.checked("cuInit", (self.init)(0))?;
            self.checked("cuDeviceGet", (self.device)(&mut device, index))?;
            for (number, which) in attributes.iter_mut().zip(ATTRIBUTES) {
                self.checked("cuDeviceGetAttribute", (self.attribute)(number, which, device))?;
            }
            self.checked("cuDevicePrimaryCtxRetain", (self.retain)(&mut context, device))?;
        }
        Ok((context, attributes))
    }

    /// The kernels of a cubin, in the current context.
    fn functions(&self, cubin: &[u8], most_shared: c_int) -> Result<Vec<*mut c_void>, String> {
        let mut module = std::ptr::null_mut();
        // SAFETY: a whole cubin, whose header says how long it is; the driver copies it.
        self.checked("cuModuleLoadData", unsafe { (self.load)(&mut module, cubin.as_ptr().cast()) })?;
        let mut functions = Vec::new();
        for name in names() {
            let mut function = std::ptr::null_mut();
            // SAFETY: a live module and a C string.
            let found = unsafe { (self.function)(&mut function, module, name.as_ptr()) };
            self.checked(&format!("cuModuleGetFunction({})", name.to_string_lossy()), found)?;
            if name.to_str() == Ok(SHARES) {
                // SAFETY: a live function.
                let set = unsafe { (self.set)(function, MOST_DYNAMIC_BYTES, most_shared) };
                self.checked("cuFuncSetAttribute", set)?;
            }
            functions.push(function);
        }
        Ok(functions)
    }
}

/// The kernels on the CUDA device `index`: those kept from an earlier start, or compiled now.
///
/// Errors: no driver, no such device, no NVRTC, and whatever they say.
pub fn load(index: usize) -> Result<Loaded, String> {
    let driver = Driver::open()?;
    let (context, [major, minor, most_shared]) = driver.context(index)?;
    let most_shared = most_shared.min(WANTED_SHARED_BYTES);
    let cubin = compiled((major, minor))?;
    // SAFETY: a live context, which is current on this thread only in between.
    let functions = unsafe {
        driver.checked("cuCtxPushCurrent", (driver.push)(context))?;
        let functions = driver.functions(&cubin, most_shared);
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
