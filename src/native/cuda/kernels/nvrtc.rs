//! NVIDIA's compiler as a library (`libnvrtc.so`), opened at run time.

use crate::native::driver::Library;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

/// Its names by CUDA's major version, the one that libtorch is built with first.
const NAMES: [&CStr; 2] = [c"libnvrtc.so.13", c"libnvrtc.so.12"];
/// What errors call it.
const LIBRARY: &str = "NVRTC (libnvrtc.so)";
/// A product and a sum stay two roundings, as on the CPU.
const OPTIONS: [&CStr; 3] = [c"--std=c++17", c"--fmad=false", c"--ptxas-options=-v"];

type Program = *mut c_void;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type Text = unsafe extern "C" fn(Program, *mut c_char) -> c_int;

/// The library and its functions.
pub struct Compiler {
    version: (i32, i32),
    create: Create,
    compile: Compile,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    log: (Size, Text),
    cubin: (Size, Text),
    error_text: unsafe extern "C" fn(c_int) -> *const c_char,
}

/// What comes out.
pub struct Compiled {
    /// Machine code for one kind of GPU, an ELF file.
    pub cubin: Vec<u8>,
    /// What the compiler says of it: registers, shared memory and spills of each kernel.
    pub log: String,
}

impl Compiler {
    /// Looks for it where the loader does, and beside libtorch's CUDA libraries.
    ///
    /// Errors: where it was looked for; a library that lacks a function.
    pub fn open() -> Result<Compiler, String> {
        let directories = cuda_directories();
        // SAFETY: NVRTC's initialisers only set up its own tables.
        let plain = NAMES.iter().find_map(|name| unsafe { Library::named(LIBRARY, name) });
        let found = plain.or_else(|| directories.iter().find_map(|directory| library_in(directory)));
        let Some(library) = found else {
            let looked: Vec<String> = directories.iter().map(|directory| directory.display().to_string()).collect();
            return Err(format!(
                "libnvrtc.so.13 is neither where the loader looks nor in {}; put its directory into LD_LIBRARY_PATH",
                looked.join(", ")
            ));
        };
        Compiler::of(&library)
    }

    /// The one in a directory.
    ///
    /// Errors: there is none, or it lacks a function.
    pub fn open_in(directory: &Path) -> Result<Compiler, String> {
        let library = library_in(directory).ok_or_else(|| format!("no libnvrtc.so.13 in {}", directory.display()))?;
        Compiler::of(&library)
    }

    fn of(library: &Library) -> Result<Compiler, String> {
        // SAFETY: the types are those of nvrtc.h, the same since CUDA 11.
        let compiler = unsafe {
            let version_of: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int =
                library.function(c"nvrtcVersion")?;
            let mut version = (0, 0);
            version_of(&mut version.0, &mut version.1);
            Compiler {
                version,
                create: library.function(c"nvrtcCreateProgram")?,
                compile: library.function(c"nvrtcCompileProgram")?,
                destroy: library.function(c"nvrtcDestroyProgram")?,
                log: (library.function(c"nvrtcGetProgramLogSize")?, library.function(c"nvrtcGetProgramLog")?),
                cubin: (library.function(c"nvrtcGetCUBINSize")?, library.function(c"nvrtcGetCUBIN")?),
                error_text: library.function(c"nvrtcGetErrorString")?,
            }
        };
        compiler.open_builtins();
        Ok(compiler)
    }

    /// NVRTC opens a second library by its bare name, which the loader finds only if it is open already. Where this one
    /// does not find it either, NVRTC says so.
    fn open_builtins(&self) {
        let Some(directory) = self.directory() else { return };
        let file = directory.join(format!("libnvrtc-builtins.so.{}.{}", self.version.0, self.version.1));
        if let Ok(name) = CString::new(file.into_os_string().into_encoded_bytes()) {
            // SAFETY: a table of functions without initialisers.
            let _ = unsafe { Library::named(LIBRARY, &name) };
        }
    }

    /// Where the library lies.
    fn directory(&self) -> Option<PathBuf> {
        // SAFETY: all zeros is a valid Dl_info, and dladdr fills it from a function's address.
        let file = unsafe {
            let mut info: libc::Dl_info = std::mem::zeroed();
            if libc::dladdr(self.create as *const c_void, &mut info) == 0 || info.dli_fname.is_null() {
                return None;
            }
            CStr::from_ptr(info.dli_fname)
        };
        Path::new(file.to_str().ok()?).parent().map(Path::to_owned)
    }

    /// Major and minor.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// The options of every compilation for a compute capability.
    pub fn options(capability: (i32, i32)) -> Vec<CString> {
        let target = format!("--gpu-architecture=sm_{}{}", capability.0, capability.1);
        let target = CString::new(target).expect("no zero byte");
        std::iter::once(target).chain(OPTIONS.map(CStr::to_owned)).collect()
    }

    /// Compiles CUDA C++ for a compute capability, such as (9, 0).
    ///
    /// Errors: NVRTC's, with its first lines.
    pub fn compile(&self, source: &str, capability: (i32, i32)) -> Result<Compiled, String> {
        let text = CString::new(source).map_err(|_| "the kernels' source has a zero byte".to_owned())?;
        let options = Compiler::options(capability);
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let none = std::ptr::null();
        let mut program = std::ptr::null_mut();
        // SAFETY: C strings and a list of as many as are counted, all of which outlive the calls.
        unsafe {
            let made = (self.create)(&mut program, text.as_ptr(), c"flatnce.cu".as_ptr(), 0, none, none);
            self.checked("nvrtcCreateProgram", made, "")?;
            let code = (self.compile)(program, options.len() as c_int, options.as_ptr());
            let log = self.read(program, self.log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
            let compiled = self
                .checked("nvrtcCompileProgram", code, &log)
                .and_then(|()| self.read(program, self.cubin))
                .map(|cubin| Compiled { cubin, log });
            (self.destroy)(&mut program);
            compiled
        }
    }

    /// # Safety
    /// A live program.
    unsafe fn read(&self, program: Program, (size, text): (Size, Text)) -> Result<Vec<u8>, String> {
        let mut bytes = 0;
        // SAFETY: the second call writes as many bytes as the first one says.
        unsafe {
            self.checked("the size of NVRTC's output", size(program, &mut bytes), "")?;
            let mut out = vec![0u8; bytes];
            self.checked("NVRTC's output", text(program, out.as_mut_ptr().cast()), "")?;
            Ok(out)
        }
    }

    fn checked(&self, what: &str, code: c_int, log: &str) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: NVRTC gives a constant C string for every number.
        let words = unsafe { CStr::from_ptr((self.error_text)(code)) }.to_string_lossy();
        let log: Vec<&str> = log.lines().take(12).collect();
        Err(format!("NVRTC {}.{}: {what}: {words}\n{}", self.version.0, self.version.1, log.join("\n")))
    }
}

fn library_in(directory: &Path) -> Option<Library> {
    NAMES.iter().find_map(|name| {
        let file = directory.join(name.to_str().ok()?);
        let file = CString::new(file.into_os_string().into_encoded_bytes()).ok()?;
        // SAFETY: NVRTC's initialisers only set up its own tables.
        unsafe { Library::named(LIBRARY, &file) }
    })
}

/// Directories of the CUDA libraries of this process, and libtorch's.
fn cuda_directories() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let files = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let cuda = |file: &&Path| {
        file.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
            ["libcudart", "libcublas", "libtorch_cuda", "libnvrtc"].iter().any(|start| name.starts_with(start))
        })
    };
    let mut directories: Vec<PathBuf> = files.filter(cuda).filter_map(Path::parent).map(Path::to_owned).collect();
    directories.push(PathBuf::from(env!("FLATNCE_LIBTORCH_DIR")));
    directories.dedup();
    directories
}
