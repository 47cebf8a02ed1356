//! Writes the directory of libtorch into the binary as an rpath, so that it
//! runs without `LD_LIBRARY_PATH`.

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
}
