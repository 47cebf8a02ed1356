//! The bitmap: drawn three times as large as wanted and averaged down, because
//! plotters places letters and line ends on whole pixels.

use crate::pixels::RgbImage;
use plotters::style::{FontStyle, register_font};
use std::sync::Once;

/// Drawn pixels per pixel of the picture, each way.
pub(super) const SCALE: u32 = 3;
/// The name under which plotters knows our font.
pub(super) const FONT: &str = "embedded";

/// The mean of every `SCALE` x `SCALE` block of `drawn`, RGB, `width * SCALE` pixels wide.
pub(super) fn shrink(drawn: &[u8], width: usize, height: usize) -> RgbImage {
    let (scale, row) = (SCALE as usize, width * SCALE as usize * 3);
    let mut picture = RgbImage::new(width, height);
    for (place, pixel) in picture.pixels.chunks_exact_mut(3).enumerate() {
        let corner = place / width * scale * row + place % width * scale * 3;
        for (channel, mean) in pixel.iter_mut().enumerate() {
            let block = (0..scale).flat_map(|dy| (0..scale).map(move |dx| corner + dy * row + dx * 3 + channel));
            let sum: usize = block.map(|at| usize::from(drawn[at])).sum();
            *mean = ((sum + scale * scale / 2) / (scale * scale)) as u8;
        }
    }
    picture
}

/// Makes the embedded font known to plotters, once a process.
pub(super) fn load_font() {
    static LOADED: Once = Once::new();
    LOADED.call_once(|| {
        let loaded = register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
        assert!(loaded.is_ok(), "the embedded font is whole");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_is_the_mean_of_its_block() {
        // Two pixels wide, one high; 6 x 3 drawn ones whose red is 0 on the left and counts on the right.
        let mut drawn = vec![0; 6 * 3 * 3];
        for y in 0..3 {
            for x in 3..6 {
                drawn[(y * 6 + x) * 3] = (10 * y + x) as u8;
            }
        }
        assert_eq!(shrink(&drawn, 2, 1).pixels, [0, 0, 0, 14, 0, 0]);
    }
}
