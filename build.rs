//! Compiles the C++ beside the Rust against libtorch's headers (with the feature
//! `distributed` also the part over its c10d), and writes the directory of
//! libtorch into the binary as an rpath, so that it runs without
//! `LD_LIBRARY_PATH`.

use std::path::{Path, PathBuf};

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
    compile("flatnce_native", &["src/native/libtorch.cpp", "src/native/lists.cpp"], &lib, &[]);
    if cfg!(feature = "distributed") {
        distributed(&lib);
    }
}

/// The part over libtorch's c10d. NCCL's needs CUDA's and NCCL's headers, whose directories FLATNCE_CUDA_INCLUDE names,
/// with colons between them.
fn distributed(lib: &Path) {
    println!("cargo:rerun-if-changed=src/distributed/shim");
    println!("cargo:rerun-if-env-changed=FLATNCE_CUDA_INCLUDE");
    let mut files = vec!["src/distributed/shim/group.cpp", "src/distributed/shim/batch_norm.cpp"];
    let mut more = vec![PathBuf::from("src/distributed/shim")];
    if cfg!(feature = "nccl") {
        let directories =
            std::env::var("FLATNCE_CUDA_INCLUDE").unwrap_or_else(|_| "/usr/local/cuda/include".to_owned());
        more.extend(directories.split(':').filter(|directory| !directory.is_empty()).map(PathBuf::from));
        files.push("src/distributed/shim/nccl.cpp");
        println!("cargo:rustc-link-lib=torch_cuda");
    }
    compile("flatnce_shim", &files, lib, &more);
}

/// Compiles C++ files into a static library of the program, as torch-sys compiles its own.
fn compile(name: &str, files: &[&str], lib: &Path, more_includes: &[PathBuf]) {
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .includes(include_directories(lib))
        .includes(more_includes)
        .define("_GLIBCXX_USE_CXX11_ABI", cxx11_abi().as_str())
        .files(files);
    if cfg!(feature = "distributed") {
        build.define("GLOG_USE_GLOG_EXPORT", None);
    }
    if cfg!(feature = "nccl") {
        build.define("FLATNCE_NCCL", None);
    }
    build.compile(name);
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
