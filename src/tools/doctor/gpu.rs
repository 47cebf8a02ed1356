//! GPUs, their driver, and whether libtorch's CUDA half can be loaded.

use super::{Finding, cuda_part, gib, wants_cuda};
use crate::config::DeviceChoice;
use crate::device;
use crate::native::{self, Driver, Gpu};
use std::path::Path;

/// The CUDA that libtorch 2.11.0's wheel is built for, and the oldest GPUs that it has kernels for.
const CUDA: (i32, i32) = (13, 0);
const OLDEST: (i32, i32) = (7, 5);

pub(super) fn look(choice: DeviceChoice) -> Vec<Finding> {
    if choice == DeviceChoice::Cpu {
        return vec![cuda_part::look(false, false)];
    }
    let driver = native::driver();
    let mut findings = vec![judge_driver(&driver, wants_cuda(choice))];
    let gpus = driver.ok().flatten().map_or(vec![], |driver| driver.gpus);
    findings.extend(gpus.iter().enumerate().map(|(index, gpu)| judge_gpu(index, gpu)));
    if let DeviceChoice::Cuda(index) = choice
        && !gpus.is_empty()
        && index >= gpus.len()
    {
        let found = format!("{choice} is asked for, and the driver has {} GPUs", gpus.len());
        findings.push(Finding::wrong("GPU", found, "choose one of them with --device, counted from 0"));
    }
    let wanted = wants_cuda(choice) || !gpus.is_empty();
    let loaded = device::load_cuda_libraries();
    // A machine that computes on its CPU needs none.
    if wanted || loaded.is_ok() {
        findings.push(libraries(loaded, !gpus.is_empty()));
    }
    findings.push(cuda_part::look(loaded.is_ok(), wanted));
    findings.extend((0..gpus.len()).filter_map(free_memory));
    findings
}

/// `wanted`: a GPU was asked for by name, so none is a fault.
fn judge_driver(driver: &Result<Option<Driver>, String>, wanted: bool) -> Finding {
    let kernel = std::fs::read_to_string("/proc/driver/nvidia/version").ok();
    let kernel = kernel.as_deref().and_then(|text| text.lines().next()).map(|line| format!(" ({})", line.trim()));
    match driver {
        Err(text) => Finding::wrong(
            "driver",
            format!("{text}{}", kernel.unwrap_or_default()),
            "see what nvidia-smi says; a driver that was updated needs a restart of the machine, a container needs \
             --gpus all",
        ),
        Ok(None) if kernel.is_some() => Finding::wrong(
            "driver",
            format!("the kernel has NVIDIA's module{}, and libcuda.so.1 is not found", kernel.unwrap_or_default()),
            "in a container, start it with --gpus all (NVIDIA's container toolkit); else reinstall the driver",
        ),
        Ok(None) if wanted => {
            Finding::wrong("driver", "none of NVIDIA's", "install NVIDIA's driver 580 or newer, or use --device cpu")
        }
        Ok(None) => Finding::good("driver", "none of NVIDIA's: this machine computes on its CPU"),
        Ok(Some(driver)) if driver.gpus.is_empty() && wanted => Finding::wrong(
            "driver",
            "it offers no GPU",
            "see what nvidia-smi says, and whether CUDA_VISIBLE_DEVICES hides them; or use --device cpu",
        ),
        Ok(Some(driver)) if driver.cuda < CUDA => Finding::wrong(
            "driver",
            format!("it serves CUDA {}.{}, and libtorch needs {}.{}", driver.cuda.0, driver.cuda.1, CUDA.0, CUDA.1),
            "install driver 580 or newer, or use --device cpu",
        ),
        Ok(Some(driver)) => Finding::good(
            "driver",
            format!("serves CUDA {}.{}, {} GPUs", driver.cuda.0, driver.cuda.1, driver.gpus.len()),
        ),
    }
}

fn judge_gpu(index: usize, gpu: &Gpu) -> Finding {
    let (major, minor) = gpu.capability;
    let mut found = format!("cuda:{index} {}, capability {major}.{minor}, {}", gpu.name, gib(gpu.memory_bytes));
    if gpu.capability < OLDEST {
        let remedy = format!(
            "libtorch has kernels from capability {}.{} on: use another GPU or --device cpu",
            OLDEST.0, OLDEST.1
        );
        return Finding::wrong("GPU", found, remedy);
    }
    // Tensor cores: fp16 since 7.0, bf16 and TF32 since 8.0.
    found.push_str(if major >= 8 {
        "; bf16, fp16, fp32, TF32"
    } else {
        "; fp16, fp32; bf16 is emulated: use --precision fp16"
    });
    Finding::good("GPU", found)
}

/// `gpus`: the driver has some.
fn libraries(loaded: Result<(), &str>, gpus: bool) -> Finding {
    let places = ["libtorch_cuda.so", "libtorch_cpu.so"].map(device::loaded_from);
    let beside = Path::new(device::LIBTORCH_DIRECTORY).join("libtorch_cuda.so");
    match (loaded, &places) {
        (Ok(()), [Some(cuda), Some(cpu)]) if cuda != cpu => Finding::wrong(
            "CUDA libraries",
            format!("load from {}, and the CPU's half from {}", cuda.display(), cpu.display()),
            format!("set LD_LIBRARY_PATH to one libtorch only, for instance {}", cuda.display()),
        ),
        (Ok(()), [place, _]) if !gpus || tch::Cuda::is_available() => {
            let place = place.as_ref().map_or(String::new(), |place| format!(" from {}", place.display()));
            let cudnn = if tch::Cuda::cudnn_is_available() { "cuDNN too" } else { "cuDNN does not" };
            Finding::good("CUDA libraries", format!("load{place}; {}", if gpus { cudnn } else { "no GPU to use" }))
        }
        (Ok(()), _) => Finding::wrong(
            "CUDA libraries",
            "load, and libtorch finds no usable GPU",
            "see what nvidia-smi says, and whether CUDA_VISIBLE_DEVICES hides the GPUs",
        ),
        (Err(error), _) if !beside.exists() => Finding::wrong(
            "CUDA libraries",
            format!("this libtorch is the CPU's alone ({error})"),
            "run ./scripts/setup.sh --cuda and cargo build --release again, or use --device cpu",
        ),
        (Err(error), _) => Finding::wrong(
            "CUDA libraries",
            error,
            "run ./scripts/setup.sh --cuda again: one of its libraries is missing or of another version",
        ),
    }
}

fn free_memory(index: usize) -> Option<Finding> {
    let memory = native::cuda_memory(index).ok()?;
    Some(Finding::good("GPU memory", format!("cuda:{index}: {} of {} free", gib(memory.free), gib(memory.total))))
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    fn gpu(capability: (i32, i32)) -> Gpu {
        Gpu { name: "A GPU".into(), capability, memory_bytes: 80 << 30 }
    }

    #[test]
    fn no_gpu_is_wrong_only_where_one_is_wanted() {
        let none = Ok(Some(Driver { cuda: (13, 0), gpus: vec![] }));
        assert_eq!(judge_driver(&none, true).health, Health::Wrong);
        assert_eq!(judge_driver(&none, false).health, Health::Good);
        let old = Ok(Some(Driver { cuda: (12, 4), gpus: vec![gpu((9, 0))] }));
        let finding = judge_driver(&old, false);
        assert!(finding.health == Health::Wrong && finding.found.contains("serves CUDA 12.4"), "{finding:?}");
        let broken = judge_driver(&Err("NVIDIA's driver answers cuInit with error 803".into()), false);
        assert!(broken.health == Health::Wrong && broken.found.contains("803"), "{broken:?}");
    }

    #[test]
    fn what_a_gpu_computes_in_follows_from_its_capability() {
        assert!(judge_gpu(0, &gpu((9, 0))).found.ends_with("bf16, fp16, fp32, TF32"));
        assert!(judge_gpu(0, &gpu((7, 5))).found.contains("bf16 is emulated"));
        assert_eq!(judge_gpu(1, &gpu((6, 1))).health, Health::Wrong);
    }
}
