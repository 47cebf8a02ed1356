//! JPEG to RGB: baseline and progressive, grey, colour, CMYK and YCCK.
//!
//! The decoder's strict mode finds most truncations. Two things it leaves to its
//! caller: it does not ask for an end marker, and it refuses stray bytes between
//! headers, which photographs from the web have and other decoders step over.

use super::{Look, Unseen, check_size, exif, field};
use crate::pixels::RgbImage;
use std::ops::Range;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};

/// JPEG stores a side in 16 bits.
const MAX_SIDE: usize = 65_535;

/// What the headers before the first scan say.
pub fn look(bytes: &[u8]) -> Result<Look, Unseen> {
    let headers = headers(bytes, true)?;
    let Some(frame) = headers.frame else { return Err(Unseen::Broken("broken JPEG (no frame header)".to_owned())) };
    let header = field(bytes, frame, 10)?;
    if let Some(what) = not_read(header[1], header[4]) {
        return Err(Unseen::Broken(format!("it is {what}, which is not read: write it as a usual JPEG or as PNG")));
    }
    let side = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
    let orientation = headers.exif.map_or(1, |range| exif::orientation(&bytes[range]));
    Ok(Look { cmyk: header[9] == 4, orientation, ..Look::new("JPEG", side(7), side(5)) })
}

/// The kinds of JPEG that no usual decoder reads, by the code of the frame's marker (ITU-T T.81, table B.1) and the bits
/// of a sample.
fn not_read(code: u8, bits: u8) -> Option<&'static str> {
    match code {
        0xc9 | 0xca => Some("a JPEG with arithmetic coding"),
        0xc3 | 0xcb => Some("a lossless JPEG"),
        0xc5..=0xc7 | 0xcd..=0xcf => Some("a hierarchical JPEG"),
        _ if bits == 12 => Some("a JPEG with 12 bits a sample"),
        _ => None,
    }
}

/// Decodes into `out`, `[height, width, 3]`; the error is the reason, in words.
pub fn decode(bytes: &[u8], out: &mut RgbImage) -> Result<(), String> {
    let headers = headers(bytes, false).map_err(|_| "truncated: no image data")?;
    // Backwards, because it is usually the last thing in the file.
    if !bytes[headers.scan..].windows(2).rev().any(|pair| pair == [0xff, 0xd9]) {
        return Err("truncated: no end marker".to_owned());
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
    let broken = |error: DecodeErrors| error.to_string();
    decoder.decode_headers().map_err(broken)?;
    let (width, height) = decoder.dimensions().ok_or("no size")?;
    check_size(width, height)?;
    (out.width, out.height) = (width, height);
    out.pixels.resize(width * height * 3, 0);
    decoder.decode_into(&mut out.pixels).map_err(broken)
}

/// Where things are before the first scan.
#[derive(Default)]
struct Headers {
    /// The marker of the first scan. Inside a scan FF is always followed by 0 or a restart
    /// marker, so an FF D9 after this is an end marker; before it, it may be that of a thumbnail.
    scan: usize,
    /// The marker of the frame.
    frame: Option<usize>,
    /// EXIF data.
    exif: Option<Range<usize>>,
    /// Bytes that belong to no header.
    stray: Vec<Range<usize>>,
}

/// Steps over the headers up to the first scan, or to the frame where that is all that is wanted.
///
/// Errors: the bytes end before.
fn headers(bytes: &[u8], to_frame: bool) -> Result<Headers, Unseen> {
    let mut found = Headers::default();
    let mut at = 2;
    loop {
        let marker = field(bytes, at, 2)?;
        match (marker[0], marker[1]) {
            (0xff, 0xda) => return Ok(Headers { scan: at, ..found }),
            // Markers without a body.
            (0xff, 0x01 | 0xd0..=0xd8) => at += 2,
            // Fill.
            (0xff, 0xff) => at += 1,
            (0xff, code @ 0x02..) => {
                let length = field(bytes, at + 2, 2)?;
                let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
                match code {
                    // Not the tables of codes, an extension, or arithmetic conditioning.
                    0xc0..=0xcf if !matches!(code, 0xc4 | 0xc8 | 0xcc) => {
                        found.frame = found.frame.or(Some(at));
                        if to_frame {
                            return Ok(found);
                        }
                    }
                    0xe1 if found.exif.is_none() && field(bytes, at + 4, 6)? == b"Exif\0\0" => {
                        field(bytes, at, end.saturating_sub(at))?;
                        found.exif = Some(at + 4..end.max(at + 4));
                    }
                    _ => {}
                }
                at = end;
            }
            _ => {
                match found.stray.last_mut() {
                    Some(last) if last.end == at => last.end += 1,
                    _ => found.stray.push(at..at + 1),
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
