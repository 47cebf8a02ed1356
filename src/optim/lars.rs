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

use super::momentum::Buffered;
use super::{Optimizer, Rate, StateEntry};
use crate::config::OptimizerConfig;
use crate::native::lists::Algorithm;
use crate::state::{Parameter, Role};
use anyhow::Result;
use tch::Tensor;

/// The trust coefficient.
const EETA: f64 = 1e-3;

#[derive(Debug)]
pub struct Lars {
    buffered: Buffered,
    /// True where a parameter is decayed and adapted.
    adapted: Vec<bool>,
    momentum: f64,
    weight_decay: f64,
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
        let buffered = Buffered::new(parameters);
        Lars { buffered, adapted, momentum: config.momentum, weight_decay: config.weight_decay }
    }
}

impl Optimizer for Lars {
    fn step(&mut self, rate: &Rate, left_out: Option<&Tensor>) {
        let Lars { adapted, momentum, weight_decay, .. } = self;
        let algorithm = |index: usize| {
            let (decay, eeta) = if adapted[index] { (*weight_decay, Some(EETA)) } else { (0.0, None) };
            Algorithm::Lars { decay, momentum: *momentum, eeta }
        };
        self.buffered.step(algorithm, rate, left_out);
    }

    fn state(&self) -> Vec<StateEntry> {
        self.buffered.state()
    }

    fn load(&mut self, get: &dyn Fn(usize, &str) -> Option<Tensor>) -> Result<()> {
        self.buffered.load(get)
    }
}
