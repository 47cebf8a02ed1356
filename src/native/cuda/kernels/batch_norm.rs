//! BatchNorm in training mode with what follows it, as one operation for autograd (`batch_norm.cpp`).

use super::enabled;
use crate::native::outcome;
use std::ffi::c_char;
use tch::{TchError, Tensor};
use torch_sys::C_tensor;

/// BatchNorm over the channels of `x`, and what follows.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm<'a> {
    /// `[M, C, H, W]`.
    pub x: &'a Tensor,
    /// Float32 `[C]`, as are bias and running statistics.
    pub weight: &'a Tensor,
    pub bias: &'a Tensor,
    /// Running mean and variance, updated if they are there.
    pub running: Option<(&'a Tensor, &'a Tensor)>,
    /// Like `x`; added before ReLU, which then is there.
    pub shortcut: Option<&'a Tensor>,
    /// ReLU behind it all.
    pub relu: bool,
    pub momentum: f64,
    pub epsilon: f64,
}

unsafe extern "C" {
    fn flatnce_fused_batch_norm(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        running_mean: *const C_tensor,
        running_var: *const C_tensor,
        shortcut: *const C_tensor,
        rectifies: u8,
        momentum: f64,
        epsilon: f64,
        out: *mut *mut C_tensor,
        twin: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// The output, like `x`, recorded for autograd; behind a shortcut as two tensors in the same memory, for the two ways that
/// it goes from there: their gradients are added in passing. `None` where the kernels are not enabled for the device of `x`,
/// or not made for it: they take float32, bfloat16 and float16 with channels last in memory, 64 of them or a multiple.
///
/// Errors: what libtorch or the driver says.
pub fn batch_norm(norm: BatchNorm) -> Result<Option<(Tensor, Option<Tensor>)>, TchError> {
    let BatchNorm { x, weight, bias, running, shortcut, relu, momentum, epsilon } = norm;
    if !enabled(x.device()) {
        return Ok(None);
    }
    let pointer = |tensor: Option<&Tensor>| tensor.map_or(std::ptr::null(), Tensor::as_ptr);
    let (mut out, mut twin) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: live tensors or null where that may be; `out` and `twin` outlive the call.
    let message = unsafe {
        flatnce_fused_batch_norm(
            x.as_ptr(),
            weight.as_ptr(),
            bias.as_ptr(),
            pointer(running.map(|(mean, _)| mean)),
            pointer(running.map(|(_, var)| var)),
            pointer(shortcut),
            relu.into(),
            momentum,
            epsilon,
            &mut out,
            &mut twin,
        )
    };
    outcome(message)?;
    // SAFETY: null, or a tensor of C++'s `new`, which is now this one's.
    let [out, twin] = [out, twin].map(|raw| (!raw.is_null()).then(|| unsafe { Tensor::from_ptr(raw) }));
    Ok(out.map(|out| (out, twin)))
}
