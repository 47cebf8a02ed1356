//! What several jobs have: data, views, network, optimiser, checkpoints.

use super::choices::{BadImages, DatasetName, Depth, HeadMode, KeyPrefix, OptimizerName, ScheduleName, Stem};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which data, and where it lies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataConfig {
    pub dataset: DatasetName,
    /// The directory that holds the data sets; for `folder`, the images themselves.
    pub root: PathBuf,
    /// Side of the square images given to the encoder.
    pub image_size_px: u32,
    /// Train on so many images only, chosen at random once and for all; `None` = all.
    #[serde(default)]
    pub train_images: Option<u32>,
    #[serde(default)]
    pub bad_images: BadImages,
}

/// The distribution of the views (reference: the paper's recipe per data set).
///
/// Order per view: random resized crop, horizontal flip, colour jitter
/// (brightness, contrast, saturation, hue in random order), greyscale, blur.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Augmentation {
    /// Smallest and largest share of the image's area that a crop covers.
    pub crop_scale_min: f64,
    pub crop_scale_max: f64,
    /// Smallest and largest width / height of a crop.
    pub crop_ratio_min: f64,
    pub crop_ratio_max: f64,
    pub flip_prob: f64,
    pub jitter_prob: f64,
    /// `s`: brightness, contrast and saturation vary by 0.8 s, hue by 0.2 s.
    pub jitter_strength: f64,
    pub grayscale_prob: f64,
    /// 0 turns the blur off.
    pub blur_prob: f64,
    /// Side of the Gaussian kernel, odd.
    pub blur_kernel_px: u32,
    pub blur_sigma_min: f64,
    pub blur_sigma_max: f64,
}

impl Augmentation {
    /// The paper's recipe for a data set at a given image side; `tensor_engine` is upstream's
    /// `faster_version`, which blurs CIFAR-10 too.
    pub fn paper(dataset: DatasetName, image_size_px: u32, tensor_engine: bool) -> Self {
        let (strength, blur) = match dataset {
            DatasetName::Cifar10 => (0.5, tensor_engine),
            DatasetName::Cifar100 => (0.5, false),
            DatasetName::Stl10 => (1.0, false),
            DatasetName::TinyImagenet => (0.0, false),
            DatasetName::FashionMnist | DatasetName::FashionMnistMini => (0.5, false),
            _ => (1.0, true),
        };
        let kernel = image_size_px / 10;
        Augmentation {
            crop_scale_min: 0.08,
            crop_scale_max: 1.0,
            crop_ratio_min: 3.0 / 4.0,
            crop_ratio_max: 4.0 / 3.0,
            flip_prob: 0.5,
            jitter_prob: 0.8,
            jitter_strength: strength,
            grayscale_prob: 0.2,
            blur_prob: if blur { 0.5 } else { 0.0 },
            blur_kernel_px: (kernel | 1).max(3),
            blur_sigma_min: 0.1,
            blur_sigma_max: 2.0,
        }
    }
}

/// Per-channel mean and standard deviation (RGB, input in `[0, 1]`) applied inside the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalisation {
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

impl Normalisation {
    /// Upstream's constants.
    pub fn of(dataset: DatasetName) -> Self {
        let (mean, std) = match dataset {
            DatasetName::Cifar10 => ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
            DatasetName::Cifar100 => ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]),
            DatasetName::TinyImagenet => ([0.48, 0.4481, 0.3977], [0.276, 0.270, 0.282]),
            DatasetName::Imagenet => ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            _ => ([0.5; 3], [0.5; 3]),
        };
        Normalisation { mean, std }
    }
}

/// The projection head that replaces `fc` during pre-training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadConfig {
    pub mode: HeadMode,
    /// Linear layers of the nonlinear head.
    pub layers: u32,
    pub out_dim: u32,
}

/// Trunk, stem, normalisation and projection head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    pub depth: Depth,
    pub stem: Stem,
    pub normalisation: Normalisation,
    pub head: HeadConfig,
}

/// Optimiser and its constants. Not every field is used by every algorithm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptimizerConfig {
    pub name: OptimizerName,
    /// The schedule's factor multiplies this.
    pub lr: f64,
    pub weight_decay: f64,
    pub momentum: f64,
    /// LARS: parameters of BatchNorm take neither decay nor adaptation.
    pub lars_exclude_bn: bool,
    /// LARS: biases take neither decay nor adaptation.
    pub lars_exclude_bias: bool,
}

/// The schedule of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleConfig {
    pub name: ScheduleName,
    pub warmup_epochs: u32,
}

/// Which checkpoints of a run are written beside those of whole epochs, which stay, and how they spell names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckpointPolicy {
    /// Within epochs too, after so many steps; `None` = not.
    pub every_n_steps: Option<u32>,
    /// The newest so many stay; `None` = all.
    pub keep_last: Option<u32>,
    /// Those of every so many epochs stay for good.
    pub keep_every: Option<u32>,
    pub prefix: KeyPrefix,
}

/// What a GPU may do to float32 and to the order of sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numerics {
    /// float32 products may be rounded to TF32.
    pub allow_tf32: bool,
    /// The same bits every time.
    pub deterministic: bool,
}
