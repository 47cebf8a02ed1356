//! How much memory a training step will take: an estimate from the shapes of the
//! convolutions.
//!
//! What the backward pass needs is counted; two factors for each kind of device,
//! fitted to peaks, cover what is made on the way and what lies in gaps between:
//! on a CPU of whole processes (res10, res18 and res50, 32 px, fp32 and bf16,
//! batches of 4 to 64; tests/memory.rs prints how near it is), on a GPU of what
//! libtorch's allocator held (scripts/prove_gpu.sh, its stage memory).

use crate::config::{OptimizerName, Precision, Stem};
use crate::state::Parameter;
use tch::Device;

/// What is fitted.
struct Fitted {
    /// Whatever the step: working space of libraries, on a CPU also the pages of them that training touches.
    program: u64,
    /// Peak over what is kept for the backward pass: fragments of freed blocks, mostly.
    over_kept: f64,
    /// Tensors of the largest layer's size that live beside what is kept.
    largest_at_once: f64,
}

const CPU: Fitted = Fitted { program: 230 << 20, over_kept: 1.45, largest_at_once: 6.0 };

/// Working space of cuBLAS and of cuDNN; the driver's own is taken before what is free is asked. From res18 at 32 px, batches of 32,
/// 128 and 512, libtorch's kernels: 410, 960 and 3,160 MiB.
const GPU: Fitted = Fitted { program: 64 << 20, over_kept: 1.05, largest_at_once: 5.5 };

impl Fitted {
    fn of(device: Device) -> &'static Fitted {
        if device == Device::Cpu { &CPU } else { &GPU }
    }
}

/// Bytes by cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// What a process has taken before its first step.
    program: u64,
    /// Weights, gradients and the optimiser's state.
    pub model: u64,
    /// What the backward pass needs of the forward pass, what is made on the way, and the batch itself.
    pub activations: u64,
}

impl Estimate {
    /// All of the process.
    pub fn total(self) -> u64 {
        self.program + self.needed()
    }

    /// What a process that has been loaded will ask for.
    pub fn needed(self) -> u64 {
        self.model + self.activations
    }
}

/// What the shapes do not tell.
#[derive(Clone, Copy, Debug)]
pub struct StepSize {
    pub device: Device,
    pub stem: Stem,
    pub image_size_px: u32,
    /// Images that pass through the encoder at once: two views of each in pre-training.
    pub views: u64,
    pub precision: Precision,
    pub optimizer: OptimizerName,
}

/// Memory of one training step of an encoder with these parameters.
pub fn estimate(parameters: &[Parameter], step: StepSize) -> Estimate {
    let weights: u64 = parameters.iter().map(|p| p.tensor.numel() as u64).sum();
    // Weight and gradient, both float32, and the optimiser's moments.
    let copies = 2 + match step.optimizer {
        OptimizerName::Lars | OptimizerName::Sgd => 1,
        OptimizerName::Adam => 2,
        OptimizerName::Lbfgs => 10,
    };
    let cast = if step.precision == Precision::Fp32 { 0 } else { 2 };
    let element: f64 = if step.precision == Precision::Fp32 { 4.0 } else { 2.0 };

    let layers: Vec<Layer> = parameters.iter().filter_map(|p| Layer::of(p, step)).collect();
    let kept: u64 = layers.iter().map(|layer| layer.copies * layer.output).sum();
    let largest = layers.iter().map(|layer| layer.output).max().unwrap_or(0);
    let image = 3 * u64::from(step.image_size_px).pow(2) * 8;
    let fitted = Fitted::of(step.device);
    let per_view = (fitted.over_kept * (kept as f64 * element + pooled_bytes(step, element)))
        + fitted.largest_at_once * largest as f64 * element
        + image as f64;
    Estimate {
        program: fitted.program,
        model: weights * (4 * copies + cast),
        activations: (per_view * step.views as f64) as u64,
    }
}

/// Multiplications of one image's way through the convolutions.
pub fn multiplications(parameters: &[Parameter], stem: Stem, image_size_px: u32) -> f64 {
    let (precision, optimizer) = (Precision::Fp32, OptimizerName::Sgd);
    let step = StepSize { device: Device::Cpu, stem, image_size_px, views: 1, precision, optimizer };
    let of = |p: &Parameter| {
        let weights: i64 = p.tensor.size()[1..].iter().product();
        Layer::of(p, step).map_or(0.0, |layer| layer.output as f64 * weights as f64)
    };
    parameters.iter().map(of).sum()
}

/// The largest batch, in images of two views, whose step takes `free` bytes at most; `None` if not even 2 images do.
/// `short`: a batch of `step.views` is known not to fit, whatever the estimate says.
pub fn largest_batch(parameters: &[Parameter], step: StepSize, free: u64, short: bool) -> Option<u64> {
    let Estimate { model, activations, .. } = estimate(parameters, step);
    let room = free.checked_sub(model)? as f64 * 0.95;
    let per_image = 2.0 * activations as f64 / step.views.max(1) as f64;
    let asked = step.views as f64 / 2.0;
    // Where the estimate was too low, what there was is what was not enough.
    let per_image = if short { per_image.max(room / (0.95 * asked)) } else { per_image };
    let fits = (room / per_image) as u64;
    let fits = if short { fits.min(step.views / 2 - 1) } else { fits };
    let fits = if fits >= 32 { fits - fits % 8 } else { fits };
    (fits >= 2).then_some(fits)
}

/// The stem's pooling keeps its output and, in 64-bit numbers, where each maximum was.
fn pooled_bytes(step: StepSize, element: f64) -> f64 {
    match step.stem {
        Stem::Small => 0.0,
        Stem::Imagenet => 64.0 * f64::from(step.image_size_px.div_ceil(4)).powi(2) * (element + 8.0),
    }
}

/// A convolution with its BatchNorm, per image.
struct Layer {
    /// Numbers in its output.
    output: u64,
    /// How often so many are kept: the output and that of its BatchNorm, which in a shortcut is added in place.
    copies: u64,
}

impl Layer {
    /// From a parameter's name and shape; `None` where it is no convolution's weight.
    fn of(parameter: &Parameter, step: StepSize) -> Option<Layer> {
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
                let before = kernel == 1 && rest.get(1..) == Some(".0.conv1.weight");
                trunk_side.div_ceil(1 << if before { stage.max(1) - 1 } else { stage })
            }
        };
        let copies = if parameter.name.contains("downsample") { 1 } else { 2 };
        Some(Layer { output: channels as u64 * side * side, copies })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Encoder;

    fn of(views: u64) -> StepSize {
        StepSize {
            device: Device::Cpu,
            stem: Stem::Small,
            image_size_px: 32,
            views,
            precision: Precision::Fp32,
            optimizer: OptimizerName::Lars,
        }
    }

    #[test]
    fn the_largest_batch_fits_and_the_next_does_not() {
        let parameters = Encoder::small(8, 0).parameters();
        let free = 1 << 30;
        let batch = largest_batch(&parameters, of(1024), free, false).unwrap();
        assert!(estimate(&parameters, of(2 * batch)).needed() <= free);
        assert!(estimate(&parameters, of(2 * batch + 32)).needed() > free * 95 / 100);
        // Asked-for batches say nothing about the largest.
        assert_eq!(largest_batch(&parameters, of(64), free, false), Some(batch));
        assert_eq!(largest_batch(&parameters, of(64), 1 << 20, false), None);
    }

    #[test]
    fn a_batch_that_did_not_fit_is_never_named() {
        let parameters = Encoder::small(8, 0).parameters();
        // By the estimate 64 images fit easily.
        let batch = largest_batch(&parameters, of(128), 8 << 30, true).unwrap();
        assert!((32..64).contains(&batch), "{batch}");
    }
}
