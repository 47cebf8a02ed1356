//! Views described for the kernel that renders each of them whole (`native::cuda::kernels`): a row of 32-bit words a view.

use crate::augment::blur;
use crate::augment::filter::Span;
use crate::augment::recipe::{JitterOp, ViewParameters};
use crate::augment::{hue, resample};
use crate::native::cuda::kernels::VIEW_WORDS;

/// Words a view, for a blur of `kernel_px` pixels: those of `view_layout.h`, then the kernel's centre and one side.
pub(super) fn words(kernel_px: usize) -> usize {
    VIEW_WORDS + kernel_px / 2 + 1
}

/// Rows of [`words`] for views of `size_px` pixels a side.
pub(super) fn describe(views: &[ViewParameters], size_px: usize, kernel_px: usize) -> Vec<i32> {
    let mut all = Vec::with_capacity(views.len() * words(kernel_px));
    for view in views {
        let end = all.len() + words(kernel_px);
        all.extend(head(view, size_px));
        let weights = view.blur_sigma.map(|sigma| blur::half_kernel(kernel_px / 2, sigma)).unwrap_or_default();
        all.push(weights.len() as i32);
        all.extend(weights.into_iter().map(bits));
        all.resize(end, 0);
    }
    all
}

/// The words before the blur's.
fn head(view: &ViewParameters, size_px: usize) -> [i32; VIEW_WORDS - 1] {
    let crop = view.crop;
    let (columns, rows) = (Span::whole(crop.width, size_px), Span::whole(crop.height, size_px));
    let order = view.jitter.map_or([0; 4], |jitter| jitter.order.map(operation));
    let factor = |of: fn(&crate::augment::Jitter) -> f32| view.jitter.as_ref().map_or(0, |jitter| bits(of(jitter)));
    [
        crop.top as i32,
        crop.left as i32,
        crop.height as i32,
        crop.width as i32,
        view.flip.into(),
        resample::vertical_first(columns, rows).into(),
        order[0],
        order[1],
        order[2],
        order[3],
        factor(|jitter| jitter.brightness),
        factor(|jitter| jitter.contrast),
        factor(|jitter| jitter.saturation),
        view.jitter.map_or(0, |jitter| hue::steps(jitter.hue).into()),
        view.grayscale.into(),
    ]
}

/// A colour operation's number in `VIEW_ORDER`.
fn operation(op: JitterOp) -> i32 {
    match op {
        JitterOp::Brightness => 1,
        JitterOp::Contrast => 2,
        JitterOp::Saturation => 3,
        JitterOp::Hue => 4,
    }
}

fn bits(number: f32) -> i32 {
    number.to_bits() as i32
}
