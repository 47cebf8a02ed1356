//! The random parameters of one view.
//!
//! Upstream: `RandomResizedCrop`, `RandomHorizontalFlip`,
//! `RandomApply([ColorJitter(.8s, .8s, .8s, .2s)])`, `RandomGrayscale` and
//! `RandomApply([GaussianBlur])` of torchvision, in this order. The distributions
//! are torchvision's; the draws are ours, from a stream keyed by the view.

use super::{OP_COUNT, OPS, Op};
use crate::config::Augmentation;
use crate::rng::Stream;

/// A rectangle of pixels inside an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropBox {
    pub top: usize,
    pub left: usize,
    pub height: usize,
    pub width: usize,
}

impl CropBox {
    /// The whole of a `width` x `height` image.
    pub fn whole(width: usize, height: usize) -> Self {
        CropBox { top: 0, left: 0, height, width }
    }

    /// # Panics
    /// If it is empty or leaves a `width` x `height` image.
    pub(super) fn check(&self, width: usize, height: usize) {
        let inside = self.left + self.width <= width && self.top + self.height <= height;
        assert!(self.width > 0 && self.height > 0 && inside, "{self:?} is not inside a {width} x {height} image");
    }
}

/// One of the four operations of colour jitter; the numbers are the kernel's (`view_color.cuh`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JitterOp {
    Brightness = 1,
    Contrast = 2,
    Saturation = 3,
    Hue = 4,
}

/// Colour jitter: factors, and the order in which they apply.
///
/// float32, as torchvision draws them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter {
    pub order: [JitterOp; 4],
    /// 1 changes nothing, 0 gives black.
    pub brightness: f32,
    /// 1 changes nothing, 0 gives the mean grey level.
    pub contrast: f32,
    /// 1 changes nothing, 0 gives greyscale.
    pub saturation: f32,
    /// Shift of the hue in turns: 0 changes nothing, 0.5 gives the opposite colour.
    pub hue: f32,
}

impl Jitter {
    /// The operations in their order, each with its factor.
    pub(super) fn steps(&self) -> [(JitterOp, f32); 4] {
        self.order.map(|op| match op {
            JitterOp::Brightness => (op, self.brightness),
            JitterOp::Contrast => (op, self.contrast),
            JitterOp::Saturation => (op, self.saturation),
            JitterOp::Hue => (op, self.hue),
        })
    }
}

/// Everything random about one view.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ViewParameters {
    pub crop: CropBox,
    pub flip: bool,
    pub jitter: Option<Jitter>,
    /// The number of each operation of [`OPS`] that the view has.
    pub ops: [Option<f32>; OP_COUNT],
}

impl ViewParameters {
    /// A plain crop: no flip, no change of colour, no blur.
    pub fn crop_only(crop: CropBox) -> Self {
        ViewParameters { crop, flip: false, jitter: None, ops: [None; OP_COUNT] }
    }

    /// The same crop and flip, colours as they are.
    pub fn without_colors(self) -> Self {
        ViewParameters { flip: self.flip, ..ViewParameters::crop_only(self.crop) }
    }

    /// The number drawn for an operation, if the view has it.
    pub fn of(&self, op: &Op) -> Option<f32> {
        self.ops[op.place()]
    }

    /// The same view, with an operation or without it.
    pub fn with(mut self, op: &Op, number: Option<f32>) -> Self {
        self.ops[op.place()] = number;
        self
    }
}

/// Draws the parameters of one view of a `width` x `height` image.
pub fn draw(recipe: &Augmentation, stream: &mut Stream, width: usize, height: usize) -> ViewParameters {
    let crop = random_resized_crop(
        stream,
        width,
        height,
        (recipe.crop_scale_min, recipe.crop_scale_max),
        (recipe.crop_ratio_min, recipe.crop_ratio_max),
    );
    let flip = stream.chance(recipe.flip_prob);
    // torchvision leaves out an operation whose range is a point: without strength nothing is left.
    let jitter = (recipe.jitter_strength > 0.0 && stream.chance(recipe.jitter_prob))
        .then(|| draw_jitter(stream, recipe.jitter_strength));
    ViewParameters { crop, flip, jitter, ops: OPS.map(|op| (op.draw)(recipe, stream)) }
}

/// `ColorJitter.get_params` with `(.8s, .8s, .8s, .2s)`.
fn draw_jitter(stream: &mut Stream, strength: f64) -> Jitter {
    let mut order = [JitterOp::Brightness, JitterOp::Contrast, JitterOp::Saturation, JitterOp::Hue];
    stream.shuffle(&mut order);
    let (low, high) = ((1.0 - 0.8 * strength).max(0.0), 1.0 + 0.8 * strength);
    Jitter {
        order,
        brightness: stream.range(low, high) as f32,
        contrast: stream.range(low, high) as f32,
        saturation: stream.range(low, high) as f32,
        hue: stream.range(-0.2 * strength, 0.2 * strength) as f32,
    }
}

/// `RandomResizedCrop.get_params`: area uniform in `scale` x the image's area, logarithm of
/// width / height uniform in `ratio`; after ten boxes that do not fit, the largest central box whose
/// ratio is allowed.
///
/// Sides round half to even, as Python's `round` does.
pub fn random_resized_crop(
    stream: &mut Stream,
    width: usize,
    height: usize,
    scale: (f64, f64),
    ratio: (f64, f64),
) -> CropBox {
    let area = (width * height) as f64;
    let side = |length: f64| length.round_ties_even() as usize;
    for _ in 0..10 {
        let target = area * stream.range(scale.0, scale.1);
        let aspect = stream.range(ratio.0.ln(), ratio.1.ln()).exp();
        let (w, h) = (side((target * aspect).sqrt()), side((target / aspect).sqrt()));
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = stream.below((height - h + 1) as u64) as usize;
            let left = stream.below((width - w + 1) as u64) as usize;
            return CropBox { top, left, height: h, width: w };
        }
    }
    let in_ratio = width as f64 / height as f64;
    // Never empty, however thin the image: torchvision would fail there.
    let (w, h) = if in_ratio < ratio.0 {
        (width, side(width as f64 / ratio.0).clamp(1, height))
    } else if in_ratio > ratio.1 {
        (side(height as f64 * ratio.1).clamp(1, width), height)
    } else {
        (width, height)
    };
    CropBox { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
}
