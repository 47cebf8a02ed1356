//! Netpbm's formats: PBM, PGM, PPM, as text and as bytes, and PAM.

use super::{Look, Unseen, samples, unseen};
use crate::pixels::RgbImage;
use image::ImageDecoder;
use image::codecs::pnm::PnmDecoder;
use std::io::Cursor;

/// "P" and a digit, white space, and what a header goes on with: texts may begin with two such letters too.
pub fn is(bytes: &[u8]) -> bool {
    let [b'P', b'1'..=b'7', space, rest @ ..] = bytes else { return false };
    let next = rest.iter().find(|byte| !byte.is_ascii_whitespace());
    space.is_ascii_whitespace() && (bytes[1] == b'7' || next.is_none_or(|byte| byte.is_ascii_digit() || *byte == b'#'))
}

pub fn look(bytes: &[u8]) -> Result<Look, Unseen> {
    let decoder = PnmDecoder::new(Cursor::new(bytes)).map_err(|error| unseen("PNM", error))?;
    let (width, height) = decoder.dimensions();
    let deep = decoder.color_type().bytes_per_pixel() > decoder.color_type().channel_count();
    Ok(Look { deep, ..Look::new("PNM", width as usize, height as usize) })
}

/// Decodes into `out`; the error is the reason, in words.
pub fn decode(bytes: &[u8], out: &mut RgbImage) -> Result<(), String> {
    samples::of_decoder(PnmDecoder::new(Cursor::new(bytes)).map_err(|error| error.to_string())?, out)
}
