//! Views described for the kernel that renders each of them whole (`native::cuda::kernels`): a row of 32-bit words a view.

use crate::augment::filter::Span;
use crate::augment::recipe::{JitterOp, ViewParameters};
use crate::augment::{OP_COUNT, OPS, hue, resample};
use crate::native::cuda::kernels::VIEW_WORDS;

/// Words before those of the operations.
const HEAD: usize = 6;
/// Words of an operation: its code, where its numbers begin, and how many there are.
const STEP: usize = 3;
// Each of `view_layout.h`'s operations has its place.
const _: () = assert!(HEAD + STEP * (4 + OP_COUNT) <= VIEW_WORDS);

/// Words a view, for a blur of `kernel_px` pixels: those of `view_layout.h`, then the operations' numbers.
pub(super) fn words(kernel_px: usize) -> usize {
    VIEW_WORDS + 4 + OPS.iter().map(|op| (op.most_numbers)(kernel_px)).sum::<usize>()
}

/// Rows of [`words`] for views of `size_px` pixels a side.
pub(super) fn describe(views: &[ViewParameters], size_px: usize, kernel_px: usize) -> Vec<i32> {
    let mut all = vec![0; views.len() * words(kernel_px)];
    for (view, row) in views.iter().zip(all.chunks_exact_mut(words(kernel_px))) {
        let crop = view.crop;
        let (columns, rows) = (Span::whole(crop.width, size_px), Span::whole(crop.height, size_px));
        let corner = [crop.top, crop.left, crop.height, crop.width].map(|length| length as i32);
        row[..4].copy_from_slice(&corner);
        row[4..HEAD].copy_from_slice(&[view.flip.into(), resample::vertical_first(columns, rows).into()]);
        let (mut step, mut end) = (HEAD, VIEW_WORDS);
        let mut push = |code: i32, numbers: &[f32]| {
            row[step..][..STEP].copy_from_slice(&[code, end as i32, numbers.len() as i32]);
            for (word, number) in row[end..].iter_mut().zip(numbers) {
                *word = number.to_bits() as i32;
            }
            (step, end) = (step + STEP, end + numbers.len());
        };
        for (op, factor) in view.jitter.iter().flat_map(|jitter| jitter.steps()) {
            push(op as i32, &[if op == JitterOp::Hue { hue::steps(factor).into() } else { factor }]);
        }
        for (op, number) in OPS.iter().zip(view.ops) {
            if let Some(number) = number {
                push(op.code, &(op.numbers)(number, kernel_px));
            }
        }
    }
    all
}
