//! Stochastic gradient descent with momentum, as `torch.optim.SGD`.
//!
//! ```text
//! g += wd p      m = g at first, then mu m + g      p -= lr m
//! ```

use super::momentum::Buffered;
use super::{Optimizer, Rate, StateEntry};
use crate::config::OptimizerConfig;
use crate::native::lists::{self, Algorithm, Stepped};
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

    /// No buffer, as PyTorch has none then.
    fn step_without_momentum(&self, rate: &Rate, left_out: Option<&Tensor>) {
        let _guard = tch::no_grad_guard();
        let trained = |parameter: &&Parameter| parameter.tensor.grad().defined();
        let (values, gradients): (Vec<Tensor>, Vec<Tensor>) = self
            .buffered
            .parameters()
            .iter()
            .filter(trained)
            .map(|parameter| (parameter.tensor.detach(), parameter.tensor.grad()))
            .unzip();
        let Some(first) = values.first() else { return };
        if rate.there().is_none() && left_out.is_none() {
            for (mut value, gradient) in values.into_iter().zip(gradients) {
                let next = &value - (gradient + &value * self.weight_decay) * rate.number();
                value.copy_(&next);
            }
            return;
        }
        let (lr, decay) = (rate.tensor(first.device()), self.weight_decay);
        let stepped = Stepped { values: &values, gradients: &gradients, state: &[], lr: &lr, left_out };
        lists::step(stepped, Algorithm::Sgd { decay, momentum: 0.0 }).unwrap();
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, rate: &Rate, left_out: Option<&Tensor>) {
        let &mut Sgd { momentum, weight_decay: decay, .. } = self;
        match momentum {
            0.0 => self.step_without_momentum(rate, left_out),
            momentum => self.buffered.step(|_| Algorithm::Sgd { decay, momentum }, rate, left_out),
        }
    }

    fn state(&self) -> Vec<StateEntry> {
        self.buffered.state()
    }

    fn load(&mut self, get: &dyn Fn(usize, &str) -> Option<Tensor>) -> Result<()> {
        self.buffered.load(get)
    }
}
