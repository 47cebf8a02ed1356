//! The encoder: normalisation inside, a ResNet trunk, and a head in place of
//! torchvision's `fc` (upstream: `models/resnet.py`, `models/utils.py`).

mod batch_norm;
pub mod footprint;
mod head;
mod layers;
mod resnet;

pub use head::Head;
pub use layers::{BatchNorm, Builder, Linear, Pass, Registry, channels_last};
pub use resnet::{BlockPlan, LayerPlan, TrunkPlan, feature_dim, layers, stage_width, stages, trunk_weights};

use crate::config::ModelConfig;
use crate::state::{Parameter, StateDict};
use anyhow::Result;
use resnet::Trunk;
use tch::{Device, Kind, Tensor};

/// What sits on the trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// The projection head of [`ModelConfig::head`].
    Projection,
    /// A linear classifier over this many classes.
    Classifier(i64),
}

/// The output of one forward pass over M images.
#[derive(Debug)]
pub struct Features {
    /// The trunk's output, `[M, D]` float32.
    pub hidden: Tensor,
    /// The head's output, `[M, P]` float32: projections, or a classifier's logits.
    pub projected: Tensor,
}

/// Normalisation, trunk and head.
#[derive(Debug)]
pub struct Encoder {
    mean: Tensor,
    std: Tensor,
    trunk: Trunk,
    head: Head,
    width: i64,
    registry: Registry,
}

/// Names that belong to the head, in every spelling of it.
pub const HEAD_PREFIX: &str = "fc.";

/// Names of the constants that images are normalised with.
pub const NORMALISATION_PREFIX: &str = "normalize.";

impl Encoder {
    /// A new encoder with weights drawn from `seed`.
    pub fn new(config: &ModelConfig, head: HeadKind, device: Device, seed: u64) -> Encoder {
        let mut b = Builder::new(device, seed);
        let (mean, std) = b.scope("normalize", |b| {
            (b.buffer("mean", &config.normalisation.mean), b.buffer("std", &config.normalisation.std))
        });
        let trunk = Trunk::new(&mut b, config.depth, config.stem);
        let width = feature_dim(config.depth);
        let head = match head {
            HeadKind::Projection => Head::projection(&mut b, config.head, width),
            HeadKind::Classifier(classes) => Head::classifier(&mut b, width, classes),
        };
        Encoder { mean, std, trunk, head, width, registry: b.finish() }
    }

    /// 8-bit images `[M, H, W, 3]`, on any device, to what [`Encoder::forward`] takes: `[M, 3, H, W]` float32 in
    /// [0, 1] on the encoder's device, channels last in memory.
    pub fn prepare(&self, images: &Tensor) -> Tensor {
        images.to_device(self.mean.device()).permute([0, 3, 1, 2]).to_kind(Kind::Float).g_div_scalar_(255.0)
    }

    /// Images `[M, 3, H, W]` float32 in [0, 1] to the trunk's features `[M, D]` float32.
    pub fn hidden(&self, images: &Tensor, pass: Pass) -> Tensor {
        let normalised = (images - self.mean.view([1, 3, 1, 1])) / self.std.view([1, 3, 1, 1]);
        self.trunk.forward(&normalised.to_kind(pass.compute), pass)
    }

    /// Images `[M, 3, H, W]` float32 in [0, 1] to features.
    pub fn forward(&self, images: &Tensor, pass: Pass) -> Features {
        let hidden = self.hidden(images, pass);
        let projected = self.head.forward(&hidden, pass);
        Features { hidden, projected }
    }

    /// The head alone: `[M, D]` float32 to `[M, P]` float32.
    pub fn head(&self, hidden: &Tensor, pass: Pass) -> Tensor {
        self.head.forward(hidden, pass)
    }

    /// D, the width of the trunk's features.
    pub fn trunk_width(&self) -> i64 {
        self.width
    }

    /// P, the width of the head's output.
    pub fn projected_width(&self) -> i64 {
        self.head.width().unwrap_or(self.width)
    }

    /// Where the network is.
    pub fn device(&self) -> Device {
        self.mean.device()
    }

    /// Trained tensors in PyTorch's order.
    pub fn parameters(&self) -> Vec<Parameter> {
        self.registry.parameters()
    }

    /// BatchNorm's running means and variances, live.
    pub fn running_statistics(&self) -> Vec<Tensor> {
        self.registry.running_statistics()
    }

    /// Counts a batch that went through a recorded forward pass.
    pub fn count_batch(&self) {
        self.registry.count_batch();
    }

    /// How many batches every BatchNorm has counted.
    pub fn batches_counted(&self) -> Vec<i64> {
        self.registry.batches_counted()
    }

    /// Makes the counts what [`Encoder::batches_counted`] gave.
    pub fn set_batches_counted(&self, counts: &[i64]) {
        self.registry.set_batches_counted(counts);
    }

    /// The live state in PyTorch's order and names.
    pub fn state_dict(&self) -> StateDict {
        self.registry.state_dict()
    }

    /// Loads every entry.
    ///
    /// Errors: missing, unexpected and mis-shaped entries, all at once; nothing is changed then.
    pub fn load(&self, state: &StateDict) -> Result<()> {
        self.registry.load(state, &[])
    }

    /// Loads normalisation and trunk from a state dict with any head; this encoder's head stays as it is.
    pub fn load_trunk(&self, state: &StateDict) -> Result<()> {
        let trunk = state.renamed(|name| (!name.starts_with(HEAD_PREFIX)).then(|| name.to_owned()));
        self.registry.load(&trunk, &[HEAD_PREFIX])
    }

    /// As [`Encoder::load_trunk`], and the normalisation stays as it is too where the state has none.
    pub fn load_backbone(&self, state: &StateDict) -> Result<()> {
        let trunk = state.renamed(|name| (!name.starts_with(HEAD_PREFIX)).then(|| name.to_owned()));
        self.registry.load(&trunk, &[HEAD_PREFIX, NORMALISATION_PREFIX])
    }
}

#[cfg(test)]
impl Encoder {
    /// A res10 for images of some pixels on the CPU, with `out_dim` columns of projections.
    pub(crate) fn small(out_dim: u32, seed: u64) -> Encoder {
        use crate::config::{Depth, HeadConfig, HeadMode, Normalisation, Stem};
        let config = ModelConfig {
            depth: Depth::Res10,
            stem: Stem::Small,
            normalisation: Normalisation { mean: [0.5; 3], std: [0.25; 3] },
            head: HeadConfig { mode: HeadMode::Nonlinear, layers: 2, out_dim },
        };
        Encoder::new(&config, HeadKind::Projection, Device::Cpu, seed)
    }
}
