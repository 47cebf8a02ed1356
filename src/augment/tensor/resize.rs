//! Crop and resize: Pillow's two passes, each a product with a matrix for every view.
//!
//! Pixels of 8 bits times weights of 22 bits add up to integers that float64 holds exactly, in whatever order a library
//! adds, and the result has the bits of the integer arithmetic of `resample`. Where float64 is slow, weights are halves of
//! 11 bits, whose sums float32 holds (and TF32 their factors). The crop and the flip are in the matrices: pixels outside
//! the box have weight 0.

use super::plan::{AXIS, Chunk, Numbers};
use super::planes;
use super::weights::{Products, Weights, matrices};
use tch::{Kind, Tensor};

/// u8 `[v, H, W, 3]` to levels f32 `[v, S, 3, S]` as the chunk's crops, flips and orders of passes say.
pub(super) fn resize(sources: &Tensor, chunk: &Chunk, numbers: &Numbers, size_px: usize, products: Products) -> Tensor {
    let products = products.exact_for(chunk.taps);
    let (size, side, views) = (sources.size(), size_px as i64, chunk.views as i64);
    let (height, width) = (size[1], size[2]);
    let axes = numbers.table(chunk.axes, AXIS);
    let both = matrices(&axes, side, chunk.taps as i64, height.max(width), products); // [2v, S, max(H, W)]
    let columns = both.map(|both| both.narrow(0, 0, views).narrow(2, 0, width)); // [v, S, W]
    let rows = both.map(|both| both.narrow(0, views, views).narrow(2, 0, height)); // [v, S, H]
    let levels = planes(sources, products.kind()); // [v, H, 3, W]
    let resized = match (chunk.horizontal_first.len, chunk.vertical_first.len) {
        (_, 0) => horizontal_first(&levels, &columns, &rows),
        (0, _) => vertical_first(&levels, &columns, &rows),
        _ => {
            let mut out = Tensor::empty([views, side, 3, side], (products.kind(), sources.device()));
            let mut some = |section, pass: fn(&Tensor, &Weights, &Weights) -> Tensor| {
                let list = numbers.integers(section);
                let of = |tensor: &Tensor| tensor.index_select(0, &list);
                let _ = out.index_copy_(0, &list, &pass(&of(&levels), &columns.map(of), &rows.map(of)));
            };
            some(chunk.horizontal_first, horizontal_first);
            some(chunk.vertical_first, vertical_first);
            out
        }
    };
    resized.to_kind(Kind::Float)
}

fn horizontal_first(levels: &Tensor, columns: &Weights, rows: &Weights) -> Tensor {
    let [views, height, _, width] = levels.size()[..] else { unreachable!("four dimensions") };
    let side = columns.outputs();
    let flat = levels.view([views, height * 3, width]);
    let narrowed = columns.resample(|matrix| flat.bmm(&matrix.transpose(1, 2))); // [v, 3H, S]
    let narrowed = narrowed.view([views, height, 3 * side]);
    let resized = rows.resample(|matrix| matrix.bmm(&narrowed)); // [v, S, 3S]
    resized.view([views, side, 3, side])
}

fn vertical_first(levels: &Tensor, columns: &Weights, rows: &Weights) -> Tensor {
    let [views, height, _, width] = levels.size()[..] else { unreachable!("four dimensions") };
    let side = columns.outputs();
    let flat = levels.view([views, height, 3 * width]);
    let shortened = rows.resample(|matrix| matrix.bmm(&flat)); // [v, S, 3W]
    let shortened = shortened.view([views, side * 3, width]);
    let resized = columns.resample(|matrix| shortened.bmm(&matrix.transpose(1, 2))); // [v, 3S, S]
    resized.view([views, side, 3, side])
}
