//! Rotation of the hue with the bits of Pillow: RGB to 8-bit HSV, a shift of H
//! that wraps, and back (torchvision's `adjust_hue` on PIL images).
//!
//! Branch-free, so that the loop vectorises. Two facts make it exact and cheap:
//! of the three quotients in Pillow's conversion one is 0 and one is 1, so one
//! float32 division gives the hue; and on the way back every level is the nearest
//! integer to a fraction with an odd denominator (255 or 255 * 85), which float32
//! resolves. Golden test: all 2^24 colours.

use crate::vectorise::truncate;

/// Steps of 8-bit hue for a shift in turns, truncated towards 0 as torchvision does.
pub fn steps(turns: f32) -> u8 {
    // Wraps: -1 step is 255 steps.
    (f64::from(turns) * 255.0) as i32 as u8
}

vectorised! {
    /// Turns the hue of every pixel by `steps` / 255 of a turn.
    pub fn rotate(red: &mut [u8], green: &mut [u8], blue: &mut [u8], steps: u8) {
        for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
            let (hue, saturation, value) = to_hsv(*r, *g, *b);
            (*r, *g, *b) = to_rgb((hue + i32::from(steps)) & 255, saturation, value);
        }
    }
}

/// Pillow's `rgb2hsv`: hue and saturation truncated to 0..=255.
#[inline(always)]
fn to_hsv(r: u8, g: u8, b: u8) -> (i32, i32, i32) {
    let (r, g, b) = (i32::from(r), i32::from(g), i32::from(b));
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let middle = r + g + b - max - min;
    // Greys have no hue and no saturation; the 1s only keep the divisions defined.
    let (range, top) = ((max - min).max(1) as f32, max.max(1) as f32);
    let step = (max - middle) as f32 / range;
    // Sixths of a turn from red, in -1..=5; red wins ties, then green.
    let sixths = if r == max {
        if b == min { 1.0 - step } else { step - 1.0 }
    } else if g == max {
        if r == min { 3.0 - step } else { 1.0 + step }
    } else if r == min {
        3.0 + step
    } else {
        5.0 - step
    };
    // SAFETY: `step` is a quotient of levels in 0..=1, so `sixths` is in -1..=5.
    let hue = unsafe { hue_of(sixths) };
    let saturation = i32::from(truncate((max - min) as f32 / top * 255.0));
    (hue, saturation, max)
}

/// The 8-bit hue at so many sixths of a turn from red.
///
/// # Safety
/// `sixths` is in -1..=5.
#[inline(always)]
unsafe fn hue_of(sixths: f32) -> i32 {
    // float64 as in Pillow: it rounds once to float32, and in float32 the product could reach the next level.
    let turns = f64::from(sixths) * (1.0 / 6.0) + 1.0;
    let turns = if turns >= 1.0 { turns - 1.0 } else { turns } as f32;
    // SAFETY: `turns` is in 0..=1.
    unsafe { (f64::from(turns) * 255.0).to_int_unchecked::<i32>() }
}

/// [`hue_of`] for tables.
///
/// # Panics
/// Outside of -1..=5 sixths.
pub(super) fn hue_level(sixths: f32) -> i32 {
    assert!((-1.0..=5.0).contains(&sixths), "{sixths} sixths of a turn");
    // SAFETY: checked in the line above.
    unsafe { hue_of(sixths) }
}

/// Pillow's `hsv2rgb`.
#[inline(always)]
fn to_rgb(hue: i32, saturation: i32, value: i32) -> (u8, u8, u8) {
    // sector = floor(hue * 6 / 255) in 0..=6, of which 6 (hue 255) is 0 again; 772 / 2^16 stands for 1 / 85.
    let sector = (2 * hue * 772) >> 16;
    let along = 2 * hue - 85 * sector;
    let sector = if sector == 6 { 0 } else { sector };
    let low = nearest(value * (255 - saturation), 1.0 / 255.0);
    let distance = if sector & 1 == 1 { along } else { 85 - along };
    let middle = nearest(value * (255 * 85 - saturation * distance), 1.0 / (255.0 * 85.0));
    let high = value as u8;
    let pick = |at_high: [i32; 2], at_middle: [i32; 2]| {
        if sector == at_high[0] || sector == at_high[1] {
            high
        } else if sector == at_middle[0] || sector == at_middle[1] {
            middle
        } else {
            low
        }
    };
    (pick([0, 5], [1, 4]), pick([1, 2], [0, 3]), pick([3, 4], [2, 5]))
}

#[inline(always)]
fn nearest(numerator: i32, reciprocal: f32) -> u8 {
    truncate(numerator as f32 * reciprocal + 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_truncates_towards_zero_and_wraps() {
        assert_eq!([steps(0.1), steps(0.003), steps(-0.003), steps(-0.1)], [25, 0, 0, 231]);
    }

    #[test]
    fn greys_stay() {
        for level in 0..=255u8 {
            let (mut r, mut g, mut b) = ([level], [level], [level]);
            rotate(&mut r, &mut g, &mut b, 77);
            assert_eq!((r, g, b), ([level], [level], [level]));
        }
    }
}
