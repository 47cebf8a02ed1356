//! CUDA kernels of our own, compiled on the user's machine for its GPU.
//!
//! `batch_norm` joins BatchNorm in training mode with the ReLU behind it, and with a shortcut's addition before that; `view`
//! renders a view of an image in one launch. libtorch does each by several operations, each of which reads and writes
//! everything. Passes over a layer's memory, forward and backward together, counted in the sources:
//!
//! | | libtorch | here |
//! |---|---|---|
//! | BatchNorm + ReLU | 13 | 8 |
//! | BatchNorm + addition + ReLU | 16 | 11 |
//! | BatchNorm alone | 8 | 8, of 16 bytes a thread |
//!
//! Launches: 3 forward and 3 backward a layer, as many as libtorch's with the first kind and 2 fewer with the second; one
//! for the views of a batch instead of about 240. A step of res18 at batch 512 on an H200 took 11.3 ms with them instead of
//! 16.4, one at batch 32 2.2 instead of 3.7. Behind a shortcut the gradients of the two ways that a block's output goes are
//! added in passing, which libtorch does by an operation of its own; nothing of a layer's size is allocated backward.
//!
//! The sources (`*.cu`, `*.cuh`) are in the program as text. NVRTC, which comes with libtorch's CUDA libraries, compiles
//! them in some seconds ([`nvrtc`]); the result is kept in the user's cache directory ([`cache`]); the driver loads it
//! ([`module`]); C++ launches it on libtorch's current stream (`launch.cpp`) and records it for autograd
//! (`batch_norm.cpp`). Nothing of that needs CUDA to be built. The tests run the same sources on the CPU.

mod batch_norm;
pub mod cache;
pub mod module;
pub mod nvrtc;
mod view;

pub use batch_norm::{BatchNorm, batch_norm};
pub use view::{WORDS as VIEW_WORDS, render_views};

use std::sync::atomic::{AtomicI64, Ordering};
use tch::Device;

/// The kernels, in the order that makes one text of them.
const SOURCES: [&str; 8] = [
    include_str!("numbers.cuh"),
    include_str!("batch_norm.cuh"),
    include_str!("batch_norm_forward.cu"),
    include_str!("batch_norm_backward.cu"),
    include_str!("view_layout.h"),
    include_str!("view_resample.cuh"),
    include_str!("view_color.cuh"),
    include_str!("view.cu"),
];

/// [`ENABLED`] where nothing is.
const NOWHERE: i64 = i64::MIN;
/// The device whose tensors go through the kernels: the index of a GPU, -1 for the CPU (tests).
static ENABLED: AtomicI64 = AtomicI64::new(NOWHERE);

/// The one text that is compiled.
pub fn source() -> String {
    SOURCES.concat()
}

/// From now on, and in the whole process, tensors on `device` go through the kernels where these are made for them. The
/// first time for a kind of GPU they are compiled, which takes some seconds.
///
/// Errors: not a GPU; no NVRTC beside libtorch's CUDA libraries; what NVRTC or the driver says. All is as it was then.
pub fn enable(device: Device) -> Result<(), String> {
    let Device::Cuda(index) = device else {
        return Err("the fused kernels are for NVIDIA's GPUs; leave --fused-kernels out".to_owned());
    };
    let loaded = module::load(index)?;
    // SAFETY: the driver's own functions, and kernels that it has just loaded, which stay.
    unsafe { enable_loaded(&loaded, device) };
    Ok(())
}

/// [`enable`] with kernels that are loaded, or emulated.
///
/// # Safety
/// What is in `loaded` is of the kinds that it says, stays for the life of the process, and works on tensors of `device`.
pub unsafe fn enable_loaded(loaded: &module::Loaded, device: Device) {
    loaded.hand_over();
    ENABLED.store(place(device), Ordering::Release);
}

/// libtorch's own operations again.
pub fn disable() {
    ENABLED.store(NOWHERE, Ordering::Release);
}

/// Whether tensors on `device` go through the kernels.
pub fn enabled(device: Device) -> bool {
    ENABLED.load(Ordering::Acquire) == place(device)
}

fn place(device: Device) -> i64 {
    match device {
        Device::Cuda(index) => index as i64,
        _ => -1,
    }
}
