//! JPEG to RGB: baseline and progressive, grey, colour, CMYK and YCCK.
//!
//! The decoder's strict mode finds most truncations. Two things it leaves to its
//! caller: it does not ask for an end marker, and it refuses stray bytes between
//! headers, which photographs from the web have and other decoders step over.

use super::decode::check_size;
use crate::pixels::RgbImage;
use std::ops::Range;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};

/// JPEG stores a side in 16 bits.
const MAX_SIDE: usize = 65_535;

/// Decodes into `out`, `[height, width, 3]`; the error is the reason, in words.
pub fn decode_jpeg(bytes: &[u8], out: &mut RgbImage) -> Result<(), String> {
    let headers = headers(bytes).ok_or("broken JPEG (truncated: no image data)")?;
    // Backwards, because it is usually the last thing in the file.
    if !bytes[headers.scan..].windows(2).rev().any(|pair| pair == [0xff, 0xd9]) {
        return Err("broken JPEG (truncated: no end marker)".to_owned());
    }
    if headers.stray.is_empty() {
        decode_strictly(bytes, out)
    } else {
        decode_strictly(&without(bytes, &headers.stray), out)
    }
}

fn decode_strictly(bytes: &[u8], out: &mut RgbImage) -> Result<(), String> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(MAX_SIDE)
        .set_max_height(MAX_SIDE)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let broken = |error: DecodeErrors| format!("broken JPEG ({error})");
    decoder.decode_headers().map_err(broken)?;
    let (width, height) = decoder.dimensions().ok_or("broken JPEG (no size)")?;
    check_size(width, height)?;
    (out.width, out.height) = (width, height);
    out.pixels.resize(width * height * 3, 0);
    decoder.decode_into(&mut out.pixels).map_err(broken)
}

/// Where things are before the first scan.
struct Headers {
    /// The marker of the first scan. Inside a scan FF is always followed by 0 or a restart
    /// marker, so an FF D9 after this is an end marker; before it, it may be that of a thumbnail.
    scan: usize,
    /// Bytes that belong to no header.
    stray: Vec<Range<usize>>,
}

/// Steps over the headers; `None` if there is no scan.
fn headers(bytes: &[u8]) -> Option<Headers> {
    let mut stray: Vec<Range<usize>> = Vec::new();
    let mut at = 2;
    loop {
        let &[mark, code] = bytes.get(at..at + 2)? else { return None };
        match (mark, code) {
            (0xff, 0xda) => return Some(Headers { scan: at, stray }),
            // Markers without a body.
            (0xff, 0x01 | 0xd0..=0xd8) => at += 2,
            // Fill.
            (0xff, 0xff) => at += 1,
            (0xff, 0x02..) => {
                let &[high, low] = bytes.get(at + 2..at + 4)? else { return None };
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
            }
            _ => {
                match stray.last_mut() {
                    Some(last) if last.end == at => last.end += 1,
                    _ => stray.push(at..at + 1),
                }
                at += 1;
            }
        }
    }
}

/// A copy of `bytes` that leaves out `ranges`, which are in order.
fn without(bytes: &[u8], ranges: &[Range<usize>]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut from = 0;
    for range in ranges {
        kept.extend_from_slice(&bytes[from..range.start]);
        from = range.end;
    }
    kept.extend_from_slice(&bytes[from..]);
    kept
}
