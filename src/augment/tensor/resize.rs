//! Crop and resize: Pillow's two passes, each a product with a matrix for every view.
//!
//! Pixels of 8 bits times weights of 22 bits add up to integers that float64 holds exactly, in whatever order a library
//! adds, and the result has the bits of the integer arithmetic of `resample`. Where float64 is slow, weights are halves of
//! 11 bits, whose sums float32 holds (and TF32 their factors). The crop and the flip are in the matrices: pixels outside
//! the box have weight 0.

use super::plan::{AXIS, Chunk, Numbers};
use super::planes;
use super::weights::matrices;
use crate::augment::filter::WEIGHT_BITS;
use crate::device;
use tch::{Device, Kind, Tensor};

/// Bits of the lower half of a weight.
pub(super) const LOW_BITS: u32 = WEIGHT_BITS / 2;
/// Sums of more lower halves of weights times levels may be beyond 2^24 with what rounds them, and so beyond float32.
const MOST_TAPS_IN_HALVES: usize = ((1 << 24) - (1 << (WEIGHT_BITS - 1))) / (255 * ((1 << LOW_BITS) - 1));

/// What the products are computed in. No pixel depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Products {
    Float64,
    /// Two products of float32, of the halves of the weights.
    Float32Halves,
}

impl Products {
    /// The faster on a device.
    pub(super) fn for_device(device: Device) -> Products {
        if device::has_fast_float64(device) { Products::Float64 } else { Products::Float32Halves }
    }

    /// What is exact with windows of so many taps.
    fn exact_for(self, taps: usize) -> Products {
        if taps > MOST_TAPS_IN_HALVES { Products::Float64 } else { self }
    }

    fn kind(self) -> Kind {
        match self {
            Products::Float64 => Kind::Double,
            Products::Float32Halves => Kind::Float,
        }
    }
}

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

/// Matrices of weights `[R, S, length]`, in units of 2^-22.
pub(super) enum Weights {
    Whole(Tensor),
    /// The weights divided by 2^11, and what remains.
    Halves {
        high: Tensor,
        low: Tensor,
    },
}

impl Weights {
    fn map(&self, each: impl Fn(&Tensor) -> Tensor) -> Weights {
        match self {
            Weights::Whole(whole) => Weights::Whole(each(whole)),
            Weights::Halves { high, low } => Weights::Halves { high: each(high), low: each(low) },
        }
    }

    /// S.
    fn outputs(&self) -> i64 {
        let (Weights::Whole(any) | Weights::Halves { high: any, .. }) = self;
        any.size()[1]
    }

    /// Levels from weighted sums: rounded and cut.
    fn resample(&self, sums: impl Fn(&Tensor) -> Tensor) -> Tensor {
        let half = f64::from(1 << (WEIGHT_BITS - 1));
        // Powers of two: nothing is lost but what the floor takes.
        let by = |bits: u32| 1.0 / f64::from(1 << bits);
        let shifted = match self {
            Weights::Whole(weights) => sums(weights).g_add_scalar_(half).g_mul_scalar_(by(WEIGHT_BITS)),
            Weights::Halves { high, low } => {
                let carried = sums(low).g_add_scalar_(half).g_mul_scalar_(by(LOW_BITS)).floor_();
                sums(high).g_add_(&carried).g_mul_scalar_(by(WEIGHT_BITS - LOW_BITS))
            }
        };
        let mut shifted = shifted;
        shifted.floor_().clamp_(0.0, 255.0)
    }
}
