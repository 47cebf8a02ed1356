//! Writes the directory of libtorch into the binary as an rpath, so that it
//! runs without `LD_LIBRARY_PATH`; with the feature `distributed`, compiles the
//! C++ shim over libtorch's c10d.

use std::path::Path;

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
    #[cfg(feature = "distributed")]
    shim(&lib);
}

/// Compiles `src/distributed/shim` as torch-sys compiles its own C++, against the same headers.
#[cfg(feature = "distributed")]
fn shim(lib: &Path) {
    const SHIM: &str = "src/distributed/shim";
    println!("cargo:rerun-if-changed={SHIM}");
    for name in ["LIBTORCH_CXX11_ABI", "FLATNCE_CUDA_INCLUDE"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let include = lib.with_file_name("include");
    let header = include.join("torch/csrc/distributed/c10d/ProcessGroupGloo.hpp");
    assert!(header.exists(), "{} is missing; run ./scripts/setup.sh", header.display());
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .pic(true)
        .std("c++17")
        .include(SHIM)
        .flag(format!("-isystem{}", include.display()))
        .flag(format!("-isystem{}", include.join("torch/csrc/api/include").display()))
        .flag("-Wno-unused-parameter")
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .define("GLOG_USE_GLOG_EXPORT", None)
        .file(format!("{SHIM}/group.cpp"))
        .file(format!("{SHIM}/batch_norm.cpp"));
    if cfg!(feature = "nccl") {
        // CUDA's and NCCL's headers: directories between colons.
        let directories =
            std::env::var("FLATNCE_CUDA_INCLUDE").unwrap_or_else(|_| "/usr/local/cuda/include".to_owned());
        for directory in directories.split(':').filter(|directory| !directory.is_empty()) {
            build.flag(format!("-isystem{directory}"));
        }
        build.define("FLATNCE_NCCL", None).file(format!("{SHIM}/nccl.cpp"));
        println!("cargo:rustc-link-lib=torch_cuda");
    }
    build.compile("flatnce_shim");
}
