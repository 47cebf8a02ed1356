//! Brightness, contrast, saturation and greyscale: `color` on levels f32 `[v, S, 3, S]`.
//!
//! All three blends are `d + factor (x - d)`, cut and truncated, with d black, the mean grey level or the pixel's own grey
//! level; so one round of operations serves views that are at different ones.

use super::hue::Hue;
use super::plan::{COLORS, Chunk, Numbers, ROUND, ROUNDS};
use tch::{Device, Kind, Tensor};

/// Constants on the device: numbers on the host would be turned into reciprocals, or be sent each time.
#[derive(Debug)]
pub struct Colors {
    /// ITU-R 601 weights of red, green and blue in units of 1, and 1/2 for rounding. All are multiples of 2^-16 and every
    /// sum is below 2^8, so float32 holds them exactly.
    luma: [Tensor; 3],
    half: Tensor,
    /// Pixels of a view, f64.
    area: Tensor,
}

impl Colors {
    pub fn new(device: Device, size_px: usize) -> Self {
        let number = |value: f64, kind| Tensor::from(value).to_kind(kind).to_device(device);
        Colors {
            luma: [19595.0, 38470.0, 7471.0].map(|weight| number(weight / 65536.0, Kind::Float)),
            half: number(0.5, Kind::Float),
            area: number((size_px * size_px) as f64, Kind::Double),
        }
    }

    /// Grey levels `[v, S, 1, S]`.
    pub fn grey(&self, levels: &Tensor) -> Tensor {
        let [red, green, blue] = [0, 1, 2].map(|channel| levels.narrow(2, channel, 1));
        let sum = self.half.addcmul(&red, &self.luma[0]);
        sum.shallow_clone().addcmul_(&green, &self.luma[1]).addcmul_(&blue, &self.luma[2]).floor_()
    }

    /// The mean grey level of each view, rounded: f32 `[v, 1, 1, 1]`.
    fn mean(&self, grey: &Tensor) -> Tensor {
        // A row's sum is an integer below 2^24; the sum of rows may be larger.
        let rows = grey.sum_dim_intlist([2i64, 3].as_slice(), false, Kind::Float); // [v, S]
        let total = rows.to_kind(Kind::Double).sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
        (total / &self.area + 0.5).floor_().to_kind(Kind::Float).view([-1, 1, 1, 1])
    }

    /// One round: each view is blended with its own background. `numbers` is f32 `[v, ROUND]`.
    fn blend(&self, levels: &mut Tensor, numbers: &Tensor) {
        let number = |place: i64| numbers.select(1, place).view([-1, 1, 1, 1]);
        let (factor, contrast, saturation) = (number(0), number(1), number(2));
        let grey = self.grey(levels);
        let background = (self.mean(&grey) * contrast).addcmul(&grey, &saturation); // one of the two is 0
        // What is not negative is truncated by the floor.
        let _ = levels.g_sub_(&background).g_mul_(&factor).g_add_(&background).clamp_(0.0, 255.0).floor_();
    }

    /// Colour jitter of the chunk's first views, in place.
    pub(super) fn jitter(&self, levels: &mut Tensor, chunk: &Chunk, numbers: &Numbers, hue: &Hue) {
        if chunk.jittered == 0 {
            return;
        }
        let table = numbers.table(chunk.colors, COLORS).to_kind(Kind::Float); // [jittered, COLORS]
        let round = |levels: &Tensor, round: usize, first: usize, count: usize| {
            if count > 0 {
                let part = |tensor: &Tensor| tensor.narrow(0, first as i64, count as i64);
                let columns = part(&table).narrow(1, (round * ROUND) as i64, ROUND as i64);
                self.blend(&mut part(levels), &columns);
            }
        };
        for (number, &count) in chunk.before.iter().enumerate() {
            round(levels, number, 0, count);
        }
        let steps = table.select(1, COLORS as i64 - 1).view([-1, 1, 1, 1]);
        hue.rotate(&mut levels.narrow(0, 0, chunk.jittered as i64), &steps);
        for (number, &count) in chunk.after.iter().enumerate() {
            round(levels, ROUNDS + number, chunk.jittered - count, count);
        }
    }
}
