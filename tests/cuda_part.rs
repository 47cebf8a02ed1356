//! The part of the program that uses CUDA, on a machine without a GPU: it is opened beside the CUDA libraries of
//! PyTorch's wheel, as on a machine that has one.

#[path = "support/pytorch.rs"]
mod pytorch;
mod support;

use assert_cmd::cargo::CommandCargoExt;
use flatnce::{device, native::cuda};
use pytorch::{beside_pytorch, is_built, run_inside, site_packages};
use serde_json::Value;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::process::Command;

fn doctor(site: &Path, flags: &[&str]) -> Vec<Value> {
    let mut command = beside_pytorch(Command::cargo_bin("flatnce").expect("the binary is built"), site);
    let output = command.args(["doctor", "--json"]).args(flags).output().expect("it starts");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON, whatever is wrong");
    said["findings"].as_array().expect("a list").clone()
}

fn finding<'a>(findings: &'a [Value], name: &str) -> &'a Value {
    findings.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("{name}: {findings:#?}"))
}

#[test]
fn the_part_and_all_of_libtorch_come_from_one_place() {
    let Some(site) = site_packages().filter(|_| is_built()) else { return };
    let site = std::fs::canonicalize(site).unwrap();
    for flags in [&["--device", "cuda"][..], &[]] {
        let findings = doctor(&site, flags);
        let found = |name: &str| finding(&findings, name)["found"].as_str().unwrap().to_owned();
        let lib = site.join("torch/lib").display().to_string();
        assert!(found("libtorch's place").starts_with(&lib), "{}", found("libtorch's place"));
        assert!(found("CUDA libraries").starts_with(&format!("load from {lib}")), "{}", found("CUDA libraries"));
        // cuDNN's number comes through libtorch's CUDA half, so that is in place too.
        let part = found("CUDA part");
        assert!(part.starts_with("loads: CUDA 13.0, runtime 13.") && part.contains("NCCL 2.28.9"), "{part}");
        assert!(part.contains("cuDNN 9."), "{part}");
        for name in ["CUDA libraries", "CUDA part"] {
            assert_eq!(finding(&findings, name)["health"], "good", "{findings:#?}");
        }
    }
}

#[test]
fn without_the_cuda_libraries_the_part_stays_shut() {
    if device::load_cuda_libraries().is_ok() {
        return;
    }
    let error = cuda::part().unwrap_err();
    match cuda::built() {
        Ok(()) => assert!(error.contains("not loaded"), "{error}"),
        Err(why) => assert_eq!(error, why),
    }
}

#[test]
fn the_functions_of_the_part_answer() {
    run_inside(&[]);
}

/// What `the_functions_of_the_part_answer` runs in a process of its own.
#[test]
#[ignore = "needs LD_LIBRARY_PATH at libtorch's CUDA libraries; another test runs it so"]
fn inside() {
    device::load_cuda_libraries().expect("PyTorch's CUDA libraries");
    let part = cuda::part().expect("the part");
    assert!(std::ptr::eq(part, cuda::part().unwrap()), "opened once");
    let versions = part.versions().expect("versions");
    assert!(versions.headers / 1000 == 13 && versions.runtime / 1000 == 13 && versions.nccl > 22_000, "{versions:?}");

    type Nothing = unsafe extern "C" fn();
    // SAFETY: it is looked up and not called.
    let missing = unsafe { part.function::<Nothing>(c"flatnce_no_such_function") }.unwrap_err().to_string();
    assert!(missing.contains("flatnce_no_such_function"), "{missing}");

    if !tch::Cuda::is_available() {
        let error = nccl_without_a_gpu(part);
        assert!(error.contains("no GPUs found"), "{error}");
    }
}

/// What libtorch's process group says where there is no GPU; before it looks at the store.
fn nccl_without_a_gpu(part: &cuda::Part) -> String {
    type Open = unsafe extern "C" fn(*const c_void, c_int, c_int, i64, *mut c_void) -> *mut c_char;
    let (store, mut opened) = (std::ptr::null::<c_void>(), std::ptr::null_mut::<c_void>());
    // SAFETY: the type is that of nccl.cpp; a null pointer is a store that is not there, and a group that is not there.
    let error = unsafe {
        let open: Open = part.function(c"flatnce_open_nccl").expect("NCCL");
        open((&raw const store).cast(), 0, 2, 1000, (&raw mut opened).cast())
    };
    assert!(!error.is_null() && opened.is_null());
    // SAFETY: a message in malloc's memory, ours to release.
    unsafe {
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        libc::free(error.cast());
        text
    }
}

/// Everything that `src/native/cuda/headers/nccl.h` declares and on which layouts and calls depend, printed.
const DECLARED: &str = r#"
#include <cstddef>
#include <cstdio>
#include <type_traits>
#include <nccl.h>
#define AT(field) offsetof(ncclConfig_t, field)
static_assert(std::is_same<decltype(ncclGetVersion), ncclResult_t(int*)>::value, "");
static_assert(std::is_same<decltype(ncclRedOpDestroy), ncclResult_t(ncclRedOp_t, ncclComm_t)>::value, "");
int main() {
  const long long values[] = {
      NCCL_VERSION_CODE, NCCL_VERSION(2, 7, 0), NCCL_VERSION(2, 28, 9), NCCL_SPLIT_NOCOLOR, NCCL_CONFIG_UNDEF_INT,
      sizeof(ncclComm_t), sizeof(ncclUniqueId), alignof(ncclUniqueId),
      sizeof(ncclResult_t), ncclSuccess, ncclRemoteError, ncclInProgress, ncclNumResults,
      sizeof(ncclRedOp_t), ncclSum, ncclMaxRedOp,
      sizeof(ncclDataType_t), ncclInt8, ncclUint8, ncclInt32, ncclInt64, ncclHalf, ncclFloat, ncclDouble,
      ncclBfloat16, ncclFloat8e4m3, ncclFloat8e5m2,
      sizeof(ncclConfig_t), alignof(ncclConfig_t), AT(size), AT(magic), AT(version), AT(blocking),
      AT(cgaClusterSize), AT(minCTAs), AT(maxCTAs), AT(netName), AT(splitShare), AT(trafficClass), AT(commName),
      AT(collnetEnable), AT(CTAPolicy), AT(shrinkShare), AT(nvlsCTAs), AT(nChannelsPerNetPeer),
      AT(nvlinkCentricSched)};
  for (const long long value : values)
    printf("%lld\n", value);
}
"#;

#[test]
fn the_stand_in_for_nccls_header_agrees_with_nccls() {
    let Some(site) = site_packages() else { return };
    let place = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
    write("print.cpp", DECLARED);
    // NCCL's own header includes these, and needs the name of a stream.
    write("cuda_runtime.h", "#pragma once\n#define CUDART_VERSION 13000\ntypedef struct CUstream_st* cudaStream_t;\n");
    for empty in ["cuda_fp16.h", "cuda_bf16.h", "cuda_fp8.h"] {
        write(empty, "#pragma once\n");
    }
    let printed = |headers: &Path| {
        let program = place.path().join("print");
        let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
        let mut compile = Command::new(compiler);
        compile.args(["-std=c++17", "-w", "-I"]).arg(headers).arg("-I").arg(place.path());
        let output = compile.arg(place.path().join("print.cpp")).arg("-o").arg(&program).output().expect("a compiler");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(Command::new(&program).output().expect("it starts").stdout).expect("numbers")
    };
    let theirs = printed(&site.join("nvidia/nccl/include"));
    let ours = printed(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/native/cuda/headers"));
    assert_eq!(ours.lines().count(), 46);
    assert_eq!(ours, theirs);
}
