//! Pictures as PNG files.

use crate::durable;
use crate::own;
use crate::pixels::RgbRef;
use anyhow::{Context, Result};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use std::io::Write;
use std::path::Path;

/// The bytes of a PNG file.
///
/// # Errors
/// The picture has no pixels.
///
/// # Panics
/// The pixels do not fill the picture's width and height: a bug.
pub fn encode_png(picture: RgbRef) -> Result<Vec<u8>> {
    let (width, height) = (picture.width, picture.height);
    let context = || format!("cannot encode a picture of {width} x {height} pixels as PNG");
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(
            picture.pixels,
            width.try_into().with_context(context)?,
            height.try_into().with_context(context)?,
            ExtendedColorType::Rgb8,
        )
        .with_context(context)?;
    Ok(png)
}

/// Writes a PNG file in one step, with the mark of the program's own pictures.
///
/// # Errors
/// As [`encode_png`], or the file cannot be written.
pub fn save_png(path: &Path, picture: RgbRef) -> Result<()> {
    let mut png = encode_png(picture)?;
    own::mark_picture(&mut png);
    durable::replace(path, |file| Ok(file.write_all(&png)?))
}
