//! WebP, lossy and lossless; the first picture of an animation.

use super::{Look, Unseen, exif, field, samples};
use crate::pixels::RgbImage;
use image_webp::WebPDecoder;
use std::io::Cursor;

/// Most bytes of what a file holds beside its pixels.
const LARGEST_NOTE: usize = 16 << 20;
/// The container says that there is EXIF data.
const HAS_EXIF: u8 = 0x08;

pub fn is(bytes: &[u8]) -> bool {
    matches!(bytes, [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..])
}

/// The header; where the container says that there is EXIF data, which comes last, all of the file.
pub fn look(bytes: &[u8]) -> Result<Look, Unseen> {
    let header = field(bytes, 12, 18)?;
    let two = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let three = |at: usize| two(at) | usize::from(header[at + 2]) << 16;
    match &header[..4] {
        b"VP8 " => Ok(Look::new("WebP", two(14) & 0x3fff, two(16) & 0x3fff)),
        b"VP8L" => {
            let sides = two(9) | two(11) << 16;
            Ok(Look::new("WebP", (sides & 0x3fff) + 1, (sides >> 14 & 0x3fff) + 1))
        }
        b"VP8X" => {
            let look = Look::new("WebP", three(12) + 1, three(15) + 1);
            Ok(Look { orientation: if header[8] & HAS_EXIF != 0 { orientation(bytes)? } else { 1 }, ..look })
        }
        _ => Err(Unseen::Broken("broken WebP (no header)".to_owned())),
    }
}

fn orientation(bytes: &[u8]) -> Result<u8, Unseen> {
    let mut at = 12;
    loop {
        let chunk = field(bytes, at, 8)?;
        let length = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]) as usize;
        if &chunk[..4] == b"EXIF" {
            return Ok(exif::orientation(field(bytes, at + 8, length)?));
        }
        at = at.saturating_add(8).saturating_add(length.next_multiple_of(2));
    }
}

/// Decodes into `out`; the error is the reason, in words.
pub fn decode(bytes: &[u8], out: &mut RgbImage) -> Result<(), String> {
    let broken = |error: image_webp::DecodingError| error.to_string();
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(broken)?;
    decoder.set_memory_limit(LARGEST_NOTE);
    let (width, height) = decoder.dimensions();
    let pixel = samples::pixel(if decoder.has_alpha() { 4 } else { 3 }, 1);
    let room = samples::room(out, (width as usize, height as usize), pixel)?;
    decoder.read_image(room).map_err(broken)?;
    samples::gather(out, pixel);
    Ok(())
}
