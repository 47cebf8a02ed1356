//! How upstream treats the images of a data set: size, views, normalisation, and
//! what a classifier sees. Each source's row (`source.rs`) has one.
//!
//! Upstream: plain images for the CIFAR-like sets; for ImageNet `RandomResizedCrop`
//! with bicubic interpolation and a flip in training, `Resize(256, bicubic)` and
//! `CenterCrop(224)` in validation; `Resize(224, bicubic)` and `CenterCrop(224)`
//! for the transfer sets. `--fc-augment` chooses another one for the training.

use super::source_of;
use crate::config::{Augmentation, ClassifierAugment, DatasetName, EvalTransform, Filter, Normalisation};

/// What follows from the data set where nothing else is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// Side in pixels of the square images that the set holds, or, for sets of photographs in all sizes, at which it is
    /// customarily trained.
    pub size_px: u32,
    /// Whether all its images have this size. An encoder is evaluated on others at the size that it was trained at.
    pub fixed_size: bool,
    /// Whether the images are read as one block of memory, all of one size; others are decoded as they come.
    pub packed: bool,
    /// `s` of the paper's colour jitter.
    pub jitter_strength: f64,
    pub blur: Blur,
    /// Upstream's constants.
    pub normalisation: Normalisation,
    /// What the test images pass through, for images of so many pixels a side.
    pub evaluation: fn(usize) -> EvalTransform,
    /// What the training images of a classifier have beyond that.
    pub training: ClassifierAugment,
    /// The same on a frozen trunk, where nothing random lets the images go through it once instead of in every epoch.
    pub frozen: ClassifierAugment,
    /// Whether SimCLR's lists of 1 and 10 percent lie beside the images.
    pub label_lists: bool,
}

/// Whether the paper blurs views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blur {
    Off,
    /// Only upstream's `faster_version` does.
    FasterVersion,
    On,
}

/// Small images of one size, such as CIFAR's.
pub const SMALL: Protocol = Protocol {
    size_px: 32,
    fixed_size: true,
    packed: true,
    jitter_strength: 0.5,
    blur: Blur::Off,
    normalisation: Normalisation { mean: [0.5; 3], std: [0.5; 3] },
    evaluation: |size_px| EvalTransform::Plain { size_px },
    training: ClassifierAugment::None,
    frozen: ClassifierAugment::None,
    label_lists: false,
};

/// Photographs in all sizes.
pub const PHOTOGRAPHS: Protocol = Protocol {
    size_px: 224,
    fixed_size: false,
    packed: false,
    jitter_strength: 1.0,
    blur: Blur::On,
    evaluation: |size_px| centre(size_px, size_px),
    ..SMALL
};

/// Photographs as ImageNet's are treated.
pub const LIKE_IMAGENET: Protocol = Protocol {
    evaluation: |size_px| centre(size_px * 256 / 224, size_px),
    training: ClassifierAugment::CropFlip,
    frozen: ClassifierAugment::CropFlip,
    ..PHOTOGRAPHS
};

/// One's own images: like ImageNet's, but without published numbers that would ask for random crops on a frozen trunk.
pub const OWN_IMAGES: Protocol = Protocol { frozen: ClassifierAugment::None, ..LIKE_IMAGENET };

fn centre(resize_px: usize, crop_px: usize) -> EvalTransform {
    EvalTransform::ResizeCenterCrop { resize_px, crop_px, filter: Filter::Bicubic }
}

/// The protocol of a data set.
pub fn protocol(dataset: DatasetName) -> &'static Protocol {
    &source_of(dataset).protocol
}

impl Augmentation {
    /// The paper's recipe for a data set at a given image side; `faster_version` is upstream's, which blurs CIFAR-10 too.
    pub fn paper(dataset: DatasetName, image_size_px: u32, faster_version: bool) -> Self {
        let Protocol { jitter_strength, blur, .. } = *protocol(dataset);
        let blurs = blur == Blur::On || (blur == Blur::FasterVersion && faster_version);
        Augmentation {
            jitter_strength,
            blur_prob: if blurs { 0.5 } else { 0.0 },
            blur_kernel_px: ((image_size_px / 10) | 1).max(3),
            ..Augmentation::default()
        }
    }
}

impl Normalisation {
    /// Upstream's constants.
    pub fn of(dataset: DatasetName) -> Self {
        protocol(dataset).normalisation
    }
}

impl EvalTransform {
    /// What upstream evaluates `dataset` with; sizes scale with `image_size_px` (224 at ImageNet).
    pub fn evaluation(dataset: DatasetName, image_size_px: usize) -> Self {
        (protocol(dataset).evaluation)(image_size_px)
    }

    /// What a classifier on `dataset` is trained with: as `asked`, else as upstream does.
    pub fn training(dataset: DatasetName, image_size_px: usize, asked: Option<ClassifierAugment>) -> Self {
        let plain = Self::evaluation(dataset, image_size_px);
        match asked.unwrap_or(protocol(dataset).training) {
            ClassifierAugment::None => plain,
            ClassifierAugment::CropFlip => {
                EvalTransform::RandomCropFlip { size_px: image_size_px, filter: Filter::Bicubic }
            }
            ClassifierAugment::ShiftFlip => {
                let (resize_px, filter) = match plain {
                    EvalTransform::ResizeCenterCrop { resize_px, filter, .. } => (resize_px, filter),
                    // Images of another size than their set's own are resized as for the test.
                    _ => (image_size_px, Filter::Bilinear),
                };
                let (crop_px, margin_px) = (image_size_px, image_size_px / 8);
                EvalTransform::RandomShiftFlip { resize_px, crop_px, filter, margin_px }
            }
        }
    }
}
