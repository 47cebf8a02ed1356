//! Crop and resize: Pillow's two passes, each a product with a matrix for every view.
//!
//! Pixels of 8 bits times weights of 22 bits add up to integers far below 2^53, so float64 holds every sum exactly, in
//! whatever order a library adds, and the result has the bits of the integer arithmetic of `resample`. The crop and the
//! flip are in the matrices: pixels outside the box have weight 0.

use super::numbers::Numbers;
use super::plan::{AXIS, Chunk};
use super::planes;
use super::weights::matrices;
use crate::augment::filter::WEIGHT_BITS;
use tch::{Kind, Tensor};

/// u8 `[v, H, W, 3]` to levels f32 `[v, S, 3, S]` as the chunk's crops, flips and orders of passes say.
pub(super) fn resize(sources: &Tensor, chunk: &Chunk, numbers: &Numbers, size_px: usize) -> Tensor {
    let (size, side, views) = (sources.size(), size_px as i64, chunk.views as i64);
    let (height, width) = (size[1], size[2]);
    let axes = numbers.table(chunk.axes, AXIS);
    let both = matrices(&axes, side, chunk.taps as i64, height.max(width)); // [2v, S, max(H, W)]
    let columns = both.narrow(0, 0, views).narrow(2, 0, width); // [v, S, W]
    let rows = both.narrow(0, views, views).narrow(2, 0, height); // [v, S, H]
    let levels = planes(sources, Kind::Double); // [v, H, 3, W]
    let resized = match (chunk.horizontal_first.len, chunk.vertical_first.len) {
        (_, 0) => horizontal_first(&levels, &columns, &rows),
        (0, _) => vertical_first(&levels, &columns, &rows),
        _ => {
            let mut out = Tensor::empty([views, side, 3, side], (Kind::Double, sources.device()));
            let mut some = |section, pass: fn(&Tensor, &Tensor, &Tensor) -> Tensor| {
                let list = numbers.integers(section);
                let of = |tensor: &Tensor| tensor.index_select(0, &list);
                let _ = out.index_copy_(0, &list, &pass(&of(&levels), &of(&columns), &of(&rows)));
            };
            some(chunk.horizontal_first, horizontal_first);
            some(chunk.vertical_first, vertical_first);
            out
        }
    };
    resized.to_kind(Kind::Float)
}

fn horizontal_first(levels: &Tensor, columns: &Tensor, rows: &Tensor) -> Tensor {
    let [views, height, _, width] = levels.size()[..] else { unreachable!("four dimensions") };
    let side = columns.size()[1];
    let narrowed = to_levels(levels.view([views, height * 3, width]).bmm(&columns.transpose(1, 2))); // [v, 3H, S]
    let resized = to_levels(rows.bmm(&narrowed.view([views, height, 3 * side]))); // [v, S, 3S]
    resized.view([views, side, 3, side])
}

fn vertical_first(levels: &Tensor, columns: &Tensor, rows: &Tensor) -> Tensor {
    let [views, height, _, width] = levels.size()[..] else { unreachable!("four dimensions") };
    let side = columns.size()[1];
    let shortened = to_levels(rows.bmm(&levels.view([views, height, 3 * width]))); // [v, S, 3W]
    let resized = to_levels(shortened.view([views, side * 3, width]).bmm(&columns.transpose(1, 2))); // [v, 3S, S]
    resized.view([views, side, 3, side])
}

/// Sums in units of 2^-22 to levels: rounded and cut, in place.
fn to_levels(mut sums: Tensor) -> Tensor {
    let half = f64::from(1 << (WEIGHT_BITS - 1));
    let unit = 1.0 / f64::from(1 << WEIGHT_BITS);
    sums.g_add_scalar_(half).g_mul_scalar_(unit).floor_().clamp_(0.0, 255.0)
}
