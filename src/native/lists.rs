//! Operations on lists of tensors (`lists.cpp`). A GPU is told of many tensors at a time; one by one, telling it takes
//! longer than the work of a small network.

use super::outcome;
use std::ffi::c_char;
use tch::{TchError, Tensor};
use torch_sys::C_tensor;

/// `g += decay p; m = momentum m + rate g; p -= step m` for every value p, gradient g and buffer m, where `rate` is
/// multiplied with `eeta |p| / |g|` (1 where either norm is 0) if `eeta` is set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Momentum {
    pub decay: f64,
    pub momentum: f64,
    pub rate: f64,
    pub step: f64,
    pub eeta: Option<f64>,
}

/// [`Momentum`] as C++ has it.
#[repr(C)]
struct RawMomentum {
    decay: f64,
    momentum: f64,
    rate: f64,
    step: f64,
    eeta: f64,
    adapts: u8,
}

unsafe extern "C" {
    fn flatnce_zero(tensors: *const *const C_tensor, count: usize) -> *mut c_char;
    fn flatnce_momentum_step(
        values: *const *const C_tensor,
        gradients: *const *const C_tensor,
        buffers: *const *const C_tensor,
        count: usize,
        rule: *const RawMomentum,
    ) -> *mut c_char;
}

/// Sets every tensor to 0.
///
/// Errors: libtorch's message.
pub fn zero(tensors: &[Tensor]) -> Result<(), TchError> {
    if tensors.is_empty() {
        return Ok(());
    }
    let tensors = pointers(tensors);
    // SAFETY: as many live tensors as are counted.
    checked(unsafe { flatnce_zero(tensors.as_ptr(), tensors.len()) })
}

/// Takes a step of every parameter, outside of autograd; gradients stay as they are.
///
/// Errors: libtorch's message; lists of different lengths.
pub fn momentum_step(
    values: &[Tensor],
    gradients: &[Tensor],
    buffers: &[Tensor],
    rule: Momentum,
) -> Result<(), TchError> {
    let count = values.len();
    if gradients.len() != count || buffers.len() != count {
        return Err(TchError::Torch(format!("{count} values, {} gradients, {}", gradients.len(), buffers.len())));
    }
    if count == 0 {
        return Ok(());
    }
    let Momentum { decay, momentum, rate, step, eeta } = rule;
    let raw = RawMomentum { decay, momentum, rate, step, eeta: eeta.unwrap_or(0.0), adapts: u8::from(eeta.is_some()) };
    let (values, gradients, buffers) = (pointers(values), pointers(gradients), pointers(buffers));
    let _guard = tch::no_grad_guard();
    // SAFETY: three lists of as many live tensors as are counted; `raw` outlives the call.
    checked(unsafe { flatnce_momentum_step(values.as_ptr(), gradients.as_ptr(), buffers.as_ptr(), count, &raw) })
}

fn pointers(tensors: &[Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(Tensor::as_ptr).collect()
}

/// As tch's own errors are, so that [`super::caught`] knows them.
fn checked(message: *mut c_char) -> Result<(), TchError> {
    outcome(message).map_err(|error| TchError::Torch(error.to_string()))
}
