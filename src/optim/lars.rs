//! LARS, layer-wise adaptive rate scaling (You et al., arXiv 1708.03888;
//! upstream: `optimizer/lars.py`, whose exclusion list has no effect).
//!
//! ```text
//! g += wd p      trust = eeta |p| / |g|  (1 where either norm is 0)
//! m = mu m + lr trust g      p -= m
//! ```
//!
//! Excluded parameters (BatchNorm and biases by default) take neither decay nor
//! adaptation: trust 1 and wd 0.

use super::{Optimizer, StateEntry, load_slots, slot_entries};
use crate::config::OptimizerConfig;
use crate::state::{Parameter, Role};
use anyhow::Result;
use tch::Tensor;

/// The trust coefficient.
const EETA: f64 = 1e-3;

#[derive(Debug)]
pub struct Lars {
    parameters: Vec<Parameter>,
    /// True where a parameter is decayed and adapted.
    adapted: Vec<bool>,
    momentum: f64,
    weight_decay: f64,
    buffers: Vec<Option<Tensor>>,
}

impl Lars {
    pub fn new(config: &OptimizerConfig, parameters: Vec<Parameter>) -> Self {
        let adapted = parameters
            .iter()
            .map(|p| match p.role {
                Role::Weight => true,
                Role::Bias => !config.lars_exclude_bias,
                Role::BatchNorm => !config.lars_exclude_bn,
            })
            .collect();
        let buffers = parameters.iter().map(|_| None).collect();
        Lars { parameters, adapted, momentum: config.momentum, weight_decay: config.weight_decay, buffers }
    }
}

impl Optimizer for Lars {
    fn step(&mut self, lr: f64) {
        let _guard = tch::no_grad_guard();
        for ((parameter, buffer), &adapted) in self.parameters.iter().zip(&mut self.buffers).zip(&self.adapted) {
            let gradient = parameter.tensor.grad();
            if !gradient.defined() {
                continue;
            }
            let mut value = parameter.tensor.detach();
            let update = if adapted {
                let decayed = gradient + &value * self.weight_decay;
                let (p_norm, g_norm) = (value.norm(), decayed.norm());
                // Stays on the device: no step waits for a norm. 0/0 and x/0 never win over the 1.
                let usable = p_norm.gt(0.0).logical_and(&g_norm.gt(0.0));
                let trust =
                    (p_norm / g_norm * EETA).where_self(&usable, &value.new_ones([], (value.kind(), value.device())));
                decayed * (trust * lr)
            } else {
                gradient * lr
            };
            let m = buffer.get_or_insert_with(|| value.zeros_like());
            let m = m.g_mul_scalar_(self.momentum).g_add_(&update);
            let _ = value.g_sub_(&m);
        }
    }

    fn state(&self) -> Vec<StateEntry> {
        slot_entries(&self.buffers, "momentum_buffer")
    }

    fn load(&mut self, get: &dyn Fn(usize, &str) -> Option<Tensor>) -> Result<()> {
        load_slots(&mut self.buffers, &self.parameters, "momentum_buffer", get)
    }
}
