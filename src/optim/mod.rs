//! Optimisers whose whole state can be saved, in PyTorch's terms; tch's own
//! expose none. They know parameters and the learning rate of the step, not
//! epochs.

mod first_order;
mod fused;
mod lbfgs;
mod rate;
mod scaler;
mod schedule;
mod update;

pub use first_order::keeps_state;
pub use lbfgs::Lbfgs;
pub use rate::Rate;
pub use scaler::Scaler;
pub use schedule::{Schedule, scaled_lr};
pub use update::Update;

use crate::config::OptimizerConfig;
use crate::native::lists;
use crate::state::Parameter;
use anyhow::Result;
use first_order::FirstOrder;
use tch::{Kind, Tensor};

/// One state tensor of one parameter: (parameter's index in PyTorch's order, PyTorch's name of the entry, tensor).
pub type StateEntry = (usize, &'static str, Tensor);

/// An optimisation algorithm over a fixed list of parameters.
pub trait Optimizer {
    /// Updates every parameter that has a gradient, with this step's learning rate, and clears nothing. Where `left_out`,
    /// `[]` float32 on the parameters' device, is 1 and not 0, no parameter and no state changes: the device decides, and
    /// nothing waits for it.
    fn step(&mut self, rate: &Rate, left_out: Option<&Tensor>);

    /// The state to save; the tensors are live.
    fn state(&self) -> Vec<StateEntry>;

    /// Takes saved state: `get(index, name)` answers with the saved tensor, or `None` for a parameter that had none.
    ///
    /// Errors: an entry of another shape than its parameter; nothing is changed then.
    fn load(&mut self, get: &dyn Fn(usize, &str) -> Option<Tensor>) -> Result<()>;
}

/// The optimiser that a configuration names.
///
/// Errors: LBFGS, which needs the whole data in one step and so serves the linear evaluation only.
pub fn build(config: &OptimizerConfig, parameters: Vec<Parameter>) -> Result<Box<dyn Optimizer>> {
    Ok(Box::new(FirstOrder::new(config, parameters)?))
}

/// Makes the parameters ready for a backward pass. In main memory gradients become 0 and keep their place; on a device
/// they are dropped, and those of the backward pass take their place without an addition.
pub fn clear_gradients(parameters: &[Parameter]) {
    if parameters.iter().any(|parameter| parameter.tensor.device().is_cuda()) {
        return lists::drop_gradients(parameters.iter().map(|parameter| &parameter.tensor)).unwrap();
    }
    let gradients = parameters.iter().map(|parameter| parameter.tensor.grad()).filter(Tensor::defined);
    let _guard = tch::no_grad_guard();
    gradients.for_each(|mut gradient| drop(gradient.detach_().zero_()));
}

/// The Euclidean norm of all gradients together, `[]` float32 on the device; what was not trained counts as 0.
pub fn gradient_norm(parameters: &[Parameter]) -> Tensor {
    let _guard = tch::no_grad_guard();
    let norms: Vec<Tensor> =
        parameters.iter().map(|p| p.tensor.grad()).filter(Tensor::defined).map(|g| g.norm()).collect();
    if norms.is_empty() {
        return Tensor::zeros([], (Kind::Float, tch::Device::Cpu));
    }
    Tensor::stack(&norms, 0).norm()
}
