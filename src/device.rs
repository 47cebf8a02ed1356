//! Which device computes, in which precision, and how the CUDA libraries come
//! into a program that is linked without them.
//!
//! One binary serves machines with and without a GPU: it is linked against the
//! CPU part of libtorch only, and `libtorch_cuda.so` is opened at run time,
//! before libtorch is first asked about CUDA (it remembers the answer).

use crate::config::{DeviceChoice, Numerics, Precision};
use crate::{memory, native};
use anyhow::{Context, Result, bail};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tch::{Device, Kind, Tensor};

/// The directory that libtorch was linked from.
pub const LIBTORCH_DIRECTORY: &str = env!("FLATNCE_LIBTORCH_DIR");

/// cuBLAS computes in a fixed order only with a workspace of a fixed size.
const CUBLAS_WORKSPACE: &str = "CUBLAS_WORKSPACE_CONFIG";

/// Opens the CUDA half of libtorch, once per process.
///
/// Errors: the loader's message when `libtorch_cuda.so` or one of its dependencies is missing.
pub fn load_cuda_libraries() -> Result<(), &'static str> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            // Both halves of one libtorch: LD_LIBRARY_PATH may have led to another than the one that was linked.
            let places = loaded_from("libtorch_cpu.so").into_iter().chain([PathBuf::from(LIBTORCH_DIRECTORY)]);
            let beside = places.map(|place| place.join("libtorch_cuda.so")).find(|path| path.exists());
            let name = beside.map_or("libtorch_cuda.so".to_owned(), |path| path.to_string_lossy().into_owned());
            let name = CString::new(name).map_err(|_| "libtorch's directory has a zero byte in its name".to_owned())?;
            // SAFETY: `name` is a valid C string; the library's initialisers only register CUDA kernels.
            let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
            if !handle.is_null() {
                return Ok(());
            }
            Err(native::loader_error())
        })
        .as_ref()
        .copied()
        .map_err(String::as_str)
}

/// Tensors on one device as numbers, one after the other, read in one transfer. Waits for the device.
pub fn read_scalars(scalars: &[Tensor]) -> Vec<f64> {
    if scalars.is_empty() {
        return Vec::new();
    }
    let joined = Tensor::stack(scalars, 0).to_kind(Kind::Double).to_device(Device::Cpu);
    Vec::<f64>::try_from(joined.contiguous().view(-1)).expect("a vector of doubles")
}

/// The directory that a library of this process was loaded from.
pub fn loaded_from(library: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with(&format!("/{library}")))?;
    let path = Path::new(&line[line.find('/')?..]);
    Some(std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).parent()?.to_owned())
}

/// Why CUDA cannot be used, or `None` when it can.
pub fn cuda_obstacle() -> Option<String> {
    if let Err(message) = load_cuda_libraries() {
        return Some(format!(
            "libtorch's CUDA libraries cannot be loaded ({message}); run ./scripts/setup.sh --cuda and build again"
        ));
    }
    if !tch::Cuda::is_available() {
        let driver = Path::new("/proc/driver/nvidia/version").exists();
        return Some(if driver {
            "the NVIDIA driver is there but offers no usable GPU; see what nvidia-smi says (CUDA 13 needs driver 580 or \
             newer)"
                .to_owned()
        } else {
            "no NVIDIA driver is loaded on this machine".to_owned()
        });
    }
    None
}

/// How many threads libtorch computes with, in words.
fn threads() -> String {
    match tch::get_num_threads() {
        1 => "1 thread".to_owned(),
        count => format!("{count} threads"),
    }
}

/// Turns the asked-for device into one that works, with a sentence that says what was chosen and why.
///
/// Errors: CUDA was asked for by name and cannot be used, or has no such index.
pub fn resolve(choice: DeviceChoice) -> Result<(Device, String)> {
    match choice {
        DeviceChoice::Cpu => Ok((Device::Cpu, format!("CPU, {}", threads()))),
        DeviceChoice::Auto => match cuda_obstacle() {
            None => Ok((Device::Cuda(0), "cuda:0, chosen automatically".to_owned())),
            Some(_) => Ok((Device::Cpu, format!("CPU, {}, chosen automatically (no CUDA)", threads()))),
        },
        DeviceChoice::Cuda(index) => {
            if let Some(obstacle) = cuda_obstacle() {
                bail!("--device {choice}: {obstacle}; or use --device cpu");
            }
            let count = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
            if index >= count {
                bail!("--device {choice}: this machine has {count} CUDA device(s), numbered from 0");
            }
            Ok((Device::Cuda(index), format!("cuda:{index}")))
        }
    }
}

/// True when the processor multiplies bfloat16 matrices itself.
#[cfg(target_arch = "x86_64")]
pub fn cpu_has_bf16() -> bool {
    is_x86_feature_detected!("avx512bf16")
}

/// True when the processor multiplies bfloat16 matrices itself.
#[cfg(not(target_arch = "x86_64"))]
pub fn cpu_has_bf16() -> bool {
    false
}

/// Whether float64 is at least half as fast as float32 on a device: on CPUs, and on NVIDIA's data-centre GPUs; on the
/// others it takes 32 or 64 times as long.
pub fn has_fast_float64(device: Device) -> bool {
    match device {
        Device::Cuda(index) => {
            let gpu = native::driver().ok().flatten().and_then(|driver| driver.gpus.into_iter().nth(index));
            gpu.is_some_and(|gpu| matches!(gpu.capability, (6..=10, 0)))
        }
        _ => true,
    }
}

/// The precision to compute in: what was asked for, or with `None` the fastest that is safe on the device.
///
/// The sentence says what was chosen and why.
pub fn resolve_precision(asked: Option<Precision>, device: Device) -> (Precision, String) {
    match (asked, device) {
        (Some(precision), _) => (precision, precision.to_string()),
        (None, Device::Cpu) if cpu_has_bf16() => {
            (Precision::Bf16, "bf16, chosen automatically: this CPU has AVX-512 bf16".to_owned())
        }
        (None, Device::Cpu) => {
            (Precision::Fp32, "fp32, chosen automatically: this CPU has no bf16 arithmetic".to_owned())
        }
        (None, _) => (Precision::Bf16, "bf16, chosen automatically on a GPU".to_owned()),
    }
}

/// Bytes that this process may still ask for on the device; `None` where nobody tells.
pub fn free_memory(device: Device) -> Option<u64> {
    match device {
        Device::Cpu => memory::bounds().free(),
        Device::Cuda(index) => {
            let memory = native::cuda_memory(index).ok()?;
            // What libtorch holds and does not use is ours.
            Some(memory.free + memory.reserved.saturating_sub(memory.allocated))
        }
        _ => None,
    }
}

/// Tells libtorch how its devices are to compute; for the rest of the process, and before the first tensor on a GPU.
///
/// Errors: libtorch's message.
pub fn configure(numerics: Numerics) -> Result<()> {
    if numerics.deterministic && std::env::var_os(CUBLAS_WORKSPACE).is_none() {
        // SAFETY: no other thread of ours runs yet; libtorch reads it when cuBLAS starts.
        unsafe { std::env::set_var(CUBLAS_WORKSPACE, ":4096:8") };
    }
    let settings = native::Settings {
        tf32_matmul: numerics.allow_tf32,
        tf32_convolution: numerics.allow_tf32,
        cudnn_benchmark: !numerics.deterministic,
        deterministic: numerics.deterministic,
    };
    native::apply(settings).context("libtorch refuses the settings of its arithmetic")
}

/// libtorch's name for the encoder's arithmetic.
pub fn compute_kind(precision: Precision) -> Kind {
    match precision {
        Precision::Fp32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
        Precision::Fp16 => Kind::Half,
    }
}
