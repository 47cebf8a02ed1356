//! PNG of every kind.

use super::{Look, Unseen, exif, field, samples};
use crate::pixels::RgbImage;
use image::Limits;
use image::codecs::png::PngDecoder;
use std::io::Cursor;

pub const MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The header, and what the chunks before the pixels say; of those behind them, what is there.
pub fn look(bytes: &[u8]) -> Result<Look, Unseen> {
    let header = field(bytes, 8, 18)?;
    if !header.starts_with(b"\0\0\0\rIHDR") || !bytes.starts_with(MAGIC) {
        return Err(Unseen::Broken("broken PNG (no header)".to_owned()));
    }
    let side = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    let (bits, colour) = (header[16], header[17]);
    let mut look = Look { deep: bits == 16, ..Look::new("PNG", side(8), side(12)) };
    let (mut at, mut pixels) = (33, false);
    loop {
        let chunk = match field(bytes, at, 8) {
            Err(_) if pixels => return Ok(look),
            chunk => chunk?,
        };
        let length = u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]) as usize;
        match &chunk[4..] {
            b"IDAT" => pixels = true,
            b"tRNS" => look.clear_palette = colour == 3,
            b"eXIf" => match field(bytes, at + 8, length) {
                Err(_) if pixels => return Ok(look),
                note => look.orientation = exif::orientation(note?),
            },
            b"IEND" => return Ok(look),
            _ => {}
        }
        at = at.saturating_add(length).saturating_add(12);
    }
}

/// Decodes into `out`; the error is the reason, in words.
pub fn decode(bytes: &[u8], out: &mut RgbImage) -> Result<(), String> {
    let mut limits = Limits::no_limits();
    // Of the decoder itself: two rows, and what describes the picture.
    limits.max_alloc = Some(128 << 20);
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(|error| error.to_string())?;
    samples::of_decoder(decoder, out)
}
