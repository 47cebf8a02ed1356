//! BMP of Windows and OS/2.

use super::{Look, Unseen, samples, unseen};
use crate::pixels::RgbImage;
use image::ImageDecoder;
use image::codecs::bmp::BmpDecoder;
use std::io::Cursor;

/// "BM", and a header of one of the sizes that there are: texts begin with these letters too.
pub fn is(bytes: &[u8]) -> bool {
    bytes.starts_with(b"BM") && matches!(bytes.get(14..18), Some([12 | 16 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0]))
}

pub fn look(bytes: &[u8]) -> Result<Look, Unseen> {
    let decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(|error| unseen("BMP", error))?;
    let (width, height) = decoder.dimensions();
    Ok(Look::new("BMP", width as usize, height as usize))
}

/// Decodes into `out`; the error is the reason, in words.
pub fn decode(bytes: &[u8], out: &mut RgbImage) -> Result<(), String> {
    samples::of_decoder(BmpDecoder::new(Cursor::new(bytes)).map_err(|error| error.to_string())?, out)
}
