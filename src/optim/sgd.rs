//! Stochastic gradient descent with momentum, as `torch.optim.SGD`.
//!
//! ```text
//! g += wd p      m = g at first, then mu m + g      p -= lr m
//! ```

use super::fused::Rule;
use super::momentum::Buffered;
use super::{Optimizer, StateEntry, become_unless};
use crate::config::OptimizerConfig;
use crate::state::Parameter;
use anyhow::Result;
use tch::Tensor;

#[derive(Debug)]
pub struct Sgd {
    buffered: Buffered,
    momentum: f64,
    weight_decay: f64,
}

impl Sgd {
    pub fn new(config: &OptimizerConfig, parameters: Vec<Parameter>) -> Self {
        let buffered = Buffered::new(parameters);
        Sgd { buffered, momentum: config.momentum, weight_decay: config.weight_decay }
    }

    fn run(&mut self, lr: f64, left_out: Option<&Tensor>) {
        let &mut Sgd { momentum, weight_decay, .. } = self;
        if momentum == 0.0 {
            return self.run_without_momentum(lr, left_out);
        }
        let rule = Rule { decay: weight_decay, momentum, rate: 1.0, step: lr, eeta: None };
        self.buffered.step(|_| rule, left_out);
    }

    /// No buffer, as PyTorch has none then.
    fn run_without_momentum(&self, lr: f64, left_out: Option<&Tensor>) {
        let _guard = tch::no_grad_guard();
        for parameter in self.buffered.parameters() {
            let gradient = parameter.tensor.grad();
            if gradient.defined() {
                let mut value = parameter.tensor.detach();
                let next = &value - (gradient + &value * self.weight_decay) * lr;
                become_unless(left_out, &mut value, &next);
            }
        }
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
        self.buffered.state()
    }

    fn load(&mut self, get: &dyn Fn(usize, &str) -> Option<Tensor>) -> Result<()> {
        self.buffered.load(get)
    }
}
