//! Operations on lists of tensors (`lists.cpp`). A GPU is told of many tensors at a time; one by one, telling it takes
//! longer than the work of a small network.
//!
//! Learning rates and conditions are tensors, so that nothing here reads a number of the host that a recorded step would
//! keep for ever.

use super::outcome;
use std::ffi::c_char;
use tch::{TchError, Tensor};
use torch_sys::C_tensor;

/// The parameters of one step: equally many of each; a gradient in whatever order of dimensions.
#[derive(Clone, Copy, Debug)]
pub struct Stepped<'a> {
    pub values: &'a [Tensor],
    pub gradients: &'a [Tensor],
    /// Tensors of the optimiser's state, a list of each kind.
    pub state: &'a [&'a [Tensor]],
    /// `[]` float32, on the parameters' device.
    pub lr: &'a Tensor,
    /// `[]` float32: where it is not 0, nothing changes.
    pub left_out: Option<&'a Tensor>,
}

/// What an algorithm does with them, in PyTorch's terms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Algorithm {
    /// `g += decay p; m = momentum m + g; p -= lr m`; the state is the list of m, or empty without momentum.
    Sgd { decay: f64, momentum: f64 },
    /// `g += decay p; m = momentum m + lr trust g; p -= m` with trust = eeta |p| / |g|, 1 where either norm is 0 and
    /// without `eeta`; the state is the list of m.
    Lars { decay: f64, momentum: f64, eeta: Option<f64> },
    /// The state is the lists of first moments, second moments, and steps taken (`[]` float32 each).
    Adam { decay: f64, betas: (f64, f64), epsilon: f64 },
}

/// [`Stepped`] as C++ has it.
#[repr(C)]
struct RawStepped {
    values: *const *const C_tensor,
    gradients: *const *const C_tensor,
    state: [*const *const C_tensor; 3],
    count: usize,
    lr: *const C_tensor,
    left_out: *const C_tensor,
}

unsafe extern "C" {
    fn flatnce_zero(tensors: *const *const C_tensor, count: usize) -> *mut c_char;
    fn flatnce_drop_gradients(tensors: *const *const C_tensor, count: usize) -> *mut c_char;
    fn flatnce_unscale(
        gradients: *const *const C_tensor,
        count: usize,
        overflowed: *const C_tensor,
        inverse: *const C_tensor,
    ) -> *mut c_char;
    fn flatnce_sgd_step(stepped: *const RawStepped, decay: f64, momentum: f64) -> *mut c_char;
    fn flatnce_lars_step(stepped: *const RawStepped, decay: f64, momentum: f64, adapts: u8, eeta: f64) -> *mut c_char;
    fn flatnce_adam_step(
        stepped: *const RawStepped,
        decay: f64,
        first_beta: f64,
        second_beta: f64,
        epsilon: f64,
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

/// Takes the gradients of parameters away: the next backward pass leaves its own tensors in their place, instead of
/// adding to what is there.
///
/// Errors: libtorch's message.
pub fn drop_gradients<'a>(parameters: impl Iterator<Item = &'a Tensor>) -> Result<(), TchError> {
    let parameters: Vec<*const C_tensor> = parameters.map(Tensor::as_ptr).collect();
    // SAFETY: as many live tensors as are counted.
    checked(unsafe { flatnce_drop_gradients(parameters.as_ptr(), parameters.len()) })
}

/// Multiplies gradients with `inverse`, `[]` float32; where one of their numbers is not finite, `overflowed`, `[]`
/// float32, becomes 1.
///
/// Errors: libtorch's message.
pub fn unscale(gradients: &[Tensor], overflowed: &Tensor, inverse: &Tensor) -> Result<(), TchError> {
    if gradients.is_empty() {
        return Ok(());
    }
    let gradients = pointers(gradients);
    let _guard = tch::no_grad_guard();
    // SAFETY: as many live tensors as are counted, and two more.
    checked(unsafe { flatnce_unscale(gradients.as_ptr(), gradients.len(), overflowed.as_ptr(), inverse.as_ptr()) })
}

/// Takes a step of every parameter, outside of autograd; gradients stay as they are. Waits for nothing.
///
/// Errors: libtorch's message; lists of different lengths, or another number of them than the algorithm has.
pub fn step(stepped: Stepped, algorithm: Algorithm) -> Result<(), TchError> {
    let Stepped { values, gradients, state, lr, left_out } = stepped;
    let kinds = match algorithm {
        Algorithm::Sgd { momentum, .. } => usize::from(momentum != 0.0),
        Algorithm::Lars { .. } => 1,
        Algorithm::Adam { .. } => 3,
    };
    let count = values.len();
    if gradients.len() != count || state.len() != kinds || state.iter().any(|list| list.len() != count) {
        let lengths: Vec<usize> = state.iter().map(|list| list.len()).collect();
        let counts = format!("{count} values, {} gradients, state {lengths:?}", gradients.len());
        return Err(TchError::Torch(format!("{algorithm:?} does not go with {counts}")));
    }
    if count == 0 {
        return Ok(());
    }
    let (values, gradients) = (pointers(values), pointers(gradients));
    let lists: Vec<Vec<*const C_tensor>> = state.iter().map(|list| pointers(list)).collect();
    let list = |number: usize| lists.get(number).map_or(std::ptr::null(), |list| list.as_ptr());
    let raw = RawStepped {
        values: values.as_ptr(),
        gradients: gradients.as_ptr(),
        state: [list(0), list(1), list(2)],
        count,
        lr: lr.as_ptr(),
        left_out: left_out.map_or(std::ptr::null(), Tensor::as_ptr),
    };
    let _guard = tch::no_grad_guard();
    // SAFETY: lists of as many live tensors as are counted, as many lists as the algorithm reads; all outlive the call.
    checked(unsafe {
        match algorithm {
            Algorithm::Sgd { decay, momentum } => flatnce_sgd_step(&raw, decay, momentum),
            Algorithm::Lars { decay, momentum, eeta } => {
                flatnce_lars_step(&raw, decay, momentum, u8::from(eeta.is_some()), eeta.unwrap_or(0.0))
            }
            Algorithm::Adam { decay, betas: (first, second), epsilon } => {
                flatnce_adam_step(&raw, decay, first, second, epsilon)
            }
        }
    })
}

fn pointers(tensors: &[Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(Tensor::as_ptr).collect()
}

/// As tch's own errors are, so that [`super::caught`] knows them.
fn checked(message: *mut c_char) -> Result<(), TchError> {
    outcome(message).map_err(|error| TchError::Torch(error.to_string()))
}
