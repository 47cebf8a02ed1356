//! Stochastic gradient descent with momentum, as `torch.optim.SGD`.
//!
//! ```text
//! g += wd p      m = g at first, then mu m + g      p -= lr m
//! ```

use super::{Optimizer, StateEntry, load_slots, slot_entries};
use crate::config::OptimizerConfig;
use crate::state::Parameter;
use anyhow::Result;
use tch::Tensor;

#[derive(Debug)]
pub struct Sgd {
    parameters: Vec<Parameter>,
    momentum: f64,
    weight_decay: f64,
    buffers: Vec<Option<Tensor>>,
}

impl Sgd {
    pub fn new(config: &OptimizerConfig, parameters: Vec<Parameter>) -> Self {
        let buffers = parameters.iter().map(|_| None).collect();
        Sgd { parameters, momentum: config.momentum, weight_decay: config.weight_decay, buffers }
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, lr: f64) {
        let _guard = tch::no_grad_guard();
        for (parameter, buffer) in self.parameters.iter().zip(&mut self.buffers) {
            let gradient = parameter.tensor.grad();
            if !gradient.defined() {
                continue;
            }
            let mut value = parameter.tensor.detach();
            let decayed = if self.weight_decay == 0.0 { gradient } else { gradient + &value * self.weight_decay };
            let update = match buffer {
                _ if self.momentum == 0.0 => decayed,
                Some(m) => m.g_mul_scalar_(self.momentum).g_add_(&decayed),
                None => {
                    let mut first = value.zeros_like();
                    first.copy_(&decayed);
                    buffer.insert(first).shallow_clone()
                }
            };
            let _ = value.g_sub_(&(update * lr));
        }
    }

    fn state(&self) -> Vec<StateEntry> {
        slot_entries(&self.buffers, "momentum_buffer")
    }

    fn load(&mut self, get: &dyn Fn(usize, &str) -> Option<Tensor>) -> Result<()> {
        load_slots(&mut self.buffers, &self.parameters, "momentum_buffer", get)
    }
}
