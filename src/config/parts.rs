//! What several jobs have: data, views, network, optimiser, checkpoints.

use super::choices::{
    BadImages, DatasetName, Depth, HeadMode, KeyPrefix, Labels, OptimizerName, Orientation, ScheduleName, Stem,
};
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
    /// Nobody asked for this size: an evaluation may take that of its encoder.
    #[serde(skip)]
    pub size_is_default: bool,
    /// The images are read once and in their order, by what writes them elsewhere.
    #[serde(skip)]
    pub in_order: bool,
    /// Train on so many images only, chosen at random once and for all; `None` = all.
    #[serde(default)]
    pub train_images: Option<u32>,
    #[serde(default)]
    pub bad_images: BadImages,
    /// Further directories or archives whose images join those of `root`, where the source takes several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_roots: Vec<PathBuf>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub orientation: Orientation,
    /// `None`: as the layout of the images suggests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
}

/// Settings that older versions did not know are left out where nobody asks for them.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl DataConfig {
    /// A whole data set below `root`, at a size, with nothing else asked for.
    pub fn new(dataset: DatasetName, root: impl Into<PathBuf>, image_size_px: u32) -> Self {
        DataConfig {
            dataset,
            root: root.into(),
            image_size_px,
            size_is_default: false,
            in_order: false,
            train_images: None,
            bad_images: BadImages::default(),
            more_roots: Vec::new(),
            orientation: Orientation::default(),
            labels: None,
        }
    }

    /// Every place that the images come from.
    pub fn roots(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.root).chain(&self.more_roots)
    }
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

impl Default for Augmentation {
    /// What the paper's recipe has for every data set; the rest follows from the data set (`data::protocol`).
    fn default() -> Self {
        Augmentation {
            crop_scale_min: 0.08,
            crop_scale_max: 1.0,
            crop_ratio_min: 3.0 / 4.0,
            crop_ratio_max: 4.0 / 3.0,
            flip_prob: 0.5,
            jitter_prob: 0.8,
            jitter_strength: 1.0,
            grayscale_prob: 0.2,
            blur_prob: 0.0,
            blur_kernel_px: 3,
            blur_sigma_min: 0.1,
            blur_sigma_max: 2.0,
        }
    }
}

/// An interpolation filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Triangle of half-width 1.
    Bilinear,
    /// Keys' cubic with a = -1/2, of half-width 2.
    Bicubic,
}

/// Makes a square image for a classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvalTransform {
    /// The image as it is. One of another size is resized (bilinear) and cropped to the centre square.
    Plain { size_px: usize },
    /// The shorter side becomes `resize_px`, then the central `crop_px` square is cut out.
    ResizeCenterCrop { resize_px: usize, crop_px: usize, filter: Filter },
    /// A box of 8 to 100% of the area and ratio 3/4 to 4/3, resized, and mirrored half of the time.
    RandomCropFlip { size_px: usize, filter: Filter },
    /// As `ResizeCenterCrop`, then moved by up to `margin_px` in each direction, black where nothing was, and mirrored
    /// half of the time: padding and a random crop, as small images are usually trained on.
    RandomShiftFlip { resize_px: usize, crop_px: usize, filter: Filter, margin_px: usize },
}

/// Per-channel mean and standard deviation (RGB, input in `[0, 1]`) applied inside the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Normalisation {
    pub mean: [f32; 3],
    pub std: [f32; 3],
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

impl OptimizerConfig {
    /// LARS's trust coefficient.
    pub const EETA: f64 = 1e-3;
    /// Adam's, as PyTorch's defaults are.
    pub const BETAS: (f64, f64) = (0.9, 0.999);
    pub const EPSILON: f64 = 1e-8;
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
