//! Weights of Pillow's antialiased triangle, from crop boxes, on the device: `filter` with tensors for loops.
//!
//! The same float64 operations in the same order as there, so the same fixed-point weights.

use super::plan::AXIS;
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
    pub(super) fn exact_for(self, taps: usize) -> Products {
        if taps > MOST_TAPS_IN_HALVES { Products::Float64 } else { self }
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Products::Float64 => Kind::Double,
            Products::Float32Halves => Kind::Float,
        }
    }
}

/// Matrices that resample one axis: `[R, S, length]`, row o of matrix r holding the weights, in units of 2^-22, that
/// output o of axis r has in an image's axis of `length` pixels; 0 outside the crop.
///
/// `axes` is f64 `[R, AXIS]` (`plan::axis`), no window is longer than `taps`.
pub(super) fn matrices(axes: &Tensor, outputs: i64, taps: i64, length: i64, products: Products) -> Weights {
    let (count, options) = (axes.size()[0], (Kind::Double, axes.device()));
    let axes = axes.view([count, AXIS as i64, 1, 1]);
    let number = |place: i64| axes.select(1, place); // [R, 1, 1]
    let (first, step, offset, input) = (number(0), number(1), number(2), number(3));
    let (scale, support, inverse, own_taps) = (number(4), number(5), number(6), number(7));

    let output = Tensor::arange(outputs, options).view([1, outputs, 1]) * step + first; // [R, S, 1]
    let center = (output + 0.5) * scale;
    // Truncation of what is not negative is the floor.
    let begin = (&center - &support + 0.5).clamp_min(0.0).floor_();
    let end = (&center + &support + 0.5).floor_().minimum(&input).minimum(&(&begin + own_taps));
    let position = Tensor::arange(taps, options) + &begin; // [R, S, taps]
    let distance = (&position - &center + 0.5) * inverse;
    let inside = position.lt_tensor(&end);
    let exact = (distance.abs().neg_() + 1.0).clamp_min_(0.0) * inside;
    // One by one, as the CPU adds: three and more summands depend on their order.
    let mut total = exact.narrow(2, 0, 1).copy();
    for tap in 1..taps {
        let _ = total.g_add_(&exact.narrow(2, tap, 1));
    }
    let fixed = (exact / total * f64::from(1 << WEIGHT_BITS) + 0.5).floor_();
    // Windows may reach beyond the axis with weights of 0: the columns added for them are left out again.
    let index = (position + offset).to_kind(Kind::Int64);
    let placed = |weights: &Tensor| {
        let options = (weights.kind(), weights.device());
        Tensor::zeros([count, outputs, length + taps], options).scatter_(2, &index, weights).narrow(2, 0, length)
    };
    match products {
        Products::Float64 => Weights::Whole(placed(&fixed)),
        Products::Float32Halves => {
            let unit = f64::from(1 << LOW_BITS);
            let high = (&fixed / unit).floor_();
            let low = fixed - &high * unit;
            Weights::Halves { high: placed(&high.to_kind(Kind::Float)), low: placed(&low.to_kind(Kind::Float)) }
        }
    }
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
    pub(super) fn map(&self, each: impl Fn(&Tensor) -> Tensor) -> Weights {
        match self {
            Weights::Whole(whole) => Weights::Whole(each(whole)),
            Weights::Halves { high, low } => Weights::Halves { high: each(high), low: each(low) },
        }
    }

    /// S.
    pub(super) fn outputs(&self) -> i64 {
        let (Weights::Whole(any) | Weights::Halves { high: any, .. }) = self;
        any.size()[1]
    }

    /// Levels from weighted sums: rounded and cut.
    pub(super) fn resample(&self, sums: impl Fn(&Tensor) -> Tensor) -> Tensor {
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
