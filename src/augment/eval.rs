//! Transforms of evaluation and supervised training, on the CPU. Which one a data
//! set has: `data::protocol`.

use super::cpu::{Renderer, Resize};
use super::filter::Span;
use super::recipe::{CropBox, random_resized_crop};
use crate::config::{EvalTransform, Filter};
use crate::pixels::RgbRef;
use crate::rng::Stream;

impl EvalTransform {
    /// Whether two calls may differ; if not, features need computing once only.
    pub fn is_random(self) -> bool {
        matches!(self, EvalTransform::RandomCropFlip { .. } | EvalTransform::RandomShiftFlip { .. })
    }

    /// Side of the square that comes out.
    pub fn size_px(self) -> usize {
        match self {
            EvalTransform::Plain { size_px } | EvalTransform::RandomCropFlip { size_px, .. } => size_px,
            EvalTransform::ResizeCenterCrop { crop_px, .. } | EvalTransform::RandomShiftFlip { crop_px, .. } => crop_px,
        }
    }

    /// Transforms `source` into `out`, `[size_px, size_px, 3]`. Only a random transform draws from `stream`.
    ///
    /// # Panics
    /// If `source` is empty, `out` has another length, or `crop_px` is larger than `resize_px`.
    pub fn apply(self, renderer: &mut Renderer, source: RgbRef<'_>, stream: &mut Stream, out: &mut [u8]) {
        match self {
            EvalTransform::Plain { size_px } if source.width == size_px && source.height == size_px => {
                out.copy_from_slice(source.pixels);
            }
            EvalTransform::Plain { size_px } => {
                renderer.resize_into(source, &center_crop(source, size_px, size_px, Filter::Bilinear), out);
            }
            EvalTransform::ResizeCenterCrop { resize_px, crop_px, filter } => {
                renderer.resize_into(source, &center_crop(source, resize_px, crop_px, filter), out);
            }
            EvalTransform::RandomCropFlip { size_px, filter } => {
                let crop =
                    random_resized_crop(stream, source.width, source.height, (0.08, 1.0), (3.0 / 4.0, 4.0 / 3.0));
                let resize = Resize {
                    crop,
                    columns: Span::whole(crop.width, size_px),
                    rows: Span::whole(crop.height, size_px),
                    filter,
                    flip: stream.chance(0.5),
                };
                renderer.resize_into(source, &resize, out);
            }
            EvalTransform::RandomShiftFlip { resize_px, crop_px, filter, margin_px } => {
                let mut shift = || stream.below(2 * margin_px as u64 + 1) as isize - margin_px as isize;
                let (right, down) = (shift(), shift());
                let flip = stream.chance(0.5);
                let mut still = vec![0; out.len()];
                let plain = EvalTransform::ResizeCenterCrop { resize_px, crop_px, filter };
                if source.width == crop_px && source.height == crop_px && resize_px == crop_px {
                    still.copy_from_slice(source.pixels);
                } else {
                    plain.apply(renderer, source, stream, &mut still);
                }
                shift_into(&still, crop_px, (right, down), flip, out);
            }
        }
    }
}

/// Moves a square picture to the right and down, black where nothing was; mirrors the result.
fn shift_into(still: &[u8], side: usize, (right, down): (isize, isize), flip: bool, out: &mut [u8]) {
    let within = |place: usize, shift: isize| place.checked_add_signed(-shift).filter(|&from| from < side);
    for y in 0..side {
        for x in 0..side {
            let column = if flip { side - 1 - x } else { x };
            let pixel = &mut out[(y * side + x) * 3..][..3];
            match within(y, down).zip(within(column, right)) {
                Some((row, column)) => pixel.copy_from_slice(&still[(row * side + column) * 3..][..3]),
                None => pixel.fill(0),
            }
        }
    }
}

/// torchvision's `Resize(resize_px)` and `CenterCrop(crop_px)`; computes only the pixels that stay.
fn center_crop(source: RgbRef<'_>, resize_px: usize, crop_px: usize, filter: Filter) -> Resize {
    assert!(crop_px <= resize_px, "a {crop_px} px square does not fit into {resize_px} px");
    let short = source.width.min(source.height);
    let span = |input: usize| {
        // The longer side is truncated, the margin rounded half to even, as in Python.
        let output = if input == short { resize_px } else { (resize_px * input) / short };
        let first = ((output - crop_px) as f64 / 2.0).round_ties_even() as usize;
        Span { input, output, first, count: crop_px }
    };
    Resize {
        crop: CropBox::whole(source.width, source.height),
        columns: span(source.width),
        rows: span(source.height),
        filter,
        flip: false,
    }
}
