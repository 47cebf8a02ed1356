//! Stochastic gradient descent with momentum, as `torch.optim.SGD`.
//!
//! ```text
//! g += wd p      m = g at first, then mu m + g      p -= lr m
//! ```

use super::fused::{Rule, Walk, Work};
use super::{Optimizer, StateEntry, become_unless, load_slots, slot_entries};
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
    walk: Walk,
}

impl Sgd {
    pub fn new(config: &OptimizerConfig, parameters: Vec<Parameter>) -> Self {
        let buffers = parameters.iter().map(|_| None).collect();
        Sgd { parameters, momentum: config.momentum, weight_decay: config.weight_decay, buffers, walk: Walk::default() }
    }
}

impl Sgd {
    fn run(&mut self, lr: f64, left_out: Option<&Tensor>) {
        let _guard = tch::no_grad_guard();
        let mut values: Vec<Tensor> = self.parameters.iter().map(|parameter| parameter.tensor.detach()).collect();
        let mut work = Vec::with_capacity(values.len());
        let rule = Rule { decay: self.weight_decay, momentum: self.momentum, rate: 1.0, step: lr, eeta: None };
        for ((value, buffer), parameter) in values.iter_mut().zip(&mut self.buffers).zip(&self.parameters) {
            let gradient = parameter.tensor.grad();
            if !gradient.defined() {
                continue;
            }
            if self.momentum == 0.0 {
                // No buffer, as PyTorch has none then.
                let update = (gradient + &*value * self.weight_decay) * lr;
                let next = &*value - update;
                become_unless(left_out, value, &next);
                continue;
            }
            // Zeros at first make m = g.
            let buffer = buffer.get_or_insert_with(|| value.zeros_like());
            if left_out.is_some() {
                let m = &*buffer * rule.momentum + (gradient + &*value * rule.decay);
                let next = &*value - &m * rule.step;
                become_unless(left_out, buffer, &m);
                become_unless(left_out, value, &next);
            } else if Work::fits(value, &gradient, buffer) {
                work.push(Work::of(value, gradient, buffer, rule));
            } else {
                let m = buffer.g_mul_scalar_(rule.momentum).g_add_(&(gradient + &*value * rule.decay));
                let _ = value.g_sub_(&(m * rule.step));
            }
        }
        self.walk.run(work);
    }
}

impl Optimizer for Sgd {
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
