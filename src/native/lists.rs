//! Operations on lists of tensors (`lists.cpp`). A GPU is told of many tensors at a time; one by one, telling it takes
//! longer than the work of a small network.
//!
//! Learning rates and conditions are tensors, so that nothing here reads a number of the host that a recorded step would
//! keep for ever.

use super::outcome;
use std::ffi::c_char;
use tch::{TchError, Tensor};
use torch_sys::C_tensor;

/// A parameter whose step is to be taken, with the gradient in whatever order of dimensions.
#[derive(Debug)]
pub struct Stepped<'a> {
    pub value: &'a Tensor,
    pub gradient: Tensor,
    /// What the algorithm remembers: a tensor of each of [`Algorithm::state`].
    pub state: &'a [Tensor],
}

/// What happens to a parameter p with the gradient g in one step, in PyTorch's terms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Algorithm {
    /// Stochastic gradient descent, as `torch.optim.SGD`: `g += decay p; m = momentum m + g; p -= lr m`. Without momentum
    /// m is g.
    Sgd { decay: f64, momentum: f64 },
    /// Layer-wise adaptive rate scaling (You et al., arXiv 1708.03888): `g += decay p; m = momentum m + lr trust g;
    /// p -= m` with `trust = eeta |p| / |g|`, 1 where either norm is 0 and without `eeta`.
    Lars { decay: f64, momentum: f64, eeta: Option<f64> },
    /// Adam (Kingma and Ba, arXiv 1412.6980), as `torch.optim.Adam`: `g += decay p; m = b1 m + (1-b1) g;
    /// u = b2 u + (1-b2) g^2; p -= lr m / (1 - b1^k) / (sqrt(u / (1 - b2^k)) + epsilon)` in step k, counted from 1.
    Adam { decay: f64, betas: (f64, f64), epsilon: f64 },
}

impl Algorithm {
    /// PyTorch's name for the number of steps that were taken, `[]` float32; all other state has the parameter's shape.
    pub const STEP: &'static str = "step";

    /// PyTorch's names of what a parameter's next step depends on.
    pub fn state(self) -> &'static [&'static str] {
        match self {
            Algorithm::Sgd { momentum: 0.0, .. } => &[],
            Algorithm::Sgd { .. } | Algorithm::Lars { .. } => &["momentum_buffer"],
            Algorithm::Adam { .. } => &[Algorithm::STEP, "exp_avg", "exp_avg_sq"],
        }
    }
}

/// Parameters of one algorithm, as C++ has them.
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
    fn flatnce_drop_gradients(tensors: *const *const C_tensor, count: usize) -> *mut c_char;
    fn flatnce_unscale(
        gradients: *const *const C_tensor,
        count: usize,
        overflowed: *const C_tensor,
        inverse: *const C_tensor,
    ) -> *mut c_char;
    fn flatnce_sgd_step(stepped: *const RawStepped, decay: f64, momentum: f64) -> *mut c_char;
    fn flatnce_lars_step(stepped: *const RawStepped, decay: f64, momentum: f64, eeta: f64) -> *mut c_char;
    fn flatnce_adam_step(
        stepped: *const RawStepped,
        decay: f64,
        first_beta: f64,
        second_beta: f64,
        epsilon: f64,
    ) -> *mut c_char;
}

/// Takes the gradients of parameters away: the next backward pass leaves its own tensors in their place, instead of
/// adding to what is there.
///
/// Errors: libtorch's message.
pub fn drop_gradients<'a>(parameters: impl Iterator<Item = &'a Tensor>) -> Result<(), TchError> {
    let parameters: Vec<*const C_tensor> = parameters.map(Tensor::as_ptr).collect();
    // SAFETY: as many live tensors as are counted.
    Ok(outcome(unsafe { flatnce_drop_gradients(parameters.as_ptr(), parameters.len()) })?)
}

/// Multiplies gradients with `inverse`, `[]` float32; where one of their numbers is not finite, `overflowed`, `[]`
/// float32, becomes 1.
///
/// Errors: libtorch's message.
pub fn unscale(gradients: &[Tensor], overflowed: &Tensor, inverse: &Tensor) -> Result<(), TchError> {
    if gradients.is_empty() {
        return Ok(());
    }
    let gradients: Vec<*const C_tensor> = gradients.iter().map(Tensor::as_ptr).collect();
    let _guard = tch::no_grad_guard();
    let (overflowed, inverse) = (overflowed.as_ptr(), inverse.as_ptr());
    // SAFETY: as many live tensors as are counted, and two more.
    Ok(outcome(unsafe { flatnce_unscale(gradients.as_ptr(), gradients.len(), overflowed, inverse) })?)
}

/// Takes a step of every parameter, outside of autograd; gradients stay as they are. `lr` is `[]`; where `left_out`, `[]`
/// float32, is not 0, nothing changes. Both are on the parameters' device, and nothing waits for it.
///
/// Errors: libtorch's message; a parameter with other state than the algorithm's.
pub fn step(
    algorithm: Algorithm,
    parameters: &[Stepped],
    lr: &Tensor,
    left_out: Option<&Tensor>,
) -> Result<(), TchError> {
    let kinds = algorithm.state().len();
    if let Some(other) = parameters.iter().find(|parameter| parameter.state.len() != kinds) {
        return Err(TchError::Torch(format!("{algorithm:?} does not go with {} state tensors", other.state.len())));
    }
    if parameters.is_empty() {
        return Ok(());
    }
    let column =
        |of: &dyn Fn(&Stepped) -> *const C_tensor| -> Vec<*const C_tensor> { parameters.iter().map(of).collect() };
    let (values, gradients) = (column(&|one| one.value.as_ptr()), column(&|one| one.gradient.as_ptr()));
    let state = [0, 1, 2].map(|kind| column(&|one| one.state.get(kind).map_or(std::ptr::null(), Tensor::as_ptr)));
    let raw = RawStepped {
        values: values.as_ptr(),
        gradients: gradients.as_ptr(),
        state: [0, 1, 2].map(|kind| state[kind].as_ptr()),
        count: parameters.len(),
        lr: lr.as_ptr(),
        left_out: left_out.map_or(std::ptr::null(), Tensor::as_ptr),
    };
    let _guard = tch::no_grad_guard();
    // SAFETY: lists of as many live tensors as are counted, as many lists as the algorithm reads; all outlive the call.
    Ok(outcome(unsafe {
        match algorithm {
            Algorithm::Sgd { decay, momentum } => flatnce_sgd_step(&raw, decay, momentum),
            Algorithm::Lars { decay, momentum, eeta } => flatnce_lars_step(&raw, decay, momentum, eeta.unwrap_or(0.0)),
            Algorithm::Adam { decay, betas: (first, second), epsilon } => {
                flatnce_adam_step(&raw, decay, first, second, epsilon)
            }
        }
    })?)
}
