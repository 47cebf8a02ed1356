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

use super::fused::{Rule, Walk, Work};
use super::{Optimizer, StateEntry, become_unless, load_slots, slot_entries};
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
    walk: Walk,
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
        Lars {
            parameters,
            adapted,
            momentum: config.momentum,
            weight_decay: config.weight_decay,
            buffers,
            walk: Walk::default(),
        }
    }
}

/// The step of one parameter wherever it lies; no operation waits for a norm.
fn on_tensors(value: &mut Tensor, gradient: Tensor, buffer: &mut Tensor, rule: Rule, left_out: Option<&Tensor>) {
    let update = match rule.eeta {
        Some(eeta) => {
            let decayed = gradient + &*value * rule.decay;
            let (p_norm, g_norm) = (value.norm(), decayed.norm());
            // 0/0 and x/0 never win over the 1.
            let usable = p_norm.gt(0.0).logical_and(&g_norm.gt(0.0));
            let one = value.new_ones([], (value.kind(), value.device()));
            let trust = (p_norm / g_norm * eeta).where_self(&usable, &one);
            decayed * (trust * rule.rate)
        }
        None => gradient * rule.rate,
    };
    if left_out.is_none() {
        let m = buffer.g_mul_scalar_(rule.momentum).g_add_(&update);
        let _ = value.g_sub_(&m);
        return;
    }
    let m = &*buffer * rule.momentum + update;
    let next = &*value - &m;
    become_unless(left_out, buffer, &m);
    become_unless(left_out, value, &next);
}

impl Lars {
    fn run(&mut self, lr: f64, left_out: Option<&Tensor>) {
        let _guard = tch::no_grad_guard();
        let mut values: Vec<Tensor> = self.parameters.iter().map(|parameter| parameter.tensor.detach()).collect();
        let mut work = Vec::with_capacity(values.len());
        for ((value, buffer), (parameter, &adapted)) in
            values.iter_mut().zip(&mut self.buffers).zip(self.parameters.iter().zip(&self.adapted))
        {
            let gradient = parameter.tensor.grad();
            if !gradient.defined() {
                continue;
            }
            let (decay, eeta) = if adapted { (self.weight_decay, Some(EETA)) } else { (0.0, None) };
            let rule = Rule { decay, momentum: self.momentum, rate: lr, step: 1.0, eeta };
            let buffer = buffer.get_or_insert_with(|| value.zeros_like());
            if left_out.is_none() && Work::fits(value, &gradient, buffer) {
                work.push(Work::of(value, gradient, buffer, rule));
            } else {
                on_tensors(value, gradient, buffer, rule, left_out);
            }
        }
        self.walk.run(work);
    }
}

impl Optimizer for Lars {
    fn step(&mut self, lr: f64) {
        self.run(lr, None);
    }

    fn step_unless(&mut self, left_out: &Tensor, lr: f64) {
        self.run(lr, Some(left_out));
    }

    fn state(&self) -> Vec<StateEntry> {
        slot_entries(&self.buffers, "momentum_buffer")
    }

    fn load(&mut self, get: &dyn Fn(usize, &str) -> Option<Tensor>) -> Result<()> {
        load_slots(&mut self.buffers, &self.parameters, "momentum_buffer", get)
    }
}
