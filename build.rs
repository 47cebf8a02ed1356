//! Compiles the C++ beside the Rust against libtorch's headers, its shim over c10d among it, and writes the directory of
//! libtorch into the binary as an rpath, so that it runs without
//! `LD_LIBRARY_PATH`. The part that uses CUDA becomes a shared object, which the
//! program carries inside: linked, it would ask for CUDA on every machine.

use std::path::{Path, PathBuf};

/// The C++ that is linked into the program.
const LINKED: &[&str] = &[
    "src/native/libtorch.cpp",
    "src/native/lists.cpp",
    "src/native/cuda/kernels/launch.cpp",
    "src/native/cuda/kernels/batch_norm.cpp",
    "src/native/cuda/kernels/view.cpp",
    "src/distributed/shim/group.cpp",
    "src/distributed/shim/batch_norm.cpp",
];

/// The C++ of the CUDA part (src/native/cuda/mod.rs).
const CUDA_PART: &[&str] = &["src/native/cuda/graph.cpp", "src/native/cuda/nccl.cpp", "src/native/cuda/part.cpp"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    let Some(lib) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") else {
        panic!("torch-sys did not say where libtorch is; run ./scripts/setup.sh first");
    };
    // Resolved, so that the binary goes on working when the link `.libtorch` moves.
    let lib = std::fs::canonicalize(&lib).unwrap_or_else(|error| {
        panic!("libtorch's directory {} cannot be read ({error}); run ./scripts/setup.sh", Path::new(&lib).display())
    });
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    println!("cargo:rustc-env=FLATNCE_LIBTORCH_DIR={}", lib.display());
    println!("cargo:rerun-if-changed=src/native/guarded.h");
    println!("cargo:rerun-if-changed=src/native/cuda/kernels");
    println!("cargo:rerun-if-changed=src/distributed/shim");
    println!("cargo:rustc-check-cfg=cfg(flatnce_cuda_part)");
    // Beside each other: one file after the other takes a minute.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Gloo's few headers that libtorch leaves out are beside the shim.
            let mut build = compiler(LINKED, &lib);
            build.include("src/distributed/shim").define("GLOG_USE_GLOG_EXPORT", None).compile("flatnce_native");
        });
        match cuda_headers(&lib) {
            Ok(headers) => {
                println!("cargo:rustc-cfg=flatnce_cuda_part");
                println!("cargo:rustc-env=FLATNCE_CUDA_PART={}", cuda_part(&lib, &headers).display());
            }
            Err(why) => println!("cargo:rustc-env=FLATNCE_NO_CUDA_PART={why}"),
        }
    });
}

/// Compiles the CUDA part and links it to nothing of CUDA's or libtorch's: what it lacks it finds in the process that
/// opens it.
fn cuda_part(lib: &Path, headers: &[PathBuf]) -> PathBuf {
    println!("cargo:rerun-if-changed=src/native/cuda/part.h");
    println!("cargo:rerun-if-changed=src/native/cuda/headers");
    let mut build = compiler(CUDA_PART, lib);
    // Ours stand in for headers that a machine may have too, so they come first.
    let includes = std::iter::once(PathBuf::from("src/native/cuda/headers")).chain(headers.iter().cloned());
    build.includes(includes).pic(true).debug(false).opt_level(2).flag("-fvisibility=hidden");
    let objects = build.compile_intermediates();
    let part = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("flatnce_cuda_part.so");
    let mut link = build.get_compiler().to_command();
    link.arg("-shared").args(objects).arg("-Wl,--strip-all").arg("-o").arg(&part);
    let status = link.status().unwrap_or_else(|error| panic!("{link:?} does not start: {error}"));
    assert!(status.success(), "the CUDA part cannot be linked: {link:?}");
    part
}

/// Where CUDA's headers are: in directories that FLATNCE_CUDA_INCLUDE names, with colons between them, in the set of
/// scripts/setup.sh, beside PyTorch in site-packages, or where NVIDIA's installer puts them.
///
/// Errors: what is missing, in a sentence.
fn cuda_headers(lib: &Path) -> Result<Vec<PathBuf>, String> {
    println!("cargo:rerun-if-env-changed=FLATNCE_CUDA_INCLUDE");
    // Not all of them are in one directory of PyTorch's wheels.
    let wanted = ["cuda.h", "cuda_runtime.h", "crt/host_defines.h"];
    let missing = |places: &[PathBuf]| wanted.iter().find(|header| !places.iter().any(|at| at.join(header).is_file()));
    let listed = |places: &[PathBuf]| places.iter().map(|at| at.display().to_string()).collect::<Vec<_>>().join(", ");
    // Of libtorch's own headers; a libtorch that was built without CUDA lacks it.
    if !include_directories(lib)[1].join("c10/cuda/impl/cuda_cmake_macros.h").is_file() {
        return Err(format!("the libtorch in {} has no headers of its CUDA half", lib.display()));
    }
    if let Some(named) = std::env::var_os("FLATNCE_CUDA_INCLUDE").filter(|named| !named.is_empty()) {
        let places: Vec<PathBuf> = std::env::split_paths(&named).collect();
        // Named by hand, so a mistake is not passed over.
        if let Some(header) = missing(&places) {
            panic!("FLATNCE_CUDA_INCLUDE: CUDA's header {header} is in none of {}", listed(&places));
        }
        return Ok(places);
    }
    let root = lib.parent().expect("libtorch's lib directory has a parent");
    let mut places = vec![root.join("include-cuda")];
    places.extend(root.parent().map(|site_packages| site_packages.join("nvidia/cu13/include")));
    places.push(PathBuf::from("/usr/local/cuda/include"));
    // Headers that come later are noticed: PyTorch's directory gets more of them, the set is unpacked anew.
    for seen in places.iter().take(2).chain([&root.join("build-version")]).filter(|seen| seen.exists()) {
        println!("cargo:rerun-if-changed={}", seen.display());
    }
    match places.iter().find(|at| missing(std::slice::from_ref(*at)).is_none()) {
        Some(whole) => Ok(vec![whole.clone()]),
        None => Err(format!("CUDA's headers were in none of {}", listed(&places))),
    }
}

/// A compiler of C++ over libtorch's headers, set up as torch-sys sets up its own.
fn compiler(files: &[&str], lib: &Path) -> cc::Build {
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .includes(include_directories(lib))
        .define("_GLIBCXX_USE_CXX11_ABI", cxx11_abi().as_str())
        .files(files);
    build
}

/// Where libtorch's headers are: beside its libraries, or where torch-sys was told to look for them.
fn include_directories(lib: &Path) -> Vec<PathBuf> {
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    let root = std::env::var_os("LIBTORCH_INCLUDE").map(PathBuf::from);
    let root = root.or_else(|| lib.parent().map(Path::to_owned)).expect("libtorch's lib directory has a parent");
    let include = root.join("include");
    if !include.join("ATen/Context.h").exists() {
        panic!("libtorch's headers are not in {}; run ./scripts/setup.sh, or set LIBTORCH_INCLUDE", include.display());
    }
    vec![include.join("torch/csrc/api/include"), include]
}

/// As torch-sys decides it; libtorch 2.11 is built with the new ABI.
fn cxx11_abi() -> String {
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned())
}
