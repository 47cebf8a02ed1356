//! The linear classifier on frozen features (upstream: `fc.linear_layer.net.0`).

use crate::model::{Builder, Head, Pass, Registry};
use crate::state::{Parameter, StateDict};
use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};

/// `x W^T + b`, W `[C, D]`, b `[C]`, float32.
#[derive(Debug)]
pub struct Classifier {
    head: Head,
    registry: Registry,
}

impl Classifier {
    /// Initialised as `torch.nn.Linear`, from `seed`.
    pub fn new(width: i64, classes: i64, device: Device, seed: u64) -> Classifier {
        let mut builder = Builder::new(device, seed);
        let head = Head::classifier(&mut builder, width, classes);
        Classifier { head, registry: builder.finish() }
    }

    /// Features `[M, D]` to logits `[M, C]`.
    pub fn logits(&self, features: &Tensor) -> Tensor {
        self.head.forward(features, Pass::eval(Kind::Float))
    }

    /// Weight, then bias.
    pub fn parameters(&self) -> Vec<Parameter> {
        self.registry.parameters()
    }

    pub fn state_dict(&self) -> StateDict {
        self.registry.state_dict()
    }

    /// Errors: entries that are missing, unexpected or mis-shaped.
    pub fn load(&self, state: &StateDict) -> Result<()> {
        self.registry.load(state, &[]).context("it is a classifier of other features or classes")
    }

    /// Weight and bias one after the other, `[C * D + C]`; a copy.
    pub fn flat(&self) -> Tensor {
        let parts: Vec<Tensor> = self.parameters().iter().map(|p| p.tensor.detach().reshape([-1])).collect();
        Tensor::cat(&parts, 0)
    }

    /// The reverse of [`Classifier::flat`].
    pub fn set_flat(&self, flat: &Tensor) {
        let _guard = tch::no_grad_guard();
        let mut first = 0;
        for parameter in self.parameters() {
            let count = parameter.tensor.numel() as i64;
            parameter.tensor.detach().copy_(&flat.narrow(0, first, count).view_as(&parameter.tensor));
            first += count;
        }
    }
}
