//! The bitmap: drawn three times as large as wanted and averaged down, because
//! plotters places letters and line ends on whole pixels.

use anyhow::{Context, Result};
use image::ImageEncoder;
use image::codecs::png::PngEncoder;
use plotters::style::{FontStyle, register_font};
use std::path::Path;
use std::sync::Once;

/// Drawn pixels per pixel of the picture, each way.
pub(super) const SCALE: u32 = 3;
/// The name under which plotters knows our font.
pub(super) const FONT: &str = "embedded";

/// A finished picture, RGB, row-major.
pub(super) struct Picture {
    pub width: u32,
    pub height: u32,
    pixels: Vec<u8>,
}

impl Picture {
    /// The mean of every `SCALE` x `SCALE` block of `drawn`, which is `width * SCALE` pixels wide.
    pub fn shrink(drawn: &[u8], width: u32, height: u32) -> Self {
        let (scale, row) = (SCALE as usize, (width * SCALE * 3) as usize);
        let mut pixels = Vec::with_capacity((width * height * 3) as usize);
        for y in 0..height as usize {
            for x in 0..width as usize {
                for channel in 0..3 {
                    let block = (0..scale).flat_map(|dy| (0..scale).map(move |dx| (dy, dx)));
                    let sum: usize = block
                        .map(|(dy, dx)| usize::from(drawn[(y * scale + dy) * row + (x * scale + dx) * 3 + channel]))
                        .sum();
                    pixels.push(((sum + scale * scale / 2) / (scale * scale)) as u8);
                }
            }
        }
        Picture { width, height, pixels }
    }

    pub fn png(&self) -> Result<Vec<u8>> {
        let mut png = Vec::new();
        PngEncoder::new(&mut png)
            .write_image(&self.pixels, self.width, self.height, image::ExtendedColorType::Rgb8)
            .context("cannot encode a picture as PNG")?;
        Ok(png)
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.png()?).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Makes the embedded font known to plotters, once a process.
pub(super) fn load_font() {
    static LOADED: Once = Once::new();
    LOADED.call_once(|| {
        let loaded = register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
        assert!(loaded.is_ok(), "the embedded font is whole");
    });
}
