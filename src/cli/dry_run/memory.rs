//! How much memory a training step will take: an estimate from the shapes of the
//! convolutions.
//!
//! Against the peak of the whole process on a CPU (res10 to res50, 32 and 224
//! pixels, fp32 and bf16, batches of 8 to 128) it was between 17% below and 11%
//! above.

use crate::config::{OptimizerName, Precision, Stem};
use crate::state::Parameter;

/// The program, libtorch and their working space.
const PROGRAM_BYTES: u64 = 350 << 20;

/// Bytes by cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Weights, gradients and the optimiser's state.
    pub model: u64,
    /// What the backward pass needs of the forward pass, and the batch itself.
    pub activations: u64,
}

impl Estimate {
    pub fn total(self) -> u64 {
        PROGRAM_BYTES + self.model + self.activations
    }
}

/// What the shapes do not tell.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub stem: Stem,
    pub image_size_px: u32,
    /// Images that pass through the encoder at once: two views of each in pre-training.
    pub views: u64,
    pub precision: Precision,
    pub optimizer: OptimizerName,
}

/// Memory of one training step of an encoder with these parameters.
pub fn estimate(parameters: &[Parameter], step: Step) -> Estimate {
    let weights: u64 = parameters.iter().map(|p| p.tensor.numel() as u64).sum();
    // Weight and gradient, both float32, and the optimiser's moments.
    let copies = 2 + match step.optimizer {
        OptimizerName::Lars | OptimizerName::Sgd => 1,
        OptimizerName::Adam => 2,
        OptimizerName::Lbfgs => 10,
    };
    let cast = if step.precision == Precision::Fp32 { 0 } else { 2 };
    let element: u64 = if step.precision == Precision::Fp32 { 4 } else { 2 };

    let kept: u64 = parameters.iter().filter_map(|p| kept_numbers(p, step)).sum();
    let image = 3 * u64::from(step.image_size_px).pow(2);
    let per_view = kept * element + image * 8;
    Estimate { model: weights * (4 * copies + cast), activations: per_view * step.views }
}

/// Numbers that a convolution keeps per image for the backward pass, from its name and shape: its output and that
/// of its BatchNorm, which in a shortcut is added in place. `None` for other parameters.
fn kept_numbers(parameter: &Parameter, step: Step) -> Option<u64> {
    let size = parameter.tensor.size();
    let [channels, _, kernel, _] = size[..] else { return None };
    let side = u64::from(step.image_size_px);
    let (stem_side, trunk_side) = match step.stem {
        Stem::Small => (side, side),
        Stem::Imagenet => (side.div_ceil(2), side.div_ceil(4)),
    };
    let side = match parameter.name.strip_prefix("layer") {
        None => stem_side,
        Some(rest) => {
            let stage = u64::from(rest.bytes().next()? - b'1');
            // A bottleneck's first convolution comes before the one that halves.
            let halved = if kernel == 1 && rest.get(1..) == Some(".0.conv1.weight") { stage.max(1) - 1 } else { stage };
            trunk_side.div_ceil(1 << halved)
        }
    };
    let copies = if parameter.name.contains("downsample") { 1 } else { 2 };
    Some(copies * channels as u64 * side * side)
}
