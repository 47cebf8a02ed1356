//! What NVIDIA's driver says, asked of the driver itself (`libcuda.so.1`), which
//! needs no CUDA library: so a machine with a GPU and a CPU-only libtorch can be
//! told apart from one without a GPU.

use std::ffi::{CStr, c_char, c_int, c_void};

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
const CAPABILITY: [c_int; 2] = [75, 76];

/// A handle on a library, open for as long as the process runs.
pub(super) struct Library(*mut c_void);

impl Library {
    /// The driver's.
    pub fn open() -> Option<Library> {
        // SAFETY: the driver's initialisers start nothing before cuInit.
        unsafe { Library::named(c"libcuda.so.1") }
    }

    /// `None` where the loader does not find it.
    ///
    /// # Safety
    /// The library's initialisers do no harm.
    pub unsafe fn named(name: &CStr) -> Option<Library> {
        // SAFETY: the name is a C string; the caller vouches for the library.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
        (!handle.is_null()).then_some(Library(handle))
    }

    /// The address of a function of the library; `F` must be its type.
    ///
    /// # Safety
    /// `F` is a function pointer of the signature that the library documents for `name`.
    pub unsafe fn function<F: Copy>(&self, name: &CStr) -> Option<F> {
        // SAFETY: the handle is open and the name a C string.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        // SAFETY: a function's address, of the type that the caller vouches for.
        (!address.is_null()).then(|| unsafe { std::mem::transmute_copy(&address) })
    }
}

/// Asks the driver; `Ok(None)` where there is none.
///
/// Errors: the driver's number of the error, when it is there and does not start.
pub fn driver() -> Result<Option<Driver>, String> {
    type Init = unsafe extern "C" fn(u32) -> c_int;
    type Read = unsafe extern "C" fn(*mut c_int) -> c_int;
    type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
    type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
    type Attribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
    type Memory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
    let Some(library) = Library::open() else { return Ok(None) };
    let lacks = |name: &str| format!("libcuda.so.1 has no {name}: reinstall NVIDIA's driver");
    // SAFETY: the types are those of the driver API, stable since CUDA 3.2.
    let functions = unsafe {
        (
            library.function::<Init>(c"cuInit").ok_or_else(|| lacks("cuInit"))?,
            library.function::<Read>(c"cuDriverGetVersion").ok_or_else(|| lacks("cuDriverGetVersion"))?,
            library.function::<Read>(c"cuDeviceGetCount").ok_or_else(|| lacks("cuDeviceGetCount"))?,
            library.function::<Get>(c"cuDeviceGet").ok_or_else(|| lacks("cuDeviceGet"))?,
            library.function::<Name>(c"cuDeviceGetName").ok_or_else(|| lacks("cuDeviceGetName"))?,
            library.function::<Attribute>(c"cuDeviceGetAttribute").ok_or_else(|| lacks("cuDeviceGetAttribute"))?,
            library.function::<Memory>(c"cuDeviceTotalMem_v2").ok_or_else(|| lacks("cuDeviceTotalMem_v2"))?,
        )
    };
    let (init, version, count, get, name, attribute, memory) = functions;
    let checked = |what: &str, code: c_int| {
        if code == 0 { Ok(()) } else { Err(format!("NVIDIA's driver answers {what} with error {code}")) }
    };
    // SAFETY: every pointer is to a variable that outlives its call, of the type that the driver writes.
    unsafe {
        checked("cuInit", init(0))?;
        let (mut cuda, mut gpus) = (0, 0);
        checked("cuDriverGetVersion", version(&mut cuda))?;
        checked("cuDeviceGetCount", count(&mut gpus))?;
        let gpus = (0..gpus).map(|index| {
            let (mut device, mut capability, mut bytes) = (0, [0; 2], 0);
            let mut text = [0 as c_char; 256];
            checked("cuDeviceGet", get(&mut device, index))?;
            checked("cuDeviceGetName", name(text.as_mut_ptr(), text.len() as c_int - 1, device))?;
            for (number, which) in capability.iter_mut().zip(CAPABILITY) {
                checked("cuDeviceGetAttribute", attribute(number, which, device))?;
            }
            checked("cuDeviceTotalMem", memory(&mut bytes, device))?;
            let name = CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned();
            Ok(Gpu { name, capability: (capability[0], capability[1]), memory_bytes: bytes as u64 })
        });
        let gpus = gpus.collect::<Result<Vec<Gpu>, String>>()?;
        Ok(Some(Driver { cuda: (cuda / 1000, cuda % 1000 / 10), gpus }))
    }
}
