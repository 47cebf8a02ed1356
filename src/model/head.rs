//! What replaces torchvision's `fc`: the projection head of pre-training and
//! the linear classifier of evaluation, under upstream's names. Both compute in
//! float32; they cost next to nothing beside the trunk.

use super::layers::{BatchNorm, Builder, Linear, Pass};
use crate::config::{HeadConfig, HeadMode};
use tch::Tensor;

/// The projection head (`fc.linear_layers.net.*`), or a classifier (`fc.linear_layer.net.0`).
#[derive(Debug)]
pub enum Head {
    /// Linear layers with ReLU between them.
    Nonlinear(Vec<Linear>),
    /// One linear layer and BatchNorm.
    Linear(Linear, BatchNorm),
    /// The trunk's features themselves.
    None,
    Classifier(Linear),
}

impl Head {
    /// The projection head of a configuration on features of width `input`.
    pub fn projection(b: &mut Builder, config: HeadConfig, input: i64) -> Head {
        let out = i64::from(config.out_dim);
        b.scope("fc.linear_layers.net", |b| match config.mode {
            HeadMode::None => Head::None,
            HeadMode::Linear => Head::Linear(b.linear("0", input, out), b.batch_norm("1", out)),
            HeadMode::Nonlinear => Head::Nonlinear(
                (0..config.layers)
                    .map(|i| {
                        let last = i + 1 == config.layers;
                        b.linear(&(2 * i).to_string(), input, if last { out } else { input })
                    })
                    .collect(),
            ),
        })
    }

    /// A linear classifier over `classes` classes.
    pub fn classifier(b: &mut Builder, input: i64, classes: i64) -> Head {
        b.scope("fc.linear_layer.net", |b| Head::Classifier(b.linear("0", input, classes)))
    }

    /// P; `None` where it is that of the trunk.
    pub fn width(&self) -> Option<i64> {
        match self {
            Head::None => None,
            Head::Linear(linear, _) | Head::Classifier(linear) => Some(linear.outputs()),
            Head::Nonlinear(layers) => layers.last().map(Linear::outputs),
        }
    }

    /// `[M, D]` float32 to `[M, P]` float32.
    pub fn forward(&self, hidden: &Tensor, pass: Pass) -> Tensor {
        match self {
            Head::None => hidden.shallow_clone(),
            Head::Linear(linear, bn) => bn.forward(&linear.forward(hidden), pass),
            Head::Classifier(linear) => linear.forward(hidden),
            Head::Nonlinear(layers) => {
                let mut x = hidden.shallow_clone();
                for (i, layer) in layers.iter().enumerate() {
                    x = layer.forward(&x);
                    if i + 1 < layers.len() {
                        x = x.relu_();
                    }
                }
                x
            }
        }
    }
}
