//! The bitmap: drawn three times as large as wanted and averaged down, because
//! plotters places letters and line ends on whole pixels.

use crate::pixels::RgbImage;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};
use std::sync::Once;

/// Drawn pixels per pixel of the picture, each way.
pub(super) const SCALE: u32 = 3;
/// The name under which plotters knows our font.
const FONT: &str = "embedded";
pub(super) const INK: RGBColor = RGBColor(40, 40, 40);
/// Why drawing cannot fail.
pub(super) const DRAWS: &str = "the bitmap is in memory and the font in the program";

pub(super) type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// A length of the finished picture as drawn pixels.
pub(super) fn px(length: f64) -> u32 {
    (length * f64::from(SCALE)).round() as u32
}

/// A white picture of so many pixels with what `paint` draws on it, at [`SCALE`].
pub(super) fn painted(width: usize, height: usize, paint: impl FnOnce(&Area)) -> RgbImage {
    load_font();
    let (wide, high) = (width as u32 * SCALE, height as u32 * SCALE);
    let mut drawn = vec![255; wide as usize * high as usize * 3];
    {
        let area = BitMapBackend::with_buffer(&mut drawn, (wide, high)).into_drawing_area();
        paint(&area);
        area.present().expect(DRAWS);
    }
    shrink(&drawn, width, height)
}

pub(super) fn font(size_px: f64) -> TextStyle<'static> {
    (FONT, px(size_px)).into_font().color(&INK)
}

/// Text at a drawn pixel, half its height above and below.
pub(super) fn text(area: &Area, text: &str, size_px: f64, side: HPos, at: (i32, i32)) {
    area.draw_text(text, &font(size_px).pos(Pos::new(side, VPos::Center)), at).expect(DRAWS);
}

/// In pixels of the finished picture.
pub(super) fn width_of(area: &Area, text: &str, size_px: f64) -> f64 {
    f64::from(area.estimate_text_size(text, &font(size_px)).expect(DRAWS).0) / f64::from(SCALE)
}

/// The mean of every `SCALE` x `SCALE` block of `drawn`, RGB, `width * SCALE` pixels wide.
fn shrink(drawn: &[u8], width: usize, height: usize) -> RgbImage {
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
fn load_font() {
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
