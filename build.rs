//! Compiles the C++ beside the Rust against libtorch's headers, and writes the
//! directory of libtorch into the binary as an rpath, so that it runs without
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
    shim("flatnce_native", &["src/native/libtorch.cpp"], &lib);
}

/// Compiles C++ files into a static library of the program, as torch-sys compiles its own.
fn shim(name: &str, files: &[&str], lib: &Path) {
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .includes(include_directories(lib))
        .define("_GLIBCXX_USE_CXX11_ABI", cxx11_abi().as_str())
        .files(files)
        .compile(name);
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
