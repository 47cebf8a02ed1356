//! What happens to the parameters around one backward pass, with loss scaling and without.

use super::{Optimizer, Rate, Scaler, clear_gradients};
use crate::state::Parameter;
use tch::Tensor;

/// One step's update: begun before the forward pass, finished after the backward pass.
pub struct Update<'a> {
    optimizer: &'a mut dyn Optimizer,
    parameters: &'a [Parameter],
    scaler: Option<&'a mut Scaler>,
}

impl<'a> Update<'a> {
    /// Clears the gradients; with a scaler, remembers what the forward pass is going to change.
    pub fn begin(
        optimizer: &'a mut dyn Optimizer,
        parameters: &'a [Parameter],
        mut scaler: Option<&'a mut Scaler>,
    ) -> Update<'a> {
        clear_gradients(parameters);
        if let Some(scaler) = &mut scaler {
            scaler.remember_statistics();
        }
        Update { optimizer, parameters, scaler }
    }

    /// What is to run backward, a loss or the gradient of one, times the loss scale where there is one.
    pub fn scaled(&self, tensor: &Tensor) -> Tensor {
        match &self.scaler {
            Some(scaler) => tensor * scaler.scale(),
            None => tensor.shallow_clone(),
        }
    }

    /// From gradients to parameters. With a scaler, gives what [`Scaler::step`] gives.
    pub fn finish(self, rate: &Rate) -> Option<Tensor> {
        match self.scaler {
            Some(scaler) => Some(scaler.step(self.optimizer, self.parameters, rate)),
            None => {
                self.optimizer.step(rate, None);
                None
            }
        }
    }
}
