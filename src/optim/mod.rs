//! Optimisers whose whole state can be saved, in PyTorch's terms; tch's own
//! expose none. They know parameters and the learning rate of the step, not
//! epochs.

mod adam;
mod fused;
mod lars;
mod lbfgs;
mod momentum;
mod rate;
mod scaler;
mod schedule;
mod sgd;
mod update;

pub use adam::Adam;
pub use lars::Lars;
pub use lbfgs::Lbfgs;
pub use rate::Rate;
pub use scaler::Scaler;
pub use schedule::{Schedule, scaled_lr};
pub use sgd::Sgd;
pub use update::Update;

use crate::config::{OptimizerConfig, OptimizerName};
use crate::native::lists;
use crate::state::Parameter;
use anyhow::{Result, bail};
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
    Ok(match config.name {
        OptimizerName::Lars => Box::new(Lars::new(config, parameters)),
        OptimizerName::Sgd => Box::new(Sgd::new(config, parameters)),
        OptimizerName::Adam => Box::new(Adam::new(config, parameters)),
        OptimizerName::Lbfgs => bail!("LBFGS works for linear evaluation only; use lars, sgd or adam here"),
    })
}

/// Makes the parameters ready for a backward pass. In main memory gradients become 0 and keep their place; on a device
/// they are dropped, and those of the backward pass take their place without an addition.
pub fn clear_gradients(parameters: &[Parameter]) {
    if parameters.iter().any(|parameter| parameter.tensor.device().is_cuda()) {
        return lists::drop_gradients(parameters.iter().map(|parameter| &parameter.tensor)).unwrap();
    }
    let gradients = parameters.iter().map(|parameter| parameter.tensor.grad()).filter(Tensor::defined);
    let _guard = tch::no_grad_guard();
    lists::zero(&gradients.map(|mut gradient| gradient.detach_()).collect::<Vec<_>>()).unwrap();
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

/// Reads one saved tensor per parameter into `slots`.
fn load_slots(
    slots: &mut [Option<Tensor>],
    parameters: &[Parameter],
    name: &str,
    get: &dyn Fn(usize, &str) -> Option<Tensor>,
) -> Result<()> {
    let mut loaded = Vec::with_capacity(slots.len());
    for (index, parameter) in parameters.iter().enumerate() {
        let entry = get(index, name);
        if let Some(tensor) = &entry
            && tensor.size() != parameter.tensor.size()
        {
            bail!(
                "the optimiser's {name} of {} is {:?} in the file, {:?} in the model",
                parameter.name,
                tensor.size(),
                parameter.tensor.size()
            );
        }
        // Memory in the parameter's own layout, so that updates walk both in the same order.
        loaded.push(entry.map(|tensor| {
            let mut own = parameter.tensor.detach().zeros_like();
            own.copy_(&tensor);
            own
        }));
    }
    slots.iter_mut().zip(loaded).for_each(|(slot, entry)| *slot = entry);
    Ok(())
}

/// The state entries that one list of per-parameter tensors makes.
fn slot_entries(slots: &[Option<Tensor>], name: &'static str) -> Vec<StateEntry> {
    slots.iter().enumerate().filter_map(|(i, slot)| slot.as_ref().map(|t| (i, name, t.shallow_clone()))).collect()
}
