//! Rotation of the hue: `hue` on levels f32 `[v, S, 3, S]`.
//!
//! The 8-bit hue of a colour depends on the order of its channels and on a fraction of two levels, so a table of all of
//! them, made by the CPU engine's own function, stands for its float64 arithmetic. On the way back each channel falls from
//! the value along a ramp of 85 steps, at its own place of the circle of 510; the level is the nearest integer to a
//! fraction with an odd denominator, as in `hue`.

use crate::augment::hue::hue_level;
use tch::{Device, Kind, Tensor};

/// Denominator of a level on the ramp.
const RAMP: f32 = 255.0 * 85.0;

#[derive(Debug)]
pub(super) struct Hue {
    /// f32 `[6 * 256 * 256]`: hue by case, distance from the largest to the middle level, and range of levels.
    levels: Tensor,
    /// f32 `[1, 1, 3, 1]`: a channel is `sign |x - center| + offset` steps below the value at place x of the circle.
    center: Tensor,
    sign: Tensor,
    offset: Tensor,
}

impl Hue {
    pub fn new(device: Device) -> Self {
        let mut table = vec![0f32; 6 << 16];
        for (case, of_case) in table.chunks_exact_mut(1 << 16).enumerate() {
            for distance in 0..256 {
                for range in distance.max(1)..256 {
                    let step = distance as f32 / range as f32;
                    let sixths = match case {
                        0 => 1.0 - step,
                        1 => step - 1.0,
                        2 => 3.0 - step,
                        3 => 1.0 + step,
                        4 => 3.0 + step,
                        _ => 5.0 - step,
                    };
                    of_case[distance * 256 + range] = hue_level(sixths) as f32;
                }
            }
        }
        let channels = |values: [f32; 3]| Tensor::from_slice(&values).view([1, 1, 3, 1]).to_device(device);
        Hue {
            levels: Tensor::from_slice(&table).to_device(device),
            center: channels([255.0, 170.0, 340.0]),
            sign: channels([-1.0, 1.0, 1.0]),
            offset: channels([170.0, -85.0, -85.0]),
        }
    }

    /// Turns the hue of every pixel of view v by `steps[v]` / 255 of a turn, in place; `steps` is f32 `[v, 1, 1, 1]`.
    pub fn rotate(&self, levels: &mut Tensor, steps: &Tensor) {
        let [red, green, blue] = [0, 1, 2].map(|channel| levels.narrow(2, channel, 1)); // [v, S, 1, S]
        let max = red.maximum(&green).maximum(&blue);
        let min = red.minimum(&green).minimum(&blue);
        let range = &max - &min;
        // max - middle, middle = r + g + b - max - min
        let distance = (&max + &max + &min) - (&red + &green + &blue);
        // Red wins ties for the largest, then green; the lower case of a pair is that of the smallest channel before it.
        let is = |condition: Tensor| condition.to_kind(Kind::Float);
        let case_green_blue = is(red.ne_tensor(&min)) + 4.0 - is(green.eq_tensor(&max)) * 2.0;
        let case = is(blue.ne_tensor(&min)).where_self(&red.eq_tensor(&max), &case_green_blue);
        let index = ((case * 256.0 + distance) * 256.0 + range.clamp_min(1.0)).to_kind(Kind::Int);
        let hue = self.levels.index_select(0, &index.view(-1)).view_as(&index);
        let mut saturation = (range / max.clamp_min(1.0) * 255.0).floor_();

        // Steps and hue wrap at 256, the circle has 255 of them: 2 * 255 = 510 is 0 again.
        let place = (hue + steps).remainder_(256.0) * 2.0;
        let mut below = (place - &self.center).abs_().g_mul_(&self.sign).g_add_(&self.offset).clamp_(0.0, 85.0);
        let fall = saturation.g_mul_(&max).neg_();
        let mut numerator = below.g_mul_(&fall).g_add_(&(max * f64::from(RAMP))); // [v, S, 3, S], exact
        let level = numerator.g_mul_scalar_(f64::from(1.0 / RAMP)).g_add_scalar_(0.5).floor_();
        levels.copy_(&level);
    }
}
