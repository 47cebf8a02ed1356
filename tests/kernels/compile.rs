//! NVRTC compiles the kernels for every kind of GPU; it needs none for that.

use super::emulation::Emulation;
use super::support;
use flatnce::native::cuda::kernels::{enable, enabled, module, nvrtc::Compiler, source};
use std::path::PathBuf;
use std::process::Command;
use tch::Device;

/// Where the interchange environment keeps CUDA's libraries. Without them the test is skipped.
fn libraries() -> Option<PathBuf> {
    let found = support::python("nvidia").and_then(|python| {
        let words = "import nvidia; print(*nvidia.__path__, sep='\\n')";
        let output = Command::new(python).args(["-c", words]).output().expect("it starts");
        let paths = String::from_utf8(output.stdout).expect("UTF-8");
        paths.lines().map(|path| PathBuf::from(path).join("cu13/lib")).find(|path| path.join("libnvrtc.so.13").exists())
    });
    if found.is_none() {
        support::skipped("no libnvrtc.so.13 (run scripts/setup.sh --python)");
    }
    found
}

#[test]
fn every_kernel_compiles_for_every_kind_of_gpu_without_spills() {
    let Some(libraries) = libraries() else { return };
    let compiler = Compiler::open_in(&libraries).expect("NVRTC");
    for capability in [(7, 5), (8, 0), (9, 0), (10, 0)] {
        let compiled =
            compiler.compile(&source(), capability).unwrap_or_else(|error| panic!("{capability:?}: {error}"));
        assert!(compiled.cubin.starts_with(b"\x7FELF"));
        let names = module::names();
        for name in &names {
            let symbol = [name.to_bytes_with_nul(), b""].concat();
            assert!(compiled.cubin.windows(symbol.len()).any(|part| part == symbol), "{capability:?}: no {name:?}");
        }
        let log = &compiled.log;
        let entries = log.matches("Compiling entry function").count();
        assert_eq!(entries, names.len(), "{capability:?}: what is compiled is what is launched\n{log}");
        // Registers that move to memory cost more than the kernels save.
        let spills =
            log.lines().filter(|line| line.contains("spill") && !line.contains("0 bytes spill stores, 0 bytes"));
        assert_eq!(spills.count(), 0, "{capability:?}\n{log}");
        let stacks = log.lines().filter(|line| line.contains("stack frame") && !line.contains(" 0 bytes stack frame"));
        assert_eq!(stacks.count(), 0, "{capability:?}\n{log}");
    }
}

#[test]
fn what_the_compiler_refuses_is_an_error_with_its_words() {
    let Some(libraries) = libraries() else { return };
    let compiler = Compiler::open_in(&libraries).expect("NVRTC");
    let error = compiler.compile("__global__ void f() { absent(); }", (9, 0)).err().expect("it does not compile");
    assert!(error.contains("absent") && error.contains("flatnce.cu(1)"), "{error}");
    let error = compiler.compile("", (1, 2)).err().expect("no such GPU");
    assert!(error.contains("sm_12") || error.contains("gpu-architecture"), "{error}");
}

#[test]
fn what_cannot_be_enabled_is_said_and_changes_nothing() {
    let _emulation = Emulation::start();
    let error = enable(Device::Cpu).expect_err("no GPU");
    assert!(error.contains("--fused-kernels"), "{error}");
    let error = enable(Device::Cuda(99)).expect_err("no such GPU");
    assert!(error.contains("driver"), "{error}");
    assert!(enabled(Device::Cpu) && !enabled(Device::Cuda(99)), "the emulation goes on");
}
