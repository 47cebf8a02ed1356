//! Brightness, contrast, saturation and greyscale with the bits of Pillow.
//!
//! `ImageEnhance` blends a degenerate image with the image in float32 and
//! truncates: `d + factor (x - d)`, cut to 0..=255. Here on planes of u8.

use super::op::Op;
use crate::vectorise::truncate;

/// Greyscale; its number means nothing.
pub static GRAYSCALE: Op = Op {
    name: "grey",
    draw: |recipe, stream| stream.chance(recipe.grayscale_prob).then_some(0.0),
    cpu: |canvas, _| {
        if canvas.channels() == 3 {
            let levels = std::mem::take(&mut canvas.levels);
            let (red, green, blue) = planes(levels);
            grayscale(red, green, blue);
            canvas.levels = red;
        }
    },
    numbers: |_, _| Vec::new(),
    most_numbers: |_| 0,
    tensor: |renderer, levels, _| renderer.colors.grey(levels),
    code: 5,
};

/// The three channels of planes `[3, area]`.
pub(super) fn planes(levels: &mut [u8]) -> (&mut [u8], &mut [u8], &mut [u8]) {
    let area = levels.len() / 3;
    let (red, rest) = levels.split_at_mut(area);
    let (green, blue) = rest.split_at_mut(area);
    (red, green, blue)
}

vectorised! {
    /// Blends with black: `factor x`.
    pub fn brightness(levels: &mut [u8], factor: f32) {
        for level in levels {
            *level = truncate(f32::from(*level) * factor);
        }
    }
}

vectorised! {
    /// Blends every level with the level `mean`.
    pub fn contrast(levels: &mut [u8], mean: u8, factor: f32) {
        let mean = f32::from(mean);
        for level in levels {
            *level = truncate(mean + factor * (f32::from(*level) - mean));
        }
    }
}

vectorised! {
    /// Blends every pixel with its own grey level.
    pub fn saturation(red: &mut [u8], green: &mut [u8], blue: &mut [u8], factor: f32) {
        for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
            let grey = f32::from(luma(*r, *g, *b));
            *r = truncate(grey + factor * (f32::from(*r) - grey));
            *g = truncate(grey + factor * (f32::from(*g) - grey));
            *b = truncate(grey + factor * (f32::from(*b) - grey));
        }
    }
}

vectorised! {
    /// Replaces the red plane by the grey level.
    pub fn grayscale(red: &mut [u8], green: &[u8], blue: &[u8]) {
        for ((r, &g), &b) in red.iter_mut().zip(green).zip(blue) {
            *r = luma(*r, g, b);
        }
    }
}

vectorised! {
    /// Sum of the grey levels.
    fn luma_sum(red: &[u8], green: &[u8], blue: &[u8]) -> u32 {
        red.iter().zip(green).zip(blue).map(|((&r, &g), &b)| u32::from(luma(r, g, b))).sum()
    }
}

/// The level of `ImageEnhance.Contrast`'s degenerate image: the mean grey level, rounded.
pub fn mean_luma(red: &[u8], green: &[u8], blue: &[u8]) -> u8 {
    // Blocks, so that 32 bits hold each sum.
    const BLOCK: usize = 1 << 16;
    let blocks = red.chunks(BLOCK).zip(green.chunks(BLOCK)).zip(blue.chunks(BLOCK));
    let total: u64 = blocks.map(|((r, g), b)| u64::from(luma_sum(r, g, b))).sum();
    rounded_mean(total, red.len())
}

/// [`mean_luma`] of an image whose channels are equal: its grey level is that level.
pub fn mean_grey(grey: &[u8]) -> u8 {
    rounded_mean(grey.iter().map(|&level| u64::from(level)).sum(), grey.len())
}

fn rounded_mean(total: u64, count: usize) -> u8 {
    (total as f64 / count as f64 + 0.5) as u8
}

/// ITU-R 601 luma in 16-bit fixed point, rounded (Pillow's `convert("L")`).
#[inline(always)]
pub fn luma(r: u8, g: u8, b: u8) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}
