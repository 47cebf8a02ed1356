//! The kernels compiled for the CPU, in place of a GPU's.

use super::support;
use flatnce::native::cuda::kernels::module::{ErrorText, Launch, Loaded, names};
use flatnce::native::cuda::kernels::{cache, disable, enable, enable_loaded, source};
use std::ffi::{CStr, CString, c_char, c_int, c_longlong, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tch::Device;

/// The roundings of a GPU, and a trap at every index, alignment or shift that is none.
const COMPILER: &str = "-std=c++20 -O2 -fPIC -shared -w -ffp-contract=off -fno-strict-aliasing -fwrapv \
                        -fsanitize=bounds,alignment,shift -fsanitize-undefined-trap-on-error";
/// Shared memory that a block of the emulation may ask for.
const MOST_SHARED_BYTES: u32 = 80 << 10;

/// Which kernels are in use holds for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

struct Library {
    launch: Launch,
    error_text: ErrorText,
    kernel: unsafe extern "C" fn(*const c_char) -> *mut c_void,
    schedule: unsafe extern "C" fn(c_int, *const c_char, c_longlong),
    barriers: unsafe extern "C" fn() -> c_longlong,
}

/// While it lives, tensors of the CPU go through the kernels; one test at a time.
pub struct Emulation {
    library: &'static Library,
    _alone: MutexGuard<'static, ()>,
}

/// The same with the first GPU's own kernels.
pub struct Gpu {
    _alone: MutexGuard<'static, ()>,
}

impl Drop for Gpu {
    fn drop(&mut self) {
        disable();
    }
}

impl Gpu {
    /// `None` where there is none, which is said past the harness.
    pub fn start() -> Option<Gpu> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(obstacle) = flatnce::device::cuda_obstacle() {
            support::absent(&obstacle);
            return None;
        }
        enable(Device::Cuda(0)).expect("a GPU that libtorch can use runs the kernels");
        Some(Gpu { _alone: alone })
    }
}

impl Drop for Emulation {
    fn drop(&mut self) {
        self.order(0);
        disable();
    }
}

impl Emulation {
    pub fn start() -> Emulation {
        Self::with_shared_bytes(MOST_SHARED_BYTES)
    }

    /// On a GPU whose blocks have so much shared memory.
    pub fn with_shared_bytes(most_shared_bytes: u32) -> Emulation {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let library = library();
        let function = |name: &CString| {
            // SAFETY: a C string.
            let kernel = unsafe { (library.kernel)(name.as_ptr()) };
            assert!(!kernel.is_null(), "{name:?} is launched, and no source has it");
            kernel
        };
        let Library { launch, error_text, .. } = *library;
        let functions = names().iter().map(function).collect();
        // SAFETY: functions of a library that stays, which work on the CPU's memory.
        unsafe {
            enable_loaded(&Loaded { launch, error_text, context: None, most_shared_bytes, functions }, Device::Cpu)
        };
        Emulation { library, _alone: alone }
    }

    /// The order of threads and blocks between barriers: 0 ascending, 1 descending, from 2 shuffled.
    pub fn order(&self, order: i32) {
        self.leave_out(order, c"", -1);
    }

    /// And a barrier of every block of a kernel that is left out; -1 for none.
    pub fn leave_out(&self, order: i32, kernel: &CStr, barrier: i64) {
        // SAFETY: two numbers and a C string, which is copied.
        unsafe { (self.library.schedule)(order, kernel.as_ptr(), barrier) }
    }

    /// The most barriers that a block of its kernel has passed since [`Emulation::leave_out`].
    pub fn barriers(&self) -> i64 {
        // SAFETY: it takes nothing.
        unsafe { (self.library.barriers)() }
    }
}

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let name = CString::new(compiled().into_os_string().into_encoded_bytes()).expect("no zero byte");
        // SAFETY: the library that was just compiled; its initialisers fill a table.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        // SAFETY: dlerror gives a C string after a failure.
        assert!(!handle.is_null(), "{:?}", unsafe { CStr::from_ptr(libc::dlerror()) });
        /// # Safety
        /// `F` is the type of the function.
        unsafe fn get<F: Copy>(handle: *mut c_void, name: &CStr) -> F {
            // SAFETY: a live handle and a C string.
            let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
            assert!(!address.is_null(), "{name:?}");
            // SAFETY: the caller's promise.
            unsafe { std::mem::transmute_copy(&address) }
        }
        // SAFETY: the types are those of emulation.cpp.
        unsafe {
            Library {
                launch: get(handle, c"emulated_launch"),
                error_text: get(handle, c"emulated_error"),
                kernel: get(handle, c"emulated_kernel"),
                schedule: get(handle, c"emulated_schedule"),
                barriers: get(handle, c"emulated_barriers"),
            }
        }
    })
}

/// The library's file, compiled unless these very sources have been.
fn compiled() -> PathBuf {
    let emulation = include_str!("emulation.cpp");
    let name = cache::name(&(source() + emulation), COMPILER, (0, 0));
    // Not there where the tests run that were built elsewhere.
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let kept = if kept.is_dir() { kept.to_owned() } else { std::env::temp_dir() };
    let object = kept.join(&name);
    if !object.exists() {
        let place = tempfile::tempdir_in(&kept).expect("a directory");
        let [main, kernels, made] = ["emulation.cpp", "kernels.cu", "kernels.so"].map(|name| place.path().join(name));
        std::fs::write(&main, emulation).expect("written");
        std::fs::write(&kernels, source()).expect("written");
        let mut compiler = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()));
        let output = compiler.args(COMPILER.split(' ')).arg(&main).arg("-o").arg(&made).output();
        let output = output.expect("a C++ compiler, as for building");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(&made, &object).expect("ours");
    }
    object
}
